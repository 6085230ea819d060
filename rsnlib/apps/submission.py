"""Results in the form that leaderboards take.

COCO's server (cocodataset.org, Upload) takes one JSON of a prescribed name in a zip; MPII's authors
(human-pose.mpi-inf.mpg.de, Evaluation) one MATLAB file in the layout of their annotations.
"""

import json
import re
import zipfile
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import FailFast, Field, FiniteFloat, TypeAdapter, ValidationError, conlist, create_model
from scipy.io import savemat

from rsnlib.config import load_params
from rsnlib.data.people import PERSON, Unusable, finite_numbers
from rsnlib.data.readers.mpii import RELEASE, read_list, read_test_images, split_files
from rsnlib.data.skeletons import COCO, MPII
from rsnlib.errors import UserError
from rsnlib.files import read_json, whole_file
from rsnlib.stages.layout import data_path

SPLITS = ("val2017", "test-dev2017", "test-challenge2017")
NAME = re.compile(rf"person_keypoints_({'|'.join(SPLITS)})_([A-Za-z0-9.-]+)_results")
FIELDS = ("image_id", "category_id", "keypoints", "score")

MPII_FILE = "pred_keypoints_mpii.mat"


def submit(results, folder, dataset=None, split=None, algorithm=None):
    """Write the file that a leaderboard takes into `folder` and return its path.

    results: the path of a file written by `python -m rsnlib evaluate -o`
    dataset: a data set of params.yaml, for MPII; None: COCO
    split, algorithm: as for `write_submission`; for MPII the list of test people, "test" if None, and nothing
    """
    settings = load_params().dataset(dataset) if dataset else None
    if settings and settings.reader == "mpii":
        return write_mpii_submission(results, data_path(dataset), folder, split or "test")
    if settings and settings.reader != "coco":
        raise UserError(f"{dataset}: there is no leaderboard for data sets of the reader {settings.reader}")
    if not (split and algorithm):
        raise UserError("COCO's server wants to know the split (--split) and a name for the algorithm (--algorithm)")
    return write_submission(results, split, algorithm, folder)


# ---- COCO


def write_submission(results, split, algorithm, folder):
    """Write a COCO submission into `folder` and return its path.

    results: the path of a JSON in COCO's results format
    split: one of SPLITS; algorithm: its name on the server, of letters, digits, dots and hyphens
    """
    name = f"person_keypoints_{split}_{algorithm}_results"
    if not NAME.fullmatch(name):
        raise UserError(
            f"{name}: no name that the server takes; the split must be one of {', '.join(SPLITS)}, "
            f"the algorithm of letters, digits, dots and hyphens"
        )
    entries = [{key: entry[key] for key in FIELDS} for entry in read_results(results)]
    path = Path(folder) / f"{name}.zip"
    with whole_file(path) as file, zipfile.ZipFile(file, "w") as archive:
        member = zipfile.ZipInfo(f"{name}.json")  # undated, so that the same results are the same bytes
        archive.writestr(member, json.dumps(entries, separators=(",", ":")), zipfile.ZIP_DEFLATED)
    return path


def read_results(path, skeleton=COCO):
    """Return the list in the JSON `path`; a UserError names the first entry that is no result of a skeleton."""
    person = Annotated[int, Field(ge=PERSON, le=PERSON)]
    keypoints = conlist(FiniteFloat, min_length=3 * len(skeleton), max_length=3 * len(skeleton))
    result = create_model("result", image_id=int, category_id=person, keypoints=keypoints, score=FiniteFloat)
    results = Annotated[list[result], Field(min_length=1), FailFast()]
    entries = read_json(path)
    try:
        TypeAdapter(results).validate_python(entries, strict=True)
    except ValidationError as error:
        (fault, *_) = error.errors()
        index, key, *_ = [*fault["loc"], None, None]
        place = "not a list of results" if index is None else f"entry {index}{f': {key}' if key else ''}"
        found = fault["input"] if isinstance(fault["input"], str | int | float | None) else None
        shown = "" if found is None and fault["input"] is not None else f", not {found!r:.40}"
        raise UserError(f"{path}: {place}: {fault['msg']}{shown}") from None
    return entries


# ---- MPII


def write_mpii_submission(results, root, folder, split="test"):
    """Write `pred_keypoints_mpii.mat`, MPII's test people as its authors take them, into `folder`; return its path.

    results: the path of a JSON in COCO's results format with `person_id`, as the reader numbers people: a row of
        annot/<split>.json from 1 or, without that file, a number in MPII's own annotations
    root: the data set's folder, with MPII's own annotations, annot/mpii_human_pose_v1_u12_1.mat

    The layout (README of MPII's evaluation toolkit, "Single Person Pose Estimation"): `pred` is the annotations'
    `annolist` of the test images, in which everyone who is judged has the predictions as
    `annorect(ridx).annopoints.point`: each joint's x and y, in pixels counted from 1, and id, 0 to 15. People are
    matched by image and centre, in whatever order the list and the results have them.
    """
    root = Path(root)
    annolist, judged = read_test_images(root / RELEASE)
    file = root / split_files(split, root)[0]
    places = {person: place for image in judged for person, *place in image.values()}
    predicted = _keypoints_by_place(results, file, places if file.suffix == ".mat" else _listed_places(file))
    for image, people in zip(annolist[0], judged):
        found = {}
        for row, (_, *place) in people.items():
            if tuple(place) not in predicted:
                raise UserError(f"{results}: has nobody at {tuple(place[1:])} in {place[0]}, whom MPII judges")
            found[row] = predicted[tuple(place)]
        if found:
            image["annorect"] = _with_points(image["annorect"], found)
    path = Path(folder) / MPII_FILE
    with whole_file(path) as file:
        savemat(file, {"pred": annolist}, do_compression=True)
    return path


def _listed_places(annotations_file):
    """Return where everyone in a list stands, {row from 1: (image, x, y)}."""
    places = {}
    for row, person in enumerate(read_list(annotations_file), start=1):
        try:
            x, y = map(round, finite_numbers(person.get("center"), 2, "center"))
        except Unusable as reason:
            raise UserError(f"{annotations_file}: person {row}: {reason}") from None
        places[row] = person.get("image"), x, y
    return places


def _keypoints_by_place(results, file, places):
    """Return {(image, x, y): keypoints (16, 2), in pixels counted from 1} of everyone in the results: by image and
    centre, to a pixel, MPII identifies a person. places: {person_id: (image, x, y)}, as `file` has them"""
    predicted, seen = {}, set()
    for index, entry in enumerate(read_results(results, MPII)):
        person, where = entry.get("person_id"), f"{results}: entry {index}: person_id"
        if type(person) is not int or person not in places:
            raise UserError(f"{where}: {person!r} is nobody in {file}, {min(places)} to {max(places)}")
        if person in seen:
            raise UserError(f"{where}: an earlier entry is also of {person}")
        seen.add(person)
        predicted[tuple(places[person])] = np.reshape(entry["keypoints"], (-1, 3))[:, :2] + 1
    return predicted


def _with_points(people, predicted):
    """Return an `annorect`, (1, R) structs, with the predictions {row: keypoints (16, 2)} as annopoints."""
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
