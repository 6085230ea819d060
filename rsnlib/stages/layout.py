"""Where the stages' files lie, and what is read back from them."""

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from ruamel.yaml import YAML

from rsnlib.config import load_params, project_root, run_name
from rsnlib.data.store import CropStore
from rsnlib.errors import UserError
from rsnlib.files import fingerprint, read_json, whole_file
from rsnlib.inference.predict import Poses
from rsnlib.metrics import of_people, resampled_headline
from rsnlib.models.checkpoints import load_model

PACKAGE = Path(__file__).parents[1]


def crops_path(dataset, split, size=None):
    """Where a crop store lies. size: the name of one of the data set's more_input_sizes; None: its own size"""
    name = split if size is None else f"{split}-{size}"
    return project_root() / "work" / "crops" / dataset / f"{name}.safetensors"


def weights_path(dataset, model, seed):
    """Where `train` writes a run's weights."""
    return project_root() / "work" / "models" / dataset / f"{run_name(model, seed)}.safetensors"


def predictions_path(dataset, model, seed):
    """Where `evaluate` writes a run's predictions, in COCO's results format."""
    return project_root() / "work" / "predictions" / dataset / f"{run_name(model, seed)}.json"


def results_path(dataset, *parts):
    """A place among the results of a data set."""
    return project_root().joinpath("results", dataset, *parts)


def runs(dataset):
    """(model, seed) of every run of params.yaml on a data set, models in their order there."""
    run = load_params().run
    if dataset not in run.datasets:
        raise UserError(f"params.yaml: run.datasets has no {dataset!r}")
    return [(model, seed) for model in run.models for seed in run.seeds]


def load_store(dataset, split, model=None):
    """The crop store of "train" or "val", its pictures' paths as this machine has them.

    model: the name of one, for crops of the size that it sees; None: of the data set's own
    """
    params = load_params()
    settings = params.dataset(dataset, model)
    store = CropStore(crops_path(dataset, split, params.model(model).input_size if model else None))
    if store.input_size != settings.input_size:
        raise UserError(f"{store.path}: made for another input_size; run the stage `prepare` again")
    images = [str(project_root() / image) for image in store.people.images]
    store.people = replace(store.people, images=np.array(images))
    return store


def load_run(dataset, model, seed):
    """The trained network of a run."""
    return load_model(weights_path(dataset, model, seed))


def trained():
    """{data set and run: path} of all weights that trainings left, the newest first."""
    folder = project_root() / "work" / "models"
    paths = sorted(folder.glob("*/*.safetensors"), key=lambda path: -path.stat().st_mtime)
    if not paths:
        raise UserError(f"{folder}: no weights; the stage `train` writes them")
    return {f"{path.parent.name} {path.stem}": path for path in paths}


def load_poses(dataset, model, seed):
    """Everyone a run predicted for the validation pictures: image ids (P,) and Poses."""
    return read_poses(predictions_path(dataset, model, seed))


def read_poses(path):
    """The same from the file of predictions."""
    results = read_json(path)
    values = np.array([result["keypoints"] for result in results]).reshape(len(results), -1, 3)
    image_ids, boxes, score = (np.array([result[key] for result in results]) for key in ("image_id", "box", "score"))
    return image_ids, Poses(values[..., :2], values[..., 2], boxes, score / values[..., 2].mean(axis=1), score)


def load_curve(dataset, model, seed):
    """The training curve of a run: one row a log, columns iteration, epoch, loss, learning_rate and the
    validation figure."""
    folder = results_path(dataset, "train", run_name(model, seed), "plots", "metrics")
    columns = [pd.read_csv(path, sep="\t").set_index("step") for path in sorted(folder.glob("*.tsv"))]
    if not columns:
        raise UserError(f"{folder}: no training curves; run the stage `train`")
    return pd.concat(columns, axis=1).rename_axis("iteration").reset_index()


def load_curves(dataset):
    """The rows of `load_curve` of every run on a data set, with its model and seed."""
    curves = [load_curve(dataset, model, seed).assign(model=model, seed=seed) for model, seed in runs(dataset)]
    return pd.concat(curves, ignore_index=True)


def evaluation_path(dataset, model, seed, name):
    """Where `evaluate` writes what `load_evaluation` reads."""
    return results_path(dataset, "evaluate", run_name(model, seed), f"{name}.csv")


def load_evaluation(dataset, model, seed, name):
    """What `evaluate` found about a run, a data frame: "variants", "errors", "gains" or "groups"."""
    path = evaluation_path(dataset, model, seed, name)
    if not path.is_file():
        raise UserError(f"{path}: no such file; the stage `evaluate` writes it")
    return pd.read_csv(path)


def load_evaluations(dataset, name):
    """`load_evaluation` of every run on a data set that params.yaml names: {run: data frame}."""
    return {run_name(*run): load_evaluation(dataset, *run, name) for run in runs(dataset)}


def load_figures(dataset):
    """The figures of every run on a data set that params.yaml names: a data frame, one row a run; input is the size
    of its crops, as "256x192"."""
    params = load_params()
    rows = []
    for model, seed in runs(dataset):
        figures = read_json(results_path(dataset, "evaluate", f"{run_name(model, seed)}.json"))
        size = "x".join(map(str, params.dataset(dataset, model).input_size))
        rows.append({"model": model, "seed": seed, "input": size, **figures})
    return pd.DataFrame(rows)


def load_draws(dataset):
    """The headline figure of every run on a data set, on the same resampled validation pictures for all: {model: array
    (seeds, draws)}, in the unit of `load_figures`."""
    settings = load_params().dataset(dataset)
    people = load_store(dataset, "val").people
    draws = {}
    for model, seed in runs(dataset):
        results = read_json(predictions_path(dataset, model, seed))
        draws.setdefault(model, []).append(resampled_headline(settings, project_root(), people, results))
    return {model: np.stack(seeds) for model, seeds in draws.items()}


def code_fingerprint(*stages):
    """Stands for the code that stages of dvc.yaml depend on: rooms of rsnlib and notebooks."""
    root = project_root()
    known = YAML(typ="safe").load(root / "dvc.yaml")["stages"]
    paths = [path for stage in stages for path in known[stage]["deps"] if path.startswith(("rsnlib", "notebooks"))]
    return fingerprint(_digests(root, paths))


def _digests(root, paths):
    """{path below `root`: SHA-256} of files, and of the code in folders."""
    paths = [Path(root, path) for path in paths]
    folders = [path for path in paths if path.is_dir()]
    files = {file for folder in folders for kind in ("*.py", "*.c") for file in folder.rglob(kind)}
    files |= set(paths) - set(folders)
    return {str(file.relative_to(root)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def save_figure(figure, dataset, name):
    """Keep a figure as results/<dataset>/figures/<name>, a .png, or a .jpg where it is of photographs.

    dataset: None for what is of networks, not of a data set: results/networks/<name>
    """
    path = results_path(dataset, "figures", name) if dataset else results_path("networks", name)
    with whole_file(path) as file:
        figure.savefig(file, dpi=100, format=path.suffix[1:])


def picture_paths(dataset):
    """The pictures of the validation people, in order: {image id: path}."""
    people = load_store(dataset, "val").people
    paths, first = np.unique(people.images, return_index=True)
    return dict(zip(people.image_ids[first].tolist(), paths.tolist()))


def predicted_people(dataset, path):
    """The validation people and where the predictions in a file have each: keypoints (P, K, 2), NaN for people whom
    nobody predicted."""
    people = load_store(dataset, "val").people
    image_ids, poses = read_poses(path)
    return people, of_people(people, image_ids, poses.boxes, poses.keypoints)
