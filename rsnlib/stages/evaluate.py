"""Stage `evaluate`: weights to predictions, metrics and their diagnosis."""

from dataclasses import asdict

import numpy as np
import pandas as pd
import torch

from rsnlib.config import load_params
from rsnlib.data.geometry import crop_matrix, evaluation_region, transform
from rsnlib.data.images import read_image, warp
from rsnlib.data.readers import ground_truth, read_detections, read_people, withheld
from rsnlib.device import default_device
from rsnlib.errors import UserError
from rsnlib.fast import fuse
from rsnlib.files import fingerprint, whole_file, write_json, write_results
from rsnlib.inference.predict import WAYS, decoding_of, predict_people, predict_store, skeleton_of
from rsnlib.metrics import coco_results, protocol, suppress
from rsnlib.models.checkpoints import load_model
from rsnlib.stages.artifacts import load_poses, load_run
from rsnlib.stages.layout import data_path, evaluation_path, metrics_path, predictions_path
from rsnlib.stages.provenance import code_fingerprint
from rsnlib.stages.stores import load_store, pictures


def evaluate(dataset, model, seed):
    """Judge one run on the validation people, or in a detector's boxes, in all of predict.WAYS; returns the metrics of
    the way that evaluate.flip_test and evaluate.decoding choose.

    Writes results/<dataset>/evaluate/<run>.json, these metrics, and in the folder <run>: variants.csv, flip_test,
    decoding and the metrics of every way; errors.csv, gains.csv and groups.csv, the protocol's diagnosis of the chosen
    way; draws.csv, its metric on resampled pictures; evaluation.json, what they were measured with.
    """
    params = load_params()
    settings, options = params.dataset(dataset), params.evaluate
    network = fuse(load_run(dataset, model, seed), default_device()).to(getattr(torch, options.precision))
    store = load_store(dataset, "val", model)
    if settings.detections == "none":
        people = store.people
        predicted = predict_store(network, store, WAYS, settings.blur)
    else:
        people = evaluation_people(dataset)
        predicted = predict_people([network], people, settings.margin, WAYS, settings.blur)
    judge, truth = _judge(dataset, settings, settings.splits["val"], store.people)
    judged = {}
    for way, keypoints, scores in zip(WAYS, *predicted, strict=True):
        judged[way] = judge_predictions(judge, truth, options, people, keypoints, scores)
    results, metrics = judged[options.flip_test, options.decoding]
    write_results(predictions_path(dataset, model, seed), results)
    write_json(metrics_path(dataset, model, seed), metrics)
    variants = [
        {"flip_test": str(flip_test).lower(), "decoding": decoding, **judged[flip_test, decoding][1]}
        for flip_test, decoding in WAYS
    ]
    found = {"variants": pd.DataFrame(variants), **judge.diagnose(store.people, results, truth)}
    found["draws"] = pd.DataFrame({judge.metric: judge.resample(store.people, results, truth)})
    for name, table in found.items():
        with whole_file(evaluation_path(dataset, model, seed, name), "w") as file:
            table.to_csv(file, index=False, lineterminator="\n")
    about = {
        "people": len(store),
        "boxes": "ground truth" if settings.detections == "none" else "detections",
        **asdict(options),
        "parameters": fingerprint(asdict(options), settings.margin, settings.blur, settings.detections),
        "code": code_fingerprint("evaluate"),
    }
    write_json(evaluation_path(dataset, model, seed, "evaluation").with_suffix(".json"), about)
    return metrics


def _judge(dataset, settings, split, people):
    """Return the Protocol of a data set, and what predictions are judged by as the `people` of a split were read."""
    return protocol(*load_params().judged_by(dataset)), ground_truth(data_path(dataset), settings.reader, split, people)


def annotated_people(dataset, split=None):
    """Return the people of a split's annotations, None: of the validation split."""
    params = load_params()
    settings = params.dataset(dataset)
    folder, split = data_path(dataset), split or settings.splits["val"]
    how = settings.unusable, params.skeleton(settings), settings.boxes, settings.area, settings.exif
    return read_people(folder, settings.reader, split, *how)


def evaluation_people(dataset, split=None, detections=None, min_score=0):
    """Return the people of a data set to judge a network on: of a split's annotations or in a detector's boxes.

    split: None: the validation split; detections: a path, None: the data set's `detections`, of which those of a score
        below `min_score` are left out
    """
    params = load_params()
    settings = params.dataset(dataset)
    folder, split = data_path(dataset), split or settings.splits["val"]
    if detections is None and settings.detections == "none":
        return annotated_people(dataset, split)
    detections = detections or folder / settings.detections
    if settings.reader != "coco":
        raise UserError(f"{detections}: detections are for data sets in COCO's format, which {dataset} is not")
    return read_detections(detections, folder, split, params.skeleton(settings), min_score, settings.exif)


def judge_predictions(judge, truth, options, people, keypoints, scores):
    """Return predictions in COCO's results format, each with its person's id as "person_id", and their metrics, after
    the suppression that `options`, config.Evaluate, ask for.

    judge: Protocol, None: for no metrics; truth: what it judges by; people: P; keypoints: (P, K, 2); scores: (P, K)
    """
    if options.nms != "none" and people.skeleton.sigmas:
        people, keypoints, scores = suppress(people, keypoints, scores, options.nms, options.nms_threshold)
    results = coco_results(people.image_ids, keypoints, scores, people.scores, people.boxes, people.categories)
    for result, person in zip(results, people.ids.tolist(), strict=True):
        result["person_id"] = person
    return results, judge and judge.accuracy(people, keypoints, scores, truth)


def evaluate_weights(weights, dataset, split=None, detections=None, min_score=0):
    """Judge one network, or several as an ensemble, on the `evaluation_people` of a data set of params.yaml; returns
    their predictions in COCO's results format, and metrics, None for a test split.

    weights: paths of files; their input sizes may differ but for the aspect. Margin, blur and the quarter of a cell are
        those of the first network's `about`, if there, else the data set's and the paper's
    """
    params = load_params()
    settings, options = params.dataset(dataset), params.evaluate
    models = [fuse(load_model(path), default_device()).to(getattr(torch, options.precision)) for path in weights]
    people = evaluation_people(dataset, split, detections, min_score)
    for model, path in zip(models, weights):
        if model.keypoints != len(people.skeleton):
            raise UserError(f"{path}: has {model.keypoints} keypoints, {dataset} {len(people.skeleton)}")
        skeleton = skeleton_of(model) if "skeleton" in model.about else people.skeleton
        if skeleton.keypoints != people.skeleton.keypoints:
            raise UserError(f"{path}: is of the skeleton {skeleton.name}, {dataset} of {people.skeleton.name}")
    about = models[0].about
    margin, blur = about.get("margin", settings.margin), about.get("blur", settings.blur)
    decoding = decoding_of(models[0]) if options.decoding == "quarter" else options.decoding
    (keypoints,), (scores,) = predict_people(models, people, margin, [(options.flip_test, decoding)], blur)
    split, judge = split or settings.splits["val"], (None, None)
    if not withheld(settings.reader, split):
        in_boxes = detections or settings.detections != "none"
        judge = _judge(dataset, settings, split, annotated_people(dataset, split) if in_boxes else people)
    return judge_predictions(*judge, options, people, keypoints, scores)


def predicted_crops(dataset, model, seed, count):
    """Return the first of a run's predictions in the crops that they were read from: crops (N, H, W, 3), keypoints
    (N, K, 2) in the crops and scores (N, K)."""
    settings = load_params().dataset(dataset, model)
    image_ids, poses = load_poses(dataset, model, seed)
    known = pictures(dataset)
    rows = [row for row, image_id in enumerate(image_ids) if image_id in known][:count]
    region = evaluation_region(poses.boxes[rows], settings.input_size, settings.margin)
    matrices = crop_matrix(*region, 0, settings.input_size)
    crops = [
        warp(read_image(*known[image_id]), matrix, settings.input_size)
        for image_id, matrix in zip(image_ids[rows], matrices, strict=True)
    ]
    return np.stack(crops), transform(matrices, poses.keypoints[rows]), poses.scores[rows]
