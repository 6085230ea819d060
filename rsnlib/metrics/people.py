"""Accuracy of single people and single keypoints, whatever the data set's protocol."""

import numpy as np

from rsnlib.metrics.oks import by_picture, oks

NEAR = 0.05  # of the box's longer side: a keypoint farther off is wrong


def match_by_box(people, image_ids, boxes, keypoints):
    """Return each person's prediction, (P, K, 2): the one in the picture whose box overlaps the person's the most; NaN
    where none overlaps.

    people: P ground-truth People; image_ids: (Q,), boxes: (Q, 4), keypoints: (Q, K, 2), predicted
    """
    from pycocotools.mask import iou  # here, so that training does without it

    matched = np.full(people.keypoints.shape, np.nan)
    for rows, candidates in by_picture(people, image_ids):
        if len(candidates):
            overlap = iou(boxes[candidates], people.boxes[rows], np.zeros(len(rows)))
            best, overlaps = overlap.argmax(axis=0), overlap.max(axis=0) > 0
            matched[rows[overlaps]] = keypoints[candidates[best[overlaps]]]
    return matched


def box_distances(keypoints, people):
    """Return the distances (P, K) of keypoints (P, K, 2) from the ground truth in longer sides of the people's boxes
    (PCK's first unit: Yang and Ramanan, PAMI 2013); infinite where nobody was predicted, NaN where nothing is
    labelled."""
    distances = np.linalg.norm(keypoints - people.keypoints, axis=2) / people.boxes[:, 2:].max(axis=1)[:, None]
    distances[np.isnan(distances)] = np.inf
    return np.where(people.visible > 0, distances, np.nan)


def keypoint_accuracy(distances, near=NEAR):
    """Return the share of each keypoint's `box_distances` (P, K) that are at most `near`: (K,) per cent, NaN for
    keypoints that nobody has."""
    labelled = (~np.isnan(distances)).sum(axis=0)
    right = (distances <= near).sum(axis=0)
    return 100 * np.where(labelled > 0, right / np.maximum(1, labelled), np.nan)


def person_scores(keypoints, people):
    """Return a score from 0 to 1 of each person's keypoints (P, K, 2): object keypoint similarity or, where the
    skeleton has no sigmas, the share of keypoints within `NEAR`. NaN for people without labelled keypoints."""
    labelled = people.visible > 0
    if people.skeleton.sigmas is None:
        right = (box_distances(keypoints, people) <= NEAR).sum(axis=1) / np.maximum(1, labelled.sum(axis=1))
    else:
        predicted = np.nan_to_num(keypoints, nan=np.inf)[:, None]
        right = oks(people.keypoints, predicted, people.areas[:, None], people.skeleton.sigmas, labelled)[:, 0]
    return np.where(labelled.any(axis=1), right, np.nan)
