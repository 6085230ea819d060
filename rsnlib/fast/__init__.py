"""Speed, applied from outside: copies of networks that train or predict faster, to the same numbers up to rounding.

`rsnlib.models` knows nothing of this folder: without `faster`, `slower` and `fuse`, everything works as before, slower.
"""

import torch
from torch import nn

from rsnlib.fast.folded import fuse
from rsnlib.fast.fused_norm import FusedBatchNorm, FusedConvNorm
from rsnlib.fast.graphs import graphed
from rsnlib.fast.recompute import recompute_activations
from rsnlib.fast.sums import QUICKER
from rsnlib.fast.widths import copy_tensors, widen
from rsnlib.models.blocks import ConvNorm

__all__ = ["faster", "fuse", "graphed", "slower"]

FUSED = {nn.BatchNorm2d: FusedBatchNorm, ConvNorm: FusedConvNorm, **QUICKER}
# How many channels a device computes fastest: tensor cores want a multiple of 8 in bfloat16. A CPU gains nothing.
MULTIPLES = {("cuda", "bfloat16"): 8}


def faster(model, device, precision, recompute=False):
    """Return a copy of `model` to train on `device` in `precision`; `slower` is the way back.

    Branches get as many channels as the device likes. Sums and ReLUs are left to the batch norm before them, which
    computes them in the same pass. Biases in front of a batch norm, which takes any bias away again, are not trained.
    recompute: spend time to save memory, see rsnlib.fast.recompute
    """
    learner = widen(model, MULTIPLES.get((device.type, precision), 1))
    for module in learner.modules():
        module.__class__ = FUSED.get(type(module), type(module))
        if isinstance(module, ConvNorm):
            module.conv.bias.requires_grad_(False)
    if recompute:
        recompute_activations(learner)
    return learner.to(memory_format=torch.channels_last).train()


def slower(learner, model):
    """Give `model` the weights and running statistics of `learner`, a `faster` copy of it, and return it."""
    return copy_tensors(learner, model)
