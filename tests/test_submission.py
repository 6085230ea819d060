"""What leaderboards take, and what they would refuse."""

import json
import sys
import zipfile

import numpy as np
import pytest
from scipy.io import loadmat, savemat

from rsnlib.__main__ import main
from rsnlib.apps.submission import check_mpii_submission, check_submission, write_mpii_submission, write_submission
from rsnlib.errors import UserError
from rsnlib.metrics import coco_results


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


def test_a_folder_that_cannot_be_made_is_named(entries, tmp_path):
    (tmp_path / "results.json").write_text(json.dumps(entries))
    with pytest.raises(UserError, match="_RSN_results.zip: cannot be written .*results.json is a file, not a folder"):
        write_submission(tmp_path / "results.json", "val2017", "RSN", tmp_path / "results.json/out")


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


def test_the_command_asks_for_what_cocos_server_wants_to_know(entries, tmp_path, monkeypatch):
    (tmp_path / "results.json").write_text(json.dumps(entries))
    monkeypatch.setattr(sys, "argv", ["rsnlib", "submit", str(tmp_path / "results.json"), "--split", "val2017"])
    with pytest.raises(SystemExit, match="--algorithm"):
        main()
    monkeypatch.setattr(sys, "argv", ["rsnlib", "submit", str(tmp_path / "results.json"), "--dataset", "lspet"])
    with pytest.raises(SystemExit, match="no leaderboard for data sets of the reader lspet"):
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
    """A function: write the submission of `predicted`, or of other entries; its path."""

    def write(entries=predicted):
        (tmp_path / "results.json").write_text(json.dumps(entries))
        return write_mpii_submission(tmp_path / "results.json", mpii_folder, tmp_path / "out")

    return write


def points_of(pred, image, row):
    """(16, 3): x, y and id of the points of a row of an annorect, both from 0, as SciPy reads MATLAB's structs."""
    points = pred[0, image]["annorect"]["annopoints"][0, row]["point"][0, 0]
    return np.array([[point[name].item() for name in ("x", "y", "id")] for point in points.ravel()])


def test_mpiis_predictions_lie_in_its_own_annotations(write_mpii, mpii_folder):
    path = write_mpii()
    check_mpii_submission(path, mpii_folder)
    assert path.name == "pred_keypoints_mpii.mat"
    pred = loadmat(path)["pred"]
    assert [image["image"]["name"][0, 0].item() for image in pred[0]] == ["a.jpg", "b.jpg", "c.jpg"]
    # rows of test.json, from 0, by image and row of its annorect; x and y of the first joint, counted from 1
    for person, image, row in [(0, 2, 3), (1, 2, 1), (2, 0, 0), (3, 0, 1)]:
        points = points_of(pred, image, row)
        assert points[0, :2].tolist() == [32 * person + 1.25, 32 * person + 2.25]
        assert points[:, 2].tolist() == list(range(16))
        np.testing.assert_array_equal(points[:, :2].ravel(), 32 * person + 1.25 + np.arange(32))
    assert pred[0, 1]["annorect"].size == 0
    everyone = pred[0, 2]["annorect"][0]
    assert [person["annopoints"].size for person in everyone] == [0, 1, 0, 1]
    assert [person["objpos"].size for person in everyone] == [0, 1, 1, 1] and everyone[2]["scale"].item() == 0.2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"person_id": 4}, "results.json: entry 1: person_id: an earlier entry is also of 4"),
        ({"person_id": 5}, "results.json: entry 1: person_id: 5 is no row of .*test.json, 1 to 4"),
        ({"person_id": None}, "results.json: entry 1: person_id: None is no row"),
        ({"keypoints": [1.0] * 51}, "results.json: entry 1: keypoints: must be 48 numbers, not 51"),
        ({"keypoints": [1.0] * 47 + [float("nan")]}, "results.json: entry 1: keypoints: nan is not a finite number"),
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


def without_a_joint(pred):
    person = pred[0, 2]["annorect"]["annopoints"][0, 3]
    person["point"][0, 0] = person["point"][0, 0][:, :15]


def with_a_joint_twice(pred):
    pred[0, 2]["annorect"]["annopoints"][0, 3]["point"][0, 0]["id"][0, 7] = 3.0


def without_a_position(pred):
    pred[0, 2]["annorect"]["annopoints"][0, 3]["point"][0, 0]["x"][0, 7] = np.nan


def without_a_person(pred):
    pred[0, 2]["annorect"]["annopoints"][0, 3] = np.zeros((0, 0))


def in_another_order(pred):
    pred[0, [0, 2]] = pred[0, [2, 0]]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (without_a_joint, "c.jpg: annorect 4: must have a point of each id from 0 to 15"),
        (with_a_joint_twice, "c.jpg: annorect 4: must have a point of each id from 0 to 15"),
        (without_a_position, "c.jpg: annorect 4: not every position is finite"),
        (without_a_person, "c.jpg: annorect 4: no points with x, y and id"),
        (in_another_order, "image 1 must be a.jpg, as in MPII's test set, not c.jpg"),
    ],
)
def test_a_broken_file_for_mpii_is_refused(write_mpii, mpii_folder, damage, message):
    path = write_mpii()
    pred = loadmat(path)["pred"]
    damage(pred)
    savemat(path, {"pred": pred})
    with pytest.raises(UserError, match=f"pred_keypoints_mpii.mat: {message}"):
        check_mpii_submission(path, mpii_folder)


def test_what_is_no_file_for_mpii_is_refused(write_mpii, mpii_folder, tmp_path):
    pred = loadmat(write_mpii())["pred"]
    for contents, message in [
        ({"pred": pred[:, :2]}, "image 3 must be c.jpg, as in MPII's test set, not None"),
        ({"preds": np.zeros((4, 16, 2))}, "no MATLAB file with `pred`, an annolist .KeyError"),
        ({"pred": np.zeros((4, 16, 2))}, "no MATLAB file with `pred`, an annolist"),
    ]:
        savemat(tmp_path / "other.mat", contents)
        with pytest.raises(UserError, match=f"other.mat: {message}"):
            check_mpii_submission(tmp_path / "other.mat", mpii_folder)
    with pytest.raises(UserError, match="nothing.mat: no such file"):
        check_mpii_submission(tmp_path / "nothing.mat", mpii_folder)
