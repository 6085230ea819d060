"""People: what every reader gives, whatever the files look like; and the checks that the readers share."""

import contextlib
import threading
from dataclasses import dataclass, fields, replace
from pathlib import PurePosixPath

import numpy as np
import pandas as pd
from PIL import Image
from tqdm.contrib.concurrent import thread_map

from rsnlib.data.skeletons import Skeleton

# Nothing that is measured in pixels comes near it; also keeps integers that no float can hold out of NumPy
LARGEST_NUMBER = 1e9
LARGEST_PICTURE = 2**26  # pixels; a file of a few kilobytes may say that it has any number of them
LARGE_PICTURE = 2**24  # pixels; pictures with more are decoded one at a time

LARGE = threading.Lock()

PERSON = 1  # COCO's category


@dataclass(frozen=True)
class People:
    """One row a person. P people, K keypoints.

    skeleton: the keypoints' names and order
    ids: (P,) int64, annotation ids (row numbers from 1 where the data set has none)
    image_ids: (P,) int64
    images: (P,) str, paths of the image files
    image_sizes: (P, 2) int64, height and width
    boxes: (P, 4) float64, x, y, width, height in pixels
    keypoints: (P, K, 2) float64, x and y in pixels; meaningless where not labelled
    visible: (P, K) int64, 2 visible, 1 hidden but labelled, 0 not labelled
    areas: (P,) float64, pixels covered by the person (of the box where the data set has none)
    scores: (P,) float64, the box's confidence, 1 for ground truth
    unusable: (id, reason) of each annotation that was left out because something is wrong with it
    categories: (P,) int64, COCO's category_id; PERSON where nothing is said
    """

    skeleton: Skeleton
    ids: np.ndarray
    image_ids: np.ndarray
    images: np.ndarray
    image_sizes: np.ndarray
    boxes: np.ndarray
    keypoints: np.ndarray
    visible: np.ndarray
    areas: np.ndarray
    scores: np.ndarray
    unusable: tuple[tuple[str, str], ...] = ()
    categories: np.ndarray | None = None

    def __post_init__(self):
        if self.categories is None:
            object.__setattr__(self, "categories", np.full(len(self.ids), PERSON, np.int64))

    def __len__(self):
        return len(self.ids)

    @property
    def image_count(self):
        """How many different images show these people."""
        return len(np.unique(self.images))

    def take(self, rows):
        """The people of `rows` (indices or a boolean mask)."""
        arrays = [f.name for f in fields(self) if f.name not in ("skeleton", "unusable")]
        return replace(self, **{name: getattr(self, name)[rows] for name in arrays})


@dataclass(frozen=True)
class Person:
    """One row of `People`, as a reader finds it: a ground-truth person, so without a score. Same shapes and units."""

    id: int
    image_id: int
    image: str
    image_size: tuple[int, int]
    box: np.ndarray
    keypoints: np.ndarray
    visible: np.ndarray
    area: float
    category: int = PERSON


def people_from_rows(skeleton, rows, unusable):
    """The `Person` rows (possibly none) and the (id, reason) pairs in `unusable`, as `People`."""

    def column(name, dtype, *shape):
        return np.array([getattr(row, name) for row in rows], dtype=dtype).reshape(len(rows), *shape)

    return People(
        skeleton=skeleton,
        ids=column("id", np.int64),
        image_ids=column("image_id", np.int64),
        images=column("image", np.str_),
        image_sizes=column("image_size", np.int64, 2),
        boxes=column("box", np.float64, 4),
        keypoints=column("keypoints", np.float64, len(skeleton), 2),
        visible=column("visible", np.int64, len(skeleton)),
        areas=column("area", np.float64),
        scores=np.ones(len(rows)),
        unusable=tuple(unusable),
        categories=column("category", np.int64),
    )


def summary(people):
    """How often each keypoint is labelled: one row a keypoint, columns keypoint, labelled, visible, hidden (counts of
    people; labelled = visible + hidden)."""
    visible = (people.visible == 2).sum(axis=0)
    hidden = (people.visible == 1).sum(axis=0)
    return pd.DataFrame(
        {"keypoint": people.skeleton.keypoints, "labelled": visible + hidden, "visible": visible, "hidden": hidden}
    )


def check_images(people):
    """Decode every image of `people` once. Returns (path, reason) of each that is missing, unreadable, cut short, or
    of another size than `people.image_sizes`."""
    images, first = np.unique(people.images, return_index=True)
    images, sizes = images.tolist(), people.image_sizes[first].tolist()
    reasons = thread_map(_fault_of_image, images, sizes, desc="checking images", unit="image")
    return [(image, reason) for image, reason in zip(images, reasons, strict=True) if reason]


def _fault_of_image(path, expected_size):
    """What is wrong with the image file, or None. `expected_size`: [height, width].

    Pillow and not OpenCV, which fills what is missing of a JPEG with grey and says nothing.
    """
    try:
        with Image.open(path) as image:
            check_picture_size(image)
            size = [image.height, image.width]
            with LARGE if size[0] * size[1] > LARGE_PICTURE else contextlib.nullcontext():
                image.draft("L", (1, 1))  # a JPEG: read the whole file, but decode to an eighth of its size
                image.load()
    except Exception as error:  # a broken file can make an image library raise anything
        return _why_unreadable(error)
    if size != expected_size:
        return f"is {size[1]} x {size[0]} pixels, its annotation says {expected_size[1]} x {expected_size[0]}"
    return None


def check_picture_size(image):
    """Raise ValueError for an opened PIL image that has too many pixels to decode."""
    if image.width * image.height > LARGEST_PICTURE:
        raise ValueError(f"{image.width} x {image.height} pixels are too many; {LARGEST_PICTURE:,} is the limit")


def _why_unreadable(error):
    return "no such file" if isinstance(error, FileNotFoundError) else f"not readable as an image ({error})"


# ---- What readers check of one person. Each raises Unusable with a reason that a user can act on.


class Unusable(Exception):
    """Something is wrong with this one person; the message is the reason. Others may be fine."""


def read_image_size(path):
    """(height, width) from the header of the image file."""
    try:
        with Image.open(path) as image:
            check_picture_size(image)
            return image.height, image.width
    except Exception as error:  # a broken file can make an image library raise anything
        raise Unusable(f"image {path}: {_why_unreadable(error)}") from None


def image_inside(folder, name):
    """The path, as str, of image `name` in `folder`. The name comes from a file that anyone may have written: it must
    not lead out of the folder."""
    if not isinstance(name, str) or not name:
        raise Unusable(f"image name {name!r} is not a file name")
    if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
        raise Unusable(f"image name {name!r} leads out of the images folder")
    return str(folder / name)


def whole_number(value, what):
    """The int `value` of a JSON file. `what` names it in the reason."""
    if type(value) is not int or abs(value) >= 2**63:
        raise Unusable(f"{what}: {value!r} is not a whole number")
    return value


def finite_numbers(value, count, what):
    """(count,) float64 from the list `value` of a JSON file. `what` names it in the reason."""
    if not isinstance(value, list) or len(value) != count:
        found = f"a list of {len(value)}" if isinstance(value, list) else repr(value)
        raise Unusable(f"{what}: {found} where a list of {count} numbers belongs")
    for number in value:
        if type(number) not in (int, float) or not abs(number) < LARGEST_NUMBER:
            raise Unusable(f"{what}: {number!r} is not a finite number")
    return np.array(value, dtype=np.float64)


def checked_box(box, image_size):
    """`box`, (4,) x, y, width, height, which must have an area and overlap its image of (height, width) pixels."""
    x, y, width, height = box
    if not (width > 0 and height > 0):
        raise Unusable(f"box has no area ({width:g} x {height:g} pixels)")
    if x >= image_size[1] or y >= image_size[0] or x + width <= 0 or y + height <= 0:
        raise Unusable(f"box lies wholly outside its image ({image_size[1]} x {image_size[0]} pixels)")
    return box
