"""Computations for notebooks/explore.ipynb, cached while the notebook runs; and its small runs, which lie below
work/explore, away from the pipeline's."""

from copy import copy
from dataclasses import replace
from functools import cache, lru_cache
from itertools import count
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from rsnlib.config import load_params, project_root
from rsnlib.data.images import read_image
from rsnlib.errors import UserError
from rsnlib.files import write_results
from rsnlib.inference.predict import look_inside, predict_store
from rsnlib.metrics import NEAR, box_distances, coco_results
from rsnlib.models.checkpoints import load_model, save_model
from rsnlib.models.zoo import create_model
from rsnlib.report import cost
from rsnlib.stages.artifacts import match_predictions
from rsnlib.stages.stores import load_store
from rsnlib.training.loop import iterations, train

COMPARED = 100  # people, the first of the validation split, on whom runs are compared


def weights_by_run(dataset):
    """Return {run: path of its weights} for the pipeline's runs on a data set, then those of `train_briefly`.

    Raises UserError if there are none.
    """
    work = project_root() / "work"
    folders = [work / "models" / dataset, work / "explore" / "models" / dataset]
    found = {path.stem: path for folder in folders for path in sorted(folder.glob("*.safetensors"))}
    if not found:
        raise UserError(f"nothing is trained on {dataset} yet: run `make` or `dvc repro` first, then this cell again")
    return found


def predictions_path(weights):
    """Return the path of the predictions that belong to a run's weights."""
    return weights.parents[2] / "predictions" / weights.parent.name / f"{weights.stem}.json"


@cache
def validation_people(dataset):
    """Return the validation `People` of a data set."""
    return load_store(dataset, "val").people


network = lru_cache(maxsize=8)(load_model)


@lru_cache(maxsize=128)
def insight(dataset, weights, person):
    """Return the predict.Insight of a network into one validation person, an index."""
    people = validation_people(dataset)
    picture = read_image(people.images[person], people.upright[person])
    return look_inside(network(weights), picture, people.boxes[person])


@lru_cache(maxsize=64)
def distances(dataset, weights):
    """Return metrics.box_distances (P, K) of a run's predictions of the validation people.

    Infinite for people not predicted, NaN where nothing is labelled. Raises UserError for a run not evaluated yet.
    """
    path = predictions_path(weights)
    if not path.is_file():
        raise UserError(f"{path}: no such file; the stage `evaluate` writes it")
    return box_distances(match_predictions(dataset, path)[1], validation_people(dataset))


def mean_distances(dataset, weights):
    """Return the mean of each validation person's `distances`, (P,), NaN for people not labelled or not predicted."""
    return np.ma.masked_invalid(distances(dataset, weights)).mean(axis=1).filled(np.nan)


def worst_first(dataset, weights, keypoint):
    """Return the validation people who have a keypoint labelled and predicted, the farthest off first: indices."""
    worst = largest_first(distances(dataset, weights)[:, keypoint])
    if not len(worst):
        name = validation_people(dataset).skeleton.keypoints[keypoint]
        raise UserError(f"{dataset}: nobody has a {name} both labelled and predicted")
    return worst


def largest_first(values):
    """Return the indices of the finite `values`, the largest first."""
    finite = np.flatnonzero(np.isfinite(values))
    return finite[np.argsort(-values[finite], kind="stable")]


def describe(dataset, person):
    """Describe a validation person in a line: annotation, picture, number of labelled keypoints."""
    people = validation_people(dataset)
    labelled, keypoints = (people.visible[person] > 0).sum(), len(people.skeleton)
    picture = f"annotation {people.ids[person]} in {Path(people.images[person]).name}"
    return f"person {person}, {picture}, {labelled} of {keypoints} keypoints labelled"


def compare(dataset):
    """Compare every run on a data set by the same validation people: a data frame, one row per run."""
    rows = []
    for name, weights in weights_by_run(dataset).items():
        model = network(weights)
        parameters, multiply_adds = cost.cost(model.architecture, model.keypoints, model.input_size)
        row = {"run": name, "trained": model.about.get("tried", "as params.yaml says")}
        row |= {"parameters (M)": parameters / 1e6, "multiply-adds (G)": multiply_adds / 1e9}
        row["right keypoints (%)"] = np.nan
        if predictions_path(weights).is_file():
            found = distances(dataset, weights)[:COMPARED]
            row["right keypoints (%)"] = 100 * (found <= NEAR).sum() / max(1, (~np.isnan(found)).sum())
        rows.append(row)
    return pd.DataFrame(rows)


def train_briefly(dataset, model, name, epochs, people, progress):
    """Train a network for a few epochs and predict the first COMPARED validation people; return the new run's name.

    model: a config.Model; whatever its input size, the data set's is used, and it starts from no weights
    people: the number of training people, the first ones
    progress: called with the fraction done, 0 to 1, and a text; an exception from it ends the run without a trace
    """
    params, how = load_params(), model.training
    settings = params.dataset(dataset)
    if how.kernels != "own":
        settings = replace(settings, kernels=how.kernels)
    store, validation = first_people(load_store(dataset, "train"), people), first_people(load_store(dataset, "val"))
    total = iterations(replace(settings.recipe, length={"epochs": float(epochs)}), len(store))
    warmup = min(settings.recipe.warmup, total // 10)
    recipe = replace(settings.recipe, length={"iterations": total}, warmup=warmup)

    def log(row):
        progress(row["iteration"] / total, f"training, loss {row['loss']:.0f}")

    progress(0, "training")
    torch.manual_seed(0)
    found = validation.people
    network = create_model(model.architecture, len(found.skeleton), settings.input_size)
    learnt = {"intermediate_supervision": how.intermediate_supervision, "hard_keypoints": how.mined_keypoints}
    network, _ = train(network, store, settings, recipe, seed=0, train=params.train, log=log, **learnt)
    progress(1, f"predicting {len(found)} people")
    ways = [(params.evaluate.flip_test, params.evaluate.decoding)]
    (keypoints,), (scores,) = predict_store(network, validation, ways, settings.blur)
    progress(1, "done")

    folder = project_root() / "work" / "explore" / "models" / dataset
    files = (folder / f"{name}-try{number}.safetensors" for number in count(1))
    weights = next(file for file in files if not file.exists())
    where = found.image_ids, keypoints, scores, found.scores, found.boxes, found.categories
    write_results(predictions_path(weights), coco_results(*where))
    about = {"skeleton": found.skeleton.description, "margin": settings.margin, "blur": settings.blur}
    save_model(network, weights, about | {"tried": f"people: {len(store)}, epochs: {epochs}"})
    return weights.stem


def first_people(store, count=COMPARED):
    """Return a crop store with the first `count` people of `store` at most."""
    part, rows = copy(store), slice(count)
    part.people = store.people.take(rows)
    part.center, part.scale, part.matrices = store.center[rows], store.scale[rows], store.matrices[rows]
    return part
