"""The accuracy of some people among all, by pycocotools and by PCK."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from rsnlib.data.readers import read_people
from rsnlib.data.skeletons import COCO, LSP
from rsnlib.metrics import coco_ap, coco_results, groups
from rsnlib.metrics.coco import coco_ap_by_group
from rsnlib.metrics.errors import pck_errors
from rsnlib.metrics.groups import ap_by_group, closest_people, hidden_share, overlap, pck_by_group, person_groups
from rsnlib.metrics.pck import torso_distances

PLACES = np.stack([np.arange(17) % 5, np.arange(17) // 5], axis=-1) * 30.0
BLACK = np.zeros((500, 900, 3))


@pytest.fixture
def trio(make_people, tmp_path):
    """Three people in one picture, 300 pixels apart, and the file of their annotations."""
    people = make_people(BLACK, [[300 * index, 0, 100, 100] for index in range(3)], PLACES)
    people.keypoints[:, :, 0] += 300 * np.arange(3)[:, None]
    people.visible[2, :9] = 1
    annotations = [
        {
            "id": int(people.ids[row]),
            "image_id": 1,
            "category_id": 1,
            "iscrowd": 0,
            "bbox": people.boxes[row].tolist(),
            "area": people.areas[row],
            "num_keypoints": 17,
            "keypoints": np.column_stack([people.keypoints[row], people.visible[row]]).ravel().tolist(),
        }
        for row in range(3)
    ]
    path = tmp_path / "annotations.json"
    content = {"images": [{"id": 1, "width": 900, "height": 500}], "categories": [{"id": 1, "name": "person"}]}
    path.write_text(json.dumps(content | {"annotations": annotations}))
    return people, path


def results_of(people, keypoints, scores):
    return coco_results(people.image_ids, keypoints, np.tile(np.array(scores)[:, None], 17), people.scores)


def off_by(similarity):
    """How far, in pixels, each of COCO's keypoints of a person of 100 x 100 must be off to be that similar: (17,)."""
    return np.sqrt(-2 * 100**2 * np.log(similarity)) * 2 * np.array(COCO.sigmas)


def test_others_errors_do_not_count_against_a_group(trio):
    people, annotations = trio
    keypoints = people.keypoints.copy()
    keypoints[2, :, 0] += off_by(0.62)  # right at 0.5, 0.55 and 0.6 of ten thresholds
    results = results_of(people, keypoints, [0.5, 0.4, 0.9])
    assert coco_ap(results, annotations)["AP"] < 0.8  # the worst has the highest score
    in_groups = coco_ap_by_group(results, annotations, {1: 0, 2: 0, 3: 1}, [0, 0, 1], 2)
    assert in_groups == pytest.approx([1, 0.3])


def test_a_false_alarm_counts_against_the_group_it_belongs_to(trio):
    people, annotations = trio
    found = people.take([0, 1, 2, 0])
    keypoints = found.keypoints.copy()
    keypoints[3, :, 1] += off_by(0.3)
    results = results_of(found, keypoints, [0.5, 0.4, 0.3, 0.9])
    assert closest_people(results, people).tolist() == [0, 1, 2, 0]
    first, other = coco_ap_by_group(results, annotations, {1: 0, 2: 1, 3: 1}, [0, 1, 1, 0], 2)
    assert first == pytest.approx(0.5) and other == pytest.approx(1)  # one of two is right, at every recall
    first, other = coco_ap_by_group(results, annotations, {1: 0, 2: 1, 3: 1}, [0, 1, 1, -1], 2)
    assert (first, other) == pytest.approx((1, 1))


def test_someone_who_is_not_found_lacks_in_their_group_alone(trio):
    people, annotations = trio
    results = results_of(people, people.keypoints, [0.9, 0.8, 0.7])[:2]
    together, alone = coco_ap_by_group(results, annotations, {1: 0, 2: 0, 3: 1}, [0, 0], 2)
    assert together == pytest.approx(1) and alone == 0
    assert coco_ap_by_group([], annotations, {1: 0}, [], 1) == [0]
    assert np.isnan(coco_ap_by_group(results, annotations, {1: 0, 2: 0}, [0, 0], 2)[1])


@pytest.mark.shared
def test_groups_by_area_are_pycocotools_own(shared):
    people = read_people(shared / "data/coco", "coco", "val2017")
    annotations = shared / "data/coco/annotations/person_keypoints_val2017.json"
    random = np.random.default_rng(0)
    rows = np.concatenate([np.flatnonzero(random.random(len(people)) < 0.8), random.integers(0, len(people), 40)])
    keypoints = people.keypoints[rows] + random.normal(0, 4, (len(rows), 17, 2))
    results = results_of(people.take(rows), keypoints, random.uniform(0.5, 1, len(rows)))
    figures = coco_ap(results, annotations)

    covered = np.prod(keypoints.max(axis=1) - keypoints.min(axis=1), axis=1)  # what pycocotools takes for an area
    content = json.loads(annotations.read_text())["annotations"]
    of_people = {annotation["id"]: int(annotation["area"] >= 96**2) for annotation in content}
    sizes = coco_ap_by_group(results, annotations, of_people, (covered >= 96**2).astype(int).tolist(), 2)
    assert sizes == [figures["APM"], figures["APL"]]
    everyone = dict.fromkeys(of_people, 0)
    assert coco_ap_by_group(results, annotations, everyone, [0] * len(rows), 1) == [figures["AP"]]


def test_a_box_overlaps_by_what_lies_in_one_other(make_people):
    boxes = [[0, 0, 100, 100], [50, 0, 200, 100], [80, 0, 10, 10], [500, 0, 10, 10]]
    people = make_people(BLACK, boxes, PLACES)
    assert overlap(people) == pytest.approx([0.5, 0.25, 1, 0])
    alone = replace(people, image_ids=np.arange(4))
    assert overlap(alone).tolist() == [0, 0, 0, 0]


def test_hidden_keypoints_are_a_share_of_the_labelled(make_people):
    people = make_people(BLACK, [[0, 0, 10, 10]], PLACES, visible=[0] * 7 + [1] * 4 + [2] * 6)
    assert hidden_share(people).tolist() == [0.4]


def test_people_are_grouped_in_order_and_small_groups_are_left_out(make_people, monkeypatch):
    monkeypatch.setattr(groups, "ENOUGH", 2)
    sides = [20, 40, 40, 96, 97, 97]
    people = make_people(BLACK, [[100 * row, 0, side, side] for row, side in enumerate(sides)], PLACES)
    people.visible[:3, :4] = 1
    table = person_groups(people)
    assert table["size"].cat.codes.tolist() == [-1, 0, 0, 0, 1, 1]
    assert list(table["pixels"].cat.categories) == ["32 to 48", "96 to 128"]  # one up to 32, one up to 96
    assert table["pixels"].cat.codes.tolist() == [-1, 0, 0, -1, 1, 1]
    assert table["hidden"].astype(str).tolist() == ["up to 25 %"] * 3 + ["none"] * 3
    assert set(table["in another's box"]) == {"none"}


def test_every_groups_average_precision_stands_beside_its_people(trio, monkeypatch):
    monkeypatch.setattr(groups, "ENOUGH", 1)
    people, annotations = trio
    keypoints = people.keypoints.copy()
    keypoints[2, :, 0] += off_by(0.62)
    results = results_of(people, keypoints, [0.5, 0.4, 0.9])
    table = ap_by_group(results, people, annotations).set_index(["by", "group"])
    figures = coco_ap(results, annotations)
    assert table["people"].to_dict() == {
        ("everyone", "all"): 3,
        ("size", "large"): 3,
        ("pixels", "96 to 128"): 3,
        ("hidden", "none"): 2,
        ("hidden", "over 50 %"): 1,
        ("in another's box", "none"): 3,
    }
    assert table["AP"].tolist() == pytest.approx([figures["AP"], figures["APL"], figures["AP"], 1, 0.3, figures["AP"]])
    assert ap_by_group([], people, annotations)["AP"].tolist() == [0] * 6


def test_too_few_people_are_still_everyone(trio):
    people, annotations = trio
    table = ap_by_group(results_of(people, people.keypoints, [1, 1, 1]), people, annotations)
    pd.testing.assert_frame_equal(
        table, pd.DataFrame({"by": ["everyone"], "group": ["all"], "people": [3], "AP": [1.0]}), check_dtype=False
    )


def test_pck_is_by_size_too(make_people):
    sides = np.repeat([40.0, 100.0], 12)
    people = make_people(BLACK, [[0, 0, side, side] for side in sides], (0, 0))
    keypoints = np.tile(np.linspace(10, 200, 14)[:, None], (24, 1, 2))
    people = replace(people, skeleton=LSP, keypoints=keypoints, visible=np.full((24, 14), 2))
    predicted = keypoints.copy()
    predicted[0] += 500  # one of the twelve small ones
    table = pck_by_group(pck_errors(lambda points: torso_distances(points, people), predicted, people, 0.2), people)
    assert table["group"].tolist() == ["all", "32 to 48", "96 to 128"] and table["people"].tolist() == [24, 12, 12]
    assert table["Mean"].tolist() == pytest.approx([100 * 23 / 24, 100 * 11 / 12, 100])
