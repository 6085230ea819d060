"""Cost of networks beside published cost, and receptive fields of their blocks."""

from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from rsnlib.models.blocks import BRANCHES, ConvNorm, make_block
from rsnlib.models.network import WIDTHS, Network, initialise

PUBLISHED = Path(__file__).parent / "published.csv"
INPUT = (256, 192)
BLOCKS = ("bottleneck", *BRANCHES)
FARTHEST = 12  # cells from the middle that are shown of an effective receptive field
DRAWN = 8  # untrained blocks that are averaged


@cache
def cost(architecture, keypoints=17, input_size=INPUT):
    """Return (parameters, multiply-adds for one crop) of an Architecture, all heads included: of its convolutions, on a
    network without memory."""
    counts = []

    def count(conv, _, output):
        counts.append(output.numel() * conv.weight[0].numel())

    with torch.device("meta"):
        model = Network(architecture, keypoints, input_size).eval()
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(count)
    with torch.no_grad(), Shortcuts():
        model.heads(torch.empty(1, 3, *input_size, device="meta"))
    return sum(parameter.numel() for parameter in model.parameters()), sum(counts)


class Shortcuts(TorchFunctionMode):
    """Skip what counts for nothing in `cost`, and takes most of the time on tensors without memory."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function in (functional.batch_norm, functional.relu, torch.relu):
            return args[0]
        if function is functional.interpolate:
            return args[0].new_empty(*args[0].shape[:2], *kwargs["size"])
        return function(*args, **(kwargs or {}))


def networks(models):
    """Return the cost of networks: a data frame, one row per network and input size, columns model, input (height x
    width), parameters, multiply_adds (of all heads, 17 keypoints), published (multiply-adds, or NaN) and ratio, ours
    over published. models: {name: Architecture}"""
    published = pd.read_csv(PUBLISHED).query("source == 'paper'").dropna(subset="gflops")
    published = published.groupby(["model", "input"]).gflops.first()
    rows = []
    for name, architecture in models.items():
        sizes = {INPUT} | {tuple(map(int, size.split("x"))) for model, size in published.index if model == name}
        for input_size in sorted(sizes):
            size = "x".join(map(str, input_size))
            parameters, multiply_adds = cost(architecture, 17, input_size)
            theirs = 1e9 * published.get((name, size), float("nan"))
            rows.append((name, size, parameters, multiply_adds, theirs, multiply_adds / theirs))
    return pd.DataFrame(rows, columns=["model", "input", "parameters", "multiply_adds", "published", "ratio"])


def receptive_fields(models):
    """Return the sizes of the receptive fields at the end of each branch of a block, on the block's input: a data
    frame, one row per kind of block, one column per branch. models: {name: Architecture}"""
    rows = []
    for block, branches in sorted({(a.block, branch_count(a)) for a in models.values()}):
        sizes = [", ".join(map(str, branch)) for branch in field_sizes(block, branches)]
        rows.append({"block": block, "branches": branches} | dict(enumerate(sizes, 1)))
    return pd.DataFrame(rows).fillna("")


def branch_count(architecture):
    """Return the number of branches of an architecture's blocks, 1 for a bottleneck."""
    return 1 if architecture.block == "bottleneck" else architecture.branches


def field_sizes(block, branches):
    """Return the sizes of the receptive fields at the end of each branch of a block: a list of lists."""
    return [(2 * line.nonzero().flatten() + 1).tolist() for line in paths(block, branches)]


def paths(block, branches):
    """Return the number of paths through n 3x3 convolutions from a block's input to the end of each branch, (branches,
    n); the receptive field of such a path is 2n + 1.

    The block itself counts the paths: its input holds one path at place 0, every 3x3 convolution moves all paths one
    place on, and where the block adds two signals, it adds their paths.
    """
    middle = nn.Sequential(ConvNorm(1, 1, 3) if block == "bottleneck" else BRANCHES[block](branches, 1))
    for name, module in list(middle.named_modules()):
        if isinstance(module, ConvNorm):
            middle.set_submodule(name, OneFurther())
    start = torch.zeros(1, branches, 1, 2 * branches)
    start[..., 0] = 1
    return middle(start)[0, :, 0].int()


class OneFurther(nn.Module):
    """Stand-in for a 3x3 convolution in `paths`."""

    def forward(self, ways):
        return ways.roll(1, dims=-1)


def effective_fields(network, images):
    """Return the `block_fields` of a network's first block on images (N, 3, H, W), normalised."""
    with torch.no_grad():
        cells = network.pool(network.stem(images))
    return block_fields(network.stages[0].down[0][0], branch_count(network.architecture), cells)


def block_fields(block, branches, cells):
    """Return the effective receptive fields of a block (Luo et al., NeurIPS 2016): the gradients of the middle unit at
    the end of each branch by the block's input, around the middle, (branches, size, size), root mean square over people
    and channels, the largest 1.

    cells: (N, in_channels, h, w), the block's input; size: odd, at most 2 FARTHEST + 1
    """
    cells = cells.clone().requires_grad_()
    ends = block.middle(block.reduce(cells)).chunk(branches, dim=1)
    row, column = cells.shape[2] // 2, cells.shape[3] // 2
    half = min(FARTHEST, (min(cells.shape[2:]) - 1) // 2)
    fields = []
    for end in ends:
        (gradient,) = torch.autograd.grad(end[:, :, row, column].sum(), cells, retain_graph=True)
        field = gradient.square().mean(dim=(0, 1)).sqrt()
        field = field[row - half : row + half + 1, column - half : column + half + 1]
        fields.append((field / field.max()).numpy())
    return np.stack(fields)


@cache
def untrained_fields(kind, branches):
    """Return the `block_fields` of a kind of block on noise, root mean square over `DRAWN` untrained blocks."""
    width, side, squares = WIDTHS[0], 2 * FARTHEST + 1, []
    for seed in range(DRAWN):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            block = make_block(kind, width, width, 1, 1, branches, width // branches, "input").eval()
            initialise(block)
            squares.append(block_fields(block, branches, torch.rand(1, width, side, side)) ** 2)
    fields = np.mean(squares, axis=0) ** 0.5
    return fields / fields.max(axis=(1, 2), keepdims=True)
