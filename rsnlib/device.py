"""Device and precision, cores and memory."""

import ctypes
import os
import sys
import time
from pathlib import Path

import psutil
import torch

torch.backends.cudnn.allow_tf32 = False  # torch's default rounds the inputs of a GPU's float32 convolutions to 10 bits

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


class SharedCores:
    """Give cores up to other processes that compute, and take them back: a network's threads wait for one another after
    every convolution, so two threads that have one and a half cores take several times as long as one thread.

    A step of RSN-18 (128x96, bfloat16, two cores) beside one busy process takes 6.3 times as long with two threads, 1.6
    times with one. Nothing happens where the user has set OMP_NUM_THREADS, or other processes take less than PATIENCE.
    """

    PATIENCE = 10  # seconds over which the cores left by others are averaged

    def __init__(self):
        self.most = torch.get_num_threads()
        self.start = None if "OMP_NUM_THREADS" in os.environ or not _idle_seconds() else self._times()

    def _times(self):
        return time.monotonic(), time.process_time(), _idle_seconds()

    def adjust(self):
        """Set torch's number of threads, once per PATIENCE, to the cores that others leave; return it if it changed."""
        if self.start is None or time.monotonic() - self.start[0] < self.PATIENCE:
            return None
        wall, own, idle = (now - before for now, before in zip(self._times(), self.start))
        self.start = self._times()
        free = (own + idle) / wall
        chosen = min(self.most, max(1, int(free + 0.2)))
        if chosen == torch.get_num_threads() or abs(free - torch.get_num_threads()) < 0.4:
            return None
        torch.set_num_threads(chosen)
        return chosen


def _idle_seconds():
    """Return for how long the cores that this process may use have been idle, added up; 0 where that is unknown."""
    mine = set(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else range(os.cpu_count())
    return sum(core.idle for number, core in enumerate(psutil.cpu_times(percpu=True)) if number in mine)
