"""params.yaml as frozen dataclasses: the only configuration there is. A wrong or unknown key is an error naming it."""

import json
from dataclasses import field
from pathlib import Path
from typing import Annotated, Literal

import pydantic
from pydantic import Field
from pydantic.dataclasses import dataclass
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from rsnlib.runtime import UserError

strict = pydantic.ConfigDict(extra="forbid", frozen=True, strict=True)
Size = tuple[Annotated[int, Field(ge=32, multiple_of=32)], Annotated[int, Field(ge=32, multiple_of=32)]]
Count = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]*$")]  # part of file names


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
    """

    block: Literal["bottleneck", "res2net", "residual_steps"] = "residual_steps"
    depths: tuple[Count, Count, Count, Count] = (2, 2, 2, 2)
    stages: Annotated[int, Field(ge=1, le=8)] = 1
    expansion: Annotated[int, Field(ge=1, le=8)] = 1
    branches: Annotated[int, Field(ge=2, le=6)] = 4
    branch_width: Annotated[int, Field(ge=1, le=64)] = 26
    width_of: Literal["input", "base"] = "input"
    attention: Literal["prm", "prm-mmpose", "se", "cbam"] | None = None
    attention_at: Literal["last", "every"] = "last"


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

    enlarge: tuple[float, float]
    random_enlarge: tuple[float, float]
    half_body: Fraction
    half_body_above: int
    half_body_enlarge: tuple[float, float]
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

    splits: the reader's names of the training and validation people
    unusable: "stop" at an annotation that cannot be used, or "leave out" and list it
    input_size: height and width of the crops
    kernels: of the target heatmaps, coarse to fine, then the last stage's finest
    enlarge: of the boxes in evaluation, fractions of width and height; blur: kernel of the decoder's Gaussian
    """

    reader: Literal["coco", "mpii", "lspet"]
    root: str
    splits: dict[Literal["train", "val"], str | tuple[Count, Count]]
    unusable: Literal["stop", "leave out"]
    input_size: Size
    kernels: tuple[Count, Count, Count, Count, Count]
    augmentation: Augmentation
    enlarge: tuple[float, float]
    blur: Count
    schedule: Schedule

    @pydantic.field_validator("kernels", "blur")
    @classmethod
    def odd(cls, value):
        if any(kernel % 2 == 0 for kernel in (value if isinstance(value, tuple) else (value,))):
            raise ValueError("kernel sizes must be odd")
        return value

    @pydantic.field_validator("splits")
    @classmethod
    def both(cls, value):
        if set(value) != {"train", "val"}:
            raise ValueError("needs train and val")
        return value


@dataclass(config=strict)
class Run:
    """What `dvc repro` regenerates: every model on every data set from every seed."""

    datasets: tuple[Name, ...]
    models: tuple[Name, ...]
    seeds: tuple[Annotated[int, Field(ge=0)], ...]


@dataclass(config=strict)
class Train:
    """What all trainings share. epochs goes before the data set's own schedule where it is not null; validations is how
    often the accuracy is measured on the way; activation_checkpointing trades time for memory."""

    epochs: Positive | None
    weight_decay: Annotated[float, Field(ge=0)]
    precision: Literal["auto", "float32", "bfloat16"]
    validations: Count
    activation_checkpointing: bool = False


@dataclass(config=strict)
class Evaluate:
    """How every run is judged.

    flip_test: average the heatmaps with those of the mirrored crop
    decoding: the paper's quarter of a cell, or DARK's second-order refinement
    nms: suppression by object keypoint similarity, for COCO's format, and its threshold; null: none, as in the paper
    detections: for a data set in COCO's format, a detector's boxes to judge it on instead of the true ones: a COCO
        results JSON below the data set's root
    """

    flip_test: bool
    decoding: Literal["quarter", "dark"] = "quarter"
    nms: Literal["hard", "soft"] | None = None
    nms_threshold: Annotated[float, Field(gt=0, le=1)] = 0.9
    detections: dict[Name, str] = field(default_factory=dict)


@dataclass(config=strict)
class Params:
    """All of params.yaml. ablations: models whose tables set them side by side, in groups, the first the reference."""

    run: Run
    datasets: dict[Name, Dataset]
    models: dict[Name, Architecture]
    train: Train
    evaluate: Evaluate
    ablations: dict[Name, tuple[Name, ...]] = field(default_factory=dict)

    def dataset(self, name):
        return self._named("datasets", name)

    def model(self, name):
        return self._named("models", name)

    def _named(self, section, name):
        known = getattr(self, section)
        if name not in known:
            raise UserError(f"params.yaml: {section} has no {name!r}; it has {', '.join(known)}")
        return known[name]


def load_params(path=None):
    """The parameters in `path`, by default params.yaml of the project."""
    path = Path(path) if path else project_root() / "params.yaml"
    try:
        values = YAML(typ="safe").load(path)  # as DVC reads it
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except (YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not valid YAML: {error}") from None
    params = parse(Params, values, path)
    for dataset in params.run.datasets:
        params.dataset(dataset)
    for model in params.run.models:
        params.model(model)
    for dataset in params.evaluate.detections:
        if params.dataset(dataset).reader != "coco":
            raise UserError(f"{path}: evaluate.detections.{dataset}: detections are for data sets in COCO's format")
    return params


def parse(kind, values, where):
    """`values` (mappings, lists and scalars) as the dataclass `kind`; a UserError says where each wrong key is."""
    try:
        return pydantic.TypeAdapter(kind).validate_json(json.dumps(values, default=str))
    except pydantic.ValidationError as error:
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
