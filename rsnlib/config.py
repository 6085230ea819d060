"""params.yaml as frozen dataclasses: the only configuration. A wrong, old or unknown key is an error that names it."""

import dataclasses
import json
import math
import re
from dataclasses import asdict, field, fields, replace
from difflib import get_close_matches
from itertools import product
from pathlib import Path
from typing import Annotated, Any, Literal

import pydantic
from pydantic import AfterValidator, Field
from pydantic.dataclasses import dataclass
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from ruamel.yaml.nodes import MappingNode, ScalarNode

from rsnlib.data.readers import READERS
from rsnlib.data.skeletons import SKELETONS, Skeleton
from rsnlib.errors import UserError
from rsnlib.files import project_root
from rsnlib.models.published import PUBLISHED
from rsnlib.models.zoo import LONGEST_SIDE, ZOO, Architecture, parse_architecture

LONGEST_FILE = 10**6  # characters of params.yaml, its aliases written out

# keys of earlier versions (regular expressions) and what to write today
RENAMED = {
    r"models": "a model is a line of an ablation, or of model_lists, or of run.models",
    r"datasets\.[^.]+\.schedule": "is called `recipe` now",
    r"datasets\.[^.]+\.recipe\.(epochs|iterations)": "is called `length` now: {epochs: 8} or {iterations: 96000}",
    r"datasets\.[^.]+\.enlarge": "is called `margin` now",
    r"datasets\.[^.]+\.root": "is gone: run.datasets gives the folder, {name: folder}; of others it is data/<name>",
    r"run\.release": "is a section of its own now: `release`",
    r"train\.epochs": "is gone: set the recipe's `length`, as in datasets.demo.recipe.length.epochs",
    r"evaluate\.detections": "is a key of each data set now: `detections: none`, or a file below the data set's root",
}


def _odd(number):
    if number % 2 == 0:
        raise ValueError("kernel sizes must be odd")
    return number


def _once(names, key=""):
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"{key}more than once: {', '.join(twice)}")
    return names


strict = pydantic.ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)
Side = Annotated[int, Field(ge=32, le=LONGEST_SIDE, multiple_of=32)]
Size = tuple[Side, Side]
Count = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Odd = Annotated[int, Field(ge=1, le=255), AfterValidator(_odd)]
Growth = Annotated[float, Field(gt=-1, le=10)]
RandomGrowth = Annotated[float, Field(ge=0, le=10)]
Kernels = tuple[Odd, Odd, Odd, Odd, Odd]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_-]*$")]  # part of file names; DVC splits at dots
Lines = dict[Name, dict[str, Any]]  # models by name; see `Params.model`


@dataclass(config=strict)
class Training:
    """Variation of a network's training by an ablation.

    input_size: "own", the data set's, or a name among its more_input_sizes
    kernels: of the target heatmaps, in cells whatever the input size; "own": the data set's
    intermediate_supervision: true: every head learns; false: the last stage's finest alone
    hard_keypoints: number of each person's worst keypoints that the finest heads learn, or "all"
    init: weights to start from: another model, trained on the same data from the same seed; a file below data/; or the
        name of published weights
    frozen: parts of the network that stay as they are, such as "stem" or "stages.0.down"
    """

    input_size: Name = "own"
    kernels: Kernels | Literal["own"] = "own"
    intermediate_supervision: bool = True
    hard_keypoints: Count | Literal["all"] = 8
    init: Annotated[str, Field(min_length=1)] | None = None
    frozen: tuple[str, ...] = ()

    @property
    def mined_keypoints(self):
        """hard_keypoints as rsnlib.training.losses takes them: None for all."""
        return None if self.hard_keypoints == "all" else self.hard_keypoints


@dataclasses.dataclass(frozen=True)
class Model:
    """A network and the variation of its training."""

    architecture: Architecture
    training: Training


@dataclass(config=strict)
class Augmentation:
    """Variation of training crops. Enlargements are fractions of width and height, added to 1.

    enlarge: always; random_enlarge: at most, uniformly
    half_body: probability of a crop of the upper or lower body alone, where more than half_body_above keypoints are
        labelled; half_body_enlarge: at most, uniformly
    scale: the range of the random factor on the crop's size
    rotation: largest angle in degrees, with rotation_probability
    flip: probability of mirroring
    """

    enlarge: tuple[Growth, Growth]
    random_enlarge: tuple[RandomGrowth, RandomGrowth]
    half_body: Fraction
    half_body_above: int
    half_body_enlarge: tuple[RandomGrowth, RandomGrowth]
    scale: tuple[Positive, Positive]
    rotation: Annotated[float, Field(ge=0, le=180)]
    rotation_probability: Fraction
    flip: Fraction


@dataclass(config=strict)
class Recipe:
    """Length and speed of a training.

    length: {"epochs": number} or {"iterations": number}, of batch_size people
    learning_rate: the peak, reached linearly from warmup_factor of it in warmup iterations, left linearly for zero
    output_scale: see rsnlib.training.loop.make_optimizer
    """

    batch_size: Count
    length: dict[Literal["epochs", "iterations"], Positive]
    learning_rate: Positive
    warmup: Annotated[int, Field(ge=0)]
    warmup_factor: Fraction
    output_scale: Positive

    @pydantic.field_validator("length")
    @classmethod
    def _one_length(cls, value):
        if len(value) != 1:
            raise ValueError("give either epochs or iterations")
        if value.get("iterations", 1) % 1:
            raise ValueError("iterations must be a whole number")
        return value


@dataclass(config=strict)
class Dataset:
    """One data set: its files, its crops, and how networks learn from it and are judged on it.

    splits: the reader's names of the training and validation people or, for reader coco, their files: annotations and
        the folder images, below the data set's folder
    skeleton: of the annotations: for reader coco a built-in skeleton or one of the section `skeletons`; else the
        reader's own
    boxes: "annotated", or "keypoints": around the labelled ones, for annotations without boxes (reader coco)
    unusable: "stop" at an annotation that cannot be used, or "leave out" and list it
    area: of people, by which similarity is measured: "annotated" or, as for CrowdPose and AI Challenger, "box 0.53",
        this share of the box (reader coco)
    exif: photos that their camera marked as rotated are turned where the annotations' size says so; "ignore" or "apply"
        decides where either size fits
    input_size: height and width of the crops; more_input_sizes: others, by names that models have as their input_size
    kernels: of the target heatmaps, coarse to fine, then the last stage's finest
    margin: of the boxes in evaluation, fractions of width and height; blur: kernel of the decoder's Gaussian
    detections: "none": people are judged in their ground-truth boxes; or a detector's boxes, a COCO results JSON below
        root (reader coco)
    """

    reader: str
    splits: dict[Literal["train", "val"], str | tuple[Count, Count] | dict[Literal["annotations", "images"], str]]
    skeleton: str
    boxes: Literal["annotated", "keypoints"]
    unusable: Literal["stop", "leave out"]
    area: Annotated[str, Field(pattern=r"^(annotated|box (0?\.\d+|1))$")]
    exif: Literal["ignore", "apply"]
    input_size: Size
    more_input_sizes: dict[Name, Size]
    kernels: Kernels
    augmentation: Augmentation
    margin: tuple[Growth, Growth]
    blur: Odd
    recipe: Recipe
    detections: str

    @pydantic.field_validator("reader")
    @classmethod
    def _known_reader(cls, value):
        if value not in READERS:
            raise ValueError(f"there is no such reader, only {', '.join(READERS)}")
        return value

    @pydantic.field_validator("splits")
    @classmethod
    def _both_splits(cls, value):
        if set(value) != {"train", "val"}:
            raise ValueError("needs train and val")
        if any(isinstance(files, dict) and len(files) < 2 for files in value.values()):
            raise ValueError("the files of a split are annotations and images")
        return value

    @pydantic.model_validator(mode="after")
    def _boxes_of_the_reader(self):
        if self.detections != "none" and self.reader != "coco":
            raise ValueError("detections: must be none; a detector's boxes are for data sets in COCO's format")
        if self.boxes != "annotated" and self.reader != "coco":
            raise ValueError("boxes: must be annotated; the reader has its own")
        if self.area != "annotated" and self.reader != "coco":
            raise ValueError("area: must be annotated; the reader's data set is not judged by areas")
        return self


@dataclass(config=strict)
class SkeletonDefinition:
    """The skeleton of a data set in COCO's format, by the keypoints' names.

    keypoints: in the order of the annotations
    mirror: pairs that change places in a mirrored picture, the left one first
    limbs: pairs with a line between them
    upper_body: keypoints that half-body augmentation tells from the rest
    sigmas: one per keypoint, of object keypoint similarity: the spread of annotators' clicks over the square root of
        the area (COCO's: 0.025 for an eye, 0.107 for a hip); without them predictions are judged by PCK
    normalise_by: two keypoints, such as the outer corners of the eyes, whose distance is the unit of the normalised
        mean error, which without sigmas is reported, too
    """

    keypoints: Annotated[tuple[Annotated[str, Field(min_length=1)], ...], Field(min_length=1)]
    mirror: tuple[tuple[str, str], ...]
    limbs: tuple[tuple[str, str], ...]
    upper_body: tuple[str, ...]
    sigmas: tuple[Positive, ...] | None = None
    normalise_by: tuple[str, str] | None = None

    @pydantic.model_validator(mode="after")
    def _by_known_names(self):
        names = {"keypoints": self.keypoints, "mirror": sum(self.mirror, ()), "upper_body": self.upper_body}
        for key, once in names.items():
            _once(once, f"{key}: ")
        names |= {"limbs": sum(self.limbs, ()), "normalise_by": self.normalise_by or ()}
        for key, known in names.items():
            if unknown := sorted(set(known) - set(self.keypoints)):
                raise ValueError(f"{key}: {', '.join(unknown)}: not among the keypoints")
        if any(first == second for first, second in self.limbs):
            raise ValueError("limbs: a limb has two ends")
        if len(set(self.normalise_by or "12")) != 2:
            raise ValueError("normalise_by: must be two keypoints")
        if self.sigmas is not None and len(self.sigmas) != len(self.keypoints):
            raise ValueError(f"sigmas: must be {len(self.keypoints)}, one per keypoint, not {len(self.sigmas)}")
        return self

    def skeleton(self, name):
        """Return the Skeleton, keypoints by their index."""
        index = self.keypoints.index
        return Skeleton(
            name=name,
            keypoints=self.keypoints,
            mirror=tuple((index(left), index(right)) for left, right in self.mirror),
            limbs=tuple((index(first), index(second)) for first, second in self.limbs),
            upper_body=tuple(index(keypoint) for keypoint in self.upper_body),
            sigmas=self.sigmas,
            normalise_by=self.normalise_by and tuple(map(index, self.normalise_by)),
        )


@dataclass(config=strict)
class Release:
    """A run whose weights become a file for everyone. licence: who may use it for what"""

    dataset: Name
    model: Name
    seed: Annotated[int, Field(ge=0)]
    licence: Annotated[str, Field(min_length=1)]


@dataclass(config=strict)
class Run:
    """Runs that `dvc repro` regenerates: every model on every data set from every seed.

    datasets: names and the folder of each, absolute or from the project's
    """

    datasets: dict[Name, Annotated[str, Field(min_length=1)]]
    models: Lines
    seeds: tuple[Annotated[int, Field(ge=0)], ...]

    @pydantic.field_validator("datasets", mode="before")
    @classmethod
    def _with_folders(cls, value):
        if isinstance(value, list):
            raise ValueError("is a mapping now, of names to folders: {demo: data/demo}")
        return value

    @pydantic.field_validator("models", mode="before")
    @classmethod
    def _no_list(cls, value):
        if isinstance(value, list):
            raise ValueError("is a mapping now: {rsn18: {}}, or ablations by their anchors, {<<: [*attention]}")
        return value


@dataclass(config=strict)
class Train:
    """Settings that all trainings share.

    precision: "auto" is bfloat16 where the hardware computes with it
    validations: number of times that the validation accuracy is measured on the way
    device_batch: people that a device computes at a time, and over whom batch norms take the mean
    activation_checkpointing: true trades time for memory
    tensorboard: true writes the training curves for TensorBoard, too
    """

    weight_decay: Annotated[float, Field(ge=0)]
    precision: Literal["auto", "float32", "bfloat16"]
    validations: Count
    device_batch: Count
    activation_checkpointing: bool
    tensorboard: bool = False


@dataclass(config=strict)
class Evaluate:
    """Settings by which every run is judged.

    flip_test: average the heatmaps with those of the mirrored crop
    decoding: the paper's quarter of a cell, or DARK's second-order refinement
    nms: suppression by object keypoint similarity, for COCO's format, and its threshold; "none", as in the paper
    """

    flip_test: bool
    precision: Literal["float32", "bfloat16"]
    decoding: Literal["quarter", "dark"]
    nms: Literal["none", "hard", "soft"]
    nms_threshold: Annotated[float, Field(gt=0, le=1)]


@dataclass(config=strict)
class Params:
    """All of params.yaml.

    ablations: models that a table compares, the first with each of the others; questions: what an ablation asks
    model_lists: other sets of models for `run.models` to name
    recipes, augmentations: named by YAML anchors for data sets to refer to
    release: names of files in weights/, and the run of each
    """

    run: Run
    datasets: dict[Name, Dataset]
    train: Train
    evaluate: Evaluate
    ablations: dict[Name, Lines] = field(default_factory=dict)
    questions: dict[Name, Annotated[str, Field(min_length=1)]] = field(default_factory=dict)
    model_lists: dict[Name, Lines] = field(default_factory=dict)
    recipes: dict[Name, Recipe] = field(default_factory=dict)
    augmentations: dict[Name, Augmentation] = field(default_factory=dict)
    skeletons: dict[Name, SkeletonDefinition] = field(default_factory=dict)
    release: dict[Name, Release] = field(default_factory=dict)

    @property
    def lines(self):
        """Every model that the file names, {name: line}: of the run, else of the first ablation or list that has it."""
        places = [self.run.models, *self.ablations.values(), *self.model_lists.values()]
        return {name: line for lines in reversed(places) for name, line in lines.items()}

    @property
    def models(self):
        """Every Model that the file names: {name: Model}."""
        return {name: self.model(name) for name in self.lines}

    def model(self, name):
        """Return the Model of a name: a line of the file or, where there is none, a network of the zoo.

        A line holds `network`, a name of the zoo (by default the model's own), and the fields of Architecture and of
        Training that differ. Raises UserError where there is neither.
        """
        line = self.run.models[name] if name in self.run.models else self.lines.get(name)
        if line is None and name not in ZOO:
            raise UserError(f"params.yaml: run.models has no {name!r}; it has {', '.join(self.run.models)}")
        return make_model(name, line or {}, f"params.yaml: {name}")

    def folder(self, name):
        """Return the folder of a data set, absolute or from the project's: data/<name> unless run.datasets says so."""
        return self.run.datasets.get(name, f"data/{name}")

    def trains(self, init):
        """Return True where a model's `init` names another model, which is trained itself."""
        return init in self.lines or init in ZOO

    def skeleton(self, settings):
        """Return the Skeleton of a Dataset."""
        name = settings.skeleton
        return self.skeletons[name].skeleton(name) if name in self.skeletons else SKELETONS[name]

    def judged_by(self, name):
        """Return the reader and the Skeleton of a data set, by which `metrics.protocol` chooses."""
        settings = self.dataset(name)
        return settings.reader, self.skeleton(settings)

    def dataset(self, name, model=None):
        """Return a data set's settings; with the name of a model, input_size is that of the model's crops."""
        if name not in self.datasets:
            raise UserError(f"params.yaml: datasets has no {name!r}; it has {', '.join(self.datasets)}")
        settings = self.datasets[name]
        if model is None:
            return settings
        size, sizes = self.model(model).training.input_size, {"own": settings.input_size} | settings.more_input_sizes
        if size not in sizes:
            raise UserError(
                f"params.yaml: run.models.{model}.input_size is {size!r}, which datasets.{name}.more_input_sizes lacks"
            )
        return replace(settings, input_size=sizes[size], more_input_sizes={})


def make_model(name, line, where):
    """Return the Model that a line of params.yaml describes; `where` names the line in errors."""
    network = line.get("network", name)
    if network not in ZOO:
        raise UserError(f"{where}: network {network!r} is unknown; known are {', '.join(ZOO)}")
    own = {each.name for each in fields(Training)}
    training = {key: value for key, value in line.items() if key in own}
    shape = {key: value for key, value in line.items() if key not in own and key != "network"}
    architecture = parse_architecture(asdict(ZOO[network]) | shape, f"{where}: ")
    return Model(architecture, parse(Training, training, where))


def load_params(path=None):
    """Return the Params of the file `path`, by default params.yaml of the project. Raises UserError naming each key
    that is wrong."""
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
    _check_models(params, path)
    _check_skeletons(params, path)
    for name, each in params.release.items():
        run = params.run
        if (each.dataset, each.model) not in product(run.datasets, run.models) or each.seed not in run.seeds:
            raise UserError(f"{path}: release.{name}: no such run; `run` lists data sets, models and seeds")
    for dataset in params.run.datasets:
        for model in params.run.models:
            params.dataset(dataset, model)
    return params


def _check_models(params, path):
    """Every line is a model, and an ablation compares at least two."""
    groups = {f"ablations.{group}": lines for group, lines in params.ablations.items()}
    lists = {f"model_lists.{group}": lines for group, lines in params.model_lists.items()}
    for place, lines in ({"run.models": params.run.models} | groups | lists).items():
        for name, line in lines.items():
            model = make_model(name, line, f"{path}: {place}.{name}")
            _check_init(params, name, model.training.init, f"{path}: {place}.{name}: init")
        if place.startswith("ablations.") and len(lines) < 2:
            raise UserError(f"{path}: {place}: needs two models at least, to compare")


def _check_init(params, name, init, where):
    """A model starts from another, which in the end starts from none, from a file below data/ or published weights."""
    before = [name]
    while init is not None and params.trains(init):
        if init in before:
            raise UserError(f"{where}: {' starts from '.join([*before, init])}: a circle")
        before.append(init)
        init = params.model(init).training.init
    if init is None or init in PUBLISHED:
        return
    path = Path(init)
    if path.parts[:1] != ("data",) or ".." in path.parts:
        near = get_close_matches(init, [*params.lines, *ZOO, *PUBLISHED], n=3, cutoff=0.5)
        raise UserError(
            f"{where}: {init!r} is no model and no published weights{' (near: ' * bool(near)}{', '.join(near)}"
            f"{')' * bool(near)}, nor below data/: put a file of your own there, where DVC sees its changes"
        )


def _check_skeletons(params, path):
    for name in SKELETONS:
        if name in params.skeletons:
            raise UserError(f"{path}: skeletons.{name}: is built in and stays as it is; choose another name")
    for name, settings in params.datasets.items():
        where, known = f"{path}: datasets.{name}.skeleton", [*SKELETONS, *params.skeletons]
        own = READERS[settings.reader].skeleton or settings.skeleton
        if settings.skeleton != own:
            raise UserError(f"{where}: reader {settings.reader} has its own: {own}")
        if settings.skeleton not in known:
            raise UserError(f"{where}: there is no skeleton {settings.skeleton!r}, only {', '.join(known)}")
        if settings.detections != "none" and params.skeleton(settings).sigmas is None:
            reason = f"must be none; {settings.skeleton} has no sigmas, and PCK judges people in their own boxes"
            raise UserError(f"{path}: datasets.{name}.detections: {reason}")


def _read_yaml(path):
    """Return the values of a YAML file, as DVC reads it. Raises ValueError where the file is long: aliases of lists of
    aliases make a few lines more than any memory holds."""
    yaml = YAML(typ="safe", pure=True)
    root = yaml.compose(path)
    if root is None:
        return None
    if (length := _length(root, {})) > LONGEST_FILE:
        raise ValueError(f"with its aliases written out it has {length:,} characters, more than {LONGEST_FILE:,}")
    return yaml.constructor.construct_document(root)


def _length(node, known):
    """Return the length of a YAML node, aliases written out: infinite where it contains itself. known: {id: length}"""
    if id(node) not in known:
        known[id(node)] = math.inf
        parts = [part for pair in node.value for part in pair] if isinstance(node, MappingNode) else node.value
        whole = isinstance(node, ScalarNode)
        known[id(node)] = 1 + (len(parts) if whole else sum(_length(part, known) for part in parts))
    return known[id(node)]


def parse(kind, values, where):
    """Return `values` (mappings, lists, scalars) as the dataclass `kind`. Raises UserError naming each wrong key."""
    try:
        return pydantic.TypeAdapter(kind).validate_json(json.dumps(values, default=str))
    except (TypeError, ValueError, RecursionError) as error:
        if not isinstance(error, pydantic.ValidationError):
            raise UserError(f"{where}: not plain settings, mappings of names to values ({error})") from None
        raise UserError(f"{where}: " + "; ".join(map(_describe, error.errors()))) from None


def _describe(error):
    """Return one of pydantic's errors in the project's words."""
    key = ".".join(map(str, error["loc"])) or "the file"
    for pattern, today in RENAMED.items():
        if error["type"] in ("unexpected_keyword_argument", "extra_forbidden") and re.fullmatch(pattern, key):
            return f"{key}: {today}"
    if error["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
        return f"{key}: unknown key"
    if error["type"] in ("missing", "missing_argument"):
        return f"{key}: is missing"
    given = repr(error["input"])
    return f"{key}: {error['msg'].removeprefix('Value error, ')}" + (f" (it is {given})" if len(given) < 100 else "")
