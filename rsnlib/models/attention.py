"""What refines a head's heatmaps: the paper's Pose Refine Machine."""

from torch import nn

from rsnlib.models.blocks import ConvNorm


class PRM(nn.Module):
    """Pose Refine Machine (paper, section 3.2; released RSN, class PRM): the features, once more convolved, weighted
    by one number a channel times one number a position and channel.

    x: (N, K, h, w) -> (N, K, h, w)
    """

    def __init__(self, keypoints):
        super().__init__()
        self.features = ConvNorm(keypoints, keypoints, 3)
        self.channel = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), ConvNorm(keypoints, keypoints), ConvNorm(keypoints, keypoints), nn.Sigmoid()
        )
        self.position = nn.Sequential(
            ConvNorm(keypoints, keypoints), ConvNorm(keypoints, keypoints, 9, groups=keypoints), nn.Sigmoid()
        )

    def weights(self, x):
        """The refined features and their attention: (N, K, h, w), channel (N, K, 1, 1), position (N, K, h, w)."""
        features = self.features(x)
        return features, self.channel(features), self.position(features)

    def forward(self, x):
        features, channel, position = self.weights(x)
        return features * (1 + channel * position)

    @property
    def output_norm(self):
        """The batch norm that sets the range of the output."""
        return self.features.bn
