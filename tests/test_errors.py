"""Kinds of errors of predicted keypoints, and the gain from repairing them."""

import numpy as np
import pytest

from rsnlib.data.readers import read_people
from rsnlib.data.skeletons import COCO
from rsnlib.metrics import coco_ap, coco_results, keypoint_errors, repair_gains
from rsnlib.metrics.errors import ERRORS, errors_by_keypoint

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


def test_each_kind_of_error_is_told_from_the_others(couple):
    table = keypoint_errors(predictions(couple, couple.keypoints), couple)
    assert len(table) == 2 * 17 and (table["error"] == "good").all()
    assert table["result"].tolist() == table["person"].tolist() == [0] * 17 + [1] * 17

    (mine, mirror), (theirs, their_mirror) = couple.keypoints[:, [LEFT, RIGHT]]
    places = [("jitter", mine + [TOLERANCE, 0]), ("mirror swap", mirror), ("person swap", theirs)]  # similarity 0.61
    for error, place in [*places, ("person swap", their_mirror), ("miss", mine + [200, 300])]:
        keypoints = couple.keypoints.copy()
        keypoints[0, LEFT] = place
        assert errors_of(couple, keypoints) == {"left_wrist": error}
        assert errors_of(couple, keypoints, person=1) == {}

    couple.visible[0, RIGHT] = couple.visible[1, LEFT] = 0  # places that are not labelled are nobody's
    for place in (mirror, theirs):
        keypoints[0, LEFT] = place
        assert errors_of(couple, keypoints) == {"left_wrist": "miss"}


def test_a_person_is_matched_by_the_best_prediction_near_them(couple):
    (blurred, _), (exact, _) = (predictions(couple, couple.keypoints + off) for off in (8, 0))
    table = keypoint_errors([blurred, exact], couple)  # of the same score: the first in the file
    assert set(table["result"]) == {0} and set(table["person"]) == {0}
    assert set(keypoint_errors([blurred, exact | {"score": 2.0}], couple)["result"]) == {1}

    far = predictions(couple, couple.keypoints + 5000)
    elsewhere = [result | {"image_id": 99} for result in predictions(couple, couple.keypoints)]
    assert len(keypoint_errors(far + elsewhere, couple)) == len(keypoint_errors([], couple)) == 0


def test_kinds_of_errors_are_shares_of_each_keypoint(couple):
    keypoints = couple.keypoints.copy()
    keypoints[0, LEFT] = couple.keypoints[0, RIGHT]
    keypoints[1, LEFT, 0] += TOLERANCE
    couple.visible[1, RIGHT] = 0
    couple.visible[:, NOSE] = 0
    errors = errors_by_keypoint(keypoint_errors(predictions(couple, keypoints), couple), COCO).set_index("keypoint")
    assert list(errors) == ["judged", "good", *ERRORS] and list(errors.index) == list(COCO.keypoints)
    assert errors.loc["left_wrist"].tolist() == [2, 0, 0.5, 0.5, 0, 0]
    assert errors.loc["right_wrist"].tolist() == [1, 1, 0, 0, 0, 0]
    assert errors.loc["nose", "judged"] == 0 and errors.loc["nose", "good":].isna().all()
    nobody = errors_by_keypoint(keypoint_errors([], couple), COCO)
    assert len(nobody) == 17 and (nobody["judged"] == 0).all()


def test_repairing_the_only_kind_of_error_makes_everything_right(demo_folder):
    people = read_people(demo_folder, "coco", "val2017")
    annotations = demo_folder / "annotations/person_keypoints_val2017.json"
    keypoints = people.keypoints[:, people.skeleton.mirrored]  # every left keypoint at the right one's place
    keypoints[:, [NOSE, 5, 6, 11, 12]] = people.keypoints[:, [NOSE, 5, 6, 11, 12]]
    results = predictions(people, keypoints.round())
    whole = [result | {"keypoints": list(map(int, result["keypoints"]))} for result in results]  # as a file may have
    gains = repair_gains(whole, people, annotations).set_index("error")
    assert whole == results  # what was given is left alone
    assert tuple(gains.index) == ERRORS
    np.testing.assert_allclose(gains["AP"] - coco_ap(results, annotations)["AP"], gains["gain"])
    assert gains["gain"].idxmax() == "mirror swap" and gains["gain"]["mirror swap"] > 0.3
    assert (gains["share"] >= 0).all() and gains["share"].sum() < 1
