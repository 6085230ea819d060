"""Fused CPU kernels for training, in C: batch norm, addend and ReLU in one pass each way, instead of three or four."""

import ctypes
import os
import subprocess
import tempfile
from functools import lru_cache
from pathlib import Path

import torch

SOURCE = Path(__file__).with_suffix(".c")
PRECISIONS = {torch.float32: [], torch.bfloat16: ["-DBFLOAT16"]}  # and the compiler's options for them
COLUMNS = 512  # how many numbers the inner loops should take at a time, about
FEW = 2**15  # numbers that are not worth a second thread
NORM_ADD_RELU = 2  # as in the C file


def available(dtype):
    """Return True if there are kernels for tensors of `dtype`."""
    return library(dtype) is not None


@lru_cache
def library(dtype):
    """Return norm_cpu.c compiled for tensors of `dtype`, or None: another dtype, no C compiler (`CC`, else cc), one
    without OpenMP, or no folder for temporary files from which a library may be loaded."""
    if dtype not in PRECISIONS:
        return None
    try:
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder, "norm_cpu.so")
            command = [os.environ.get("CC", "cc"), "-O3", "-march=native", "-fopenmp", "-shared", "-fPIC"]
            command += [*PRECISIONS[dtype], "-o", file, SOURCE, "-lm"]
            subprocess.run(command, check=True, capture_output=True)
            functions = ctypes.CDLL(file)
    except (OSError, subprocess.CalledProcessError):
        return None
    numbers, statistics, pointers = [ctypes.c_long] * 5, [ctypes.c_double] * 2, [ctypes.c_void_p] * 9
    functions.forward.argtypes = numbers + statistics + pointers
    functions.backward.argtypes = numbers + pointers
    functions.forward.restype = functions.backward.restype = None
    return functions


def forward(mode, x, addend, norm):
    """Return the output (N, C, h, w) of a batch norm in training, and what `backward` needs; update its running
    statistics. mode: of fused_norm; x, addend: channels last in memory"""
    if norm.num_batches_tracked is not None:  # as in frozen_statistics
        norm.num_batches_tracked.add_(1)
    y, (lines, columns, threads) = torch.empty_like(x), _layout(x)
    saved, sums = torch.empty(4, columns), torch.empty(threads, 2, columns, dtype=torch.float64)
    addend = x if addend is None else addend
    tensors = x, addend, y, norm.weight, norm.bias, norm.running_mean, norm.running_var, saved, sums
    numbers = mode, lines, columns, x.shape[1], threads, norm.momentum, norm.eps
    library(x.dtype).forward(*numbers, *[tensor.data_ptr() for tensor in tensors])
    return y, saved


def backward(mode, gradient, x, y, saved):
    """Return the gradients of x, the addend (None without one), the weight and the bias."""
    lines, columns, threads = _layout(x)
    gradient, of_x = gradient.contiguous(memory_format=torch.channels_last), torch.empty_like(x)
    of_addend = torch.empty_like(x) if mode == NORM_ADD_RELU else None
    of_weight, of_bias = torch.empty(2, x.shape[1])
    sums = torch.empty(threads, 2, columns, dtype=torch.float64)
    tensors = gradient, x, y, of_x, of_x if of_addend is None else of_addend, saved, of_weight, of_bias, sums
    numbers = mode, lines, columns, x.shape[1], threads
    library(x.dtype).backward(*numbers, *[tensor.data_ptr() for tensor in tensors])
    return of_x, of_addend, of_weight, of_bias


def _layout(x):
    """Return the lines and columns of x (channels last), with as many rows per line as give about COLUMNS columns, and
    the number of threads."""
    channels = columns = x.shape[1]
    rows = x.numel() // channels
    while 2 * columns <= COLUMNS and rows % (2 * columns // channels) == 0:
        columns *= 2
    return x.numel() // columns, columns, torch.get_num_threads() if x.numel() > FEW else 1
