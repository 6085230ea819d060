"""Drawn data sets: labels of what is seen, and pictures and annotations as files in COCO's layout."""

import json
import os
import tempfile
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from rsnlib.data.skeletons import COCO
from rsnlib.demo.body import PARTS
from rsnlib.demo.scene import SUPERSAMPLING, draw_scene, owner_code, photograph
from rsnlib.errors import UserError
from rsnlib.files import writing

SPLITS = ("train", "val")
PICTURE_SIZES = ((320, 240), (240, 320), (288, 288), (320, 288))  # width, height in pixels
PEOPLE_SHARES = (0.35, 0.4, 0.25)  # pictures of one, two and three people
MIN_VISIBLE_KEYPOINTS = 5
MIN_VISIBLE_SHARE = 0.03  # of the square of a person's height: the least to be seen of a person
FAR_SIDE = 0.8  # a shoulder or hip is behind the torso where its line runs this steeply away from the viewer
JPEG_QUALITY = 90

CARRIERS = {  # the parts that show a keypoint; {} is its side
    "nose": ("nose",),
    "eye": ("{}_eye",),
    "ear": ("{}_ear",),
    "shoulder": ("{}_upper_arm", "torso"),
    "elbow": ("{}_upper_arm", "{}_forearm"),
    "wrist": ("{}_forearm", "{}_hand"),
    "hip": ("{}_thigh", "pelvis", "torso"),
    "knee": ("{}_thigh", "{}_shank"),
    "ankle": ("{}_shank", "{}_foot"),
}


def annotate(owner, number, person):
    """Return the COCO annotation, without ids, of person `number` in the owner map; None where too little is seen."""
    mask = (owner > number * len(PARTS)) & (owner <= (number + 1) * len(PARTS))
    flags = keypoint_flags(owner, number, person)
    if mask.sum() < MIN_VISIBLE_SHARE * person.scale**2 or (flags == 2).sum() < MIN_VISIBLE_KEYPOINTS:
        return None
    pixels = np.round(person.points).astype(int) // SUPERSAMPLING
    rows, columns = (np.flatnonzero(mask.any(axis)) // SUPERSAMPLING for axis in (1, 0))
    outlines, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    return {
        "category_id": 1,
        "iscrowd": 0,
        "area": float(mask.sum() / SUPERSAMPLING**2),
        "bbox": [int(v) for v in (columns[0], rows[0], columns[-1] - columns[0] + 1, rows[-1] - rows[0] + 1)],
        "num_keypoints": int((flags > 0).sum()),
        "keypoints": np.column_stack([pixels * (flags > 0)[:, None], flags]).ravel().tolist(),
        "segmentation": [(o.ravel() / SUPERSAMPLING).tolist() for o in outlines if len(o) >= 3],
    }


def keypoint_flags(owner, number, person):
    """Return (17,): 2 where a part that carries the keypoint is on top, 1 where something hides it, 0 outside."""
    height, width = owner.shape
    flags = np.zeros(len(COCO), int)
    for k, (name, (x, y)) in enumerate(zip(COCO.keypoints, np.round(person.points).astype(int))):
        if 0 <= x < width and 0 <= y < height:
            side, _, joint = name.rpartition("_")
            parts = [part.format(side) for part in CARRIERS[joint]]
            away = person.keypoints[k] - person.keypoints[COCO.mirrored[k]]
            if joint in ("shoulder", "hip") and away[2] < -FAR_SIDE * np.linalg.norm(away):
                parts = parts[:1]
            flags[k] = 2 if owner[y, x] in [owner_code(number, part) for part in parts] else 1
    return flags


def draw_people(root, train=2000, val=400, seed=0):
    """Draw `train` and `val` people into the new folder `root`, laid out as COCO 2017. Equal arguments give equal
    bytes; `root` appears only when all is drawn. Raises UserError where it exists or cannot be written."""
    root = Path(root)
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise UserError(f"{root}: already there, and left as it is; name a new folder, or remove this one first")
    with writing(root):
        root.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=root.parent, prefix=f".{root.name}.") as folder:
            unfinished, first_image = Path(folder) / "unfinished", 1
            for split, people in enumerate((train, val)):
                first_image = draw_split(unfinished, split, people, seed, first_image)
            os.replace(unfinished, root)


def draw_split(root, split, people, seed, first_image):
    """Draw one split's pictures, each again until everyone in it can be seen, and write its annotations. Returns the
    first image id not used."""
    name = f"{SPLITS[split]}2017"
    folder = root / "images" / name
    folder.mkdir(parents=True)
    counts, rng = [], np.random.default_rng([seed, split])
    while sum(counts) < people:
        count = 1 + int(rng.choice(len(PEOPLE_SHARES), p=PEOPLE_SHARES))
        counts.append(min(count, people - sum(counts)))
    images, annotations = [], []
    for index, count in enumerate(tqdm(counts, desc=f"drawing {name}", unit=" pictures", leave=False, disable=None)):
        image_id = first_image + index
        rng = np.random.default_rng([seed, split, index])
        width, height = PICTURE_SIZES[rng.integers(len(PICTURE_SIZES))]
        drawn = [None]
        while not all(drawn):
            scene, persons = draw_scene(rng, SUPERSAMPLING * width, SUPERSAMPLING * height, count)
            drawn = [annotate(scene.owner, number, person) for number, person in enumerate(persons)]
        encoded = cv2.imencode(".jpg", photograph(scene, rng), [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1]
        file = folder / f"{image_id:012d}.jpg"
        file.write_bytes(encoded)
        images.append({"id": image_id, "file_name": file.name, "width": width, "height": height})
        annotations += [{"id": 10 * image_id + i, "image_id": image_id, **each} for i, each in enumerate(drawn)]
    path = root / "annotations" / f"person_keypoints_{name}.json"
    path.parent.mkdir(exist_ok=True)
    limbs = [[a + 1, b + 1] for a, b in COCO.limbs]
    person = {"supercategory": "person", "id": 1, "name": "person", "keypoints": COCO.keypoints, "skeleton": limbs}
    content = {
        "info": {"description": "Drawn people, rsnlib.datasets.demo", "version": "1"},  # as data.dvc has it
        "licenses": [],
        "images": images,
        "annotations": annotations,
        "categories": [person],
    }
    path.write_text(json.dumps(content), encoding="utf-8")
    return first_image + len(counts)
