"""A detector's boxes, a JSON in COCO's results format: as People, or looked up picture by picture."""

from collections import defaultdict
from pathlib import Path, PurePosixPath

import numpy as np

from rsnlib.data.images import check_images
from rsnlib.data.people import PERSON, Person, Unusable, check_box, collect, finite_numbers, whole_number
from rsnlib.data.readers import coco
from rsnlib.data.skeletons import COCO
from rsnlib.errors import UserError
from rsnlib.files import read_json


def read_detections(path, root, split, skeleton=COCO):
    """Read the people whom a detector found in a split of the data set in folder `root`, in COCO's format: without
    keypoints, in the file's order, `scores` the detector's, `areas` the boxes', `ids` the entries of the file, from 1.

    path: a COCO results JSON: a list of {image_id, category_id, bbox, score}; categories that do not have the skeleton
        in the data set are passed over
    split: as for `read_people`, or, of images without annotations, "test-dev2017" or "test-challenge2017"

    Raises UserError for a malformed file, where it names the entry, and for images that are missing or broken.
    """
    listing, folder = (Path(root) / file for file in coco.split_files(split))
    content = read_json(listing)
    images = coco.images_by_id(listing, content)
    categories = coco.category_ids(listing, content, skeleton) if "annotations" in content else [PERSON]
    detections = read_json(path)
    if not isinstance(detections, list):
        raise UserError(f"{path}: not a list of detections; is it a COCO results file?")

    def read_person(index, detection):
        found = _read_box(detection, categories)
        if found is None:
            return None
        image = coco.image_of(detection, images, folder, f"the images of {listing}")
        unlabelled = np.zeros((len(skeleton), 2)), np.zeros(len(skeleton))
        return Person(index + 1, *image, found[:4], *unlabelled, score=found[4], category=detection["category_id"])

    people = collect(skeleton, enumerate(detections), read_person)
    for index, reason in people.unusable:
        raise UserError(f"{path}: entry {index}: {reason}")
    if not len(people):
        wanted = ", ".join(map(str, categories))
        raise UserError(f"{path}: not a single person (category_id {wanted}) among {len(detections)} detections")
    for image, reason in check_images(people):
        raise UserError(f"{image}: {reason}")
    return people


def _read_box(entry, categories, defaults=None):
    """Return x, y, width, height in pixels and score of one entry, (5,), or None where its category is not one of
    `categories`. Raises Unusable.

    defaults: the `category_id` and `score` of an entry that has none; None: each must have both
    """
    if not isinstance(entry, dict):
        raise Unusable("not an object with image_id, category_id, bbox and score")
    entry = (defaults or {}) | entry
    if whole_number(entry.get("category_id"), "category_id") not in categories:
        return None
    score = finite_numbers([entry.get("score")], 1, "score")
    return np.concatenate([finite_numbers(entry.get("bbox"), 4, "bbox"), score])


class Detections:
    """A detector's boxes by picture, for pictures of one's own: a list of objects, each with `bbox`, `score` and
    whose box it is.

    A box belongs to the picture whose file name is its `file_name` (or its `image_id`, where that is text), with as
    many folders as it names; else to the one that its `image_id` numbers, as COCO does: 000000000785.jpg is 785. In
    COCO's annotation format, {"images": ..., "annotations": ...}, the images' names count. In a video a box is of the
    frame that `frame` numbers from 0, or of all. Boxes of a `category_id` that is not one of `categories` are passed
    over; COCO's person is 1. Raises UserError where the file is not of this format, or has boxes of no category.
    """

    def __init__(self, path, categories=(PERSON,)):
        self.path, self.categories = path, categories
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
                picture = names.get(picture, picture)
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
            wanted = ", ".join(map(str, categories))
            raise UserError(f"{path}: none of its {len(contents)} boxes has the category_id of the network: {wanted}")

    def know(self, path):
        """Return True if there is a box for the picture or video at this path."""
        return any(name in self.by_picture for name in _names(path))

    def find(self, path, picture, frame=None):
        """Return the boxes, (P, 5) with scores, in the picture (H, W, 3) at this path, or in a frame of the video.
        Raises UserError for a box that is malformed or outside the picture."""
        by_frame = [self.by_picture[name] for name in _names(path) if name in self.by_picture]
        boxes = []
        for index, entry in sorted(entry for each in by_frame for key in {None, frame} for entry in each.get(key, ())):
            try:
                box = _read_box(entry, self.categories, self.defaults)
                if box is not None:
                    check_box(box[:4], picture.shape[:2])
                    boxes.append(box)
            except Unusable as reason:
                where = path if frame is None else f"{path}, frame {frame}"
                raise UserError(f"{self.path}: entry {index}, of {where}: {reason}") from None
        return np.array(boxes).reshape(-1, 5)


def _names(path):
    """Return every name under which boxes of the picture may be listed."""
    path = Path(path)
    names = [str(PurePosixPath(*path.parts[first:])) for first in range(len(path.parts))]
    return [*names, int(path.stem)] if path.stem.isdecimal() else names
