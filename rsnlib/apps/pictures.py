"""A person's own pictures and videos, in whatever form they come, and the boxes of the people in them."""

import os
from collections import defaultdict
from functools import lru_cache
from pathlib import Path, PurePosixPath

import cv2
import numpy as np
from PIL import Image, ImageOps

from rsnlib.data.people import Unusable, check_picture_size, checked_box, finite_numbers, whole_number
from rsnlib.data.readers import PERSON
from rsnlib.data.readers.detections import detected_person
from rsnlib.errors import UserError
from rsnlib.files import read_json

# What is wrong with a video, `Video` says: FFmpeg and OpenCV need not add their details.
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_ERROR)

HOG_WINDOW = (128, 64)  # height and width of what the detector looks at
HOG_LONGEST = 800  # pixels; a longer side is reduced to it before people are sought
HOG_OVERLAP = 0.5  # of two windows that overlap more, intersection over union, the surer one stays
HOG_MARGINS = (0.08, 0.2)  # of a window's height and width: background above and below, left and right of a person


def read_picture(image):
    """A picture as RGB uint8 (H, W, 3), as a person would see it.

    image: a path, a PIL image, or an array (H, W) or (H, W, 1 to 4) of uint8, uint16 or bool: grey, grey with alpha,
        RGB or RGBA

    A photo that its camera marked as rotated (EXIF) is turned upright. Grey becomes three equal channels, 16 bits their
    upper 8, what is transparent white. Of an animation the first picture is taken. Raises UserError for anything else,
    and for more than 2**26 pixels.
    """
    where = image if isinstance(image, (str, Path)) else "image"
    try:
        if isinstance(image, (str, Path)):
            with Image.open(image) as opened:
                image = _pixels(opened)
        elif isinstance(image, Image.Image):
            image = _pixels(image)
    except FileNotFoundError:
        raise UserError(f"{where}: no such file") from None
    except Exception as error:  # a broken file can make an image library raise anything
        raise UserError(f"{where}: not readable as an image ({error})") from None
    return _as_rgb(np.asarray(image), where)


def _pixels(image):
    """The array of a PIL image, upright."""
    check_picture_size(image)
    image = ImageOps.exif_transpose(image)
    if image.mode == "F" or image.mode.startswith("I"):
        array = np.asarray(image)  # in some versions and formats 16 bits are held as 32
        whole = array.dtype.kind in "iu" and array.min() >= 0 and array.max() <= 65535
        return array.astype(np.uint16) if whole else array
    return np.asarray(image.convert("RGBA" if image.has_transparency_data else "RGB"))


def _as_rgb(image, where):
    """The array of a picture as RGB uint8 (H, W, 3)."""
    shape = image.shape
    if image.ndim == 2:
        image = image[..., None]
    if image.dtype.kind == "u" and image.dtype.itemsize == 2:
        image = (image >> 8).astype(np.uint8)
    elif image.dtype == bool:
        image = image * np.uint8(255)
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] not in (1, 2, 3, 4) or not image.size:
        kinds = "(H, W) or (H, W, 1 to 4) of uint8, uint16 or bool"
        raise UserError(f"{where}: must be {kinds}, not {shape} of {image.dtype}")
    if image.shape[2] in (2, 4):
        image = np.stack([_on_white(row) for row in image])  # row by row: as floats they are many times as large
    return np.broadcast_to(image, (*shape[:2], 3)).copy()


def _on_white(row):
    """A row of pixels (W, C + 1), the last channel how opaque they are, as uint8 (W, C)."""
    opaque = row[:, -1:] / np.float32(255)
    return (row[:, :-1] * opaque + 255 * (1 - opaque)).round().astype(np.uint8)


class Video:
    """The frames of a video file, RGB uint8 (H, W, 3), upright, of which only one is in memory at a time.

    fps: frames a second; announced: how many there are by the file's own account, 0 where it gives none
    count: how many were read
    """

    def __init__(self, path):
        self.path, self.count = path, 0
        self.capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
        if not self.capture.isOpened():
            raise UserError(f"{path}: not readable as a video")
        self.fps = self.capture.get(cv2.CAP_PROP_FPS) or 25.0
        self.announced = max(0, int(self.capture.get(cv2.CAP_PROP_FRAME_COUNT)))

    def __iter__(self):
        while True:
            found, frame = self.capture.read()
            if not found:
                return
            self.count += 1
            yield cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)

    @property
    def broke_off(self):
        """Whether, after the last frame that could be read, more were to come; a file may announce one too many."""
        return self.count < max(1, self.announced - 1)


def check_boxes(boxes, picture):
    """Boxes as (P, 5) float64: x, y, width, height in pixels of the picture (H, W, 3), and their scores.

    boxes: (P, 4), or (P, 5) with scores; without, they are 1. May be empty.

    A box may reach out of the picture, where the network sees black; one that lies wholly outside is an error.
    """
    wanted = UserError("boxes: each must be four numbers: x, y, width, height (or five: and a score)")
    try:
        boxes = np.atleast_2d(np.asarray(boxes, np.float64))
    except (TypeError, ValueError):
        raise wanted from None
    if boxes.size == 0:
        return np.zeros((0, 5))
    if boxes.ndim != 2 or boxes.shape[1] not in (4, 5):
        raise wanted
    for row, box in enumerate(boxes.tolist()):
        try:
            checked_box(finite_numbers(box, len(box), "box")[:4], picture.shape[:2])
        except Unusable as reason:
            raise UserError(f"boxes: row {row}: {reason}") from None
    return boxes if boxes.shape[1] == 5 else np.insert(boxes, 4, 1, axis=1)


def find_people(picture):
    """Boxes (P, 4) of the upright people in an RGB picture, by OpenCV's histograms of oriented gradients (Dalal and
    Triggs, CVPR 2005); where it finds nobody, one box, the whole picture."""
    height, width = picture.shape[:2]
    zoom = min(1, HOG_LONGEST / max(height, width))
    small = cv2.resize(
        picture, (max(1, round(zoom * width)), max(1, round(zoom * height))), interpolation=cv2.INTER_AREA
    )
    windows, weights = (), ()
    if small.shape[0] >= HOG_WINDOW[0] and small.shape[1] >= HOG_WINDOW[1]:
        windows, weights = _hog().detectMultiScale(small, winStride=(8, 8), padding=(16, 16), scale=1.05)
    if not len(windows):
        return np.array([[0, 0, width, height]], np.float64)
    surest = cv2.dnn.NMSBoxes(windows, np.ravel(weights), 0, HOG_OVERLAP)
    windows = np.asarray(windows, np.float64)[np.ravel(surest)]
    margins = windows[:, [2, 3]] * HOG_MARGINS[::-1]
    low = np.clip((windows[:, :2] + margins) / zoom, 0, (width - 1, height - 1))
    high = np.clip((windows[:, :2] + windows[:, 2:] - margins) / zoom, low + 1, (width, height))
    return np.concatenate([low, high - low], axis=1)


@lru_cache
def _hog():
    detector = cv2.HOGDescriptor()
    detector.setSVMDetector(cv2.HOGDescriptor_getDefaultPeopleDetector())
    return detector


class Detections:
    """A detector's boxes for many pictures, from a JSON in COCO's results format: a list of objects, each with `bbox`,
    `score` and whose box it is.

    A box belongs to the picture whose file name is its `file_name` (or its `image_id`, where that is text), with as
    many folders as it names; else to the one that its `image_id` numbers, as COCO does: 000000000785.jpg is 785. In
    COCO's annotation format, {"images": ..., "annotations": ...}, the images' names count. In a video a box is of the
    frame that `frame` numbers from 0, or of all. Boxes of a `category_id` that is not one of `categories` are passed
    over; COCO's person is 1.
    """

    def __init__(self, path, categories=(PERSON,)):
        self.path, self.categories = path, categories
        self.usual = {"category_id": categories[0], "score": 1}  # of a box that does not say
        contents = read_json(path)
        self.by_picture = defaultdict(lambda: defaultdict(list))  # of its name: {frame: [(index, entry), ...]}
        place = ""
        try:
            names = {}
            if isinstance(contents, dict):
                names = {image["id"]: image["file_name"] for image in contents["images"]}
                contents = contents["annotations"]
            for index, entry in enumerate(contents):
                place = f"entry {index}: "
                picture = entry["file_name"] if "file_name" in entry else entry["image_id"]
                picture = names.get(picture, picture)
                key = str(PurePosixPath(picture)) if isinstance(picture, str) else whole_number(picture, "image_id")
                frame = entry.get("frame")
                frame = None if frame is None else whole_number(frame, "frame")
                self.by_picture[key][frame].append((index, entry))
            found = {(self.usual | entry)["category_id"] for entry in contents}
        except (AttributeError, KeyError, TypeError, Unusable) as error:
            raise UserError(
                f"{path}: not a detector's boxes in COCO's results format: a list of objects with `bbox`, `score` and "
                f"`image_id` or `file_name` ({place}{type(error).__name__}: {error})"
            ) from None
        if contents and not found & set(categories):
            wanted = ", ".join(map(str, categories))
            raise UserError(f"{path}: none of its {len(contents)} boxes has the category_id of the network: {wanted}")

    def know(self, path):
        """Whether there is a box for the picture or video of this path."""
        return any(key in self.by_picture for key in _keys(path))

    def of(self, path, picture, frame=None):
        """The boxes, (P, 5) with scores, in the picture (H, W, 3) of this path, or in a frame of the video."""
        frames = [self.by_picture[key] for key in _keys(path) if key in self.by_picture]
        boxes = []
        for index, entry in sorted(entry for each in frames for of in {None, frame} for entry in each.get(of, ())):
            try:
                person = detected_person(entry, self.categories, self.usual)
                if person is not None:
                    boxes.append([*checked_box(person[0], picture.shape[:2]), person[1]])
            except Unusable as reason:
                where = path if frame is None else f"{path}, frame {frame}"
                raise UserError(f"{self.path}: entry {index}, of {where}: {reason}") from None
        return np.array(boxes).reshape(-1, 5)


def _keys(path):
    """Every name under which boxes of the picture may be listed."""
    path = Path(path)
    names = [str(PurePosixPath(*path.parts[first:])) for first in range(len(path.parts))]
    return [*names, int(path.stem)] if path.stem.isdecimal() else names
