"""Drawn data sets: pictures with annotations in COCO's format."""

import json
import os
import shutil
import tempfile
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from rsnlib.data.skeletons import COCO
from rsnlib.demo.body import CARRIERS, FAR_SIDE, PARTS
from rsnlib.demo.scene import SUPERSAMPLING, draw_scene, owner_code, photograph
from rsnlib.errors import UserError
from rsnlib.files import writing

SPLITS = ("train", "val")

PICTURE_SIZES = ((320, 240), (240, 320), (288, 288), (320, 288))  # width, height in pixels

PEOPLE_SHARES = (0.35, 0.4, 0.25)  # pictures of one, two and three people

MIN_VISIBLE_KEYPOINTS = 5

MIN_VISIBLE_SHARE = 0.03  # of the square of a person's height: what must be seen of them

JPEG_QUALITY = 90


def draw_picture(seed, split, index, people):
    """Picture `index` of split number `split`: ((h, w, 3) uint8, annotations without ids). Drawn again until every
    one of `people` can be seen."""
    rng = np.random.default_rng([seed, split, index])
    width, height = PICTURE_SIZES[rng.integers(len(PICTURE_SIZES))]
    while True:
        scene, persons = draw_scene(rng, SUPERSAMPLING * width, SUPERSAMPLING * height, people)
        annotations = [annotate(scene.owner, number, person) for number, person in enumerate(persons)]
        if all(annotations):
            return photograph(scene, rng), annotations


def annotate(owner, number, person):
    """The COCO annotation of person `number`, without ids, from the owner map; None where too little is seen."""
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
    """(17,): 2 where a part that carries the keypoint is on top there, 1 where something hides it, 0 outside."""
    height, width = owner.shape
    flags = np.zeros(len(COCO), int)
    for k, (name, (x, y)) in enumerate(zip(COCO.keypoints, np.round(person.points).astype(int))):
        if 0 <= x < width and 0 <= y < height:
            side, _, joint = name.rpartition("_")
            parts = [part.format(side) for part in CARRIERS[joint]]
            if behind_torso(person.keypoints, k):
                parts = parts[:1]
            flags[k] = 2 if owner[y, x] in [owner_code(number, part) for part in parts] else 1
    return flags


def behind_torso(keypoints, k):
    """Whether `k` is the farther of two shoulders or hips in a person seen from the side."""
    if not COCO.keypoints[k].endswith(("shoulder", "hip")):
        return False
    away = keypoints[k] - keypoints[COCO.mirrored[k]]
    return away[2] < -FAR_SIDE * np.linalg.norm(away)


def draw_people(root, train=2000, val=400, seed=0):
    """Draw `train` and `val` people into the new folder `root`, laid out as COCO 2017. The same arguments give the
    same bytes; `root` appears only when all is drawn."""
    root = Path(root)
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise UserError(f"{root}: already there, and left as it is; name a new folder, or remove this one first")
    with writing(root):
        root.parent.mkdir(parents=True, exist_ok=True)
        unfinished = Path(tempfile.mkdtemp(dir=root.parent, prefix=f".{root.name}."))
        try:
            first_image = 1
            for split, people in enumerate((train, val)):
                first_image = draw_split(unfinished, split, people, seed, first_image)
            unfinished.chmod(0o755)
            os.replace(unfinished, root)
        except BaseException:
            shutil.rmtree(unfinished, ignore_errors=True)
            raise


def draw_split(root, split, people, seed, first_image):
    """Draw one split's pictures and write its annotations; gives the first image id not used."""
    name = f"{SPLITS[split]}2017"
    folder = root / "images" / name
    folder.mkdir(parents=True)
    counts = people_a_picture(np.random.default_rng([seed, split]), people)
    images, annotations = [], []
    for index, count in enumerate(tqdm(counts, desc=f"drawing {name}", unit=" pictures", leave=False, disable=None)):
        image_id = first_image + index
        picture, drawn = draw_picture(seed, split, index, count)
        file = folder / f"{image_id:012d}.jpg"
        file.write_bytes(cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1])
        height, width = picture.shape[:2]
        images.append({"id": image_id, "file_name": file.name, "width": width, "height": height})
        annotations += [{"id": 10 * image_id + i, "image_id": image_id, **each} for i, each in enumerate(drawn)]
    path = root / "annotations" / f"person_keypoints_{name}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(coco_file(images, annotations)), encoding="utf-8")
    return first_image + len(counts)


def people_a_picture(rng, people):
    """Counts of one to three that sum to `people`."""
    counts = []
    while sum(counts) < people:
        count = 1 + int(rng.choice(len(PEOPLE_SHARES), p=PEOPLE_SHARES))
        counts.append(min(count, people - sum(counts)))
    return counts


def coco_file(images, annotations):
    """The content of a COCO keypoint annotation file."""
    skeleton = [[a + 1, b + 1] for a, b in COCO.limbs]
    person = {"supercategory": "person", "id": 1, "name": "person", "keypoints": COCO.keypoints, "skeleton": skeleton}
    return {
        "info": {"description": "Drawn people, rsnlib.demo.scene", "version": "1"},
        "licenses": [],
        "images": images,
        "annotations": annotations,
        "categories": [person],
    }
