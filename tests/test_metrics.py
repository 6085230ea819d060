"""How right keypoints are: pycocotools' average precision, PCKh and PCK."""

import contextlib
import copy
import io
import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from pycocotools.coco import COCO as CocoFile
from pycocotools.cocoeval import COCOeval
from scipy.io import loadmat, savemat

from rsnlib.data.readers import read_people
from rsnlib.data.skeletons import LSP, MPII
from rsnlib.errors import UserError
from rsnlib.metrics import accuracy, coco_ap, coco_results, headline, pck, pckh
from rsnlib.metrics.coco import FIGURES

# ---- COCO


@pytest.fixture
def demo_val(demo_folder):
    """Four drawn people and the file of their annotations."""
    return read_people(demo_folder, "coco", "val2017"), demo_folder / "annotations/person_keypoints_val2017.json"


def jittered(people, pixels):
    random = np.random.default_rng(0)
    keypoints = people.keypoints + random.normal(0, pixels, people.keypoints.shape)
    scores = random.uniform(0.5, 1.5, people.visible.shape)
    return coco_results(people.image_ids, keypoints, scores, people.scores)


def by_pycocotools(results, annotations):
    with contextlib.redirect_stdout(io.StringIO()):
        truth = CocoFile(str(annotations))
        evaluation = COCOeval(truth, truth.loadRes(results), "keypoints")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation.stats


def test_perfect_predictions_have_an_average_precision_of_one(demo_val):
    people, annotations = demo_val
    figures = coco_ap(jittered(people, 0), annotations)
    assert tuple(figures) == FIGURES
    assert figures["AP"] == figures["AR"] == 1
    assert all(value in (1, -1) for value in figures.values())  # -1: no people of that size


@pytest.mark.parametrize("pixels", [2, 6, 12])
def test_figures_are_those_of_pycocotools(demo_val, pixels, capsys):
    people, annotations = demo_val
    results = jittered(people, pixels)
    figures = coco_ap(results, annotations)
    assert list(figures.values()) == by_pycocotools(results, annotations).tolist()
    assert figures["AP"] < 1
    assert capsys.readouterr().out == ""


@pytest.mark.shared
def test_figures_of_real_people_are_those_of_pycocotools(shared):
    people = read_people(shared / "data/coco", "coco", "val2017")
    annotations = shared / "data/coco/annotations/person_keypoints_val2017.json"
    results = jittered(people, 4)
    figures = coco_ap(results, annotations)
    assert list(figures.values()) == by_pycocotools(results, annotations).tolist()
    assert 0.2 < figures["APM"] < figures["APL"] < 1


@pytest.mark.shared
def test_dropped_and_duplicated_people_are_judged_as_by_pycocotools(shared):
    people = read_people(shared / "data/coco", "coco", "val2017")
    annotations = shared / "data/coco/annotations/person_keypoints_val2017.json"
    every = coco_ap(jittered(people, 4), annotations)
    random = np.random.default_rng(1)
    rows = np.flatnonzero(random.random(len(people)) < 0.7)  # a third dropped
    rows = np.concatenate([rows, random.choice(rows, 40)])  # others found twice, jittered otherwise
    results = jittered(people.take(rows), 4)
    for boxes in (None, people.boxes[rows]):  # our own key beside COCO's changes nothing
        for result, box in zip(results, boxes if boxes is not None else []):
            result["box"] = box.tolist()
        figures = coco_ap(results, annotations)
        assert list(figures.values()) == by_pycocotools(results, annotations).tolist()
        assert figures["AP"] < every["AP"] and figures["AR"] < every["AR"]


def scene(random):
    """Annotations and results of a few pictures with everything that may be in them: crowds, people without keypoints
    or in no picture, people of all sizes close together, another category."""
    images = [{"id": image_id} for image_id in random.permutation(9)[: random.integers(1, 6)].tolist()]
    categories = [{"id": 1, "name": "person"}, {"id": 2, "name": "dog"}]
    annotations = []
    for person in range(random.integers(1, 25)):
        size, position = random.choice([20.0, 60.0, 150.0]), random.uniform(0, 60, 2)
        keypoints = np.zeros((17, 3))
        keypoints[:, :2] = (position + random.uniform(0, size, (17, 2))).round()
        keypoints[:, 2] = random.choice([0, 1, 2], 17) * (random.random() < 0.8)
        annotation = {
            "id": person + 1,
            "iscrowd": int(random.random() < 0.15),
            "area": size**2 * random.uniform(0.2, 1),
        }
        annotation |= {"image_id": random.choice(images)["id"] if random.random() < 0.95 else 99}
        annotation |= {"category_id": 1 if random.random() < 0.9 else 2, "bbox": [*position, size, size]}
        annotation |= {"keypoints": keypoints.ravel().tolist(), "num_keypoints": int((keypoints[:, 2] > 0).sum())}
        annotations.append(annotation)
    results = []
    for annotation in annotations:
        for _ in range(random.integers(4) if annotation["image_id"] != 99 else 0):
            keypoints = np.reshape(annotation["keypoints"], (17, 3)) + random.normal(
                0, random.choice([0, 2, 9]), (17, 3)
            )
            score = round(random.random(), 1)  # with ties
            results.append({key: annotation[key] for key in ("image_id", "category_id")} | {"score": score})
            results[-1]["keypoints"] = keypoints.ravel().tolist()
    random.shuffle(results)
    return {"images": images, "categories": categories, "annotations": annotations}, results


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=100, deadline=None)
def test_figures_of_any_people_are_those_of_pycocotools(tmp_path_factory, seed):
    truth, results = scene(np.random.default_rng(seed))
    assume(results)
    annotations = tmp_path_factory.mktemp("scene") / "annotations.json"
    annotations.write_text(json.dumps(truth))
    figures = coco_ap(copy.deepcopy(results), annotations)
    assert list(figures.values()) == by_pycocotools(results, annotations).tolist()


def test_results_are_read_from_a_file_too(demo_val, tmp_path):
    people, annotations = demo_val
    (tmp_path / "results.json").write_text(json.dumps(jittered(people, 3)))
    assert coco_ap(tmp_path / "results.json", annotations) == coco_ap(jittered(people, 3), annotations)


def test_results_are_cocos():
    (result,) = coco_results(np.array([7]), np.array([[[1.5, 2], [3, 4]]]), np.array([[0.5, 1.5]]), np.array([0.8]))
    assert result["keypoints"] == [1.5, 2, 0.5, 3, 4, 1.5]
    assert (result["image_id"], result["category_id"]) == (7, 1)
    assert result["score"] == pytest.approx(0.8 * (0.5 + 1.5) / 2)
    json.dumps(result)  # no NumPy numbers


def test_a_persons_score_is_the_boxs_times_the_mean_to_the_last_digit():
    random = np.random.default_rng(0)
    keypoints, scores, box_scores = random.random((200, 17, 2)), random.random((17, 200)).T, random.random(200)
    results = coco_results(np.arange(200), keypoints, scores, box_scores, random.random((200, 4)))
    for row, result in enumerate(results):
        assert result["keypoints"] == [v for k in range(17) for v in (*keypoints[row, k], scores[row, k])]
        assert result["score"] == box_scores[row] * scores[row].copy().mean()


def test_no_results_have_no_precision(demo_val):
    assert coco_ap([], demo_val[1]) == dict.fromkeys(FIGURES, 0)


def test_an_image_that_the_annotations_lack_is_named(demo_val):
    people, annotations = demo_val
    results = jittered(people, 0)
    results[1]["image_id"] = 999
    with pytest.raises(UserError, match="val2017.json: has no image 999"):
        coco_ap(results, annotations)


@pytest.mark.parametrize("content", [None, "{"])
def test_files_that_cannot_be_read_are_named(demo_val, tmp_path, content):
    path = tmp_path / "some.json"
    if content:
        path.write_text(content)
    with pytest.raises(UserError, match="some.json"):
        coco_ap(path, demo_val[1])
    with pytest.raises(UserError, match="some.json"):
        coco_ap(jittered(demo_val[0], 0), path)


# ---- MPII


@pytest.mark.shared
@pytest.mark.parametrize("name", ["bearpaw-hg_s1_b1", "bearpaw-hg_s8_b1"])
def test_pckh_is_that_of_the_released_evaluation(shared, name):
    golden = json.loads((shared / "goldens/pckh.json").read_text())["results"][name]
    predictions = loadmat(shared / f"data/mpii/preds/{name}.mat")["preds"] - 1
    assert pckh(predictions, shared / "data/mpii/annot/gt_valid.mat") == pytest.approx(golden, abs=5e-5)


def write_mpii(path, positions, missing, head=10):
    """MPII's ground truth of people whose head box is `head` pixels wide and high. positions: (P, 16, 2), 1-based."""
    boxes = np.zeros((2, 2, len(positions)))
    boxes[1] = head
    savemat(path, {"pos_gt_src": positions.transpose(1, 2, 0), "jnt_missing": missing.T, "headboxes_src": boxes})
    return path


def test_pckh_counts_in_parts_of_the_head(tmp_path):
    positions = np.tile(np.linspace(101, 251, 16)[:, None], (4, 1, 2))
    missing = np.zeros((4, 16))
    missing[3] = 1  # somebody without annotations
    truth = write_mpii(tmp_path / "gt_valid.mat", positions, missing)
    unit = 0.6 * np.hypot(10, 10)
    predictions = positions - 1
    predictions[0, MPII.keypoints.index("left_wrist"), 0] += 0.49 * unit  # right, but not at a tenth
    predictions[1, MPII.keypoints.index("left_wrist"), 0] += 0.51 * unit
    predictions[2, MPII.keypoints.index("pelvis")] += 99  # does not count
    predictions[3] += 99
    figures = pckh(predictions, truth)
    assert figures["Wrist"] == pytest.approx(100 * (2 / 3 + 1) / 2)
    assert figures["Mean"] == pytest.approx(100 * (1 - 1 / (3 * 14)))
    assert figures["Mean@0.1"] == pytest.approx(100 * (1 - 2 / (3 * 14)))
    assert figures["Head"] == figures["Ankle"] == 100


def test_wrong_ground_truth_is_named(tmp_path):
    truth = write_mpii(tmp_path / "gt_valid.mat", np.ones((4, 16, 2)), np.zeros((4, 16)))
    with pytest.raises(UserError, match="gt_valid.mat: has 4 people, the predictions 3"):
        pckh(np.ones((3, 16, 2)), truth)
    savemat(tmp_path / "other.mat", {"preds": np.ones(3)})
    (tmp_path / "text.mat").write_text("no matrices")
    for name in ("other.mat", "text.mat", "missing.mat"):
        with pytest.raises(UserError, match=name):
            pckh(np.ones((4, 16, 2)), tmp_path / name)


# ---- LSP


def lsp_people(make_people, count, visible):
    """People whose torso, from left shoulder (10, 10) to right hip (40, 50), is 50 pixels long."""
    keypoints = np.full((count, 14, 2), 20.0)
    keypoints[:, LSP.keypoints.index("left_shoulder")] = 10, 10
    keypoints[:, LSP.keypoints.index("right_hip")] = 40, 50
    people = make_people(np.zeros((99, 99, 3)), [[0, 0, 99, 99]] * count, (0, 0))
    return replace(people, skeleton=LSP, keypoints=keypoints, visible=np.broadcast_to(visible, (count, 14)).copy())


def test_pck_counts_in_parts_of_the_torso(make_people):
    people = lsp_people(make_people, 4, 1)
    neck, knee = LSP.keypoints.index("neck"), LSP.keypoints.index("left_knee")
    people.visible[2, LSP.keypoints.index("right_hip")] = 0  # without a torso
    people.visible[3, neck] = 0
    predicted = people.keypoints.copy()
    predicted[0, knee, 0] += 9.9  # a fifth of the torso is 10 pixels
    predicted[1, knee, 0] += 10.1
    predicted[2] += 50
    predicted[3, neck] += 50
    figures = pck(predicted, people)
    assert figures["Knee"] == pytest.approx(100 * (2 / 3 + 1) / 2)
    assert figures["Mean"] == pytest.approx(100 * 40 / 41)
    assert figures["Head"] == figures["Hip"] == 100


def test_joints_that_nobody_has_do_not_count_as_wrong(make_people):
    people = lsp_people(make_people, 2, np.where(np.array(LSP.keypoints) == "left_wrist", 0, 1))
    figures = pck(people.keypoints, people)
    assert figures["Mean"] == 100 and figures["Wrist"] == 100


def test_joints_that_are_not_labelled_may_lie_anywhere(make_people):
    people = lsp_people(make_people, 2, 1)
    predicted = people.keypoints.copy()
    people.visible[0, 0] = 0
    people.keypoints[0, 0] = np.nan
    assert pck(predicted, people)["Mean"] == 100


def test_a_torso_without_length_measures_nothing(make_people):
    people = lsp_people(make_people, 2, 1)
    people.keypoints[1] = 20
    predicted = people.keypoints.copy()
    predicted[1] += 1
    assert pck(predicted, people)["Mean"] == 100


# ---- each data set's own


def test_accuracy_is_by_the_data_sets_own_protocol(demo_val, demo_settings, committed, make_people):
    people, _ = demo_val
    figures = accuracy(demo_settings, "/", people, people.keypoints, np.ones((len(people), 17)))
    assert figures["AP"] == figures[headline("coco")] == 1
    lsp = lsp_people(make_people, 2, 1)
    for name in ("lsp", "lspet"):
        figures = accuracy(committed.dataset(name), "/", lsp, lsp.keypoints, None)
        assert figures["Mean"] == figures[headline(name)] == 100


def test_mpiis_people_are_judged_in_the_order_of_its_ground_truth(committed, make_people, tmp_path):
    settings = replace(committed.dataset("mpii"), root=str(tmp_path))
    positions = np.random.default_rng(0).uniform(1, 99, (3, 16, 2))
    (tmp_path / "annot").mkdir()
    write_mpii(tmp_path / "annot/gt_valid.mat", positions, np.zeros((3, 16)))
    people = make_people(np.zeros((99, 99, 3)), [[0, 0, 99, 99]] * 3, (0, 0)).take([2, 0, 1])  # as a store has them
    assert accuracy(settings, "/", people, positions[[2, 0, 1]] - 1, None)[headline("mpii")] == 100
