"""What is wrong with predicted keypoints, and what repairing it brings."""

import numpy as np
import pytest

from rsnlib.datasets import read_people
from rsnlib.metrics import coco_ap, coco_results, keypoint_errors, repair_gains
from rsnlib.metrics.errors import ERRORS
from rsnlib.skeletons import COCO

LEFT, RIGHT, NOSE = (COCO.keypoints.index(name) for name in ("left_wrist", "right_wrist", "nose"))
TOLERANCE = 2 * COCO.sigmas[LEFT] * 100  # in pixels, of a person of 100 x 100: similarity exp(-0.5)


@pytest.fixture
def couple(make_people):
    """Two people in one picture, their keypoints 30 pixels apart, each 400 pixels from the other's."""
    places = np.stack([np.arange(17) % 5, np.arange(17) // 5], axis=-1) * 30.0
    people = make_people(np.zeros((500, 900, 3)), [[0, 0, 100, 100], [400, 0, 100, 100]], places)
    people.keypoints[1, :, 0] += 400
    return people


def predictions(people, keypoints):
    return coco_results(people.image_ids, keypoints, np.ones(people.visible.shape), people.scores)


def errors_of(people, keypoints, person=0):
    """{name: error} of one person's keypoints that are not good."""
    table = keypoint_errors(predictions(people, keypoints), people)
    wrong = table[(table["person"] == person) & (table["error"] != "good")]
    return dict(zip(wrong["name"], wrong["error"]))


def test_true_keypoints_are_good(couple):
    table = keypoint_errors(predictions(couple, couple.keypoints), couple)
    assert len(table) == 2 * 17 and (table["error"] == "good").all()
    assert table["result"].tolist() == table["person"].tolist() == [0] * 17 + [1] * 17


def test_each_kind_of_error_is_told_from_the_others(couple):
    keypoints = couple.keypoints.copy()
    keypoints[0, LEFT, 0] += TOLERANCE  # similarity 0.61
    assert errors_of(couple, keypoints) == {"left_wrist": "jitter"}
    keypoints[0, LEFT] = couple.keypoints[0, RIGHT]
    assert errors_of(couple, keypoints) == {"left_wrist": "mirror swap"}
    keypoints[0, LEFT] = couple.keypoints[1, LEFT]
    assert errors_of(couple, keypoints) == {"left_wrist": "person swap"}
    keypoints[0, LEFT] = couple.keypoints[1, RIGHT]
    assert errors_of(couple, keypoints) == {"left_wrist": "person swap"}
    keypoints[0, LEFT] = couple.keypoints[0, LEFT] + [200, 300]
    assert errors_of(couple, keypoints) == {"left_wrist": "miss"}
    assert errors_of(couple, keypoints, person=1) == {}


def test_places_that_are_not_labelled_are_nobodys(couple):
    keypoints = couple.keypoints.copy()
    keypoints[0, LEFT] = couple.keypoints[0, RIGHT]
    couple.visible[0, RIGHT] = 0
    assert errors_of(couple, keypoints) == {"left_wrist": "miss"}
    keypoints[0, LEFT] = couple.keypoints[1, LEFT]
    couple.visible[1, LEFT] = 0
    assert errors_of(couple, keypoints) == {"left_wrist": "miss"}


def test_a_person_is_told_by_the_best_prediction_of_them(couple):
    blurred = couple.keypoints + 8
    table = keypoint_errors(
        predictions(couple, blurred)[:1] + predictions(couple, couple.keypoints)[:1], couple
    )  # of the same score: the first in the file
    assert set(table["result"]) == {0} and set(table["person"]) == {0}
    results = predictions(couple, blurred)[:1] + predictions(couple, couple.keypoints)[:1]
    results[1]["score"] = 2.0
    assert set(keypoint_errors(results, couple)["result"]) == {1}


def test_predictions_in_pictures_without_people_and_far_from_all_are_of_nobody(couple):
    far = predictions(couple, couple.keypoints + 5000)
    elsewhere = [result | {"image_id": 99} for result in predictions(couple, couple.keypoints)]
    assert len(keypoint_errors(far + elsewhere, couple)) == 0
    assert len(keypoint_errors([], couple)) == 0


def test_repairing_the_only_kind_of_error_makes_everything_right(demo_folder):
    people = read_people(demo_folder, "coco", "val2017")
    annotations = demo_folder / "annotations/person_keypoints_val2017.json"
    keypoints = people.keypoints[:, people.skeleton.mirrored]  # every left keypoint at the right one's place
    keypoints[:, [NOSE, 5, 6, 11, 12]] = people.keypoints[:, [NOSE, 5, 6, 11, 12]]
    results = predictions(people, keypoints)
    gains = repair_gains(results, people, annotations).set_index("error")
    assert tuple(gains.index) == ERRORS
    before = coco_ap(results, annotations)["AP"]
    np.testing.assert_allclose(gains["AP"] - before, gains["gain"])
    assert gains["gain"].idxmax() == "mirror swap" and gains["gain"]["mirror swap"] > 0.3
    assert (gains["share"] >= 0).all() and gains["share"].sum() < 1
    np.testing.assert_array_equal(
        [result["keypoints"] for result in results], [result["keypoints"] for result in predictions(people, keypoints)]
    )  # what was given is left alone


@pytest.mark.shared
def test_real_people_jittered_lack_what_jitter_costs(shared):
    people = read_people(shared / "data/coco", "coco", "val2017")
    random = np.random.default_rng(0)
    results = predictions(people, people.keypoints + random.normal(0, 2, people.keypoints.shape))
    annotations = shared / "data/coco/annotations/person_keypoints_val2017.json"
    gains = repair_gains(results, people, annotations).set_index("error")["gain"]
    assert gains.idxmax() == "jitter" and gains["jitter"] > 0.05
