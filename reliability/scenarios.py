"""`dvc repro` wherever a user may run it: twice, several at once, in odd places, with little of everything.

Each scenario is a function of the finished small project (`Base`): with real commands it does the thing named by its
first line, and returns the outcome in words. It raises Failed if something was lost or other bytes came out, and
CannotTry if this machine does not let it be tried.
"""

import contextlib
import hashlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import psutil
from checkout import Command, Failed, InTerminal, commit_all, copy_checkout, ended, git, run, user_environment, wait_for

from reliability.soak import write_small_params

RUN = "tiny-0"
TRAIN = f"train@demo-{RUN}"
ITERATIONS = 40  # of the small project's training: long enough to be stopped in the midst of it
MADE = {
    "crops": "work/crops/demo/*",
    "weights": "work/models/**/*.safetensors",
    "curves": "results/demo/train/**/*.tsv",
    "predictions": "work/predictions/**/*.json",
    "metrics": "results/demo/**/*.json",
    "tables": "results/demo/tables/*",
    "figures": "results/*/**/*.[pj][np]g",
    "notebooks": "work/notebooks/**/*.ipynb",
    "page": "results/index.html",
}
TRAINED = ("crops", "weights", "curves")


class CannotTry(Exception):
    """Raised if a machine does not let a scenario be tried."""


def hashes(project, kinds=MADE):
    """Return {kind: digits}, twelve of the SHA-256 of a project's files of each kind, names and contents; of the page
    all but the times that stages took."""
    found = {}
    for kind in kinds:
        files = {path: path.read_bytes() for path in sorted(project.glob(MADE[kind])) if path.is_file()}
        if kind == "page":
            files = {path: re.sub(rb"<time>[^<]*</time>", b"", page) for path, page in files.items()}
        contents = [(str(path.relative_to(project)), hashlib.sha256(file).digest()) for path, file in files.items()]
        found[kind] = hashlib.sha256(repr(contents).encode()).hexdigest()[:12] if files else "none"
    return found


def check_same(wanted, found):
    """Raise Failed if the hashes found are others than those wanted, or of nothing."""
    other = [kind for kind in found if found[kind] != wanted[kind] or found[kind] == "none"]
    if other:
        pairs = ", ".join(f"{kind} {found[kind]}, not {wanted[kind]}" for kind in other)
        raise Failed(f"other bytes: {pairs}")


def message(output):
    """Return the project's own message in the output of a command."""
    own = [line for line in output.splitlines() if line.startswith(("error: ", "stopped"))]
    if len(own) != 1:
        raise Failed(f"{len(own)} messages instead of one: {output[-2000:]}")
    return own[0]


@dataclass(frozen=True)
class Base:
    """The small project, all of it made once by `dvc repro`, and the hashes of the files made."""

    project: Path
    made: dict

    @contextlib.contextmanager
    def clone(self, name="clone", data=True):
        """Yield a git clone in a folder of its own, with the people in it unless `data` is False."""
        with tempfile.TemporaryDirectory(dir=self.project.parent) as folder:
            project = Path(folder) / name
            git(self.project, "clone", "--quiet", str(self.project), str(project))
            if data:
                shutil.copytree(self.project / "data/demo", project / "data/demo")
            yield project

    @contextlib.contextmanager
    def prepared(self):
        """Yield a clone whose crops are made."""
        with self.clone() as project:
            shutil.copytree(self.project / "work/crops", project / "work/crops")
            yield project

    def check(self, project, kinds=TRAINED):
        """Raise Failed if a project has other bytes than this one; else say in words that it has the same."""
        check_same(self.made, hashes(project, kinds))
        return "the same bytes" if kinds is MADE else f"the same bytes of {', '.join(kinds)}"


def make_base(folder):
    """Return the small project, with everything made in it."""
    project = folder / "project"
    copy_checkout(project)
    write_small_params(project / "params.yaml", ITERATIONS)
    run(project, sys.executable, "-m", "rsnlib", "demo", "data/demo", "--train", "8", "--val", "4")
    commit_all(project)
    run(project, "dvc", "repro")
    return Base(project, hashes(project))


# ---- The same run twice


def twice(base):
    """`dvc repro`, then, without the states of its trainings, `dvc repro --force`"""
    shutil.rmtree(base.project / "work/state")
    run(base.project, "dvc", "repro", "--force")
    return base.check(base.project, MADE)


def pushed_and_pulled(base):
    """`dvc push` to a local remote, `git clone` and `dvc pull`: `dvc status`, then `dvc repro`"""
    with tempfile.TemporaryDirectory(dir=base.project.parent) as folder:
        origin = Base(shutil.copytree(base.project, Path(folder) / "project"), base.made)
        run(origin.project, "dvc", "remote", "add", "--default", "local", f"{folder}/remote")
        commit_all(origin.project)
        pushed = run(origin.project, "dvc", "push").splitlines()[-1]
        with origin.clone(data=False) as project:
            run(project, "dvc", "pull")
            status = run(project, "dvc", "status")
            if "up to date" not in status:
                raise Failed(f"`dvc status`: {status}")
            if "Running stage" in run(project, "dvc", "repro"):
                raise Failed("`dvc repro` ran a stage again")
            if changed := git(project, "status", "--porcelain"):
                raise Failed(f"`git status`: {changed}")
            return f"{pushed}; nothing to do, nothing run; {base.check(project, MADE)}"


# ---- Several at once


def train(project, seed=0):
    """Start the training of a seed from the command line."""
    chosen = ("--dataset", "demo", "--model", "tiny", "--seed", seed)
    return Command(project, sys.executable, "-m", "rsnlib", "train", *chosen)


def logged(project):
    """Return the number of iterations in the training's curve."""
    path = project / f"results/demo/train/{RUN}/plots/metrics/loss.tsv"
    with contextlib.suppress(FileNotFoundError):
        return max(0, path.read_text().count("\n") - 1)
    return 0


def wait_for_training(command, project, earlier=0):
    """Wait until a command has trained two iterations more than `earlier`."""
    wait_for(lambda: logged(project) > earlier + 1, command, "trained")


def two_reproductions(base):
    """Two `dvc repro` in one checkout"""
    with base.clone() as project:
        both = [Command(project, "dvc", "repro", TRAIN) for _ in range(2)]
        outputs = [ended(command, None) for command in both]
        done = [command.returncode == 0 for command in both]
        if not any(done):
            raise Failed(f"neither ended well: {outputs[0][-1000:]} {outputs[1][-1000:]}")
        if "up to date" not in run(project, "dvc", "status", TRAIN):
            raise Failed("`dvc status` finds something to do")
        refused = [output.replace(f"{project}/", "") for output, well in zip(outputs, done) if not well]
        said = [f"the other says `{output.strip().splitlines()[0]} ...`" for output in refused]
        return f"{said[0] if said else 'both end well'}; {base.check(project)}"


def different_trainings(base):
    """Two trainings of different runs in one checkout"""
    with base.prepared() as one_by_one, base.prepared() as at_once:
        for seed in (0, 1):
            ended(train(one_by_one, seed))
        for command in [train(at_once, seed) for seed in (0, 1)]:
            ended(command)
        kinds = ("weights", "curves")
        check_same(hashes(one_by_one, kinds), hashes(at_once, kinds))
        return "the same bytes of weights and curves as one after the other"


def the_same_training(base):
    """Two trainings of the same run in one checkout, the second once the first has begun"""
    with base.prepared() as project:
        first = train(project)
        wait_for_training(first, project)
        first.send_signal(signal.SIGSTOP)  # or it would be done before the second begins
        second = train(project)
        try:
            wait_for(lambda: "waiting" in second.said(), second, "said that it waits")
        finally:
            first.send_signal(signal.SIGCONT)
        ended(first)
        line = next(line for line in ended(second).splitlines() if "waiting" in line)
        return f"the second says `...{line.split(':', 1)[1]}`; {base.check(project)}"


# ---- Stopped in ways of their own


def kernel_killed(base):
    """The kernel of the training's notebook gets SIGTERM, and in the next `dvc repro` SIGKILL; then `dvc repro`"""
    with base.clone() as project:
        said = []
        for kind in (signal.SIGTERM, signal.SIGKILL):
            earlier = logged(project)
            command = Command(project, "dvc", "repro", TRAIN)
            wait_for_training(command, project, earlier)
            children = psutil.Process(command.pid).children(recursive=True)
            (kernel,) = [child for child in children if "ipykernel_launcher" in child.cmdline()]
            kernel.send_signal(kind)
            said.append(f"{kind.name} in iteration {logged(project) + 1}: `{message(ended(command, 255))}`")
        run(project, "dvc", "repro", TRAIN)
        return f"{'; '.join(said)}; then {base.check(project)}"


def ctrl_c(base):
    """Ctrl-C in a terminal, in the midst of every stage of `dvc repro`, one after the other; then `dvc repro`"""
    with base.clone() as project:
        stages = ("networks", "prepare", "train", "evaluate", "tables", "ablations", "figures", "site")
        said = [stopped_by_ctrl_c(project, stage, seconds % 3) for seconds, stage in enumerate(stages)]
        run(project, "dvc", "repro")
        return f"`{said[0]}`; in the training `{said[2]}`; then {base.check(project, MADE)}"


def stopped_by_ctrl_c(project, stage, seconds):
    """Press Ctrl-C in `dvc repro` so long after a stage began, or in the midst of its training; return its message."""
    command = InTerminal(project, "dvc", "repro")
    wait_for(lambda: "\nstage " in command.said().partition(f"Running stage '{stage}")[2], command, f"began {stage}")
    if stage == "train":
        wait_for_training(command, project)
    else:
        time.sleep(seconds)  # while it starts, or computes
    command.press_ctrl_c()
    said = message(ended(command, 255))
    if not said.startswith("stopped") or "goes on from" not in said:
        raise Failed(f"{stage}: {command.said()[-2000:]}")
    return said


def full_disk(base):
    """`python -m rsnlib train` with `work/state` on a disk that is full, and again when there is room"""
    with base.prepared() as project, mounted(project / "work/state", "-t", "tmpfs", "-o", "size=400m") as states:
        command = train(project)
        wait_for_training(command, project)
        command.terminate()
        first = message(ended(command, 1))
        (state,) = states.glob("*/*.pt")
        kept, free = state.read_bytes(), shutil.disk_usage(states).free
        (states / "other").write_bytes(bytes(free - len(kept) // 2))
        full = message(ended(train(project), 1)).replace(str(project), "...")
        if state.read_bytes() != kept or len(list(state.parent.iterdir())) != 2:
            raise Failed("the state of before is damaged, or something else is left beside it")
        (states / "other").unlink()
        ended(train(project))
        text = f"SIGTERM: `{first}`; room for half a state: `{full}`, the state of before whole"
        return f"{text}; room again: {base.check(project)}"


# ---- Places


@contextlib.contextmanager
def mounted(folder, *arguments):
    """Mount something at a folder, which is made if missing."""
    folder.mkdir(parents=True, exist_ok=True)
    source = () if "--bind" in arguments else ("none",)
    tried = subprocess.run(["mount", *arguments, *source, folder], capture_output=True, text=True)
    if tried.returncode:
        raise CannotTry(f"no right to mount: {tried.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def reproduce(base, project, *prefix, everything=False, **changes):
    """Run `dvc repro`, of the data and the training or of every stage; say in words that it made the same bytes as in
    the base."""
    output = run(project, *prefix, "dvc", "repro", *([] if everything else [TRAIN]), **changes)
    if output.count("Running stage") < 2:
        raise Failed(f"`dvc repro` did not train: {output[-1000:]}")
    return base.check(project, MADE if everything else TRAINED)


def read_only_data(base):
    """The data set's folder is mounted read-only"""
    with base.clone() as project, mounted(project / "data/demo", "--bind", project / "data/demo"):
        remount = ["mount", "-o", "remount,ro,bind", project / "data/demo"]
        if subprocess.run(remount, capture_output=True).returncode:
            raise CannotTry("no right to mount read-only")
        with contextlib.suppress(OSError):
            (project / "data/demo/file").touch()
            raise Failed("the folder is not read-only")
        return reproduce(base, project)


def other_disk(base):
    """The data set's folder is on another file system (tmpfs)"""
    with base.clone(data=False) as project, mounted(project / "data/demo", "-t", "tmpfs", "-o", "size=64m"):
        shutil.copytree(base.project / "data/demo", project / "data/demo", dirs_exist_ok=True)
        return reproduce(base, project)


def behind_a_link(base, of="data/demo"):
    """The data set's folder is a symbolic link to one elsewhere"""
    with base.clone(data=False) as project:
        (project / of).parent.mkdir(exist_ok=True)
        elsewhere = shutil.copytree(base.project / of, project.parent / "elsewhere")
        (project / of).symlink_to(elsewhere)
        text = reproduce(base, project)
        if not (project / of).is_symlink():
            raise Failed("the link is gone")
        return text


def all_data_behind_a_link(base):
    """`data` itself is a symbolic link to a folder elsewhere"""
    return behind_a_link(base, of="data")


def odd_names(base):
    """The checkout's path has spaces, quotes and letters beyond ASCII, `naïve \'Läufer\' 人 $HOME`; every stage"""
    with base.clone("naïve 'Läufer' 人 $HOME") as project:
        return reproduce(base, project, everything=True)


# ---- Surroundings


def no_utf8(base):
    """`LC_ALL=C PYTHONUTF8=0 PYTHONCOERCECLOCALE=0`; every stage"""
    with base.clone() as project:
        return reproduce(base, project, everything=True, LC_ALL="C", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0")


def no_git_identity(base):
    """Git knows no name and no address; `HOME` is an empty folder"""
    with base.clone() as project:
        (project.parent / "home").mkdir()
        changes = {"HOME": str(project.parent / "home"), "GIT_CONFIG_NOSYSTEM": "1", "XDG_CONFIG_HOME": None}
        identity = ["git", "var", "GIT_AUTHOR_IDENT"]
        if not subprocess.run(identity, env=user_environment(**changes), capture_output=True).returncode:
            raise CannotTry("git makes an identity of the machine's name")
        return reproduce(base, project, **changes)


def no_home(base):
    """`HOME` is not set"""
    with base.clone() as project:
        return reproduce(base, project, HOME=None)


def no_network(base):
    """No network but the machine's own (`unshare --net`); every stage"""
    prefix = "unshare", "--net", "sh", "-c", 'ip link set lo up && exec "$@"', "sh"
    tried = subprocess.run([*prefix, "true"], capture_output=True, text=True)
    if tried.returncode:
        raise CannotTry(f"no right to leave the network: {tried.stderr.strip()}")
    with base.clone() as project:
        return reproduce(base, project, *prefix, everything=True)


def one_core(base):
    """One core (`taskset --cpu-list 0`)"""
    with base.clone() as project:
        return reproduce(base, project, "taskset", "--cpu-list", str(min(os.sched_getaffinity(0))))


def little_memory(base):
    """2 GiB of memory and no swap for all processes together (a cgroup); every stage"""
    with base.clone() as project, memory_group(2 << 30) as (group, peak):
        return f"{reproduce(base, project, *group, everything=True)}; at most {peak() / 2**30:.2f} GiB"


@contextlib.contextmanager
def memory_group(limit):
    """Yield a cgroup, of version 1 or 2, with at most `limit` bytes: the words to put before a command, and a function
    that returns the most bytes taken."""
    root = Path("/sys/fs/cgroup")
    old = (root / "memory").is_dir()
    folder = (root / "memory" if old else root) / f"rsnlib-{os.getpid()}"
    names = ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes") if old else ("memory.max", "memory.swap.max")
    try:
        folder.mkdir()
        for name, value in zip(names, (limit, limit if old else 0)):
            (folder / name).write_text(str(value))
    except OSError as error:
        with contextlib.suppress(OSError):
            folder.rmdir()
        raise CannotTry(f"no right to make a cgroup: {error}") from None
    try:
        peak = folder / ("memory.max_usage_in_bytes" if old else "memory.peak")
        yield ("sh", "-c", f'echo $$ > {folder}/cgroup.procs && exec "$@"', "sh"), lambda: int(peak.read_text())
    finally:
        with contextlib.suppress(OSError):
            folder.rmdir()


SECTIONS = {
    "The same run twice": (twice, pushed_and_pulled),
    "Several at once": (two_reproductions, different_trainings, the_same_training),
    "Stopped": (ctrl_c, kernel_killed, full_disk),
    "Places": (read_only_data, other_disk, behind_a_link, all_data_behind_a_link, odd_names),
    "Surroundings": (no_utf8, no_git_identity, no_home, no_network, one_core, little_memory),
}


def try_all(base):
    """Try every scenario on the base: a data frame, one row per scenario, with columns section, tried, verdict
    ("survived", "FAILED" or "cannot be tried here"), came of it and seconds."""
    rows = []
    for section, scenarios in SECTIONS.items():
        for scenario in scenarios:
            begun = time.monotonic()
            try:
                verdict, text = "survived", scenario(base)
            except CannotTry as reason:
                verdict, text = "cannot be tried here", str(reason)
            except Failed as reason:
                verdict, text = "FAILED", str(reason)
            except Exception as error:  # the others are worth trying
                verdict, text = "FAILED", f"{type(error).__name__}: {error}"
            row = {"section": section, "tried": scenario.__doc__, "verdict": verdict}
            text = " ".join(text.split()).replace("|", "/")  # in a cell of a table
            rows.append(row | {"came of it": text, "seconds": time.monotonic() - begun})
            print(*rows[-1].values(), sep="; ", flush=True)
    return pd.DataFrame(rows)
