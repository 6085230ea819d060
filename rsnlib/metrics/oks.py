"""Object keypoint similarity, and the suppression of predictions that show one person twice."""

from dataclasses import replace

import numpy as np
import pandas as pd


def oks(keypoints, others, areas, sigmas, counted=None):
    """Return the object keypoint similarity (cocodataset.org) of each of P people with each of Q, (P, Q): the mean over
    the keypoints, 0 for a person none of whose keypoints counts.

    keypoints: (P, K, 2), others: (Q, K, 2), pixels
    areas: square pixels, of a shape that broadcasts to (P, Q)
    sigmas: (K,), Skeleton.sigmas
    counted: (P, K) bool, the keypoints of the P people that count; None: all
    """
    similarity = keypoint_similarity(keypoints, others, areas, sigmas)
    if counted is None:
        return similarity.mean(axis=-1)
    counted = counted[:, None]
    return (similarity * counted).sum(axis=-1) / np.maximum(1, counted.sum(axis=-1))


def keypoint_similarity(keypoints, others, areas, sigmas):
    """Return the terms of `oks`, (P, Q, K): exp(-distance^2 / (2 area (2 sigma)^2)) of each keypoint."""
    square = ((keypoints[:, None] - others) ** 2).sum(axis=-1)
    tolerance = 2 * (2 * np.asarray(sigmas)) ** 2 * (np.asarray(areas)[..., None] + np.spacing(1))
    return np.exp(-square / tolerance)


def rows_by_image(image_ids):
    """Return the rows of each image: {image id: (n,) indices}. image_ids: (P,)"""
    image_ids = pd.Series(image_ids, dtype=np.int64)
    return image_ids.groupby(image_ids).indices


def by_picture(people, image_ids):
    """Yield, for each picture of `people`, the rows of those in it, and the rows of `image_ids`, (Q,), that name it."""
    others = rows_by_image(image_ids)
    for image_id, rows in rows_by_image(people.image_ids).items():
        yield rows, others.get(image_id, np.zeros(0, int))


def nms(keypoints, areas, scores, sigmas, kind, threshold):
    """Return the factors, (P,), by which suppression lowers the scores of P people predicted in one picture. Each
    person in turn, the highest score first, suppresses those left:

    "hard": factor 0 for everyone more similar than `threshold`, who suppresses nobody in turn
    "soft": factor exp(-similarity^2 / threshold), before the next turn (Bodla et al., ICCV 2017)

    keypoints: (P, K, 2), areas: (P,), scores: (P,). The similarity of two people is by the mean of their areas.
    """
    similarity = oks(keypoints, keypoints, (areas[:, None] + areas) / 2, sigmas)
    factors, waiting = np.ones(len(scores)), np.ones(len(scores), bool)
    while waiting.any():
        turn = np.where(waiting, scores * factors, -np.inf).argmax()
        waiting[turn] = False
        if kind == "hard":
            factors[waiting & (similarity[turn] > threshold)] = 0
            waiting &= factors > 0
        else:
            factors[waiting] *= np.exp(-(similarity[turn, waiting] ** 2) / threshold)
    return factors


def suppress(people, keypoints, scores, kind, threshold):
    """Return `people`, keypoints (P, K, 2) and scores (P, K) after `nms` in every picture, without the suppressed. Soft
    suppression lowers People.scores."""
    factors = np.ones(len(people))
    person_scores = people.scores * scores.mean(axis=1)
    for rows in rows_by_image(people.image_ids).values():
        found = keypoints[rows], people.areas[rows], person_scores[rows]
        factors[rows] = nms(*found, people.skeleton.sigmas, kind, threshold)
    kept = factors > 0
    lowered = replace(people, scores=people.scores * factors)
    return lowered.take(kept), keypoints[kept], scores[kept]
