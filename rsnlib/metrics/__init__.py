"""How right keypoints are, in the terms of each data set."""

from pathlib import Path

import numpy as np

from rsnlib.datasets import annotations_path
from rsnlib.metrics.coco import coco_ap, coco_results
from rsnlib.metrics.errors import keypoint_errors, repair_gains
from rsnlib.metrics.oks import nms, oks, suppress
from rsnlib.metrics.pck import pck, pckh
from rsnlib.metrics.persons import NEAR, box_distances, keypoint_accuracy, of_people, person_scores

__all__ = [
    "NEAR",
    "accuracy",
    "box_distances",
    "coco_ap",
    "coco_results",
    "headline",
    "keypoint_accuracy",
    "keypoint_errors",
    "nms",
    "of_people",
    "oks",
    "pck",
    "pckh",
    "person_scores",
    "repair_gains",
    "suppress",
]


def accuracy(settings, root, people, keypoints, scores):
    """The figures of a data set's own protocol: COCO's average precision (fractions), PCKh or PCK (per cent).

    settings: config.Dataset; root: the folder that settings.root is relative to
    people: People of the validation split; keypoints: (P, K, 2) in picture pixels, scores: (P, K)
    """
    folder = Path(root) / settings.root
    if settings.reader == "coco":
        results = coco_results(people.image_ids, keypoints, scores, people.scores)
        return coco_ap(results, annotations_path(folder, "coco", settings.splits["val"]))
    if settings.reader == "mpii":
        return pckh(keypoints[np.argsort(people.ids)], folder / "annot" / "gt_valid.mat")
    return pck(keypoints, people)


def headline(reader):
    """The figure by which runs on a data set are compared."""
    return "AP" if reader == "coco" else "Mean"
