"""Average precision of groups of people."""

import json
from dataclasses import replace

import numpy as np
import pytest

from rsnlib.data.skeletons import COCO
from rsnlib.metrics import coco_ap, coco_results, groups
from rsnlib.metrics.coco import coco_ap_by_group
from rsnlib.metrics.groups import ap_by_group, person_groups

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
            "bbox": people.boxes[row].tolist(),
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
    """Return the distances, in pixels, at which COCO's keypoints of a person of 100 x 100 have a similarity: (17,)."""
    return np.sqrt(-2 * 100**2 * np.log(similarity)) * 2 * np.array(COCO.sigmas)


@pytest.mark.parametrize(
    ("found", "similarity", "scores", "groups", "precisions"),
    [
        ([0, 1, 2], 0.62, [0.5, 0.4, 0.9], [0, 0, 1], [1, 0.3]),  # right at 0.5, 0.55 and 0.6 of ten thresholds
        ([0, 1, 2, 0], 0.3, [0.5, 0.4, 0.3, 0.9], [0, 1, 1, 0], [0.5, 1]),  # one of two is right, at every recall
        ([0, 1, 2, 0], 0.3, [0.5, 0.4, 0.3, 0.9], [0, 1, 1, -1], [1, 1]),
        ([0, 1], 1, [0.9, 0.8], [0, 0, 1], [1, 0]),
        ([], 1, [], [0, 0, 1], [0, 0]),
        ([0, 1], 1, [0.9, 0.8], [0, 0, -1], [1, np.nan]),
    ],
    ids=["wrong keypoints", "a false alarm", "a false alarm of no group", "not found", "nothing found", "nobody there"],
)
def test_errors_count_against_their_own_group_alone(trio, found, similarity, scores, groups, precisions):
    people, annotations = trio
    keypoints = people.keypoints[found]
    keypoints[-1:, :, 1] += off_by(similarity)
    results = results_of(people.take(found), keypoints, scores)
    of_results = groups[: len(found)]
    assert coco_ap_by_group(results, annotations, groups[:3], of_results, 2) == pytest.approx(precisions, nan_ok=True)


def test_people_are_grouped_in_order_and_small_groups_are_left_out(make_people, monkeypatch):
    monkeypatch.setattr(groups, "ENOUGH", 2)
    sides = [20, 40, 40, 96, 97, 97]
    people = make_people(BLACK, [[100 * row, 0, side, side] for row, side in enumerate(sides)], PLACES)
    people.visible[:3, :11] = [0] * 7 + [1] * 4  # 4 hidden of 10
    table = person_groups(people)
    assert table["size"].cat.codes.tolist() == [-1, 0, 0, 0, 1, 1]
    assert list(table["pixels"].cat.categories) == ["32 to 48", "96 to 128"]  # one up to 32, one up to 96
    assert table["pixels"].cat.codes.tolist() == [-1, 0, 0, -1, 1, 1]
    assert table["hidden"].astype(str).tolist() == ["25 to 50 %"] * 3 + ["none"] * 3
    assert set(table["in another's box"]) == {"none"}

    boxes = [[0, 0, 100, 100], [50, 0, 200, 100], [80, 0, 10, 10], [500, 0, 10, 10]] * 2  # shares 0.5, 0.25, 1 and 0
    people = replace(make_people(BLACK, boxes, PLACES), image_ids=np.repeat([1, 2], 4))
    shares = ["25 to 50 %", "up to 25 %", "over 50 %", "none"] * 2
    assert person_groups(people)["in another's box"].tolist() == shares
    apart = person_groups(replace(people, image_ids=np.arange(8)))
    assert set(apart["in another's box"]) == {"none"}


def test_every_groups_average_precision_stands_beside_its_people(trio, monkeypatch):
    monkeypatch.setattr(groups, "ENOUGH", 1)
    people, annotations = trio
    keypoints = people.keypoints.copy()
    keypoints[2, :, 0] += off_by(0.62)
    results = results_of(people, keypoints, [0.5, 0.4, 0.9])
    table = ap_by_group(results, people, annotations)
    metrics = coco_ap(results, annotations)
    rows = ["everyone all 3", "size large 3", "pixels 96 to 128 3", "hidden none 2", "hidden over 50 % 1"]
    rows += ["in another's box none 3"]
    assert (table["by"] + " " + table["group"] + " " + table["people"].astype(str)).tolist() == rows
    assert table["AP"].tolist() == pytest.approx([metrics["AP"], metrics["APL"], metrics["AP"], 1, 0.3, metrics["AP"]])
    assert ap_by_group([], people, annotations)["AP"].tolist() == [0] * 6


def test_a_prediction_without_a_match_is_of_the_group_of_the_most_similar_person(trio, monkeypatch):
    monkeypatch.setattr(groups, "ENOUGH", 1)
    people, annotations = trio
    found = people.take([0, 1, 2, 2])
    found.keypoints[3, :, 1] += off_by(0.3)
    found.keypoints[0] += 5000  # like nobody
    table = ap_by_group(results_of(found, found.keypoints, [0.9, 0.6, 0.5, 0.8]), people, annotations)
    precision = table[table["by"] == "hidden"].set_index("group")["AP"].to_dict()
    assert precision == pytest.approx({"none": 51 / 101, "over 50 %": 0.5})  # one of two found; a false alarm before


def test_too_few_people_are_still_everyone(trio):
    people, annotations = trio
    table = ap_by_group(results_of(people, people.keypoints, [1, 1, 1]), people, annotations)
    assert table.to_dict("records") == [{"by": "everyone", "group": "all", "people": 3, "AP": 1}]
