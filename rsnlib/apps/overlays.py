"""Poses in pictures and videos: an overlay of each, skeletons drawn in, and one JSON of all poses."""

import itertools
import json
import os
from pathlib import Path

import cv2
import numpy as np
from matplotlib.colors import to_rgb
from tqdm import tqdm

from rsnlib.apps.videos import Video, whole_video
from rsnlib.data.images import read_picture
from rsnlib.data.readers.detections import Detections
from rsnlib.device import default_device
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

# the lowest scores of boxes and keypoints that are drawn; 0.5 is a keypoint of which the network saw nothing
SURE_BOX = 0.5
SURE_KEYPOINT = 0.6
COLORS = {side: tuple(round(255 * part) for part in to_rgb(color)) for side, color in SIDES.items()}
OUTLINE = (40, 40, 40)
FRACTION_BITS = 4  # OpenCV draws to 1/16 of a pixel
FARTHEST = 2**20  # pixels; beyond, OpenCV's integers overflow
JPEG_QUALITY = 95


def predict_files(model, inputs, output, boxes=None):
    """Write an overlay of each picture and video, and poses.json, into the folder `output`; return the problems.

    model: as load_model gives it
    inputs: paths of pictures, videos, and folders of these (not of folders in them); named twice, a file is done once
    output: a folder that does not exist or is empty, so that nothing is ever overwritten
    boxes: the path of a detector's results, as `predict` takes them; None: OpenCV's people detector

    A problem is a message about one input; all others are done. Overlays have their input's name, as .jpg or .mp4.
    poses.json is in COCO's results format, with `file_name` (the path as given), `bbox` and, in videos, `frame` (from
    0) of each person. `image_id` is the number in the picture's name if all have one, as in COCO; else pictures and
    frames are counted from 1. Poses are written person by person, about 0.9 MB per thousand: no video is too long for
    memory. Raises UserError for an unusable `output` or `boxes`.
    """
    output = Path(output)
    with writing(output):
        empty = not output.exists() or (output.is_dir() and not any(output.iterdir()))
    if not empty:
        raise UserError(f"{output}: exists already and is no empty folder; nothing in it is overwritten: name another")
    skeleton, categories = skeleton_of(model), categories_of(model)
    detections = None if boxes is None else Detections(boxes, categories)
    files, problems = find_files(inputs)
    if not files:
        return problems
    if detections and detections.by_picture and not any(map(detections.know, files)):
        raise UserError(f"{boxes}: none of its boxes is of any of these pictures; it tells them by file name or number")
    model = fuse(model).to(default_device())

    def draw(path, picture, frame=None):
        """Return the poses in a picture, and a copy of it with them drawn in."""
        poses = predict(model, picture, detections and detections.find(path, picture, frame))
        return poses, draw_poses(picture, poses, skeleton)

    numbers = [path.stem for path in files if path.stem.isdecimal() and not _is_video(path)]
    numbered = len(files) == len(set(map(int, numbers)))  # all are pictures named by different numbers
    count = itertools.count(1)
    with writing(output):
        output.mkdir(parents=True, exist_ok=True)
    with whole_file(output / "poses.json", "w") as file:
        separator = "[\n"
        for path, overlay in zip(tqdm(files, unit="file"), overlay_paths(files, output)):
            write_overlay = _overlay_video if _is_video(path) else _overlay_picture
            try:
                for frame, poses in write_overlay(path, overlay, draw):
                    image_id = int(path.stem) if numbered else next(count)
                    for person in _results(path, frame, image_id, categories[0], poses):
                        file.write(separator + json.dumps(person))
                        separator = ",\n"
            except UserError as error:
                problems.append(str(error))
        file.write("[]\n" if separator == "[\n" else "\n]\n")
    return problems


def find_files(inputs):
    """Return the pictures and videos (paths) that `inputs` name, each once, and the problems (messages) of the rest.

    In a folder, hidden files and those not named as pictures or videos are passed over.
    """
    files, problems = {}, []
    for path in map(Path, inputs):
        found = [path]
        try:
            if path.is_dir():
                named = [file for file in sorted(path.iterdir()) if file.suffix.lower() in PICTURES + UNREAD + VIDEOS]
                found = [file for file in named if not file.name.startswith(".") and not file.is_dir()]
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


def overlay_paths(files, output):
    """Return the path of each file's overlay: its name as .jpg or .mp4 in the folder `output`, followed by -2, -3, ...
    if an earlier file has taken the name."""
    paths = {}  # by their names in small letters, which some file systems do not tell from large ones
    for path in files:
        suffix = ".mp4" if _is_video(path) else ".jpg"
        names = itertools.chain([path.stem], (f"{path.stem}-{number}" for number in itertools.count(2)))
        name = next(name + suffix for name in names if (name + suffix).lower() not in paths)
        paths[name.lower()] = output / name
    return list(paths.values())


def draw_poses(picture, poses, skeleton):
    """Return a copy of an RGB picture with boxes and skeletons drawn in, left blue, right orange, with lines in
    proportion to the box; boxes and keypoints of low score are left out."""
    drawn, options = picture.copy(), {"lineType": cv2.LINE_AA, "shift": FRACTION_BITS}
    for row in np.flatnonzero(poses.box_scores >= SURE_BOX):
        box, sure = poses.boxes[row], poses.scores[row] >= SURE_KEYPOINT
        width = max(1, round(max(box[2:]) / 120))
        corners = _drawable(box[:2]), _drawable(box[:2] + box[2:])
        cv2.rectangle(drawn, *corners, (255, 255, 255), max(1, width // 2), **options)
        points = [_drawable(point) for point in poses.keypoints[row]]
        limbs = [(a, b) for a, b in skeleton.limbs if sure[a] and sure[b]]
        for a, b in limbs:
            cv2.line(drawn, points[a], points[b], OUTLINE, width + 2, **options)
        for a, b in limbs:
            cv2.line(drawn, points[a], points[b], COLORS[limb_side(skeleton, a, b)], width, **options)
        for point in np.flatnonzero(sure):
            radius = round((1 + width) * 2**FRACTION_BITS)
            cv2.circle(drawn, points[point], radius, COLORS[skeleton.side(point)], cv2.FILLED, **options)
    return drawn


def _drawable(point):
    """Return (x, y) in the fixed-point numbers that OpenCV draws with."""
    return tuple(int(value) for value in np.round(np.clip(point, -FARTHEST, FARTHEST) * 2**FRACTION_BITS))


def _is_video(path):
    return path.suffix.lower() in VIDEOS


def _overlay_picture(path, overlay, draw):
    """Write the overlay of a picture; yield (None, poses)."""
    poses, drawn = draw(path, read_picture(path))
    written, encoded = cv2.imencode(
        ".jpg", cv2.cvtColor(drawn, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]
    )
    if not written:
        raise UserError(f"{path}: its overlay cannot be written as JPEG")
    with whole_file(overlay) as file:
        file.write(encoded.tobytes())
    yield None, poses


def _overlay_video(path, overlay, draw):
    """Write the overlay of a video; yield (frame, poses) of each frame. Of a video that breaks off, the frames before
    stay."""
    video = Video(path)
    with whole_video(overlay, video.fps) as add:
        frames = tqdm(video, total=video.announced or None, unit="frame", desc=path.name, leave=False)
        for frame, picture in enumerate(frames):
            poses, drawn = draw(path, picture, frame)
            add(drawn)
            yield frame, poses
    if video.broke_off:
        raise UserError(f"{path}: breaks off: {video.count} of {video.announced} frames are readable, and done")


def _results(path, frame, image_id, category, poses):
    """Yield one object of poses.json per person."""
    ids, categories = ([number] * len(poses.boxes) for number in (image_id, category))
    people = coco_results(ids, poses.keypoints, poses.scores, poses.box_scores, categories=categories)
    for person, box in zip(people, poses.boxes):
        person |= {"file_name": path.as_posix(), "bbox": box.tolist()}
        if frame is not None:
            person["frame"] = frame
        yield person
