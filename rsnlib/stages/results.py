"""Small results of the runs, read back from results/: metrics, curves, diagnosis, draws, and what made them."""

import numpy as np
import pandas as pd

from rsnlib.errors import UserError
from rsnlib.files import read_json, whole_file
from rsnlib.stages.layout import evaluation_path, metrics_path, results_path, run_name, runs, training_path


def load_metrics(dataset):
    """Return the metrics of every run on a data set: a data frame, one row per run; input is the size of the run's
    crops, as "256x192", parameters and multiply_adds are the network's, for one person."""
    rows = []
    for model, seed in runs(dataset):
        about = load_report(dataset, model, seed)
        known = {key: about[key] for key in ("input", "parameters", "multiply_adds")}
        rows.append({"model": model, "seed": seed, **known, **read_json(metrics_path(dataset, model, seed))})
    return pd.DataFrame(rows)


def load_report(dataset, model, seed):
    """Return run.json, all that `train` says about a run, and beside it as "evaluation" what `evaluate` says."""
    evaluation = evaluation_path(dataset, model, seed, "evaluation").with_suffix(".json")
    return read_json(training_path(dataset, model, seed, "run.json")) | {"evaluation": read_json(evaluation)}


def load_curves(dataset):
    """Return the training curves of every run on a data set: a data frame as of `load_curve`, with model and seed."""
    curves = [load_curve(dataset, model, seed).assign(model=model, seed=seed) for model, seed in runs(dataset)]
    return pd.concat(curves, ignore_index=True)


def load_curve(dataset, model, seed):
    """Return the training curve of a run: a data frame, one row per log, columns iteration, epoch, loss, learning_rate
    and the validation metric."""
    folder = training_path(dataset, model, seed, "plots", "metrics")
    columns = [pd.read_csv(path, sep="\t").set_index("step") for path in sorted(folder.glob("*.tsv"))]
    if not columns:
        raise UserError(f"{folder}: no training curves; run the stage `train`")
    return pd.concat(columns, axis=1).rename_axis("iteration").reset_index()


def load_evaluations(dataset, name):
    """Return `load_evaluation` of every run on a data set: {run: data frame}."""
    return {run_name(*run): load_evaluation(dataset, *run, name) for run in runs(dataset)}


def load_evaluation(dataset, model, seed, name):
    """Return what `evaluate` found about a run, a data frame: "variants", "errors", "gains", "groups" or "draws"."""
    path = evaluation_path(dataset, model, seed, name)
    if not path.is_file():
        raise UserError(f"{path}: no such file; the stage `evaluate` writes it")
    return pd.read_csv(path)


def load_draws(dataset):
    """Return the metric of every run on a data set on the same resampled validation pictures for all: {model: array
    (seeds, draws)}, in the unit of `load_metrics`."""
    draws = {}
    for model, seed in runs(dataset):
        draws.setdefault(model, []).append(load_evaluation(dataset, model, seed, "draws").iloc[:, 0].to_numpy())
    return {model: np.stack(seeds) for model, seeds in draws.items()}


def save_figure(figure, dataset, name):
    """Write a figure to results/<dataset>/figures/<name>, a .png, or a .jpg where it shows photographs.

    dataset: None for a figure of networks: results/networks/<name>
    """
    path = results_path(dataset, "figures", name) if dataset else results_path("networks", name)
    with whole_file(path) as file:
        figure.savefig(file, dpi=100, format=path.suffix[1:])
