"""Files written whole or not at all, and read without trust."""

import contextlib
import gc
import hashlib
import json
import os
import tempfile
import zipfile
from pathlib import Path

import orjson

from rsnlib.errors import UserError


@contextlib.contextmanager
def writing(path):
    """What the system has against writing `path`, or into it, as a UserError: no permission, no room, no such disk."""
    try:
        yield
    except OSError as error:
        file = next((folder for folder in Path(path).parents if folder.is_file()), None)
        reason = f"{file} is a file, not a folder" if file else error.strerror or error
        raise UserError(f"{path}: cannot be written ({reason})") from None


@contextlib.contextmanager
def whole_file(path, mode="wb"):
    """Open `path` for writing so that it appears only when complete: written beside, synced, then renamed. Raises
    UserError where it cannot be written."""
    descriptor, name = _new_beside(path)
    try:
        with os.fdopen(descriptor, mode, **({} if "b" in mode else {"encoding": "utf-8"})) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, 0o644)
        os.replace(name, path)
        _sync_folder(Path(path).parent)
    except BaseException as error:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)
        if isinstance(error, RuntimeError) and isinstance(error.__context__, OSError):
            error = error.__context__  # torch.save's, which could not finish the file
        if isinstance(error, OSError) and error.errno and error.filename in (None, name):  # not about another file
            with writing(path):
                raise error
        raise


def _sync_folder(folder):
    """Let a renamed file survive a power cut, where the file system takes part."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def check_writable(path):
    """Raise a UserError where `whole_file` could not even begin to write `path`: known before a long computation."""
    descriptor, name = _new_beside(path)
    os.close(descriptor)
    os.unlink(name)


def _new_beside(path):
    """A new file in the folder of `path`, which is made where there is none: descriptor and name."""
    path = Path(path)
    with writing(path):
        if path.is_dir():
            raise UserError(f"{path}: cannot be written (it is a folder)")
        path.parent.mkdir(parents=True, exist_ok=True)
        return tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")


def write_json(path, value):
    """Write `value` as indented JSON, whole or not at all."""
    with whole_file(path, "w") as file:
        json.dump(value, file, indent=2)
        file.write("\n")


def write_results(path, results):
    """Write a list in COCO's results format as JSON, whole or not at all: in one line, and thirty times as fast."""
    with whole_file(path) as file:
        file.write(orjson.dumps(results, option=orjson.OPT_APPEND_NEWLINE))


@contextlib.contextmanager
def uncollected():
    """Without garbage collection, which would go through contents that grow by millions again and again."""
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()


def read_json(path):
    """The JSON in `path`; a UserError names the file where it is missing or malformed."""
    try:
        contents = Path(path).read_bytes()
        with uncollected():
            try:
                return orjson.loads(contents)
            except orjson.JSONDecodeError:  # it knows no NaN and no endless integers, about which a reader can say more
                return json.loads(contents.decode("utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: not readable as JSON ({error})") from None


def check_zip(path):
    """Raise ValueError where the parts of the zip file `path` together say that they are larger than the file: torch
    compresses nothing, so it is not torch's, and may fill any memory. A file that is no zip is left to others."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as file:
            size = sum(part.file_size for part in file.infolist())
        if size > Path(path).stat().st_size:
            raise ValueError(f"its parts are {size:,} bytes, more than the file")


def fingerprint(*parts):
    """Twelve hexadecimal digits that stand for `parts` (JSON values)."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:12]
