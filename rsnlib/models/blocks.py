"""The residual blocks that the paper compares: bottleneck, Res2Net and Residual Steps."""

import contextlib

import torch
from torch import nn


class ConvNorm(nn.Module):
    """Convolution (with bias, as in the released code), batch norm and, unless `relu=False`, ReLU.

    x: (N, in_channels, h, w) -> (N, out_channels, h / stride, w / stride)
    """

    def __init__(self, in_channels, out_channels, kernel=1, stride=1, groups=1, relu=True):
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel, stride, kernel // 2, groups=groups)
        self.bn = nn.BatchNorm2d(out_channels)
        self.relu = nn.ReLU(inplace=True) if relu else nn.Identity()

    def forward(self, x):
        return self.relu(self.bn(self.conv(x)))


class ResidualSteps(nn.Module):
    """The branches of the Residual Steps Block (paper, section 3.1). Branch i is a chain of i 3x3 convolutions; each of
    them but the last takes the sum of its own input and the output of the convolution above it:

        x_1 ------> c -----------------------------------> y_11
                  /
        x_2 --> + > c ---------> c ----------------------> y_22
                  /            /
        x_3 --> + > c -----> + > c ---------> c ---------> y_33
                  /            /            /
        x_4 --> + > c -----> + > c -----> + > c ---> c --> y_44

    x: (N, branches * width, h, w) -> (N, branches * width, h, w), the ends of the branches
    """

    def __init__(self, branches, width):
        super().__init__()
        self.branches = branches
        self.steps = nn.ModuleList(
            nn.ModuleList(ConvNorm(width, width, 3) for _ in range(branch + 1)) for branch in range(branches)
        )

    def forward(self, x):
        above, ends = [], []  # outputs: of the branch above, step by step; of the last step of each branch
        for y, branch in zip(x.chunk(self.branches, dim=1), self.steps):
            steps = []
            for j, conv in enumerate(branch):
                y = conv(y + above[j]) if j < len(above) else conv(y)
                steps.append(y)
            above = steps
            ends.append(y)
        return torch.cat(ends, dim=1)


class Res2Net(nn.Module):
    """The branches of Res2Net (Gao et al., TPAMI 2021) in place of the residual steps: y_1 = x_1 and
    y_i = conv(x_i + y_(i-1)).

    x: (N, branches * width, h, w) -> (N, branches * width, h, w)
    """

    def __init__(self, branches, width):
        super().__init__()
        self.branches = branches
        self.convolutions = nn.ModuleList(ConvNorm(width, width, 3) for _ in range(branches - 1))

    def forward(self, x):
        first, *rest = x.chunk(self.branches, dim=1)
        ends = [first]
        for part, conv in zip(rest, self.convolutions):
            ends.append(conv(part + ends[-1]))
        return torch.cat(ends, dim=1)


BRANCHES = {"res2net": Res2Net, "residual_steps": ResidualSteps}


class Residual(nn.Module):
    """1x1 convolution, `middle`, 1x1 convolution, plus the input (projected where its shape changes), ReLU.

    x: (N, in_channels, h, w) -> (N, out_channels, h / stride, w / stride)
    """

    def __init__(self, in_channels, out_channels, stride, reduce, middle, expand):
        super().__init__()
        self.reduce = reduce
        self.middle = middle
        self.expand = expand
        same_shape = stride == 1 and in_channels == out_channels
        self.shortcut = nn.Identity() if same_shape else ConvNorm(in_channels, out_channels, 1, stride, relu=False)

    def forward(self, x):
        return torch.relu(self.expand(self.middle(self.reduce(x))) + self.shortcut(x))


def make_block(block, in_channels, channels, stride, expansion, branches, branch_width, width_of):
    """Return one residual block, of any of the three kinds.

    block: "bottleneck", "res2net" or "residual_steps"
    channels: the level's base width (64, 128, 256, 512); the output has channels * expansion
    branch_width: of one branch, in 64ths of the block's input channels (width_of="input", as in the released code) or
        of the level's base width (width_of="base")
    """
    if block == "bottleneck":
        inner = channels
        reduce, middle = ConvNorm(in_channels, inner), ConvNorm(inner, inner, 3, stride)
    else:
        width = (in_channels if width_of == "input" else channels) * branch_width // 64
        inner = branches * width
        reduce, middle = ConvNorm(in_channels, inner, 1, stride), BRANCHES[block](branches, width)
    out_channels = channels * expansion
    return Residual(in_channels, out_channels, stride, reduce, middle, ConvNorm(inner, out_channels, relu=False))


@contextlib.contextmanager
def frozen_statistics(module):
    """Freeze the running statistics of every batch norm in `module`."""
    norms = [norm for norm in module.modules() if isinstance(norm, nn.BatchNorm2d)]
    before = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm in norms:
        norm.momentum, norm.num_batches_tracked = 0.0, None
    try:
        yield
    finally:
        for norm, (momentum, batches) in zip(norms, before):
            norm.momentum, norm.num_batches_tracked = momentum, batches
