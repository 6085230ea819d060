"""Networks for inference: batch norms folded into their convolutions, sums and ReLUs done by oneDNN or cuDNN."""

import copy

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from rsnlib.fast.sums import QUICKER
from rsnlib.fast.widths import widen
from rsnlib.models.blocks import ConvNorm

ONEDNN = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_convolution_pointwise")
CUDNN = torch.backends.cudnn.is_available()
WIDE = 8  # cuDNN pads branches of other than multiples of so many channels, in every call
DTYPES = torch.float32, torch.bfloat16


def onednn_takes(dtype):
    """Return True if oneDNN convolves `dtype` on this processor."""
    if not ONEDNN or dtype not in DTYPES:
        return False
    return dtype == torch.float32 or torch.ops.mkldnn._is_mkldnn_bf16_supported()


def fuse(model, device=None):
    """Return a copy of `model` for inference on `device`, None for the model's own, every batch norm folded into its
    convolution: the same heatmaps, faster.

    Save the model itself: a fused one has no batch norms to load or train. A model without any is returned as it is.
    """
    if not any(isinstance(module, nn.BatchNorm2d) for module in model.modules()):
        return model
    device = torch.device(device or next(model.parameters()).device)
    fused = widen(model, WIDE).eval() if device.type == "cuda" else copy.deepcopy(model).eval()
    for module in fused.modules():
        if isinstance(module, ConvNorm):
            module.conv = fuse_conv_bn_eval(module.conv, module.bn)
            module.bn = nn.Identity()
            module.__class__ = FoldedConvNorm
        module.__class__ = QUICKER.get(type(module), type(module))
    return fused.requires_grad_(False).to(device, memory_format=torch.channels_last)


class FoldedConvNorm(ConvNorm):
    """A ConvNorm whose batch norm is folded into its convolution; given an addend, relu(conv(x) + addend). With oneDNN
    on a CPU and cuDNN on a GPU one operation does it all."""

    def forward(self, x, addend=None):
        relu = addend is not None or isinstance(self.relu, nn.ReLU)
        if not torch.compiler.is_compiling():
            if x.device.type == "cpu" and onednn_takes(x.dtype):
                return self._onednn(x, addend, relu)
            if x.device.type == "cuda" and CUDNN and x.dtype in DTYPES and relu and self.conv.groups == 1:
                return self._cudnn(x, addend)
        return super().forward(x) if addend is None else (self.conv(x) + addend).relu_()

    def _onednn(self, x, addend, relu):
        conv = self.conv
        shape = conv.weight, conv.bias, conv.padding, conv.stride, conv.dilation, conv.groups
        if addend is None:
            return torch.ops.mkldnn._convolution_pointwise(x, *shape, "relu" if relu else "none", [], None)
        return torch.ops.mkldnn._convolution_pointwise.binary(x, addend, *shape, "add", 1.0, "relu", [], None)

    def _cudnn(self, x, addend):
        conv, x = self.conv, x.contiguous(memory_format=torch.channels_last)
        shape = conv.bias, conv.stride, conv.padding, conv.dilation, conv.groups
        if addend is None:
            return torch.cudnn_convolution_relu(x, conv.weight, *shape)
        addend = addend.contiguous(memory_format=torch.channels_last)
        return torch.cudnn_convolution_add_relu(x, conv.weight, addend, 1.0, *shape)
