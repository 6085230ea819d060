"""The layout of the project's files: where each stage writes, and the runs of params.yaml."""

from pathlib import Path

from rsnlib.errors import UserError
from rsnlib.files import project_root


def run_name(model, seed):
    """Return the name that the files of a run have."""
    return f"{model}-{seed}"


def data_path(dataset):
    """Return the folder of a data set."""
    from rsnlib.config import load_params  # a command that needs paths alone starts without torch

    return project_root() / load_params().folder(dataset)


def digest_path(dataset):
    """Return the path of the digest of a data set's files, written by `digest`."""
    return project_root() / "work" / "digests" / f"{dataset}.json"


def crops_path(dataset, split, size="own"):
    """Return the path of a crop store. size: "own", or a name among the data set's more_input_sizes"""
    name = split if size == "own" else f"{split}-{size}"
    return project_root() / "work" / "crops" / dataset / f"{name}.safetensors"


def start_path(model):
    """Return the path of what stands for the weights that a model starts from, written by `starts`."""
    return project_root() / "work" / "starts" / f"{model}.json"


def weights_path(dataset, model, seed):
    """Return the path of a run's weights, written by `train`."""
    return project_root() / "work" / "models" / dataset / f"{run_name(model, seed)}.safetensors"


def released_path(name):
    """Return the path of weights for everyone, written by `release`."""
    return project_root() / "weights" / f"{name}.safetensors"


def state_path(mark):
    """Return the folder of the checkpoints that a training resumes from. mark: fingerprint of the training"""
    return project_root() / "work" / "state" / mark


def tensorboard_path(dataset, model, seed):
    """Return the folder of a run's curves for TensorBoard."""
    return project_root() / "work" / "tensorboard" / dataset / run_name(model, seed)


def predictions_path(dataset, model, seed):
    """Return the path of a run's predictions in COCO's results format, written by `evaluate`."""
    return project_root() / "work" / "predictions" / dataset / f"{run_name(model, seed)}.json"


def notebooks_path(*parts):
    """Return a path among the executed notebooks."""
    return project_root().joinpath("work", "notebooks", *parts)


def executed_path(stage, item):
    """Return the path of the executed notebook of a stage. item: {key of the stage's matrix: value}"""
    where = Path(item.get("dataset", ""), stage)
    if "model" in item:
        where /= run_name(item["model"], item["seed"])
    return notebooks_path(f"{where}.ipynb")


def time_path(stage):
    """Return the path of the time that a stage took. stage: its name as `dvc repro` takes it"""
    return project_root() / "work" / "times" / f"{stage}.json"


def results_path(*parts):
    """Return a path among the results, of a data set if its name comes first."""
    return project_root().joinpath("results", *parts)


def training_path(dataset, model, seed, *parts):
    """Return a path among what `train` reports of a run."""
    return results_path(dataset, "train", run_name(model, seed), *parts)


def evaluation_path(dataset, model, seed, name):
    """Return the path of a table that `evaluate` writes about a run."""
    return results_path(dataset, "evaluate", run_name(model, seed), f"{name}.csv")


def metrics_path(dataset, model, seed):
    """Return the path of a run's metrics, written by `evaluate`."""
    return results_path(dataset, "evaluate", f"{run_name(model, seed)}.json")


def runs(dataset):
    """Return (model, seed) of every run of params.yaml on a data set, models in their order there."""
    from rsnlib.config import load_params

    run = load_params().run
    if dataset not in run.datasets:
        raise UserError(f"params.yaml: run.datasets has no {dataset!r}")
    return [(model, seed) for model in run.models for seed in run.seeds]
