"""Trainings side by side: how many at once, with which threads, stopped and failed."""

import os
import signal
import threading
import time

import pytest

from rsnlib.errors import Stopped, UserError
from rsnlib.stages import side_by_side

# in place of `python -m rsnlib train --dataset D --model M --seed S`
TRAINING = """#!/bin/sh
echo "start $7 $OMP_NUM_THREADS $TQDM_POSITION" >> log
trap 'kill $!; echo "saved $7" >> log; exit 1' TERM
sleep {seconds} & wait
echo "end $7" >> log
[ $7 != broken ]
"""


@pytest.fixture
def trainings(tmp_path, monkeypatch):
    """A function: let models be trained, each for some seconds, on two cores; return the lines that they logged."""
    monkeypatch.setattr(side_by_side, "project_root", lambda: tmp_path)
    monkeypatch.setattr(side_by_side, "cores", lambda: 2)
    monkeypatch.setattr(side_by_side.sys, "executable", str(tmp_path / "python"))
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)

    def train(*models, seconds=0.3):
        runs = [(f"train@demo-{model}-0", {"dataset": "demo", "model": model, "seed": 0}) for model in models]
        monkeypatch.setattr(side_by_side, "stale_runs", lambda: runs)
        (tmp_path / "python").write_text(TRAINING.format(seconds=seconds))
        (tmp_path / "python").chmod(0o755)
        (tmp_path / "log").write_text("")
        try:
            side_by_side.train_all()
        finally:
            lines.extend(line.split() for line in (tmp_path / "log").read_text().splitlines())
        return lines

    train.lines = lines = []
    return train


def test_two_cores_train_three_runs_at_a_time_each_with_one_thread(trainings):
    lines = trainings("a", "b", "c", "d")
    running, most = 0, 0
    for kind, *_ in lines:
        running += {"start": 1, "end": -1}[kind]
        most = max(most, running)
    assert most == 3 and sorted(model for kind, model, *_ in lines if kind == "end") == list("abcd")
    started = [line[1:] for line in lines if line[0] == "start"]
    assert {threads for _, threads, _ in started} == {"1"}
    assert sorted(place for _, _, place in started[:3]) == ["0", "1", "2"]


def test_one_run_is_left_to_dvc(trainings):
    assert trainings("alone") == []


def test_a_training_that_fails_is_named_and_no_further_one_starts(trainings):
    with pytest.raises(UserError, match="^train@demo-broken-0: failed, see above$"):
        trainings("broken", "b", "c", "never")
    assert "never" not in {model for _, model, *_ in trainings.lines}


def test_after_sigterm_every_training_has_saved(trainings):
    def stop():
        time.sleep(0.5)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=stop).start()
    with pytest.raises(Stopped, match="goes on from here"):
        trainings("a", "b", "c", "never", seconds=20)
    assert sorted(model for kind, model, *_ in trainings.lines if kind == "saved") == ["a", "b", "c"]
