"""The drawn people: COCO's layout, the same bytes every time, annotations true of what is seen."""

import errno
import json
import os
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from pycocotools.coco import COCO as CocoFile

from rsnlib.data.skeletons import COCO
from rsnlib.demo import scene as demo
from rsnlib.errors import UserError


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    root = tmp_path_factory.mktemp("drawn") / "demo"
    demo.draw_people(root, train=30, val=6, seed=3)
    return root


def contents(root):
    return {path.relative_to(root): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def annotations(root, split):
    return json.loads((root / f"annotations/person_keypoints_{split}2017.json").read_text())["annotations"]


def keypoints_and_flags(annotation):
    values = np.array(annotation["keypoints"]).reshape(len(COCO), 3)
    return values[:, :2], values[:, 2]


def test_the_same_arguments_give_the_same_bytes(drawn, tmp_path):
    demo.draw_people(tmp_path / "again", train=30, val=6, seed=3)
    assert contents(tmp_path / "again") == contents(drawn)


def test_another_seed_gives_other_pictures(drawn, tmp_path):
    demo.draw_people(tmp_path / "other", train=1, val=0, seed=4)
    first = Path("images/train2017/000000000001.jpg")
    assert (tmp_path / "other" / first).read_bytes() != (drawn / first).read_bytes()


def test_pycocotools_reads_it(drawn):
    image_ids = set()
    for split, people in (("train", 30), ("val", 6)):
        coco = CocoFile(drawn / f"annotations/person_keypoints_{split}2017.json")
        assert len(coco.anns) == people
        assert coco.cats[1]["keypoints"] == list(COCO.keypoints)
        assert image_ids.isdisjoint(coco.imgs)
        image_ids |= set(coco.imgs)
        for image in coco.imgs.values():
            picture = cv2.imread(str(drawn / f"images/{split}2017" / image["file_name"]))
            assert picture.shape == (image["height"], image["width"], 3)
        for annotation in coco.anns.values():
            assert coco.annToMask(annotation).sum() == pytest.approx(annotation["area"], rel=0.15)


def test_boxes_and_flags_agree(drawn):
    for annotation in annotations(drawn, "train"):
        keypoints, flags = keypoints_and_flags(annotation)
        x, y, width, height = annotation["bbox"]
        visible = keypoints[flags == 2]
        assert (visible >= (x, y)).all() and (visible < (x + width, y + height)).all()
        assert len(visible) >= demo.MIN_VISIBLE_KEYPOINTS
        assert annotation["num_keypoints"] == (flags > 0).sum()
        assert annotation["area"] <= width * height
        assert (keypoints[flags == 0] == 0).all()
        outline = np.concatenate(annotation["segmentation"]).reshape(-1, 2)
        assert (outline >= (x, y)).all() and (outline <= (x + width, y + height)).all()


def person_facing(yaw):
    """Someone short-haired who stands with hanging arms, turned by `yaw`, alone before grey: the scene, the person."""
    rng = np.random.default_rng(5)
    limbs = demo.Limb(spread=8), demo.Limb(spread=8)
    look = replace(demo.Look.random(rng), hairstyle="short", skirt=0, trousers=1.95)
    keypoints, pieces = demo.figure(demo.Body.random(rng), demo.Pose(limbs, limbs), look, demo.rotation(1, yaw))
    person = demo.Person(keypoints, pieces, origin=np.array([200.0, 220.0]), scale=360.0, seated=False)
    scene = demo.Scene(np.full((440, 400, 3), 128, np.uint8), light=np.array([0.0, -1.0]))
    person.paint(scene, number=0)
    return scene, person


@pytest.mark.parametrize(("yaw", "left_is"), [(0, "right"), (180, "left")])
def test_left_is_the_persons_left(yaw, left_is):
    _, person = person_facing(yaw)
    points = dict(zip(COCO.keypoints, person.points))
    for joint in ("eye", "shoulder", "wrist", "hip", "ankle"):
        left_of_picture = points[f"left_{joint}"][0] < points[f"right_{joint}"][0]
        assert left_of_picture == (left_is == "left")


@pytest.mark.parametrize(
    ("yaw", "hidden"),
    [
        (0, set()),
        (180, {"nose", "left_eye", "right_eye"}),
        (90, {"left_eye", "left_ear", "left_shoulder", "left_elbow", "left_hip"}),  # the right side is near
    ],
)
def test_what_the_body_hides_is_flagged_hidden(yaw, hidden):
    scene, person = person_facing(yaw)
    flags = dict(zip(COCO.keypoints, demo.keypoint_flags(scene.owner, 0, person)))
    seen = {name for name, flag in flags.items() if flag == 2}
    assert hidden.isdisjoint(seen)
    if yaw != 90:
        assert seen == set(COCO.keypoints) - hidden


def test_what_is_in_front_hides_and_what_is_outside_is_left_out():
    scene, person = person_facing(0)
    knee = COCO.keypoints.index("left_knee")
    scene.fill(demo.corners(*(person.points[knee] - 5), 10, 10), np.zeros(3))
    cut = demo.annotate(scene.owner[:380], 0, person)
    keypoints, flags = keypoints_and_flags(cut)
    assert flags[knee] == 1
    outside = person.points[:, 1] >= 380
    assert outside.sum() == 2  # the ankles
    assert (flags[outside] == 0).all() and (keypoints[outside] == 0).all() and (flags[~outside] > 0).all()
    assert cut["bbox"][1] + cut["bbox"][3] == 190


def test_nothing_of_the_users_is_overwritten(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("keep")
    with pytest.raises(UserError, match="mine.*left as it is"):
        demo.draw_people(tmp_path / "mine", train=1, val=0)
    assert (tmp_path / "mine" / "notes.txt").read_text() == "keep"


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UserError, match="file/demo: cannot be written .*file is a file, not a folder"):
        demo.draw_people(tmp_path / "file/demo", train=1, val=1)


def test_a_full_disk_is_named_and_leaves_nothing(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_bytes", refuse)
    with pytest.raises(UserError, match="demo: cannot be written .No space left on device"):
        demo.draw_people(tmp_path / "demo", train=1, val=1)
    assert not any(tmp_path.iterdir())


def test_an_interrupted_drawing_leaves_nothing(tmp_path, monkeypatch):
    def interrupted(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(demo, "draw_picture", interrupted)
    with pytest.raises(KeyboardInterrupt):
        demo.draw_people(tmp_path / "demo", train=1, val=0)
    assert list(tmp_path.iterdir()) == []
