"""A user's own pictures, videos and boxes, good and bad."""

import errno
import json
import os
import re
import resource
import signal
import sys
from pathlib import Path

import cv2
import nbformat
import numpy as np
import papermill
import psutil
import pytest
import torch
from checkout import ROOT
from PIL import Image
from test_predict import SeesBrightness

from rsnlib.__main__ import main
from rsnlib.apps.inputs import find_files
from rsnlib.apps.overlays import draw_poses, predict_files
from rsnlib.apps.tracks import Tracks
from rsnlib.apps.videos import Video
from rsnlib.data.images import read_picture
from rsnlib.data.readers.detections import Detections
from rsnlib.data.skeletons import COCO, MPII
from rsnlib.errors import UserError
from rsnlib.inference.boxes import find_people
from rsnlib.inference.predict import Poses, predict
from rsnlib.metrics import coco_ap
from rsnlib.models.checkpoints import load_model, save_model
from rsnlib.models.zoo import create_model

RGB = np.array([[[10, 20, 30], [200, 100, 50]]], np.uint8)
GREY = np.array([[7, 250]], np.uint8)
GREY_AS_RGB = np.repeat(GREY[..., None], 3, axis=2)
WHOLE = (40, 60)  # height and width of a picture
BOX = {"image_id": "a.jpg", "bbox": [0, 0, 9, 9]}


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """Every test runs in an empty folder of its own."""
    monkeypatch.chdir(tmp_path)


def boxes_json(contents):
    Path("boxes.json").write_text(json.dumps(contents))
    return "boxes.json"


def boxes_of(detections, path, frame=None):
    boxes, faults = detections.find(path, WHOLE, frame)
    assert not faults
    return boxes.tolist()


def poses_json():
    return json.loads(Path("out/poses.json").read_text())


def names_in(folder):
    return {path.name for path in Path(folder).iterdir()}


# ---- reading


def test_every_kind_of_picture_becomes_rgb():
    bools = np.array([[[0] * 3, [255] * 3]], np.uint8)
    for array, wanted in [
        (RGB, RGB),
        (GREY, GREY_AS_RGB),
        (RGB.astype(np.uint16) * 257, RGB),
        ((GREY.astype(">u2") << 8) + 255, GREY_AS_RGB),
        (GREY > 100, bools),
        (np.dstack([RGB, [[255, 0]]]).astype(np.uint8), np.array([[[10, 20, 30], [255] * 3]], np.uint8)),
        (np.dstack([GREY, [[255, 51]]]).astype(np.uint8), np.array([[[7] * 3, [254] * 3]], np.uint8)),
    ]:
        np.testing.assert_array_equal(read_picture(array), wanted)
        assert read_picture(array).dtype == np.uint8
        if array.dtype == np.uint8:
            Image.fromarray(array).save("picture.png")
            np.testing.assert_array_equal(read_picture("picture.png"), wanted)
            np.testing.assert_array_equal(read_picture(Image.open("picture.png")), wanted)


@pytest.mark.parametrize("name", ["picture.png", "picture.tif"])
def test_files_of_16_bits_keep_the_upper_8_and_of_32_are_refused(name):
    for array, wanted in ((GREY.astype(np.uint16) * 257, GREY_AS_RGB), (RGB[..., ::-1].astype(np.uint16) * 257, RGB)):
        cv2.imwrite(name, array)
        np.testing.assert_array_equal(read_picture(name), wanted)
    Image.fromarray(GREY.astype(np.float32)).save("floats.tif")
    with pytest.raises(UserError, match="floats.tif: must be .* of uint8, uint16 or bool, not .* of float32"):
        read_picture("floats.tif")


def test_a_palette_with_a_transparent_colour_lies_on_white():
    picture = Image.fromarray(np.array([[0, 1]], np.uint8), "P")
    picture.putpalette([10, 20, 30, 40, 50, 60])
    picture.save("picture.gif", transparency=1)
    assert read_picture("picture.gif").tolist() == [[[10, 20, 30], [255] * 3]]


def test_a_photo_marked_as_rotated_is_turned_upright_and_one_cut_short_refused(draw_dot, find_dot):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned 90 degrees clockwise
    Image.fromarray(np.rot90(draw_dot(80, 60, 15, 20))).save("photo.jpg", exif=exif, quality=95)
    assert read_picture("photo.jpg").shape == (80, 60, 3)
    np.testing.assert_allclose(find_dot(read_picture("photo.jpg")), [15, 20], atol=0.5)
    poses = predict(SeesBrightness(), "photo.jpg")
    np.testing.assert_allclose(poses.keypoints[0], np.tile([15, 20], (17, 1)), atol=4)
    os.truncate("photo.jpg", os.path.getsize("photo.jpg") // 2)
    with pytest.raises(UserError, match="photo.jpg: not readable as an image"):
        read_picture("photo.jpg")


# ---- boxes


def test_where_nobody_is_found_the_whole_picture_is_the_box():
    for shape in [(1, 3000), (300, 200)]:
        assert find_people(np.full((*shape, 3), 90, np.uint8)).tolist() == [[0, 0, shape[1], shape[0]]]


@pytest.mark.shared
def test_an_upright_person_in_a_real_photo_is_found(shared):
    found = find_people(read_picture(shared / "data/coco/images/val2017/000000397133.jpg"))
    truth = np.array([388.66, 69.92, 109.41, 277.62])  # as annotated
    shared_area = np.minimum(found[:, :2] + found[:, 2:], truth[:2] + truth[2:]) - np.maximum(found[:, :2], truth[:2])
    shared_area = shared_area.clip(0).prod(axis=1)
    overlap = shared_area / (found[:, 2:].prod(axis=1) + truth[2:].prod() - shared_area)
    assert overlap.max() > 0.7


@pytest.mark.parametrize(
    ("entry", "picture"),
    [
        ({"image_id": 785}, "some/where/000000000785.jpg"),
        ({"image_id": "a.jpg"}, "some/where/a.jpg"),
        ({"file_name": "a.jpg", "image_id": 785}, "a.jpg"),
        ({"file_name": "where/a.jpg"}, "some/where/a.jpg"),
        ({"image_id": "a"}, "some/where/a.jpg"),  # Ultralytics: the file's stem
        ({"image_id": "where/a"}, "some/where/a.jpg"),
        ({"image_id": "785"}, "000000000785.jpg"),
        ({"image_id": "000785"}, "000785.jpg"),
    ],
)
def test_a_detectors_box_is_of_the_picture_that_it_names(entry, picture):
    others = [{"image_id": 7, "bbox": [0, 0, 1, 1]}, {"image_id": "b.jpg", "bbox": [0, 0, 1, 1]}]
    others += [{**entry, "bbox": [0, 0, 1, 1], "category_id": 18}]  # a dog
    mine = {**entry, "bbox": [1, 2, 3, 4], "score": 0.5, "category_id": 1}
    detections = Detections(boxes_json([*others, mine]))
    assert boxes_of(detections, picture) == [[1, 2, 3, 4, 0.5]]
    assert detections.know(picture) and not detections.know("elsewhere/c.jpg")
    assert detections.find("elsewhere/c.jpg", WHOLE)[0].shape == (0, 5)


def test_a_box_is_of_its_frame_or_of_all_and_named_by_cocos_images():
    of_all = {"file_name": "clip.mp4", "bbox": [5, 6, 7, 8]}
    detections = Detections(boxes_json([of_all | {"bbox": [1, 2, 3, 4], "frame": 2}, of_all]))
    assert boxes_of(detections, "clip.mp4", 1) == [[5, 6, 7, 8, 1]]
    assert boxes_of(detections, "clip.mp4", 2) == [[1, 2, 3, 4, 1], [5, 6, 7, 8, 1]]
    contents = {"images": [{"id": 5, "file_name": "a.jpg"}], "annotations": [{"image_id": 5, "bbox": [1, 2, 3, 4]}]}
    detections = Detections(boxes_json(contents))
    assert boxes_of(detections, "a.jpg") == [[1, 2, 3, 4, 1]]
    assert boxes_of(detections, "5.jpg") == []


@pytest.mark.parametrize(
    ("contents", "what"),
    [
        ([3], "entry 0: "),
        ([BOX, {"bbox": [0, 0, 1, 1]}], "entry 1: KeyError: 'image_id'"),
        ([BOX, BOX | {"frame": "2"}], "entry 1: Unusable: frame: '2' is not a whole number"),
        ({"images": []}, "KeyError: 'annotations'"),
    ],
)
def test_a_json_that_is_no_detectors_is_refused(contents, what):
    with pytest.raises(UserError, match=f"boxes.json: not a detector's boxes .*{what}"):
        Detections(boxes_json(contents))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"bbox": [0, 0, 1, "a"]}, "bbox: 'a' is not a finite number"),
        ({"bbox": [60, 0, 5, 5]}, r"box lies wholly outside its image \(60 x 40 pixels\)"),
        ({"category_id": "person"}, "category_id: 'person' is not a whole number"),
    ],
)
def test_a_bad_box_is_named_and_left_out(changes, reason):
    detections = Detections(boxes_json([BOX, BOX | changes, BOX]))
    for frame, where in [(None, "a.jpg"), (7, "a.jpg, frame 7")]:
        boxes, (fault,) = detections.find("a.jpg", WHOLE, frame)
        assert boxes.tolist() == [[0, 0, 9, 9, 1]] * 2
        assert re.fullmatch(f"boxes.json: entry 1, of {where}: {reason}; left out", fault)


def test_boxes_of_a_low_score_and_of_other_categories_are_passed_over():
    detections = Detections(boxes_json([BOX | {"score": score} for score in (0.2, 0.5, 0.9)]), min_score=0.5)
    assert [box[4] for box in boxes_of(detections, "a.jpg")] == [0.5, 0.9]
    with pytest.raises(UserError, match="none of its 2 boxes has the category_id of the network: 1, not 0, 17"):
        Detections(boxes_json([BOX | {"category_id": category} for category in (0, 17)]))


def test_normalised_boxes_and_corners_are_named_as_such():
    with pytest.raises(UserError, match="boxes.json: its boxes look normalised, fractions of their pictures"):
        Detections(boxes_json([BOX | {"bbox": [0.5, 0.5, 0.25, 1]}, BOX | {"bbox": [0, 0, 1, 1]}]))
    Detections(boxes_json([BOX | {"bbox": [0, 0, 1, 1]}]))  # a pixel
    corners = [BOX | {"bbox": box} for box in ([5, 5, 20, 20], [30, 10, 50, 38], [20, 12, 55, 40])]
    detections = Detections(boxes_json(corners))
    with pytest.raises(UserError, match="boxes.json: its boxes look like two corners, x, y, x, y; .* subtract"):
        detections.check({"a.jpg": WHOLE})
    detections.check({"a.jpg": (100, 110)})  # where they may be x, y, width, height
    Detections(boxes_json([*corners, BOX | {"bbox": [30, 10, 5, 5]}])).check({"a.jpg": WHOLE})  # no corners: 5 < 30


def test_predict_takes_a_detectors_json(draw_dot, capsys):
    Image.fromarray(draw_dot(200, 240, 130, 90)).save("12.png")
    boxes = boxes_json([{"image_id": 12, "bbox": [100, 60, 60, 80], "score": 0.5}])
    for picture in ("12.png", Path("12.png"), Image.open("12.png")):
        poses = predict(SeesBrightness(), picture, boxes)
        assert poses.boxes.tolist() == [[100, 60, 60, 80]] and poses.box_scores.tolist() == [0.5]
    with pytest.raises(UserError, match="file names"):
        predict(SeesBrightness(), draw_dot(200, 240, 130, 90), boxes)
    boxes = boxes_json([{"image_id": 12, "bbox": box} for box in ([100, 60, 0, 80], [100, 60, 60, 80])])
    assert predict(SeesBrightness(), "12.png", boxes).boxes.tolist() == [[100, 60, 60, 80]]
    assert (
        "warning: boxes.json: entry 0, of 12.png: box has no area (0 x 80 pixels); left out" in capsys.readouterr()[1]
    )


# ---- overlays


def test_left_is_drawn_blue_and_right_orange_and_what_is_unsure_not():
    keypoints = np.zeros((2, 17, 2))
    keypoints[:, [5, 7, 6, 8]] = [[[20, 30], [20, 70], [60, 30], [60, 70]], [[90, 30], [90, 70], [120, 30], [120, 70]]]
    scores = np.full((2, 17), 0.5)
    scores[:, [5, 7, 6, 8]] = 1.0
    boxes = np.array([[5, 5, 70, 90], [80, 5, 70, 90]], float)
    poses = Poses(keypoints, scores, boxes, np.array([0.9, 0.3]), np.array([0.9, 0.3]))
    picture = np.zeros((100, 160, 3), np.uint8)
    drawn = draw_poses(picture, poses, COCO)
    np.testing.assert_allclose(drawn[50, 20], [0, 114, 178], atol=20)
    np.testing.assert_allclose(drawn[50, 60], [230, 159, 0], atol=20)
    assert not drawn[50, 25:55].any() and not drawn[75:90, 20].any()  # beyond the shoulders and elbows nothing is sure
    assert drawn[5, 40].min() > 200  # the box
    assert not drawn[:, 78:].any() and not picture.any()  # neither the unsure person nor the original


@pytest.fixture
def photo(draw_dot):
    """A function: write a picture of 128 x 96 with the dot at (x, 50)."""
    return lambda path, x=40: Image.fromarray(draw_dot(96, 128, x, 50)).save(path)


def write_video(path, frames, codec="mp4v"):
    height, width = frames[0].shape[:2]
    writer = cv2.VideoWriter(path, cv2.CAP_FFMPEG, cv2.VideoWriter_fourcc(*codec), 10, (width, height))
    for frame in frames:
        writer.write(frame)
    writer.release()
    return path


@pytest.fixture
def clip(draw_dot):
    """A video of twelve frames in which the dot goes to the right, 5 pixels per frame."""
    return write_video("clip.mp4", [draw_dot(96, 128, 20 + 5 * frame, 48) for frame in range(12)])


@pytest.fixture
def noise():
    """A video of twelve frames of noise."""
    return write_video("noise.avi", np.random.default_rng(0).integers(0, 256, (12, 96, 128, 3), np.uint8), "MJPG")


def frame_count(path):
    capture = cv2.VideoCapture(path, cv2.CAP_FFMPEG)
    return sum(iter(lambda: capture.read()[0], False))


def test_pictures_and_videos_get_overlays_and_one_json(photo, clip):
    Path("folder").mkdir()
    for name in ("notes.txt", ".hidden.png"):
        Path("folder", name).touch()
    names = ["folder/a.jpg", "folder/b.png", "A.png"]  # the overlay's name is taken
    for name, x in zip(names, [70, 40, 90]):
        photo(name, x)
    assert predict_files(SeesBrightness(), ["folder", "A.png", clip], "out") == []
    assert names_in("out") == {"a.jpg", "b.jpg", "A-2.jpg", "clip.mp4", "poses.json"}
    results = poses_json()
    assert [result["image_id"] for result in results] == list(range(1, 16))
    assert [result["file_name"] for result in results] == names + 12 * [clip]
    assert [result.get("frame") for result in results] == [None] * 3 + list(range(12))
    across = [result["keypoints"][0] for result in results]
    np.testing.assert_allclose(across, [70, 40, 90, *range(20, 80, 5)], atol=4)
    assert all(result["bbox"] == [0, 0, 128, 96] and len(result["keypoints"]) == 51 for result in results)
    assert frame_count("out/clip.mp4") == 12
    with Image.open("out/a.jpg") as overlay:
        assert overlay.size == (128, 96)


def test_boxes_by_number_give_results_that_coco_judges(photo):
    Path("pictures").mkdir()
    for number in (12, 785):
        photo(f"pictures/{number:012}.jpg")
    boxes = boxes_json([{"image_id": 785, "bbox": [10, 10, 60, 80], "category_id": number} for number in (1, 18)])
    network = SeesBrightness()
    for category in (18, 1):
        network.about = {"categories": [category]}
        predict_files(network, ["pictures"], f"{category}", boxes)
        (result,) = json.loads(Path(f"{category}/poses.json").read_text())
        assert (result["image_id"], result["category_id"], result["bbox"]) == (785, category, [10, 10, 60, 80])
    assert Path("1/000000000012.jpg").is_file()  # nobody in it
    person = {"id": 1, "image_id": 785, "category_id": 1, "iscrowd": 0, "area": 4800, "num_keypoints": 17}
    truth = {"images": [{"id": 785}], "categories": [{"id": 1}], "annotations": [person]}
    x, y = result["keypoints"][:2]
    person |= {"bbox": [10, 10, 60, 80], "keypoints": [x, y, 2] * 17}
    assert coco_ap([result], boxes_json(truth))["AP"] > 0.9


def test_of_a_video_that_breaks_off_the_frames_before_are_done(noise):
    os.truncate(noise, os.path.getsize(noise) // 2)
    (problem,) = predict_files(SeesBrightness(), [noise], "out")
    done = len(poses_json())
    assert 3 <= done <= 9 and f"noise.avi: breaks off: {done} of 12 frames are readable" in problem
    assert frame_count("out/noise.mp4") == done and names_in("out") == {"noise.mp4", "poses.json"}


class MeasuresMemory(SeesBrightness):
    """A network that records the process's memory, in megabytes, and the number of crops each time it is called."""

    def __init__(self):
        super().__init__()
        self.megabytes, self.crops = [], []

    def forward(self, images):
        self.megabytes.append(psutil.Process().memory_info().rss / 1e6)
        self.crops.append(len(images))
        return super().forward(images)


def test_a_long_video_takes_no_more_memory_than_a_short_one(draw_dot):
    frame = draw_dot(480, 640, 320, 240)  # 0.9 megabytes: 240 for those after the sixteenth batch
    boxes = boxes_json([{"file_name": "clip.mp4", "bbox": [200, 100, 240, 320]}])
    model = MeasuresMemory()
    assert predict_files(model, [write_video("clip.mp4", [frame] * 400)], "out", boxes, flip_test=False) == []
    assert model.crops == [8] * 50
    assert max(model.megabytes[16:]) < max(model.megabytes[:16]) + 30


def test_people_of_several_pictures_share_a_pass_whoever_is_in_which(photo):
    rng, entries = np.random.default_rng(0), []
    Path("pictures").mkdir()
    for number in range(40):
        photo(f"pictures/{number:02}.png", int(rng.integers(20, 100)))
        people = [3, 0, 2, 40][number % 4] if number < 4 else 1
        entries += [
            {"image_id": number, "bbox": [row / 2, 0, 100, 96], "score": 1 - row / 100} for row in range(people)
        ]
    model, boxes = MeasuresMemory(), boxes_json(entries)
    assert predict_files(model, ["pictures"], "out", boxes, flip_test=False, overlays=False) == []
    assert model.crops == [8, 8, 8, 7, 7, 7, 8, 8, 8, 8, 4]  # the first four pictures, then 8 at a time
    together = {(result["image_id"], result["bbox"][0]): result for result in poses_json()}
    assert len(together) == 45 + 36
    for number in (0, 1, 3, 20, 39):
        alone = predict(model, f"pictures/{number:02}.png", boxes, flip_test=False)
        for keypoints, box, score in zip(alone.keypoints, alone.boxes, alone.score):
            result = together.pop((number, box[0]))
            np.testing.assert_allclose(np.reshape(result["keypoints"], (17, 3))[:, :2], keypoints, atol=1e-6)
            assert result["score"] == pytest.approx(score)
        assert number not in {image_id for image_id, _ in together}


def test_a_video_for_which_there_is_no_room_is_not_left_in_part(noise):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))  # room for poses.json alone
    try:
        (problem,) = predict_files(SeesBrightness(), [noise], "out")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert problem == "out/noise.mp4: cannot be written whole; is there no room left?"
    assert names_in("out") == {"poses.json"}


def test_nothing_is_overwritten_and_nothing_written_in_vain(photo):
    photo("a.png")
    for output in (".", "a.png"):
        with pytest.raises(UserError, match="exists already"):
            predict_files(SeesBrightness(), ["a.png"], output)
    with pytest.raises(UserError, match="a.png/out: cannot be written .*a.png is a file, not a folder"):
        predict_files(SeesBrightness(), ["a.png"], "a.png/out")
    assert predict_files(SeesBrightness(), ["nowhere.png"], "out") == ["nowhere.png: no such file or folder"]
    boxes = boxes_json([{"image_id": 1, "bbox": [0, 0, 1, 1]}])
    with pytest.raises(UserError, match="none of its boxes is of any of these pictures"):
        predict_files(SeesBrightness(), ["a.png"], "out", boxes)
    assert names_in(".") == {"a.png", "boxes.json"}


def test_each_picture_is_found_once_and_what_cannot_be_read_is_named(tmp_path, monkeypatch):
    for name in ("photo.HEIC", "Männer am Strand.jpg", "b.png", "notes.txt", "folder/inner/b.jpg"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).touch()
    files, (heic,) = find_files(["b.png", "Männer am Strand.jpg", "./b.png", str(tmp_path / "b.png"), "."])
    assert list(map(str, files)) == ["b.png", "Männer am Strand.jpg"]
    assert heic == "photo.HEIC: pictures of this kind are not read; save it as JPEG or PNG"
    files, (folder,) = find_files(["folder"])
    assert files == [] and "folder: a folder without pictures or videos" in folder and "are not searched" in folder

    def refuse(*_):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(Path, "iterdir", refuse)
    assert find_files(["folder", "b.png"]) == ([Path("b.png")], ["folder: not readable (Permission denied)"])


def test_the_command_does_what_it_can_and_reports_the_rest(photo, clip, monkeypatch):
    torch.manual_seed(0)
    save_model(create_model("rsn18", 17, (64, 64)), "weights.safetensors", {"skeleton": "coco"})
    photo("good.png")
    photo("outside.png")
    Image.fromarray(np.zeros((1, 1), np.uint8)).save("pixel.png")
    for name in ("broken.jpg", "notes.txt"):
        Path(name).write_text("no picture")
    Path("empty").mkdir()
    os.truncate(clip, os.path.getsize(clip) - 100)
    boxes = [{"file_name": name, "bbox": [0, 0, 1, 1]} for name in ("good.png", "pixel.png")]
    boxes_json([*boxes, *({"file_name": "outside.png", "bbox": [x, 0, 9, 9]} for x in (500, 5))])
    bad = ["broken.jpg", "notes.txt", "empty", "clip.mp4", "outside.png", "nowhere.png"]

    command = ["rsnlib", "predict", "weights.safetensors", *bad, "good.png", "pixel.png", "--boxes", "boxes.json"]
    monkeypatch.setattr(sys, "argv", [*command, "-o", "out"])
    with pytest.raises(SystemExit) as exit:
        main()

    errors = exit.value.code.splitlines()
    assert len(errors) == len(bad) and all(error.startswith("error: ") for error in errors)
    for name in bad:
        assert sum(name in error for error in errors) == 1, name
    assert names_in("out") == {"good.jpg", "outside.jpg", "pixel.jpg", "poses.json"}
    assert [result["file_name"] for result in poses_json()] == ["outside.png", "good.png", "pixel.png"]


def test_the_commands_options_change_what_they_name(photo, clip, monkeypatch):
    torch.manual_seed(0)
    save_model(create_model("rsn18", 17, (64, 64)), "weights.safetensors", {"skeleton": "coco"})
    photo("a.png")
    boxes_json([{"file_name": "a.png", "bbox": [9, 9, 80, 80], "score": score} for score in (0.3, 0.7)])
    found = {}
    for name, options in {
        "plain": "",
        "no flip": "--no-flip",
        "dark": "--decoding dark",
        "sure": "--min-score 0.5",
        "json": "--json-only",
    }.items():
        command = f"rsnlib predict weights.safetensors a.png --boxes boxes.json {options} -o".split()
        monkeypatch.setattr(sys, "argv", [*command, name])
        main()
        found[name] = json.loads(Path(name, "poses.json").read_text())
    weights = load_model("weights.safetensors")
    for name, how in {"plain": {}, "no flip": {"flip_test": False}, "dark": {"decoding": "dark"}}.items():
        wanted = predict(weights, "a.png", "boxes.json", **how).keypoints
        keypoints = [np.reshape(person["keypoints"], (17, 3))[:, :2] for person in found[name]]
        np.testing.assert_allclose(keypoints, wanted, atol=1e-3)
    assert found["plain"] not in (found["no flip"], found["dark"])
    assert found["sure"] == found["plain"][1:] and found["json"] == found["plain"]
    assert names_in("plain") == {"a.jpg", "poses.json"} and names_in("json") == {"poses.json"}
    monkeypatch.setattr(sys, "argv", [*command, "none", "--every", "0"])
    with pytest.raises(SystemExit):
        main()


# ---- videos


def test_every_third_frame_of_a_video_is_taken_at_a_third_of_its_speed(clip):
    assert predict_files(SeesBrightness(), [clip], "out", every=3) == []
    results = poses_json()
    assert [result["frame"] for result in results] == [0, 3, 6, 9]
    np.testing.assert_allclose([result["keypoints"][0] for result in results], [20, 35, 50, 65], atol=4)
    overlay = Video("out/clip.mp4")
    assert len(list(overlay)) == 4 and overlay.fps == pytest.approx(10 / 3, rel=0.01)


def poses_at(*places):
    """Return the Poses of people whose 17 keypoints all are at (x, y), in boxes of 40 x 80."""
    boxes = np.array([[x - 20, y - 40, 40, 80] for x, y in places], float).reshape(-1, 4)
    keypoints = np.array(places, float).reshape(-1, 1, 2).repeat(17, axis=1)
    ones = np.ones(len(places))
    return Poses(keypoints, np.ones((len(places), 17)), boxes, ones, ones)


def test_people_keep_their_numbers_from_frame_to_frame_in_any_order():
    tracks = Tracks(COCO)
    assert tracks.follow(poses_at((50, 50), (200, 50))) == [1, 2]
    assert tracks.follow(poses_at((203, 50), (53, 50))) == [2, 1]
    assert tracks.follow(poses_at((55, 50))) == [1]  # the second is hidden
    assert tracks.follow(poses_at((400, 50), (200, 50))) == [3, 2]
    assert tracks.follow(poses_at((58, 50), (55, 50))) == [4, 1]  # the more similar one
    for _ in range(10):
        assert tracks.follow(poses_at()) == []
    assert tracks.follow(poses_at((200, 50))) == [5]  # forgotten by now
    assert Tracks(MPII).follow(poses_at((1, 1))) == [1]


def test_the_numbers_of_people_are_written_and_drawn(draw_dot, clip):
    boxes = [{"file_name": "clip.mp4", "bbox": [x, 0, 60, 96], "frame": 0} for x in (0, 60)]
    boxes += [{"file_name": "clip.mp4", "bbox": [x, 0, 60, 96], "frame": 1} for x in (60, 0)]
    assert predict_files(SeesBrightness(), [clip], "out", boxes_json(boxes)) == []
    assert [(each["frame"], each["track_id"], each["bbox"][0]) for each in poses_json()] == [
        (0, 1, 0), (0, 2, 60), (1, 2, 60), (1, 1, 0)
    ]  # fmt: skip
    picture, poses = np.zeros((96, 128, 3), np.uint8), poses_at((64, 48))
    plain, numbered = draw_poses(picture, poses, COCO), draw_poses(picture, poses, COCO, [7])
    ys, xs = np.nonzero((plain != numbered).any(axis=2))
    assert len(xs) > 10 and xs.min() >= 44 and xs.max() < 70 and ys.min() >= 8 and ys.max() < 40


def test_a_stream_is_read_by_its_address_and_a_camera_by_its_number(clip):
    address = Path(clip).absolute().as_uri()
    files, problems = find_files([address, "0"])
    assert files == [address, "0"] and not problems
    (problem,) = predict_files(SeesBrightness(), ["7", address], "out")
    assert problem == "7: no camera of this number opens"
    assert names_in("out") == {"clip.mp4", "poses.json"} and len(poses_json()) == 12
    assert {result["file_name"] for result in poses_json()} == {address}
    Path("7").mkdir()
    assert "7: a folder without pictures" in find_files(["7"])[1][0]


class IsInterrupted(SeesBrightness):
    """A network during whose first pass somebody presses Ctrl-C."""

    def forward(self, images):
        if not hasattr(self, "interrupted"):
            self.interrupted = os.kill(os.getpid(), signal.SIGINT)
        return super().forward(images)


def test_after_ctrl_c_what_was_read_is_written_whole(draw_dot):
    write_video("clip.avi", [draw_dot(48, 64, 30, 24)] * 200, "MJPG")
    Image.fromarray(draw_dot(48, 64, 30, 24)).save("z.png")
    before = signal.getsignal(signal.SIGINT)
    (problem,) = predict_files(IsInterrupted(), ["clip.avi", "z.png"], "out")
    assert problem == "clip.avi: interrupted; what was read before is done"
    done = len(poses_json())
    assert 8 <= done < 200 and frame_count("out/clip.mp4") == done and names_in("out") == {"clip.mp4", "poses.json"}
    assert signal.getsignal(signal.SIGINT) is before


# ---- the notebook


def test_the_notebook_shows_poses_of_the_newest_run(demo_folder, monkeypatch):
    Path("data").symlink_to(demo_folder.parent)
    Path("params.yaml").touch()
    save_model(create_model("rsn18", 17, (64, 64)), "work/models/demo/rsn18-0.safetensors", {"skeleton": "coco"})
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.delenv("MPLBACKEND", raising=False)
    how = {"kernel_name": "python3", "progress_bar": False}
    papermill.execute_notebook(str(ROOT / "notebooks/predict.ipynb"), "predict.ipynb", **how)
    outputs = [output for cell in nbformat.read("predict.ipynb", 4).cells for output in cell.get("outputs", [])]
    kinds = [set(output.get("data", {})) for output in outputs]
    assert sum("image/png" in kind for kind in kinds) == 2  # poses, heatmaps
    assert sum("text/html" in kind for kind in kinds) == 1  # scores
    assert sum("application/vnd.jupyter.widget-view+json" in kind for kind in kinds) == 2
