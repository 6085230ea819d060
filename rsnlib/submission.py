"""Results as COCO's evaluation server takes them (cocodataset.org, Upload): one JSON of a prescribed name in a zip."""

import json
import math
import re
import zipfile
from pathlib import Path

from rsnlib.runtime import UserError, read_json, whole_file

SPLITS = ("val2017", "test-dev2017", "test-challenge2017")
NAME = re.compile(rf"person_keypoints_({'|'.join(SPLITS)})_([A-Za-z0-9.-]+)_results")
FIELDS = ("image_id", "category_id", "keypoints", "score")
PERSON = 1
NUMBERS = 3 * 17  # x, y and score of each keypoint


def write_submission(results, split, algorithm, folder):
    """Write a submission of `results`, the path of a JSON in COCO's results format, into `folder`; returns its path.

    split: one of SPLITS; algorithm: the name under which the server lists it, letters, digits, dots and hyphens
    """
    name = f"person_keypoints_{split}_{algorithm}_results"
    if not NAME.fullmatch(name):
        raise UserError(
            f"{name}: no name that the server takes; the split must be one of {', '.join(SPLITS)}, "
            f"the algorithm of letters, digits, dots and hyphens"
        )
    entries = read_json(results)
    check_entries(entries, results)
    entries = [{key: entry[key] for key in FIELDS} for entry in entries]
    path = Path(folder) / f"{name}.zip"
    with whole_file(path) as file, zipfile.ZipFile(file, "w") as archive:
        member = zipfile.ZipInfo(f"{name}.json")  # without today's date: the same results, the same bytes
        archive.writestr(member, json.dumps(entries, separators=(",", ":")), zipfile.ZIP_DEFLATED)
    return path


def check_submission(path):
    """Raise a UserError for what COCO's server would refuse of the zip `path`, with the first entry at fault."""
    path = Path(path)
    if path.suffix != ".zip" or not NAME.fullmatch(path.stem):
        raise UserError(f"{path}: must be named person_keypoints_<split>_<algorithm>_results.zip")
    try:
        with zipfile.ZipFile(path) as archive:
            names = ", ".join(archive.namelist())
            if names != f"{path.stem}.json":
                raise UserError(f"{path}: must hold {path.stem}.json alone, not {names or 'nothing'}")
            entries = json.loads(archive.read(f"{path.stem}.json"))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise UserError(f"{path}: not a readable zip of a JSON ({error})") from None
    check_entries(entries, path)


def check_entries(entries, where):
    """Raise a UserError for the first of `entries` that is no keypoint result; `where` names their file."""
    if not isinstance(entries, list) or not entries:
        raise UserError(f"{where}: must be a list of results, and not empty")
    for index, entry in enumerate(entries):
        fault = _fault(entry)
        if fault:
            raise UserError(f"{where}: entry {index}: {fault}")


def _fault(entry):
    """What is wrong with one result, or None."""
    if not isinstance(entry, dict):
        return "not an object"
    missing = [key for key in FIELDS if key not in entry]
    if missing:
        return f"{missing[0]} is missing"
    if type(entry["image_id"]) is not int:
        return f"image_id: {entry['image_id']!r} is not a whole number"
    if type(entry["category_id"]) is not int or entry["category_id"] != PERSON:
        return f"category_id: must be {PERSON}, a person, not {entry['category_id']!r}"
    numbers = entry["keypoints"]
    if not isinstance(numbers, list) or len(numbers) != NUMBERS:
        found = f"{len(numbers)}" if isinstance(numbers, list) else repr(numbers)
        return f"keypoints: must be {NUMBERS} numbers, not {found}: COCO's server takes COCO's 17 keypoints alone"
    for number in numbers:
        if not _finite(number):
            return f"keypoints: {number!r} is not a finite number"
    if not _finite(entry["score"]):
        return f"score: {entry['score']!r} is not a finite number"
    return None


def _finite(number):
    return type(number) in (int, float) and -math.inf < number < math.inf
