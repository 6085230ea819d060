"""A detector's boxes as People."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np

from rsnlib.data.people import (
    PERSON,
    Person,
    Unusable,
    check_images,
    checked_box,
    finite_numbers,
    image_inside,
    people_from_rows,
    whole_number,
)
from rsnlib.data.readers import coco
from rsnlib.data.skeletons import COCO
from rsnlib.errors import UserError
from rsnlib.files import read_json


def read_detections(path, root, split, skeleton=COCO):
    """People found by a detector in the images of a split of the data set in folder `root`, in COCO's format, in the
    file's order: without keypoints, `scores` the detector's, `areas` the boxes', `ids` the entries of the file, from 1.

    path: a COCO results JSON: a list of {image_id, category_id, bbox, score}; categories that do not have the skeleton
        in the data set are passed over
    split: as for `coco.split_files`, or, of pictures without annotations, "test-dev2017" or "test-challenge2017"

    Raises UserError for a malformed file, where it names the entry, and for images that are missing or broken.
    """
    listing, folder = split_files(root, split)
    content = read_json(listing)
    images = coco.images_by_id(listing, content)
    categories = coco.category_ids(listing, content, skeleton) if "annotations" in content else [PERSON]
    detections = read_json(path)
    if not isinstance(detections, list):
        raise UserError(f"{path}: not a list of detections; is it a COCO results file?")
    rows, scores = [], []
    for index, detection in enumerate(detections):
        try:
            found = detected_person(detection, categories)
            if found is None:
                continue
            box, score = found
            rows.append(_read_detection(index + 1, detection, box, images, listing, folder, skeleton))
            scores.append(score)
        except Unusable as reason:
            raise UserError(f"{path}: entry {index}: {reason}") from None
    if not rows:
        wanted = ", ".join(map(str, categories))
        raise UserError(f"{path}: not a single person (category_id {wanted}) among {len(detections)} detections")
    people = replace(people_from_rows(skeleton, rows, ()), scores=np.array(scores))
    for image, reason in check_images(people):
        raise UserError(f"{image}: {reason}")
    return people


def detected_person(entry, categories, usual=None):
    """The box (4,), x, y, width, height in pixels, and the score of one entry of a detector's results; None where its
    category is not one of `categories`. Raises Unusable with what is wrong with the entry; whether the box fits,
    `checked_box` knows.

    usual: what an entry means that has no `category_id` or no `score`; None: it must have both
    """
    if not isinstance(entry, dict):
        raise Unusable("not an object with image_id, category_id, bbox and score")
    entry = (usual or {}) | entry
    if whole_number(entry.get("category_id"), "category_id") not in categories:
        return None
    (score,) = finite_numbers([entry.get("score")], 1, "score")
    return finite_numbers(entry.get("bbox"), 4, "bbox"), score


def withheld(reader, split):
    """Whether the joints of a split's people are known to COCO's or MPII's authors alone."""
    if reader == "mpii":
        return split == "test"
    return reader == "coco" and isinstance(split, str) and bool(re.fullmatch(r"test(-dev|-challenge)?20\d\d", split))


def split_files(root, split):
    """The file that lists a split's images, and their folder. COCO's test splits have no annotations, and share one."""
    root = Path(root)
    if withheld("coco", split):
        return root / "annotations" / f"image_info_{split}.json", root / "images" / f"test{split[-4:]}"
    listing, folder = coco.split_files(split)
    return root / listing, root / folder


def _read_detection(entry, detection, box, images, listing, folder, skeleton):
    image_id = whole_number(detection.get("image_id"), "image_id")
    if image_id not in images:
        raise Unusable(f"image_id {image_id} is not among the images of {listing}")
    image = images[image_id]
    image_size = tuple(whole_number(image.get(side), f"its image's {side}") for side in ("height", "width"))
    box = checked_box(box, image_size)
    return Person(
        id=entry,
        image_id=image_id,
        image=image_inside(folder, image.get("file_name")),
        image_size=image_size,
        box=box,
        keypoints=np.zeros((len(skeleton), 2)),
        visible=np.zeros(len(skeleton)),
        area=box[2] * box[3],
        category=detection["category_id"],
    )
