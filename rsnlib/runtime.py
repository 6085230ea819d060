"""Errors that speak to the user, device and precision, seeds, files written whole or not at all."""

import contextlib
import gc
import hashlib
import json
import os
import tempfile
from functools import lru_cache
from pathlib import Path

import orjson
import torch


class UserError(Exception):
    """Something in the user's input is wrong: the message says what, where (file, key or id) and what to do.

    Notebooks and the command line show the message alone, without a stack trace.
    """

    def _render_traceback_(self):
        return [f"{type(self).__name__}: {self}"]


@contextlib.contextmanager
def whole_file(path, mode="wb"):
    """Open `path` for writing so that it appears only when complete: written beside, synced, then renamed."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, mode, **({} if "b" in mode else {"encoding": "utf-8"})) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)
        raise


def write_json(path, value):
    """Write `value` as indented JSON, whole or not at all."""
    with whole_file(path, "w") as file:
        json.dump(value, file, indent=2)
        file.write("\n")


def write_results(path, results):
    """Write a list in COCO's results format as JSON, whole or not at all: in one line, and thirty times as fast."""
    with whole_file(path) as file:
        file.write(orjson.dumps(results, option=orjson.OPT_APPEND_NEWLINE))


def read_json(path):
    """The JSON in `path`; a UserError names the file where it is missing or malformed."""
    collects = gc.isenabled()
    gc.disable()  # it would go through the growing contents again and again
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: not readable as JSON ({error})") from None
    finally:
        if collects:
            gc.enable()


def fingerprint(*parts):
    """Twelve hexadecimal digits that stand for `parts` (JSON values)."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:12]


def default_device():
    """The CUDA device where there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def autocast(device, precision):
    """The context in which a network trains.

    precision: "float32", "bfloat16", or "auto", `best_precision`
    """
    precision = best_precision(device) if precision == "auto" else precision
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16")


def best_precision(device):
    """ "bfloat16" where the hardware computes with it, else "float32"."""
    has_bfloat16 = torch.cuda.is_bf16_supported(False) if device.type == "cuda" else _cpu_has_bfloat16()
    return "bfloat16" if has_bfloat16 else "float32"


@contextlib.contextmanager
def one_thread():
    """torch computes on the CPU with this thread alone."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@lru_cache
def _cpu_has_bfloat16():
    """Whether the processor multiplies in bfloat16 (Linux on x86; elsewhere the answer is no)."""
    with contextlib.suppress(OSError):
        flags = Path("/proc/cpuinfo").read_text()
        return "avx512_bf16" in flags or "amx_bf16" in flags
    return False
