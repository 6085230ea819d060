"""Fused CPU kernels for training: batch norm, addend and ReLU in one pass each way, instead of three or four."""

import ctypes
import os
import subprocess
import tempfile
from functools import lru_cache
from pathlib import Path

import torch
from torch import nn

from rsnlib.models.blocks import ConvNorm

SOURCE = Path(__file__).with_suffix(".c")
PRECISIONS = {torch.float32: [], torch.bfloat16: ["-DBFLOAT16"]}  # and the compiler's options for them
COLUMNS = 512  # how many numbers the inner loops should take at a time, about
FEW = 2**15  # numbers that are not worth a second thread
NORM, NORM_RELU, NORM_ADD_RELU = range(3)  # as in the C file


class FusedBatchNorm(nn.BatchNorm2d):
    """Batch norm and what follows it: norm(x), relu(norm(x)) or, given an addend, relu(norm(x) + addend).

    x, addend: (N, C, h, w) -> (N, C, h, w)

    Fused where a CPU trains in float32 or bfloat16 and there is a C compiler; else computed by torch, whose batch norm
    takes up to ten times as long for numbers of channels without a fast path.
    """

    def forward(self, x, addend=None, relu=False):
        same = addend is None or (addend.dtype == x.dtype and addend.shape == x.shape)
        on_cpu = x.device.type == "cpu" and self.weight.dtype == torch.float32 and library(x.dtype) is not None
        fused = on_cpu and same and x.numel() > x.shape[1] and not torch.compiler.is_compiling()
        if self.training and fused:
            mode = NORM_ADD_RELU if addend is not None else NORM_RELU if relu else NORM
            return _FusedNorm.apply(x, addend, self.weight, self.bias, self, mode)
        y = super().forward(x)
        if addend is not None:
            return (y + addend).relu_()
        return y.relu_() if relu else y


class FusedConvNorm(ConvNorm):
    """A ConvNorm on FusedBatchNorm; given an addend, relu(norm(conv(x)) + addend)."""

    def forward(self, x, addend=None):
        return self.bn(self.conv(x), addend, relu=isinstance(self.relu, nn.ReLU))


@lru_cache
def library(dtype):
    """Return fused_norm.c compiled for tensors of `dtype`, or None: another dtype, no C compiler (`CC`, else cc), one
    without OpenMP, or no folder for temporary files from which a library may be loaded."""
    if dtype not in PRECISIONS:
        return None
    try:
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder, "fused_norm.so")
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


class _FusedNorm(torch.autograd.Function):
    """FusedBatchNorm by the compiled functions."""

    @staticmethod
    def forward(ctx, x, addend, weight, bias, norm, mode):
        x, addend = _channels_last(x), x if addend is None else _channels_last(addend)
        if norm.num_batches_tracked is not None:  # as in frozen_statistics
            norm.num_batches_tracked.add_(1)
        y, (lines, columns, threads) = torch.empty_like(x), _layout(x)
        saved, sums = torch.empty(4, columns), torch.empty(threads, 2, columns, dtype=torch.float64)
        tensors = x, addend, y, weight, bias, norm.running_mean, norm.running_var, saved, sums
        numbers = mode, lines, columns, x.shape[1], threads, norm.momentum, norm.eps
        library(x.dtype).forward(*numbers, *[tensor.data_ptr() for tensor in tensors])
        ctx.mode = mode
        ctx.save_for_backward(x, saved, y if mode == NORM_ADD_RELU else x)
        return y

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient):
        x, saved, y = ctx.saved_tensors
        lines, columns, threads = _layout(x)
        gradient, of_x = _channels_last(gradient), torch.empty_like(x)
        of_addend = torch.empty_like(x) if ctx.mode == NORM_ADD_RELU else None
        of_weight, of_bias = torch.empty(2, x.shape[1])
        sums = torch.empty(threads, 2, columns, dtype=torch.float64)
        tensors = gradient, x, y, of_x, of_x if of_addend is None else of_addend, saved, of_weight, of_bias, sums
        numbers = ctx.mode, lines, columns, x.shape[1], threads
        library(x.dtype).backward(*numbers, *[tensor.data_ptr() for tensor in tensors])
        return of_x, of_addend, of_weight, of_bias, None, None


def _layout(x):
    """Return the lines and columns of x (channels last), with as many rows per line as give about COLUMNS columns, and
    the number of threads."""
    channels = columns = x.shape[1]
    rows = x.numel() // channels
    while 2 * columns <= COLUMNS and rows % (2 * columns // channels) == 0:
        columns *= 2
    return x.numel() // columns, columns, torch.get_num_threads() if x.numel() > FEW else 1


def _channels_last(x):
    return x.contiguous(memory_format=torch.channels_last)
