"""Errors that speak to the user, device and precision, seeds, files written whole or not at all."""

import contextlib
import ctypes
import gc
import hashlib
import json
import os
import signal
import sys
import tempfile
import threading
import zipfile
from functools import lru_cache
from pathlib import Path

import orjson
import torch

# of glibc's malloc.h: how many blocks may be mapped one by one, and how many bytes may lie idle
M_MMAP_MAX, M_TRIM_THRESHOLD = -4, -1

LONGEST_SIDE = 4096  # of a crop, pixels


class UserError(Exception):
    """Something in the user's input is wrong: the message says what, where (file, key or id) and what to do.

    Notebooks and the command line show the message alone, without a stack trace.
    """

    def _render_traceback_(self):
        return [f"{type(self).__name__}: {self}"]


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


def default_device():
    """The CUDA device where there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def autocast(device, precision):
    """The context in which a network computes in "float32" or "bfloat16"."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16")


def choose_precision(device, precision):
    """ "float32" or "bfloat16" as asked for; for "auto" bfloat16 where the hardware computes with it."""
    return best_precision(device) if precision == "auto" else precision


def best_precision(device):
    """ "bfloat16" where the hardware computes with it, else "float32"."""
    has_bfloat16 = torch.cuda.is_bf16_supported(False) if device.type == "cuda" else _cpu_has_bfloat16()
    return "bfloat16" if has_bfloat16 else "float32"


def cores():
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


@contextlib.contextmanager
def one_thread():
    """torch computes on the CPU with this thread alone."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def keep_memory():
    """From now on, memory that is freed stays with the process for what needs it next. Large tensors' would go back to
    the system, which clears it whenever it hands it out: a quarter of the time of a training step. Only glibc (Linux)
    can be told."""
    if sys.platform == "linux" and (adjust := getattr(ctypes.CDLL(None), "mallopt", None)):
        adjust(M_MMAP_MAX, 0)
        adjust(M_TRIM_THRESHOLD, 2**31 - 1)


@lru_cache
def _cpu_has_bfloat16():
    """Whether the processor multiplies in bfloat16 (Linux on x86; elsewhere the answer is no)."""
    with contextlib.suppress(OSError):
        flags = Path("/proc/cpuinfo").read_text()
        return "avx512_bf16" in flags or "amx_bf16" in flags
    return False
