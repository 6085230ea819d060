"""Correct keypoints: PCKh of MPII, PCK of LSP, and their protocols."""

import json
from dataclasses import replace

import numpy as np
import pytest
from scipy.io import loadmat, savemat

from rsnlib.data.skeletons import COCO, LSP, MPII
from rsnlib.errors import UserError
from rsnlib.metrics import coco_results, pckh, protocol
from rsnlib.metrics.bootstrap import resample
from rsnlib.metrics.pck import box_pck, pck

BLACK = np.zeros((999, 999, 3))


def results_of(people, keypoints):
    return coco_results(people.image_ids, keypoints, np.ones(people.visible.shape), people.scores)


# ---- MPII


@pytest.mark.shared
@pytest.mark.parametrize("name", ["bearpaw-hg_s1_b1", "bearpaw-hg_s8_b1"])
def test_pckh_is_that_of_the_released_evaluation(shared, name):
    golden = json.loads((shared / "goldens/pckh.json").read_text())["results"][name]
    predictions = loadmat(shared / f"data/mpii/preds/{name}.mat")["preds"] - 1
    assert pckh(predictions, shared / "data/mpii/annot/gt_valid.mat") == pytest.approx(golden, abs=5e-5)


@pytest.fixture
def mpii(make_people, tmp_path):
    """A function: MPII People whose head boxes are `head` pixels wide and high, at random places, and the path of their
    ground truth; `missing`, (P, 16), are not annotated."""

    def make(count, missing=0, head=10):
        positions = np.random.default_rng(0).uniform(1, 999, (count, 16, 2))  # 1-based
        missing = np.broadcast_to(missing, (count, 16))
        boxes = np.zeros((2, 2, count))
        boxes[1] = head
        path = tmp_path / "gt_valid.mat"
        savemat(path, {"pos_gt_src": positions.transpose(1, 2, 0), "jnt_missing": missing.T, "headboxes_src": boxes})
        people = make_people(BLACK, [[0, 0, 100, 100]] * count, (0, 0))
        visible = np.full((count, 16), 2)
        return replace(people, skeleton=MPII, keypoints=positions - 1, visible=visible), path

    return make


def test_pckh_counts_in_parts_of_the_head(mpii):
    missing = np.zeros((4, 16))
    missing[3] = 1  # somebody without annotations
    people, path = mpii(4, missing)
    unit, wrist = 0.6 * np.hypot(10, 10), MPII.keypoints.index("left_wrist")
    predictions = people.keypoints.copy()
    predictions[0, wrist, 0] += 0.49 * unit  # right, but not at a tenth
    predictions[1, wrist, 0] += 0.51 * unit
    predictions[2, MPII.keypoints.index("pelvis")] += 99  # does not count
    predictions[3] += 99
    metrics = pckh(predictions, path)
    assert metrics["Wrist"] == pytest.approx(100 * (2 / 3 + 1) / 2)
    assert metrics["Mean"] == pytest.approx(100 * (1 - 1 / (3 * 14)))
    assert metrics["Mean@0.1"] == pytest.approx(100 * (1 - 2 / (3 * 14)))
    assert metrics["Head"] == metrics["Ankle"] == 100


def test_people_left_out_are_not_judged_and_others_people_are_refused(mpii):
    people, path = mpii(5)
    some = people.take([3, 0, 4])  # in the order of a crop store
    keypoints = some.keypoints + [[[0]], [[99]], [[0]]]
    metrics = protocol("mpii").accuracy(some, keypoints, np.ones((3, 16)), path)
    assert metrics["Mean"] == pytest.approx(100 * 2 / 3)
    with pytest.raises(UserError, match="gt_valid.mat: has 2 people, the predictions 3"):
        pckh(some.keypoints, path, replace(some, ids=np.array([1, 2, 6])))
    with pytest.raises(UserError, match="gt_valid.mat: its people are not the annotations'"):
        pckh(some.keypoints, path, replace(some, ids=np.array([1, 2, 3])))


def test_wrong_ground_truth_is_named(mpii, tmp_path):
    _, path = mpii(4)
    with pytest.raises(UserError, match="gt_valid.mat: has 4 people, the predictions 3"):
        pckh(np.ones((3, 16, 2)), path)
    savemat(tmp_path / "other.mat", {"preds": np.ones(3)})
    (tmp_path / "text.mat").write_text("no matrices")
    for name in ("other.mat", "text.mat", "missing.mat"):
        with pytest.raises(UserError, match=name):
            pckh(np.ones((4, 16, 2)), tmp_path / name)


def test_mpiis_people_are_judged_in_the_order_of_its_ground_truth(mpii):
    people, path = mpii(24, head=20)
    images, sides = np.repeat([1, 2], [18, 6]), np.repeat([100, 600], 12)
    people = replace(people, image_ids=images, areas=sides**2)
    predicted = people.keypoints.copy()
    predicted[18:] += 500  # everyone in picture 2 is wrong
    order = np.random.default_rng(1).permutation(24)  # as a store may have them
    people, predicted, judgement = people.take(order), predicted[order], protocol("mpii")
    metrics = judgement.accuracy(people, predicted, None, path)
    assert metrics["Mean"] == pytest.approx(75) and set(judgement.columns) < set(metrics)

    results = results_of(people, predicted)
    found = judgement.diagnose(people, results, path)
    judged, groups = found["errors"].set_index("keypoint")["judged"], found["groups"]
    assert judged[["pelvis", "thorax", "left_hip"]].tolist() == [0, 0, 24]
    assert groups["by"].tolist() == ["everyone", "pixels", "pixels"] and groups["people"].tolist() == [24, 12, 12]
    assert groups["group"].tolist() == ["all", "96 to 128", "512 to 768"]
    assert groups["Mean"].tolist() == pytest.approx([75, 100, 50])
    draws = judgement.resample(people, results, path)
    assert draws == pytest.approx([100 * 18 * one / (18 * one + 6 * two) for one, two in resample(2)])


# ---- LSP


@pytest.fixture
def lsp(make_people):
    """A function: LSP People, fully labelled, their joints in a row 50 pixels apart; a joint is right within 70 pixels,
    a fifth of the torso."""

    def make(count):
        people = make_people(BLACK, [[0, 0, 700, 99]] * count, (0, 0))
        keypoints = np.tile(np.column_stack([50.0 * np.arange(14), np.full(14, 40)]), (count, 1, 1))
        return replace(people, skeleton=LSP, keypoints=keypoints, visible=np.full((count, 14), 2))

    return make


def test_pck_counts_in_parts_of_the_torso(lsp):
    people = lsp(4)
    neck, knee = LSP.keypoints.index("neck"), LSP.keypoints.index("left_knee")
    predicted = people.keypoints.copy()
    predicted[0, knee, 0] += 69
    predicted[1, knee, 0] += 71
    predicted[2:] += 500
    predicted[3] = people.keypoints[3]
    people.visible[2, LSP.keypoints.index("right_hip")] = 0  # without a torso
    people.visible[3, neck], people.keypoints[3, neck] = 0, np.nan
    metrics = pck(predicted, people)
    assert metrics["Knee"] == pytest.approx(100 * (2 / 3 + 1) / 2)
    assert metrics["Mean"] == pytest.approx(100 * 40 / 41)
    assert metrics["Head"] == metrics["Hip"] == 100


def test_joints_that_nobody_has_and_people_whose_torso_has_no_length_do_not_count(lsp):
    people = lsp(2)
    people.visible[:, LSP.keypoints.index("left_wrist")] = 0
    people.keypoints[1] = 20
    predicted = people.keypoints.copy()
    predicted[1] += 1
    metrics = pck(predicted, people)
    assert metrics["Mean"] == metrics["Wrist"] == 100


def test_lsp_and_lspet_share_a_protocol(lsp):
    people, judgement = lsp(2), protocol("lsp")
    assert judgement is protocol("lspet")
    metrics = judgement.accuracy(people, people.keypoints, None, None)
    assert tuple(metrics) == judgement.columns and metrics[judgement.metric] == 100
    assert (judgement.metric, judgement.per_cent, judgement.title, judgement.published) == ("Mean", 1, "PCK@0.2", None)


def test_pck_tells_mirror_swaps_from_other_misses(lsp):
    people = lsp(12)
    ankle, mirrored, neck = (LSP.keypoints.index(name) for name in ("right_ankle", "left_ankle", "neck"))
    predicted = people.keypoints.copy()
    predicted[:3, ankle] = people.keypoints[:3, mirrored]  # 250 pixels off
    predicted[3:5, neck, 1] += 100
    predicted[5, neck, 1] += 69
    predicted[6, ankle] = people.keypoints[6, mirrored]
    people.visible[6, mirrored] = 0  # nobody knows where it is
    found = protocol("lspet").diagnose(people, results_of(people, predicted), None)
    errors, gains, groups = found["errors"].set_index("keypoint"), found["gains"].set_index("error"), found["groups"]
    assert errors.loc["right_ankle"].tolist() == pytest.approx([12, 8 / 12, 3 / 12, 1 / 12])
    assert errors.loc["neck"].tolist() == pytest.approx([12, 10 / 12, 0, 2 / 12])
    assert errors.loc["left_ankle"].tolist() == [11, 1, 0, 0]

    before = pck(predicted, people)["Mean"]
    assert gains["gain"].to_dict() == pytest.approx({"mirror swap": 100 * 3 / 167, "miss": 100 * 3 / 167})
    assert gains["Mean"].tolist() == pytest.approx([before + 100 * 3 / 167] * 2)
    assert groups["group"].tolist() == ["all", "256 to 384"]  # sqrt(700 * 99) = 263
    assert groups["Mean"].tolist() == pytest.approx([before] * 2)


def test_a_resampled_picture_counts_as_so_many_copies_of_its_people(lsp):
    people, random = lsp(10), np.random.default_rng(0)
    people = replace(people, image_ids=np.array([7, 3, 7, 9, 3, 5, 5, 1, 8, 2]))
    predicted = people.keypoints + random.choice([0, 0, 900], people.keypoints.shape)
    people.visible[:, :2] = random.integers(0, 2, (10, 2))
    draws = protocol("lspet").resample(people, results_of(people, predicted), None)
    for counts, share in list(zip(resample(7), draws))[:20]:
        rows = np.repeat(np.arange(10), counts[np.searchsorted([1, 2, 3, 5, 7, 8, 9], people.image_ids)])
        assert share == pytest.approx(pck(predicted[rows], people.take(rows))["Mean"])
    assert len(set(draws)) > 100

    people = replace(people, image_ids=np.ones(10, int))  # all in one picture
    draws = protocol("lspet").resample(people, results_of(people, predicted), None)
    assert draws == pytest.approx([pck(predicted, people)["Mean"]] * 1000)


# ---- skeletons without sigmas


def test_keypoints_count_in_parts_of_the_box_and_errors_in_parts_of_the_named_distance(make_people):
    eyes = replace(COCO, sigmas=None, normalise_by=(1, 2))
    people = replace(make_people(BLACK, [[0, 0, 50, 100], [0, 0, 200, 80]], (300, 300)), skeleton=eyes)
    people.keypoints[0, 2, 0] += 40  # between the eyes
    people.visible[0, 4:], people.visible[1, 1] = 0, 0  # the second has one eye alone
    keypoints = people.keypoints.copy()
    keypoints[0, 0, 0] += 20  # a fifth of 100
    keypoints[0, 1, 1] += 21
    keypoints[1, 0, 0] += 39  # less than a fifth of 200, more than a twentieth
    keypoints[:, 4] += [[500, 500], [0, 0]]  # not labelled, and right
    found = box_pck(keypoints, people)
    assert found["Mean"] == pytest.approx(100 * (20 - 1) / 20) and found["Mean@0.05"] == pytest.approx(100 * 17 / 20)
    assert found["NME"] == pytest.approx(100 * (20 + 21) / 40 / 4)
    assert protocol("coco", eyes).accuracy(people, keypoints, None, None) == found
    assert "NME" not in box_pck(keypoints, replace(people, skeleton=replace(COCO, sigmas=None)))
