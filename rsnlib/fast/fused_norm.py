"""What a CPU that trains does in one pass, compiled for it: batch norm with the sums and the ReLU behind it, branches
side by side, images and targets. Elsewhere all of it is torch's own."""

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

_compiles = True


def norm(x, bn, relu, other=None, conv=None):
    """Batch norm of x, plus `other` where there is any, then, if `relu`, the ReLU. x itself may be overwritten.

    x, other: (N, C, h, w) -> (N, C, h, w); bn: BatchNorm2d, or Identity where it is folded into a convolution
    conv: a Conv2d that x goes through first

    Where a CPU trains in float32 or bfloat16 and there is a C compiler, all behind the convolution takes one pass each
    way instead of three or four; torch's own batch norm takes as much as ten times as long for numbers of
    channels that it has no fast path for. The convolution's bias is left out there, which only the running mean sees.
    """
    if _is_compiled(x, bn, other, conv):
        return _Norm.apply(x, *_parameters(conv, bn), other, None, conv, bn, relu, False)
    x = bn(x if conv is None else conv(x))
    if other is not None:
        x = x + other
    return x.relu_() if relu else x


def norm_fork(x, bn, relu, then=None, conv=None):
    """(y, y + then), or (y, y), of y = norm(x, bn, relu, conv=conv), for two readers: neither that sum nor the one of
    their two gradients takes a pass of its own. None where it is not compiled."""
    if _is_compiled(x, bn, then, conv):
        return _Norm.apply(x, *_parameters(conv, bn), None, then, conv, bn, relu, True)
    return None


def _is_compiled(x, bn, more, conv):
    """Whether this is a training step for the compiled functions; more: what is added, or None."""
    if not (_compiles and bn.training and x.device.type == "cpu" and isinstance(bn, nn.BatchNorm2d)):
        return False
    dtype = _dtype(x, conv)
    if torch.compiler.is_compiling() or bn.weight.dtype != torch.float32 or (more is not None and more.dtype != dtype):
        return False
    return compiled(dtype) is not None


def _dtype(x, conv):
    """What is computed in: autocast's for convolutions."""
    return torch.get_autocast_dtype("cpu") if conv is not None and torch.is_autocast_enabled("cpu") else x.dtype


def _parameters(conv, bn):
    return (None, None, bn.weight, bn.bias) if conv is None else (conv.weight, conv.bias, bn.weight, bn.bias)


def normalised(crops, factor, offset):
    """Crops (N, H, W, 3) uint8 times `factor` plus `offset`, (W * 3), in float32; None where it is not compiled."""
    library = _for_training(crops)
    if library is None or crops.dtype != torch.uint8:
        return None
    crops, images = crops.contiguous(), torch.empty(crops.shape)
    lines = crops.shape[0] * crops.shape[1], len(factor)
    library.normalise(*_pointers(crops, factor, offset, images), *lines, torch.get_num_threads())
    return images


def drawn(rows, columns, x, y, peaks):
    """Heatmaps (N, kernels, K, h, w), `peaks` times row y of `rows` (kernels, h, h), upright, times row x of `columns`
    (kernels, w, w), level; x, y, peaks: (N, K). None where it is not compiled."""
    library = _for_training(peaks)
    if library is None:
        return None
    shape = len(peaks), len(rows), peaks.shape[1], rows.shape[1], columns.shape[1]
    heatmaps, given = torch.empty(shape), [each.contiguous() for each in (rows, columns, x, y, peaks)]
    library.draw(*_pointers(*given, heatmaps), *shape, torch.get_num_threads())
    return heatmaps


def _for_training(x):
    """The library for float32, where a CPU trains, else None."""
    if not (_compiles and torch.is_grad_enabled() and x.device.type == "cpu") or torch.compiler.is_compiling():
        return None
    return compiled(torch.float32)


def split(x, branches):
    """The channels of x (N, branches * C, h, w) as so many (N, C, h, w), each by itself in memory."""
    if _is_native(x):
        return _Split.apply(x, branches)
    return [part.contiguous(memory_format=torch.channels_last) for part in x.chunk(branches, dim=1)]


def join(parts):
    """The way back from `split`."""
    return _Join.apply(*parts) if _is_native(parts[0]) else torch.cat(parts, dim=1)


def _is_native(x):
    known = _compiles and x.requires_grad and x.device.type == "cpu" and not torch.compiler.is_compiling()
    return known and compiled(x.dtype) is not None


@contextlib.contextmanager
def plain_torch():
    """Torch alone computes."""
    global _compiles
    before, _compiles = _compiles, False
    try:
        yield
    finally:
        _compiles = before


@lru_cache
def compiled(dtype):
    """The library of native.c for numbers of `dtype`, or None: other numbers, no C compiler (`CC`, else cc), one
    without OpenMP, or no folder for temporary files from which a library may be loaded."""
    compiler = shutil.which(os.environ.get("CC", "cc"))
    if dtype not in PRECISIONS or compiler is None:
        return None
    try:
        with tempfile.TemporaryDirectory() as folder:
            library = Path(folder, "native.so")
            options = ["-O3", "-march=native", "-fopenmp", "-shared", "-fPIC", *PRECISIONS[dtype]]
            command = [compiler, *options, "-o", library, SOURCE, "-lm"]
            subprocess.run(command, check=True, capture_output=True)
            functions = ctypes.CDLL(library)
    except (OSError, subprocess.CalledProcessError):
        return None
    pointer, number, real, flag = ctypes.c_void_p, ctypes.c_long, ctypes.c_double, ctypes.c_int
    shape, flags = [number] * 2, [flag] * 3
    functions.forward.argtypes = [*[pointer] * 5, *shape, *[pointer] * 6, real, real, *flags, pointer, flag]
    functions.backward.argtypes = [*[pointer] * 6, *shape, *[pointer] * 3, *flags, pointer, pointer, flag]
    if dtype == torch.float32:
        functions.normalise.argtypes = [*[pointer] * 4, *shape, flag]
        functions.draw.argtypes = [*[pointer] * 6, *[number] * 5, flag]
        functions.normalise.restype = functions.draw.restype = None
    for function in (functions.join, functions.split):
        function.argtypes, function.restype = [pointer, pointer, *shape, number, flag], None
    return functions


class _Norm(torch.autograd.Function):
    """`norm` and, where `fork`, `norm_fork`, by the compiled functions."""

    @staticmethod
    def forward(ctx, x, kernel, before, weight, bias, other, then, conv, bn, relu, fork):
        given = x
        if conv is not None:
            dtype = _dtype(x, conv)
            given, kernel = x.to(dtype), kernel.to(dtype)
            x = torch.conv2d(given, kernel, None, conv.stride, conv.padding, conv.dilation, conv.groups)
        x = _rows(x)
        rows, channels = _shape(x)
        if rows == 1:
            raise ValueError(f"Expected more than 1 value per channel when training, got input size {x.shape}")
        if any(each is not None and each.shape != x.shape for each in (other, then)):
            raise ValueError(f"what is added is not of shape {tuple(x.shape)}")
        y, saved = torch.empty_like(x), torch.empty(2, channels)
        both = y if then is None else torch.empty_like(x)
        more = [x if each is None else _rows(each) for each in (other, then)]
        worked = compiled(x.dtype).forward(
            *_pointers(x, *more, y, both),
            rows,
            channels,
            *_pointers(weight, bias, bn.running_mean, bn.running_var, before, bn.num_batches_tracked),
            bn.momentum,
            bn.eps,
            relu,
            other is not None,
            then is not None,
            saved.data_ptr(),
            torch.get_num_threads(),
        )
        _check(worked)
        ctx.conv, ctx.relu, ctx.added = conv, relu, other is not None
        ctx.save_for_backward(given, kernel, x, weight, bias, saved, y if relu and ctx.added else None)
        ctx.set_materialize_grads(False)
        if not fork:
            return y
        return y, y.view_as(y) if then is None else both

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient, second=None):
        given, kernel, x, weight, bias, saved, y = ctx.saved_tensors
        of_then = second if ctx.needs_input_grad[6] else None
        forked = gradient is not None and second is not None
        gradient = _rows(second if gradient is None else gradient)
        second = _rows(second) if forked else gradient
        added = y is not None
        of_x, of_other = torch.empty_like(x), torch.empty_like(x) if added else gradient if ctx.added else None
        of_weight, of_bias = torch.empty_like(weight), torch.empty_like(bias)
        worked = compiled(x.dtype).backward(
            *_pointers(gradient, second, x, y if added else x, of_x, of_other if added else of_x),
            *_shape(x),
            *_pointers(weight, bias, saved),
            ctx.relu,
            added,
            forked,
            *_pointers(of_weight, of_bias),
            torch.get_num_threads(),
        )
        _check(worked)
        of_kernel = of_before = None
        if ctx.conv is not None:
            needed = ctx.needs_input_grad
            of_x, of_kernel = _conv_gradients(of_x, given, kernel, ctx.conv, needed[:2])
            of_kernel = None if of_kernel is None else of_kernel.to(weight.dtype)
            of_before = torch.zeros_like(weight) if needed[2] else None
        return of_x, of_kernel, of_before, of_weight, of_bias, of_other, of_then, None, None, None, None


def _conv_gradients(gradient, x, kernel, conv, needed):
    """The gradients of a convolution's input and kernel, None where not `needed`. Where a kernel has many numbers for
    the positions it is learned from, and where it is 1x1, one matrix product gives its gradient in as little as a third
    of the time that oneDNN takes."""
    few = kernel[0, 0].numel() == 1 or gradient[:, 0].numel() <= 4 * x.shape[1]
    same_size = gradient.shape[2:] == x.shape[2:] and conv.stride == conv.dilation == (1, 1)
    product = needed[1] and few and same_size and conv.groups == 1
    shape = conv.stride, conv.padding, conv.dilation, False, (0, 0), conv.groups
    wanted = needed[0], needed[1] and not product, False
    of_x, of_kernel, _ = torch.ops.aten.convolution_backward(gradient, x, kernel, None, *shape, wanted)
    if product:
        height, width = kernel.shape[2:]
        lines = gradient.permute(0, 2, 3, 1).flatten(0, 2)
        of_kernel = torch.mm(lines.t(), _windows(x, height, width))
        of_kernel = of_kernel.view(len(kernel), height, width, -1).permute(0, 3, 1, 2)
    return of_x, of_kernel


def _windows(x, height, width):
    """What a convolution of odd height and width sees at each position of x (N, C, h, w), its channels last in memory,
    with zeros around it: (N * h * w, height * width * C)."""
    x = x.permute(0, 2, 3, 1)
    if height == width == 1:
        return x.flatten(0, 2)
    x = nn.functional.pad(x, (0, 0, width // 2, width // 2, height // 2, height // 2))
    return x.unfold(1, height, 1).unfold(2, width, 1).permute(0, 1, 2, 4, 5, 3).flatten(3).flatten(0, 2)


class _Split(torch.autograd.Function):
    """`split`, by the compiled function."""

    @staticmethod
    def forward(ctx, x, branches):
        return _split(x, branches)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, *gradients):
        return _join(gradients), None


class _Join(torch.autograd.Function):
    """`join`, by the compiled function."""

    @staticmethod
    def forward(ctx, *parts):
        ctx.branches = len(parts)
        return _join(parts)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient):
        return _split(gradient, ctx.branches)


def _split(whole, branches):
    whole = _rows(whole)
    number, channels, *size = whole.shape
    shape = number, channels // branches, *size
    like = {"dtype": whole.dtype, "memory_format": torch.channels_last}
    parts = tuple(torch.empty(shape, **like) for _ in range(branches))
    _side_by_side(compiled(whole.dtype).split, whole, parts)
    return parts


def _join(parts):
    parts = [_rows(part) for part in parts]
    number, channels, *size = parts[0].shape
    shape = number, channels * len(parts), *size
    whole = torch.empty(shape, dtype=parts[0].dtype, memory_format=torch.channels_last)
    _side_by_side(compiled(whole.dtype).join, whole, parts)
    return whole


def _side_by_side(function, whole, parts):
    pointers = (ctypes.c_void_p * len(parts))(*_pointers(*parts))
    function(whole.data_ptr(), pointers, *_shape(parts[0]), len(parts), torch.get_num_threads())


def _rows(x):
    """x, its channels last in memory, as native.c has it."""
    return x.contiguous(memory_format=torch.channels_last)


def _shape(x):
    """Rows and channels."""
    channels = x.shape[1]
    return x.numel() // channels, channels


def _pointers(*tensors):
    return [None if tensor is None else tensor.data_ptr() for tensor in tensors]


def _check(worked):
    if not worked:
        raise MemoryError("too little memory for a batch norm")
