"""Boxes to crops: the region around a box and the matrices between picture and crop."""

import numpy as np


def fit_aspect(scale, input_size):
    """`scale` (..., 2), width and height, enlarged to the aspect of the crop."""
    height, width = input_size
    scale = np.asarray(scale, np.float64)
    fitted_width = np.maximum(scale[..., 0], scale[..., 1] * width / height)
    return np.stack([fitted_width, fitted_width * height / width], axis=-1)


def evaluation_region(boxes, input_size, enlarge):
    """Center and scale of the crop in which a box is evaluated (released RSN, JointsDataset.__getitem__).

    boxes: (N, 4) x, y, width, height -> center (N, 2), scale (N, 2), pixels
    enlarge: fractions by which width and height grow
    """
    boxes = np.asarray(boxes, np.float64).reshape(-1, 4)
    return boxes[:, :2] + boxes[:, 2:] / 2, fit_aspect(boxes[:, 2:] * (1 + np.asarray(enlarge)), input_size)


def crop_matrix(center, scale, rotation, input_size):
    """The matrices (N, 2, 3) that take picture pixels to crop pixels (released RSN, get_affine_transform).

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
    """The matrix that applies `inner`, then `outer`; both (..., 2, 3)."""
    linear = outer[..., :2] @ inner[..., :2]
    return np.concatenate([linear, outer[..., :2] @ inner[..., 2:] + outer[..., 2:]], axis=-1)


def invert(matrix):
    """The inverse of (..., 2, 3) matrices."""
    linear = np.linalg.inv(matrix[..., :2])
    return np.concatenate([linear, -linear @ matrix[..., 2:]], axis=-1)


def transform(matrix, points):
    """Points (N, K, 2) through matrices (N, 2, 3)."""
    return points @ np.swapaxes(matrix[..., :2], -1, -2) + matrix[..., None, :, 2]


def _seen(back, input_size, pictures):
    """What crops may look at of pictures of height and width `pictures`, (2,) or (N, 2): a slice of rows and one of
    columns for each matrix of `back` (N, 2, 3), crop pixels to picture pixels. Coordinates in float32 are off by less
    than the margin.
    """
    height, width = input_size
    corners = transform(back, np.array([[0, 0], [width, 0], [0, height], [width, height]], np.float64))  # (N, 4, 2)
    limits = np.asarray(pictures)[..., ::-1]
    margin = 2 + 1e-6 * limits
    first = np.clip(np.floor(corners.min(axis=1) - margin), 0, limits).astype(int)
    last = np.clip(np.ceil(corners.max(axis=1) + margin), first, limits).astype(int)
    return [
        (slice(top, bottom), slice(left, right))
        for (left, top), (right, bottom) in zip(first.tolist(), last.tolist(), strict=True)
    ]


LONGEST_SIDE = 4096  # of a crop, pixels
