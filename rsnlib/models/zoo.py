"""The networks by name, each from one description."""

from dataclasses import asdict, dataclass, replace

from rsnlib.errors import UserError
from rsnlib.models.attention import ATTENTIONS
from rsnlib.models.network import Network

MOST_KEYPOINTS = 1000
LONGEST_SIDE = 4096  # of an input, pixels


@dataclass(frozen=True)
class Architecture:
    """The structure of one network. Raises ValueError naming the field with a wrong value.

    block: what fills the residual blocks, "bottleneck", "res2net" or "residual_steps"
    depths: blocks in each of the four down levels
    stages: how many U-shaped stages follow one another
    expansion: a level's output channels over its base width (64, 128, 256, 512)
    branches: of a Res2Net or residual steps block
    branch_width: of one branch in 64ths of the block's input ("input") or the level's base width ("base")
    attention: what refines heatmaps: None, "prm" (the paper's), "prm-mmpose", "se" or "cbam"
    attention_at: "last", the last stage's finest head, as in the paper, or "every" head, as in MMPose
    cross_stage: every stage adds the previous stage's features to its own, level by level
    width: factor on the channels of every level; at 0.5 a network has about a quarter of the parameters
    """

    block: str = "residual_steps"
    depths: tuple[int, int, int, int] = (2, 2, 2, 2)
    stages: int = 1
    expansion: int = 1
    branches: int = 4
    branch_width: int = 26
    width_of: str = "input"
    attention: str | None = None
    attention_at: str = "last"
    cross_stage: bool = True
    width: float = 1.0

    def __post_init__(self):
        _check_choice("block", self.block, "bottleneck", "res2net", "residual_steps")
        if not isinstance(self.depths, (list, tuple)) or len(self.depths) != 4:
            raise ValueError(f"depths: must be four numbers, not {self.depths!r}")
        for level, depth in enumerate(self.depths):
            _check_range(f"depths.{level}", depth, 1, 100)
        object.__setattr__(self, "depths", tuple(self.depths))  # JSON and YAML have lists
        _check_range("stages", self.stages, 1, 8)
        _check_range("expansion", self.expansion, 1, 8)
        _check_range("branches", self.branches, 2, 6)
        _check_range("branch_width", self.branch_width, 1, 64)
        _check_choice("width_of", self.width_of, "input", "base")
        _check_choice("attention", self.attention, None, *ATTENTIONS)
        _check_choice("attention_at", self.attention_at, "last", "every")
        if not isinstance(self.cross_stage, bool):
            raise ValueError(f"cross_stage: must be true or false, not {self.cross_stage!r}")
        if type(self.width) not in (int, float) or not 0.125 <= self.width <= 4:
            raise ValueError(f"width: must be a number from 0.125 to 4, not {self.width!r}")
        object.__setattr__(self, "width", float(self.width))
        if self.branch_width * min(self.scaled(64)) < 64:
            raise ValueError(f"branch_width: {self.branch_width} leaves no channel at width {self.width}")

    def scaled(self, *channels):
        """Return numbers of channels times `width`, rounded."""
        return [round(number * self.width) for number in channels]


def _check_range(name, value, low, high):
    if type(value) is not int or not low <= value <= high:
        raise ValueError(f"{name}: must be a whole number from {low} to {high}, not {value!r}")


def _check_choice(name, value, *choices):
    if value not in choices:
        raise ValueError(f"{name}: must be {', '.join(map(repr, choices[:-1]))} or {choices[-1]!r}, not {value!r}")


DEPTHS_50, DEPTHS_101 = (3, 4, 6, 3), (3, 4, 23, 3)
RSN18 = Architecture()
# The code of the paper's RSN-50 and RSN-101 was never published: expansion and branch width are inferred from the
# published cost, which they meet within 2.6 % for all five networks.
RSN50 = Architecture(depths=DEPTHS_50, expansion=4, branch_width=24, width_of="base")
MSPN50 = Architecture("bottleneck", DEPTHS_50, expansion=4)  # with one stage, ResNet-50 in the U

FAMILIES = {  # name of the network of one stage: its architecture, and how many stages it comes with ("4xrsn18")
    "res18": (Architecture("bottleneck"), 1),
    "res50": (MSPN50, 1),
    "rsn18": (RSN18, 4),
    "rsn18-prm": (replace(RSN18, attention="prm"), 1),
    "rsn18-prm-mmpose": (replace(RSN18, attention="prm-mmpose", attention_at="every"), 1),
    "rsn50": (RSN50, 4),
    "rsn101": (replace(RSN50, depths=DEPTHS_101), 1),
    "rsn50-mmpose": (Architecture(depths=DEPTHS_50), 3),  # what MMPose calls RSN-50: a smaller network
    "mspn50": (MSPN50, 4),
    "res2net18": (replace(RSN18, block="res2net"), 1),
    "res2net50": (replace(RSN50, block="res2net", branch_width=26), 1),
}
ZOO = {
    name if stages == 1 else f"{stages}x{name}": replace(architecture, stages=stages)
    for name, (architecture, most) in FAMILIES.items()
    for stages in range(1, most + 1)
}


def list_models():
    """Return every name that `create_model` knows."""
    return list(ZOO)


def describe(architecture):
    """Return the name of an Architecture or, of one without a name, its fields that are not RSN-18's, in words."""
    if names := [name for name, known in ZOO.items() if known == architecture]:
        return names[0]
    fields = asdict(architecture).items()
    return ", ".join(f"{name} {value}" for name, value in fields if name == "block" or value != getattr(RSN18, name))


def create_model(model, keypoints=17, input_size=(256, 192)):
    """Return an untrained network. Raises UserError for an unknown name and for a wrong value.

    model: a name of list_models(), an Architecture, or a dict of an Architecture's fields
    keypoints: number of heatmaps
    input_size: height and width of the crops, multiples of 32

    The widths of `rsn50`, `rsn101` and their stages are inferred from the paper's published cost; `rsn50-mmpose` is
    MMPose's smaller reading of the same name.
    """
    if isinstance(model, str):
        if model not in ZOO:
            raise UserError(f"model {model!r} is unknown; known are {', '.join(ZOO)}")
        model = ZOO[model]
    elif isinstance(model, dict):
        model = parse_architecture(model, "model: ")
    if type(keypoints) is not int or not 1 <= keypoints <= MOST_KEYPOINTS:
        raise UserError(f"keypoints: must be a whole number from 1 to {MOST_KEYPOINTS}, not {keypoints!r}")
    sides = list(input_size)
    if len(sides) != 2 or any(type(side) is not int or side % 32 or not 32 <= side <= LONGEST_SIDE for side in sides):
        raise UserError(f"input_size: height and width must be multiples of 32 up to {LONGEST_SIDE}, not {sides}")
    return Network(model, keypoints, input_size)


def parse_architecture(values, prefix):
    """Return the Architecture of a dict of its fields. Raises UserError, `prefix` and the key, for an unknown key or a
    wrong value."""
    if not isinstance(values, dict):
        raise UserError(f"{prefix}must map names to values, not {values!r}")
    if unknown := [key for key in values if key not in Architecture.__dataclass_fields__]:
        raise UserError(f"{prefix}{unknown[0]}: unknown key")
    try:
        return Architecture(**values)
    except ValueError as error:
        raise UserError(f"{prefix}{error}") from None
