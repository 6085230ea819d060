"""The bench at its smallest: every row, the ratio to the released code, and its demands on a checkout."""

import json
import os
import re
import sys

import numpy as np
import pytest
import torch

from bench import bench as benching
from bench.bench import Bench, Sizes, bench
from bench.first_run import first_run
from bench.released import EXPERIMENT
from rsnlib import __main__ as command_line
from rsnlib.errors import UserError
from rsnlib.models.zoo import ZOO

SMALLEST = Sizes(4, 2, 2, 2, 4, scored=40, turns=2, calls=1, iterations=(1, 2), matrix=32, copied=1024)
PARTS = ["data", "forward, tiny", "training step, tiny", "training step, 4xRSN-50", "decoding", "evaluation, judged"]
PARTS += ["training with its data, tiny"]


@pytest.fixture
def tiny(monkeypatch):
    """Make the networks of the bench small."""
    monkeypatch.setitem(ZOO, "tiny", benching.Architecture("residual_steps", (1, 1, 1, 1)))
    monkeypatch.setattr(benching, "DEEP", benching.Architecture("residual_steps", (1, 2, 1, 1), stages=2))


def read(folder):
    """Return bench.json and its rows by their names."""
    report = json.loads((folder / "bench.json").read_text())
    return report, {row["what"]: row for row in report["rows"]}


def test_every_part_is_a_row_of_the_table_and_the_json(tiny, tmp_path):
    table = bench("cpu", model="tiny", output=tmp_path, sizes=SMALLEST).read_text()
    report, rows = read(tmp_path)
    assert "released" not in table and torch.__version__ in table
    for part in PARTS:
        assert part in table and any(what.startswith(part) for what in rows)
    for row in rows.values():
        assert row["people/s"] == pytest.approx(row["people"] / np.median(row["seconds"]))
        assert "ratio" not in row and len(row["seconds"]) == SMALLEST.turns
    training = rows["training step, tiny, float32"]
    reached = training["GFLOP"] * 1e9 * training["people/s"] / report["ceilings"]["float32"]
    assert training["of matmul (%)"] == pytest.approx(100 * reached)
    assert training["GFLOP"] > 2.5 * rows["forward, tiny, float32"]["GFLOP"] and training["memory (GiB)"] > 0.01


def test_the_first_run_on_a_gpu_is_rehearsed_on_the_cpu(tiny, tmp_path):
    said = first_run(tmp_path, input_size=(64, 64), model="tiny", sizes=SMALLEST, drawn=8, short=2)
    assert "Traceback" not in said and said == (tmp_path / "first_run.txt").read_text().rstrip("\n")
    apart = re.findall(r"cpu float32: heads (\S+), loss (\S+), gradients (\S+) apart", said)
    assert {float(each) for each in apart[0]} == {0} and "cpu bfloat16: heads" in said
    norms = re.findall(r"(\w+) (\d\S+e-\d+)", re.search("torch.float32: (.*)", said)[1])
    assert len(norms) == 6 and max(float(distance) for _, distance in norms) < 1e-5
    assert said.count("of the keypoints within 5 %") == 2 and "the same weights: True" in said
    assert (tmp_path / "bench.md").is_file()


def test_the_ratio_is_our_speed_over_the_released_codes():
    run = Bench("cpu", SMALLEST)
    run.add("something", 12, np.array([1.0, 3, 4, 3, 3]), np.array([15.0, 9, 9, 8, 7]), MB=7)
    (row,) = run.rows
    assert (row["people/s"], row["released people/s"], row["ratio"]) == (4, 12 / 9, 3)
    assert row["spread (%)"] == 0
    assert row["of copy (%)"] == pytest.approx(100 * 7e6 * 4 / run.ceilings["copy"])


def test_runs_are_called_in_turns():
    calls = []
    seconds = Bench("cpu", SMALLEST).seconds(lambda: calls.append("a"), lambda: calls.append("b"), calls=2)
    assert calls == ["a", "a", "b", "b"] * 3  # the first turn does not count
    assert seconds.shape == (2, 2) and (seconds > 0).all()


def test_numbers_that_are_not_the_released_codes_stop_the_bench():
    theirs = torch.tensor([1.0, 200])
    benching._check("heatmaps", theirs + 0.01, theirs)
    for ours in (theirs + 0.03, theirs * torch.nan):
        with pytest.raises(UserError, match="heatmaps: the released code's are up to"):
            benching._check("heatmaps", ours, theirs)


def test_missing_checkouts_of_the_released_code_and_of_the_project_are_named(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["rsnlib", "bench", "--released", str(tmp_path / "RSN"), "-o", str(tmp_path)])
    with pytest.raises(SystemExit, match="error: .*RSN: no checkout of the released RSN code .*git clone"):
        command_line.main()
    assert not list(tmp_path.iterdir())
    monkeypatch.setattr(command_line, "__file__", str(tmp_path / "rsnlib/__main__.py"))
    with pytest.raises(SystemExit, match=f"error: {tmp_path}: has no folder bench/"):
        command_line.main()


def test_a_package_that_the_released_code_needs_is_named(tmp_path):
    folder = tmp_path / EXPERIMENT
    folder.mkdir(parents=True)
    (folder / "network.py").touch()
    (folder / "config.py").write_text("import coloredlogs\nimport a_package_of_theirs\n")
    before = set(sys.modules), list(sys.path)
    with pytest.raises(UserError, match="needs a_package_of_theirs: pip install a_package_of_theirs"):
        bench("cpu", tmp_path, sizes=SMALLEST)
    assert (set(sys.modules), sys.path) == before
    assert len(list(folder.iterdir())) == 2  # nothing is written into the checkout


@pytest.mark.skipif("RSN_RELEASED" not in os.environ, reason="RSN_RELEASED names no checkout of the released code")
def test_ours_and_the_released_code_agree_and_are_compared(tiny, tmp_path):
    bench("cpu", os.environ["RSN_RELEASED"], "tiny", tmp_path, SMALLEST)
    _, rows = read(tmp_path)
    compared = {what for what, row in rows.items() if "ratio" in row}
    assert all(any(what.startswith(part) for what in compared) for part in PARTS[:-1])
    for what in compared:
        row = rows[what]
        assert row["ratio"] == pytest.approx(np.median(row["released seconds"]) / np.median(row["seconds"]))
