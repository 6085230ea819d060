"""Accuracy of single people and of single keypoints."""

from dataclasses import replace

import numpy as np
import pytest

from rsnlib.data.skeletons import COCO
from rsnlib.metrics import box_distances, keypoint_accuracy, match_by_box, person_scores

PICTURE = np.zeros((100, 200, 3), np.uint8)


@pytest.fixture
def people(make_people):
    """Three people, the first two in picture 1; of the second only the nose is labelled, of the third nothing."""
    visible = np.array([[2] * 17, [1] + [0] * 16, [0] * 17])
    found = make_people(PICTURE, [[0, 0, 20, 40], [50, 0, 80, 40], [0, 0, 20, 40]], (10, 10), visible)
    return replace(found, image_ids=np.array([1, 1, 2]))


def test_a_prediction_is_matched_by_its_box(people):
    boxes = np.array([[52, 0, 80, 40], [0, 0, 20, 39], [150, 50, 20, 20]])
    keypoints = np.arange(3)[:, None, None] * np.ones((17, 2))
    found = match_by_box(people, np.array([1, 1, 2]), boxes, keypoints)
    assert found[:2, 0].tolist() == [[1, 1], [0, 0]]
    assert np.isnan(found[2]).all()  # the only box in that picture lies elsewhere


def test_distances_are_in_longer_sides_of_the_box(people):
    keypoints = people.keypoints + [3, 4]  # 5 pixels
    keypoints[1] = np.nan
    distances = box_distances(keypoints, people)
    np.testing.assert_allclose(distances[0], 5 / 40)
    assert distances[1, 0] == np.inf and np.isnan(distances[1, 1:]).all() and np.isnan(distances[2]).all()


def test_accuracy_counts_labelled_keypoints_alone():
    distances = np.array([[0.04, 0.06, np.nan], [np.inf, 0.05, np.nan]])
    np.testing.assert_array_equal(keypoint_accuracy(distances, 0.05), [50, 50, np.nan])


def test_people_are_scored_by_similarity_or_by_the_share_right(people):
    keypoints = people.keypoints.copy()
    keypoints[0, :4] += 40
    keypoints[1] = np.nan
    scores = person_scores(keypoints, people)
    assert scores[0] == pytest.approx(13 / 17) and scores[1] == 0 and np.isnan(scores[2])

    plain = replace(people, skeleton=replace(COCO, sigmas=None))
    keypoints[0, 5] += 1  # similarity would see it, 0.035 of the box is right
    assert person_scores(keypoints, plain)[0] == pytest.approx(13 / 17)
    assert person_scores(keypoints, people)[0] < 13 / 17
