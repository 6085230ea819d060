"""The network around the blocks: a stem, then one to four U-shaped stages, each with four heads (paper, figure 2)."""

import torch
from torch import nn
from torch.nn.functional import interpolate

from rsnlib.data.targets import heatmap_size
from rsnlib.fast.fused_norm import norm
from rsnlib.models.attention import make_attention
from rsnlib.models.blocks import ConvNorm, Recomputable, make_block

WIDTHS = (64, 128, 256, 512)  # base channels of the four levels, fine to coarse
UP_CHANNELS = 256


class Head(Recomputable):
    """Features of one level to heatmaps of the output size, refined by `attention` where there is one.

    x: (N, 256, h, w) -> (N, K, *size)
    """

    def __init__(self, keypoints, attention=None):
        super().__init__()
        self.features = ConvNorm(UP_CHANNELS, UP_CHANNELS)
        self.heatmaps = ConvNorm(UP_CHANNELS, keypoints, 3, relu=False)
        self.attention = attention

    def forward(self, x, size):
        heatmaps = resize(self.heatmaps(self.features(x)), size)
        return heatmaps if self.attention is None else self.attention(heatmaps)

    @property
    def output_norm(self):
        """The batch norm that sets the range of the heatmaps: PRM's, which convolves them anew, or the head's own."""
        return getattr(self.attention, "output_norm", self.heatmaps.bn)


class Up(Recomputable):
    """One up unit: this level's features plus those of the coarser unit, and the skip, if there is to be one, that the
    next stage adds to its down features of this level.

    down: (N, channels, h, w), coarser: (N, 256, h / 2, w / 2) or None -> (N, 256, h, w), (N, channels, h, w) or None
    """

    def __init__(self, channels, coarsest, skips):
        super().__init__()
        self.lateral = ConvNorm(channels, UP_CHANNELS)
        self.coarser = None if coarsest else ConvNorm(UP_CHANNELS, UP_CHANNELS, relu=False)
        self.skip_down = ConvNorm(channels, channels) if skips else None
        self.skip_up = ConvNorm(UP_CHANNELS, channels) if skips else None

    def forward(self, down, coarser):
        if self.coarser is not None:  # convolved before it is resized, which gives the same for a quarter of the work
            coarser = norm(resize(self.coarser.conv(coarser), down.shape[-2:]), self.coarser.bn, self.coarser.relu)
        up = self.lateral(down, coarser)
        return up, None if self.skip_up is None else self.skip_down(down) + self.skip_up(up)


class Stage(nn.Module):
    """Four down levels, four up units, four heads.

    x: (N, 64, h, w) -> ups: four (N, 256, ...), coarse to fine; the next stage's input and skips (fine to coarse;
    each None without cross-stage features)
    """

    def __init__(self, architecture, keypoints, feeds_next):
        super().__init__()
        a = architecture
        self.down = nn.ModuleList()
        channels = WIDTHS[0]
        for level, (width, depth) in enumerate(zip(WIDTHS, a.depths, strict=True)):
            blocks = []
            for index in range(depth):
                stride = 2 if level > 0 and index == 0 else 1
                shape = (a.expansion, a.branches, a.branch_width, a.width_of)
                blocks.append(make_block(a.block, channels, width, stride, *shape))
                channels = width * a.expansion
            self.down.append(nn.Sequential(*blocks))
        self.up = nn.ModuleList(  # coarse to fine
            Up(width * a.expansion, coarsest=width == WIDTHS[-1], skips=feeds_next and a.cross_stage)
            for width in reversed(WIDTHS)
        )
        self.heads = nn.ModuleList()  # coarse to fine
        for width in reversed(WIDTHS):
            last = not feeds_next and width == WIDTHS[0]
            refined = a.attention is not None and (last or a.attention_at == "every")
            self.heads.append(Head(keypoints, make_attention(a.attention, keypoints) if refined else None))
        self.cross = ConvNorm(UP_CHANNELS, WIDTHS[0]) if feeds_next else None

    def forward(self, x, skips):
        downs = []
        for level, blocks in enumerate(self.down):
            x = blocks(x)
            if skips[level] is not None:
                x = x + skips[level]
            downs.append(x)
        ups, new_skips = [], []
        for unit, down in zip(self.up, reversed(downs), strict=True):
            up, skip = unit(down, ups[-1] if ups else None)
            ups.append(up)
            new_skips.append(skip)
        if self.cross is None:
            return ups, None, None
        return ups, self.cross(ups[-1]), new_skips[::-1]


class Network(nn.Module):
    """Residual Steps Network, and with other blocks MSPN, Res2Net and the released Res-18.

    architecture: an rsnlib.config.Architecture
    keypoints: K
    input_size: height and width, multiples of 32. The network runs on any such size; this is the one it is for.
    """

    def __init__(self, architecture, keypoints, input_size):
        super().__init__()
        self.architecture = architecture
        self.keypoints = keypoints
        self.input_size = tuple(input_size)
        self.stem = ConvNorm(3, WIDTHS[0], 7, 2, relu=False)
        self.pool = nn.MaxPool2d(3, 2, 1)
        last = architecture.stages - 1
        self.stages = nn.ModuleList(
            Stage(architecture, keypoints, feeds_next=stage < last) for stage in range(architecture.stages)
        )
        draw_weights(self)

    def features(self, images):
        """The up units' features of each stage: list over stages of four (N, 256, ...), coarse to fine."""
        x = self.pool(self.stem(images)).relu_()  # the maximum first: a quarter as many to compare with zero
        skips = [None] * len(WIDTHS)
        features = []
        for stage in self.stages:
            ups, x, skips = stage(x, skips)
            features.append(ups)
        return features

    def heads(self, images):
        """Every head's heatmaps: (N, stages, 4, K, H / 4, W / 4), coarse to fine. images as for `forward`."""
        size = heatmap_size(images.shape[-2:])
        stages = []
        for stage, ups in zip(self.stages, self.features(images), strict=True):
            heatmaps = [head(up, size) for head, up in zip(stage.heads, ups, strict=True)]
            stages.append(torch.stack(heatmaps, dim=1))
        return torch.stack(stages, dim=1)

    def forward(self, images):
        """Heatmaps (N, K, H / 4, W / 4), peaks near 255, of images (N, 3, H, W), RGB, ImageNet-normalised."""
        return self.stages[-1].heads[-1](self.features(images)[-1][-1], heatmap_size(images.shape[-2:]))

    def recompute(self, recompute=True):
        """Whether training forgets the activations inside blocks, up units and heads, to compute them again when the
        gradients need them: about a third more time, and for 4xRSN-50 at 256x192 in float32 a peak of 4.5 GiB instead
        of 21.4 (32 people; gradients counted, weights and optimiser not)."""
        for module in self.modules():
            if isinstance(module, Recomputable):
                module.recompute = recompute

    def output_norms(self):
        """The batch norms that set the range of the heatmaps, one a head."""
        return [head.output_norm for stage in self.stages for head in stage.heads]


def draw_weights(network):
    """The weights of the convolutions of a network, or of a part of one, anew, as the released code starts."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


def resize(x, size):
    """Bilinear, corners aligned, as everywhere in the released code."""
    if tuple(x.shape[-2:]) == tuple(size):
        return x
    return interpolate(x, size=tuple(size), mode="bilinear", align_corners=True)
