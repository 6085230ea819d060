"""Fused CUDA kernels for training, in Triton: batch norm, addend and ReLU in one pass each way.

A tensor (N, C, h, w) in channels last is a matrix of N h w rows and C columns. Sums over its rows are added up in two
steps of fixed order, so that they repeat to the bit: by parts of the rows, then over the parts.
"""

import torch
import triton
import triton.language as tl

COLUMNS = 64  # of a tile, at most
TILE = 8192  # numbers
PARTS = 256  # of the rows, at most
PROGRAMS = 1024  # that sum at the same time, about; an H100 has 132 multiprocessors

# one kernel for all sizes; a number of channels that 16 divides has its own
kernel = triton.jit(do_not_specialize=["rows", "length", "parts"])

NORM_ADD_RELU = 2  # mode, as in fused_norm
DTYPES = torch.float32, torch.bfloat16


def available(dtype):
    """Return True if there are kernels for tensors of `dtype`."""
    return dtype in DTYPES


def forward(mode, x, addend, norm, conv_bias=None):
    """Return the output (N, C, h, w) of a batch norm in training, with the addend and the ReLU of `mode`, and `saved`
    (4, C) float32 for `backward`: mean, 1 / deviation, factor, offset. Update the running statistics.

    x, addend: (N, C, h, w), channels last in memory
    conv_bias: (C,), a bias that the convolution before left out: it moves the running mean and nothing else
    """
    rows, channels, y = x.numel() // x.shape[1], x.shape[1], torch.empty_like(x)
    saved, sums = torch.empty(4, channels, device=x.device), _new_sums(x)
    columns = _columns(channels)
    lines, parts = TILE // columns, sums.shape[0]
    length = _length(rows, parts, lines)
    blocks = triton.cdiv(channels, columns)
    _moments[blocks, parts](x, sums, rows, channels, length, lines, columns, num_warps=8)
    counted = norm.num_batches_tracked is not None  # as in frozen_statistics
    _finish_moments[(triton.cdiv(channels, 16),)](
        x, sums, norm.weight, norm.bias, norm.weight if conv_bias is None else conv_bias, norm.running_mean,
        norm.running_var, norm.num_batches_tracked if counted else sums, saved, rows, channels, parts, norm.momentum,
        norm.eps, conv_bias is not None, counted, PARTS, 16,
    )  # fmt: skip
    tiles = blocks, triton.cdiv(rows, lines)
    _apply[tiles](x, x if addend is None else addend, y, saved, rows, channels, mode, lines, columns, num_warps=8)
    return y, saved


def backward(mode, gradient, x, y, saved):
    """Return the gradients of x, the addend (None without one), the weight and the bias.

    gradient: of the output; best in channels last, or some channels of such a tensor
    y: the output, which tells where its ReLU was zero after a sum
    """
    rows, channels, of_x = x.numel() // x.shape[1], x.shape[1], torch.empty_like(x)
    of_addend = torch.empty_like(x) if mode == NORM_ADD_RELU else None
    of_weight, of_bias = torch.empty(2, channels, device=x.device)
    sums, columns, (gradient, stride) = _new_sums(x), _columns(channels), _rows(gradient)
    lines, parts = TILE // columns, sums.shape[0]
    length = _length(rows, parts, lines)
    blocks = triton.cdiv(channels, columns)
    given = gradient, x, y, saved
    _products[blocks, parts](*given, sums, rows, channels, stride, length, mode, lines, columns, num_warps=8)
    _finish_products[(triton.cdiv(channels, 16),)](sums, of_weight, of_bias, channels, parts, PARTS, 16)
    made = of_x, of_x if of_addend is None else of_addend
    tiles = blocks, triton.cdiv(rows, lines)
    _differentiate[tiles](*given, of_weight, of_bias, *made, rows, channels, stride, mode, lines, columns, num_warps=8)
    return of_x, of_addend, of_weight, of_bias


def _rows(gradient):
    """Return a gradient (N, C, h, w) as it lies in memory if its rows have one stride, else in channels last; and the
    stride of its rows."""
    _, _, height, width = gradient.shape
    stride = gradient.stride(3) if width > 1 else gradient.stride(2) if height > 1 else gradient.stride(0)
    wanted = height * width * stride, 1, width * stride, stride
    strides = zip(gradient.shape, gradient.stride(), wanted)
    if all(given == expected for size, given, expected in strides if size > 1):
        return gradient, stride
    return gradient.contiguous(memory_format=torch.channels_last), gradient.shape[1]


def _columns(channels):
    """Return the columns of a tile."""
    return min(COLUMNS, max(16, triton.next_power_of_2(channels)))


def _new_sums(x):
    """Return an empty (parts, 2, C) float32 for the sums of x by parts of its rows."""
    rows, channels, columns = x.numel() // x.shape[1], x.shape[1], _columns(x.shape[1])
    parts = min(PARTS, triton.cdiv(rows, TILE // columns), max(1, PROGRAMS // triton.cdiv(channels, columns)))
    return torch.empty(parts, 2, channels, device=x.device)


def _length(rows, parts, lines):
    """Return the rows of a part, whole tiles of so many lines."""
    return triton.cdiv(triton.cdiv(rows, parts), lines) * lines


@triton.jit
def _tile(channels, stride, first, end, R: tl.constexpr, C: tl.constexpr):
    """Return the offsets of a tile of a matrix and which of them are inside it."""
    row = first + tl.arange(0, R)
    column = tl.program_id(0) * C + tl.arange(0, C)
    inside = (row < end)[:, None] & (column < channels)[None, :]
    return row[:, None].to(tl.int64) * stride + column[None, :], inside


@kernel
def _moments(x, sums, rows, channels, length, R: tl.constexpr, C: tl.constexpr):
    """Sum a part of the rows, and its squares, less the first row, which keeps their difference exact."""
    column = tl.program_id(0) * C + tl.arange(0, C)
    live = column < channels
    pivot = tl.load(x + column, live, 0.0).to(tl.float32)
    start = tl.program_id(1) * length
    end = tl.minimum(start + length, rows)
    total = tl.zeros((R, C), tl.float32)
    squares = tl.zeros((R, C), tl.float32)
    for first in range(start, end, R):
        place, inside = _tile(channels, channels, first, end, R, C)
        value = tl.load(x + place, inside, 0.0).to(tl.float32)
        value = tl.where(inside, value - pivot[None, :], 0.0)
        total += value
        squares += value * value
    place = sums + tl.program_id(1) * 2 * channels + column
    tl.store(place, tl.sum(total, 0), live)
    tl.store(place + channels, tl.sum(squares, 0), live)


@triton.jit
def _sum_parts(sums, column, live, channels, parts, P: tl.constexpr):
    """Return the two sums of some columns over the parts."""
    part = tl.arange(0, P)
    inside = (part < parts)[:, None] & live[None, :]
    place = sums + part[:, None] * 2 * channels + column[None, :]
    return tl.sum(tl.load(place, inside, 0.0), 0), tl.sum(tl.load(place + channels, inside, 0.0), 0)


@kernel
def _finish_moments(
    x, sums, weight, bias, conv_bias, running_mean, running_var, batches, saved, rows, channels, parts, momentum, eps,
    BIASED: tl.constexpr, COUNTED: tl.constexpr, P: tl.constexpr, C: tl.constexpr,
):  # fmt: skip
    """Write mean, 1 / deviation, factor and offset of the norm, and update its running statistics."""
    column = tl.program_id(0) * C + tl.arange(0, C)
    live = column < channels
    total, squares = _sum_parts(sums, column, live, channels, parts, P)
    pivot = tl.load(x + column, live, 0.0).to(tl.float32)
    off = total / rows
    variance = tl.maximum(squares / rows - off * off, 0.0)
    # a value that is not a number stays so
    variance = tl.where(squares == squares, variance, squares)
    mean = pivot + off
    inverse = 1 / tl.sqrt(variance + eps)
    factor = tl.load(weight + column, live, 0.0) * inverse
    tl.store(saved + column, mean, live)
    tl.store(saved + channels + column, inverse, live)
    tl.store(saved + 2 * channels + column, factor, live)
    tl.store(saved + 3 * channels + column, tl.load(bias + column, live, 0.0) - mean * factor, live)
    if BIASED:
        mean += tl.load(conv_bias + column, live, 0.0)
    before = tl.load(running_mean + column, live, 0.0)
    tl.store(running_mean + column, before + momentum * (mean - before), live)
    before = tl.load(running_var + column, live, 0.0)
    tl.store(running_var + column, before + momentum * (variance * (rows / (rows - 1.0)) - before), live)
    if COUNTED and tl.program_id(0) == 0:
        tl.store(batches, tl.load(batches) + 1)


@kernel
def _apply(x, addend, y, saved, rows, channels, MODE: tl.constexpr, R: tl.constexpr, C: tl.constexpr):
    """Write the output."""
    column = tl.program_id(0) * C + tl.arange(0, C)
    live = column < channels
    factor = tl.load(saved + 2 * channels + column, live, 0.0)
    offset = tl.load(saved + 3 * channels + column, live, 0.0)
    place, inside = _tile(channels, channels, tl.program_id(1) * R, rows, R, C)
    value = tl.load(x + place, inside, 0.0).to(tl.float32) * factor[None, :] + offset[None, :]
    if MODE == 2:
        value += tl.load(addend + place, inside, 0.0).to(tl.float32)
    if MODE > 0:
        value = tl.where(value < 0, 0.0, value)
    tl.store(y + place, value, inside)


@triton.jit
def _slope(gradient, x, y, saved, place, gradient_place, inside, column, live, channels, MODE: tl.constexpr):
    """Return the gradient behind the ReLU, and the normalised x, of a tile."""
    slope = tl.load(gradient + gradient_place, inside, 0.0).to(tl.float32)
    value = tl.load(x + place, inside, 0.0).to(tl.float32)
    mean = tl.load(saved + column, live, 0.0)[None, :]
    inverse = tl.load(saved + channels + column, live, 0.0)[None, :]
    if MODE == 1:
        factor = tl.load(saved + 2 * channels + column, live, 0.0)[None, :]
        offset = tl.load(saved + 3 * channels + column, live, 0.0)[None, :]
        slope = tl.where(value * factor + offset > 0, slope, 0.0)
    if MODE == 2:
        slope = tl.where(tl.load(y + place, inside, 0.0) > 0, slope, 0.0)
    return slope, tl.where(inside, (value - mean) * inverse, 0.0)


@kernel
def _products(
    gradient, x, y, saved, sums, rows, channels, stride, length, MODE: tl.constexpr, R: tl.constexpr, C: tl.constexpr
):
    """Sum a part of the gradient's rows, and its products with the normalised x."""
    column = tl.program_id(0) * C + tl.arange(0, C)
    live = column < channels
    start = tl.program_id(1) * length
    end = tl.minimum(start + length, rows)
    total = tl.zeros((R, C), tl.float32)
    products = tl.zeros((R, C), tl.float32)
    for first in range(start, end, R):
        place, inside = _tile(channels, channels, first, end, R, C)
        other, _ = _tile(channels, stride, first, end, R, C)
        slope, normalised = _slope(gradient, x, y, saved, place, other, inside, column, live, channels, MODE)
        total += slope
        products += slope * normalised
    place = sums + tl.program_id(1) * 2 * channels + column
    tl.store(place, tl.sum(total, 0), live)
    tl.store(place + channels, tl.sum(products, 0), live)


@kernel
def _finish_products(sums, of_weight, of_bias, channels, parts, P: tl.constexpr, C: tl.constexpr):
    """Write the gradients of the weight and the bias."""
    column = tl.program_id(0) * C + tl.arange(0, C)
    live = column < channels
    total, products = _sum_parts(sums, column, live, channels, parts, P)
    tl.store(of_bias + column, total, live)
    tl.store(of_weight + column, products, live)


@kernel
def _differentiate(
    gradient, x, y, saved, of_weight, of_bias, of_x, of_addend, rows, channels, stride,
    MODE: tl.constexpr, R: tl.constexpr, C: tl.constexpr,
):  # fmt: skip
    """Write the gradients of x and of the addend."""
    column = tl.program_id(0) * C + tl.arange(0, C)
    live = column < channels
    place, inside = _tile(channels, channels, tl.program_id(1) * R, rows, R, C)
    other, _ = _tile(channels, stride, tl.program_id(1) * R, rows, R, C)
    slope, normalised = _slope(gradient, x, y, saved, place, other, inside, column, live, channels, MODE)
    if MODE == 2:
        tl.store(of_addend + place, slope, inside)
    factor = tl.load(saved + 2 * channels + column, live, 0.0)[None, :]
    mean = tl.load(of_bias + column, live, 0.0)[None, :] / rows
    along = tl.load(of_weight + column, live, 0.0)[None, :] / rows
    tl.store(of_x + place, factor * (slope - mean - normalised * along), inside)
