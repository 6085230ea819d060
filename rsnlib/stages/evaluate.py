"""Stage `evaluate`: weights to predictions, metrics and diagnosis."""

from dataclasses import replace

import pandas as pd
import torch

from rsnlib.config import load_params, project_root, run_name
from rsnlib.data.geometry import crop_matrix, evaluation_region, transform
from rsnlib.data.images import read_image, warp
from rsnlib.data.readers import read_detections, read_people, withheld
from rsnlib.device import default_device
from rsnlib.errors import UserError
from rsnlib.fast.folded import fuse
from rsnlib.files import whole_file, write_json, write_results
from rsnlib.inference.predict import WAYS, predict_people, predict_people_in_ways, predict_store_in_ways, skeleton_of
from rsnlib.metrics import accuracy, coco_results, diagnose, suppress
from rsnlib.models.checkpoints import load_model
from rsnlib.stages.layout import (
    evaluation_path,
    load_poses,
    load_run,
    load_store,
    picture_paths,
    predictions_path,
    results_path,
)


def evaluate(dataset, model, seed):
    """Judge one run on the validation people, or in the boxes of evaluate.detections, in all of predict.WAYS; returns
    the figures of the way that evaluate.flip_test and evaluate.decoding choose.

    results/<dataset>/evaluate/: <run>.json, these figures; in <run>/ variants.csv, flip_test, decoding and the figures
    of every way, and errors.csv, gains.csv and groups.csv, what `metrics.diagnose` says of the chosen one
    """
    params = load_params()
    settings, options = params.dataset(dataset), params.evaluate
    network = fuse(load_run(dataset, model, seed)).to(default_device(), getattr(torch, options.precision))
    store = load_store(dataset, "val", model)
    if dataset in options.detections:
        people = evaluation_people(dataset)
        predicted = predict_people_in_ways([network], people, settings.enlarge, WAYS, settings.blur)
    else:
        people = store.people
        predicted = predict_store_in_ways(network, store, WAYS, settings.blur)
    judged = {way: judge(settings, options, people, *each) for way, each in zip(WAYS, zip(*predicted), strict=True)}
    results, figures = judged[options.flip_test, options.decoding]
    write_results(predictions_path(dataset, model, seed), results)
    write_json(results_path(dataset, "evaluate", f"{run_name(model, seed)}.json"), figures)
    rows = [
        {"flip_test": str(flip_test).lower(), "decoding": decoding, **judged[flip_test, decoding][1]}
        for flip_test, decoding in WAYS
    ]
    found = {"variants": pd.DataFrame(rows), **diagnose(settings, project_root(), store.people, results)}
    for name, table in found.items():
        with whole_file(evaluation_path(dataset, model, seed, name), "w") as file:
            table.to_csv(file, index=False, lineterminator="\n")
    return figures


def evaluation_people(dataset, split=None, detections=None):
    """The people of a data set to judge a network on: those of a split's annotations or, where there are detections,
    those in the detector's boxes.

    split: None: the validation split; detections: a path, None: what evaluate.detections has for the data set
    """
    params = load_params()
    settings = params.dataset(dataset)
    folder, split = project_root() / settings.root, split or settings.splits["val"]
    if detections is None and dataset in params.evaluate.detections:
        detections = folder / params.evaluate.detections[dataset]
    skeleton = params.skeleton(settings)
    if detections is None:
        return read_people(folder, settings.reader, split, settings.unusable, skeleton)
    if settings.reader != "coco":
        raise UserError(f"{detections}: detections are for data sets in COCO's format, which {dataset} is not")
    return read_detections(detections, folder, split, skeleton)


def judge(settings, options, people, keypoints, scores, annotated=True):
    """Predictions in COCO's results format, beside it the person's id as "person_id", and their figures (None of people
    who are not annotated), after the suppression that `options`, config.Evaluate, ask for."""
    if options.nms and settings.reader == "coco":
        people, keypoints, scores = suppress(people, keypoints, scores, options.nms, options.nms_threshold)
    results = coco_results(people.image_ids, keypoints, scores, people.scores, people.boxes, people.categories)
    for result, person in zip(results, people.ids.tolist(), strict=True):
        result["person_id"] = person
    return results, accuracy(settings, project_root(), people, keypoints, scores) if annotated else None


def evaluate_weights(weights, dataset, split=None, detections=None):
    """Judge one network, or several as an ensemble, on the `evaluation_people` of a data set of params.yaml: their
    predictions in COCO's results format, and figures, None for a test split.

    weights: paths of files of ours; their input sizes may differ but for the aspect
    """
    params = load_params()
    settings, options = params.dataset(dataset), params.evaluate
    models = [fuse(load_model(path)).to(default_device(), getattr(torch, options.precision)) for path in weights]
    people = evaluation_people(dataset, split, detections)
    for model, path in zip(models, weights):
        if model.keypoints != len(people.skeleton):
            raise UserError(f"{path}: has {model.keypoints} keypoints, {dataset} {len(people.skeleton)}")
        skeleton = skeleton_of(model) if "skeleton" in model.about else people.skeleton
        if skeleton.keypoints != people.skeleton.keypoints:
            raise UserError(f"{path}: is of the skeleton {skeleton.name}, {dataset} of {people.skeleton.name}")
    how = options.flip_test, settings.blur, options.decoding
    predicted = predict_people(models, people, settings.enlarge, *how)
    if split is not None:
        settings = replace(settings, splits=settings.splits | {"val": split})
    return judge(settings, options, people, *predicted, not withheld(settings.reader, settings.splits["val"]))


def predicted_crops(dataset, model, seed, count):
    """The first of a run's predictions in the crops they were made of: crops (N, H, W, 3), keypoints (N, K, 2) in them
    and scores (N, K)."""
    settings = load_params().dataset(dataset, model)
    image_ids, poses = load_poses(dataset, model, seed)
    paths = picture_paths(dataset)
    rows = [row for row, image_id in enumerate(image_ids) if image_id in paths][:count]
    region = evaluation_region(poses.boxes[rows], settings.input_size, settings.enlarge)
    matrices = crop_matrix(*region, 0, settings.input_size)
    crops = warp([read_image(paths[image_id]) for image_id in image_ids[rows]], matrices, settings.input_size)
    return crops.numpy(), transform(matrices, poses.keypoints[rows]), poses.scores[rows]
