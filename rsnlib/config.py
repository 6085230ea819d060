"""params.yaml as frozen dataclasses: the only configuration there is. A wrong or unknown key is an error naming it."""

import json
import math
from dataclasses import field, fields, replace
from pathlib import Path
from typing import Annotated, Literal

import pydantic
from pydantic import AfterValidator, Field
from pydantic.dataclasses import dataclass
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from ruamel.yaml.nodes import MappingNode, ScalarNode

from rsnlib.data.geometry import LONGEST_SIDE
from rsnlib.data.skeletons import SKELETONS, Skeleton
from rsnlib.errors import UserError

LONGEST = 10**6  # characters and values of settings


def _odd(number):
    if number % 2 == 0:
        raise ValueError("kernel sizes must be odd")
    return number


def _once(names):
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"more than once: {', '.join(twice)}")
    return names


strict = pydantic.ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)
Side = Annotated[int, Field(ge=32, le=LONGEST_SIDE, multiple_of=32)]
Size = tuple[Side, Side]
Count = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Odd = Annotated[int, Field(ge=1, le=255), AfterValidator(_odd)]
Depth = Annotated[int, Field(ge=1, le=100)]
Enlargement = Annotated[float, Field(gt=-1, le=10)]
RandomEnlargement = Annotated[float, Field(ge=0, le=10)]
Kernels = tuple[Odd, Odd, Odd, Odd, Odd]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_-]*$")]  # part of file names; DVC splits at dots
Names = Annotated[tuple[Name, ...], AfterValidator(_once)]


@dataclass(config=strict)
class Architecture:
    """What tells one network from another.

    block: what fills the residual blocks
    depths: blocks in each of the four down levels
    stages: how many U-shaped stages follow one another
    expansion: a level's output channels over its base width (64, 128, 256, 512)
    branches: of a Res2Net or residual steps block
    branch_width: of one branch in 64ths of the block's input ("input") or the level's base width ("base")
    attention: what refines heatmaps: None, "prm" (the paper's), "prm-mmpose", "se" or "cbam"
    attention_at: "last", the last stage's finest head, as in the paper, or "every" head, as in MMPose
    cross_stage: whether a stage also sees the features of the one before at each level, added to its own
    """

    block: Literal["bottleneck", "res2net", "residual_steps"] = "residual_steps"
    depths: tuple[Depth, Depth, Depth, Depth] = (2, 2, 2, 2)
    stages: Annotated[int, Field(ge=1, le=8)] = 1
    expansion: Annotated[int, Field(ge=1, le=8)] = 1
    branches: Annotated[int, Field(ge=2, le=6)] = 4
    branch_width: Annotated[int, Field(ge=1, le=64)] = 26
    width_of: Literal["input", "base"] = "input"
    attention: Literal["prm", "prm-mmpose", "se", "cbam"] | None = None
    attention_at: Literal["last", "every"] = "last"
    cross_stage: bool = True


@dataclass(config=strict)
class Model(Architecture):
    """A line of `models`: an architecture and, where an ablation varies it, how it is trained.

    input_size: one of the data set's more_input_sizes, by its name; None: the data set's own
    kernels: of the target heatmaps, in cells whatever the input size; None: the data set's
    intermediate_supervision: whether every head learns, or the last stage's finest alone
    hard_keypoints: how many of a person's worst keypoints the finest heads learn; None: every one
    """

    input_size: Name | None = None
    kernels: Kernels | None = None
    intermediate_supervision: bool = True
    hard_keypoints: Count | None = 8

    @property
    def architecture(self):
        return Architecture(**{f.name: getattr(self, f.name) for f in fields(Architecture)})


@dataclass(config=strict)
class Augmentation:
    """How training crops vary. Enlargements are fractions of width and height, added to 1.

    enlarge: always; random_enlarge: at most, uniformly
    half_body: probability of a crop of the upper or lower body alone, where more than half_body_above keypoints are
        labelled; half_body_enlarge: at most, uniformly
    scale: the range of the random factor on the crop's size
    rotation: largest angle in degrees, with rotation_probability
    flip: probability of mirroring
    """

    enlarge: tuple[Enlargement, Enlargement]
    random_enlarge: tuple[RandomEnlargement, RandomEnlargement]
    half_body: Fraction
    half_body_above: int
    half_body_enlarge: tuple[RandomEnlargement, RandomEnlargement]
    scale: tuple[Positive, Positive]
    rotation: Annotated[float, Field(ge=0, le=180)]
    rotation_probability: Fraction
    flip: Fraction


@dataclass(config=strict)
class Schedule:
    """How long and how fast: either epochs or iterations (of batch_size people), the other null. The learning rate
    rises from warmup_factor of it in warmup iterations, then falls to zero, linearly."""

    batch_size: Count
    epochs: Positive | None
    iterations: Count | None
    learning_rate: Positive
    warmup: Annotated[int, Field(ge=0)]
    warmup_factor: Fraction
    output_scale: Positive

    @pydantic.model_validator(mode="after")
    def one_length(self):
        if (self.epochs is None) == (self.iterations is None):
            raise ValueError("give either epochs or iterations, and null for the other")
        return self


@dataclass(config=strict)
class Dataset:
    """One data set: how its files are read, cropped and learnt from.

    splits: the reader's names of the training and validation people or, for reader coco, their files: annotations and
        the folder images, below root
    unusable: "stop" at an annotation that cannot be used, or "leave out" and list it
    input_size: height and width of the crops; more_input_sizes: others, by names that models have as their input_size
    kernels: of the target heatmaps, coarse to fine, then the last stage's finest
    enlarge: of the boxes in evaluation, fractions of width and height; blur: kernel of the decoder's Gaussian
    skeleton: for reader coco, what the annotations are of: coco's (null) or one of the section `skeletons`
    """

    reader: Literal["coco", "mpii", "lsp", "lspet"]
    root: str
    splits: dict[Literal["train", "val"], str | tuple[Count, Count] | dict[Literal["annotations", "images"], str]]
    unusable: Literal["stop", "leave out"]
    input_size: Size
    more_input_sizes: dict[Name, Size]
    kernels: Kernels
    augmentation: Augmentation
    enlarge: tuple[Enlargement, Enlargement]
    blur: Odd
    schedule: Schedule
    skeleton: str | None = None

    @pydantic.field_validator("splits")
    @classmethod
    def both(cls, value):
        if set(value) != {"train", "val"}:
            raise ValueError("needs train and val")
        if any(isinstance(files, dict) and len(files) < 2 for files in value.values()):
            raise ValueError("the files of a split are annotations and images")
        return value


@dataclass(config=strict)
class SkeletonDefinition:
    """The skeleton of a data set in COCO's format, all of it by the keypoints' names.

    keypoints: in the order of the annotations
    mirror: pairs that change places in a mirrored picture, the left one first
    limbs: pairs with a line between them
    upper_body: what half-body augmentation tells from the rest
    sigmas: one a keypoint, of object keypoint similarity: how far apart people place it, over the square root of the
        area (COCO's: 0.025 an eye, 0.107 a hip)
    """

    keypoints: tuple[Annotated[str, Field(min_length=1)], ...]
    mirror: tuple[tuple[str, str], ...]
    limbs: tuple[tuple[str, str], ...]
    upper_body: tuple[str, ...]
    sigmas: tuple[Positive, ...]

    @pydantic.field_validator("keypoints")
    @classmethod
    def some(cls, value):
        if not value:
            raise ValueError("needs at least one")
        return _once(value)

    @pydantic.field_validator("mirror", "limbs", "upper_body")
    @classmethod
    def known(cls, value, info):
        names = [name for entry in value for name in ([entry] if isinstance(entry, str) else entry)]
        unknown = sorted(set(names) - set(info.data.get("keypoints", names)))  # absent where they are wrong themselves
        if unknown:
            raise ValueError(f"{', '.join(unknown)}: not among the keypoints")
        if info.field_name != "limbs":
            _once(names)
        elif any(first == second for first, second in value):
            raise ValueError("a limb has two ends")
        return value

    @pydantic.field_validator("sigmas")
    @classmethod
    def one_each(cls, value, info):
        count = len(info.data.get("keypoints", value))
        if len(value) != count:
            raise ValueError(f"must be {count}, one a keypoint, not {len(value)}")
        return value

    def skeleton(self, name):
        """The Skeleton, keypoints by their index."""
        index = self.keypoints.index
        return Skeleton(
            name=name,
            keypoints=self.keypoints,
            mirror=tuple((index(left), index(right)) for left, right in self.mirror),
            limbs=tuple((index(first), index(second)) for first, second in self.limbs),
            upper_body=tuple(index(keypoint) for keypoint in self.upper_body),
            sigmas=self.sigmas,
        )


@dataclass(config=strict)
class Run:
    """What `dvc repro` regenerates: every model on every data set from every seed."""

    datasets: Names
    models: Names
    seeds: tuple[Annotated[int, Field(ge=0)], ...]


@dataclass(config=strict)
class Train:
    """What all trainings share. epochs goes before the data set's own schedule where it is not null; validations is how
    often the accuracy is measured on the way; device_batch is how many people a device computes at a time, and over how
    many batch norms take the mean; activation_checkpointing trades time for memory."""

    epochs: Positive | None
    weight_decay: Annotated[float, Field(ge=0)]
    precision: Literal["auto", "float32", "bfloat16"]
    validations: Count
    device_batch: Count = 32
    activation_checkpointing: bool = False


@dataclass(config=strict)
class Evaluate:
    """How every run is judged.

    flip_test: average the heatmaps with those of the mirrored crop
    decoding: the paper's quarter of a cell, or DARK's second-order refinement
    precision: what the networks compute in
    nms: suppression by object keypoint similarity, for COCO's format, and its threshold; null: none, as in the paper
    detections: for a data set in COCO's format, a detector's boxes to judge it on instead of the true ones: a COCO
        results JSON below the data set's root
    """

    flip_test: bool
    decoding: Literal["quarter", "dark"] = "quarter"
    precision: Literal["float32", "bfloat16"] = "float32"
    nms: Literal["hard", "soft"] | None = None
    nms_threshold: Annotated[float, Field(gt=0, le=1)] = 0.9
    detections: dict[Name, str] = field(default_factory=dict)


@dataclass(config=strict)
class Params:
    """All of params.yaml.

    model_lists: names for lists of models, for `run.models` to refer to
    ablations: models that a table compares, the first with each of the others
    """

    run: Run
    datasets: dict[Name, Dataset]
    models: dict[Name, Model]
    train: Train
    evaluate: Evaluate
    skeletons: dict[Name, SkeletonDefinition] | None = field(default_factory=dict)
    model_lists: dict[Name, Names] = field(default_factory=dict)
    ablations: dict[Name, Annotated[Names, Field(min_length=2)]] = field(default_factory=dict)

    @pydantic.field_validator("skeletons")
    @classmethod
    def none_yet(cls, value):
        return value or {}

    def skeleton(self, settings):
        """The Skeleton of a Dataset in COCO's format; None for other readers, which have their own."""
        if settings.reader != "coco":
            return None
        name = settings.skeleton or "coco"
        return self.skeletons[name].skeleton(name) if name in self.skeletons else SKELETONS[name]

    def dataset(self, name, model=None):
        """A data set's settings; with the name of a model, those that it is trained and judged with."""
        settings = self._named("datasets", name)
        if model is None:
            return settings
        size, kernels = self.model(model).input_size, self.model(model).kernels
        sizes = {None: settings.input_size} | settings.more_input_sizes
        if size not in sizes:
            raise UserError(
                f"params.yaml: models.{model}.input_size is {size!r}, which datasets.{name}.more_input_sizes lacks"
            )
        return replace(settings, input_size=sizes[size], more_input_sizes={}, kernels=kernels or settings.kernels)

    def model(self, name):
        """A line of `models`. Raises UserError where there is none of that name."""
        return self._named("models", name)

    def _named(self, section, name):
        known = getattr(self, section)
        if name not in known:
            raise UserError(f"params.yaml: {section} has no {name!r}; it has {', '.join(known)}")
        return known[name]


def run_name(model, seed):
    """What the files of a run are called."""
    return f"{model}-{seed}"


def load_params(path=None):
    """The parameters in `path`, by default params.yaml of the project."""
    path = Path(path) if path else project_root() / "params.yaml"
    try:
        values = _read_yaml(path)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from None
    except (YAMLError, ArithmeticError, AttributeError, LookupError, TypeError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: not valid YAML: {error}") from None
    params = parse(Params, values, path)
    lists = {"run.models": params.run.models}
    lists |= {f"model_lists.{name}": models for name, models in params.model_lists.items()}
    lists |= {f"ablations.{name}": models for name, models in params.ablations.items()}
    for key, models in lists.items():
        for model in models:
            if model not in params.models:
                raise UserError(f"{path}: {key}: models has no {model!r}; it has {', '.join(params.models)}")
    for dataset in params.run.datasets:
        params.dataset(dataset)
        for model in params.run.models:
            params.dataset(dataset, model)
    for dataset in params.evaluate.detections:
        if params.dataset(dataset).reader != "coco":
            raise UserError(f"{path}: evaluate.detections.{dataset}: detections are for data sets in COCO's format")
    _check_skeletons(params, path)
    return params


def _read_yaml(path):
    """What is in a YAML file, as DVC reads it. Raises ValueError where that is long: aliases of lists of aliases make a
    few lines more than any memory holds."""
    yaml = YAML(typ="safe", pure=True)
    root = yaml.compose(path)
    if root is None:
        return None
    if (length := _length(root, {})) > LONGEST:
        raise ValueError(f"with its aliases written out it has {length:,} characters, more than {LONGEST:,}")
    return yaml.constructor.construct_document(root)


def _length(node, known):
    """How long a YAML node is with its aliases written out: endless where it is in itself. known: {id: length}"""
    if id(node) not in known:
        known[id(node)] = math.inf
        parts = [part for pair in node.value for part in pair] if isinstance(node, MappingNode) else node.value
        whole = isinstance(node, ScalarNode)
        known[id(node)] = 1 + (len(parts) if whole else sum(_length(part, known) for part in parts))
    return known[id(node)]


def _check_skeletons(params, path):
    for name in SKELETONS:
        if name in params.skeletons:
            raise UserError(f"{path}: skeletons.{name}: is built in and stays as it is; choose another name")
    for name, settings in params.datasets.items():
        if settings.skeleton is None:
            continue
        where, known = f"{path}: datasets.{name}.skeleton", [*SKELETONS, *params.skeletons]
        if settings.reader != "coco":
            raise UserError(f"{where}: is for reader coco; reader {settings.reader} has its own")
        if settings.skeleton not in known:
            raise UserError(f"{where}: there is no skeleton {settings.skeleton!r}, only {', '.join(known)}")
        if params.skeleton(settings).sigmas is None:
            raise UserError(f"{where}: {settings.skeleton} has no sigmas, by which predictions would be judged")


def parse(kind, values, where):
    """`values` (mappings, lists and scalars) as the dataclass `kind`; a UserError says where each wrong key is."""
    try:
        return pydantic.TypeAdapter(kind).validate_json(json.dumps(values, default=str))
    except (TypeError, ValueError, RecursionError) as error:
        if not isinstance(error, pydantic.ValidationError):
            raise UserError(f"{where}: not plain settings, mappings of names to values ({error})") from None
        problems = [f"{'.'.join(map(str, e['loc'])) or 'the file'}: {_say(e)}" for e in error.errors()]
        raise UserError(f"{where}: " + "; ".join(problems)) from None


def _say(error):
    """One of pydantic's errors in our words."""
    if error["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
        return "unknown key"
    if error["type"] in ("missing", "missing_argument"):
        return "is missing"
    return f"{error['msg']} (it is {error['input']!r})"


def project_root(start=None):
    """The nearest folder from `start` (default: here) upwards that has a params.yaml."""
    start = Path(start or Path.cwd()).resolve()
    for folder in (start, *start.parents):
        if (folder / "params.yaml").is_file():
            return folder
    raise UserError(f"no params.yaml in {start} or above it: run this inside a checkout of the project")
