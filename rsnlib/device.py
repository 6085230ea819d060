"""Device and precision, cores and memory."""

import ctypes
import os
import sys
from pathlib import Path

import torch

# glibc's malloc.h: the number of blocks that may be mapped one by one, the bytes that may lie idle
M_MMAP_MAX, M_TRIM_THRESHOLD = -4, -1


def default_device():
    """Return the CUDA device if there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def autocast(device, precision):
    """Return the context in which a network computes in `precision`, "float32" or "bfloat16"."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16")


def choose_precision(device, precision):
    """Return `precision`, "float32" or "bfloat16"; for "auto", bfloat16 if the hardware computes in it, known of
    processors on Linux on x86 only."""
    if precision != "auto":
        return precision
    if device.type == "cuda":
        return "bfloat16" if torch.cuda.is_bf16_supported(False) else "float32"
    flags = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    return "bfloat16" if "avx512_bf16" in flags or "amx_bf16" in flags else "float32"


def cores():
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def keep_memory():
    """Tell glibc to keep freed memory, which the kernel would clear again: a quarter of the time of a training step.

    Elsewhere than on Linux with glibc this is a no-op.
    """
    if sys.platform == "linux" and (adjust := getattr(ctypes.CDLL(None), "mallopt", None)):
        adjust(M_MMAP_MAX, 0)
        adjust(M_TRIM_THRESHOLD, 2**31 - 1)
