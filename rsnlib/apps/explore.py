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

from rsnlib.apps.example import example_people
from rsnlib.config import load_params, project_root
from rsnlib.data.images import read_image
from rsnlib.errors import UserError
from rsnlib.files import read_json, write_results
from rsnlib.inference.predict import look_inside, predict_store, skeleton_of
from rsnlib.metrics import NEAR, box_distances, coco_results
from rsnlib.metrics.bootstrap import interval, paired_difference, resample, resampled_share
from rsnlib.models.checkpoints import load_model, save_model
from rsnlib.models.zoo import create_model
from rsnlib.report import cost
from rsnlib.stages.artifacts import match_predictions
from rsnlib.stages.layout import crops_path, evaluation_path, metrics_path
from rsnlib.stages.stores import load_store
from rsnlib.stages.tables import judge_of
from rsnlib.training.loop import iterations, train

COMPARED = 100  # people, the first of the validation split, on whom runs are compared
DRAWN = 12  # people to look at where there is no data set yet


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


def prepared(dataset):
    """Return True once the stage `prepare` has written the validation people of a data set."""
    return crops_path(dataset, "val").is_file()


def weights_to_see(dataset):
    """Return `weights_by_run` or, while the data set is not prepared, the weights of the folder weights/ for as many
    keypoints as it has, else all of that folder."""
    if prepared(dataset):
        return weights_by_run(dataset)
    shipped = {f"rsnlib/{path.stem}": path for path in sorted((project_root() / "weights").glob("*.safetensors"))}
    _, skeleton = load_params().judged_by(dataset)
    alike = {name: path for name, path in shipped.items() if network(path).keypoints == len(skeleton)}
    return alike or shipped or weights_by_run(dataset)


def predictions_path(weights):
    """Return the path of the predictions that belong to a run's weights."""
    return weights.parents[2] / "predictions" / weights.parent.name / f"{weights.stem}.json"


def validation_people(dataset):
    """Return the validation `People` of a data set, or drawn people while it is not prepared."""
    return _validation_people(dataset) if prepared(dataset) else _drawn_people(*weights_to_see(dataset).values())


@cache
def _validation_people(dataset):
    return load_store(dataset, "val").people


@cache
def _drawn_people(weights, *_):
    return example_people(skeleton_of(network(weights)), DRAWN)


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


def metric_difference(dataset, first, second):
    """Return how much higher the second run scores by the data set's own metric than the first, in points, with the
    95 % interval over people: (metric, difference, low, high); None where `evaluate` has not judged both."""
    runs = [weights.stem.rsplit("-", 1) for weights in (second, first)]
    paths = [evaluation_path(dataset, *run, "draws") for run in runs]
    if not all(path.is_file() for path in paths):
        return None
    judge, given = judge_of(dataset), []
    for run, path in zip(runs, paths):
        value, draws = read_json(metrics_path(dataset, *run))[judge.metric], pd.read_csv(path)[judge.metric]
        given += [judge.per_cent * np.array([value]), judge.per_cent * draws.to_numpy()[None]]
    return judge.title, *paired_difference(*given)


def keypoint_differences(distances, image_ids, near):
    """Return how much more of the keypoints two runs have within `near`, the second less the first, in points, with the
    95 % interval over people of a paired bootstrap: of all keypoints, then of each, (1 + K, 3).

    distances: (2, P, K), of `distances`; image_ids: (P,)
    """
    images, pictures = np.unique(image_ids, return_inverse=True)
    counts = np.vstack([np.ones(len(images)), resample(len(images))])  # everybody once, then the draws
    rows = []
    for some in (slice(None), *([keypoint] for keypoint in range(distances.shape[2]))):
        shares = [resampled_share(each <= near, ~np.isnan(each), pictures, counts) for each in distances[:, :, some]]
        value, *draws = shares[1] - shares[0]
        rows.append((value, *interval(draws)) if np.isfinite(value) else (np.nan,) * 3)
    return np.array(rows)


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
