"""A detector's boxes, a JSON in COCO's results format: as People, or looked up picture by picture."""

import contextlib
import sys
from collections import defaultdict
from pathlib import Path, PurePosixPath

import numpy as np

from rsnlib.data.images import check_images
from rsnlib.data.people import (
    PERSON,
    Person,
    Unusable,
    check_box,
    check_not_corners,
    check_pixels,
    collect,
    finite_numbers,
    whole_number,
)
from rsnlib.data.readers import coco
from rsnlib.data.skeletons import COCO
from rsnlib.errors import UserError
from rsnlib.files import read_json


def read_detections(path, root, split, skeleton=COCO, min_score=0, exif="ignore"):
    """Read the people whom a detector found in a split of the data set in folder `root`, in COCO's format: without
    keypoints, in the file's order, `scores` the detector's, `areas` the boxes', `ids` the entries of the file, from 1.

    path: a COCO results JSON: a list of {image_id, category_id, bbox, score}; categories that do not have the skeleton
        in the data set are passed over, and boxes of a score below `min_score`. An image_id may also be the name of the
        image's file, with or without its ending, as in Ultralytics' results
    exif: as for `read_people`; split, too, or, of images without annotations, "test-dev2017" or "test-challenge2017"

    Boxes without area or wholly outside their image are left out with a warning. Raises UserError for a malformed file,
    where it names the entry, and for images that are missing or broken.
    """
    listing, folder = (Path(root) / file for file in coco.split_files(split))
    content = read_json(listing)
    images = coco.images_by_id(listing, content)
    categories = coco.category_ids(listing, content, skeleton) if "annotations" in content else [PERSON]
    detections = read_json(path)
    if not isinstance(detections, list):
        raise UserError(f"{path}: not a list of detections; is it a COCO results file?")
    ids = _ids_by_name(images)

    def read_person(index, detection):
        found = _read_box(detection, categories, min_score=min_score)
        if found is None:
            return None
        image_id = detection.get("image_id")
        if isinstance(image_id, str) and image_id not in images:
            detection = detection | {"image_id": ids.get(image_id, _number(image_id))}
        image = coco.image_of(detection, images, folder, f"the images of {listing}")
        try:
            check_box(found[:4], image[2])
        except Unusable as reason:
            print(f"warning: {path}: entry {index}: {reason}; left out", file=sys.stderr)
            return None
        unlabelled = np.zeros((len(skeleton), 2)), np.zeros(len(skeleton))
        return Person(index + 1, *image, found[:4], *unlabelled, score=found[4], category=detection["category_id"])

    people = collect(skeleton, enumerate(detections), read_person)
    for index, reason in people.unusable:
        raise UserError(f"{path}: entry {index}: {reason}")
    if not len(people):
        wanted = f"category_id {', '.join(map(str, categories))}" + (f", score {min_score:g}" if min_score else "")
        raise UserError(f"{path}: not a single person ({wanted}) among {len(detections)} detections")
    check_pixels(path, people.boxes)
    check_not_corners(path, people.boxes, people.image_sizes)
    people, faults = check_images(people, exif)
    for image, reason in faults.items():
        raise UserError(f"{image}: {reason}")
    return people


def _ids_by_name(images):
    """Return {name: id} of the `images` of a COCO file, by every file name, with and without its ending, that only one
    has."""
    found = defaultdict(set)
    for image_id, (_, image) in images.items():
        path = PurePosixPath(str(image.get("file_name")))
        for name in (path.name, path.stem, str(path)):
            found[name].add(image_id)
    return {name: ids.pop() for name, ids in found.items() if len(ids) == 1}


def _number(text):
    """Return the number that a text of digits is, another text as it is."""
    return int(text) if text.isdecimal() and len(text) < 19 else text


def _read_box(entry, categories, defaults=None, min_score=0):
    """Return x, y, width, height in pixels and score of one entry, (5,), or None where its category is not one of
    `categories` or its score below `min_score`. Raises Unusable.

    defaults: the `category_id` and `score` of an entry that has none; None: each must have both
    """
    if not isinstance(entry, dict):
        raise Unusable("not an object with image_id, category_id, bbox and score")
    entry = (defaults or {}) | entry
    if whole_number(entry.get("category_id"), "category_id") not in categories:
        return None
    score = finite_numbers([entry.get("score")], 1, "score")
    if score < min_score:
        return None
    return np.concatenate([finite_numbers(entry.get("bbox"), 4, "bbox"), score])


class Detections:
    """A detector's boxes by picture, for pictures of one's own: a list of objects, each with `bbox`, `score` and
    whose box it is.

    A box belongs to the picture whose file name, with or without its ending, is its `file_name` (or its `image_id`,
    where that is text), with as many folders as it names; else to the one that its `image_id`, a number or digits,
    numbers, as COCO does: 000000000785.jpg is 785. In COCO's annotation format, {"images": ..., "annotations": ...},
    the images' names count. In a video a box is of the frame that `frame` numbers from 0, or of all. Passed over are
    boxes of a `category_id` that is not one of `categories` (COCO's person is 1) and of a score below `min_score`.
    Raises UserError where the file is not of this format, has boxes of no category or normalised ones.
    """

    def __init__(self, path, categories=(PERSON,), min_score=0):
        self.path, self.categories, self.min_score = path, categories, min_score
        self.defaults = {"category_id": categories[0], "score": 1}
        contents = read_json(path)
        self.by_picture = defaultdict(lambda: defaultdict(list))  # {name: {frame: [(index, entry), ...]}}
        place = ""
        try:
            names = {}
            if isinstance(contents, dict):
                names = {image["id"]: image["file_name"] for image in contents["images"]}
                contents = contents["annotations"]
            for index, entry in enumerate(contents):
                place = f"entry {index}: "
                picture = entry["file_name"] if "file_name" in entry else entry["image_id"]
                picture = names.get(picture, _number(picture) if isinstance(picture, str) else picture)
                key = str(PurePosixPath(picture)) if isinstance(picture, str) else whole_number(picture, "image_id")
                frame = entry.get("frame")
                frame = None if frame is None else whole_number(frame, "frame")
                self.by_picture[key][frame].append((index, entry))
            found = {(self.defaults | entry)["category_id"] for entry in contents}
        except (AttributeError, KeyError, TypeError, Unusable) as error:
            raise UserError(
                f"{path}: not a detector's boxes in COCO's results format: a list of objects with `bbox`, `score` and "
                f"`image_id` or `file_name` ({place}{type(error).__name__}: {error})"
            ) from None
        if contents and not found & set(categories):
            wanted, theirs = (", ".join(map(str, sorted(each, key=str))) for each in (categories, found))
            raise UserError(
                f"{path}: none of its {len(contents)} boxes has the category_id of the network: {wanted}, not {theirs}"
            )
        check_pixels(path, self._readable(enumerate(contents)))

    def know(self, path):
        """Return True if there is a box for the picture or video at this path."""
        return any(name in self.by_picture for name in _names(path))

    def find(self, path, size, frame=None):
        """Return the boxes, (P, 5) with scores, in the picture of `size`, (height, width), at this path, or in a frame
        of the video; and messages about those that are malformed, without area or outside the picture."""
        boxes, faults = [], []
        for index, entry in self._entries(path, {None, frame}):
            try:
                box = _read_box(entry, self.categories, self.defaults, self.min_score)
                if box is not None:
                    check_box(box[:4], size)
                    boxes.append(box)
            except Unusable as reason:
                where = path if frame is None else f"{path}, frame {frame}"
                faults.append(f"{self.path}: entry {index}, of {where}: {reason}; left out")
        return np.array(boxes).reshape(-1, 5), faults

    def check(self, sizes):
        """Raise UserError where the boxes look like two corners in the pictures of {path: (height, width)}."""
        boxes = {path: self._readable(self._entries(path)) for path in sizes}
        each = [size for path, size in sizes.items() for _ in boxes[path]]
        check_not_corners(self.path, np.concatenate([*boxes.values(), np.zeros((0, 4))]), each)

    def _entries(self, path, frames=None):
        """Return the (index, entry) of a picture, or of some frames of a video, all if None, in the file's order."""
        by_frame = [self.by_picture[name] for name in _names(path) if name in self.by_picture]
        found = [entries for each in by_frame for frame, entries in each.items() if frames is None or frame in frames]
        return sorted(sum(found, []), key=lambda each: each[0])

    def _readable(self, entries):
        """Return the boxes, (N, 4), of those of the (index, entry) that are for the network and can be read."""
        boxes = []
        for _, entry in entries:
            with contextlib.suppress(Unusable):
                box = _read_box(entry, self.categories, self.defaults, self.min_score)
                boxes += [] if box is None else [box[:4]]
        return np.array(boxes).reshape(-1, 4)


def _names(path):
    """Return every name under which boxes of the picture may be listed."""
    path = Path(path)
    names = [str(PurePosixPath(*path.parts[first:])) for first in range(len(path.parts))]
    names += [str(PurePosixPath(name).with_suffix("")) for name in names if PurePosixPath(name).suffix]
    return [*names, int(path.stem)] if path.stem.isdecimal() else names
