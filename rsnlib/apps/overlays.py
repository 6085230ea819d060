"""python -m rsnlib predict: pictures and videos to overlays, their skeletons drawn in, and one JSON of all poses."""

import contextlib
import itertools
import json
import os
import tempfile
from pathlib import Path

import cv2
import numpy as np
from matplotlib.colors import to_rgb
from tqdm import tqdm

from rsnlib.apps.pictures import Detections, Video, read_picture
from rsnlib.errors import UserError
from rsnlib.fast.folded import fuse
from rsnlib.files import whole_file, writing
from rsnlib.inference.predict import categories_of, predict, skeleton_of
from rsnlib.metrics import coco_results
from rsnlib.report.drawing import SIDES, limb_side

PICTURES = (".avif", ".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
UNREAD = (".heic", ".heif")
VIDEOS = (".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm")
NAMES = ", ".join(PICTURES + VIDEOS)

# drawn are people in boxes, and keypoints, of at least these scores; 0.5 is a keypoint of which the network saw nothing
SURE_BOX = 0.5
SURE_KEYPOINT = 0.6
COLORS = {side: tuple(round(255 * part) for part in to_rgb(color)) for side, color in SIDES.items()}
OUTLINE = (40, 40, 40)
FRACTION_BITS = 4  # OpenCV draws to 1/16 of a pixel
FARTHEST = 2**20  # pixels; what lies beyond is drawn there
JPEG_QUALITY = 95
CODEC = cv2.VideoWriter_fourcc(*"mp4v")


def predict_files(model, inputs, output, boxes=None):
    """The poses of everyone in pictures and videos: an overlay of each, and poses.json, in the folder `output`.

    model: as load_model gives it
    inputs: paths of pictures, videos, and folders of these (not of folders in them); what is named twice is done once
    output: a folder that does not exist or is empty, so that nothing is ever overwritten
    boxes: the path of a detector's results (rsnlib.apps.pictures.Detections); None: OpenCV's people detector

    Returns what was wrong with single inputs, a message each; all others are done. Overlays have their input's name, as
    .jpg or .mp4. poses.json is in COCO's results format, with `file_name` (the path as given), `bbox` and, in videos,
    `frame` (from 0) of each person. `image_id` is the number that is the picture's name where all have one, as in COCO;
    else pictures and frames are counted from 1. It is written person by person, about 0.9 MB a thousand: no video is
    too long for memory.
    """
    output = Path(output)
    with writing(output):
        empty = not output.exists() or (output.is_dir() and not any(output.iterdir()))
    if not empty:
        raise UserError(f"{output}: exists already and is no empty folder; nothing in it is overwritten: name another")
    model, skeleton, categories = fuse(model), skeleton_of(model), categories_of(model)
    detections = None if boxes is None else Detections(boxes, categories)
    files, problems = find_files(inputs)
    if not files:
        return problems
    if detections and detections.by_picture and not any(map(detections.know, files)):
        raise UserError(f"{boxes}: none of its boxes is of any of these pictures; it tells them by file name or number")
    numbered = _numbered(files)
    count = itertools.count(1)
    with writing(output):
        output.mkdir(parents=True, exist_ok=True)
    with whole_file(output / "poses.json", "w") as file:
        separator = "[\n"
        for path, overlay in zip(tqdm(files, unit="file"), overlay_paths(files, output)):
            try:
                for frame, poses in _overlay_file(model, path, overlay, detections, skeleton):
                    image_id = int(path.stem) if numbered else next(count)
                    for person in _results(path, frame, image_id, categories[0], poses):
                        file.write(separator + json.dumps(person))
                        separator = ",\n"
            except UserError as error:
                problems.append(str(error))
        file.write("[]\n" if separator == "[\n" else "\n]\n")
    return problems


def find_files(inputs):
    """The pictures and videos (paths) that `inputs` name, each once, and what is wrong with the others (messages)."""
    files, problems = {}, []
    for path in map(Path, inputs):
        try:
            found = _files_in(path) if path.is_dir() else [path]
        except OSError as error:
            problems.append(f"{path}: not readable ({error.strerror})")
            continue
        if not found:
            problems.append(f"{path}: a folder without pictures or videos ({NAMES}); folders in it are not searched")
        for file in found:
            if not file.exists():
                problems.append(f"{file}: no such file or folder")
            elif file.suffix.lower() in UNREAD:
                problems.append(f"{file}: pictures of this kind are not read; save it as JPEG or PNG")
            elif file.suffix.lower() not in PICTURES + VIDEOS:
                problems.append(f"{file}: neither a picture nor a video by its name ({NAMES})")
            else:
                files.setdefault(os.path.abspath(file), file)
    return list(files.values()), problems


def _files_in(folder):
    """What has the name of a picture or video in a folder, in order; neither hidden files nor folders."""
    named = [file for file in sorted(folder.iterdir()) if file.suffix.lower() in PICTURES + UNREAD + VIDEOS]
    return [file for file in named if not file.name.startswith(".") and not file.is_dir()]


def overlay_paths(files, output):
    """Where the overlay of each file goes: its name as .jpg or .mp4 in the folder `output`; where several have the same
    name, the later ones with -2, -3, ... after it."""
    taken, paths = set(), []
    for path in files:
        suffix = ".mp4" if _is_video(path) else ".jpg"
        names = itertools.chain([path.stem], (f"{path.stem}-{number}" for number in itertools.count(2)))
        name = next(name for name in names if (name + suffix).lower() not in taken)
        taken.add((name + suffix).lower())
        paths.append(output / (name + suffix))
    return paths


def draw_poses(picture, poses, skeleton):
    """A copy of an RGB picture with everyone's box and skeleton: left blue, right orange. Left out are people whose
    boxes score little, and keypoints that do."""
    drawn = picture.copy()
    for row in np.flatnonzero(poses.box_scores >= SURE_BOX):
        sure = poses.scores[row] >= SURE_KEYPOINT
        _draw_person(drawn, poses.keypoints[row], sure, poses.boxes[row], skeleton)
    return drawn


def _draw_person(picture, keypoints, sure, box, skeleton):
    """One person's box and skeleton into the picture, lines as wide as the box's size asks for."""
    width = max(1, round(max(box[2:]) / 120))
    options = {"lineType": cv2.LINE_AA, "shift": FRACTION_BITS}
    low, high = _drawable(box[:2]), _drawable(box[:2] + box[2:])
    cv2.rectangle(picture, low, high, (255, 255, 255), max(1, width // 2), **options)
    points = [_drawable(point) for point in keypoints]
    limbs = [(a, b) for a, b in skeleton.limbs if sure[a] and sure[b]]
    for a, b in limbs:
        cv2.line(picture, points[a], points[b], OUTLINE, width + 2, **options)
    for a, b in limbs:
        cv2.line(picture, points[a], points[b], COLORS[limb_side(skeleton, a, b)], width, **options)
    for point in np.flatnonzero(sure):
        radius = round((1 + width) * 2**FRACTION_BITS)
        cv2.circle(picture, points[point], radius, COLORS[skeleton.side(point)], cv2.FILLED, **options)


def _drawable(point):
    """(x, y) as OpenCV draws it."""
    return tuple(int(value) for value in np.round(np.clip(point, -FARTHEST, FARTHEST) * 2**FRACTION_BITS))


def _is_video(path):
    return path.suffix.lower() in VIDEOS


def _numbered(files):
    """Whether there are only pictures, and a number for a name tells each from all others."""
    names = [path.stem for path in files if path.stem.isdecimal() and not _is_video(path)]
    return len(files) == len(set(map(int, names)))


def _overlay_file(model, path, overlay, detections, skeleton):
    """Writes the overlay of a picture or video and yields the poses in it: (frame, Poses), frame None for a picture."""
    if _is_video(path):
        yield from _overlay_video(model, path, overlay, detections, skeleton)
        return
    picture = read_picture(path)
    poses = predict(model, picture, None if detections is None else detections.of(path, picture))
    drawn = cv2.cvtColor(draw_poses(picture, poses, skeleton), cv2.COLOR_RGB2BGR)
    written, encoded = cv2.imencode(".jpg", drawn, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    if not written:
        raise UserError(f"{path}: its overlay cannot be written as JPEG")
    with whole_file(overlay) as file:
        file.write(encoded.tobytes())
    yield None, poses


def _overlay_video(model, path, overlay, detections, skeleton):
    """The same of a video, frame by frame. Of one that breaks off, the frames before stay."""
    video = Video(path)
    with _whole_video(overlay, video.fps) as add_frame:
        frames = tqdm(video, total=video.announced or None, unit="frame", desc=path.name, leave=False)
        for frame, picture in enumerate(frames):
            boxes = None if detections is None else detections.of(path, picture, frame)
            poses = predict(model, picture, boxes)
            add_frame(draw_poses(picture, poses, skeleton))
            yield frame, poses
    if video.broke_off:
        raise UserError(f"{path}: breaks off: {video.count} of {video.announced} frames are readable, and done")


@contextlib.contextmanager
def _whole_video(path, fps):
    """A function that adds an RGB picture to the video `path`, which appears only when complete."""
    with writing(path), tempfile.TemporaryDirectory(dir=path.parent, prefix=".") as folder:
        unfinished = Path(folder, path.name)
        writer = cv2.VideoWriter()
        count = 0

        def add_frame(picture):
            nonlocal count
            count += 1
            height, width = picture.shape[:2]
            if not writer.isOpened() and not writer.open(str(unfinished), cv2.CAP_FFMPEG, CODEC, fps, (width, height)):
                raise UserError(
                    f"{path}: a video of {width} x {height} pixels at {fps:g} frames a second cannot be written"
                )
            writer.write(cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))

        try:
            yield add_frame
        finally:
            writer.release()
        if count:
            if cv2.VideoCapture(str(unfinished), cv2.CAP_FFMPEG).get(cv2.CAP_PROP_FRAME_COUNT) < count:
                raise UserError(f"{path}: cannot be written whole; is there no room left?")  # OpenCV does not say
            os.replace(unfinished, path)


def _results(path, frame, image_id, category, poses):
    """Each person as an object of poses.json. Of a network of several categories, all are of the first."""
    ids, categories = ([number] * len(poses.boxes) for number in (image_id, category))
    people = coco_results(ids, poses.keypoints, poses.scores, poses.box_scores, categories=categories)
    for person, box in zip(people, poses.boxes):
        person |= {"file_name": path.as_posix(), "bbox": box.tolist()}
        if frame is not None:
            person["frame"] = frame
        yield person
