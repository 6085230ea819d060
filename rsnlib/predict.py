"""Crops to heatmaps, a picture and boxes to poses."""

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch.nn.functional import interpolate
from tqdm.auto import tqdm

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


def predict_store(model, store, flip_test=True, blur=5, decoding="quarter"):
    """Keypoints (P, K, 2) in picture pixels and scores (P, K) of everyone in an evaluation crop store."""
    mirrored = store.people.skeleton.mirrored if flip_test else None
    keypoints, scores = [], []
    for first in range(0, len(store), BATCH):
        rows = range(first, min(first + BATCH, len(store)))
        heatmaps = predict_heatmaps(model, np.stack([store.window(row) for row in rows]), mirrored)
        region = store.center[rows], store.scale[rows]
        positions, values = decode_heatmaps(heatmaps, *region, store.input_size, blur, decoding)
        keypoints.append(positions)
        scores.append(values)
    return np.concatenate(keypoints), np.concatenate(scores)


@torch.no_grad()
def predict_people(models, people, enlarge, flip_test=True, blur=5, decoding="quarter"):
    """Keypoints (P, K, 2) in picture pixels and scores (P, K) of people in their boxes, cut from the pictures as
    `predict_store`'s crops are, a batch at a time.

    models: one network or, as an ensemble, several; their heatmaps are averaged before decoding. Input sizes may differ
        but for their aspect: the heatmaps are resized, bilinearly, to the largest
    enlarge: fractions of width and height by which the boxes grow
    """
    sizes = [tuple(model.input_size) for model in models]
    largest = max(sizes)
    if any(height * largest[1] != width * largest[0] for height, width in sizes):
        shown = ", ".join(f"{height}x{width}" for height, width in sizes)
        raise UserError(f"an ensemble's networks must see crops of one aspect, height to width, not {shown}")
    mirrored = people.skeleton.mirrored if flip_test else None
    center, scale = evaluation_region(people.boxes, largest, enlarge)
    matrices = {size: crop_matrix(center, scale, 0, size) for size in sizes}
    keypoints = np.zeros((len(people), len(people.skeleton), 2))
    scores = np.zeros(keypoints.shape[:2])
    order = np.argsort(people.images, kind="stable")  # a picture's people follow one another
    picture = lru_cache(maxsize=os.cpu_count())(read_image)

    def cut(row):
        image = picture(people.images[row])
        return {size: warp([image], matrix[row : row + 1], size)[0] for size, matrix in matrices.items()}

    with ThreadPoolExecutor() as pool, tqdm(total=len(people), unit="person", desc="poses") as bar:
        for first in range(0, len(people), BATCH):
            rows = order[first : first + BATCH]
            crops = list(pool.map(cut, rows))
            each = [
                predict_heatmaps(model, torch.stack([crop[size] for crop in crops]), mirrored)
                for model, size in zip(models, sizes)
            ]
            heatmaps = average_heatmaps(each)
            decoded = decode_heatmaps(heatmaps, center[rows], scale[rows], largest, blur, decoding)
            keypoints[rows], scores[rows] = decoded
            bar.update(len(rows))
    return keypoints, scores


def average_heatmaps(heatmaps):
    """The mean (N, K, h, w) of several networks' heatmaps of the same crops, at the size of the largest."""
    largest = max(heatmaps, key=lambda each: each.shape[2]).shape[2:]
    return torch.stack([interpolate(each, size=largest, mode="bilinear") for each in heatmaps]).mean(dim=0)


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
