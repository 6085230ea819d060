"""Device and precision, threads and memory."""

import contextlib
import ctypes
import os
import sys
from functools import lru_cache
from pathlib import Path

import torch

# of glibc's malloc.h: how many blocks may be mapped one by one, and how many bytes may lie idle
M_MMAP_MAX, M_TRIM_THRESHOLD = -4, -1


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
