"""Stage `figures`: what all runs on one data set learn and see."""

import numpy as np
import pandas as pd
import torch

from rsnlib.config import load_params
from rsnlib.data.geometry import transform
from rsnlib.data.images import normalise, read_image
from rsnlib.inference.predict import look_inside
from rsnlib.metrics import box_distances, headline, keypoint_accuracy, person_scores
from rsnlib.report import cost
from rsnlib.report.tables import published
from rsnlib.stages.layout import (
    load_figures,
    load_poses,
    load_run,
    load_store,
    picture_paths,
    predicted_people,
    predictions_path,
    runs,
)
from rsnlib.stages.networks import published_costs


def pictures(dataset, model, seed, count):
    """The first validation pictures with a run's poses: image, keypoints (P, K, 2) and boxes (P, 4) of each."""
    image_ids, poses = load_poses(dataset, model, seed)
    found = []
    for image_id, path in list(picture_paths(dataset).items())[:count]:
        here = image_ids == image_id
        found.append((read_image(path), poses.keypoints[here], poses.boxes[here]))
    return found


def heads_of(dataset, model, seed, person, keypoint):
    """One validation person's crop (H, W, 3), the heatmaps of every head of a run (stages, 4, K, h, w) and the name of
    the keypoint, an index."""
    store = load_store(dataset, "val", model)
    crop = store.window(person)
    network = load_run(dataset, model, seed)
    with torch.no_grad():
        heads = network.heads(normalise(crop[None]))[0].numpy()
    return crop, heads, store.people.skeleton.keypoints[keypoint].replace("_", " ")


def refined_runs(dataset):
    """`runs` whose networks have the Pose Refine Machine."""
    models = load_params().models
    return [run for run in runs(dataset) if models[run[0]].attention in ("prm", "prm-mmpose")]


def attention_of(dataset, model, seed, person):
    """One validation person's crop (H, W, 3) and what the Pose Refine Machine of a run's last head weighs: channel (K,)
    and position (K, h, w)."""
    people = load_store(dataset, "val").people
    seen = look_inside(load_run(dataset, model, seed), read_image(people.images[person]), people.boxes[person])
    return seen.crop, *seen.attention[max(seen.attention)]


def trained_fields(dataset, people=16):
    """The effective receptive fields of the first block of every model trained on a data set (from its first seed), on
    the first validation people, as figures.effective_fields takes them."""
    store = load_store(dataset, "val")
    images = normalise(np.stack([store.window(row) for row in range(min(people, len(store)))]))
    fields = {}
    for model, seed in runs(dataset):
        if model not in fields:
            network = load_run(dataset, model, seed)
            kind = network.architecture.block, cost.branch_count(network.architecture)
            fields[model] = cost.effective_fields(network, images), cost.field_sizes(*kind)
    return fields


def costs(dataset):
    """The accuracy of every run on a data set against its cost, as `published_costs`, with the published ones where
    they are of that data set."""
    settings = load_params().dataset(dataset)
    percent = 100 if settings.reader == "coco" else 1
    rows = []
    for run in load_figures(dataset).to_dict("records"):
        network = load_run(dataset, run["model"], run["seed"])
        _, multiply_adds = cost.cost(network.architecture, network.keypoints, network.input_size)
        size, accuracy = "x".join(map(str, network.input_size)), percent * run[headline(settings.reader)]
        rows.append((run["model"], "this run", size, multiply_adds / 1e9, accuracy))
    ours = pd.DataFrame(rows, columns=["model", "source", "input", "multiply_adds", "accuracy"])
    comparable = dataset == settings.reader and published(settings.reader, settings.skeleton) is not None
    return pd.concat([published_costs(settings.reader), ours], ignore_index=True) if comparable else ours


def accuracy_by_keypoint(dataset):
    """How often every run on a data set has each keypoint right: columns model, seed, keypoint and accuracy (%)."""
    tables = []
    for model, seed in runs(dataset):
        people, keypoints = predicted_people(dataset, predictions_path(dataset, model, seed))
        shares = keypoint_accuracy(box_distances(keypoints, people))
        columns = {"model": model, "seed": seed, "keypoint": people.skeleton.keypoints, "accuracy": shares}
        tables.append(pd.DataFrame(columns))
    return pd.concat(tables, ignore_index=True)


def best_and_worst(dataset, model, seed, count=4):
    """A run's predictions of the people whom it got best, worst, and as well as half of all, as figures.predictions
    takes them."""
    store = load_store(dataset, "val")
    people, keypoints = predicted_people(dataset, predictions_path(dataset, model, seed))
    scores = person_scores(keypoints, people)
    order = np.argsort(-scores, kind="stable")[: np.isfinite(scores).sum()]
    middle = max(0, (len(order) - count) // 2)
    rows = {"best": order[:count], "median": order[middle : middle + count], "worst": order[-count:]}
    truth, predicted = transform(store.matrices, people.keypoints), transform(store.matrices, keypoints)
    measure = "similarity" if people.skeleton.sigmas else "share right"
    return {
        kind: [(store.window(p), truth[p], people.visible[p], predicted[p], f"{measure} {scores[p]:.2f}") for p in some]
        for kind, some in rows.items()
    }
