"""Results as leaderboards take them: COCO's server (cocodataset.org, Upload) one JSON of a prescribed name in a zip,
MPII's authors (human-pose.mpi-inf.mpg.de, Evaluation) one MATLAB file in the layout of their annotations."""

import json
import math
import re
import zipfile
import zlib
from itertools import zip_longest
from pathlib import Path

import numpy as np
from scipy.io import savemat

from rsnlib.config import load_params, project_root
from rsnlib.data.people import Unusable, finite_numbers
from rsnlib.data.readers.matlab import read_matlab
from rsnlib.data.readers.mpii import LARGEST_FILE, read_list, read_test_images
from rsnlib.data.skeletons import COCO, MPII
from rsnlib.errors import UserError
from rsnlib.files import read_json, whole_file

SPLITS = ("val2017", "test-dev2017", "test-challenge2017")
NAME = re.compile(rf"person_keypoints_({'|'.join(SPLITS)})_([A-Za-z0-9.-]+)_results")
FIELDS = ("image_id", "category_id", "keypoints", "score")
PERSON = 1
LARGEST_RATIO = 100  # of a JSON to what it is compressed to; numbers come nowhere near

MPII_FILE = "pred_keypoints_mpii.mat"
MPII_ANNOTATIONS = "annot/mpii_human_pose_v1_u12_1.mat"


def submit(results, folder, dataset=None, split=None, algorithm=None):
    """Write what a leaderboard takes into `folder`, and check it; returns its path.

    results: the path of what `python -m rsnlib evaluate -o` wrote
    dataset: a data set of params.yaml; None: COCO
    split, algorithm: as for `write_submission`; of MPII, the list of test people, "test" if None, and nothing
    """
    settings = load_params().dataset(dataset) if dataset else None
    if settings and settings.reader == "mpii":
        root = project_root() / settings.root
        path = write_mpii_submission(results, root, folder, split or "test")
        check_mpii_submission(path, root)
        return path
    if settings and settings.reader != "coco":
        raise UserError(f"{dataset}: there is no leaderboard for data sets of the reader {settings.reader}")
    if not (split and algorithm):
        raise UserError("COCO's server wants to know the split (--split) and a name for the algorithm (--algorithm)")
    path = write_submission(results, split, algorithm, folder)
    check_submission(path)
    return path


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
            (member,) = archive.infolist()
            if member.file_size > LARGEST_RATIO * member.compress_size:
                raise ValueError(f"{member.file_size:,} bytes in {member.compress_size:,}")
            entries = json.loads(archive.read(member))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except (OSError, ValueError, RuntimeError, zlib.error, zipfile.BadZipFile) as error:
        raise UserError(f"{path}: not a readable zip of a JSON ({error})") from None
    check_entries(entries, path)


def write_mpii_submission(results, root, folder, split="test"):
    """Write predictions of MPII's test people as its authors take them, `pred_keypoints_mpii.mat`; returns its path.

    results: the path of a JSON in COCO's results format with `person_id`, a person's row in annot/<split>.json from 1
    root: the data set's folder, with that list and MPII's own annotations, annot/mpii_human_pose_v1_u12_1.mat

    The layout (README of MPII's evaluation toolkit, "Single Person Pose Estimation"): `pred` is the annotations'
    `annolist` of the test images, in which everyone who is judged has the predictions as
    `annorect(ridx).annopoints.point`: each joint's x and y, in pixels counted from 1, and id, 0 to 15. Image and centre
    tell who is who: the order of the list and of the results is of no account.
    """
    root = Path(root)
    predicted = _predictions_by_place(results, root / "annot" / f"{split}.json")
    annolist, judged = read_test_images(root / MPII_ANNOTATIONS)
    for image, centers in zip(annolist[0], judged):
        places = {row: _place(_image_name(image), x, y) for row, (x, y) in centers.items()}
        for place in places.values():
            if place not in predicted:
                raise UserError(f"{results}: has nobody at {place[1:]} in {place[0]}, whom MPII judges")
        if places:
            image["annorect"] = _with_points(image["annorect"], {row: predicted[places[row]] for row in places})
    path = Path(folder) / MPII_FILE
    with whole_file(path) as file:
        savemat(file, {"pred": annolist}, do_compression=True)
    return path


def _predictions_by_place(results, annotations_file):
    """Keypoints (16, 2), in pixels counted from 1, of each person of the list: {`_place`: keypoints}."""
    people, entries = read_list(annotations_file), read_json(results)
    check_entries(entries, results, MPII)
    predicted, seen = {}, set()
    for index, entry in enumerate(entries):
        row = entry.get("person_id")
        if type(row) is not int or not 1 <= row <= len(people):
            raise UserError(
                f"{results}: entry {index}: person_id: {row!r} is no row of {annotations_file}, 1 to {len(people)}"
            )
        if row in seen:
            raise UserError(f"{results}: entry {index}: person_id: an earlier entry is also of {row}")
        seen.add(row)
        try:
            place = _place(people[row - 1].get("image"), *finite_numbers(people[row - 1].get("center"), 2, "center"))
        except Unusable as reason:
            raise UserError(f"{annotations_file}: person {row}: {reason}") from None
        predicted[place] = np.reshape(entry["keypoints"], (-1, 3))[:, :2] + 1
    return predicted


def _place(image, x, y):
    """What tells a person of MPII from all others: the image and the centre, to a pixel."""
    return image, round(x), round(y)


def _image_name(image):
    """The file name of one image of an annolist."""
    return str(image["image"]["name"][0, 0][0])


def _with_points(people, predicted):
    """An `annorect`, (1, R) structs, with the predictions {row: keypoints (16, 2)} as annopoints."""
    names = [name for name in people.dtype.names if name != "annopoints"]
    filled = np.empty(people.shape, [(name, object) for name in (*names, "annopoints")])
    for name in names:
        filled[name] = people[name]
    for row in range(people.shape[1]):
        filled["annopoints"][0, row] = np.zeros((0, 0))
    for row, keypoints in predicted.items():
        point = np.empty((1, len(keypoints)), [("x", float), ("y", float), ("id", float)])
        point["x"], point["y"], point["id"] = keypoints[:, 0], keypoints[:, 1], range(len(keypoints))
        filled["annopoints"][0, row] = {"point": point}
    return filled


def check_mpii_submission(path, root):
    """Raise a UserError for what MPII's evaluation would stumble over in the file `path`: images that are not the test
    images of the data set in folder `root`, in their order; someone judged without a position of every joint."""
    annolist, judged = read_test_images(Path(root) / MPII_ANNOTATIONS)
    if not Path(path).is_file():
        raise UserError(f"{path}: no such file")
    try:
        pred = read_matlab(path, LARGEST_FILE)["pred"][0]
        names = [_image_name(image) for image in pred]
    except Exception as error:  # a broken file can make SciPy raise anything
        raise UserError(f"{path}: no MATLAB file with `pred`, an annolist ({type(error).__name__}: {error})") from None
    for number, (name, wanted) in enumerate(zip_longest(names, map(_image_name, annolist[0])), start=1):
        if name != wanted:
            raise UserError(f"{path}: image {number} must be {wanted}, as in MPII's test set, not {name}")
    for name, image, rows in zip(names, pred, judged):
        for row in rows:
            if fault := _fault_of_points(image["annorect"], row):
                raise UserError(f"{path}: {name}: annorect {row + 1}: {fault}")


def _fault_of_points(people, row):
    """What is wrong with the predictions of one person, a row of an annorect, or None."""
    try:
        points = people["annopoints"][0, row]["point"][0, 0].ravel()
        numbers = np.array([[point[name].item() for name in ("id", "x", "y")] for point in points])
    except (IndexError, KeyError, TypeError, ValueError):
        return "no points with x, y and id"
    if sorted(numbers[:, 0]) != list(range(len(MPII))):
        return f"must have a point of each id from 0 to {len(MPII) - 1}"
    return None if np.isfinite(numbers).all() else "not every position is finite"


def check_entries(entries, where, skeleton=COCO):
    """Raise a UserError for the first of `entries` that is no result of a skeleton; `where` names their file."""
    if not isinstance(entries, list) or not entries:
        raise UserError(f"{where}: must be a list of results, and not empty")
    for index, entry in enumerate(entries):
        fault = _fault(entry, 3 * len(skeleton))
        if fault:
            raise UserError(f"{where}: entry {index}: {fault}")


def _fault(entry, count):
    """What is wrong with one result whose keypoints are `count` numbers, or None."""
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
    if not isinstance(numbers, list) or len(numbers) != count:
        found = f"{len(numbers)}" if isinstance(numbers, list) else repr(numbers)
        return f"keypoints: must be {count} numbers, not {found}"
    for number in numbers:
        if not _finite(number):
            return f"keypoints: {number!r} is not a finite number"
    if not _finite(entry["score"]):
        return f"score: {entry['score']!r} is not a finite number"
    return None


def _finite(number):
    return type(number) in (int, float) and -math.inf < number < math.inf
