"""Residual sums and up units whose sum and ReLU are done by the ConvNorm before them, as its addend; resizing by
matrix products."""

from functools import lru_cache

import torch
from torch.nn.functional import interpolate

from rsnlib.models import network
from rsnlib.models.blocks import Residual
from rsnlib.models.network import Head, Up


class ResidualWithAddend(Residual):
    """A Residual whose `expand` takes the shortcut as an addend."""

    def forward(self, x):
        return self.expand(self.middle(self.reduce(x)), self.shortcut(x))


class UpWithAddend(Up):
    """An up unit whose `lateral` takes the coarser unit's features as an addend. The features are convolved before they
    are resized, which gives the same (a 1x1 convolution and a bilinear resize change places) for a quarter of the work.
    """

    def merge(self, down, coarser):
        if coarser is None:
            return self.lateral(down).relu_()
        return self.lateral(down, self.coarser.bn(resize(self.coarser.conv(coarser), down.shape[-2:])))


class HeadByProducts(Head):
    """A Head that resizes its heatmaps by `resize`."""

    def forward(self, x, size):
        heatmaps = resize(self.heatmaps(self.features(x)), size)
        return heatmaps if self.attention is None else self.attention(heatmaps)


def resize(x, size):
    """Resize as the network does; on a GPU by two matrix products, along the width and along the height.

    On CUDA torch's interpolate adds up its gradient in no fixed order, takes three times as long, and is float32 under
    autocast.
    """
    if not x.is_cuda or tuple(x.shape[-2:]) == tuple(size):
        return network.resize(x, size)
    (down, across), (height, width) = x.shape[2:], size
    with torch.autocast("cuda", enabled=False):
        x = x.permute(0, 2, 3, 1)
        x = bilinear_weights(across, width, x.dtype, x.device) @ x
        x = bilinear_weights(down, height, x.dtype, x.device) @ x.flatten(2)
    return x.unflatten(2, (width, -1)).permute(0, 3, 1, 2)


@lru_cache
def bilinear_weights(before, after, dtype, device):
    """Return the matrix (after, before) that resizes a line, with aligned corners."""
    lines = interpolate(torch.eye(before, dtype=torch.float64)[None], size=after, mode="linear", align_corners=True)
    return lines[0].T.to(device, dtype).contiguous()


QUICKER = {Residual: ResidualWithAddend, Up: UpWithAddend, Head: HeadByProducts}
