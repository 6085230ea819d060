"""A person's own pictures, videos and boxes, good and bad."""

import errno
import json
import os
import resource
import sys
from pathlib import Path

import cv2
import nbformat
import numpy as np
import papermill
import pytest
import torch
from PIL import Image
from test_predict import SeesBrightness

from rsnlib.__main__ import main
from rsnlib.apps.overlays import draw_poses, find_files, predict_files
from rsnlib.apps.pictures import Detections, find_people, read_picture
from rsnlib.data.skeletons import COCO
from rsnlib.errors import UserError
from rsnlib.inference.predict import Poses, predict
from rsnlib.metrics import coco_ap
from rsnlib.models.checkpoints import save_model
from rsnlib.models.zoo import create_model

ROOT = Path(__file__).parent.parent
RGB = np.array([[[10, 20, 30], [200, 100, 50]]], np.uint8)
GREY = np.array([[7, 250]], np.uint8)
GREY_AS_RGB = np.repeat(GREY[..., None], 3, axis=2)


# --- reading ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("array", "wanted"),
    [
        (RGB, RGB),
        (GREY, GREY_AS_RGB),
        (GREY[..., None], GREY_AS_RGB),
        (RGB.astype(np.uint16) * 257, RGB),
        ((GREY.astype(">u2") << 8) + 255, GREY_AS_RGB),
        (GREY > 100, np.array([[[0] * 3, [255] * 3]], np.uint8)),
        (np.dstack([RGB, [[255, 0]]]).astype(np.uint8), np.array([[[10, 20, 30], [255] * 3]], np.uint8)),
        (np.dstack([GREY, [[255, 51]]]).astype(np.uint8), np.array([[[7] * 3, [254] * 3]], np.uint8)),
    ],
    ids=["rgb", "grey", "one channel", "16 bits", "16 bits grey", "bool", "alpha", "grey alpha"],
)
def test_every_kind_of_picture_becomes_rgb(array, wanted, tmp_path):
    np.testing.assert_array_equal(read_picture(array), wanted)
    assert read_picture(array).dtype == np.uint8
    if array.dtype == np.uint8:
        Image.fromarray(array.squeeze(2) if array.shape[2:] == (1,) else array).save(tmp_path / "picture.png")
        np.testing.assert_array_equal(read_picture(tmp_path / "picture.png"), wanted)
        np.testing.assert_array_equal(read_picture(Image.open(tmp_path / "picture.png")), wanted)


@pytest.mark.parametrize("name", ["picture.png", "picture.tif"])
@pytest.mark.parametrize("array", [GREY.astype(np.uint16) * 257, RGB.astype(np.uint16) * 257], ids=["grey", "colour"])
def test_files_of_16_bits_keep_the_upper_8(name, array, tmp_path):
    cv2.imwrite(str(tmp_path / name), array[..., ::-1] if array.ndim == 3 else array)
    np.testing.assert_array_equal(read_picture(tmp_path / name), GREY_AS_RGB if array.ndim == 2 else RGB)


@pytest.mark.parametrize("array", [GREY.astype(np.int32) * 100_000, GREY.astype(np.float32)], ids=["32 bits", "float"])
def test_files_of_32_bits_are_refused(array, tmp_path):
    Image.fromarray(array).save(tmp_path / "picture.tif")
    with pytest.raises(UserError, match=f"picture.tif: must be .* of uint8, uint16 or bool, not .* of {array.dtype}"):
        read_picture(tmp_path / "picture.tif")


def test_a_palette_with_a_transparent_colour_lies_on_white(tmp_path):
    picture = Image.fromarray(np.array([[0, 1]], np.uint8), "P")
    picture.putpalette([10, 20, 30, 40, 50, 60])
    picture.save(tmp_path / "picture.gif", transparency=1)
    assert read_picture(tmp_path / "picture.gif").tolist() == [[[10, 20, 30], [255] * 3]]


def test_a_photo_marked_as_rotated_is_turned_upright(draw_dot, find_dot, tmp_path):
    upright = draw_dot(80, 60, 15, 20)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned 90 degrees clockwise
    Image.fromarray(np.rot90(upright)).save(tmp_path / "photo.jpg", exif=exif, quality=95)
    assert read_picture(tmp_path / "photo.jpg").shape == (80, 60, 3)
    np.testing.assert_allclose(find_dot(read_picture(tmp_path / "photo.jpg")), [15, 20], atol=0.5)
    poses = predict(SeesBrightness(), tmp_path / "photo.jpg")
    np.testing.assert_allclose(poses.keypoints[0], np.tile([15, 20], (17, 1)), atol=4)


def test_a_picture_cut_short_is_refused(draw_dot, tmp_path):
    Image.fromarray(draw_dot(200, 200, 50, 50)).save(tmp_path / "photo.jpg")
    contents = (tmp_path / "photo.jpg").read_bytes()
    (tmp_path / "photo.jpg").write_bytes(contents[: len(contents) // 2])
    with pytest.raises(UserError, match="photo.jpg: not readable as an image"):
        read_picture(tmp_path / "photo.jpg")


# --- boxes -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(1, 1), (1, 3000), (90, 60), (300, 200)])
def test_where_nobody_is_found_the_whole_picture_is_the_box(shape):
    assert find_people(np.full((*shape, 3), 90, np.uint8)).tolist() == [[0, 0, shape[1], shape[0]]]


@pytest.mark.shared
def test_an_upright_person_in_a_real_photo_is_found(shared):
    found = find_people(read_picture(shared / "data/coco/images/val2017/000000397133.jpg"))
    truth = np.array([388.66, 69.92, 109.41, 277.62])  # as annotated
    shared_area = np.minimum(found[:, :2] + found[:, 2:], truth[:2] + truth[2:]) - np.maximum(found[:, :2], truth[:2])
    shared_area = shared_area.clip(0).prod(axis=1)
    overlap = shared_area / (found[:, 2:].prod(axis=1) + truth[2:].prod() - shared_area)
    assert overlap.max() > 0.7


def boxes_json(path, contents):
    path.write_text(json.dumps(contents))
    return path


WHOLE = np.zeros((40, 60, 3), np.uint8)


@pytest.mark.parametrize(
    ("entry", "picture"),
    [
        ({"image_id": 785}, "some/where/000000000785.jpg"),
        ({"image_id": "a.jpg"}, "some/where/a.jpg"),
        ({"file_name": "a.jpg", "image_id": 785}, "a.jpg"),
        ({"file_name": "where/a.jpg"}, "some/where/a.jpg"),
    ],
)
def test_a_detectors_box_is_of_the_picture_that_it_names(entry, picture, tmp_path):
    others = [{"image_id": 7, "bbox": [0, 0, 1, 1]}, {"image_id": "b.jpg", "bbox": [0, 0, 1, 1]}]
    others += [{**entry, "bbox": [0, 0, 1, 1], "category_id": 18}]  # a dog
    mine = {**entry, "bbox": [1, 2, 3, 4], "score": 0.5, "category_id": 1}
    detections = Detections(boxes_json(tmp_path / "boxes.json", [*others, mine]))
    assert detections.of(picture, WHOLE).tolist() == [[1, 2, 3, 4, 0.5]]
    assert detections.know(picture) and not detections.know("elsewhere/c.jpg")
    assert detections.of("elsewhere/c.jpg", WHOLE).shape == (0, 5)


def test_in_cocos_annotation_format_the_images_have_the_names(tmp_path):
    contents = {"images": [{"id": 5, "file_name": "a.jpg"}], "annotations": [{"image_id": 5, "bbox": [1, 2, 3, 4]}]}
    detections = Detections(boxes_json(tmp_path / "boxes.json", contents))
    assert detections.of("a.jpg", WHOLE).tolist() == [[1, 2, 3, 4, 1]]
    assert detections.of("5.jpg", WHOLE).shape == (0, 5)


def test_a_box_is_of_its_frame_or_of_all(tmp_path):
    contents = [
        {"file_name": "clip.mp4", "bbox": [1, 2, 3, 4], "frame": 2},
        {"file_name": "clip.mp4", "bbox": [5, 6, 7, 8]},
    ]
    detections = Detections(boxes_json(tmp_path / "boxes.json", contents))
    assert detections.of("clip.mp4", WHOLE, 1)[:, 0].tolist() == [5]
    assert detections.of("clip.mp4", WHOLE, 2)[:, 0].tolist() == [1, 5]


BOX = {"image_id": "a.jpg", "bbox": [0, 0, 9, 9]}


@pytest.mark.parametrize(
    ("contents", "what"),
    [
        (3, "TypeError"),
        ([3], "entry 0: "),
        ([BOX, {"bbox": [0, 0, 1, 1]}], "entry 1: KeyError: 'image_id'"),
        ([BOX, {"image_id": [1], "bbox": 1}], "entry 1: "),
        ([BOX, BOX | {"frame": "2"}], "entry 1: Unusable: frame: '2' is not a whole number"),
        ({"images": []}, "KeyError: 'annotations'"),
    ],
)
def test_a_json_that_is_no_detectors_is_refused(contents, what, tmp_path):
    with pytest.raises(UserError, match=f"boxes.json: not a detector's boxes .*{what}"):
        Detections(boxes_json(tmp_path / "boxes.json", contents))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"bbox": [0, 0, 1]}, "bbox: a list of 3 where a list of 4 numbers belongs"),
        ({"bbox": "0 0 1 1"}, "bbox: '0 0 1 1' where"),
        ({"bbox": [0, 0, 1, "a"]}, "bbox: 'a' is not a finite number"),
        ({"bbox": [0, 0, 1, 0]}, "box has no area"),
        ({"bbox": [60, 0, 5, 5]}, r"box lies wholly outside its image \(60 x 40 pixels\)"),
        ({"bbox": None}, "bbox: None where"),
        ({"score": "high"}, "score: 'high' is not a finite number"),
        ({"category_id": "person"}, "category_id: 'person' is not a whole number"),
    ],
)
def test_a_bad_box_names_its_file_entry_and_picture(changes, reason, tmp_path):
    detections = Detections(boxes_json(tmp_path / "boxes.json", [BOX, BOX | changes]))
    with pytest.raises(UserError, match=f"boxes.json: entry 1, of a.jpg: {reason}"):
        detections.of("a.jpg", WHOLE)
    with pytest.raises(UserError, match=f"boxes.json: entry 1, of a.jpg, frame 7: {reason}"):
        detections.of("a.jpg", WHOLE, frame=7)


def test_predict_takes_a_detectors_json(draw_dot, tmp_path):
    Image.fromarray(draw_dot(200, 240, 130, 90)).save(tmp_path / "12.png")
    boxes = boxes_json(tmp_path / "boxes.json", [{"image_id": 12, "bbox": [100, 60, 60, 80], "score": 0.5}])
    poses = predict(SeesBrightness(), tmp_path / "12.png", boxes)
    assert poses.boxes.tolist() == [[100, 60, 60, 80]] and poses.box_scores.tolist() == [0.5]
    assert predict(SeesBrightness(), Image.open(tmp_path / "12.png"), str(boxes)).boxes.tolist() == poses.boxes.tolist()
    with pytest.raises(UserError, match="file names"):
        predict(SeesBrightness(), draw_dot(200, 240, 130, 90), boxes)


# --- overlays --------------------------------------------------------------------------------------------------------


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


def write_video(path, frames, codec):
    height, width = frames[0].shape[:2]
    writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, cv2.VideoWriter_fourcc(*codec), 10, (width, height))
    for frame in frames:
        writer.write(frame)
    writer.release()
    return path


@pytest.fixture
def moving(draw_dot):
    """Twelve frames in which the dot goes to the right, 5 pixels a frame."""
    return [draw_dot(96, 128, 20 + 5 * frame, 48) for frame in range(12)]


def frame_count(path):
    capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
    return sum(iter(lambda: capture.read()[0], False))


def test_pictures_and_videos_get_overlays_and_one_json(draw_dot, moving, tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    for name in ("b.png", "a.jpg", "notes.txt", ".hidden.png"):
        (folder / name).touch()
    Image.fromarray(draw_dot(96, 128, 40, 50)).save(folder / "b.png")
    Image.fromarray(draw_dot(96, 128, 70, 50)).save(folder / "a.jpg")
    Image.fromarray(draw_dot(96, 128, 90, 50)).save(tmp_path / "A.png")  # the overlay's name is taken
    video = write_video(tmp_path / "clip.mp4", moving, "mp4v")

    problems = predict_files(SeesBrightness(), [folder, tmp_path / "A.png", video], tmp_path / "out")

    assert problems == []
    written = {path.name for path in (tmp_path / "out").iterdir()}
    assert written == {"a.jpg", "b.jpg", "A-2.jpg", "clip.mp4", "poses.json"}
    results = json.loads((tmp_path / "out/poses.json").read_text())
    assert [result["image_id"] for result in results] == list(range(1, 16))
    assert [result["file_name"] for result in results[:3]] == [
        str(folder / "a.jpg"),
        str(folder / "b.png"),
        str(tmp_path / "A.png"),
    ]
    assert [result.get("frame") for result in results] == [None] * 3 + list(range(12))
    across = [result["keypoints"][0] for result in results]
    np.testing.assert_allclose(across, [70, 40, 90, *range(20, 80, 5)], atol=4)
    assert all(result["bbox"] == [0, 0, 128, 96] and len(result["keypoints"]) == 51 for result in results)
    assert frame_count(tmp_path / "out/clip.mp4") == 12
    with Image.open(tmp_path / "out/a.jpg") as overlay:
        assert overlay.size == (128, 96)


def test_boxes_by_number_give_results_that_coco_judges(draw_dot, tmp_path):
    for number in (12, 785):
        Image.fromarray(draw_dot(96, 128, 40, 50)).save(tmp_path / f"{number:012}.jpg")
    entries = [{"image_id": 785, "bbox": [10, 10, 60, 80], "score": 0.5, "category_id": 1}]
    boxes = boxes_json(tmp_path / "boxes.json", entries)
    predict_files(SeesBrightness(), [tmp_path], tmp_path / "out", boxes)
    (result,) = json.loads((tmp_path / "out/poses.json").read_text())
    assert (result["image_id"], result["category_id"], result["bbox"]) == (785, 1, [10, 10, 60, 80])
    assert (tmp_path / "out/000000000012.jpg").is_file()  # nobody in it
    person = {"id": 1, "image_id": 785, "category_id": 1, "iscrowd": 0, "area": 4800, "num_keypoints": 17}
    truth = {"images": [{"id": 785}], "categories": [{"id": 1}], "annotations": [person]}
    x, y = result["keypoints"][:2]
    person |= {"bbox": [10, 10, 60, 80], "keypoints": [x, y, 2] * 17}
    assert coco_ap([result], boxes_json(tmp_path / "truth.json", truth))["AP"] > 0.9


def test_results_are_of_the_networks_category(draw_dot, tmp_path):
    Image.fromarray(draw_dot(96, 128, 40, 50)).save(tmp_path / "785.jpg")
    entries = [{"image_id": 785, "bbox": [10, 10, 60, 80], "score": 0.5, "category_id": number} for number in (1, 18)]
    network = SeesBrightness()
    network.about = {"categories": [18]}
    predict_files(network, [tmp_path / "785.jpg"], tmp_path / "out", boxes_json(tmp_path / "boxes.json", entries))
    (result,) = json.loads((tmp_path / "out/poses.json").read_text())
    assert result["category_id"] == 18


def test_of_a_video_that_breaks_off_the_frames_before_are_done(tmp_path):
    frames = np.random.default_rng(0).integers(0, 256, (12, 96, 128, 3), np.uint8)
    video = write_video(tmp_path / "clip.avi", frames, "MJPG")
    contents = video.read_bytes()
    video.write_bytes(contents[: len(contents) // 2])
    (problem,) = predict_files(SeesBrightness(), [video], tmp_path / "out")
    results = json.loads((tmp_path / "out/poses.json").read_text())
    assert 3 <= len(results) <= 9
    assert f"clip.avi: breaks off: {len(results)} of 12 frames are readable" in problem
    assert frame_count(tmp_path / "out/clip.mp4") == len(results)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"clip.mp4", "poses.json"}


class MeasuresMemory(SeesBrightness):
    """Keeps how many megabytes of memory the process holds each time it is asked."""

    def __init__(self):
        super().__init__()
        self.megabytes = []

    def forward(self, images):
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        self.megabytes.append(pages * os.sysconf("SC_PAGE_SIZE") / 1e6)
        return super().forward(images)


def test_a_long_video_takes_no_more_memory_than_a_short_one(draw_dot, tmp_path):
    frame = draw_dot(480, 640, 320, 240)  # 0.9 megabytes: 320 for those after the fiftieth
    video = write_video(tmp_path / "clip.mp4", [frame] * 400, "mp4v")
    boxes = boxes_json(tmp_path / "boxes.json", [{"file_name": "clip.mp4", "bbox": [200, 100, 240, 320]}])
    model = MeasuresMemory()
    assert predict_files(model, [video], tmp_path / "out", boxes) == []
    assert len(model.megabytes) == 400
    assert max(model.megabytes[50:]) < max(model.megabytes[:50]) + 30


def test_a_video_for_which_there_is_no_room_is_not_left_in_part(tmp_path):
    frames = np.random.default_rng(0).integers(0, 256, (12, 96, 128, 3), np.uint8)
    video = write_video(tmp_path / "clip.avi", frames, "MJPG")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))  # room for poses.json alone
    try:
        (problem,) = predict_files(SeesBrightness(), [video], tmp_path / "out")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert problem.endswith("out/clip.mp4: cannot be written whole; is there no room left?")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["poses.json"]


def test_nothing_is_overwritten(draw_dot, tmp_path):
    Image.fromarray(draw_dot(96, 128, 40, 50)).save(tmp_path / "a.png")
    for output in (tmp_path, tmp_path / "a.png"):
        with pytest.raises(UserError, match="exists already"):
            predict_files(SeesBrightness(), [tmp_path / "a.png"], output)
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


def test_where_nothing_can_be_written_nothing_is_done(draw_dot, tmp_path, monkeypatch):
    Image.fromarray(draw_dot(96, 128, 40, 50)).save(tmp_path / "a.png")
    with pytest.raises(UserError, match="a.png/out: cannot be written .*a.png is a file, not a folder"):
        predict_files(SeesBrightness(), [tmp_path / "a.png"], tmp_path / "a.png/out")

    def refuse(*_, **__):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(UserError, match="out: cannot be written .Permission denied"):
        predict_files(SeesBrightness(), [tmp_path / "a.png"], tmp_path / "out")


def test_without_a_single_picture_nothing_is_written(tmp_path):
    (problem,) = predict_files(SeesBrightness(), [tmp_path / "nowhere.png"], tmp_path / "out")
    assert problem.endswith("nowhere.png: no such file or folder") and not (tmp_path / "out").exists()


def test_a_picture_named_twice_is_done_once(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("Männer am Strand.jpg", "b.png"):
        Image.fromarray(WHOLE).save(name)
    names = ["b.png", "Männer am Strand.jpg", "./b.png", str(tmp_path / "b.png"), "."]
    files, problems = find_files(names)
    assert [str(file) for file in files] == ["b.png", "Männer am Strand.jpg"] and problems == []


def test_what_a_folder_has_and_we_cannot_read_is_named(tmp_path, monkeypatch):
    for name in ("photo.HEIC", "a.jpg", "notes.txt", "folder/inner/b.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    files, (heic,) = find_files([tmp_path])
    assert [file.name for file in files] == ["a.jpg"]
    assert heic.endswith("photo.HEIC: pictures of this kind are not read; save it as JPEG or PNG")
    files, (folder,) = find_files([tmp_path / "folder"])
    assert files == [] and "folder: a folder without pictures or videos" in folder and "are not searched" in folder

    def refuse(*_):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(Path, "iterdir", refuse)
    assert find_files([tmp_path, tmp_path / "a.jpg"]) == (
        [tmp_path / "a.jpg"],
        [f"{tmp_path}: not readable (Permission denied)"],
    )


def test_boxes_of_other_pictures_are_refused(draw_dot, tmp_path):
    Image.fromarray(draw_dot(96, 128, 40, 50)).save(tmp_path / "a.png")
    boxes = boxes_json(tmp_path / "boxes.json", [{"image_id": 1, "bbox": [0, 0, 1, 1]}])
    with pytest.raises(UserError, match="none of its boxes is of any of these pictures"):
        predict_files(SeesBrightness(), [tmp_path / "a.png"], tmp_path / "out", boxes)
    assert not (tmp_path / "out").exists()


def test_the_command_does_what_it_can_and_reports_the_rest(draw_dot, moving, tmp_path, monkeypatch):
    torch.manual_seed(0)
    save_model(create_model("rsn18", 17, (64, 64)), tmp_path / "weights.safetensors", {"skeleton": "coco"})
    Image.fromarray(draw_dot(96, 128, 40, 50)).save(tmp_path / "good.png")
    Image.fromarray(np.zeros((1, 1), np.uint8)).save(tmp_path / "pixel.png")
    Image.fromarray(draw_dot(96, 128, 40, 50)).save(tmp_path / "outside.png")
    (tmp_path / "broken.jpg").write_bytes(b"no picture")
    (tmp_path / "notes.txt").write_text("no picture")
    (tmp_path / "empty").mkdir()
    cut = write_video(tmp_path / "cut.mp4", moving, "mp4v")
    cut.write_bytes(cut.read_bytes()[:-100])
    whole = {name: {"file_name": name, "bbox": [0, 0, 1, 1]} for name in ("good.png", "pixel.png")}
    outside = {"file_name": "outside.png", "bbox": [500, 0, 9, 9]}
    boxes_json(tmp_path / "boxes.json", [*whole.values(), outside])
    bad = ["broken.jpg", "notes.txt", "empty", "cut.mp4", "outside.png", "nowhere.png"]

    command = ["rsnlib", "predict", "weights.safetensors", *bad, "good.png", "pixel.png", "--boxes", "boxes.json"]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [*command, "-o", "out"])
    with pytest.raises(SystemExit) as exit:
        main()

    errors = exit.value.code.splitlines()
    assert len(errors) == len(bad) and all(error.startswith("error: ") for error in errors)
    for name in bad:
        assert sum(name in error for error in errors) == 1, name
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"good.jpg", "pixel.jpg", "poses.json"}
    results = json.loads((tmp_path / "out/poses.json").read_text())
    assert [result["file_name"] for result in results] == ["good.png", "pixel.png"]


# --- for a person ----------------------------------------------------------------------------------------------------


def test_the_notebook_shows_poses_of_the_newest_run(demo_folder, tmp_path, monkeypatch):
    (tmp_path / "data").symlink_to(demo_folder.parent)
    (tmp_path / "params.yaml").write_text("")
    weights = tmp_path / "work/models/demo/rsn18-0.safetensors"
    save_model(create_model("rsn18", 17, (64, 64)), weights, {"skeleton": "coco"})
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.delenv("MPLBACKEND", raising=False)
    executed = tmp_path / "predict.ipynb"
    papermill.execute_notebook(
        str(ROOT / "notebooks/predict.ipynb"), str(executed), cwd=tmp_path, kernel_name="python3", progress_bar=False
    )
    outputs = [output for cell in nbformat.read(executed, 4).cells for output in cell.get("outputs", [])]
    kinds = [set(output.get("data", {})) for output in outputs]
    assert sum("image/png" in kind for kind in kinds) == 2  # poses, heatmaps
    assert sum("text/html" in kind for kind in kinds) == 1  # scores
    assert sum("application/vnd.jupyter.widget-view+json" in kind for kind in kinds) == 2
