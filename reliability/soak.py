"""A training killed at random moments, again and again: what it leaves in the end are the bytes of one that was not."""

import contextlib
import hashlib
import os
import random
import shutil
import signal
import sys
import time
import traceback
from collections import Counter
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import pandas as pd
import torch
from ruamel.yaml import YAML

from rsnlib.__main__ import main as command_line
from rsnlib.demo.annotate import draw_people
from rsnlib.models import network
from rsnlib.stages import prepare as prepare_stage
from rsnlib.training import loop as training

ROOT = Path(__file__).resolve().parents[1]


def forked(work, pipe=None):
    """Start a copy of this process that does `work()` and ends; returns its id. Everything is imported already."""
    sys.stdout.flush()
    process = os.fork()
    if process:
        return process
    status = 1
    try:
        with open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), 1)
            os.dup2(nowhere.fileno(), 2)
        torch.set_num_threads(1)
        work()
        status = 0
    except SystemExit as error:
        status = error.code if isinstance(error.code, int) else 1
    except BaseException:
        if pipe is not None:
            os.write(pipe, traceback.format_exc().encode())
    finally:
        os._exit(status)


def write_small_params(path, iterations=12):
    """The project's params.yaml with one run on the demo, the smallest there is."""
    values = YAML(typ="safe").load(ROOT / "params.yaml")
    demo = values["datasets"]["demo"] | {"input_size": [64, 64], "more_input_sizes": {}}
    demo["schedule"] |= {"batch_size": 2, "epochs": None, "iterations": iterations, "warmup": 2}
    values |= {"datasets": {"demo": demo}, "models": {"tiny": {"block": "bottleneck", "depths": [1, 1, 1, 1]}}}
    values |= {"model_lists": {}, "ablations": {}, "run": {"datasets": ["demo"], "models": ["tiny"], "seeds": [0]}}
    values["train"] |= {"precision": "float32", "validations": 2}
    YAML(typ="safe").dump(values, path)


def small_project(folder):
    """A folder with those parameters and eight drawn people, prepared."""
    folder.mkdir()
    write_small_params(folder / "params.yaml")
    with contextlib.chdir(folder):
        _, status = os.waitpid(forked(lambda: (draw_people("data/demo", 8, 4), prepare_stage.prepare("demo"))), 0)
    assert status == 0, "the small project could not be prepared"
    return folder


def train_as_a_user():
    """What `python -m rsnlib train` does, but that it keeps a state after every iteration, of a quarter as wide a
    network: starting is most of what a kill costs."""
    network.WIDTHS, network.UP_CHANNELS = (16, 32, 64, 128), 64
    training.SAVE_EVERY, training.SAVE_SHARE = 0, float("inf")
    sys.argv = ["rsnlib", "train", "--dataset", "demo", "--model", "tiny"]
    command_line()


def outcome(folder):
    """What a finished run leaves: SHA-256 of its weights and of its curves."""
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
    """Train the small project again and again, killed `kills` times at random moments; whenever a training ends, its
    weights must be the bytes of one that nothing interrupted. Returns the figures of the report."""
    chance, started = random.Random(seed), time.monotonic()  # every fourth kill is SIGTERM, one in five damages a state
    with contextlib.chdir(small_project(folder)):
        begun = time.monotonic()
        _, status = os.waitpid(forked(train_as_a_user), 0)
        assert status == 0, "the uninterrupted training failed"
        whole = time.monotonic() - begun
        wanted, found = outcome(folder), Counter()
        shutil.rmtree("work/state")
        while found["kills"] < kills or found["finished"] == 0 or found["under way"]:
            process, begun = forked(train_as_a_user), time.monotonic()
            if found["kills"] < kills:
                if chance.random() < 0.9:  # after a state has been begun; else while the process starts
                    before = states_in(folder)
                    while states_in(folder) == before and time.monotonic() - begun < 2 * whole:
                        time.sleep(0.001)
                time.sleep(chance.uniform(0, chance.choice([0.01, whole / 12])))
                kind = signal.SIGTERM if found["kills"] % 4 == 3 else signal.SIGKILL
                os.kill(process, kind)
            status = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
            if status == 0:
                found["finished"] += 1
                found["under way"] = 0
                assert outcome(folder) == wanted, f"after {found['kills']} kills the weights or curves are others"
                shutil.rmtree("work/state")
                Path("work/models/demo/tiny-0.safetensors").unlink()
                continue
            assert status in (-signal.SIGKILL, -signal.SIGTERM, 1), f"a training ended with status {status}"
            assert status != 1 or kind == signal.SIGTERM, "a training failed by itself"
            found["kills"] += 1
            found["under way"] = 1
            found["SIGTERM" if kind == signal.SIGTERM else "SIGKILL"] += 1
            found["saved by SIGTERM"] += status == 1
            found["while a state was written"] += any(Path("work/state").glob("*/.*.pt.*"))
            kept = sorted(Path("work/state").glob("*/*.pt"))
            assert len(kept) <= 3, f"{len(kept)} states are kept"
            if len(kept) > 1 and found["kills"] >= 5 * (found["newest state damaged"] + 1):
                damage(kept[-1], chance)
                found["newest state damaged"] += 1
    del found["under way"]
    seconds = time.monotonic() - started
    return {**found, "iterations": 12, "weights": wanted[0], "curves": wanted[1], "seconds": seconds}


def states_in(folder):
    """The names in the folder of states, finished and unfinished."""
    return sorted(path.name for path in (folder / "work" / "state").glob("*/*"))
