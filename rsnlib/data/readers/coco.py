"""COCO keypoints (cocodataset.org) and data sets in the same format."""

import numpy as np

from rsnlib.data.people import (
    Person,
    Unusable,
    checked_box,
    finite_numbers,
    image_inside,
    people_from_rows,
    whole_number,
)
from rsnlib.data.skeletons import COCO
from rsnlib.errors import UserError
from rsnlib.files import read_json


def split_files(split):
    """Where a data set in COCO's format has the annotations of a split and its images, below its root.

    split: a name, by which COCO calls both, or {"annotations": a file, "images": a folder}
    """
    if isinstance(split, dict):
        return split["annotations"], split["images"]
    return f"annotations/person_keypoints_{split}.json", f"images/{split}"


def read(annotations_file, images_folder, split, skeleton=COCO):
    """The people (or hands, animals, ...) of one file that have a labelled keypoint, as in the released RSN code:
    crowds, those without keypoints and categories with another skeleton are passed over.

    `split` is already in both paths. Raises UserError where the file as a whole is not of this skeleton.
    """
    content = read_json(annotations_file)
    images = images_by_id(annotations_file, content)
    categories = category_ids(annotations_file, content, skeleton)

    rows, unusable, seen = [], [], set()
    for index, annotation in enumerate(_records(annotations_file, content, "annotations")):
        try:
            if not _is_training_person(annotation, categories, skeleton):
                continue
            person = _read_person(annotation, images, images_folder, skeleton)
            if person.id in seen:
                raise Unusable("an earlier annotation has the same id")
            seen.add(person.id)
            rows.append(person)
        except Unusable as reason:
            unusable.append((str(annotation.get("id", f"annotations[{index}]")), str(reason)))
    return people_from_rows(skeleton, rows, unusable)


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


def category_ids(file, content, skeleton):
    """The ids of the categories of a COCO file that have the skeleton: of COCO's own, the person; of another, all with
    exactly its keypoints (AP-10K has one a species) or, where the file names no keypoints, its only category."""
    categories = _records(file, content, "categories")
    if skeleton == COCO:
        return [_person_category(file, categories)]
    named = [category for category in categories if category.get("keypoints")]
    found = [category for category in named if category["keypoints"] == list(skeleton.keypoints)]
    if not named and len(categories) == 1:
        found = categories
    if not found:
        theirs = "; ".join(f"{each.get('name')}: {_listed(each.get('keypoints'))}" for each in categories)
        raise UserError(
            f"{file}: key `categories`: none has the keypoints of the skeleton {skeleton.name}, in their order.\n"
            f"  {skeleton.name}: {_listed(skeleton.keypoints)}\n  in the file: {theirs or 'no categories'}"
        )
    if any(type(category.get("id")) is not int for category in found):
        raise UserError(f"{file}: key `categories`: key `id` is missing or not a whole number")
    return [category["id"] for category in found]


def _listed(keypoints):
    return ", ".join(map(str, keypoints)) if keypoints and isinstance(keypoints, list | tuple) else "no keypoints"


def _person_category(file, categories):
    """The id of the category "person", whose keypoints must be COCO's 17 (where the file names them)."""
    person = next((category for category in categories if category.get("name") == "person"), None)
    other = "; a data set with other keypoints says so with `skeleton` in params.yaml"
    if person is None or type(person.get("id")) is not int:
        raise UserError(f"{file}: key `categories` has no category named person with a whole-number `id`{other}")
    if person.get("keypoints", list(COCO.keypoints)) != list(COCO.keypoints):
        raise UserError(f"{file}: key `categories`: the person's `keypoints` are not COCO's 17 in COCO's order{other}")
    return person["id"]


def _is_training_person(annotation, categories, skeleton):
    """Whether the annotation is of one person with at least one labelled keypoint."""
    if annotation.get("iscrowd") == 1 or whole_number(annotation.get("category_id"), "category_id") not in categories:
        return False
    keypoints = annotation.get("keypoints")
    unlabelled = isinstance(keypoints, list) and len(keypoints) == 3 * len(skeleton) and not any(keypoints[2::3])
    return annotation.get("num_keypoints") != 0 and not unlabelled


def _read_person(annotation, images, images_folder, skeleton):
    image_id = whole_number(annotation.get("image_id"), "image_id")
    if image_id not in images:
        raise Unusable(f"image_id {image_id} is not among the file's images")
    image = images[image_id]
    image_size = tuple(whole_number(image.get(side), f"its image's {side}") for side in ("height", "width"))
    keypoints = finite_numbers(annotation.get("keypoints"), 3 * len(skeleton), "keypoints").reshape(-1, 3)
    visible = keypoints[:, 2]
    if not np.isin(visible, (0, 1, 2)).all():
        raise Unusable("keypoints: a visibility flag is not 0, 1 or 2")
    box = checked_box(finite_numbers(annotation.get("bbox"), 4, "bbox"), image_size)
    (area,) = finite_numbers([annotation.get("area", float(box[2] * box[3]))], 1, "area")
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
        category=annotation["category_id"],
    )
