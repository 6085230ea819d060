"""COCO keypoints (cocodataset.org) and data sets in the same format."""

import numpy as np

from rsnlib.datasets.people import (
    Person,
    Unusable,
    checked_box,
    finite_numbers,
    image_inside,
    people_from_rows,
    whole_number,
)
from rsnlib.runtime import UserError, read_json
from rsnlib.skeletons import COCO


def read(annotations_file, images_folder, split):
    """The people of one person_keypoints_*.json that have a labelled keypoint, as in the released RSN code: crowds,
    people without keypoints and other categories are passed over.

    `split` is already in both paths. Raises UserError where the file as a whole is not COCO's.
    """
    content = read_json(annotations_file)
    images = images_by_id(annotations_file, content)
    person_category = _person_category(annotations_file, _records(annotations_file, content, "categories"))

    rows, unusable, seen = [], [], set()
    for index, annotation in enumerate(_records(annotations_file, content, "annotations")):
        try:
            if not _is_training_person(annotation, person_category):
                continue
            person = _read_person(annotation, images, images_folder)
            if person.id in seen:
                raise Unusable("an earlier annotation has the same id")
            seen.add(person.id)
            rows.append(person)
        except Unusable as reason:
            unusable.append((str(annotation.get("id", f"annotations[{index}]")), str(reason)))
    return people_from_rows(COCO, rows, unusable)


def _records(file, content, key):
    """The list of objects under top-level `key`."""
    records = content.get(key) if isinstance(content, dict) else None
    if not isinstance(records, list) or not all(isinstance(record, dict) for record in records):
        raise UserError(f"{file}: no list of objects under top-level key `{key}`; is it a COCO keypoint file?")
    return records


def images_by_id(file, content):
    """The `images` of a COCO file: {id: {"file_name": ..., "height": ..., "width": ...}}."""
    images = {}
    for index, image in enumerate(_records(file, content, "images")):
        if type(image.get("id")) is not int:
            raise UserError(f"{file}: images[{index}]: key `id` is missing or not a whole number")
        if image["id"] in images:
            raise UserError(f"{file}: images[{index}]: key `id`: an earlier image is also {image['id']}")
        images[image["id"]] = image
    return images


def _person_category(file, categories):
    """The id of the category "person", whose keypoints must be COCO's 17 (where the file names them)."""
    person = next((category for category in categories if category.get("name") == "person"), None)
    if person is None or type(person.get("id")) is not int:
        raise UserError(f"{file}: key `categories` has no category named person with a whole-number `id`")
    if person.get("keypoints", list(COCO.keypoints)) != list(COCO.keypoints):
        raise UserError(f"{file}: key `categories`: the person's `keypoints` are not COCO's 17 in COCO's order")
    return person["id"]


def _is_training_person(annotation, person_category):
    """Whether the annotation is of one person with at least one labelled keypoint."""
    if annotation.get("iscrowd") == 1 or whole_number(annotation.get("category_id"), "category_id") != person_category:
        return False
    keypoints = annotation.get("keypoints")
    unlabelled = isinstance(keypoints, list) and len(keypoints) == 3 * len(COCO) and not any(keypoints[2::3])
    return annotation.get("num_keypoints") != 0 and not unlabelled


def _read_person(annotation, images, images_folder):
    image_id = whole_number(annotation.get("image_id"), "image_id")
    if image_id not in images:
        raise Unusable(f"image_id {image_id} is not among the file's images")
    image = images[image_id]
    image_size = tuple(whole_number(image.get(side), f"its image's {side}") for side in ("height", "width"))
    keypoints = finite_numbers(annotation.get("keypoints"), 3 * len(COCO), "keypoints").reshape(-1, 3)
    visible = keypoints[:, 2]
    if not np.isin(visible, (0, 1, 2)).all():
        raise Unusable("keypoints: a visibility flag is not 0, 1 or 2")
    box = checked_box(finite_numbers(annotation.get("bbox"), 4, "bbox"), image_size)
    (area,) = finite_numbers([annotation.get("area", box[2] * box[3])], 1, "area")
    if area <= 0:
        raise Unusable(f"area is {area:g}")
    return Person(
        id=whole_number(annotation.get("id"), "id"),
        image_id=image_id,
        image=image_inside(images_folder, image.get("file_name")),
        image_size=image_size,
        box=box,
        keypoints=keypoints[:, :2],
        visible=visible,
        area=area,
    )
