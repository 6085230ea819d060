"""The files that leaderboards take, and the results that they would refuse."""

import json
import sys
import zipfile

import numpy as np
import pytest
from scipy.io import loadmat, savemat

from rsnlib.__main__ import main
from rsnlib.apps.submission import write_mpii_submission, write_submission
from rsnlib.errors import UserError
from rsnlib.metrics import coco_results


@pytest.fixture
def entries():
    """Three people in COCO's results format, with the boxes that we keep besides."""
    random = np.random.default_rng(0)
    keypoints, scores = random.uniform(0, 300, (3, 17, 2)), random.uniform(0.5, 1.5, (3, 17))
    return coco_results([785, 785, 872], keypoints, scores, random.random(3), np.ones((3, 4)))


@pytest.fixture
def write(tmp_path, entries):
    """A function: write the submission of `entries`, or of other contents of results.json, and return its path."""

    def write(content=entries, split="val2017", algorithm="RSN", folder="out"):
        (tmp_path / "results.json").write_text(json.dumps(content))
        return write_submission(tmp_path / "results.json", split, algorithm, tmp_path / folder)

    return write


def test_a_submission_has_the_servers_name_and_fields(write, entries, tmp_path, monkeypatch, capsys):
    path = write(split="test-dev2017", algorithm="4xRSN-50")
    assert path == tmp_path / "out/person_keypoints_test-dev2017_4xRSN-50_results.zip"
    with zipfile.ZipFile(path) as archive:
        assert archive.namelist() == [f"{path.stem}.json"]
        (first, *_), count = json.loads(archive.read(archive.namelist()[0])), len(entries)
    assert count == 3 and first == {key: value for key, value in entries[0].items() if key != "box"}
    command = ["rsnlib", "submit", str(tmp_path / "results.json"), "--split", "test-dev2017", "--algorithm", "4xRSN-50"]
    monkeypatch.setattr(sys, "argv", [*command, "-o", str(tmp_path / "again")])
    main()
    assert capsys.readouterr().out == f"{tmp_path / 'again' / path.name}\n"
    assert path.read_bytes() == (tmp_path / "again" / path.name).read_bytes()


@pytest.mark.parametrize(("split", "algorithm"), [("test2017", "RSN"), ("val2017", "my net"), ("val2017", "")])
def test_names_that_the_server_does_not_take_are_refused(write, split, algorithm):
    with pytest.raises(UserError, match=f"person_keypoints_{split}_{algorithm}_results: no name"):
        write(split=split, algorithm=algorithm)


def test_a_folder_that_cannot_be_made_is_named(write):
    with pytest.raises(UserError, match="_RSN_results.zip: cannot be written .*results.json is a file, not a folder"):
        write(folder="results.json/out")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_id": "785"}, "image_id: Input should be a valid integer, not '785'"),
        ({"image_id": 785.0}, "image_id: .* not 785.0"),
        ({"image_id": True}, "image_id: .* not True"),
        ({"category_id": 2}, "category_id: Input should be less than or equal to 1, not 2"),
        ({"keypoints": [1.0] * 50}, "keypoints: List should have at least 51 items after validation, not 50"),
        ({"keypoints": None}, "keypoints: Input should be a valid list, not None"),
        ({"keypoints": [1.0] * 50 + [float("nan")]}, "keypoints: Input should be a finite number, not nan"),
        ({"score": None}, "score: Input should be a valid number, not None"),
    ],
)
def test_the_first_broken_entry_is_named(entries, write, tmp_path, change, message):
    entries[1].update(change)
    entries[2].update(change)
    with pytest.raises(UserError, match=f"results.json: entry 1: {message}"):
        write()
    assert not (tmp_path / "out").exists()


def test_what_is_no_list_of_results_is_refused(entries, write):
    for content in ({"annotations": entries}, [], None):
        with pytest.raises(UserError, match="results.json: not a list of results"):
            write(content)
    with pytest.raises(UserError, match="entry 1: Input should be a valid dictionary .*, not 3"):
        write([entries[0], 3])
    del entries[2]["score"]
    with pytest.raises(UserError, match="entry 2: score: Field required$"):
        write()


@pytest.mark.parametrize(
    ("options", "message"),
    [(["--split", "val2017"], "--algorithm"), (["--dataset", "lspet"], "no leaderboard for data sets .* lspet")],
)
def test_the_command_asks_for_what_a_leaderboard_wants_to_know(monkeypatch, options, message):
    monkeypatch.setattr(sys, "argv", ["rsnlib", "submit", "results.json", *options])
    with pytest.raises(SystemExit, match=message):
        main()


# ---- MPII


@pytest.fixture
def predicted(mpii_folder):
    """Predictions of the four people of `mpii_folder` in COCO's results format, in another order than the list's."""
    keypoints = np.arange(4 * 16 * 2).reshape(4, 16, 2) + 0.25
    entries = coco_results([1, 1, 2, 2], keypoints, np.ones((4, 16)), np.ones(4))
    return [entry | {"person_id": row} for row, entry in enumerate(entries, start=1)][::-1]


@pytest.fixture
def write_mpii(mpii_folder, predicted, tmp_path):
    """A function: write the submission of `predicted`, or of other entries, and return its path."""

    def write(entries=predicted):
        (tmp_path / "results.json").write_text(json.dumps(entries))
        return write_mpii_submission(tmp_path / "results.json", mpii_folder, tmp_path / "out")

    return write


def test_mpiis_predictions_lie_in_its_own_annotations(write_mpii):
    path = write_mpii()
    assert path.name == "pred_keypoints_mpii.mat"
    pred = loadmat(path)["pred"]
    assert [image["image"]["name"][0, 0].item() for image in pred[0]] == ["a.jpg", "b.jpg", "c.jpg"]
    # rows of test.json, from 0, by image and row of its annorect; x and y of each joint, counted from 1
    for person, image, row in [(0, 2, 3), (1, 2, 1), (2, 0, 0), (3, 0, 1)]:
        points = pred[0, image]["annorect"]["annopoints"][0, row]["point"][0, 0].ravel()
        x, y, ids = ([point[name].item() for point in points] for name in ("x", "y", "id"))
        np.testing.assert_array_equal(np.ravel([x, y], order="F"), 32 * person + 1.25 + np.arange(32))
        assert ids == list(range(16))
    assert pred[0, 1]["annorect"].size == 0
    everyone = pred[0, 2]["annorect"][0]
    assert [person["annopoints"].size for person in everyone] == [0, 1, 0, 1]
    assert [person["objpos"].size for person in everyone] == [0, 1, 1, 1] and everyone[2]["scale"].item() == 0.2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"person_id": 4}, "results.json: entry 1: person_id: an earlier entry is also of 4"),
        ({"person_id": 5}, "results.json: entry 1: person_id: 5 is nobody in .*test.json, 1 to 4"),
        ({"person_id": None}, "results.json: entry 1: person_id: None is nobody"),
        ({"keypoints": [1.0] * 51}, "results.json: entry 1: keypoints: List should have at most 48 items"),
    ],
)
def test_mpiis_first_broken_entry_is_named(write_mpii, predicted, tmp_path, change, message):
    predicted[1].update(change)
    with pytest.raises(UserError, match=message):
        write_mpii()
    assert not (tmp_path / "out").exists()


def test_mpiis_missing_person_is_named(write_mpii, predicted):
    with pytest.raises(UserError, match=r"results.json: has nobody at \(90, 45\) in c.jpg, whom MPII judges"):
        write_mpii(predicted[:2] + predicted[3:])


def test_mpiis_own_annotations_must_be_there(write_mpii, mpii_folder):
    file = mpii_folder / "annot/mpii_human_pose_v1_u12_1.mat"
    savemat(file, {"annolist": 1})
    with pytest.raises(UserError, match="mpii_human_pose_v1_u12_1.mat: not MPII's annotations .KeyError: 'RELEASE'"):
        write_mpii()
    file.write_bytes(b"not MATLAB")
    with pytest.raises(UserError, match="mpii_human_pose_v1_u12_1.mat: not MPII's annotations"):
        write_mpii()
    file.unlink()
    with pytest.raises(UserError, match="mpii_human_pose_v1_u12_1.mat: no such file; .*mpii_human_pose_v1_u12_2.zip"):
        write_mpii()
