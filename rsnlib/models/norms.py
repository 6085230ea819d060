"""Batch norm, the sum and the ReLU behind it in one pass, compiled for the CPU that trains; elsewhere torch's own."""

import contextlib
import ctypes
import os
import shutil
import subprocess
import tempfile
from functools import lru_cache
from pathlib import Path

import torch
from torch import nn

SOURCE = Path(__file__).with_suffix(".c")
PRECISIONS = {torch.float32: [], torch.bfloat16: ["-DBFLOAT16"]}  # and the compiler's options for them
COLUMNS = 512  # numbers that an inner loop is to have, or about as many
FEW = 1 << 15  # numbers that are not worth a second thread

_compiles = True


def norm(x, bn, relu, other=None):
    """Batch norm of x, plus `other` where there is any, then, if `relu`, the ReLU. x itself may be overwritten.

    x, other: (N, C, h, w) -> (N, C, h, w); bn: BatchNorm2d, or Identity where it is folded into a convolution

    Where a CPU trains in float32 or bfloat16 and there is a C compiler, all of it takes one pass each way instead of
    three or four; torch's own batch norm takes as much as ten times as long where the number of channels is odd to it.
    """
    rows = x.numel() // x.shape[1]
    if bn.training and x.device.type == "cpu" and rows > 1 and _compiles and isinstance(bn, nn.BatchNorm2d):
        alike = other is None or (other.dtype == x.dtype and other.shape == x.shape)
        if alike and not torch.compiler.is_compiling() and bn.weight.dtype == torch.float32 and compiled(x.dtype):
            return _Norm.apply(x, bn.weight, bn.bias, other, bn, relu)
    x = bn(x)
    if other is not None:
        x = x + other
    return x.relu_() if relu else x


@contextlib.contextmanager
def plain_norms():
    """`norm` computes with torch alone."""
    global _compiles
    before, _compiles = _compiles, False
    try:
        yield
    finally:
        _compiles = before


@lru_cache
def compiled(dtype):
    """The library of norms.c for numbers of `dtype`, or None: other numbers, no C compiler (`CC`, else cc), one without
    OpenMP, or no folder for temporary files from which a library may be loaded."""
    compiler = shutil.which(os.environ.get("CC", "cc"))
    if dtype not in PRECISIONS or compiler is None:
        return None
    try:
        with tempfile.TemporaryDirectory() as folder:
            library = Path(folder, "norms.so")
            options = ["-O3", "-march=native", "-fopenmp", "-shared", "-fPIC", *PRECISIONS[dtype]]
            command = [compiler, *options, "-o", library, SOURCE, "-lm"]
            subprocess.run(command, check=True, capture_output=True)
            functions = ctypes.CDLL(library)
    except (OSError, subprocess.CalledProcessError):
        return None
    pointer, number, real = ctypes.c_void_p, ctypes.c_long, ctypes.c_double
    shape = [number] * 3
    functions.forward.argtypes = [*[pointer] * 3, *shape, *[pointer] * 4, real, real, ctypes.c_int, pointer, pointer]
    functions.backward.argtypes = [*[pointer] * 5, *shape, *[pointer] * 3, *[ctypes.c_int] * 2, *[pointer] * 3]
    for function in (functions.forward, functions.backward):
        function.argtypes = [*function.argtypes, ctypes.c_int]
        function.restype = None
    return functions


class _Norm(torch.autograd.Function):
    """`norm` by the compiled functions."""

    @staticmethod
    def forward(ctx, x, weight, bias, other, bn, relu):
        x, other = _rows(x), None if other is None else _rows(other)
        y, saved = torch.empty_like(x), torch.empty(2, len(weight))
        *shape, workspace, threads = _plan(x)
        compiled(x.dtype).forward(
            *_pointers(x, other, y),
            *shape,
            *_pointers(weight, bias, bn.running_mean, bn.running_var),
            bn.momentum,
            bn.eps,
            relu,
            *_pointers(saved, workspace),
            threads,
        )
        if bn.num_batches_tracked is not None:
            bn.num_batches_tracked += 1
        ctx.relu, ctx.added = relu, other is not None
        ctx.save_for_backward(x, weight, bias, saved, y if relu and ctx.added else None)
        return y

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient):
        x, weight, bias, saved, y = ctx.saved_tensors
        gradient = _rows(gradient)
        of_x, of_other = torch.empty_like(x), gradient if ctx.added else None
        both = y is not None
        if both:
            of_other = torch.empty_like(x)
        of_weight, of_bias = torch.empty_like(weight), torch.empty_like(bias)
        *shape, workspace, threads = _plan(x)
        compiled(x.dtype).backward(
            *_pointers(gradient, x, y if both else x, of_x, of_other if both else of_x),
            *shape,
            *_pointers(weight, bias, saved),
            ctx.relu,
            both,
            *_pointers(of_weight, of_bias, workspace),
            threads,
        )
        return of_x, of_weight, of_bias, of_other, None, None


def _rows(x):
    """x, its channels last in memory, as norms.c has it."""
    return x.contiguous(memory_format=torch.channels_last)


def _plan(x):
    """Rows, channels, rows to take as one; the memory to work in, and with how many threads."""
    channels, rows, tile = x.shape[1], x.numel() // x.shape[1], 1
    while 2 * tile * channels <= COLUMNS and rows % (2 * tile) == 0:
        tile *= 2
    threads = torch.get_num_threads() if x.numel() > FEW else 1
    return rows, channels, tile, torch.empty(3 * (threads + 1) * tile * channels, dtype=torch.float64), threads


def _pointers(*tensors):
    return [None if tensor is None else tensor.data_ptr() for tensor in tensors]
