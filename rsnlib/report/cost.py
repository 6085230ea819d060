"""What a network costs, beside what was published, and how far its blocks see."""

import weakref
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import nn
from torch.nn.functional import interpolate
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from rsnlib.fast.fused_norm import plain_torch
from rsnlib.models.blocks import BRANCHES, ConvNorm, make_block
from rsnlib.models.network import WIDTHS, Network, draw_weights

PUBLISHED = Path(__file__).parent / "published.csv"
INPUT = (256, 192)
BLOCKS = ("bottleneck", *BRANCHES)
FARTHEST = 12  # cells from the middle that are shown of an effective receptive field
DRAWN = 8  # untrained blocks that are averaged


@cache
def cost(architecture, keypoints=17, input_size=INPUT):
    """(parameters, multiply-adds for one crop) of a network: torch's flop counter on a network without memory.

    Counted as published: up units resize what they then convolve. Ours resize afterwards, which gives the same.
    """
    with torch.device("meta"):
        model = Network(architecture, keypoints, input_size).eval()
        for stage in model.stages:
            for unit in stage.up[1:]:
                unit.coarser.conv.register_forward_pre_hook(lambda _, given: interpolate(given[0], scale_factor=2))
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            model.heads(torch.empty(1, 3, *input_size))
    return sum(parameter.numel() for parameter in model.parameters()), counter.get_total_flops() // 2


def networks(models):
    """The networks of params.yaml and their cost: a data frame, one row a network and input size.

    models: {name: Architecture}
    columns: model, input (height x width), parameters and multiply_adds (of all heads, 17 keypoints), published
        (multiply-adds; NaN where nobody published any) and ratio, ours over published
    """
    published = pd.read_csv(PUBLISHED).query("source == 'paper'").dropna(subset="gflops")
    published = published.groupby(["model", "input"]).gflops.first()
    rows = []
    for name, architecture in models.items():
        sizes = {INPUT} | {_size(text) for model, text in published.index if model == name}
        for input_size in sorted(sizes):
            text = "x".join(map(str, input_size))
            parameters, multiply_adds = cost(architecture, 17, input_size)
            theirs = 1e9 * published.get((name, text), float("nan"))
            rows.append((name, text, parameters, multiply_adds, theirs, multiply_adds / theirs))
    return pd.DataFrame(rows, columns=["model", "input", "parameters", "multiply_adds", "published", "ratio"])


def _size(text):
    """(256, 192) of "256x192"."""
    return tuple(int(side) for side in text.split("x"))


def counted(run):
    """What run(), which computes with tensors, costs: operations (a multiply-add is two) of its matrix products and
    convolutions, the bytes that its steps read and write, each by itself, and the most bytes that live at once of those
    that it makes. Batch norms are torch's own, whose steps can be seen."""
    with plain_torch(), FlopCounterMode(display=False) as operations, Traffic() as traffic:
        run()
    return operations.get_total_flops(), traffic.bytes, traffic.peak


class Traffic(TorchDispatchMode):
    """Counts, for `counted`: `bytes` read and written, and `peak`, the most that lived at once."""

    def __init__(self):
        super().__init__()
        self.bytes = self.live = self.peak = 0

    def __torch_dispatch__(self, operation, types, arguments=(), options=None):
        results = operation(*arguments, **(options or {}))
        aliases = [value.alias_info for value in operation._schema.returns]
        is_view = any(alias and not alias.is_write for alias in aliases)
        made = _tensors(results)
        if operation._schema.is_mutable or (made and not is_view):
            self.bytes += sum(tensor.nbytes for tensor in _tensors(arguments, options, results))
        if not any(aliases):
            for tensor in made:
                self._follow(tensor.untyped_storage())
        return results

    def _follow(self, storage):
        """Count a new storage as long as it lives."""
        self.live += storage.nbytes()
        self.peak = max(self.peak, self.live)
        weakref.finalize(storage, self._forget, storage.nbytes())

    def _forget(self, size):
        self.live -= size


def _tensors(*values):
    """The tensors in nested lists and dicts."""
    return [value for value in tree_leaves(values) if isinstance(value, torch.Tensor)]


def receptive_fields(models):
    """The sizes of the receptive fields that reach the end of each branch of a block, measured on the block's input:
    a data frame, one row a kind of block, one column a branch.

    models: {name: Architecture}; their different blocks are listed once
    """
    blocks = dict.fromkeys((a.block, branch_count(a)) for a in models.values())
    rows = []
    for block, branches in sorted(blocks):
        sizes = [", ".join(map(str, branch)) for branch in field_sizes(block, branches)]
        rows.append({"block": block, "branches": branches} | dict(enumerate(sizes, 1)))
    return pd.DataFrame(rows).fillna("")


def field_sizes(block, branches):
    """The sizes of the receptive fields that reach the end of each branch of a block: a list of lists."""
    return [(2 * line.nonzero().flatten() + 1).tolist() for line in paths(block, branches)]


def paths(block, branches):
    """How many ways lead through n 3x3 convolutions from the input of a block to the end of each branch, (branches, n):
    the receptive field of such a way is 2n + 1.

    The block itself counts them. Its input holds one way at place 0, every 3x3 convolution moves all ways one place on,
    and where the block adds two signals, it adds their ways.
    """
    middle = nn.Sequential(ConvNorm(1, 1, 3) if block == "bottleneck" else BRANCHES[block](branches, 1))
    for name, module in list(middle.named_modules()):
        if isinstance(module, ConvNorm):
            middle.set_submodule(name, OneFurther())
    longest = 2 * branches
    start = torch.zeros(1, branches, 1, longest)
    start[..., 0] = 1
    return middle(start)[0, :, 0].int()


class OneFurther(nn.Module):
    """Stands for a 3x3 convolution in `paths`."""

    def forward(self, ways):
        return ways.roll(1, dims=-1)


def effective_fields(network, images):
    """What the ends of the branches of a network's first block really look at: `block_fields` of images (N, 3, H, W),
    normalised."""
    with torch.no_grad():
        cells = network.pool(network.stem(images))
    return block_fields(network.stages[0].down[0][0], branch_count(network.architecture), cells)


def block_fields(block, branches, cells):
    """The gradients of the middle unit at the end of each branch of a block by the block's input, around the middle:
    (branches, size, size), root mean square over cells and channels, the largest 1 (after Luo et al., "Understanding
    the effective receptive field", NeurIPS 2016).

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


def branch_count(architecture):
    """How many branches the blocks have; a bottleneck is one."""
    return 1 if architecture.block == "bottleneck" else architecture.branches


@cache
def untrained_fields(kind, branches):
    """`block_fields` of noise and a kind of block, root mean square over untrained blocks."""
    width, side, squares = WIDTHS[0], 2 * FARTHEST + 1, []
    for seed in range(DRAWN):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            block = make_block(kind, width, width, 1, 1, branches, width // branches, "input").eval()
            draw_weights(block)
            squares.append(block_fields(block, branches, torch.rand(1, width, side, side)) ** 2)
    fields = np.mean(squares, axis=0) ** 0.5
    return fields / fields.max(axis=(1, 2), keepdims=True)
