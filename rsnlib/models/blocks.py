"""The residual blocks of the paper: bottleneck, Res2Net and Residual Steps."""

import contextlib

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from rsnlib.fast.fused_norm import join, norm, norm_fork, split


class ConvNorm(nn.Module):
    """Convolution (with bias, as in the released code), batch norm, plus `other`, and, unless `relu=False`, ReLU.

    x: (N, in_channels, h, w) -> (N, out_channels, h / stride, w / stride), and so is other, which may be missing
    """

    def __init__(self, in_channels, out_channels, kernel=1, stride=1, groups=1, relu=True):
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel, stride, kernel // 2, groups=groups)
        self.bn = nn.BatchNorm2d(out_channels)
        self.relu = relu

    def forward(self, x, other=None):
        return norm(x, self.bn, self.relu, other, conv=self.conv)

    def extra_repr(self):
        return f"relu={self.relu}"


def fork(convolution, x, then=None):
    """What a ConvNorm makes of x, for two readers, the second of which gets it plus `then`, if there is any."""
    if type(convolution) is ConvNorm:
        pair = norm_fork(x, convolution.bn, convolution.relu, then, convolution.conv)
        if pair is not None:
            return pair
    y = convolution(x)
    return y, y if then is None else y + then


class ResidualSteps(nn.Module):
    """The branches of the Residual Steps Block (paper, section 3.1): branch i is a chain of i 3x3 convolutions, and
    each convolution but the last of its branch also sees its neighbour one branch up.

    x: (N, branches * width, h, w) -> (N, branches * width, h, w), the last output of every branch
    """

    def __init__(self, branches, width):
        super().__init__()
        self.branches = branches
        self.steps = nn.ModuleList(
            nn.ModuleList(ConvNorm(width, width, 3) for _ in range(branch + 1)) for branch in range(branches)
        )

    def forward(self, x):
        above = []  # outputs of the branch one up, step by step
        lasts = []
        for part, branch in zip(split(x, self.branches), self.steps, strict=True):
            outputs = []
            y = part + above[0] if above else part
            for step, convolution in enumerate(branch, start=1):
                output, y = fork(convolution, y, above[step] if step < len(above) else None)
                outputs.append(output)
            above = outputs
            lasts.append(y)
        return join(lasts)


class Res2Net(nn.Module):
    """The branches of Res2Net in the same slot: y_1 = x_1, y_i = c(x_i + y_(i-1)).

    x: (N, branches * width, h, w) -> (N, branches * width, h, w)
    """

    def __init__(self, branches, width):
        super().__init__()
        self.branches = branches
        self.convolutions = nn.ModuleList(ConvNorm(width, width, 3) for _ in range(branches - 1))

    def forward(self, x):
        first, *rest = x.chunk(self.branches, dim=1)
        outputs = [first]
        for part, convolution in zip(rest, self.convolutions, strict=True):
            outputs.append(convolution(part + outputs[-1]))
        return torch.cat(outputs, dim=1)


class Recomputable(nn.Module):
    """A module that may forget its inner activations in training and compute them again on the way back: less memory,
    a second forward pass, the same gradients and running statistics. `recompute` says whether it does."""

    recompute = False

    def __call__(self, *inputs):
        if not (self.recompute and self.training and torch.is_grad_enabled()):
            return super().__call__(*inputs)
        return checkpoint(super().__call__, *inputs, use_reentrant=False, context_fn=self._contexts)

    def _contexts(self):
        """Around the first and around the second pass, whose batch must not count twice in the running statistics."""
        return contextlib.nullcontext(), kept_statistics(self)


@contextlib.contextmanager
def kept_statistics(module):
    """The batch norms of a module leave their running statistics as they are."""
    norms = [each for each in module.modules() if isinstance(each, nn.BatchNorm2d)]
    before = [(each.momentum, each.num_batches_tracked) for each in norms]
    for each in norms:
        each.momentum, each.num_batches_tracked = 0.0, None
    try:
        yield
    finally:
        for each, (momentum, batches) in zip(norms, before, strict=True):
            each.momentum, each.num_batches_tracked = momentum, batches


BRANCHES = {"res2net": Res2Net, "residual_steps": ResidualSteps}


class Residual(Recomputable):
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
        return self.expand(self.middle(self.reduce(x)), self.shortcut(x))


def make_block(block, in_channels, channels, stride, expansion, branches, branch_width, width_of):
    """One residual block.

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
    return Residual(in_channels, out_channels, stride, reduce, middle, ConvNorm(inner, out_channels))
