"""Branches as wide as GPUs compute fastest."""

import copy

import torch
from torch import nn

from rsnlib.models.blocks import BRANCHES, ConvNorm, Residual

# How many channels a device likes best: tensor cores want a multiple of 8 in bfloat16. A CPU gains nothing.
MULTIPLES = {("cuda", "bfloat16"): 8}


@torch.no_grad()
def widen(model, multiple):
    """A copy of `model` to train, whose branches have more channels, up to a multiple of `multiple`: the same heatmaps
    and gradients up to rounding. What is added is zero, has zero gradients, and so stays zero. `narrow` is the way
    back. The convolutions' biases are not trained: the batch norms behind them take any bias away again."""
    wide = copy.deepcopy(model)
    for name, (inputs, outputs) in _around_branches(model).items():
        module = wide.get_submodule(name)
        conv, like = module.conv, {"device": module.conv.weight.device, "dtype": module.conv.weight.dtype}
        channels = _wider(conv.in_channels, inputs, multiple), _wider(conv.out_channels, outputs, multiple)
        module.conv = nn.Conv2d(*channels, conv.kernel_size, conv.stride, conv.padding, **like)
        module.bn = nn.BatchNorm2d(channels[1], **like)
    for values, wider, places in _shared(model, wide):
        wider.zero_()[places] = values
    for module in wide.modules():
        if isinstance(module, ConvNorm):
            module.conv.bias.requires_grad_(False)
    return wide


@torch.no_grad()
def narrow(wide, model):
    """Give `model` the weights and running statistics of `wide`, a `widen` of it as it was, and return it."""
    for values, wider, places in _shared(model, wide):
        values.copy_(wider[places])
    return model


def _around_branches(model):
    """The ConvNorms before, in and behind the branches of a network, by name: how many branches share their inputs and
    their outputs, None where no branch has them."""
    groups = {}
    for name, block in model.named_modules():
        if isinstance(block, Residual) and isinstance(block.middle, tuple(BRANCHES.values())):
            groups[f"{name}.reduce"] = None, block.middle.branches
            for part, module in block.middle.named_modules(prefix=f"{name}.middle"):
                if isinstance(module, ConvNorm):
                    groups[part] = 1, 1
            groups[f"{name}.expand"] = block.middle.branches, None
    return groups


def _wider(channels, branches, multiple):
    return branches * (-(-channels // branches // multiple) * multiple) if branches else channels


def _shared(model, wide):
    """Every tensor of a network, that of the wide one, and the places of the first's values in the second."""
    branches, wider = _around_branches(model), wide.state_dict()
    for name, values in model.state_dict().items():
        inputs, outputs = branches.get(name.rpartition(".")[0].rpartition(".")[0], (1, 1))
        sizes = zip(values.shape, wider[name].shape, (outputs, inputs))  # of further dimensions nothing is added
        places = [_places(*each).to(values.device) for each in sizes]
        yield values, wider[name], torch.meshgrid(*places, indexing="ij") if len(places) > 1 else tuple(places)


def _places(channels, wider, branches):
    """Where the channels of each branch stand among more."""
    branches = branches or 1
    first = torch.arange(branches)[:, None] * (wider // branches)
    return (first + torch.arange(channels // branches)).flatten()
