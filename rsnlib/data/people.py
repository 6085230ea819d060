"""People: what every reader returns whatever its files look like, and the checks that readers share."""

from collections import Counter
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

import numpy as np

from rsnlib.data.skeletons import Skeleton
from rsnlib.errors import UserError

PERSON = 1  # COCO's category_id
LARGEST_NUMBER = 1e9  # no measurement in pixels comes near; NumPy could not hold an integer of a thousand digits
LARGEST_AREA = 1e10  # pixels; pycocotools ignores whoever is larger
BOX_ENLARGEMENT = 1.2  # of a box around keypoints, about its centre: our choice


@dataclass(frozen=True)
class People:
    """One row per person; P people, K keypoints."""

    skeleton: Skeleton  # the keypoints' names and order
    ids: np.ndarray  # (P,) int64, annotation ids (row numbers from 1 where the data set has none)
    image_ids: np.ndarray  # (P,) int64
    images: np.ndarray  # (P,) str, paths of the image files
    image_sizes: np.ndarray  # (P, 2) int64, height and width
    boxes: np.ndarray  # (P, 4) float64, x, y, width, height in pixels
    keypoints: np.ndarray  # (P, K, 2) float64, x and y in pixels; meaningless where not labelled
    visible: np.ndarray  # (P, K) int64, 2 visible, 1 hidden but labelled, 0 not labelled
    areas: np.ndarray  # (P,) float64, pixels covered by the person (of the box where the data set has none)
    scores: np.ndarray  # (P,) float64, the box's confidence, 1 for ground truth
    categories: np.ndarray  # (P,) int64, COCO's category_id
    upright: np.ndarray  # (P,) bool, the image is turned as its EXIF says, not read as stored
    unusable: tuple = ()  # (id, reason) of each annotation that was left out because something is wrong with it
    passed_over: tuple = ()  # the reason, for each annotation of nobody to learn from: a crowd, no labelled keypoints
    exif: tuple = ()  # (path, how it is read) of each image that its camera marked as rotated

    def __len__(self):
        return len(self.ids)

    @property
    def arrays(self):
        """Every array by its name."""
        return {name: value for name, value in vars(self).items() if isinstance(value, np.ndarray)}

    @property
    def image_count(self):
        """Number of different images that show these people."""
        return len(np.unique(self.images))

    def take(self, rows):
        """Return the people of `rows` (indices or a boolean mask)."""
        return replace(self, **{name: array[rows] for name, array in self.arrays.items()})


@dataclass(frozen=True)
class Person:
    """One row of `People`, of the same shapes and units, as a reader builds it. Raises Unusable for a box without area
    or wholly outside the image, and for an area that no picture has."""

    id: int
    image_id: int
    image: str
    image_size: tuple[int, int]
    box: np.ndarray
    keypoints: np.ndarray
    visible: np.ndarray
    area: float | None = None  # the box's
    score: float = 1
    category: int = PERSON

    def __post_init__(self):
        check_box(self.box, self.image_size)
        area = self.box[2] * self.box[3] if self.area is None else self.area
        if not 0 < area < LARGEST_AREA:
            raise Unusable(f"area is {area:g}")


def collect(skeleton, entries, read):
    """Return `People`, possibly none, of a file's entries.

    entries: (id, entry) each; read: takes both, returns a `Person`, or the reason to pass over the entry, or None for
        none, and may raise Unusable
    """
    rows, passed_over, unusable = [], [], []
    for identity, entry in entries:
        try:
            found = read(identity, entry)
            (rows if isinstance(found, Person) else passed_over).append(found)
        except Unusable as reason:
            unusable.append((str(identity), str(reason)))

    def column(name, dtype, *shape):
        return np.array([getattr(row, name) for row in rows], dtype=dtype).reshape(len(rows), *shape)

    boxes, areas = column("box", np.float64, 4), column("area", np.float64)
    return People(
        skeleton=skeleton,
        ids=column("id", np.int64),
        image_ids=column("image_id", np.int64),
        images=column("image", np.str_),
        image_sizes=column("image_size", np.int64, 2),
        boxes=boxes,
        keypoints=column("keypoints", np.float64, len(skeleton), 2),
        visible=column("visible", np.int64, len(skeleton)),
        areas=np.where(np.isnan(areas), boxes[:, 2] * boxes[:, 3], areas),  # None becomes NaN
        scores=column("score", np.float64),
        categories=column("category", np.int64),
        upright=np.zeros(len(rows), bool),
        unusable=tuple(unusable),
        passed_over=tuple(filter(None, passed_over)),
    )


def count_reasons(reasons, most=10):
    """Return the most frequent reasons and the number of each as text, "2: a crowd; 1: ..."."""
    return "; ".join(f"{count}: {reason}" for reason, count in Counter(reasons).most_common(most))


def summary(people):
    """Count the people of whom each keypoint is labelled: a data frame, one row per keypoint, columns keypoint,
    labelled, visible, hidden (labelled = visible + hidden)."""
    import pandas as pd  # here, so that training from a crop store does without it

    visible = (people.visible == 2).sum(axis=0)
    hidden = (people.visible == 1).sum(axis=0)
    return pd.DataFrame(
        {"keypoint": people.skeleton.keypoints, "labelled": visible + hidden, "visible": visible, "hidden": hidden}
    )


# ---- Checks of one person. Each raises Unusable with a reason that a user can act on.


class Unusable(Exception):
    """Something is wrong with one person, and the message says what; other people may be fine."""


def image_inside(folder, name):
    """Return the path, a str, of image `name` in `folder`. The name comes from a file that anyone may have written, so
    one that leads out of the folder is refused."""
    if not isinstance(name, str) or not name:
        raise Unusable(f"image name {name!r} is not a file name")
    if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
        raise Unusable(f"image name {name!r} leads out of the images folder")
    return str(folder / name)


def whole_number(value, what):
    """Return the int `value` of a JSON file. `what` names it in the reason."""
    if type(value) is not int or abs(value) >= 2**63:
        raise Unusable(f"{what}: {value!r} is not a whole number")
    return value


def finite_numbers(value, count, what):
    """Return the list `value` of a JSON file as (count,) float64. `what` names it in the reason."""
    if not isinstance(value, list) or len(value) != count:
        found = f"a list of {len(value)}" if isinstance(value, list) else repr(value)
        raise Unusable(f"{what}: {found} where a list of {count} numbers belongs")
    for number in value:
        if type(number) not in (int, float) or not abs(number) < LARGEST_NUMBER:
            raise Unusable(f"{what}: {number!r} is not a finite number")
    return np.array(value, dtype=np.float64)


def box_around(keypoints, labelled):
    """Return the bounding box (4,) of the labelled among K keypoints, enlarged by BOX_ENLARGEMENT about its centre.

    keypoints: (K, 2), pixels; labelled: (K,) bool
    """
    if labelled.sum() < 2:
        raise Unusable(f"keypoints: {labelled.sum()} labelled, a box takes at least 2")
    lowest, highest = keypoints[labelled].min(axis=0), keypoints[labelled].max(axis=0)
    center, size = (lowest + highest) / 2, (highest - lowest) * BOX_ENLARGEMENT
    return np.concatenate([center - size / 2, size])


def check_box(box, image_size):
    """Check that a box (4,) has an area and overlaps its image of (height, width) pixels."""
    x, y, width, height = box
    if not (width > 0 and height > 0):
        raise Unusable(f"box has no area ({width:g} x {height:g} pixels)")
    if x >= image_size[1] or y >= image_size[0] or x + width <= 0 or y + height <= 0:
        raise Unusable(f"box lies wholly outside its image ({image_size[1]} x {image_size[0]} pixels)")


# ---- Checks of the boxes of a whole file. Each raises UserError with what the boxes look like and what to do.


def check_pixels(file, boxes):
    """Check that boxes (P, 4) are in pixels, not normalised."""
    if len(boxes) and np.abs(boxes).max() < 2 and (boxes % 1).any():
        raise UserError(
            f"{file}: its boxes look normalised, fractions of their pictures, as YOLO has them; boxes here are x, y "
            f"(of the upper left corner), width, height in pixels: multiply by the width and height of each picture"
        )


def check_not_corners(file, boxes, image_sizes):
    """Check that boxes (P, 4) are x, y, width, height, not two corners: as corners all would lie within their images of
    (height, width) pixels, (P, 2), while as x, y, width, height most reach out by a tenth of the image or more."""
    extents = np.reshape(image_sizes, (-1, 2))[:, ::-1]
    first, second = boxes[:, :2], boxes[:, 2:]
    corners = (first > -1) & (first <= second) & (second < extents + 1)
    reach_out = (first + second > 1.1 * extents).any(axis=1)
    if len(boxes) and corners.all() and reach_out.mean() > 0.5:
        raise UserError(
            f"{file}: its boxes look like two corners, x, y, x, y; boxes here are x, y, width, height in pixels: "
            f"subtract the first corner from the second (if they are that, cut off what lies outside their pictures)"
        )
