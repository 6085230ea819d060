"""Stage `figures`: what all runs on one data set learn and see, as arrays and data frames for rsnlib.report."""

import numpy as np
import pandas as pd
import torch

from rsnlib.config import load_params
from rsnlib.data.geometry import transform
from rsnlib.data.images import normalise, read_image
from rsnlib.inference.predict import look_inside
from rsnlib.metrics import box_distances, keypoint_accuracy, person_scores, protocol
from rsnlib.models.attention import PRM
from rsnlib.report import cost
from rsnlib.report.tables import results_table
from rsnlib.stages.artifacts import load_poses, load_run, match_predictions
from rsnlib.stages.layout import predictions_path, runs
from rsnlib.stages.networks import published_costs
from rsnlib.stages.results import load_draws, load_metrics, load_report
from rsnlib.stages.stores import load_store, pictures


def poses_in_pictures(dataset, model, seed, count):
    """Return the first validation pictures with a run's poses: image, keypoints (P, K, 2) and boxes (P, 4) of each."""
    image_ids, poses = load_poses(dataset, model, seed)
    found = []
    for image_id, (path, upright) in list(pictures(dataset).items())[:count]:
        here = image_ids == image_id
        found.append((read_image(path, upright), poses.keypoints[here], poses.boxes[here]))
    return found


def heads_of(dataset, model, seed, person, keypoint):
    """Return one validation person's crop (H, W, 3), the heatmaps of every head of a run (stages, 4, K, h, w) and the
    name of the keypoint, an index."""
    store = load_store(dataset, "val", model)
    crop = store.window(person)
    network = load_run(dataset, model, seed)
    with torch.no_grad():
        heads = network.heads(normalise(crop[None]))[0].numpy()
    return crop, heads, store.people.skeleton.keypoints[keypoint].replace("_", " ")


def attention_maps(dataset, person):
    """Yield, for each run whose last head has a Pose Refine Machine, model, seed, one validation person's crop
    (H, W, 3), and the channel weights (K,) and position weights (K, h, w) of that head."""
    people = load_store(dataset, "val").people
    for model, seed in runs(dataset):
        network = load_run(dataset, model, seed)
        if isinstance(network.stages[-1].heads[-1].attention, PRM):
            picture = read_image(people.images[person], people.upright[person])
            seen = look_inside(network, picture, people.boxes[person])
            yield model, seed, seen.crop, *seen.attention[max(seen.attention)]


def trained_fields(dataset, people=16):
    """Return the effective receptive fields of the first block of every model trained on a data set (from its first
    seed), on the first validation people, as heatmaps.effective_fields takes them."""
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
    """Return the accuracy of every model on a data set, with its interval (low, high), against its cost, as of
    `published_costs`, with the published networks where they were judged on that data set."""
    reader, skeleton = load_params().judged_by(dataset)
    judge, metrics = protocol(reader, skeleton), load_metrics(dataset)
    table, first = results_table(metrics, load_draws(dataset), dataset, judge), judge.metric
    ours = pd.DataFrame(
        {
            "model": table["model"],
            "source": "this run",
            "input": table["input"],
            "multiply_adds": table["model"].map(metrics.groupby("model")["multiply_adds"].first()) / 1e9,
            "accuracy": table[first],
            "low": table[f"{first} low"],
            "high": table[f"{first} high"],
        }
    )
    comparable = judge.published and dataset == reader == load_report(dataset, *runs(dataset)[0])["skeleton"]
    return pd.concat([published_costs(reader), ours], ignore_index=True) if comparable else ours


def accuracy_by_keypoint(dataset):
    """Return the share of people of whom every run on a data set has a keypoint right: a data frame with columns model,
    seed, keypoint and accuracy (%)."""
    tables = []
    for model, seed in runs(dataset):
        people, keypoints = match_predictions(dataset, predictions_path(dataset, model, seed))
        shares = keypoint_accuracy(box_distances(keypoints, people))
        columns = {"model": model, "seed": seed, "keypoint": people.skeleton.keypoints, "accuracy": shares}
        tables.append(pd.DataFrame(columns))
    return pd.concat(tables, ignore_index=True)


def best_and_worst(dataset, model, seed, count=4):
    """Return a run's predictions of the people whom it got best, worst, and as well as half of all, as
    drawing.predictions takes them."""
    store = load_store(dataset, "val")
    people, keypoints = match_predictions(dataset, predictions_path(dataset, model, seed))
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
