"""The networks by name, each from one description."""

from dataclasses import replace

from rsnlib.config import Architecture, parse
from rsnlib.errors import UserError
from rsnlib.models.network import Network

DEPTHS_50 = (3, 4, 6, 3)
DEPTHS_101 = (3, 4, 23, 3)

RES18 = Architecture("bottleneck")  # released RSN
RSN18 = Architecture("residual_steps")
RES2NET18 = Architecture("res2net")
MSPN50 = Architecture("bottleneck", DEPTHS_50, expansion=4)

# The code of the paper's RSN-50 and RSN-101 was never published: expansion and branch width are inferred from the
# published cost, which they meet within 2.6 % for all five networks.
RSN50 = Architecture("residual_steps", DEPTHS_50, expansion=4, branch_width=24, width_of="base")
RSN50_MMPOSE = replace(RSN18, depths=DEPTHS_50)  # what MMPose calls RSN-50: a smaller network
RES2NET50 = Architecture("res2net", DEPTHS_50, expansion=4, width_of="base")

ZOO = {
    "res18": RES18,
    "res50": MSPN50,  # with one stage, MSPN is ResNet-50 in the U
    "rsn18": RSN18,
    "rsn18-prm": replace(RSN18, attention="prm"),
    "2xrsn18": replace(RSN18, stages=2),
    "3xrsn18": replace(RSN18, stages=3),
    "4xrsn18": replace(RSN18, stages=4),
    "rsn50": RSN50,
    "2xrsn50": replace(RSN50, stages=2),
    "3xrsn50": replace(RSN50, stages=3),
    "4xrsn50": replace(RSN50, stages=4),
    "rsn101": replace(RSN50, depths=DEPTHS_101),
    "rsn50-mmpose": RSN50_MMPOSE,
    "2xrsn50-mmpose": replace(RSN50_MMPOSE, stages=2),
    "3xrsn50-mmpose": replace(RSN50_MMPOSE, stages=3),
    "mspn50": MSPN50,
    "2xmspn50": replace(MSPN50, stages=2),
    "3xmspn50": replace(MSPN50, stages=3),
    "4xmspn50": replace(MSPN50, stages=4),
    "res2net18": RES2NET18,
    "res2net50": RES2NET50,
}


def list_models():
    """Every name that create_model knows."""
    return list(ZOO)


def create_model(model, keypoints=17, input_size=(256, 192)):
    """An untrained network.

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
        model = parse(Architecture, model, "model")
    if keypoints < 1:
        raise UserError(f"keypoints is {keypoints}: a network needs at least one")
    if any(side < 32 or side % 32 for side in input_size):
        raise UserError(f"input_size {list(input_size)}: height and width must be multiples of 32")
    return Network(model, keypoints, input_size)
