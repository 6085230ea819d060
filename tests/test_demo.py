"""Drawn people: COCO's layout, the same bytes every time, annotations true of what is seen."""

import errno
import os
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from pycocotools.coco import COCO as CocoFile

from rsnlib.data.skeletons import COCO
from rsnlib.demo import annotate
from rsnlib.demo.annotate import draw_people, keypoint_flags
from rsnlib.demo.body import STILL, Limb, figure, random_person, rotation
from rsnlib.demo.scene import Placed, Scene, corners
from rsnlib.errors import UserError


@pytest.fixture(scope="module")
def people_folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("drawn") / "demo"
    draw_people(root, train=30, val=6, seed=3)
    return root


def contents(root):
    return {path.relative_to(root): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def keypoints_and_flags(annotation):
    values = np.array(annotation["keypoints"]).reshape(len(COCO), 3)
    return values[:, :2], values[:, 2]


def test_the_same_arguments_give_the_same_bytes_and_another_seed_others(people_folder, tmp_path):
    draw_people(tmp_path / "again", train=30, val=6, seed=3)
    assert contents(tmp_path / "again") == contents(people_folder)
    draw_people(tmp_path / "other", train=1, val=0, seed=4)
    first = Path("images/train2017/000000000001.jpg")
    assert (tmp_path / "other" / first).read_bytes() != (people_folder / first).read_bytes()


def test_pycocotools_reads_it_and_boxes_flags_and_outlines_agree(people_folder):
    image_ids = set()
    for split, people in (("train", 30), ("val", 6)):
        coco = CocoFile(people_folder / f"annotations/person_keypoints_{split}2017.json")
        assert len(coco.anns) == people
        assert coco.cats[1]["keypoints"] == list(COCO.keypoints)
        assert image_ids.isdisjoint(coco.imgs)
        image_ids |= set(coco.imgs)
        for image in coco.imgs.values():
            picture = cv2.imread(str(people_folder / f"images/{split}2017" / image["file_name"]))
            assert picture.shape == (image["height"], image["width"], 3)
        for annotation in coco.anns.values():
            keypoints, flags = keypoints_and_flags(annotation)
            x, y, width, height = annotation["bbox"]
            visible = keypoints[flags == 2]
            assert (visible >= (x, y)).all() and (visible < (x + width, y + height)).all()
            assert len(visible) >= annotate.MIN_VISIBLE_KEYPOINTS and (keypoints[flags == 0] == 0).all()
            assert annotation["num_keypoints"] == (flags > 0).sum()
            outline = np.concatenate(annotation["segmentation"]).reshape(-1, 2)
            assert (outline >= (x, y)).all() and (outline <= (x + width, y + height)).all()
            assert coco.annToMask(annotation).sum() == pytest.approx(annotation["area"], rel=0.15)
            assert annotation["area"] <= width * height


def person_facing(yaw):
    """Someone short-haired who stands with hanging arms, turned by `yaw`, alone before grey: the scene, the person."""
    limbs = Limb(spread=8), Limb(spread=8)
    who = random_person(np.random.default_rng(5))
    who.hairstyle, who.skirt, who.trousers = "short", 0, 1.95
    keypoints, pieces = figure(who, SimpleNamespace(**STILL, arms=limbs, legs=limbs), rotation(1, yaw))
    person = Placed(keypoints, pieces, origin=np.array([200.0, 220.0]), scale=360.0, seated=False)
    scene = Scene(np.full((440, 400, 3), 128, np.uint8), light=np.array([0.0, -1.0]))
    person.paint(scene, number=0)
    return scene, person


def test_left_is_the_persons_left_and_the_body_hides_its_far_side():
    face = {"nose", "left_eye", "right_eye"}
    far_side = {"left_eye", "left_ear", "left_shoulder", "left_elbow", "left_hip"}
    for yaw, hidden in ((0, set()), (180, face), (90, far_side)):
        scene, person = person_facing(yaw)
        seen = {name for name, flag in zip(COCO.keypoints, keypoint_flags(scene.owner, 0, person)) if flag == 2}
        assert hidden.isdisjoint(seen)
        if yaw != 90:
            assert seen == set(COCO.keypoints) - hidden
            across = dict(zip(COCO.keypoints, person.points[:, 0]))
            for joint in ("eye", "shoulder", "wrist", "hip", "ankle"):
                assert (across[f"left_{joint}"] > across[f"right_{joint}"]) == (yaw == 0)


def test_what_is_in_front_hides_and_what_is_outside_is_left_out():
    scene, person = person_facing(0)
    knee = COCO.keypoints.index("left_knee")
    scene.fill(corners(*(person.points[knee] - 5), 10, 10), np.zeros(3))
    cut = annotate.annotate(scene.owner[:380], 0, person)
    keypoints, flags = keypoints_and_flags(cut)
    assert flags[knee] == 1
    outside = person.points[:, 1] >= 380
    assert outside.sum() == 2  # the ankles
    assert (flags[outside] == 0).all() and (keypoints[outside] == 0).all() and (flags[~outside] > 0).all()
    assert cut["bbox"][1] + cut["bbox"][3] == 190


def test_nothing_of_the_users_is_overwritten_and_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("keep")
    with pytest.raises(UserError, match="mine.*left as it is"):
        draw_people(tmp_path / "mine", train=1, val=0)
    assert (tmp_path / "mine" / "notes.txt").read_text() == "keep"
    with pytest.raises(UserError, match="notes.txt/demo: cannot be written .*notes.txt is a file, not a folder"):
        draw_people(tmp_path / "mine/notes.txt/demo", train=1, val=1)


@pytest.mark.parametrize(
    ("harm", "raised"),
    [(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), UserError), (KeyboardInterrupt(), KeyboardInterrupt)],
    ids=["full disk", "interrupted"],
)
def test_an_unfinished_drawing_leaves_nothing(tmp_path, monkeypatch, harm, raised):
    def refuse(*_):
        raise harm

    monkeypatch.setattr(Path, "write_bytes", refuse)
    with pytest.raises(raised) as stopped:
        draw_people(tmp_path / "demo", train=1, val=1)
    assert raised is not UserError or "demo: cannot be written (No space left on device)" in str(stopped.value)
    assert not any(tmp_path.iterdir())
