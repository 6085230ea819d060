"""Branches as wide as a device computes fastest."""

import copy

import torch
from torch import nn
from torch.nn.functional import pad

from rsnlib.models.blocks import BRANCHES, ConvNorm, Residual


def widen(model, multiple):
    """Return a copy of `model` to train, whose branches have more channels, up to a multiple of `multiple`: the same
    heatmaps and gradients up to rounding. What is added is zero, has zero gradients, and so stays zero."""
    wide = copy.deepcopy(model)
    for block in wide.modules():
        if isinstance(block, Residual) and isinstance(block.middle, tuple(BRANCHES.values())):
            branches = block.middle.branches
            width = -(-block.reduce.conv.out_channels // branches // multiple) * multiple
            _set_channels(block.reduce, block.reduce.conv.in_channels, branches * width)
            for step in block.middle.modules():
                if isinstance(step, ConvNorm):
                    _set_channels(step, width, width)
            _set_channels(block.expand, branches * width, block.expand.conv.out_channels)
    return copy_tensors(model, wide)


def _set_channels(module, inputs, outputs):
    """Give a ConvNorm a new convolution and batch norm with so many channels."""
    old = module.conv
    module.conv = nn.Conv2d(inputs, outputs, old.kernel_size, old.stride, old.padding)
    module.bn = nn.BatchNorm2d(outputs)
    module.to(old.weight)


@torch.no_grad()
def copy_tensors(source, target):
    """Give `target` the weights and running statistics of `source`, a wider or narrower copy, and return it: each
    branch keeps its first channels, and the channels that only the target has become zero."""
    for (name, values), place in zip(source.state_dict().items(), target.state_dict().values()):
        branches = source.architecture.branches if ".reduce." in name or ".expand." in name else 1
        for dim, (here, there) in enumerate(zip(values.shape, place.shape)):
            if here != there:
                values = values.unflatten(dim, (branches, -1))
                behind = values.ndim - dim - 2  # dimensions, which pad takes first
                values = pad(values, [0, 0] * behind + [0, (there - here) // branches]).flatten(dim, dim + 1)
        place.copy_(values)
    return target
