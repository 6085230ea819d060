"""Networks for inference, batch norms folded into their convolutions."""

import copy

import torch
from torch.nn.utils.fusion import fuse_conv_bn_eval

from rsnlib.fast.fused_norm import PRECISIONS
from rsnlib.models.blocks import ConvNorm

ONEDNN = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_convolution_pointwise")


def fuse(model):
    """A copy of `model` for inference, every batch norm folded into its convolution: the same heatmaps, faster. Save
    the model itself; a fused one has no batch norms to load or train. A model without any is returned as it is."""
    if not any(isinstance(module, torch.nn.BatchNorm2d) for module in model.modules()):
        return model
    fused = copy.deepcopy(model).eval()
    for module in fused.modules():
        if isinstance(module, ConvNorm):
            module.conv = fuse_conv_bn_eval(module.conv, module.bn)
            module.bn = torch.nn.Identity()
            module.__class__ = Folded
    return fused.requires_grad_(False).to(memory_format=torch.channels_last)


class Folded(ConvNorm):
    """A ConvNorm whose batch norm is folded into its convolution: on a CPU with oneDNN, sum and ReLU are as well."""

    def forward(self, x, other=None):
        if x.device.type != "cpu" or not ONEDNN or torch.compiler.is_compiling() or x.dtype not in PRECISIONS:
            return super().forward(x, other)
        conv, relu = self.conv, "relu" if self.relu else None
        shape = conv.weight, conv.bias, conv.padding, conv.stride, conv.dilation, conv.groups
        if other is None:
            return torch.ops.mkldnn._convolution_pointwise(x, *shape, relu or "none", [], None)
        return torch.ops.mkldnn._convolution_pointwise.binary(x, other, *shape, "add", 1.0, relu, [], None)
