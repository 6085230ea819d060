"""What COCO's evaluation server takes, and what it would refuse."""

import json
import sys
import zipfile

import numpy as np
import pytest

from rsnlib.__main__ import main
from rsnlib.metrics import coco_results
from rsnlib.runtime import UserError
from rsnlib.submission import check_submission, write_submission


@pytest.fixture
def entries():
    """Three people in COCO's results format, with the boxes we keep beside it."""
    random = np.random.default_rng(0)
    keypoints, scores = random.uniform(0, 300, (3, 17, 2)), random.uniform(0.5, 1.5, (3, 17))
    return coco_results([785, 785, 872], keypoints, scores, random.random(3), np.ones((3, 4)))


@pytest.fixture
def write(tmp_path):
    """A function: a zip of that name with a JSON of `content` in it."""

    def write(content, name="person_keypoints_test-dev2017_RSN_results", member=None):
        path = tmp_path / f"{name}.zip"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr(member or f"{name}.json", json.dumps(content))
        return path

    return write


@pytest.mark.parametrize("split", ["val2017", "test-dev2017", "test-challenge2017"])
def test_a_submission_has_the_servers_name_and_fields(entries, tmp_path, split, monkeypatch, capsys):
    (tmp_path / "results.json").write_text(json.dumps(entries))
    command = ["rsnlib", "submit", str(tmp_path / "results.json"), "--split", split, "--algorithm", "4xRSN-50"]
    monkeypatch.setattr(sys, "argv", [*command, "-o", str(tmp_path / "out")])
    main()
    path = tmp_path / f"out/person_keypoints_{split}_4xRSN-50_results.zip"
    assert capsys.readouterr().out == f"{path}\n"
    check_submission(path)
    with zipfile.ZipFile(path) as archive:
        assert archive.namelist() == [f"person_keypoints_{split}_4xRSN-50_results.json"]
        (first, *_), count = json.loads(archive.read(archive.namelist()[0])), len(entries)
    assert count == 3 and first == {key: value for key, value in entries[0].items() if key != "box"}


def test_the_same_results_are_the_same_bytes(entries, tmp_path):
    (tmp_path / "results.json").write_text(json.dumps(entries))
    one, other = (write_submission(tmp_path / "results.json", "val2017", "RSN", tmp_path / folder) for folder in "ab")
    assert one.read_bytes() == other.read_bytes()


@pytest.mark.parametrize(("split", "algorithm"), [("test2017", "RSN"), ("val2017", "my net"), ("val2017", "")])
def test_names_that_the_server_does_not_take_are_refused(entries, tmp_path, split, algorithm):
    (tmp_path / "results.json").write_text(json.dumps(entries))
    with pytest.raises(UserError, match=f"person_keypoints_{split}_{algorithm}_results: no name"):
        write_submission(tmp_path / "results.json", split, algorithm, tmp_path)


BROKEN = [
    ({"image_id": "785"}, "image_id: '785' is not a whole number"),
    ({"image_id": 785.0}, "image_id: 785.0"),
    ({"image_id": True}, "image_id: True"),
    ({"category_id": 2}, "category_id: must be 1, a person, not 2"),
    ({"category_id": True}, "category_id"),
    ({"keypoints": [1.0] * 50}, "keypoints: must be 51 numbers, not 50"),
    ({"keypoints": None}, "keypoints: must be 51 numbers, not None"),
    ({"keypoints": [1.0] * 50 + [float("nan")]}, "keypoints: nan is not a finite number"),
    ({"keypoints": [1.0] * 50 + ["2"]}, "keypoints: '2' is not a finite number"),
    ({"score": float("inf")}, "score: inf"),
    ({"score": None}, "score: None"),
]


@pytest.mark.parametrize(("change", "message"), BROKEN)
def test_the_first_broken_entry_is_named(entries, write, tmp_path, change, message):
    entries[1].update(change)
    entries[2].update(change)
    with pytest.raises(UserError, match=f"_results.zip: entry 1: {message}"):
        check_submission(write(entries))
    (tmp_path / "results.json").write_text(json.dumps(entries))
    with pytest.raises(UserError, match=f"results.json: entry 1: {message}"):
        write_submission(tmp_path / "results.json", "val2017", "RSN", tmp_path)
    assert not (tmp_path / "person_keypoints_val2017_RSN_results.zip").exists()


@pytest.mark.parametrize("key", ["image_id", "category_id", "keypoints", "score"])
def test_a_missing_field_is_named(entries, write, key):
    del entries[2][key]
    with pytest.raises(UserError, match=f"entry 2: {key} is missing"):
        check_submission(write(entries))


def test_what_is_no_list_of_results_is_refused(entries, write):
    for content in ({"annotations": entries}, []):
        with pytest.raises(UserError, match="must be a list of results"):
            check_submission(write(content))
    with pytest.raises(UserError, match="entry 1: not an object"):
        check_submission(write([entries[0], 3]))


def test_zips_of_other_names_or_contents_are_refused(entries, write, tmp_path):
    with pytest.raises(UserError, match="must be named"):
        check_submission(write(entries, "results"))
    with pytest.raises(UserError, match="must hold person_keypoints_val2017_RSN_results.json alone, not other.json"):
        check_submission(write(entries, "person_keypoints_val2017_RSN_results", "other.json"))
    text = tmp_path / "person_keypoints_val2017_text_results.zip"
    text.write_text("no zip")
    with pytest.raises(UserError, match="not a readable zip"):
        check_submission(text)
    with pytest.raises(UserError, match="no such file"):
        check_submission(tmp_path / "person_keypoints_val2017_nothing_results.zip")
