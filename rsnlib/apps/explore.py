"""What notebooks/explore.ipynb shows, computed when asked for, then kept as long as the notebook runs; and its small
runs, which lie below work/explore, away from the pipeline's."""

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
from rsnlib.stages.layout import load_store, predicted_people
from rsnlib.training.loop import iterations, train

JUDGED = 100  # people, the first of the validation split, on whom runs are compared


def runs(dataset):
    """{name: path of its weights} of all that was trained on a data set: by the pipeline, then by `try_model`."""
    work = project_root() / "work"
    folders = [work / "models" / dataset, work / "explore" / "models" / dataset]
    found = {path.stem: path for folder in folders for path in sorted(folder.glob("*.safetensors"))}
    if not found:
        raise UserError(f"nothing is trained on {dataset} yet: run `make` or `dvc repro` first, then this cell again")
    return found


def predictions_path(weights):
    """Where the predictions of weights are, for the pipeline's runs as for those of `try_model`."""
    return weights.parents[2] / "predictions" / weights.parent.name / f"{weights.stem}.json"


@cache
def people(dataset):
    """The validation people of a data set."""
    return load_store(dataset, "val").people


@lru_cache(maxsize=8)
def network(weights):
    """The network of a file of weights."""
    return load_model(weights)


@lru_cache(maxsize=128)
def insight(dataset, weights, person):
    """What a network makes of one validation person, an index: a predict.Insight."""
    everyone = people(dataset)
    return look_inside(network(weights), read_image(everyone.images[person]), everyone.boxes[person])


@lru_cache(maxsize=64)
def distances(dataset, weights):
    """metrics.box_distances (P, K) of the validation people as predicted with some weights, infinite for people who
    were not predicted."""
    path = predictions_path(weights)
    if not path.is_file():
        raise UserError(f"{path}: no such file; the stage `evaluate` writes it")
    return box_distances(predicted_people(dataset, path)[1], people(dataset))


def worst_first(dataset, weights, keypoint):
    """The validation people of whom a keypoint is labelled and was predicted, the farthest off first."""
    far = distances(dataset, weights)[:, keypoint]
    if not np.isfinite(far).any():
        name = people(dataset).skeleton.keypoints[keypoint]
        raise UserError(f"{dataset}: nobody has a {name} both labelled and predicted")
    return largest_first(far)


def largest_first(values):
    """The places of those of `values` that are finite, the largest value first."""
    finite = np.isfinite(values)
    return np.argsort(-np.where(finite, values, -np.inf), kind="stable")[: finite.sum()]


def mean_distances(dataset, weights):
    """The mean of each validation person's `distances`, (P,); NaN for people not labelled or not predicted."""
    return np.ma.masked_invalid(distances(dataset, weights)).mean(axis=1).filled(np.nan)


def describe(dataset, person):
    """Who a validation person is."""
    everyone = people(dataset)
    labelled, keypoints = (everyone.visible[person] > 0).sum(), len(everyone.skeleton)
    picture = f"annotation {everyone.ids[person]} in {Path(everyone.images[person]).name}"
    return f"person {person}, {picture}, {labelled} of {keypoints} keypoints labelled"


def compare(dataset):
    """Every run on a data set, judged on the same validation people: a data frame, one row a run."""
    rows = []
    for name, weights in runs(dataset).items():
        model, right = network(weights), None
        parameters, multiply_adds = cost.cost(model.architecture, model.keypoints, model.input_size)
        if predictions_path(weights).is_file():
            found = distances(dataset, weights)[:JUDGED]
            right = 100 * (found <= NEAR).sum() / max(1, (~np.isnan(found)).sum())
        trained = model.about.get("tried", "as params.yaml says")
        rows.append((name, trained, parameters / 1e6, multiply_adds / 1e9, right))
    columns = ["run", "trained", "parameters (M)", "multiply-adds (G)", "right keypoints (%)"]
    return pd.DataFrame(rows, columns=columns).astype({columns[-1]: float})


def try_model(dataset, model, name, epochs, most, report):
    """Train a network briefly, on the first `most` training people, and predict the first JUDGED validation people;
    returns the name of the run, a new one each time.

    model: a config.Model; whatever its input size, it has the data set's
    report: called with the share done, 0 to 1, and what is going on; what it raises ends the run without a trace
    """
    params = load_params()
    settings = params.dataset(dataset)
    settings = replace(settings, kernels=model.kernels or settings.kernels)
    store = first_people(load_store(dataset, "train"), most)
    validation = first_people(load_store(dataset, "val"), JUDGED)
    found = validation.people
    schedule = replace(settings.schedule, epochs=float(epochs), iterations=None)
    total = iterations(schedule, len(store))
    schedule = replace(schedule, warmup=min(schedule.warmup, total // 10))

    def log(row):
        report(row["iteration"] / total, f"training, loss {row['loss']:.0f}")

    report(0, "training")
    torch.manual_seed(0)
    network = create_model(model.architecture, len(found.skeleton), settings.input_size)
    learnt = {"intermediate_supervision": model.intermediate_supervision, "hard_keypoints": model.hard_keypoints}
    shared = replace(params.train, epochs=None)
    network, _ = train(network, store, settings, schedule, seed=0, train=shared, log=log, **learnt)
    report(1, f"predicting {len(found)} people")
    how = params.evaluate.flip_test, settings.blur, params.evaluate.decoding
    keypoints, scores = predict_store(network, validation, *how)
    report(1, "done")

    folder = project_root() / "work" / "explore" / "models" / dataset
    files = (folder / f"{name}-try{number}.safetensors" for number in count(1))
    weights = next(file for file in files if not file.exists())
    where = found.image_ids, keypoints, scores, found.scores, found.boxes, found.categories
    write_results(predictions_path(weights), coco_results(*where))
    about = {"skeleton": found.skeleton.description, "enlarge": settings.enlarge, "blur": settings.blur}
    save_model(network, weights, about | {"tried": f"people: {len(store)}, epochs: {epochs}"})
    return weights.stem


def first_people(store, most):
    """A crop store with its first people alone, `most` of them at most."""
    part, rows = copy(store), slice(most)
    part.people = store.people.take(rows)
    part.center, part.scale, part.matrices = store.center[rows], store.scale[rows], store.matrices[rows]
    return part
