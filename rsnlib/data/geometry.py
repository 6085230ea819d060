"""Boxes to crops: the region around a box and the matrices between picture and crop."""

import numpy as np


def fit_aspect(scale, input_size):
    """Enlarge `scale` (..., 2), width and height, to the aspect of the crop."""
    height, width = input_size
    scale = np.asarray(scale, np.float64)
    fitted_width = np.maximum(scale[..., 0], scale[..., 1] * width / height)
    return np.stack([fitted_width, fitted_width * height / width], axis=-1)


def evaluation_region(boxes, input_size, margin):
    """Return center and scale of the crop in which a box is evaluated (released RSN, JointsDataset.__getitem__).

    boxes: (N, 4) x, y, width, height -> center (N, 2), scale (N, 2), pixels
    margin: fractions by which width and height grow
    """
    boxes = np.asarray(boxes, np.float64).reshape(-1, 4)
    return boxes[:, :2] + boxes[:, 2:] / 2, fit_aspect(boxes[:, 2:] * (1 + np.asarray(margin)), input_size)


def crop_matrix(center, scale, rotation, input_size):
    """Return the matrices (N, 2, 3) that take picture pixels to crop pixels (released RSN, get_affine_transform).

    center: (N, 2), scale: (N, 2) width and height, pixels; rotation: (N,) or a number, degrees
    """
    height, width = input_size
    center, scale = np.asarray(center, np.float64), np.asarray(scale, np.float64)
    angle = np.deg2rad(np.broadcast_to(np.asarray(rotation, np.float64), len(center)))
    zoom = width / scale[:, 0]
    cos, sin = zoom * np.cos(angle), zoom * np.sin(angle)
    linear = np.stack([np.stack([cos, sin], -1), np.stack([-sin, cos], -1)], axis=1)
    offset = np.array([width / 2, height / 2]) - np.einsum("nij,nj->ni", linear, center)
    return np.concatenate([linear, offset[:, :, None]], axis=2)


def compose(outer, inner):
    """Return the matrix that applies `inner`, then `outer`; both (..., 2, 3)."""
    linear = outer[..., :2] @ inner[..., :2]
    return np.concatenate([linear, outer[..., :2] @ inner[..., 2:] + outer[..., 2:]], axis=-1)


def invert(matrix):
    """Return the inverse of matrices (..., 2, 3)."""
    linear = np.linalg.inv(matrix[..., :2])
    return np.concatenate([linear, -linear @ matrix[..., 2:]], axis=-1)


def transform(matrix, points):
    """Apply matrices (..., 2, 3) to points (..., K, 2)."""
    return points @ np.swapaxes(matrix[..., :2], -1, -2) + matrix[..., None, :, 2]
