"""Object keypoint similarity and suppression against their definitions, written out in plain Python."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools.cocoeval import Params

from rsnlib.data.skeletons import COCO
from rsnlib.metrics.oks import nms, oks, suppress

SIGMAS = COCO.sigmas[:5]
people_counts = st.integers(1, 7)
seeds = st.integers(0, 2**32 - 1)
kinds = st.sampled_from(["hard", "soft"])
thresholds = st.floats(0.05, 0.95)


def crowd(count, seed):
    """People of five keypoints, some close to one another: keypoints (P, 5, 2), areas (P,), scores (P,)."""
    random = np.random.default_rng(seed)
    keypoints = random.uniform(0, 60, (1, 5, 2)) + random.choice([0.5, 5, 50], (count, 1, 1)) * random.normal(
        size=(count, 5, 2)
    )
    return keypoints, random.uniform(100, 9000, count), random.uniform(0.01, 1, count)


def similarity(points, others, area, sigmas, counted):
    terms = [
        math.exp(-((x - u) ** 2 + (y - v) ** 2) / (2 * area * (2 * sigma) ** 2))
        for (x, y), (u, v), sigma, counts in zip(points, others, sigmas, counted)
        if counts
    ]
    return sum(terms) / len(terms) if terms else 0


def suppressed_by_definition(keypoints, areas, scores, kind, threshold):
    current, left, final = list(scores), set(range(len(scores))), {}
    while left:
        best = max(left, key=lambda person: current[person])
        final[best] = current[best]
        left.remove(best)
        for other in sorted(left):
            area = (areas[best] + areas[other]) / 2
            alike = similarity(keypoints[best], keypoints[other], area, SIGMAS, [True] * 5)
            if kind == "soft":
                current[other] *= math.exp(-(alike**2) / threshold)
            elif alike > threshold:
                left.remove(other)
    return [final.get(person, 0) for person in range(len(scores))]


@given(people_counts, people_counts, seeds)
def test_similarity_is_as_defined(count, others_count, seed):
    keypoints, areas, _ = crowd(count, seed)
    others = keypoints[:1] + np.random.default_rng(seed).normal(0, 10, (others_count, 5, 2))
    counted = np.random.default_rng(seed).random((count, 5)) < 0.6
    found = oks(keypoints, others, areas[:, None], SIGMAS, counted)
    assert found.shape == (count, others_count)
    for p in range(count):
        for q in range(others_count):
            wanted = similarity(keypoints[p], others[q], areas[p], SIGMAS, counted[p])
            assert found[p, q] == pytest.approx(wanted, abs=1e-12)


def test_sigmas_are_those_of_pycocotools():
    assert COCO.sigmas == pytest.approx(Params("keypoints").kpt_oks_sigmas, rel=1e-12)


def test_a_person_without_area_is_only_like_themselves():
    keypoints = np.zeros((2, 5, 2))
    keypoints[1] += 1
    np.testing.assert_array_equal(oks(keypoints, keypoints, np.zeros((2, 2)), SIGMAS), np.eye(2))


@given(people_counts, seeds, kinds, thresholds)
@settings(max_examples=300)
def test_suppression_is_as_defined(count, seed, kind, threshold):
    keypoints, areas, scores = crowd(count, seed)
    wanted = suppressed_by_definition(keypoints, areas, scores, kind, threshold)
    np.testing.assert_allclose(nms(keypoints, areas, scores, SIGMAS, kind, threshold) * scores, wanted, rtol=1e-9)


def test_suppression_stays_within_a_picture(make_people):
    people = make_people(np.zeros((99, 99, 3)), [[0, 0, 50, 90]] * 4, (0, 0))
    people = replace(people, image_ids=np.array([1, 2, 1, 2]), scores=np.array([0.5, 0.6, 0.7, 0.8]))
    keypoints, scores = np.full((4, 17, 2), 30.0), np.ones((4, 17))

    kept, points, values = suppress(people, keypoints, scores, "hard", 0.9)
    assert kept.ids.tolist() == [3, 4] and kept.scores.tolist() == [0.7, 0.8]
    assert points.shape == (2, 17, 2) and values.shape == (2, 17)

    kept, _, _ = suppress(people, keypoints, scores, "soft", 0.9)
    np.testing.assert_allclose(kept.scores, [0.5 * math.exp(-1 / 0.9), 0.6 * math.exp(-1 / 0.9), 0.7, 0.8])
