"""People as others annotate them: judged as they were read. Predictions that are the truth have an AP of one."""

import json

import numpy as np
import pytest
from PIL import Image

from rsnlib.data.readers import ground_truth, read_people
from rsnlib.data.skeletons import COCO, SKELETONS
from rsnlib.errors import UserError
from rsnlib.metrics import coco_ap, coco_results
from rsnlib.stages.prepare import describe

SPLIT = {"annotations": "a.json", "images": "images"}


def somebody(number, **changes):
    """A person in picture 1 to 3 with all keypoints in a box of 30 x 36 pixels, at a place of its own."""
    places = np.random.default_rng(number).uniform([12, 12], [38, 42], (17, 2))
    person = {"id": number, "image_id": 1 + number % 3, "category_id": 1, "bbox": [10, 8, 30, 36], "area": 700}
    return person | {"keypoints": np.insert(places, 2, 2, axis=1).ravel().tolist()} | changes


@pytest.fixture
def data_set(tmp_path):
    """A function: write a data set of three pictures, b.png elsewhere; `changes` replace top-level keys."""

    def write(people, **changes):
        (tmp_path / "images").mkdir(exist_ok=True)
        for name in "abc":
            Image.new("RGB", (60, 50)).save(tmp_path / f"images/{name}.png")
        images = [
            {"id": 1 + row, "file_name": f"{name}.png", "width": 60, "height": 50} for row, name in enumerate("abc")
        ]
        categories = [{"id": 1, "name": "person", "keypoints": list(COCO.keypoints)}]
        content = {"images": images, "annotations": people, "categories": categories} | changes
        (tmp_path / "a.json").write_text(json.dumps(content))
        return tmp_path

    return write


def read(folder, unusable="stop", **options):
    return read_people(folder, "coco", SPLIT, unusable, COCO, **options)


def average_precision(results, truth):
    return pytest.approx(coco_ap(results, truth)["AP"])  # of one person pycocotools finds 0.9999999999999998


def judged(folder, people):
    """The AP of the people themselves."""
    scores = np.ones(people.visible.shape)
    results = coco_results(people.image_ids, people.keypoints, scores, people.scores, categories=people.categories)
    return average_precision(results, ground_truth(folder, "coco", SPLIT, people))


# ---- Whoever the reader passes over or leaves out is nobody to find


@pytest.mark.parametrize(
    "changes",
    [
        {"keypoints": []},
        {"keypoints": None},
        {"bbox": []},
        {"bbox": None},
        {"id": None},
        {"id": "one"},
        {"area": "700"},
        {"image_id": None},
        {"keypoints": ["a"] * 51},
        {"num_keypoints": 9, "keypoints": [0] * 51},
        {"iscrowd": 1, "keypoints": []},
        {"iscrowd": "1", "bbox": "everywhere"},
    ],
    ids=str,
)
def test_who_is_passed_over_is_nobody_to_find(data_set, changes):
    folder = data_set([somebody(1), somebody(2, **{"num_keypoints": 0} | changes), somebody(3)])
    people = read(folder)
    assert len(people) == 2 and judged(folder, people) == 1
    results = coco_results(people.image_ids, people.keypoints, np.ones((2, 17)), people.scores)
    assert average_precision(results, folder / "a.json") == 1  # without anybody who has read it before


@pytest.mark.parametrize(
    "changes",
    [
        {"area": 0},
        {"area": -5},
        {"area": 1e12},
        {"keypoints": [20, 20, 2] * 16},
        {"keypoints": [None, 20, 2] * 17},
        {"bbox": [10, 8, 30, 0]},
        {"bbox": [10, 8, -30, 36]},
        {"id": None},
        {"id": 1},
        {"image_id": 7},
        {"image_id": 3, "category_id": 5},
        {"iscrowd": "no"},
    ],
    ids=str,
)
def test_who_is_left_out_is_nobody_to_find(data_set, changes):
    folder = data_set([somebody(1), somebody(2, **changes), somebody(4)])
    with pytest.raises(UserError, match="1 of 3 people are unusable"):
        read(folder)
    people = read(folder, "leave out")
    assert people.ids.tolist() == [1, 4] and judged(folder, people) == 1


def test_everyone_passed_over_or_left_out_stands_on_the_page_of_the_stage(data_set):
    people = [
        somebody(1),
        somebody(2, iscrowd=1),
        somebody(3, num_keypoints=0),
        somebody(4, iscrowd=1),
        somebody(5, area=0),
    ]
    (row,) = describe({"val": read(data_set(people), "leave out")}).to_dict("records")
    assert row["people"] == 1 and row["why"] == "5: area is 0"
    assert row["passed over"] == "2: a crowd; 1: num_keypoints is 0 though keypoints are labelled"


def test_people_whose_picture_is_not_there_are_nobody_to_find(data_set):
    folder = data_set([somebody(number) for number in range(9)])  # the first has the id 0
    (folder / "images/b.png").unlink()
    (folder / "images/c.png").write_bytes(b"")
    people = read(folder, "leave out")
    assert people.ids.tolist() == [0, 3, 6] and judged(folder, people) == 1


def test_a_prediction_of_somebody_left_out_is_neither_right_nor_wrong(data_set):
    left_out = somebody(4, bbox=[10, 8, 30, 0])
    folder = data_set([somebody(1), left_out])
    people = read(folder, "leave out")
    found = np.reshape(left_out["keypoints"], (17, 3))[:, :2]
    for off, precision in ((0, 1), (30, 0.5)):  # half of all predictions are right once the right one is found
        keypoints, scores = np.stack([found + off, people.keypoints[0]]), np.array([[0.9] * 17, [0.5] * 17])
        results = coco_results(people.image_ids[[0, 0]], keypoints, scores, np.ones(2))
        assert average_precision(results, ground_truth(folder, "coco", SPLIT, people)) == precision


def test_a_file_of_anyones_is_judged_but_not_with_somebody_unusable_in_it(data_set):
    with pytest.raises(UserError, match="a.json: 2: area is 0"):
        coco_ap([], data_set([somebody(1), somebody(2, area=0)]) / "a.json")


# ---- What tools export


@pytest.mark.parametrize(
    ("people", "categories"),
    [
        ([somebody(1)], [{"id": 1, "name": "Person", "keypoints": list(COCO.keypoints)}]),
        (
            [somebody(1)],
            [{"id": 1, "name": "human", "keypoints": [name.replace("_", " ").title() for name in COCO.keypoints]}],
        ),
        ([somebody(1)], [{"id": 1, "name": "face", "keypoints": []}]),
        ([somebody(1)], [{"id": 1, "name": "anybody", "keypoints": None}]),
        ([somebody(1)], [{"id": 1, "name": "person"}, {"id": 2, "name": "dog"}]),
        ([somebody(1)], [{"id": 1, "name": "person", "keypoints": [*COCO.keypoints, "left_toe"]}]),
        (
            [somebody(1, category_id=0), somebody(2, keypoints=[])],  # Label Studio: a rectangle of class person
            [{"id": 0, "name": "default", "keypoints": list(COCO.keypoints)}, {"id": 1, "name": "person"}],
        ),
    ],
)
def test_the_category_is_the_one_with_the_skeletons_keypoints(data_set, people, categories):
    folder = data_set(people, categories=categories)
    found = read(folder)
    assert found.ids.tolist() == [1] and judged(folder, found) == 1


@pytest.mark.parametrize("nothing", [None, float("nan"), 10**400, "", -1])
def test_coordinates_of_a_keypoint_that_is_not_labelled_mean_nothing(data_set, nothing):
    folder = data_set([somebody(1, keypoints=[20, 20, 2, 30, 30, 1] + [nothing, nothing, 0] * 15)])
    people = read(folder)
    assert people.keypoints[0, :3].tolist() == [[20, 20], [30, 30], [0, 0]] and judged(folder, people) == 1


def test_normalised_boxes_are_refused(data_set):
    with pytest.raises(UserError, match="a.json: its boxes look normalised"):
        read(data_set([somebody(1, bbox=[0.1, 0.2, 0.5, 0.4])]))


def test_a_byte_order_mark_is_no_fault(data_set):
    folder = data_set([somebody(1)])
    (folder / "a.json").write_bytes(b"\xef\xbb\xbf" + (folder / "a.json").read_bytes())
    assert len(read(folder)) == 1


@pytest.mark.parametrize(
    ("ids", "numbers"),
    [
        (["7", "000000000785", 9], [7, 785, 9]),
        (["0d9f-44", "b1c2-11", "3"], [1, 2, 3]),  # their places, unless all are numbers
        (["5", "05", "6"], [1, 2, 3]),
    ],
)
def test_ids_may_be_text(data_set, ids, numbers):
    images = [{"id": own, "file_name": f"{name}.png", "width": 60, "height": 50} for own, name in zip(ids, "abc")]
    people = [somebody(place, id=own, image_id=own) for place, own in enumerate(ids)]
    folder = data_set(people, images=images)
    found = read(folder)
    assert found.image_ids.tolist() == found.ids.tolist() == numbers and judged(folder, found) == 1
    results = coco_results(found.image_ids, found.keypoints, np.ones((3, 17)), found.scores)
    results = [result | {"image_id": own} for result, own in zip(results, ids)]
    assert average_precision(results, folder / "a.json") == 1
    with pytest.raises(UserError, match="a.json: has no image d.png"):
        coco_ap([results[0] | {"image_id": "d.png"}], folder / "a.json")


def test_boxes_may_be_those_of_the_keypoints(data_set):
    two = [10, 20, 2, 40, 30, 1] + [0] * 45
    people = [somebody(1, bbox=[0, 0, 0, 0], area=0, keypoints=two), somebody(2, bbox=None, area=None, keypoints=two)]
    folder = data_set([*people, somebody(3, keypoints=[9, 9, 2] + [0] * 48)])
    found = read(folder, "leave out", boxes="keypoints")
    assert found.unusable == (("3", "keypoints: 1 labelled, a box takes at least 2"),)
    # 30 x 10 pixels around (25, 25), and a fifth more
    np.testing.assert_allclose(found.boxes, [[7, 19, 36, 12]] * 2)
    np.testing.assert_allclose(found.areas, [432] * 2)
    assert judged(folder, found) == 1
    with pytest.raises(UserError, match="box has no area"):
        read(data_set(people[:1]))


# ---- areas


def test_areas_of_the_box_judge_as_crowdpose_and_ai_challenger_are_judged(tmp_path):
    Image.new("RGB", (200, 200)).save(tmp_path / "a.png")
    person = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [20, 20, 100, 80], "keypoints": [50, 50, 2] * 14}
    content = {"images": [{"id": 1, "file_name": "a.png", "height": 200, "width": 200}], "annotations": [person]}
    names = list(SKELETONS["crowdpose"].keypoints)
    (tmp_path / "a.json").write_text(json.dumps(content | {"categories": [{"id": 1, "keypoints": names}]}))
    result = {"image_id": 1, "category_id": 1, "keypoints": [59, 50, 1] * 14, "score": 1.0}
    for areas, square in (("annotated", 100 * 80), ("box 0.53", 0.53 * 100 * 80), ("box .2", 0.2 * 100 * 80)):
        split, skeleton = {"annotations": "a.json", "images": "."}, SKELETONS["crowdpose"]
        people = read_people(tmp_path, "coco", split, skeleton=skeleton, areas=areas)
        assert people.areas.tolist() == [square]
        similarity = np.exp(-(9**2) / (2 * square * (2 * np.array(skeleton.sigmas)) ** 2)).mean()
        found = coco_ap([result], ground_truth(tmp_path, "coco", split, people), skeleton)
        assert found["AP"] == pytest.approx((np.linspace(0.5, 0.95, 10) <= similarity).mean())
