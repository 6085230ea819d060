"""Files whole or not at all, errors that name the file, fingerprints."""

import pytest

from rsnlib.runtime import UserError, fingerprint, read_json, whole_file, write_json, write_results


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_writer_that_fails_leaves_the_old_file_and_nothing_else(tmp_path, error):
    path = tmp_path / "results.txt"
    path.write_text("old")
    with pytest.raises(error), whole_file(path, "w") as file:
        file.write("half of the n")
        raise error
    assert [found.name for found in tmp_path.iterdir()] == ["results.txt"]
    assert path.read_text() == "old"


def test_a_written_file_replaces_the_old_one(tmp_path):
    path = tmp_path / "new folder" / "results.json"
    for value in ({"AP": 0.1}, {"AP": 0.736}):
        write_json(path, value)
    assert read_json(path) == {"AP": 0.736}
    assert path.stat().st_mode & 0o777 == 0o644
    assert len(list(path.parent.iterdir())) == 1


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


def test_fingerprints_stay_the_same():
    assert fingerprint({"a": 1, "b": [2.5, None]}, "x") == "8dffdfc85d01"
    assert fingerprint({"b": [2.5, None], "a": 1}, "x") == "8dffdfc85d01"


def test_fingerprints_tell_values_apart():
    values = [{"a": 1}, {"a": 2}, {"b": 1}, {"a": 1.5}, {"a": "1"}, {"a": None}, [1]]
    assert len({fingerprint(value) for value in values}) == len(values)
    assert fingerprint("a", "b") != fingerprint("ab")


def test_a_notebook_shows_the_message_alone():
    assert UserError("data/coco: no such folder")._render_traceback_() == ["UserError: data/coco: no such folder"]
