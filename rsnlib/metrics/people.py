"""How right the keypoints of single people are, whatever the data set, so that people and keypoints can be compared."""

import numpy as np
from pycocotools.mask import iou

from rsnlib.metrics.oks import oks

NEAR = 0.05  # of the box's longer side: from which distance on a keypoint is wrong


def of_people(people, image_ids, boxes, keypoints):
    """The prediction of each person: among those in the same picture the one whose box overlaps the person's the most;
    (P, K, 2), NaN where none overlaps.

    people: P true People; image_ids: (Q,), boxes: (Q, 4), keypoints: (Q, K, 2), predicted
    """
    found = np.full(people.keypoints.shape, np.nan)
    for image_id in np.unique(people.image_ids):
        rows, candidates = np.flatnonzero(people.image_ids == image_id), np.flatnonzero(image_ids == image_id)
        if len(candidates):
            overlap = iou(boxes[candidates], people.boxes[rows], np.zeros(len(rows)))
            best = overlap.argmax(axis=0)
            overlaps = overlap.max(axis=0) > 0
            found[rows[overlaps]] = keypoints[candidates[best[overlaps]]]
    return found


def box_distances(keypoints, people):
    """How far keypoints (P, K, 2) lie from the truth, in longer sides of the people's boxes, the first unit of PCK
    (Yang and Ramanan, PAMI 2013): (P, K), infinite where nobody was predicted, NaN where nothing is labelled."""
    distances = np.linalg.norm(keypoints - people.keypoints, axis=2) / people.boxes[:, 2:].max(axis=1)[:, None]
    distances[np.isnan(distances)] = np.inf
    return np.where(people.visible > 0, distances, np.nan)


def keypoint_accuracy(distances, near=NEAR):
    """The share, per cent, of each keypoint's `box_distances` (P, K) that are at most `near`: (K,), NaN for keypoints
    that nobody has."""
    labelled = (~np.isnan(distances)).sum(axis=0)
    right = (distances <= near).sum(axis=0)
    return 100 * np.where(labelled > 0, right / np.maximum(1, labelled), np.nan)


def person_scores(keypoints, people):
    """How right each person's keypoints (P, K, 2) are, from 0 to 1: object keypoint similarity or, where the skeleton
    has no sigmas, the share of keypoints that are `NEAR` enough. NaN for people without labelled keypoints."""
    labelled = people.visible > 0
    if people.skeleton.sigmas is None:
        right = (box_distances(keypoints, people) <= NEAR).sum(axis=1) / np.maximum(1, labelled.sum(axis=1))
    else:
        predicted = np.nan_to_num(keypoints, nan=np.inf)[:, None]
        right = oks(people.keypoints, predicted, people.areas[:, None], people.skeleton.sigmas, labelled)[:, 0]
    return np.where(labelled.any(axis=1), right, np.nan)
