"""Commands run as a user would, in a copy of the project."""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PATIENCE = 600  # seconds; a command that takes longer hangs


class Failed(Exception):
    """A command hung, ended otherwise than it should, or lost something."""


def user_environment(**changes):
    """Return the variables of a user's shell, with one thread so that others at work change no bytes.

    changes: further variables; None takes one away
    """
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "GIT_", "DVC_"))}
    kept |= {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{kept['PATH']}", "OMP_NUM_THREADS": "1"}
    return {name: value for name, value in (kept | changes).items() if value is not None}


class Command(subprocess.Popen):
    """A command, started in the folder `project`; `changes`: of the environment."""

    def __init__(self, project, *command, stdin=subprocess.DEVNULL, **changes):
        self.file = tempfile.TemporaryFile()  # noqa: SIM115, as long as the command
        streams = {"stdin": stdin, "stdout": self.file, "stderr": subprocess.STDOUT}
        super().__init__(list(map(str, command)), cwd=project, env=user_environment(**changes), **streams)

    def said(self):
        """Return the text written so far, both streams together."""
        return os.pread(self.file.fileno(), os.fstat(self.file.fileno()).st_size, 0).decode(errors="replace")

    def __str__(self):
        return " ".join(self.args)


class InTerminal(Command):
    """A command in a terminal of its own."""

    def __init__(self, project, *command, **changes):
        spawn = "import pty, sys; sys.exit(pty.spawn(sys.argv[1:]) >> 8)"
        super().__init__(project, sys.executable, "-c", spawn, *command, stdin=subprocess.PIPE, **changes)

    def press_ctrl_c(self):
        """Send SIGINT to every process in the foreground, as the terminal does."""
        self.stdin.write(b"\x03")
        self.stdin.flush()


def ended(command, code=0):
    """Return the output of a command once it ended; raise Failed unless it ended with `code` (None: any)."""
    try:
        command.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        command.kill()
        command.wait()
        raise Failed(f"`{command}` hangs: {command.said()[-1000:]}") from None
    output = command.said()
    if code is not None and command.returncode != code:
        raise Failed(f"`{command}` ended with {command.returncode}: {output[-2000:]}")
    if "Traceback" in output:
        raise Failed(f"`{command}` shows a stack trace: {output[-2000:]}")
    return output


def wait_for(condition, command, what):
    """Wait until a condition holds while a command runs; raise Failed if it ends before."""
    begun = time.monotonic()
    while not condition():
        if command.poll() is not None or time.monotonic() - begun > PATIENCE:
            command.kill()
            raise Failed(f"`{command}` never {what}: {command.said()[-1000:]}")
        time.sleep(0.005)


def run(project, *command, code=0, **changes):
    """Run a command in the folder `project` and return its output."""
    return ended(Command(project, *command, **changes), code)


def git(project, *arguments):
    """Run git in the folder `project` under a made-up identity and return its output."""
    return run(project, "git", "-c", "user.name=a", "-c", "user.email=a@b.c", *arguments)


def copy_checkout(folder):
    """Copy the project's files as they stand, without results and dvc.lock."""
    listed = run(ROOT, "git", "ls-files", "-z", "--cached", "--others", "--exclude-standard").split("\0")
    for name in filter(None, listed):
        if (ROOT / name).is_file() and not name.startswith(("results/", "dvc.lock")):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)


def commit_all(project):
    """Commit every file of the folder `project`, a git repository from then on."""
    if not (project / ".git").exists():
        git(project, "init", "--quiet")
    git(project, "add", "--all")
    git(project, "commit", "--quiet", "--message", "as it stands")


def with_sections(example):
    """Return the committed params.yaml with an example of the documentation in it: its `run` instead of the file's, the
    entries of its other sections behind the file's."""
    params, section = (ROOT / "params.yaml").read_text(), r"^(%s):.*\n((?: .*\n|\n)*)"
    for name, entries in re.findall(section % r"\w+", example, re.MULTILINE):
        whole = re.search(section % name, params, re.MULTILINE)
        kept = "" if name == "run" else whole[2].rstrip() + "\n"
        params = params.replace(whole[0], f"{name}:\n{kept}{entries}\n")
    return params
