"""What an interrupted training goes on from: its last states, each whole, used by one process at a time."""

import contextlib
import fcntl
import signal
import sys
import threading
import zipfile
from pathlib import Path

import torch

from rsnlib.errors import UserError
from rsnlib.files import check_zip, whole_file, writing

KEPT = 2


class States:
    """The states of one run, files of a folder. As a context it waits while another process trains the same run.

    A state is written beside the others and read back before the oldest goes: killed at any moment, a run has one to go
    on from, and where the newest is damaged it goes on from the one before.
    """

    def __init__(self, folder):
        self.folder = Path(folder)

    def __enter__(self):
        with writing(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            self.lock = open(self.folder / "lock", "w")  # noqa: SIM115, closed in __exit__
        try:
            fcntl.flock(self.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"{self.folder}: another process trains this run; waiting for it", file=sys.stderr, flush=True)
            fcntl.flock(self.lock, fcntl.LOCK_EX)
        for unfinished in self.folder.glob(".*.pt.*"):  # of a process that was killed
            unfinished.unlink()
        return self

    def __exit__(self, *error):
        self.lock.close()

    def newest(self):
        """The newest state that can be read, as it was saved, or None. Says which ones cannot."""
        for path in sorted(self.folder.glob("*.pt"), reverse=True):
            try:
                check(path)
                return torch.load(path, map_location="cpu", weights_only=True)
            except Exception as error:  # a damaged file can raise anything
                reason = str(error).splitlines()[0] if str(error) else type(error).__name__
                print(f"warning: {path}: damaged ({reason}); going on from the one before", file=sys.stderr, flush=True)
        return None

    def save(self, iteration, state):
        """Keep `state`, a dict of tensors, numbers and lists, as that after `iteration`."""
        path = self.folder / f"{iteration:09}.pt"
        with whole_file(path) as file:
            torch.save(state, file)
        try:
            check(path)
        except (OSError, ValueError, zipfile.BadZipFile) as error:
            path.unlink()
            raise UserError(f"{path}: could not be read back after writing ({error})") from None
        for old in sorted(self.folder.glob("*.pt"))[:-KEPT]:
            old.unlink()


def check(path):
    """Raise an error where a file of torch.save is not what was written: it is a zip with a checksum of every part."""
    check_zip(path)
    with zipfile.ZipFile(path) as file:
        damaged = file.testzip()
    if damaged:
        raise zipfile.BadZipFile(f"{damaged} is not as it was written")


@contextlib.contextmanager
def termination():
    """An event that SIGTERM sets while the context lasts, instead of ending the process. Outside the main thread, where
    signals do not arrive, it is never set."""
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event
        return
    before = signal.signal(signal.SIGTERM, lambda *_: event.set())
    try:
        yield event
    finally:
        signal.signal(signal.SIGTERM, before)
