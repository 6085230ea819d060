"""How right keypoints are, in the terms of each data set."""

from functools import partial
from pathlib import Path

import numpy as np

from rsnlib.data.readers import annotations_path
from rsnlib.metrics.bootstrap import resample
from rsnlib.metrics.coco import coco_ap, coco_matches, coco_results, keypoints_of, resampled_ap
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
from rsnlib.metrics.pck import PCK_WITHIN, PCKH_WITHIN, head_distances, pck, pckh, resampled_share, torso_distances


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


def diagnose(settings, root, people, results):
    """What lies behind a run's figure, AP or Mean (`headline`): three data frames, {"errors", "gains", "groups"}.

    errors: how often each keypoint is good and wrong in each way (`errors_by_keypoint`)
    gains: what repairing each kind of error would bring (`repair_gains`, `pck_gains`)
    groups: the figure of some people among all (`ap_by_group`, `pck_by_group`)

    In COCO's format the kinds of errors are those of `keypoint_errors`, and people are grouped by size and by how much
    of them is hidden or in others' boxes. By PCK (mpii, lsp, lspet) the kinds are those of `pck_errors`, of everyone
    whom the protocol counts, and people are grouped by size alone.

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
            errors = pck_errors(distances, keypoints, people, PCKH_WITHIN)
        else:
            errors = pck_errors(partial(torso_distances, people=people), keypoints, people, PCK_WITHIN)
        gains, groups = pck_gains(errors), pck_by_group(errors, people)
    return {"errors": errors_by_keypoint(errors, people.skeleton, kinds), "gains": gains, "groups": groups}


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
        return resampled_ap(matches, resample(len(matches[0].people)))
    keypoints = keypoints_of(results, len(people.skeleton))
    images, pictures = np.unique(people.image_ids, return_inverse=True)
    if settings.reader == "mpii":
        order = np.argsort(people.ids)
        distance, counted = head_distances(keypoints[order], folder / "annot" / "gt_valid.mat")
        right, pictures = distance <= PCKH_WITHIN, pictures[order]
    else:
        distance, counted = torso_distances(keypoints, people)
        right = distance <= PCK_WITHIN
    return resampled_share(right, counted, pictures, resample(len(images)))
