"""Checkpoints to resume training from: whole, locked, and with one to fall back to."""

import subprocess
import sys

import pytest
import torch

from rsnlib.errors import UserError
from rsnlib.training.states import States


def saved(folder, *iterations):
    with States(folder) as states:
        for iteration in iterations:
            states.save(iteration, {"iteration": iteration, "weights": torch.full((1000,), float(iteration))})
    return sorted(folder.glob("*.pt"))


def newest(folder):
    with States(folder) as states:
        return states.newest()


def test_the_newest_of_two_is_found_again(tmp_path):
    assert newest(tmp_path / "new") is None
    assert [path.stem for path in saved(tmp_path, 8, 90, 100)] == ["000000090", "000000100"]
    (tmp_path / ".000000101.pt.x7f3").write_bytes(b"half")  # of a process that was killed
    found = newest(tmp_path)
    assert found["iteration"] == 100 and found["weights"].eq(100).all()
    assert not list(tmp_path.glob(".*"))


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="file/state: cannot be written .*file is a file, not a folder"):
        saved(tmp_path / "file/state")


@pytest.mark.parametrize("damage", ["cut", "empty", "flipped", "other"])
def test_a_damaged_one_falls_back_with_a_warning(tmp_path, capsys, damage):
    before, path = saved(tmp_path, 1, 2)
    whole = path.read_bytes()
    place = whole.index(torch.full((1000,), 2.0).numpy().tobytes()) + 777
    flipped = whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :]
    path.write_bytes({"cut": whole[: len(whole) // 2], "empty": b"", "flipped": flipped, "other": b"<html>"}[damage])
    assert newest(tmp_path)["iteration"] == 1
    warning = capsys.readouterr().err
    assert f"{path}: damaged" in warning and "going on from the one before" in warning
    before.write_bytes(b"")
    assert newest(tmp_path) is None


def test_a_second_process_waits_and_says_so(tmp_path):
    code = "from rsnlib.training.states import States\n"
    code += f"with States({str(tmp_path)!r}) as s: print(s.newest()['iteration'])"
    with States(tmp_path) as states:
        other = subprocess.Popen([sys.executable, "-c", code], stdout=-1, stderr=-1, text=True)
        assert "another process trains this run" in other.stderr.readline()
        assert other.poll() is None
        states.save(7, {"iteration": 7})
    assert other.communicate(timeout=60)[0] == "7\n"
