"""Batch norm, addend and ReLU in one pass each way, instead of three or four: by norm_cpu, or norm_cuda on a GPU."""

from functools import lru_cache

import torch
from torch import nn

from rsnlib.fast import norm_cpu
from rsnlib.models.blocks import ConvNorm

NORM, NORM_RELU, NORM_ADD_RELU = range(3)  # modes, as in the kernels


class FusedBatchNorm(nn.BatchNorm2d):
    """Batch norm and what follows it: norm(x), relu(norm(x)) or, given an addend, relu(norm(x) + addend).

    x, addend: (N, C, h, w) -> (N, C, h, w)
    conv_bias: (C,), a bias that x lacks; nothing but the running mean depends on it

    Fused in training, in float32 or bfloat16, where there are kernels; else computed by torch, whose batch norm takes
    up to ten times as long on a CPU for numbers of channels without a fast path.
    """

    def forward(self, x, addend=None, relu=False, conv_bias=None):
        same = addend is None or (addend.dtype == x.dtype and addend.shape == x.shape)
        if same and x.numel() > x.shape[1] and self.kernels(x.device, x.dtype):
            mode = NORM_ADD_RELU if addend is not None else NORM_RELU if relu else NORM
            return _FusedNorm.apply(x, addend, self.weight, self.bias, self, mode, conv_bias)
        y = super().forward(x if conv_bias is None else x + conv_bias.to(x.dtype)[:, None, None])
        if addend is not None:
            return (y + addend).relu_()
        return y.relu_() if relu else y

    def kernels(self, device, dtype):
        """Return the module whose kernels train this norm on tensors of such a device and dtype, or None."""
        if not self.training or self.weight.dtype != torch.float32 or torch.compiler.is_compiling():
            return None
        chosen = norm_cpu if device.type == "cpu" else norm_cuda() if device.type == "cuda" else None
        return chosen if chosen and chosen.available(dtype) else None


@lru_cache
def norm_cuda():
    """Return the module norm_cuda, None without Triton, which comes with torch's builds for CUDA on Linux."""
    try:
        from rsnlib.fast import norm_cuda
    except ImportError:
        return None
    return norm_cuda


class FusedConvNorm(ConvNorm):
    """A ConvNorm on FusedBatchNorm; given an addend, relu(norm(conv(x)) + addend).

    On a GPU, where adding a bias is a pass of its own, the convolution leaves its bias to the running mean.
    """

    def forward(self, x, addend=None):
        relu, conv = isinstance(self.relu, nn.ReLU), self.conv
        if x.is_cuda and self.bn.kernels(x.device, torch.bfloat16):
            return self.bn(conv._conv_forward(x, conv.weight, None), addend, relu, conv.bias)
        return self.bn(conv(x), addend, relu)


class _FusedNorm(torch.autograd.Function):
    """FusedBatchNorm by kernels."""

    @staticmethod
    def forward(ctx, x, addend, weight, bias, norm, mode, conv_bias):
        x, addend = _channels_last(x), None if addend is None else _channels_last(addend)
        ctx.kernels, ctx.mode = norm.kernels(x.device, x.dtype), mode
        y, saved = ctx.kernels.forward(mode, x, addend, norm, *[] if conv_bias is None else [conv_bias])
        ctx.save_for_backward(x, saved, y if mode == NORM_ADD_RELU else x)
        return y

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient):
        x, saved, y = ctx.saved_tensors
        return *ctx.kernels.backward(ctx.mode, gradient, x, y, saved), None, None, None


def _channels_last(x):
    return x.contiguous(memory_format=torch.channels_last)
