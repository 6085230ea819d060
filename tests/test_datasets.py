"""Readers: People from files as published, and an error that names the place for each broken one."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import loadmat, savemat

from rsnlib.data.people import summary
from rsnlib.data.readers import read_people, withheld
from rsnlib.data.skeletons import COCO
from rsnlib.errors import UserError

WIDTH, HEIGHT = 60, 40


def write_image(path, width=WIDTH, height=HEIGHT):
    """Noise, so that the JPEG is long enough to be cut."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


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


def write_joints(root, joints):
    """Joints (N, 14, 3) as joints.mat of the data set that `root` is named after, and an image for each person."""
    axes, digits = {"lspet": ((1, 2, 0), 5), "lsp": ((2, 1, 0), 4)}[root.name]
    for number in range(1, len(joints) + 1):
        write_image(root / f"images/im{number:0{digits}d}.jpg")
    savemat(root / "joints.mat", {"joints": np.transpose(joints, axes)})
    return root / "joints.mat"


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
    assert (people.ids.tolist(), people.image_ids.tolist(), people.categories.tolist()) == ([183], [7], [1])
    assert (people.areas.tolist(), people.scores.tolist(), people.unusable) == ([450.5], [1], ())
    assert people.images.tolist() == [str(tmp_path / "images/train2017/a.jpg")]
    assert people.image_sizes.tolist() == [[HEIGHT, WIDTH]]
    assert people.boxes.tolist() == [[10, 5, 20, 30]]
    assert people.keypoints[0, :3].tolist() == [[12, 13], [14, 11], [0, 0]]
    assert people.visible[0, :3].tolist() == [2, 1, 0]
    kinds = {"images": "U", "boxes": "f", "keypoints": "f", "areas": "f", "scores": "f", "upright": "b"}
    for name, array in people.arrays.items():
        assert array.dtype.kind == kinds.get(name, "i") and (array.dtype.kind in "Ub" or array.dtype.itemsize == 8)


def test_coco_takes_all_training_people_and_passes_over_the_rest(tmp_path):
    without_area = annotation(3)
    del without_area["area"]
    people = [annotation(1, num_keypoints=5), annotation(2, bbox=[-3, 20, 70, 30]), without_area]
    others = [{"iscrowd": 1, "keypoints": None}, {"num_keypoints": 0}, {"keypoints": [0] * 51}]
    others += [{"category_id": 18, "bbox": None}]
    others = [annotation(4 + index, **changes) for index, changes in enumerate(others)]
    categories = [{"id": 1, "name": "person", "keypoints": list(COCO.keypoints)}, {"id": 18, "name": "dog"}]
    write_coco(tmp_path, *people, *others, categories=categories)
    people = read_coco(tmp_path)
    assert people.ids.tolist() == [1, 2, 3] and people.unusable == () and len(people.passed_over) == 4
    assert people.areas.tolist() == [450.5, 450.5, 20 * 30]


def test_image_name_must_not_lead_out_of_the_images_folder(tmp_path):
    name = "folder/../../a.jpg"
    write_coco(tmp_path, annotation(5), images=[{"id": 7, "file_name": name, "width": WIDTH, "height": HEIGHT}])
    write_mpii(tmp_path, mpii_person(image=name))
    for reader, split, identity in (("coco", "train2017", 5), ("mpii", "valid", 1)):
        with pytest.raises(UserError, match=f"{identity}: image name '{name}' leads out of the images folder"):
            read_people(tmp_path, reader, split)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": None}, "`images`"),
        ({"categories": {}}, "`categories`"),
        ({"annotations": [3]}, "`annotations`"),
        ({"images": [{"file_name": "a.jpg"}]}, r"images\[0\]: key `id` is missing"),
        ({"images": [{"id": 7}, {"id": 7}]}, r"images\[1\]: key `id`: an earlier image is also 7"),
        ({"categories": [{"id": 1, "name": "dog"}, {"id": 2}]}, "`categories`: none has the keypoints .* coco"),
        ({"categories": [{"id": 1, "name": "person", "keypoints": ["nose"]}]}, "`skeleton` in params.yaml"),
    ],
)
def test_coco_file_that_is_wrong_as_a_whole_is_named_with_its_key(tmp_path, changes, message):
    file = write_coco(tmp_path, annotation(1), **changes)
    with pytest.raises(UserError, match=f"{file}: .*{message}"):
        read_coco(tmp_path, "leave out")


def test_coco_and_mpii_files_that_are_neither_are_named(tmp_path):
    coco, mpii = write_coco(tmp_path), write_mpii(tmp_path)
    for text, coco_reason, mpii_reason in (
        ("[3]", "no list of objects under top-level key `images`", "not a list of people"),
        ("{", "not readable as JSON", "not readable as JSON"),
    ):
        for file, reader, reason in ((coco, "coco", coco_reason), (mpii, "mpii", mpii_reason)):
            file.write_text(text)
            with pytest.raises(UserError, match=f"{file}: {reason}"):
                read_people(tmp_path, reader, {"coco": "train2017", "mpii": "valid"}[reader])


# ---- MPII


def test_mpii_person_is_converted_as_in_the_released_code(tmp_path):
    write_mpii(tmp_path, mpii_person())
    people = read_people(tmp_path, "mpii", "valid")
    # center (31, 18), scale 0.2: down by 15 * 0.2 to (31, 21), 0-based (30, 20); a square of 200 * 0.2 = 40 pixels
    assert (people.boxes.tolist(), people.areas.tolist()) == ([[10, 0, 40, 40]], [1600])
    assert people.keypoints[0].tolist() == [[10, 20]] * 16
    assert people.visible[0].tolist() == [2] * 15 + [0]
    assert people.image_sizes.tolist() == [[HEIGHT, WIDTH]]


def test_mpii_ids_are_the_rows_and_the_order_of_the_images(tmp_path):
    write_image(tmp_path / "images/b.jpg")
    unlabelled = mpii_person(center=[-1, 18], joints_vis=[0] * 16)
    write_mpii(tmp_path, mpii_person(), mpii_person(scale=0), mpii_person(image="b.jpg"), unlabelled)
    people = read_people(tmp_path, "mpii", "valid", "leave out")
    assert people.ids.tolist() == [1, 3, 4]  # one without a visible joint stays
    assert people.image_ids.tolist() == [1, 2, 1] and people.image_count == 2
    assert people.boxes[2].tolist() == [-22, -3, 40, 40]  # a missing center is not moved down: around 0-based (-2, 17)


def test_mpiis_test_people_have_boxes_and_no_joints(mpii_folder):
    people = read_people(mpii_folder, "mpii", "test")
    assert people.ids.tolist() == [1, 2, 3, 4] and people.image_ids.tolist() == [1, 1, 2, 2]
    assert [Path(image).name for image in people.images] == ["c.jpg", "c.jpg", "a.jpg", "a.jpg"]
    # center (20, 40), scale 0.2: as for the others
    assert people.boxes[0].tolist() == [20 - 1 - 20, 40 + 3 - 1 - 20, 40, 40]
    assert people.keypoints.shape == (4, 16, 2) and not people.visible.any()


# ---- LSP and its extension


def test_lspet_person_is_the_labelled_joints_and_a_box_around_them(tmp_path):
    write_joints(tmp_path / "lspet", lspet_joints())
    people = read_people(tmp_path / "lspet", "lspet", [1, 1])
    assert people.visible.tolist() == [[2] + [0] * 12 + [2]]
    assert people.keypoints[0, [0, 13]].tolist() == [[10, 5], [30, 15]]
    assert not people.keypoints[0, 1:13].any()  # meaningless in the file, also where not a number
    # joints span 20 x 10 pixels around (20, 10); a fifth more is 24 x 12
    np.testing.assert_allclose(people.boxes, [[8, 4, 24, 12]])
    np.testing.assert_allclose(people.areas, [288])


def test_lsp_flags_what_is_hidden_and_labels_every_joint(tmp_path):
    write_joints(tmp_path / "lsp", lsp_joints())
    people = read_people(tmp_path / "lsp", "lsp", [1, 1])
    assert people.visible.tolist() == [[2, 1] * 7]
    assert people.keypoints[0, [0, 1, 13]].tolist() == [[10, 5], [12, 6], [36, 18]]
    # hidden ones too are in the box: 26 x 13 pixels around (23, 11.5), and a fifth more
    np.testing.assert_allclose(people.boxes, [[7.4, 3.7, 31.2, 15.6]])


def test_lsp_and_lspet_ranges_are_inclusive_and_count_from_one(tmp_path):
    file = write_joints(tmp_path / "lspet", lspet_joints(3))
    write_joints(tmp_path / "lsp", lsp_joints(3))
    for reader, names in (("lspet", ["im00002.jpg", "im00003.jpg"]), ("lsp", ["im0002.jpg", "im0003.jpg"])):
        people = read_people(tmp_path / reader, reader, [2, 3])
        assert people.ids.tolist() == people.image_ids.tolist() == [2, 3]
        assert [Path(image).name for image in people.images] == names
    for split in ([0, 2], [1, 4], [3, 2], "train", [1.0, 2]):
        with pytest.raises(UserError, match=re.escape(f"{file}: has images 1 to 3; split {split!r} is not")):
            read_people(tmp_path / "lspet", "lspet", split)


def test_lsp_files_that_are_not_matlab_or_have_no_such_joints_are_named(tmp_path):
    file = write_joints(tmp_path / "lspet", lspet_joints(2))
    with pytest.raises(UserError, match=r"`joints` has shape \(14, 3, 2\), not \(3, 14, N\)"):
        read_people(file.parent, "lsp", [1, 2])
    for content in ({"other": np.zeros((14, 3, 2))}, {"joints": "a"}, {"joints": lsp_joints(2).T}):
        savemat(file, content)
        with pytest.raises(UserError, match=rf"{file}: .*`joints`.*\(14, 3, N\)"):
            read_people(file.parent, "lspet", [1, 1])
    file.write_bytes(b"not MATLAB")
    with pytest.raises(UserError, match=f"{file}: not readable as a MATLAB file"):
        read_people(file.parent, "lspet", [1, 1])


# ---- Unusable people


def write_second(root, reader, changes):
    """Two people of a reader, the second changed; returns the file and what is read."""
    if reader == "coco":
        bad = annotation(2, **changes)
        return write_coco(root, annotation(1), {key: bad[key] for key in bad if bad[key] is not ...}), "train2017"
    if reader == "mpii":
        return write_mpii(root, mpii_person(), mpii_person(**changes)), "valid"
    joints = lspet_joints(2)
    joints[1, 13] = changes
    return write_joints(root, joints), [1, 2]


@pytest.mark.parametrize(
    ("reader", "changes", "reason"),
    [
        ("coco", {"keypoints": [1] * 50}, "2: keypoints: a list of 50 where a list of 51 numbers belongs"),
        ("coco", {"keypoints": [float("nan"), 13, 2] + [0] * 48}, "2: keypoints: nan is not a finite number"),
        ("coco", {"keypoints": ["12", 13, 2] + [0] * 48}, "2: keypoints: '12' is not a finite number"),
        ("coco", {"keypoints": [10**400, 13, 2] + [0] * 48}, "2: keypoints: 1000"),
        ("coco", {"keypoints": [12, 13, 3] + [0] * 48}, "2: keypoints: a visibility flag is not 0, 1 or 2"),
        ("coco", {"bbox": [10, 5, 0, 30]}, "2: box has no area (0 x 30 pixels)"),
        ("coco", {"bbox": [10, 5, float("inf"), 30]}, "2: bbox: inf is not a finite number"),
        ("coco", {"bbox": [60, 5, 20, 30]}, "2: box lies wholly outside its image (60 x 40 pixels)"),
        ("coco", {"area": 0}, "2: area is 0"),
        ("coco", {"image_id": 8}, "2: image_id 8 is not among the file's images"),
        ("coco", {"category_id": None}, "2: category_id: None is not a whole number"),
        ("coco", {"id": 1}, "1: an earlier annotation has the same id"),
        ("coco", {"id": ...}, "annotations[1]: id: None is neither a whole number nor text"),
        ("mpii", {"joints": None}, "2: no joints"),
        ("mpii", {"joints": [[1, 2]] * 15}, "2: joints: not a list of 16 positions"),
        ("mpii", {"joints_vis": [2] * 16}, "2: joints_vis: a flag is not 0 or 1"),
        ("mpii", {"center": [1]}, "2: center: a list of 1 where a list of 2 numbers belongs"),
        ("mpii", {"scale": None}, "2: scale: None is not a finite number"),
        ("mpii", {"image": None}, "2: image name None is not a file name"),
        ("mpii", {"image": "b.jpg"}, "2: image images/b.jpg: no such file"),
        ("lspet", [30, 15, 0], "2: keypoints: 1 labelled, a box takes at least 2"),
        ("lspet", [30, 15, 2], "2: joints: a visibility flag is not 0 or 1"),
        ("lspet", [30, np.nan, 1], "2: joints: a labelled joint's position is not finite"),
        ("lspet", [10, 15, 1], "2: box has no area (0 x 12 pixels)"),
    ],
)
def test_an_unusable_person_is_named_with_a_reason_or_left_out(tmp_path, reader, changes, reason):
    root = tmp_path / reader
    file, split = write_second(root, reader, changes)
    with pytest.raises(UserError) as stopped:
        read_people(root, reader, split)
    people = read_people(root, reader, split, "leave out")
    ((identity, why),) = people.unusable
    assert people.ids.tolist() == [1] and f"{identity}: {why}".replace(f"{root}/", "").startswith(reason)
    assert f"{file}: 1 of 2 people are unusable:\n  {identity}: {why}\n" in str(stopped.value)
    assert "unusable: leave out" in str(stopped.value)


def test_at_most_ten_unusable_annotations_are_listed(tmp_path):
    write_coco(tmp_path, annotation(1), *(annotation(identity, area=-1) for identity in range(2, 14)))
    with pytest.raises(UserError, match="12 of 13 people(.|\n)*  11: area is -1\n  ... and 2 more\n"):
        read_coco(tmp_path)


# ---- Images


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda image: image.unlink(), "no such file"),
        (lambda image: image.write_bytes(b""), "not readable as an image"),
        (
            lambda image: image.write_bytes(image.read_bytes()[:-999]),
            "not readable as an image (image file is truncated",
        ),
        (lambda image: write_image(image, 50, 40), "is 50 x 40 pixels, its annotation says 60 x 40"),
    ],
)
def test_broken_image_makes_its_people_unusable(tmp_path, damage, reason):
    good = {"id": 7, "file_name": "a.jpg", "width": WIDTH, "height": HEIGHT}
    images = [good, good | {"id": 8, "file_name": "b.jpg"}]
    write_coco(tmp_path, annotation(1), annotation(2, image_id=8), images=images)
    image = tmp_path / "images/train2017/b.jpg"
    write_image(image)
    assert len(read_coco(tmp_path)) == 2
    damage(image)
    people = read_coco(tmp_path, "leave out")
    ((identity, why),) = people.unusable
    assert people.ids.tolist() == [1] and identity == "2" and why.startswith(f"image {image}: {reason}")


# ---- Every reader


@pytest.mark.parametrize(
    ("reader", "split", "annotations", "images"),
    [
        ("coco", "val2017", "annotations/person_keypoints_val2017.json", "images/val2017"),
        ("mpii", "train", "annot/train.json", "images"),
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
    for given, message in (
        (["voc", "train"], "reader 'voc': .*coco, mpii, lsp, lspet"),
        (["coco", "train2017", "skip"], "unusable 'skip': must be `stop` or `leave out`"),
        (["coco", [1, 5]], r"split \[1, 5\]: reader coco takes a name"),
        (["mpii", {"annotations": "a.json", "images": "images"}], "split {.*}: reader mpii takes a name"),
    ):
        with pytest.raises(UserError, match=message):
            read_people(tmp_path, *given)


@pytest.mark.parametrize(
    ("people", "reasons"),
    [
        ([], "nobody"),
        ([{"bbox": []}], "1: bbox: a list of 0 where a list of 4 numbers belongs"),
        (
            [{"iscrowd": 1}, {"iscrowd": "1"}, {"num_keypoints": 0, "keypoints": None}],
            "2: a crowd; 1: num_keypoints is 0",
        ),
        ([{"num_keypoints": 0}], "1: num_keypoints is 0 though keypoints are labelled"),
        ([{"keypoints": [0] * 51}], "1: no keypoint is labelled"),
        (
            [{"category_id": 7}, {"category_id": 7}, {"category_id": 8}],
            "2: category_id 7 is not among the file's categories; 1: category_id 8",
        ),
        ([{"category_id": 2}], "1: category_id 2 has not the skeleton's keypoints"),
        ([{"image_id": 8}], "1: its image's width is -1"),
    ],
)
def test_where_nobody_is_usable_the_reasons_are_counted(tmp_path, people, reasons):
    images = [{"id": 7, "file_name": "a.jpg", "width": WIDTH, "height": HEIGHT}]
    images += [{"id": 8, "file_name": "a.jpg", "width": -1, "height": 40}]  # as VIA has it
    categories = [{"id": 1, "name": "person", "keypoints": list(COCO.keypoints)}, {"id": 2, "name": "tree"}]
    people = (annotation(identity, **changes) for identity, changes in enumerate(people))
    file = write_coco(tmp_path, *people, images=images, categories=categories)
    with pytest.raises(
        UserError, match=re.escape(f"{file}: split 'train2017' has not a single usable person ({reasons}")
    ):
        read_coco(tmp_path, "leave out")


def test_people_are_taken_by_rows_and_their_keypoints_counted(tmp_path):
    only_nose = [12, 13, 2] + [0] * 48
    write_coco(tmp_path, annotation(1), annotation(2), annotation(3, keypoints=only_nose))
    people = read_coco(tmp_path)
    assert people.take([2, 0]).ids.tolist() == [3, 1]
    counts = summary(people)
    assert list(counts.columns) == ["keypoint", "labelled", "visible", "hidden"]
    assert counts.values.tolist()[:3] == [["nose", 3, 3, 0], ["left_eye", 2, 0, 2], ["right_eye", 0, 0, 0]]


# ---- The real data


@pytest.mark.shared
def test_real_data_reads_without_an_unusable_person_and_with_the_keypoints_of_its_files(shared):
    for folder, split, count in (("coco", "train2017", 143), ("mpii", "valid_5_images", 5), ("lspet", [1, 6000], 6000)):
        people = read_people(shared / "data" / folder, folder, split)
        assert len(people) == count and people.unusable == ()
    people = read_people(shared / "data/coco", "coco", "val2017")
    file = shared / "data/coco/annotations/person_keypoints_val2017.json"
    stated = {row["id"]: row["num_keypoints"] for row in json.loads(file.read_text())["annotations"]}
    assert len(people) == 124
    assert (people.visible > 0).sum(axis=1).tolist() == [stated[identity] for identity in people.ids.tolist()]
    people = read_people(shared / "data/lspet", "lspet", [11, 20])
    joints = loadmat(shared / "data/lspet/joints.mat")["joints"][:, :, 10:20]
    assert summary(people).labelled.tolist() == joints[:, 2].sum(axis=1).tolist()
    labelled = people.visible > 0
    np.testing.assert_array_equal(people.keypoints[labelled], joints[:, :2].transpose(2, 0, 1)[labelled])


def test_joints_of_test_splits_are_withheld():
    published = {"annotations": "test2017", "images": "test2017"}
    for split in ("test-dev2017", "test-challenge2017", "test2015"):
        assert withheld("coco", split)
    for split in ("val2017", "test", "test-a2017", published):  # "test": of one's own
        assert not withheld("coco", split)
    assert withheld("mpii", "test") and not withheld("mpii", "tests") and not withheld("lspet", [1, 1000])
