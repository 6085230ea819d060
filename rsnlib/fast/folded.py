"""Networks for inference: batch norms folded into their convolutions, sums and ReLUs done by oneDNN."""

import copy

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from rsnlib.fast.sums import WITH_ADDEND
from rsnlib.models.blocks import ConvNorm

ONEDNN = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_convolution_pointwise")
DTYPES = torch.float32, torch.bfloat16


def fuse(model):
    """Return a copy of `model` for inference, every batch norm folded into its convolution: the same heatmaps, faster.

    Save the model itself: a fused one has no batch norms to load or train. A model without any is returned as it is.
    """
    if not any(isinstance(module, nn.BatchNorm2d) for module in model.modules()):
        return model
    fused = copy.deepcopy(model).eval()
    for module in fused.modules():
        if isinstance(module, ConvNorm):
            module.conv = fuse_conv_bn_eval(module.conv, module.bn)
            module.bn = nn.Identity()
            module.__class__ = FoldedConvNorm
        module.__class__ = WITH_ADDEND.get(type(module), type(module))
    return fused.requires_grad_(False).to(memory_format=torch.channels_last)


class FoldedConvNorm(ConvNorm):
    """A ConvNorm whose batch norm is folded into its convolution; given an addend, relu(conv(x) + addend). On a CPU
    with oneDNN one operation does it all."""

    def forward(self, x, addend=None):
        if x.device.type != "cpu" or not ONEDNN or torch.compiler.is_compiling() or x.dtype not in DTYPES:
            return super().forward(x) if addend is None else (self.conv(x) + addend).relu_()
        conv = self.conv
        shape = conv.weight, conv.bias, conv.padding, conv.stride, conv.dilation, conv.groups
        if addend is None:
            after = "relu" if isinstance(self.relu, nn.ReLU) else "none"
            return torch.ops.mkldnn._convolution_pointwise(x, *shape, after, [], None)
        return torch.ops.mkldnn._convolution_pointwise.binary(x, addend, *shape, "add", 1.0, "relu", [], None)
