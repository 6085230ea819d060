"""Crops to heatmaps, a picture and boxes to poses."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from rsnlib.crops import crop_matrix, evaluation_region, normalise, read_image, warp
from rsnlib.decode import decode_heatmaps, mirror_heatmaps
from rsnlib.runtime import UserError, default_device
from rsnlib.skeletons import SKELETONS

BATCH = 32


@dataclass(frozen=True)
class Poses:
    """P people: keypoints (P, K, 2) in picture pixels, their scores (P, K), boxes (P, 4), score (P,) of each person."""

    keypoints: np.ndarray
    scores: np.ndarray
    boxes: np.ndarray
    score: np.ndarray


@torch.no_grad()
def predict_heatmaps(model, crops, mirrored=None):
    """Heatmaps (N, K, h, w) float32 of RGB uint8 crops (N, H, W, 3), on the model's device.

    mirrored: Skeleton.mirrored to average with the heatmaps of the mirrored crops (flip test), None not to
    """
    device = next(model.parameters()).device
    images = normalise(torch.as_tensor(crops).to(device)).contiguous(memory_format=torch.channels_last)
    if mirrored is None:
        return model(images)
    heatmaps, flipped = model(torch.cat([images, images.flip(3)])).chunk(2)
    return (heatmaps + mirror_heatmaps(flipped, mirrored)) / 2


def predict_store(model, store, flip_test=True, blur=5):
    """Keypoints (P, K, 2) in picture pixels and scores (P, K) of everyone in an evaluation crop store."""
    mirrored = store.people.skeleton.mirrored if flip_test else None
    keypoints, scores = [], []
    for first in range(0, len(store), BATCH):
        rows = range(first, min(first + BATCH, len(store)))
        heatmaps = predict_heatmaps(model, np.stack([store.window(row) for row in rows]), mirrored)
        region = store.center[rows], store.scale[rows]
        positions, values = decode_heatmaps(heatmaps, *region, store.input_size, blur)
        keypoints.append(positions)
        scores.append(values)
    return np.concatenate(keypoints), np.concatenate(scores)


def predict(model, image, boxes=None, flip_test=True):
    """The poses of people in a picture, best with boxes around them.

    model: as load_model gives it
    image: a path, or RGB uint8 (H, W, 3)
    boxes: (P, 4) x, y, width, height in pixels; None: one box, the whole picture
    """
    if isinstance(image, (str, Path)):
        image = read_image(image)
    image = np.asarray(image)
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise UserError(f"image: must be RGB uint8 (H, W, 3), not {image.dtype} {image.shape}")
    boxes = _checked_boxes([[0, 0, image.shape[1], image.shape[0]]] if boxes is None else boxes)
    about = getattr(model, "about", {})
    mirrored = _skeleton(model, about).mirrored if flip_test else None
    center, scale = evaluation_region(boxes, model.input_size, about.get("enlarge", (0.09, 0.135)))
    matrices = crop_matrix(center, scale, 0, model.input_size)
    keypoints = np.zeros((len(boxes), model.keypoints, 2))
    scores = np.zeros((len(boxes), model.keypoints))
    model = model.to(default_device()).eval()
    for first in range(0, len(boxes), BATCH):
        rows = slice(first, first + BATCH)
        crops = warp([image] * len(boxes[rows]), matrices[rows], model.input_size)
        heatmaps = predict_heatmaps(model, crops, mirrored)
        decoded = decode_heatmaps(heatmaps, center[rows], scale[rows], model.input_size, about.get("blur", 5))
        keypoints[rows], scores[rows] = decoded
    return Poses(keypoints, scores, boxes, scores.mean(axis=1))


def _checked_boxes(boxes):
    """Boxes as (P, 4) float64."""
    try:
        boxes = np.asarray(boxes, np.float64).reshape(-1, 4)
    except (TypeError, ValueError):
        raise UserError("boxes: each must be four numbers: x, y, width, height") from None
    if not np.isfinite(boxes).all() or (boxes[:, 2:] <= 0).any():
        raise UserError("boxes: each must be four numbers: x, y, width, height, the last two above 0")
    return boxes


def _skeleton(model, about):
    """The skeleton that a network was trained on or, where it does not say, the one with its number of keypoints."""
    if "skeleton" in about:
        return SKELETONS[about["skeleton"]]
    fitting = [skeleton for skeleton in SKELETONS.values() if len(skeleton) == model.keypoints]
    if not fitting:
        raise UserError(f"no skeleton is known for {model.keypoints} keypoints; use flip_test=False")
    return fitting[0]
