"""Residual sums and up units whose sum and ReLU are done by the ConvNorm before them, as its addend."""

from rsnlib.models.blocks import Residual
from rsnlib.models.network import Up, resize


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


WITH_ADDEND = {Residual: ResidualWithAddend, Up: UpWithAddend}
