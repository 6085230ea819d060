"""Files whole or not at all, errors that name the file, fingerprints."""

import errno
import os
import tempfile

import pytest
import torch

from rsnlib.errors import UserError
from rsnlib.files import check_writable, fingerprint, read_json, whole_file, write_json, write_results


def test_a_written_file_replaces_the_old_one_and_a_writer_that_fails_leaves_it(tmp_path):
    path = tmp_path / "new folder" / "results.json"
    for value in ({"AP": 0.1}, {"AP": 0.736}):
        write_json(path, value)
    for error in (ValueError, KeyboardInterrupt):
        with pytest.raises(error), whole_file(path, "w") as file:
            file.write("half of the n")
            raise error
    assert read_json(path) == {"AP": 0.736}
    assert path.stat().st_mode & 0o777 == 0o644
    assert len(list(path.parent.iterdir())) == 1


@pytest.mark.parametrize("write", [check_writable, lambda path: write_json(path, 1)], ids=["check", "write"])
def test_a_path_that_cannot_be_written_is_named_with_the_reason(tmp_path, monkeypatch, write):
    file = tmp_path / "file"
    file.write_text("a user's")
    for path in (file / "results.json", file / "folder/results.json"):
        with pytest.raises(UserError, match=f"{path}: cannot be written .{file} is a file, not a folder.$"):
            write(path)
    (tmp_path / "folder").mkdir()
    with pytest.raises(UserError, match="folder: cannot be written .it is a folder.$"):
        write(tmp_path / "folder")

    def refuse(*_, **__):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(tempfile, "mkstemp", refuse)
    with pytest.raises(UserError, match="results.json: cannot be written .Permission denied.$"):
        write(tmp_path / "results.json")
    assert {path.name for path in tmp_path.iterdir()} == {"file", "folder"} and file.read_text() == "a user's"


def test_what_is_checked_is_left_as_it_is(tmp_path):
    (tmp_path / "results.json").write_text("old")
    check_writable(tmp_path / "results.json")
    check_writable(tmp_path / "new folder/results.json")
    assert (tmp_path / "results.json").read_text() == "old"
    assert {path.name for path in tmp_path.iterdir()} == {"results.json", "new folder"}
    assert not any((tmp_path / "new folder").iterdir())


@pytest.mark.parametrize("weights", [False, True])
def test_a_full_disk_is_named_and_leaves_nothing(tmp_path, weights):
    message = "results.json: cannot be written .No space left on device.$"
    with pytest.raises(UserError, match=message), whole_file(tmp_path / "results.json") as file:
        full = os.open("/dev/full", os.O_WRONLY)
        os.dup2(full, file.fileno())
        os.close(full)
        if weights:  # torch.save raises a RuntimeError about positions
            torch.save({"weights": torch.ones(100_000)}, file)
        file.write(b"a little")
    assert not any(tmp_path.iterdir())


def test_an_error_about_another_file_stays_what_it_is(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere.jpg"), whole_file(tmp_path / "results.json"):
        (tmp_path / "nowhere.jpg").read_bytes()
    assert not any(tmp_path.iterdir())


def test_written_results_keep_every_digit(tmp_path):
    results = [{"image_id": 785, "keypoints": [0.1 + 0.2, 1e-17, 123456.7], "score": 1 / 3}]
    write_results(tmp_path / "results.json", results)
    assert read_json(tmp_path / "results.json") == results


@pytest.mark.parametrize("content", [None, b"{", b"\xff\xfe"])
def test_json_that_cannot_be_read_is_named(tmp_path, content):
    path = tmp_path / "results.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match="results.json: (no such file|not readable as JSON)"):
        read_json(path)


def test_fingerprints_stay_the_same_and_tell_values_apart():
    assert fingerprint({"a": 1, "b": [2.5, None]}, "x") == "8dffdfc85d01"
    assert fingerprint({"b": [2.5, None], "a": 1}, "x") == "8dffdfc85d01"
    values = [{"a": 1}, {"a": 2}, {"b": 1}, {"a": 1.5}, {"a": "1"}, {"a": None}, [1]]
    assert len({fingerprint(value) for value in values}) == len(values)
    assert fingerprint("a", "b") != fingerprint("ab")


def test_a_notebook_shows_the_message_alone():
    assert UserError("data/coco: no such folder")._render_traceback_() == ["UserError: data/coco: no such folder"]
