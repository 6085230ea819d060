"""Object keypoint similarity, and the suppression of predictions that show one person twice."""

from dataclasses import replace

import numpy as np
import pandas as pd


def oks(keypoints, others, areas, sigmas, counted=None):
    """Object keypoint similarity (cocodataset.org) of each of P people with each of Q: the mean of the keypoints'.

    keypoints: (P, K, 2), others: (Q, K, 2), pixels
    areas: square pixels, of a shape that broadcasts to (P, Q)
    sigmas: (K,), Skeleton.sigmas
    counted: (P, K), which of the P people's keypoints count; None: all
    -> (P, Q), 0 for people none of whose keypoints count
    """
    similarity = keypoint_similarity(keypoints, others, areas, sigmas)
    if counted is None:
        return similarity.mean(axis=-1)
    counted = np.asarray(counted, bool)[:, None]
    return (similarity * counted).sum(axis=-1) / np.maximum(1, counted.sum(axis=-1))


def keypoint_similarity(keypoints, others, areas, sigmas):
    """The terms of `oks`, (P, Q, K): exp(-distance^2 / (2 area (2 sigma)^2)) of each keypoint."""
    square = ((keypoints[:, None] - others) ** 2).sum(axis=-1)
    tolerance = 2 * (2 * np.asarray(sigmas)) ** 2 * (np.asarray(areas)[..., None] + np.spacing(1))
    return np.exp(-square / tolerance)


def nms(keypoints, areas, scores, sigmas, kind, threshold):
    """By what to multiply the scores of P people predicted in one picture, (P,). Everyone's turn comes by score, the
    highest first, and whoever's turn it is lowers those after them:

    "hard": to 0, out of the picture, where they are more similar than `threshold`
    "soft": by exp(-similarity^2 / threshold), before the next turn (Bodla et al., ICCV 2017)

    keypoints: (P, K, 2), areas: (P,), scores: (P,). Two people's similarity is by the mean of their areas.
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
    """`people`, keypoints (P, K, 2) and scores (P, K) after `nms` in every picture: without those suppressed; what soft
    suppression takes from a person's score is taken from the box's."""
    factors = np.ones(len(people))
    person_scores = people.scores * scores.mean(axis=1)
    for rows in pd.Series(people.image_ids).groupby(people.image_ids).indices.values():
        where = keypoints[rows], people.areas[rows], person_scores[rows]
        factors[rows] = nms(*where, people.skeleton.sigmas, kind, threshold)
    kept = factors > 0
    lowered = replace(people, scores=people.scores * factors)
    return lowered.take(kept), keypoints[kept], scores[kept]
