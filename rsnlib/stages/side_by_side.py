"""Trainings side by side on a CPU, ahead of `dvc repro`, which then finds them finished."""

import json
import os
import signal
import subprocess
import sys
import time

from rsnlib.device import cores, default_device
from rsnlib.errors import Stopped, UserError
from rsnlib.files import project_root
from rsnlib.stages.provenance import pipeline


def train_all():
    """Train every run of params.yaml that `dvc repro` would train, several at a time; with a GPU, leave them to it.

    Small networks have too little work per operation to keep several cores busy: on two cores, three half-width RSN-18
    side by side, each with one thread, take 0.7 of the time that they take one after the other with two (bfloat16).

    Raises UserError where a training fails; Stopped after Ctrl-C or SIGTERM, when every training has saved.
    """
    runs = [] if default_device().type == "cuda" else stale_runs()
    at_once = min(len(runs), cores() + 1)
    if at_once < 2:
        return
    threads = {"OMP_NUM_THREADS": str(max(1, cores() // at_once))}
    print(f"training {len(runs)} runs, {at_once} at a time", flush=True)
    received, running, lines = [], {}, list(range(at_once))

    def stop(kind, _):
        """Let the trainings save: Ctrl-C reaches them by itself, SIGTERM is passed on."""
        received.append(kind)
        for process, *_ in running.values():
            if kind == signal.SIGTERM:
                process.terminate()

    before = {kind: signal.signal(kind, stop) for kind in (signal.SIGINT, signal.SIGTERM)}
    failed = []
    try:
        while running or (runs and not received and not failed):
            while runs and lines and not received and not failed:
                name, item = runs.pop(0)
                line = lines.pop(0)
                chosen = [word for key, value in item.items() for word in (f"--{key}", str(value))]
                command = [sys.executable, "-m", "rsnlib", "train", *chosen]
                environment = threads | os.environ | {"TQDM_POSITION": str(line)}
                running[name] = subprocess.Popen(command, env=environment, cwd=project_root()), line
            time.sleep(0.1)
            for name, (process, line) in list(running.items()):
                if process.poll() is not None:
                    del running[name]
                    lines.append(line)
                    failed += [name] * (process.returncode != 0)
    finally:
        for kind, handler in before.items():
            signal.signal(kind, handler)
    if received:
        raise Stopped("stopped; `make` or `dvc repro` goes on from here")
    if failed:
        raise UserError(f"{', '.join(failed)}: failed, see above")


def stale_runs():
    """Return [(stage, item)] of the trainings that DVC does not find up to date."""
    asked = subprocess.run(
        [sys.executable, "-m", "dvc", "status", "--json"], cwd=project_root(), capture_output=True, text=True
    )
    if asked.returncode:
        raise UserError(f"`dvc status` failed: {asked.stderr.strip()}")
    stale = json.loads(asked.stdout)
    return [(name, item) for name, (stage, item) in pipeline().items() if stage == "train" and name in stale]
