"""What is wrong with predicted keypoints, and what repairing it brings."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.io import savemat

from rsnlib.data.readers import read_people
from rsnlib.data.skeletons import COCO, LSP, MPII
from rsnlib.metrics import accuracy, coco_ap, coco_results, diagnose, keypoint_errors, repair_gains
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


# ---- by PCK


@pytest.fixture
def sportspeople(make_people):
    """A dozen people of LSP, their joints in a row 50 pixels apart, a torso (left shoulder, right hip) 350 long."""
    people = make_people(np.zeros((99, 900, 3)), [[0, 0, 700, 99]] * 12, (0, 0))
    keypoints = np.tile(np.column_stack([50.0 * np.arange(14), np.full(14, 40)]), (12, 1, 1))
    return replace(people, skeleton=LSP, keypoints=keypoints, visible=np.full((12, 14), 2))


def diagnosed(settings, people, keypoints):
    results = coco_results(people.image_ids, keypoints, np.ones(people.visible.shape), people.scores)
    return [diagnose(settings, "/", people, results)[name] for name in ("errors", "gains", "groups")]


def test_pck_tells_mirror_swaps_from_other_misses(sportspeople, committed):
    settings = committed.dataset("lspet")
    ankle, mirrored, neck = (LSP.keypoints.index(name) for name in ("right_ankle", "left_ankle", "neck"))
    keypoints = sportspeople.keypoints.copy()
    keypoints[:3, ankle] = sportspeople.keypoints[:3, mirrored]  # 250 pixels off
    keypoints[3:5, neck, 1] += 100
    keypoints[5, neck, 1] += 69  # within a fifth of the torso
    keypoints[6, ankle] = sportspeople.keypoints[6, mirrored]
    sportspeople.visible[6, mirrored] = 0  # nobody knows where it is
    errors, gains, groups = diagnosed(settings, sportspeople, keypoints)
    errors = errors.set_index("keypoint")
    assert errors.loc["right_ankle"].tolist() == pytest.approx([12, 8 / 12, 3 / 12, 1 / 12])
    assert errors.loc["neck"].tolist() == pytest.approx([12, 10 / 12, 0, 2 / 12])
    assert errors.loc["left_ankle"].tolist() == [11, 1, 0, 0]

    before = accuracy(settings, "/", sportspeople, keypoints, None)["Mean"]
    gains = gains.set_index("error")
    assert gains["gain"].to_dict() == pytest.approx({"mirror swap": 100 * 3 / 167, "miss": 100 * 3 / 167})
    assert gains["Mean"].tolist() == pytest.approx([before + 100 * 3 / 167] * 2)
    assert groups[["by", "group", "people"]].to_numpy().tolist() == [
        ["everyone", "all", 12],
        ["pixels", "256 to 384", 12],  # sqrt(700 * 99) = 263
    ]
    assert groups["Mean"].tolist() == pytest.approx([before] * 2)


def test_mpiis_errors_are_those_of_the_people_of_its_ground_truth(make_people, committed, tmp_path):
    positions = np.random.default_rng(0).uniform(1, 999, (12, 16, 2))
    boxes = np.zeros((2, 2, 12))
    boxes[1] = 20
    (tmp_path / "annot").mkdir()
    truth = {"pos_gt_src": positions.transpose(1, 2, 0), "jnt_missing": np.zeros((16, 12)), "headboxes_src": boxes}
    savemat(tmp_path / "annot/gt_valid.mat", truth)
    order = np.random.default_rng(1).permutation(12)  # as a store has them
    sizes = np.where(np.arange(12) < 10, 100, 600)
    people = make_people(np.zeros((999, 999, 3)), [[0, 0, size, size] for size in sizes], (0, 0))
    people = replace(people, skeleton=MPII, keypoints=positions - 1, visible=np.full((12, 16), 2)).take(order)
    keypoints = positions - 1
    keypoints[10:] += 100
    errors, _, groups = diagnosed(replace(committed.dataset("mpii"), root=str(tmp_path)), people, keypoints[order])
    assert errors.set_index("keypoint")["judged"][["pelvis", "thorax", "left_hip"]].tolist() == [0, 0, 12]
    assert groups["group"].tolist() == ["all", "96 to 128"]
    assert groups["Mean"].tolist() == pytest.approx([100 * 10 / 12, 100])
