"""COCO keypoints (cocodataset.org) and data sets in the same format."""

import re
from contextlib import suppress

import numpy as np

from rsnlib.data.people import (
    Person,
    Unusable,
    box_around,
    check_pixels,
    collect,
    finite_numbers,
    image_inside,
    whole_number,
)
from rsnlib.data.skeletons import COCO
from rsnlib.errors import UserError
from rsnlib.files import read_json

UNBOUNDED = 2**31, 2**31  # the size of a picture that nobody looks at


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


def read(annotations_file, images_folder, split, skeleton=COCO, boxes="annotated", areas="annotated"):
    """Read the people (or hands, animals, ...) of one file that have a labelled keypoint, as in the released RSN code:
    crowds, those without keypoints and categories with another skeleton are passed over.

    images_folder: None: whatever the pictures are, which predictions are judged without
    boxes: "annotated", or "keypoints": around the labelled ones (`people.box_around`), as is then the area of those who
        have none
    areas: "annotated", or "box 0.53": this share of width times height of the box, as CrowdPose and AI Challenger judge

    `split` is already in both paths. Raises UserError where the file as a whole is not of this skeleton.
    """
    content = read_json(annotations_file)
    images = images_by_id(annotations_file, content)
    categories = category_ids(annotations_file, content, skeleton)
    known = [category.get("id") for category in content["categories"]]
    annotations = _records(annotations_file, content, "annotations")
    ids = _numbers(annotations)
    seen = set()

    def read_person(_, annotation):
        category = whole_number(annotation.get("category_id"), "category_id")
        if category not in known:
            raise Unusable(f"category_id {category} is not among the file's categories")
        if category not in categories:
            return f"category_id {category} has not the skeleton's keypoints"
        if _is_crowd(annotation):
            return "a crowd"
        keypoints = annotation.get("keypoints")
        flags = keypoints[2::3] if isinstance(keypoints, list) else []
        if annotation.get("num_keypoints") == 0:
            return "num_keypoints is 0" + (" though keypoints are labelled" if any(flags) else "")
        if len(flags) == len(skeleton) and not any(flags):
            return "no keypoint is labelled"
        image = image_of(annotation, images, images_folder)
        keypoints, visible = _read_keypoints(annotation, skeleton)
        box, area = annotation.get("bbox"), annotation.get("area")
        box = finite_numbers(box, 4, "bbox") if boxes == "annotated" else box_around(keypoints, visible > 0)
        if area == 0 and boxes == "keypoints":
            area = None
        if area is not None:
            (area,) = finite_numbers([area], 1, "area")
        if areas != "annotated":
            area = float(areas.removeprefix("box ")) * box[2] * box[3]
        number = ids.get(_text(annotation))
        if number is None:
            raise Unusable(f"id: {annotation.get('id')!r} is neither a whole number nor text")
        person = Person(number, *image, box, keypoints, visible, area, category=category)
        if number in seen:
            raise Unusable("an earlier annotation has the same id")
        seen.add(number)
        return person

    named = (
        (annotation.get("id", f"annotations[{index}]"), annotation) for index, annotation in enumerate(annotations)
    )
    people = collect(skeleton, named, read_person)
    if boxes == "annotated":
        check_pixels(annotations_file, people.boxes)
    return people


def ground_truth(annotations_file, people):
    """Return what pycocotools judges by, a dict: the `people` that were read from a file, with ids from 1 in their
    order, then everyone else in the file, to be ignored.

    A prediction that fits somebody ignored, as far as the annotation is readable, is ignored, too. Images have the ids
    of `people.image_ids`, and the file's as text under "name".
    """
    content = read_json(annotations_file)
    images = images_by_id(annotations_file, content)
    categories = category_ids(annotations_file, content, people.skeleton)
    annotations = _records(annotations_file, content, "annotations")
    ids, counted = _numbers(annotations), set(people.ids.tolist())
    columns = {
        "image_id": people.image_ids,
        "category_id": people.categories,
        "bbox": people.boxes,
        "area": people.areas,
        "keypoints": np.concatenate([people.keypoints, people.visible[..., None]], axis=2).reshape(len(people), -1),
        "num_keypoints": (people.visible > 0).sum(axis=1),
    }
    rows = zip(*(column.tolist() for column in columns.values()), strict=True)
    truth = [dict(zip(columns, row), iscrowd=0) for row in rows]
    for annotation in annotations:
        number, image = ids.get(_text(annotation)), _text(annotation, "image_id")
        if number in counted:
            counted.remove(number)
        elif annotation.get("category_id") in categories and image in images:
            place = {"image_id": images[image][0], "category_id": annotation["category_id"]}
            truth.append(place | _ignored(annotation, people.skeleton))
    return {
        "images": [{"id": number, "name": name} for name, (number, _) in images.items()],
        "annotations": [annotation | {"id": number} for number, annotation in enumerate(truth, 1)],
        "categories": [{"id": category} for category in categories],
    }


def _ignored(annotation, skeleton):
    """Return an annotation that pycocotools ignores, with whatever is readable of `annotation`."""
    keypoints, box, area, crowd = np.zeros((len(skeleton), 3)), np.zeros(4), 0, False
    with suppress(Unusable):
        keypoints = np.column_stack(_read_keypoints(annotation, skeleton))
    with suppress(Unusable):
        box = finite_numbers(annotation.get("bbox"), 4, "bbox")
        area = box[2] * box[3]
    with suppress(Unusable):
        (area,) = finite_numbers([annotation.get("area")], 1, "area")
    with suppress(Unusable):
        crowd = _is_crowd(annotation)
    ignored = {"keypoints": keypoints.ravel().tolist(), "bbox": box.tolist(), "area": max(0.0, float(area))}
    return ignored | {"num_keypoints": 0, "iscrowd": int(crowd)}


def _is_crowd(annotation):
    crowd = annotation.get("iscrowd") or 0
    if crowd not in (0, 1, "0", "1"):
        raise Unusable(f"iscrowd: {crowd!r} is not 0 or 1")
    return bool(int(crowd))


def _read_keypoints(annotation, skeleton):
    """Return positions (K, 2), 0 where not labelled whatever the file has there, and visibility flags (K,)."""
    values = annotation.get("keypoints")
    if isinstance(values, list) and len(values) == 3 * len(skeleton):
        values = [0 if values[place - place % 3 + 2] == 0 else value for place, value in enumerate(values)]
    keypoints = finite_numbers(values, 3 * len(skeleton), "keypoints").reshape(-1, 3)
    if not np.isin(keypoints[:, 2], (0, 1, 2)).all():
        raise Unusable("keypoints: a visibility flag is not 0, 1 or 2")
    return keypoints[:, :2], keypoints[:, 2]


def _records(file, content, key):
    """Return the list of objects under top-level `key`."""
    records = content.get(key) if isinstance(content, dict) else None
    if not isinstance(records, list) or not all(isinstance(record, dict) for record in records):
        raise UserError(f"{file}: no list of objects under top-level key `{key}`; is it a COCO keypoint file?")
    return records


def _text(record, key="id"):
    """Return the id of a record as text, by which 7 is "7"; None where it is none."""
    return str(record.get(key)) if type(record.get(key)) in (int, str) else None


def _numbers(records):
    """Return the number of each id, {text: number}: the ids themselves or, unless all are whole numbers, their places
    in the file, from 1."""
    places = {_text(record): place for place, record in reversed(list(enumerate(records, 1)))}
    places.pop(None, None)
    try:
        numbers = {text: int(text) for text in places}
    except ValueError:
        return places
    usable = len({*numbers.values()}) == len(numbers) and all(abs(number) < 2**63 for number in numbers.values())
    return numbers if usable else places


def images_by_id(file, content):
    """Return the `images` of a COCO file: {id as text: (number, {"file_name": ..., "height": ..., "width": ...})}. The
    number is the id or, in a file where not all ids are whole numbers, the image's place, from 1."""
    records, images = _records(file, content, "images"), {}
    numbers = _numbers(records)
    for index, image in enumerate(records):
        text = _text(image)
        if text is None:
            raise UserError(f"{file}: images[{index}]: key `id` is missing or neither a whole number nor text")
        if text in images:
            raise UserError(f"{file}: images[{index}]: key `id`: an earlier image is also {text}")
        images[text] = numbers[text], image
    return images


def image_of(entry, images, folder, where="the file's images"):
    """Return the image of an annotation or detection: number, path and size (height, width). Raises Unusable.

    images: of `images_by_id`; folder: None: for a size in which every box lies, and no path
    """
    name = _text(entry, "image_id")
    if name not in images:
        raise Unusable(f"image_id {entry.get('image_id')!r} is not among {where}")
    number, image = images[name]
    if folder is None:
        return number, "", UNBOUNDED
    size = tuple(whole_number(image.get(side), f"its image's {side}") for side in ("height", "width"))
    for side, pixels in zip(("height", "width"), size):
        if pixels <= 0:
            raise Unusable(f"its image's {side} is {pixels}")
    return number, image_inside(folder, image.get("file_name")), size


def category_ids(file, content, skeleton):
    """Return the ids of the categories of a COCO file that have the skeleton: all whose keypoints are its own, whatever
    the categories' names (AP-10K: one per species); where none names keypoints, the only category or the person.

    Keypoints may be spelled differently (AIC: "Head top" for "head_top"), and more may follow that the annotations do
    not have (Human-Art: 21 names, 17 keypoints).
    """
    categories = _records(file, content, "categories")
    named = [category for category in categories if category.get("keypoints")]
    own = _spelled(skeleton.keypoints)
    found = [category for category in named if _spelled(_listed(category["keypoints"]))[: len(own)] == own]
    if not named:
        found = categories if len(categories) == 1 else [each for each in categories if each.get("name") == "person"]
    if not found:
        names = ((each.get("name"), ", ".join(map(str, _listed(each.get("keypoints"))))) for each in categories)
        theirs = "; ".join(f"{name}: {keypoints or 'no keypoints'}" for name, keypoints in names)
        raise UserError(
            f"{file}: key `categories`: none has the keypoints of the skeleton {skeleton.name}, in their order; a data "
            f"set with other keypoints says so with `skeleton` in params.yaml.\n"
            f"  {skeleton.name}: {', '.join(skeleton.keypoints)}\n  in the file: {theirs or 'no categories'}"
        )
    if any(type(category.get("id")) is not int for category in found):
        raise UserError(f"{file}: key `categories`: key `id` is missing or not a whole number")
    return [category["id"] for category in found]


def _listed(keypoints):
    return keypoints if isinstance(keypoints, list) else []


def _spelled(keypoints):
    return [str(name).lower().replace(" ", "_").replace("-", "_") for name in keypoints]
