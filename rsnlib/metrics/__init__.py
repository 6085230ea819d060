"""How right keypoints are, in the terms of each data set."""

from functools import partial
from pathlib import Path

import numpy as np

from rsnlib.datasets import annotations_path
from rsnlib.metrics.coco import coco_ap, coco_results, keypoints_of
from rsnlib.metrics.errors import (
    ERRORS,
    PCK_ERRORS,
    errors_by_keypoint,
    keypoint_errors,
    pck_errors,
    pck_gains,
    repair_gains,
)
from rsnlib.metrics.groups import ap_by_group, pck_by_group
from rsnlib.metrics.oks import nms, oks, suppress
from rsnlib.metrics.pck import HEADS, TORSOS, head_distances, pck, pckh, torso_distances

__all__ = [
    "accuracy",
    "coco_ap",
    "coco_results",
    "diagnose",
    "headline",
    "keypoint_errors",
    "nms",
    "oks",
    "pck",
    "pckh",
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


def diagnose(settings, root, people, results):
    """What lies behind a run's figure, AP or Mean (`headline`): three data frames, {"errors", "gains", "groups"}.

    errors: how often each keypoint is good and wrong in each way (`errors_by_keypoint`)
    gains: what repairing each kind of error would bring (`repair_gains`, `pck_gains`)
    groups: the figure of some people among all (`ap_by_group`, `pck_by_group`)

    In COCO's format the kinds of errors are those of `keypoint_errors`, and people are grouped by size and by how much
    of them is hidden or in others' boxes. By PCK (mpii, lspet) the kinds are those of `pck_errors`, of everyone whom
    the protocol counts, and people are grouped by size alone: no labelled keypoint is hidden.

    settings, root: as for `accuracy`
    people: the true People of the validation split; results: a list in COCO's results format, by PCK in their order
    """
    folder = Path(root) / settings.root
    if settings.reader == "coco":
        annotations = annotations_path(folder, "coco", settings.splits["val"])
        errors, kinds = keypoint_errors(results, people), ERRORS
        gains, groups = repair_gains(results, people, annotations), ap_by_group(results, people, annotations)
    else:
        keypoints, kinds = keypoints_of(results, len(people.skeleton)), PCK_ERRORS
        if settings.reader == "mpii":
            order = np.argsort(people.ids)  # as in the ground truth
            keypoints, people = keypoints[order], people.take(order)
            distances = partial(head_distances, ground_truth=folder / "annot" / "gt_valid.mat")
            errors = pck_errors(distances, keypoints, people, HEADS)
        else:
            errors = pck_errors(partial(torso_distances, people=people), keypoints, people, TORSOS)
        gains, groups = pck_gains(errors), pck_by_group(errors, people)
    return {"errors": errors_by_keypoint(errors, people.skeleton, kinds), "gains": gains, "groups": groups}


def headline(reader):
    """The figure by which runs on a data set are compared."""
    return "AP" if reader == "coco" else "Mean"
