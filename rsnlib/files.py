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


def project_root(start=None):
    """Return the nearest folder from `start` (default: the current one) upwards that has a params.yaml."""
    start = Path(start or Path.cwd()).resolve()
    for folder in (start, *start.parents):
        if (folder / "params.yaml").is_file():
            return folder
    raise UserError(f"no params.yaml in {start} or above it: run this inside a checkout of the project")


@contextlib.contextmanager
def writing(path):
    """Turn an OSError while writing `path` into a UserError that names it: no permission, no room, no such disk."""
    try:
        yield
    except OSError as error:
        file = next((folder for folder in Path(path).parents if folder.is_file()), None)
        reason = f"{file} is a file, not a folder" if file else error.strerror or error
        raise UserError(f"{path}: cannot be written ({reason})") from None


@contextlib.contextmanager
def whole_file(path, mode="wb"):
    """Open `path` for writing, whole or not at all: under another name beside it, synced, then renamed.

    Missing folders are made. Raises UserError if the file cannot be written; a file that was there before is then left
    as it was.
    """
    descriptor, name = _new_beside(path)
    try:
        with os.fdopen(descriptor, mode, **({} if "b" in mode else {"encoding": "utf-8"})) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, 0o644)
        os.replace(name, path)
        with contextlib.suppress(OSError):  # on file systems that can sync a folder, the name survives a power cut, too
            descriptor = os.open(Path(path).parent, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
    except BaseException as error:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)
        if isinstance(error, RuntimeError) and isinstance(error.__context__, OSError):
            error = error.__context__  # torch.save hides a full disk behind a RuntimeError
        if isinstance(error, OSError) and error.errno and error.filename in (None, name):  # not about another file
            with writing(path):
                raise error
        raise


def check_writable(path):
    """Raise a UserError if `whole_file` could not begin to write `path`: to be known before a long computation."""
    descriptor, name = _new_beside(path)
    os.close(descriptor)
    os.unlink(name)


def _new_beside(path):
    """Make a new file in the folder of `path`, and the folder if missing; return its descriptor and name."""
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
    """Write a list in COCO's results format as JSON, whole or not at all: in one line, thirty times as fast."""
    with whole_file(path) as file:
        file.write(orjson.dumps(results, option=orjson.OPT_APPEND_NEWLINE))


def read_json(path):
    """Return the value in the JSON file `path`; a UserError names the file if it is missing or malformed."""
    try:
        contents = Path(path).read_bytes()
        with uncollected():
            try:
                return orjson.loads(contents)
            except orjson.JSONDecodeError:  # a BOM; and NaN and integers beyond 64 bits, for the caller to judge
                return json.loads(contents.decode("utf-8-sig"))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: not readable as JSON ({error})") from None


@contextlib.contextmanager
def uncollected():
    """Pause garbage collection, which would go through a value of millions of objects again and again as it grows."""
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()


def check_zip(path):
    """Raise ValueError if the zip file `path` declares more bytes than it has.

    torch compresses nothing, so such a file is not torch's and may fill any memory. A file that is no zip passes.
    """
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as file:
            size = sum(part.file_size for part in file.infolist())
        if size > Path(path).stat().st_size:
            raise ValueError(f"its parts are {size:,} bytes, more than the file")


def fingerprint(*parts):
    """Return twelve hexadecimal digits that stand for `parts` (JSON values)."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:12]
