"""A training killed at random moments, again and again: it ends with the bytes of an uninterrupted one."""

import contextlib
import hashlib
import multiprocessing
import os
import random
import shutil
import signal
import sys
import time
from collections import Counter
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import pandas as pd
import torch
from ruamel.yaml import YAML

from rsnlib.__main__ import main as command_line
from rsnlib.demo.annotate import draw_people
from rsnlib.stages.prepare import prepare
from rsnlib.training import loop as training

ROOT = Path(__file__).resolve().parents[1]
ITERATIONS = 12  # per training


def started(work, *given):
    """Start a copy of this process, all imports done, that calls `work(*given)` silently on one thread and ends."""
    process = multiprocessing.get_context("fork").Process(target=_quietly, args=(work, *given))
    process.start()
    return process


def _quietly(work, *given):
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    torch.set_num_threads(1)
    work(*given)


def write_small_params(path, iterations=ITERATIONS):
    """Write the project's params.yaml with one run on the demo, the smallest there is."""
    values = YAML(typ="safe").load(ROOT / "params.yaml")
    demo = values["datasets"]["demo"] | {"input_size": [64, 64], "more_input_sizes": {}}
    demo["recipe"] |= {"batch_size": 2, "length": {"iterations": iterations}, "warmup": 2}
    tiny = {"network": "res18", "depths": [1, 1, 1, 1], "width": 0.25}  # starting is most of the cost of a kill
    run = {"datasets": {"demo": "data/demo"}, "models": {"tiny": tiny}, "seeds": [0]}
    values |= {"datasets": {"demo": demo}, "model_lists": {}, "ablations": {}, "run": run}
    values["train"] |= {"precision": "float32", "validations": 2}
    YAML(typ="safe").dump(values, path)


def small_project(folder):
    """Make a folder with those parameters and eight drawn people, prepared."""
    folder.mkdir()
    write_small_params(folder / "params.yaml")
    for name in ("dvc.yaml", "notebooks", "rsnlib"):  # their fingerprint is part of a checkpoint's name
        (folder / name).symlink_to(ROOT / name)
    with contextlib.chdir(folder):
        process = started(lambda: (draw_people("data/demo", 8, 4), prepare("demo")))
        process.join()
    assert process.exitcode == 0, "the small project could not be prepared"
    return folder


def train_as_a_user():
    """Run `python -m rsnlib train` with a checkpoint after every iteration."""
    training.SAVE_EVERY, training.SAVE_SHARE = 0, float("inf")
    sys.argv = ["rsnlib", "train", "--dataset", "demo", "--model", "tiny"]
    command_line()


def outcome(folder):
    """Return the SHA-256 of a finished run's weights and of its curves."""
    curves = sorted((folder / "results/demo/train/tiny-0/plots/metrics").rglob("*.tsv"))
    curves = [pd.read_csv(path, sep="\t").drop(columns="timestamp", errors="ignore").to_csv() for path in curves]
    weights = (folder / "work/models/demo/tiny-0.safetensors").read_bytes()
    return hashlib.sha256(weights).hexdigest(), hashlib.sha256("".join(curves).encode()).hexdigest()


def damage(path, chance):
    """Cut a file short, empty it or change a byte of it."""
    contents = bytearray(path.read_bytes())
    kind = chance.choice(["cut", "empty", "changed"])
    if kind == "changed" and contents:  # an earlier damage may have emptied it
        contents[chance.randrange(len(contents))] ^= 1 + chance.randrange(255)
    path.write_bytes({"cut": contents[: chance.randrange(len(contents) or 1)], "empty": b"", "changed": contents}[kind])


def soak(folder, kills, seed=0):
    """Train the small project again and again, killed `kills` times at random moments, and return the report's counts.

    Whenever a training ends, its weights must be the bytes of an uninterrupted one. Every fourth kill is SIGTERM, the
    others SIGKILL; after one in five the newest checkpoint is damaged.
    """
    chance, begun_at = random.Random(seed), time.monotonic()
    with contextlib.chdir(small_project(folder)):
        begun = time.monotonic()
        process = started(train_as_a_user)
        process.join()
        assert process.exitcode == 0, "the uninterrupted training failed"
        whole = time.monotonic() - begun
        wanted, found = outcome(folder), Counter()
        shutil.rmtree("work/state")
        while found["kills"] < kills or found["trainings ended"] == 0 or found["under way"]:
            process, begun = started(train_as_a_user), time.monotonic()
            if found["kills"] < kills:
                if chance.random() < 0.9:  # after a checkpoint was begun; else while the process starts
                    before = states_in(folder)
                    while states_in(folder) == before and time.monotonic() - begun < 2 * whole:
                        time.sleep(0.001)
                time.sleep(chance.uniform(0, chance.choice([0.01, whole / 12])))
                kind = signal.SIGTERM if found["kills"] % 4 == 3 else signal.SIGKILL
                os.kill(process.pid, kind)
            process.join()
            status = process.exitcode
            if status == 0:
                found["trainings ended"] += 1
                found["under way"] = 0
                assert outcome(folder) == wanted, f"after {found['kills']} kills the weights or curves are others"
                shutil.rmtree("work/state")
                Path("work/models/demo/tiny-0.safetensors").unlink()
                continue
            assert status in (-signal.SIGKILL, -signal.SIGTERM, 1), f"a training ended with status {status}"
            assert status != 1 or kind == signal.SIGTERM, "a training failed by itself"
            found["kills"] += 1
            found["under way"] = 1
            found[f"by {kind.name}"] += 1
            found["with a checkpoint saved on SIGTERM"] += status == 1
            found["while a checkpoint was written"] += any(Path("work/state").glob("*/.*.pt.*"))
            kept = sorted(Path("work/state").glob("*/*.pt"))
            assert len(kept) <= 3, f"{len(kept)} checkpoints are kept"
            if len(kept) > 1 and found["kills"] >= 5 * (found["newest checkpoint damaged"] + 1):
                damage(kept[-1], chance)
                found["newest checkpoint damaged"] += 1
    del found["under way"]
    about = {"iterations per training": ITERATIONS, "weights, SHA-256": wanted[0], "curves, SHA-256": wanted[1]}
    return {**found, **about, "seconds": time.monotonic() - begun_at}


def states_in(folder):
    """Return the names of checkpoints, finished and unfinished."""
    return sorted(path.name for path in (folder / "work" / "state").glob("*/*"))
