"""How right keypoints are, in the terms of each data set."""

from pathlib import Path

import numpy as np

from rsnlib.datasets import annotations_path
from rsnlib.metrics.bootstrap import resample
from rsnlib.metrics.coco import coco_ap, coco_matches, coco_results, resampled_ap
from rsnlib.metrics.errors import keypoint_errors, repair_gains
from rsnlib.metrics.oks import nms, oks, suppress
from rsnlib.metrics.pck import (
    PCK_WITHIN,
    PCKH_WITHIN,
    head_distances,
    pck,
    pckh,
    resampled_share,
    torso_distances,
)

__all__ = [
    "accuracy",
    "coco_ap",
    "coco_results",
    "headline",
    "keypoint_errors",
    "nms",
    "oks",
    "pck",
    "pckh",
    "repair_gains",
    "resampled_headline",
    "suppress",
]


def accuracy(settings, root, people, keypoints, scores):
    """The figures of a data set's own protocol: COCO's average precision (fractions), PCKh or PCK (per cent).

    settings: config.Dataset; root: the folder that settings.root is relative to
    people: People of the validation split; keypoints: (P, K, 2) in picture pixels, scores: (P, K)
    """
    folder = Path(root) / settings.root
    if settings.reader == "coco":
        results = coco_results(people.image_ids, keypoints, scores, people.scores, categories=people.categories)
        return coco_ap(results, annotations_path(folder, "coco", settings.splits["val"]), people.skeleton)
    if settings.reader == "mpii":
        return pckh(keypoints[np.argsort(people.ids)], folder / "annot" / "gt_valid.mat")
    return pck(keypoints, people)


def headline(reader):
    """The figure by which runs on a data set are compared."""
    return "AP" if reader == "coco" else "Mean"


def resampled_headline(settings, root, people, results):
    """The `headline` of a run on resampled pictures (metrics.bootstrap), (draws,), in the unit of `accuracy`.

    settings, root and people: as for `accuracy`; results: the run's predictions in COCO's results format, people of
    other formats than COCO's in the order of `people`
    """
    folder = Path(root) / settings.root
    if settings.reader == "coco":
        matches = coco_matches(results, annotations_path(folder, "coco", settings.splits["val"]), people.skeleton)
        return resampled_ap(matches, resample(len(matches.people)))
    keypoints = np.array([result["keypoints"] for result in results]).reshape(len(people), -1, 3)[..., :2]
    images, pictures = np.unique(people.image_ids, return_inverse=True)
    if settings.reader == "mpii":
        order = np.argsort(people.ids)
        distance, counted = head_distances(keypoints[order], folder / "annot" / "gt_valid.mat")
        right, pictures = distance <= PCKH_WITHIN, pictures[order]
    else:
        distance, counted = torso_distances(keypoints, people)
        right = distance <= PCK_WITHIN
    return resampled_share(right, counted, pictures, resample(len(images)))
