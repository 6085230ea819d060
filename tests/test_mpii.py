"""MPII's own annotations, mpii_human_pose_v1_u12_1.mat: read, judged by and submitted to without other files."""

import json

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from rsnlib.apps.submission import write_mpii_submission
from rsnlib.data.readers import read_people
from rsnlib.data.readers.mpii import RELEASE
from rsnlib.data.skeletons import MPII
from rsnlib.errors import UserError
from rsnlib.metrics import coco_results, pckh

EMPTY = np.zeros((0, 0))  # as MATLAB has it where there is nothing
HEAD = {"x1": 20, "y1": 10, "x2": 26, "y2": 18}  # diagonal 10: the unit is 6 pixels


def joint(number, x, y, visible):
    return {"id": number, "x": x, "y": y, "is_visible": visible}


def structs(*entries):
    """A MATLAB array of structs with the keys of any of `entries`, empty where an entry lacks one."""
    keys = list(dict.fromkeys(key for entry in entries for key in entry))
    array = np.empty((1, len(entries)), [(key, object) for key in keys])
    for column, entry in enumerate(entries):
        array[0, column] = tuple(entry.get(key, EMPTY) for key in keys)
    return array


JOINTS = [joint(number, 10.5 + number, 20 + number, "1") for number in range(2, 9)]
JOINTS += [joint(0, 11, 21, "0"), joint(9, 30, 12, EMPTY), joint(10, 31.5, 13, 0.0), joint(1, 12, 22, 1)]
TRAINED = HEAD | {"scale": 0.2, "objpos": {"x": 31, "y": 18}, "annopoints": {"point": structs(*JOINTS)}}


@pytest.fixture
def folder(tmp_path):
    """MPII in small, without any JSON: training images a, b and c, test images d and e; in a one person with joints and
    one without, in c two with joints, of whom one has no head box and one no scale; in e one of two to be judged."""
    headless = {key: value for key, value in TRAINED.items() if key not in HEAD}
    test = [{"scale": 0.15, "objpos": {"x": x, "y": 20}} for x in (20, 40)]
    images = [
        ("d.jpg", 0, [], []),
        ("a.jpg", 1, [TRAINED, {"scale": 0.2, "objpos": {"x": 5, "y": 5}}], [1]),
        ("b.jpg", 1, [], []),
        ("c.jpg", 1, [headless, TRAINED | {"scale": EMPTY}, TRAINED], []),
        ("e.jpg", 0, test, [2]),
    ]
    (tmp_path / "images").mkdir()
    (tmp_path / RELEASE).parent.mkdir()
    for name, *_ in images:
        Image.new("RGB", (60, 40)).save(tmp_path / "images" / name)
    annolist = structs(*(
        {"image": {"name": name}, "annorect": structs(*people) if people else EMPTY} for name, _, people, _ in images
    ))  # fmt: skip
    single = np.empty((len(images), 1), object)
    single[:, 0] = [np.array(rows, np.uint8)[:, None] for *_, rows in images]
    train = np.array([[train for _, train, *_ in images]], np.uint8)
    release = {"annolist": annolist, "img_train": train, "single_person": single}
    savemat(tmp_path / RELEASE, {"RELEASE": release})
    return tmp_path


def test_training_people_are_read_with_their_joints_counted_from_zero(folder):
    people = read_people(folder, "mpii", [1, 2])
    assert (people.ids.tolist(), people.image_ids.tolist()) == ([1], [2])
    assert people.images.tolist() == [str(folder / "images/a.jpg")] and people.image_sizes.tolist() == [[40, 60]]
    assert people.visible[0].tolist() == [1, 2, 2, 2, 2, 2, 2, 2, 2, 2, 1, 0, 0, 0, 0, 0]
    assert people.keypoints[0, [0, 5, 9, 10, 11]].tolist() == [[10, 20], [14.5, 24], [29, 11], [30.5, 12], [0, 0]]
    np.testing.assert_allclose(people.boxes, [[31 - 1 - 20, 18 + 15 * 0.2 - 1 - 20, 40, 40]])  # as from the usual JSON


def test_ranges_count_training_images_and_pass_over_who_cannot_be_learnt_from(folder):
    assert read_people(folder, "mpii", [3, 3]).ids.tolist() == [3, 5]  # of five training people, numbered 1 to 5
    assert read_people(folder, "mpii", [1, 3]).ids.tolist() == [1, 3, 5]
    with pytest.raises(UserError, match=r"has training images 1 to 3; \[2, 4\] is not a range of these"):
        read_people(folder, "mpii", [2, 4])


def test_test_people_are_those_to_be_judged_and_have_no_joints(folder):
    people = read_people(folder, "mpii", "test")
    assert people.ids.tolist() == [7] and people.image_ids.tolist() == [5] and not people.visible.any()
    np.testing.assert_allclose(people.boxes, [[40 - 1 - 15, 20 + 15 * 0.15 - 1 - 15, 30, 30]])


def test_pckh_is_by_the_head_boxes_of_the_same_file(folder):
    people = read_people(folder, "mpii", [1, 3])
    moved = people.keypoints.copy()
    moved[0, 0] += [3.1, 0]  # more than half of 6 pixels
    moved[2, 1] += [2.9, 0]
    moved[1] += 100  # no head box: does not count
    shares = pckh(moved, folder / RELEASE, people)
    counted = 2 * sum(MPII.keypoints[number] not in ("pelvis", "thorax") for number in range(11))
    assert shares["Mean"] == pytest.approx(100 * (counted - 1) / counted)
    assert shares["Ankle"] == pytest.approx((50 + 100) / 2) and shares["Knee"] == 100


def test_predictions_of_its_test_people_can_be_submitted(folder):
    people = read_people(folder, "mpii", "test")
    (result,) = coco_results(people.image_ids, np.ones((1, 16, 2)), np.ones((1, 16)), people.scores)
    (folder / "results.json").write_text(json.dumps([result | {"person_id": 7}]))
    assert write_mpii_submission(folder / "results.json", folder, folder / "out").is_file()
    (folder / "results.json").write_text(json.dumps([result | {"person_id": 6}]))
    with pytest.raises(UserError, match="person_id: 6 is nobody in .*mpii_human_pose_v1_u12_1.mat, 7 to 7"):
        write_mpii_submission(folder / "results.json", folder, folder / "out")


def test_a_list_of_test_people_goes_first_where_there_is_one(folder):
    listed = [{"image": "e.jpg", "center": [30, 30], "scale": 0.1}]
    (folder / "annot/test.json").write_text(json.dumps(listed))
    np.testing.assert_allclose(read_people(folder, "mpii", "test").boxes[0, 2:], [20, 20])


def test_a_person_who_is_not_as_mpii_has_them_is_named(folder):
    rects = structs(TRAINED | {"annopoints": {"point": structs(joint(16, 1, 1, 1))}}, TRAINED | {"scale": "big"})
    annolist = structs({"image": {"name": "a.jpg"}, "annorect": rects})
    single = np.empty((1, 1), object)
    single[0, 0] = EMPTY
    savemat(folder / RELEASE, {"RELEASE": {"annolist": annolist, "img_train": [[1]], "single_person": single}})
    with pytest.raises(UserError, match=r"2 of 2 people are unusable:(.|\n)*no joint 16(.|\n)*not as MPII has people"):
        read_people(folder, "mpii", [1, 1])
