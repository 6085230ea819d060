"""Readers: what is read, what is passed over, and what each broken file says."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import loadmat, savemat

from rsnlib.data.readers import check_images, read_people, summary, withheld
from rsnlib.data.skeletons import COCO
from rsnlib.errors import UserError

WIDTH, HEIGHT = 60, 40


def write_image(path, width=WIDTH, height=HEIGHT):
    """Noise, so that the JPEG is long enough to be cut."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def cut_in_half(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def annotation(identity, **changes):
    """A COCO person whose nose is visible at (12, 13) and whose left eye is hidden at (14, 11)."""
    person = {"id": identity, "image_id": 7, "category_id": 1, "iscrowd": 0, "bbox": [10, 5, 20, 30], "area": 450.5}
    return person | {"num_keypoints": 2, "keypoints": [12, 13, 2, 14, 11, 1] + [0] * 45} | changes


def write_coco(root, *annotations, **changes):
    """A COCO data set of one image, split "train2017"; `changes` replace top-level keys (None leaves one out)."""
    write_image(root / "images/train2017/a.jpg")
    content = {
        "images": [{"id": 7, "file_name": "a.jpg", "width": WIDTH, "height": HEIGHT}],
        "categories": [{"id": 1, "name": "person", "keypoints": list(COCO.keypoints)}],
        "annotations": list(annotations),
    } | changes
    file = root / "annotations/person_keypoints_train2017.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))
    return file


def read_coco(root, unusable="stop"):
    return read_people(root, "coco", "train2017", unusable)


def write_mpii(root, *people):
    write_image(root / "images/a.jpg")
    file = root / "annot/valid.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(people))
    return file


def mpii_person(**changes):
    person = {"image": "a.jpg", "center": [31.0, 18.0], "scale": 0.2}
    return person | {"joints": [[11.0, 21.0]] * 16, "joints_vis": [1] * 15 + [0]} | changes


def write_lspet(root, joints):
    """`joints`: (N, 14, 3)."""
    for number in range(1, len(joints) + 1):
        write_image(root / f"images/im{number:05d}.jpg")
    file = root / "joints.mat"
    savemat(file, {"joints": np.transpose(joints, (1, 2, 0))})
    return file


def write_lsp(root, joints):
    """`joints`: (N, 14, 3)."""
    for number in range(1, len(joints) + 1):
        write_image(root / f"images/im{number:04d}.jpg")
    file = root / "joints.mat"
    savemat(file, {"joints": np.transpose(joints, (2, 1, 0))})
    return file


def lsp_joints(count=1):
    """(count, 14, 3): joint j at (10 + 2 j, 5 + j), hidden where j is odd."""
    places = np.arange(14)
    return np.tile(np.stack([10.0 + 2 * places, 5.0 + places, places % 2], axis=1), (count, 1, 1))


def lspet_joints(count=1):
    """(count, 14, 3): two visible joints, at (10, 5) and (30, 15); the others somewhere meaningless."""
    joints = np.full((count, 14, 3), [-1000.0, np.nan, 0])
    joints[:, 0] = [10, 5, 1]
    joints[:, 13] = [30, 15, 1]
    return joints


# ---- COCO


def test_coco_person_is_read_as_written(tmp_path):
    write_coco(tmp_path, annotation(183))
    people = read_coco(tmp_path)
    assert people.ids.tolist() == [183]
    assert people.image_ids.tolist() == [7]
    assert people.areas.tolist() == [450.5]
    assert people.scores.tolist() == [1]
    assert people.images.tolist() == [str(tmp_path / "images/train2017/a.jpg")]
    assert people.image_sizes.tolist() == [[HEIGHT, WIDTH]]
    assert people.boxes.tolist() == [[10, 5, 20, 30]]
    assert people.keypoints[0, :3].tolist() == [[12, 13], [14, 11], [0, 0]]
    assert people.visible[0, :3].tolist() == [2, 1, 0]
    assert people.unusable == ()


def test_people_have_the_promised_dtypes(tmp_path):
    write_coco(tmp_path, annotation(1))
    people = read_coco(tmp_path)
    for name in ("ids", "image_ids", "image_sizes", "visible"):
        assert getattr(people, name).dtype == np.int64
    for name in ("boxes", "keypoints", "areas", "scores"):
        assert getattr(people, name).dtype == np.float64


@pytest.mark.parametrize(
    "changes",
    [
        {"iscrowd": 1, "keypoints": None},
        {"num_keypoints": 0},
        {"keypoints": [0] * 51},
        {"category_id": 18, "bbox": None},
    ],
)
def test_coco_passes_over_what_is_no_training_person(tmp_path, changes):
    write_coco(tmp_path, annotation(1), annotation(2, **changes))
    people = read_coco(tmp_path)
    assert people.ids.tolist() == [1]
    assert people.unusable == ()


def test_coco_person_without_an_area_has_the_boxs(tmp_path):
    person = annotation(1)
    del person["area"]
    write_coco(tmp_path, person)
    assert read_coco(tmp_path).areas.tolist() == [20 * 30]


@pytest.mark.parametrize("changes", [{"num_keypoints": 5}, {"bbox": [-3, 20, 70, 30]}])
def test_coco_accepts_a_wrong_count_and_a_box_beyond_the_edge(tmp_path, changes):
    write_coco(tmp_path, annotation(1, **changes))
    assert len(read_coco(tmp_path)) == 1


NAN, INFINITY = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"keypoints": [1] * 50}, "keypoints: a list of 50 where a list of 51 numbers belongs"),
        ({"keypoints": None}, "keypoints: None where a list of 51 numbers belongs"),
        ({"keypoints": [NAN, 13, 2] + [0] * 48}, "keypoints: nan is not a finite number"),
        ({"keypoints": ["12", 13, 2] + [0] * 48}, "keypoints: '12' is not a finite number"),
        ({"keypoints": [10**400, 13, 2] + [0] * 48}, "is not a finite number"),
        ({"keypoints": [12, 13, 3] + [0] * 48}, "keypoints: a visibility flag is not 0, 1 or 2"),
        ({"bbox": [10, 5, 0, 30]}, "box has no area (0 x 30 pixels)"),
        ({"bbox": [10, 5, 20, -1]}, "box has no area (20 x -1 pixels)"),
        ({"bbox": [10, 5, INFINITY, 30]}, "bbox: inf is not a finite number"),
        ({"bbox": [10, 5, 20]}, "bbox: a list of 3 where a list of 4 numbers belongs"),
        ({"bbox": [60, 5, 20, 30]}, "box lies wholly outside its image (60 x 40 pixels)"),
        ({"bbox": [10, -30, 20, 30]}, "box lies wholly outside its image (60 x 40 pixels)"),
        ({"area": 0}, "area is 0"),
        ({"image_id": 8}, "image_id 8 is not among the file's images"),
        ({"image_id": [7]}, "image_id: [7] is not a whole number"),
        ({"category_id": None}, "category_id: None is not a whole number"),
        ({"id": 1}, "an earlier annotation has the same id"),
    ],
)
def test_coco_unusable_annotation_is_named_with_its_reason(tmp_path, changes, reason):
    bad = annotation(2, **changes)
    file = write_coco(tmp_path, annotation(1), bad)
    with pytest.raises(UserError) as stopped:
        read_coco(tmp_path)
    assert f"{file}: 1 of 2 people are unusable:\n  {bad['id']}: " in str(stopped.value)
    assert reason in str(stopped.value)
    assert "unusable: leave out" in str(stopped.value)

    people = read_coco(tmp_path, "leave out")
    assert people.ids.tolist() == [1]
    ((identity, left_out_for),) = people.unusable
    assert identity == str(bad["id"])
    assert reason in left_out_for


def test_coco_annotation_without_id_is_named_by_its_place(tmp_path):
    bad = annotation(2)
    del bad["id"]
    write_coco(tmp_path, annotation(1), bad)
    assert read_coco(tmp_path, "leave out").unusable == (("annotations[1]", "id: None is not a whole number"),)


def test_at_most_ten_unusable_annotations_are_listed(tmp_path):
    write_coco(tmp_path, annotation(1), *(annotation(identity, area=-1) for identity in range(2, 14)))
    with pytest.raises(UserError) as stopped:
        read_coco(tmp_path)
    message = str(stopped.value)
    assert "12 of 13 people" in message
    assert "  11: area is -1\n  ... and 2 more\n" in message


@pytest.mark.parametrize("name", ["../a.jpg", "/etc/passwd", "folder/../../a.jpg"])
def test_image_name_must_not_lead_out_of_the_images_folder(tmp_path, name):
    image = {"id": 7, "file_name": name, "width": WIDTH, "height": HEIGHT}
    write_coco(tmp_path / "coco", annotation(5), images=[image])
    with pytest.raises(UserError, match=f"5: image name '{name}' leads out of the images folder"):
        read_coco(tmp_path / "coco")
    write_mpii(tmp_path / "mpii", mpii_person(image=name))
    with pytest.raises(UserError, match=f"1: image name '{name}' leads out of the images folder"):
        read_people(tmp_path / "mpii", "mpii", "valid")


@pytest.mark.parametrize("key", ["images", "categories", "annotations"])
@pytest.mark.parametrize("value", [None, {}, [3]])
def test_coco_top_level_key_that_is_missing_or_wrong_is_named(tmp_path, key, value):
    file = write_coco(tmp_path, annotation(1))
    write_coco(tmp_path, annotation(1), **{key: value})
    with pytest.raises(UserError, match=f"{file}: .*`{key}`"):
        read_coco(tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": [{"file_name": "a.jpg"}]}, r"images\[0\]: key `id` is missing"),
        ({"images": [{"id": 7}, {"id": 7}]}, r"images\[1\]: key `id`: an earlier image is also 7"),
        ({"categories": [{"id": 1, "name": "dog"}]}, "`categories` has no category named person"),
        ({"categories": [{"id": 1, "name": "person", "keypoints": ["nose"]}]}, "not COCO's 17"),
    ],
)
def test_coco_file_that_is_wrong_as_a_whole_is_named_with_its_key(tmp_path, changes, message):
    file = write_coco(tmp_path, annotation(1), **changes)
    with pytest.raises(UserError, match=f"{file}: .*{message}"):
        read_coco(tmp_path, "leave out")


@pytest.mark.parametrize("text", ["[]", "{", "", "\0"])
def test_coco_file_that_is_no_coco_file_is_named(tmp_path, text):
    file = write_coco(tmp_path)
    file.write_text(text)
    with pytest.raises(UserError, match=str(file)):
        read_coco(tmp_path)


# ---- MPII


def test_mpii_person_is_converted_as_in_the_released_code(tmp_path):
    write_mpii(tmp_path, mpii_person())
    people = read_people(tmp_path, "mpii", "valid")
    # center (31, 18), scale 0.2: down by 15 * 0.2 to (31, 21), 0-based (30, 20); a square of 200 * 0.2 = 40 pixels
    assert people.boxes.tolist() == [[10, 0, 40, 40]]
    assert people.areas.tolist() == [1600]
    assert people.keypoints[0].tolist() == [[10, 20]] * 16
    assert people.visible[0].tolist() == [2] * 15 + [0]
    assert people.image_sizes.tolist() == [[HEIGHT, WIDTH]]


def test_mpii_missing_center_is_not_moved_down(tmp_path):
    write_mpii(tmp_path, mpii_person(center=[-1, 18]))
    # 0-based (-2, 17)
    assert read_people(tmp_path, "mpii", "valid").boxes.tolist() == [[-22, -3, 40, 40]]


def test_mpii_ids_are_the_rows_and_the_order_of_the_images(tmp_path):
    write_image(tmp_path / "images/b.jpg")
    write_mpii(tmp_path, mpii_person(), mpii_person(scale=0), mpii_person(image="b.jpg"), mpii_person())
    people = read_people(tmp_path, "mpii", "valid", "leave out")
    assert people.ids.tolist() == [1, 3, 4]
    assert people.image_ids.tolist() == [1, 2, 1]
    assert people.image_count == 2


def test_mpii_person_without_a_visible_joint_stays(tmp_path):
    write_mpii(tmp_path, mpii_person(joints_vis=[0] * 16))
    assert read_people(tmp_path, "mpii", "valid").visible.sum() == 0


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"joints": None}, "no joints"),
        ({"joints": [[1, 2]] * 15}, "joints: not a list of 16 positions"),
        ({"joints": [[1, 2]] * 15 + [[1, NAN]]}, "joints: nan is not a finite number"),
        ({"joints_vis": [1] * 15}, "joints_vis: a list of 15 where a list of 16 numbers belongs"),
        ({"joints_vis": [2] * 16}, "joints_vis: a flag is not 0 or 1"),
        ({"center": [1]}, "center: a list of 1 where a list of 2 numbers belongs"),
        ({"scale": None}, "scale: None is not a finite number"),
        ({"scale": -1}, "box has no area"),
        ({"center": [500, 18]}, "box lies wholly outside its image"),
        ({"image": None}, "image name None is not a file name"),
        ({"image": "b.jpg"}, "b.jpg: no such file"),
    ],
)
def test_mpii_unusable_person_is_named_with_its_reason(tmp_path, changes, reason):
    file = write_mpii(tmp_path, mpii_person(), mpii_person(**changes))
    with pytest.raises(UserError) as stopped:
        read_people(tmp_path, "mpii", "valid")
    assert f"{file}: 1 of 2 people are unusable:\n  2: " in str(stopped.value)
    assert reason in str(stopped.value)
    assert read_people(tmp_path, "mpii", "valid", "leave out").ids.tolist() == [1]


def test_mpiis_test_people_have_boxes_and_no_joints(mpii_folder):
    people = read_people(mpii_folder, "mpii", "test")
    assert people.ids.tolist() == [1, 2, 3, 4] and people.image_ids.tolist() == [1, 1, 2, 2]
    assert [Path(image).name for image in people.images] == ["c.jpg", "c.jpg", "a.jpg", "a.jpg"]
    # center (20, 40), scale 0.2: as for the others
    assert people.boxes[0].tolist() == [20 - 1 - 20, 40 + 3 - 1 - 20, 40, 40]
    assert people.keypoints.shape == (4, 16, 2) and not people.visible.any()


@pytest.mark.parametrize("content", [{"images": []}, [1]])
def test_mpii_file_that_is_no_list_of_people_is_named(tmp_path, content):
    file = write_mpii(tmp_path)
    file.write_text(json.dumps(content))
    with pytest.raises(UserError, match=f"{file}: not a list of people"):
        read_people(tmp_path, "mpii", "valid")


# ---- LSPET


def test_lspet_person_is_the_labelled_joints_and_a_box_around_them(tmp_path):
    write_lspet(tmp_path, lspet_joints())
    people = read_people(tmp_path, "lspet", [1, 1])
    assert people.visible.tolist() == [[2] + [0] * 12 + [2]]
    assert people.keypoints[0, [0, 13]].tolist() == [[10, 5], [30, 15]]
    assert not people.keypoints[0, 1:13].any()  # meaningless in the file, also where not a number
    # joints span 20 x 10 pixels around (20, 10); a fifth more is 24 x 12
    np.testing.assert_allclose(people.boxes, [[8, 4, 24, 12]])
    np.testing.assert_allclose(people.areas, [288])


def test_lspet_range_is_inclusive_and_counts_from_one(tmp_path):
    write_lspet(tmp_path, lspet_joints(3))
    people = read_people(tmp_path, "lspet", [2, 3])
    assert people.ids.tolist() == people.image_ids.tolist() == [2, 3]
    assert [Path(image).name for image in people.images] == ["im00002.jpg", "im00003.jpg"]


@pytest.mark.parametrize("split", [[0, 2], [1, 4], [3, 2], [1], "train", [1.0, 2], None])
def test_lspet_range_that_is_wrong_is_named_with_the_file(tmp_path, split):
    file = write_lspet(tmp_path, lspet_joints(3))
    with pytest.raises(UserError) as stopped:
        read_people(tmp_path, "lspet", split)
    assert f"{file}: has images 1 to 3; split {split!r} is not" in str(stopped.value)


@pytest.mark.parametrize(
    ("joint", "value", "reason"),
    [
        (13, [30, 15, 0], "joints: 1 labelled, a box takes at least 2"),
        (13, [30, 15, 2], "joints: a visibility flag is not 0 or 1"),
        (13, [30, np.nan, 1], "joints: a labelled joint's position is not finite"),
        (13, [10, 15, 1], "box has no area (0 x 12 pixels)"),
    ],
)
def test_lspet_unusable_person_is_named_with_its_reason(tmp_path, joint, value, reason):
    joints = lspet_joints(2)
    joints[1, joint] = value
    file = write_lspet(tmp_path, joints)
    with pytest.raises(UserError) as stopped:
        read_people(tmp_path, "lspet", [1, 2])
    assert f"{file}: 1 of 2 people are unusable:\n  2: {reason}" in str(stopped.value)
    assert read_people(tmp_path, "lspet", [1, 2], "leave out").unusable == (("2", reason),)


def test_lspet_file_that_is_not_matlab_is_named(tmp_path):
    file = write_lspet(tmp_path, lspet_joints())
    file.write_bytes(b"not MATLAB")
    with pytest.raises(UserError, match=f"{file}: not readable as a MATLAB file"):
        read_people(tmp_path, "lspet", [1, 1])


@pytest.mark.parametrize(
    "content", [{"other": np.zeros((14, 3, 2))}, {"joints": np.zeros((3, 14, 2))}, {"joints": "a"}]
)
def test_lspet_file_without_its_joints_is_named(tmp_path, content):
    file = write_lspet(tmp_path, lspet_joints())
    savemat(file, content)
    with pytest.raises(UserError, match=rf"{file}: .*`joints`.*\(14, 3, N\)"):
        read_people(tmp_path, "lspet", [1, 1])


# ---- LSP


def test_lsp_flags_what_is_hidden_and_labels_every_joint(tmp_path):
    write_lsp(tmp_path, lsp_joints())
    people = read_people(tmp_path, "lsp", [1, 1])
    assert people.visible.tolist() == [[2, 1] * 7]
    assert people.keypoints[0, [0, 1, 13]].tolist() == [[10, 5], [12, 6], [36, 18]]
    # hidden ones too are in the box: 26 x 13 pixels around (23, 11.5), and a fifth more
    np.testing.assert_allclose(people.boxes, [[7.4, 3.7, 31.2, 15.6]])


def test_lsp_range_counts_images_from_one(tmp_path):
    write_lsp(tmp_path, lsp_joints(3))
    people = read_people(tmp_path, "lsp", [2, 3])
    assert people.ids.tolist() == people.image_ids.tolist() == [2, 3]
    assert [Path(image).name for image in people.images] == ["im0002.jpg", "im0003.jpg"]


@pytest.mark.parametrize(
    ("joint", "reason"),
    [
        ([30, 15, 2], "joints: a visibility flag is not 0 or 1"),
        ([30, np.nan, 1], "joints: a labelled joint's position is not finite"),
    ],
)
def test_lsp_unusable_person_is_named_with_its_reason(tmp_path, joint, reason):
    joints = lsp_joints(2)
    joints[1, 7] = joint
    file = write_lsp(tmp_path, joints)
    with pytest.raises(UserError) as stopped:
        read_people(tmp_path, "lsp", [1, 2])
    assert f"{file}: 1 of 2 people are unusable:\n  2: {reason}" in str(stopped.value)


def test_lsp_and_lspet_are_not_taken_for_each_other(tmp_path):
    write_lsp(tmp_path / "lsp", lsp_joints(2))
    write_lspet(tmp_path / "lspet", lspet_joints(2))
    with pytest.raises(UserError, match=r"`joints` has shape \(14, 3, 2\), not \(3, 14, N\)"):
        read_people(tmp_path / "lspet", "lsp", [1, 2])
    with pytest.raises(UserError, match=r"`joints` has shape \(3, 14, 2\), not \(14, 3, N\)"):
        read_people(tmp_path / "lsp", "lspet", [1, 2])


# ---- Images


def test_image_cut_short_is_found(tmp_path):
    write_coco(tmp_path, annotation(1))
    image = tmp_path / "images/train2017/a.jpg"
    people = read_coco(tmp_path)
    assert check_images(people) == []
    cut_in_half(image)
    ((path, reason),) = check_images(people)
    assert path == str(image)
    assert "truncated" in reason


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda image: image.unlink(), "no such file"),
        (lambda image: image.write_bytes(b""), "not readable as an image"),
        (cut_in_half, "not readable as an image (image file is truncated"),
        (lambda image: write_image(image, 50, 40), "is 50 x 40 pixels, its annotation says 60 x 40"),
    ],
)
def test_broken_image_makes_its_people_unusable(tmp_path, damage, reason):
    good = {"id": 7, "file_name": "a.jpg", "width": WIDTH, "height": HEIGHT}
    write_coco(
        tmp_path, annotation(1), annotation(2, image_id=8), images=[good, good | {"id": 8, "file_name": "b.jpg"}]
    )
    image = tmp_path / "images/train2017/b.jpg"
    write_image(image)
    assert len(read_coco(tmp_path)) == 2
    damage(image)
    with pytest.raises(UserError) as stopped:
        read_coco(tmp_path)
    assert f"1 of 2 people are unusable:\n  2: image {image}: {reason}" in str(stopped.value)
    people = read_coco(tmp_path, "leave out")
    assert people.ids.tolist() == [1]
    assert people.unusable[0][0] == "2"


# ---- Every reader


@pytest.mark.parametrize(
    ("reader", "split", "annotations", "images"),
    [
        ("coco", "val2017", "annotations/person_keypoints_val2017.json", "images/val2017"),
        ("mpii", "train", "annot/train.json", "images"),
        ("lspet", [1, 5], "joints.mat", "images"),
        ("lsp", [1, 5], "joints.mat", "images"),
        ("coco", {"annotations": "labels/a.json", "images": "photos"}, "labels/a.json", "photos"),
    ],
)
def test_missing_file_or_folder_is_named(tmp_path, reader, split, annotations, images):
    root = tmp_path / "data"
    with pytest.raises(UserError, match=f"{root}: no such folder.*{annotations}.*{images}"):
        read_people(root, reader, split)
    root.mkdir()
    with pytest.raises(UserError, match=f"{root / annotations}: no such file"):
        read_people(root, reader, split)
    (root / annotations).parent.mkdir(exist_ok=True)
    (root / annotations).touch()
    with pytest.raises(UserError, match=f"{root / images}: no such folder"):
        read_people(root, reader, split)


def test_unknown_choices_are_named(tmp_path):
    with pytest.raises(UserError, match="reader 'voc': .*coco, mpii, lsp, lspet"):
        read_people(tmp_path, "voc", "train")
    with pytest.raises(UserError, match="unusable 'skip': must be `stop` or `leave out`"):
        read_people(tmp_path, "coco", "train2017", "skip")
    with pytest.raises(UserError, match=r"split \[1, 5\]: reader coco takes a name"):
        read_people(tmp_path, "coco", [1, 5])
    with pytest.raises(UserError, match="split {.*}: reader mpii takes a name"):
        read_people(tmp_path, "mpii", {"annotations": "a.json", "images": "images"})


def test_data_set_without_a_usable_person_is_an_error(tmp_path):
    file = write_coco(tmp_path)
    with pytest.raises(UserError, match=f"{file}: split 'train2017' has not a single usable person$"):
        read_coco(tmp_path)
    write_coco(tmp_path, annotation(1, bbox=[]))
    with pytest.raises(UserError, match=r"not a single usable person \(1 left out as unusable\)"):
        read_coco(tmp_path, "leave out")


def test_take_keeps_rows_together(tmp_path):
    write_coco(tmp_path, annotation(1, area=100), annotation(2, area=200), annotation(3, area=300))
    people = read_coco(tmp_path).take([2, 0])
    assert people.ids.tolist() == [3, 1]
    assert people.areas.tolist() == [300, 100]


def test_summary_counts_keypoints(tmp_path):
    only_nose = [12, 13, 2] + [0] * 48
    write_coco(tmp_path, annotation(1), annotation(2), annotation(3, keypoints=only_nose))
    counts = summary(read_coco(tmp_path))
    assert list(counts.columns) == ["keypoint", "labelled", "visible", "hidden"]
    assert counts.values.tolist()[:3] == [["nose", 3, 3, 0], ["left_eye", 2, 0, 2], ["right_eye", 0, 0, 0]]


# ---- The real data


@pytest.mark.shared
@pytest.mark.parametrize(
    ("folder", "split", "count"),
    [
        ("coco", "train2017", 143),
        ("coco", "val2017", 124),
        ("mpii", "valid_5_images", 5),
        ("lspet", [1, 6000], 6000),
        ("lspet", [5001, 6000], 1000),
    ],
)
def test_real_data_reads_without_an_unusable_person(shared, folder, split, count):
    people = read_people(shared / "data" / folder, folder, split)
    assert len(people) == count
    assert people.unusable == ()


@pytest.mark.shared
def test_real_coco_agrees_with_its_own_keypoint_counts(shared):
    people = read_people(shared / "data/coco", "coco", "val2017")
    file = shared / "data/coco/annotations/person_keypoints_val2017.json"
    stated = {row["id"]: row["num_keypoints"] for row in json.loads(file.read_text())["annotations"]}
    assert (people.visible > 0).sum(axis=1).tolist() == [stated[identity] for identity in people.ids.tolist()]


@pytest.mark.shared
def test_real_lspet_has_the_labelled_joints_of_its_file(shared):
    people = read_people(shared / "data/lspet", "lspet", [11, 20])
    joints = loadmat(shared / "data/lspet/joints.mat")["joints"][:, :, 10:20]
    assert summary(people).labelled.tolist() == joints[:, 2].sum(axis=1).tolist()
    labelled = people.visible > 0
    np.testing.assert_array_equal(people.keypoints[labelled], joints[:, :2].transpose(2, 0, 1)[labelled])


@pytest.mark.parametrize(
    ("reader", "split", "kept"),
    [
        ("coco", "test-dev2017", True),
        ("coco", "test-challenge2017", True),
        ("coco", "test2015", True),
        ("coco", "val2017", False),
        ("coco", "test", False),  # of one's own
        ("coco", "test-a2017", False),
        ("coco", {"annotations": "test2017", "images": "test2017"}, False),
        ("mpii", "test", True),
        ("mpii", "tests", False),
        ("lspet", [1, 1000], False),
    ],
)
def test_joints_are_withheld_of_cocos_and_mpiis_test_splits_alone(reader, split, kept):
    assert withheld(reader, split) is kept
