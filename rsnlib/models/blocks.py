"""The residual blocks of the paper: bottleneck, Res2Net and Residual Steps."""

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
    """The branches of the Residual Steps Block (paper, section 3.1): branch i is a chain of i 3x3 convolutions, and
    each convolution but the last of its branch also sees its neighbour one branch up.

    x: (N, branches * width, h, w) -> (N, branches * width, h, w), the last output of every branch
    """

    def __init__(self, branches, width):
        super().__init__()
        self.steps = nn.ModuleList(
            nn.ModuleList(ConvNorm(width, width, 3) for _ in range(branch + 1)) for branch in range(branches)
        )

    def forward(self, x):
        above = []  # outputs of the branch one up, step by step
        lasts = []
        for part, branch in zip(x.chunk(len(self.steps), dim=1), self.steps, strict=True):
            outputs = []
            y = part
            for step, convolution in enumerate(branch):
                y = convolution(y + above[step] if step < len(above) else y)
                outputs.append(y)
            above = outputs
            lasts.append(y)
        return torch.cat(lasts, dim=1)


class Res2Net(nn.Module):
    """The branches of Res2Net in the same slot: y_1 = x_1, y_i = c(x_i + y_(i-1)).

    x: (N, branches * width, h, w) -> (N, branches * width, h, w)
    """

    def __init__(self, branches, width):
        super().__init__()
        self.convolutions = nn.ModuleList(ConvNorm(width, width, 3) for _ in range(branches - 1))

    def forward(self, x):
        first, *rest = x.chunk(len(self.convolutions) + 1, dim=1)
        outputs = [first]
        for part, convolution in zip(rest, self.convolutions, strict=True):
            # the first branch has no convolution, so the second starts from its own part alone
            outputs.append(convolution(part + outputs[-1]))
        return torch.cat(outputs, dim=1)


class Residual(nn.Module):
    """1x1 convolution, `middle`, 1x1 convolution, plus the input (projected where the shape changes), ReLU.

    x: (N, in_channels, h, w) -> (N, out_channels, h / stride, w / stride)
    """

    def __init__(self, in_channels, out_channels, stride, reduce, middle, expand):
        super().__init__()
        self.reduce = reduce
        self.middle = middle
        self.expand = expand
        same = stride == 1 and in_channels == out_channels
        self.shortcut = nn.Identity() if same else ConvNorm(in_channels, out_channels, 1, stride, relu=False)

    def forward(self, x):
        return torch.relu(self.expand(self.middle(self.reduce(x))) + self.shortcut(x))


def make_block(block, in_channels, channels, stride, expansion, branches, branch_width, width_of):
    """One residual block.

    block: "bottleneck", "res2net" or "residual_steps"
    channels: the level's base width (64, 128, 256, 512); the output has channels * expansion
    branch_width: of one branch, in 64ths of the block's input channels (width_of="input", as in the released code) or
        of the level's base width (width_of="base")
    """
    out_channels = channels * expansion
    if block == "bottleneck":
        reduce = ConvNorm(in_channels, channels)
        middle = ConvNorm(channels, channels, 3, stride)
        return Residual(in_channels, out_channels, stride, reduce, middle, ConvNorm(channels, out_channels, relu=False))
    width = (in_channels if width_of == "input" else channels) * branch_width // 64
    middle = {"res2net": Res2Net, "residual_steps": ResidualSteps}[block](branches, width)
    reduce = ConvNorm(in_channels, branches * width, 1, stride)
    expand = ConvNorm(branches * width, out_channels, relu=False)
    return Residual(in_channels, out_channels, stride, reduce, middle, expand)
