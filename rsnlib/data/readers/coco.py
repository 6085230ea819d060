"""COCO keypoints (cocodataset.org) and data sets in the same format."""

import re

import numpy as np

from rsnlib.data.people import Person, Unusable, collect, finite_numbers, image_inside, whole_number
from rsnlib.data.skeletons import COCO
from rsnlib.errors import UserError
from rsnlib.files import read_json


def split_files(split):
    """Return the annotations file of a split and its images folder, below the root of a data set in COCO's format.

    split: a name, by which COCO calls both, or {"annotations": a file, "images": a folder}. Of COCO's test splits the
        file lists the images alone; they share a folder.
    """
    if isinstance(split, dict):
        return split["annotations"], split["images"]
    if is_test_split(split):
        return f"annotations/image_info_{split}.json", f"images/test{split[-4:]}"
    return f"annotations/person_keypoints_{split}.json", f"images/{split}"


def is_test_split(split):
    """Return True if COCO publishes the split without annotations: "test2017", "test-dev2017", "test-challenge2017"."""
    return isinstance(split, str) and bool(re.fullmatch(r"test(-dev|-challenge)?20\d\d", split))


def read(annotations_file, images_folder, split, skeleton=COCO):
    """Read the people (or hands, animals, ...) of one file that have a labelled keypoint, as in the released RSN code:
    crowds, those without keypoints and categories with another skeleton are passed over.

    `split` is already in both paths. Raises UserError where the file as a whole is not of this skeleton.
    """
    content = read_json(annotations_file)
    images = images_by_id(annotations_file, content)
    categories = category_ids(annotations_file, content, skeleton)

    seen = set()

    def read_person(_, annotation):
        crowd = annotation.get("iscrowd") == 1
        if crowd or whole_number(annotation.get("category_id"), "category_id") not in categories:
            return None
        keypoints = annotation.get("keypoints")
        unlabelled = isinstance(keypoints, list) and len(keypoints) == 3 * len(skeleton) and not any(keypoints[2::3])
        if unlabelled or annotation.get("num_keypoints") == 0:
            return None
        image = image_of(annotation, images, images_folder)
        keypoints = finite_numbers(keypoints, 3 * len(skeleton), "keypoints").reshape(-1, 3)
        visible = keypoints[:, 2]
        if not np.isin(visible, (0, 1, 2)).all():
            raise Unusable("keypoints: a visibility flag is not 0, 1 or 2")
        box, area = finite_numbers(annotation.get("bbox"), 4, "bbox"), None
        if "area" in annotation:
            (area,) = finite_numbers([annotation["area"]], 1, "area")
            if area <= 0:
                raise Unusable(f"area is {area:g}")
        number, category = whole_number(annotation.get("id"), "id"), annotation["category_id"]
        person = Person(number, *image, box, keypoints[:, :2], visible, area, category=category)
        if number in seen:
            raise Unusable("an earlier annotation has the same id")
        seen.add(number)
        return person

    annotations = enumerate(_records(annotations_file, content, "annotations"))
    named = ((annotation.get("id", f"annotations[{index}]"), annotation) for index, annotation in annotations)
    return collect(skeleton, named, read_person)


def _records(file, content, key):
    """Return the list of objects under top-level `key`."""
    records = content.get(key) if isinstance(content, dict) else None
    if not isinstance(records, list) or not all(isinstance(record, dict) for record in records):
        raise UserError(f"{file}: no list of objects under top-level key `{key}`; is it a COCO keypoint file?")
    return records


def images_by_id(file, content):
    """Return the `images` of a COCO file: {id: {"file_name": ..., "height": ..., "width": ...}}."""
    images = {}
    for index, image in enumerate(_records(file, content, "images")):
        if type(image.get("id")) is not int:
            raise UserError(f"{file}: images[{index}]: key `id` is missing or not a whole number")
        if image["id"] in images:
            raise UserError(f"{file}: images[{index}]: key `id`: an earlier image is also {image['id']}")
        images[image["id"]] = image
    return images


def image_of(entry, images, folder, where="the file's images"):
    """Return the image of an annotation or detection: id, path and size (height, width). Raises Unusable."""
    image_id = whole_number(entry.get("image_id"), "image_id")
    if image_id not in images:
        raise Unusable(f"image_id {image_id} is not among {where}")
    image = images[image_id]
    size = tuple(whole_number(image.get(side), f"its image's {side}") for side in ("height", "width"))
    return image_id, image_inside(folder, image.get("file_name")), size


def category_ids(file, content, skeleton):
    """Return the ids of the categories of a COCO file that have the skeleton: of COCO's own, the person; of another,
    all with exactly its keypoints (AP-10K: one per species) or, where no category names keypoints, the only one."""
    categories = _records(file, content, "categories")
    named = [category for category in categories if category.get("keypoints")]
    found = [category for category in named if category["keypoints"] == list(skeleton.keypoints)]
    if skeleton == COCO:
        found = [category for category in categories if category.get("name") == "person"][:1]
        other = "; a data set with other keypoints says so with `skeleton` in params.yaml"
        if not found:
            raise UserError(f"{file}: key `categories` has no category named person{other}")
        if found[0].get("keypoints", list(COCO.keypoints)) != list(COCO.keypoints):
            reason = "the person's `keypoints` are not COCO's 17 in COCO's order"
            raise UserError(f"{file}: key `categories`: {reason}{other}")
    elif not named and len(categories) == 1:
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
