"""Checkpoints to resume training from: written atomically, locked against a second process."""

import sys
import zipfile
from pathlib import Path

import torch
from filelock import FileLock, Timeout

from rsnlib.errors import UserError
from rsnlib.files import check_zip, whole_file, writing

KEPT = 2


class States:
    """The checkpoints of one run, files of a folder. Entering the context waits while another process trains the run.

    A checkpoint is written beside the others and read back before the oldest is deleted: a run that is killed at any
    moment has one to resume from, and if the newest is damaged, the one before is used.
    """

    def __init__(self, folder):
        self.folder = Path(folder)

    def __enter__(self):
        with writing(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            self.lock = FileLock(self.folder / "lock")
            try:
                self.lock.acquire(blocking=False)
            except Timeout:
                print(f"{self.folder}: another process trains this run; waiting for it", file=sys.stderr, flush=True)
                self.lock.acquire()
        for unfinished in self.folder.glob(".*.pt.*"):  # of a process that was killed
            unfinished.unlink()
        return self

    def __exit__(self, *error):
        self.lock.release()

    def newest(self):
        """Return the newest checkpoint that can be read, or None; warn of each that cannot."""
        for path in sorted(self.folder.glob("*.pt"), reverse=True):
            try:
                check(path)
                return torch.load(path, map_location="cpu", weights_only=True)
            except Exception as error:  # a damaged file can raise anything
                reason = str(error).splitlines()[0] if str(error) else type(error).__name__
                print(f"warning: {path}: damaged ({reason}); going on from the one before", file=sys.stderr, flush=True)
        return None

    def save(self, iteration, state):
        """Write `state`, a dict of tensors, numbers and lists, as the checkpoint after `iteration`. Raises UserError
        where the file cannot be written or read back."""
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
    """Raise an error where a file of torch.save is damaged: it is a zip with a checksum of every part."""
    check_zip(path)
    with zipfile.ZipFile(path) as file:
        if damaged := file.testzip():
            raise zipfile.BadZipFile(f"{damaged} is not as it was written")
