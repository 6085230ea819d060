"""Refinement of a head's heatmaps: the paper's Pose Refine Machine and the attention that the paper compares with."""

from functools import partial

import torch
from torch import nn

from rsnlib.models.blocks import ConvNorm

REDUCTION = 4  # of SE and CBAM; their papers' 16 would leave one channel of 17


class PRM(nn.Module):
    """Pose Refine Machine (paper, section 3.2; released RSN, class PRM): features times 1 + channel * position, where
    the two weights come from global pooling and from a 9x9 depthwise convolution.

        x -> 3x3 -> f --+------------------------------------------+-> f * (1 + a * b)
                        +-> mean -> 1x1 -> 1x1 -> sigmoid --> a ---+
                        +-> 1x1 -> 9x9 depthwise -> sigmoid -> b --+

    x: (N, K, h, w) -> (N, K, h, w)
    shared_position: b has one channel for all keypoints (MMPose, class PRM)
    """

    def __init__(self, keypoints, shared_position=False):
        super().__init__()
        self.features = ConvNorm(keypoints, keypoints, 3)
        self.channel = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), ConvNorm(keypoints, keypoints), ConvNorm(keypoints, keypoints), nn.Sigmoid()
        )
        position = [ConvNorm(keypoints, keypoints), ConvNorm(keypoints, keypoints, 9, groups=keypoints)]
        if shared_position:
            position.append(ConvNorm(keypoints, 1))
        self.position = nn.Sequential(*position, nn.Sigmoid())

    def weights(self, x):
        """Return the features (N, K, h, w) and their weights per channel (N, K, 1, 1) and position (N, K, h, w)."""
        features = self.features(x)
        return features, self.channel(features), self.position(features).expand_as(features)

    def forward(self, x):
        features, channel, position = self.weights(x)
        return features * (1 + channel * position)


class SE(nn.Module):
    """Squeeze and excitation (Hu et al., CVPR 2018): one weight per channel.

    x: (N, K, h, w) -> (N, K, h, w)
    """

    def __init__(self, keypoints):
        super().__init__()
        self.channel = bottleneck_weights(keypoints)

    def forward(self, x):
        return x * self.channel(x.mean(dim=(2, 3), keepdim=True)).sigmoid()


class CBAM(nn.Module):
    """Convolutional block attention (Woo et al., ECCV 2018): one weight per channel, then one per position, each from
    the mean and the maximum.

    x: (N, K, h, w) -> (N, K, h, w)
    """

    def __init__(self, keypoints):
        super().__init__()
        self.channel = bottleneck_weights(keypoints)
        self.position = ConvNorm(2, 1, 7, relu=False)

    def forward(self, x):
        mean, highest = x.mean(dim=(2, 3), keepdim=True), x.amax(dim=(2, 3), keepdim=True)
        x = x * (self.channel(mean) + self.channel(highest)).sigmoid()
        mean, highest = x.mean(dim=1, keepdim=True), x.amax(dim=1, keepdim=True)
        return x * self.position(torch.cat([mean, highest], dim=1)).sigmoid()


def bottleneck_weights(channels):
    """Two 1x1 convolutions through fewer channels: (N, channels, 1, 1) -> (N, channels, 1, 1), before the sigmoid."""
    fewer = max(1, channels // REDUCTION)
    return nn.Sequential(nn.Conv2d(channels, fewer, 1), nn.ReLU(inplace=True), nn.Conv2d(fewer, channels, 1))


ATTENTIONS = {"prm": PRM, "prm-mmpose": partial(PRM, shared_position=True), "se": SE, "cbam": CBAM}


def make_attention(attention, keypoints):
    """Return the module that refines one head's heatmaps, by its name in `ATTENTIONS`."""
    return ATTENTIONS[attention](keypoints)
