"""Keypoints to target heatmaps."""

from functools import lru_cache

import cv2
import numpy as np
import torch

PEAK = 255.0
KERNELS = (15, 11, 9, 7, 5)


def heatmap_size(input_size):
    """Return height and width of the heatmaps of a crop of that height and width."""
    height, width = input_size
    return height // 4, width // 4


def heatmap_targets(keypoints, visible, input_size, kernels=KERNELS):
    """Return target heatmaps, one set per kernel (released RSN, JointsDataset.generate_heatmap): a Gaussian of that
    kernel size around the keypoint's cell, with OpenCV's default sigma and mirrored border, scaled to a peak of 255.

    keypoints: (K, 2) or (N, K, 2) tensor or array, x and y in the crop's pixels
    visible: (K,) or (N, K); keypoints with 0 and those outside the crop get an empty heatmap
    input_size: height and width of the crop
    -> (len(kernels), K, H / 4, W / 4) or (N, len(kernels), K, H / 4, W / 4), float32, on the keypoints' device
    """
    keypoints = torch.as_tensor(keypoints)
    visible = torch.as_tensor(visible, device=keypoints.device)
    height, width = heatmap_size(input_size)
    x, y = (keypoints / 4).floor().long().unbind(-1)
    inside = (visible > 0) & (x >= 0) & (x < width) & (y >= 0) & (y < height)
    x, y, peaks = x.clamp(0, width - 1), y.clamp(0, height - 1), PEAK * inside
    # a blurred point is a product of two blurred lines
    rows, columns = (_profiles(tuple(kernels), length, keypoints.device) for length in (height, width))
    rows, columns = rows[:, y] * peaks[..., None], columns[:, x]  # (kernels, ..., K, h) and w
    return (rows[..., :, None] * columns[..., None, :]).movedim(0, -4)


@lru_cache
def _profiles(kernels, length, device):
    """Return (len(kernels), length, length): row c is a one at c, blurred, with a peak of 1."""
    lines = [cv2.sepFilter2D(np.eye(length), -1, cv2.getGaussianKernel(k, 0), np.ones(1)) for k in kernels]
    return torch.from_numpy(np.stack([line / line.max(axis=1, keepdims=True) for line in lines])).float().to(device)


def inside_crop(keypoints, visible, input_size):
    """Return `visible` with 0 where a keypoint lies outside the crop (released RSN, JointsDataset.__getitem__)."""
    height, width = input_size
    x, y = keypoints[..., 0], keypoints[..., 1]
    return visible * ((x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1))
