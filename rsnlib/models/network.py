"""The network around the blocks: a stem, then one to four U-shaped stages, each with four heads (paper, figure 2)."""

import torch
from torch import nn
from torch.nn.functional import interpolate

from rsnlib.models.attention import make_attention
from rsnlib.models.blocks import ConvNorm, make_block

WIDTHS = (64, 128, 256, 512)  # base channels of the four levels, fine to coarse
UP_WIDTH = 256  # channels of the up units


class Head(nn.Module):
    """Features of one level to heatmaps of the output size, refined by `attention` (a module, or None).

    x: (N, channels, h, w) -> (N, K, *size)
    """

    def __init__(self, channels, keypoints, attention=None):
        super().__init__()
        self.features = ConvNorm(channels, channels)
        self.heatmaps = ConvNorm(channels, keypoints, 3, relu=False)
        self.attention = attention

    def forward(self, x, size):
        heatmaps = resize(self.heatmaps(self.features(x)), size)
        return heatmaps if self.attention is None else self.attention(heatmaps)


class Up(nn.Module):
    """One up unit: this level's features plus the resized features of the coarser unit, ReLU; and, with `skips`, the
    features that the next stage adds to its down features of this level.

    down: (N, channels, h, w); coarser: (N, up, h / 2, w / 2), None in the coarsest unit
    -> features (N, up, h, w), skip (N, channels, h, w) or None
    """

    def __init__(self, channels, up, coarsest, skips):
        super().__init__()
        self.lateral = ConvNorm(channels, up, relu=False)
        self.coarser = None if coarsest else ConvNorm(up, up, relu=False)
        self.skip_down = ConvNorm(channels, channels) if skips else None
        self.skip_up = ConvNorm(up, channels) if skips else None

    def merge(self, down, coarser):
        lateral = self.lateral(down)
        if coarser is None:
            return torch.relu(lateral)
        return torch.relu(lateral + self.coarser(resize(coarser, down.shape[-2:])))

    def forward(self, down, coarser):
        up = self.merge(down, coarser)
        return up, None if self.skip_up is None else self.skip_down(down) + self.skip_up(up)


class Stage(nn.Module):
    """One U: four down levels, then four up units; and the four heads, which Network applies.

    x: (N, 64, h, w); skips: the previous stage's, one per level, fine to coarse, each (N, channels, ...) or None
    -> the up units' features, four (N, 256, ...), coarse to fine; the next stage's x and skips, None after the last
    All channels are times the architecture's `width`.
    """

    def __init__(self, architecture, keypoints, last):
        super().__init__()
        a = architecture
        self.down = nn.ModuleList()  # fine to coarse
        self.up = nn.ModuleList()  # coarse to fine, as are the heads
        self.heads = nn.ModuleList()
        *widths, up = a.scaled(*WIDTHS, UP_WIDTH)
        channels = widths[0]
        for width, depth in zip(widths, a.depths):
            blocks = nn.Sequential()
            for index in range(depth):
                stride = 2 if width > widths[0] and index == 0 else 1
                shape = a.expansion, a.branches, a.branch_width, a.width_of
                blocks.append(make_block(a.block, channels, width, stride, *shape))
                channels = width * a.expansion
            self.down.append(blocks)
        for width in reversed(widths):
            self.up.append(Up(width * a.expansion, up, coarsest=width == widths[-1], skips=a.cross_stage and not last))
            refined = a.attention and (a.attention_at == "every" or (last and width == widths[0]))
            self.heads.append(Head(up, keypoints, make_attention(a.attention, keypoints) if refined else None))
        self.cross = None if last else ConvNorm(up, widths[0])

    def forward(self, x, skips):
        downs = []
        for blocks, skip in zip(self.down, skips):
            x = blocks(x) if skip is None else blocks(x) + skip
            downs.append(x)
        ups, next_skips = [], []
        for unit, down in zip(self.up, reversed(downs)):
            up, skip = unit(down, ups[-1] if ups else None)
            ups.append(up)
            next_skips.append(skip)
        return ups, None if self.cross is None else self.cross(ups[-1]), next_skips[::-1]


class Network(nn.Module):
    """Residual Steps Network, and with other blocks MSPN, Res2Net and the released Res-18.

    architecture: an rsnlib.models.zoo.Architecture
    keypoints: K
    input_size: height and width that the network is for, multiples of 32; other such sizes work, too
    """

    def __init__(self, architecture, keypoints, input_size):
        super().__init__()
        self.architecture = architecture
        self.keypoints = keypoints
        self.input_size = tuple(input_size)
        self.stem = ConvNorm(3, *architecture.scaled(WIDTHS[0]), 7, 2)
        self.pool = nn.MaxPool2d(3, 2, 1)
        last = architecture.stages - 1
        self.stages = nn.ModuleList(Stage(architecture, keypoints, stage == last) for stage in range(last + 1))
        initialise(self)

    def features(self, images):
        """Return the up units' features of every stage: a list of lists of four (N, 256, ...), coarse to fine."""
        x, skips = self.pool(self.stem(images)), [None] * len(WIDTHS)
        features = []
        for stage in self.stages:
            ups, x, skips = stage(x, skips)
            features.append(ups)
        return features

    def heads(self, images):
        """Return every head's heatmaps (N, stages, 4, K, H / 4, W / 4), coarse to fine, of images as in `forward`."""
        size = heatmap_size(images)
        stages = [
            torch.stack([head(up, size) for head, up in zip(stage.heads, ups)], dim=1)
            for stage, ups in zip(self.stages, self.features(images))
        ]
        return torch.stack(stages, dim=1)

    def forward(self, images):
        """Return heatmaps (N, K, H / 4, W / 4), peaks near 255, of images (N, 3, H, W), RGB, ImageNet-normalised."""
        return self.stages[-1].heads[-1](self.features(images)[-1][-1], heatmap_size(images))


def heatmap_size(images):
    """Height and width of the heatmaps of images (N, 3, H, W): a quarter of theirs."""
    height, width = images.shape[-2:]
    return height // 4, width // 4


def initialise(module):
    """Draw the weights of every convolution in `module`: Kaiming normal, fan out (released RSN). A network without
    memory has nothing to draw."""
    for each in module.modules():
        if isinstance(each, nn.Conv2d) and not each.weight.is_meta:
            nn.init.kaiming_normal_(each.weight, mode="fan_out", nonlinearity="relu")


def resize(x, size):
    """Resize (N, C, h, w) to (N, C, *size), bilinearly with aligned corners (released RSN)."""
    if tuple(x.shape[-2:]) == tuple(size):
        return x
    return interpolate(x, size=tuple(size), mode="bilinear", align_corners=True)
