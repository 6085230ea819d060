"""Crops to heatmaps, a picture and boxes to poses."""

import copy
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import product
from pathlib import Path

import numpy as np
import torch
from torch.nn.functional import interpolate
from tqdm.auto import tqdm

from rsnlib.data.geometry import crop_matrix, evaluation_region
from rsnlib.data.images import normalise, read_image, read_picture, warp
from rsnlib.data.people import PERSON
from rsnlib.data.readers.detections import Detections
from rsnlib.data.skeletons import MPII, SKELETONS, from_description
from rsnlib.device import default_device, keep_memory
from rsnlib.errors import UserError
from rsnlib.fast.folded import fuse
from rsnlib.inference.boxes import check_boxes, find_people
from rsnlib.inference.decode import decode_heatmaps, mirror_heatmaps
from rsnlib.models.attention import PRM

BATCH = 32
WAYS = tuple(product((False, True), ("quarter", "dark")))  # flip test and decoding, the plainest first
USUAL = ((True, "quarter"),)


@torch.no_grad()
def predict_heatmaps(model, crops, mirrored=None):
    """Return heatmaps (N, K, h, w) float32 of RGB uint8 crops (N, H, W, 3), computed on the model's device and in its
    precision: a list of the plain ones and, unless `mirrored` is None, of their mean with those of the mirrored crops
    (flip test), from one pass.

    mirrored: Skeleton.mirrored
    """
    like = next(model.parameters())
    images = normalise(torch.as_tensor(crops).to(like.device)).to(like.dtype, memory_format=torch.channels_last)
    if mirrored is None:
        return [model(images).float()]
    heatmaps, flipped = model(torch.cat([images, images.flip(3)])).float().chunk(2)
    return [heatmaps, (heatmaps + mirror_heatmaps(flipped, mirrored)) / 2]


def average_heatmaps(heatmaps):
    """Return the mean (N, K, h, w) of several networks' heatmaps of the same crops, at the size of the largest."""
    largest = max(heatmaps, key=lambda each: each.shape[2]).shape[2:]
    return torch.stack([interpolate(each, size=largest, mode="bilinear") for each in heatmaps]).mean(dim=0)


@torch.no_grad()
def _predict_in_ways(models, batches, region, input_size, mirrored, ways, blur, device=None):
    """Return keypoints (W, P, K, 2) in picture pixels and scores (W, P, K), from one pass, in ways of (flip_test,
    decoding).

    models: one network or, as an ensemble, several; the callers' own stay as and where they are
    batches: yields rows and, per network, their crops (n, H, W, 3) uint8
    region: center and scale (P, 2) of the crops; input_size: of the largest crops
    mirrored: Skeleton.mirrored; device: None for the networks' own
    """
    networks = []
    for model in models:
        network, home = fuse(model), next(model.parameters()).device
        if network is model and device and home.type != device.type:
            network = copy.deepcopy(model)
        networks.append(network.to(device or home))
    center, scale = region
    shape = len(ways), len(center), models[0].keypoints
    keypoints, scores = np.zeros((*shape, 2)), np.zeros(shape)
    mirrored = mirrored if any(flip_test for flip_test, _ in ways) else None
    for rows, crops in batches:
        each = [predict_heatmaps(network, seen, mirrored) for network, seen in zip(networks, crops, strict=True)]
        heatmaps = [average_heatmaps(same) for same in zip(*each, strict=True)]
        for way, (flip_test, decoding) in enumerate(ways):
            where = center[rows], scale[rows], input_size
            keypoints[way, rows], scores[way, rows] = decode_heatmaps(heatmaps[flip_test], *where, blur, decoding)
    return keypoints, scores


def predict_store(model, store, ways=USUAL, blur=5):
    """Return keypoints (W, P, K, 2) in picture pixels and scores (W, P, K) of everyone in an evaluation crop store, in
    ways of (flip_test, decoding)."""
    keep_memory()
    batches = ((rows, [np.stack([store.window(row) for row in rows])]) for rows in _batches(np.arange(len(store))))
    how = store.people.skeleton.mirrored, ways, blur
    return _predict_in_ways([model], batches, (store.center, store.scale), store.input_size, *how)


def predict_people(models, people, margin, ways=USUAL, blur=5):
    """Return keypoints (W, P, K, 2) in picture pixels and scores (W, P, K) of people in their boxes, cut from the
    pictures exactly as an evaluation crop store's crops are, in ways of (flip_test, decoding).

    models: one network or, as an ensemble, several; their heatmaps are averaged before decoding. Input sizes may differ
        but for their aspect: the heatmaps are resized, bilinearly, to the largest
    margin: fractions of width and height by which the boxes grow
    """
    sizes = [tuple(model.input_size) for model in models]
    largest = max(sizes)
    if any(height * largest[1] != width * largest[0] for height, width in sizes):
        shown = ", ".join(f"{height}x{width}" for height, width in sizes)
        raise UserError(f"an ensemble's networks must see crops of one aspect, height to width, not {shown}")
    keep_memory()
    region = evaluation_region(people.boxes, largest, margin)
    matrices = {size: crop_matrix(*region, 0, size) for size in sizes}
    picture = lru_cache(maxsize=os.cpu_count())(read_image)

    def cut(row):
        image = picture(people.images[row])
        return {size: warp(image, matrix[row], size) for size, matrix in matrices.items()}

    def batches():
        order = np.argsort(people.images, kind="stable")  # a picture's people follow one another
        with ThreadPoolExecutor() as pool, tqdm(total=len(people), unit="person", desc="poses") as bar:
            for rows in _batches(order):
                crops = list(pool.map(cut, rows))
                yield rows, [np.stack([crop[size] for crop in crops]) for size in sizes]
                bar.update(len(rows))

    return _predict_in_ways(models, batches(), region, largest, people.skeleton.mirrored, ways, blur)


def _batches(rows):
    return [rows[first : first + BATCH] for first in range(0, len(rows), BATCH)]


@dataclass(frozen=True)
class Poses:
    """Keypoints of P people in a picture."""

    keypoints: np.ndarray  # (P, K, 2), in picture pixels
    scores: np.ndarray  # (P, K), of the keypoints
    boxes: np.ndarray  # (P, 4)
    box_scores: np.ndarray  # (P,)
    score: np.ndarray  # (P,), of the person: the box's times the mean of the keypoints'


def predict(model, image, boxes=None, flip_test=True):
    """Return the `Poses` of people in a picture, best with boxes around them. Computed on a GPU where there is one.

    model: as load_model returns it, or fused; it stays as and where it is
    image: a path, a PIL image or an array, as `data.images.read_picture` takes it
    boxes: (P, 4) x, y, width, height in pixels, or (P, 5) with a score; or the path of a detector's results, as
        `data.readers.detections.Detections` reads them; None: those that `inference.boxes.find_people` finds
    """
    picture = read_picture(image)
    if isinstance(boxes, (str, Path)):
        name = image if isinstance(image, (str, Path)) else getattr(image, "filename", None)
        if not name:
            raise UserError(f"{boxes}: tells pictures by their file names, and this one has none; give its path")
        boxes = Detections(boxes, categories_of(model)).find(name, picture)
    boxes = check_boxes(find_people(picture) if boxes is None else boxes, picture)
    boxes, box_scores = boxes[:, :4], boxes[:, 4]
    crops, *region = cut_boxes(model, picture, boxes)
    batches = ((rows, [crops[rows]]) for rows in _batches(np.arange(len(boxes))))
    mirrored = skeleton_of(model).mirrored if flip_test else None
    how = mirrored, [(flip_test, "quarter")], crop_settings(model)[1], default_device()
    (keypoints,), (scores,) = _predict_in_ways([model], batches, region, model.input_size, *how)
    return Poses(keypoints, scores, boxes, box_scores, box_scores * scores.mean(axis=1))


def cut_boxes(model, picture, boxes):
    """Return what a network sees of each box (P, 4) of an RGB picture: crops (P, H, W, 3) uint8, center and scale."""
    center, scale = evaluation_region(boxes, model.input_size, crop_settings(model)[0])
    crops = np.zeros((len(boxes), *model.input_size, 3), np.uint8)
    for row, matrix in enumerate(crop_matrix(center, scale, 0, model.input_size)):
        crops[row] = warp(picture, matrix, model.input_size)
    return crops, center, scale


@dataclass(frozen=True)
class Insight:
    """Everything one network computes for one person: heatmaps, keypoints, attention."""

    crop: np.ndarray  # (H, W, 3) uint8
    matrix: np.ndarray  # (2, 3), picture pixels to crop pixels
    heads: np.ndarray  # (stages, 4, K, h, w), coarse to fine
    keypoints: np.ndarray  # (stages, 4, K, 2), read from each head, in crop pixels
    scores: np.ndarray  # (stages, 4, K)
    attention: dict  # weights of the Pose Refine Machines, {(stage, head): (channel (K,), position (K, h, w))}


@torch.no_grad()
def look_inside(model, picture, box):
    """Return the `Insight` of a network, on the CPU, into the person in a box (4,) of an RGB picture; no flip test."""
    crops, center, scale = cut_boxes(model, picture, box[None])
    attention = {}

    def keep_weights(prm, given, _, place):
        _, channel, position = prm.weights(given[0])
        attention[place] = channel[0, :, 0, 0].numpy(), position[0].numpy()

    hooks = [
        head.attention.register_forward_hook(partial(keep_weights, place=(i, j)))
        for i, stage in enumerate(model.stages)
        for j, head in enumerate(stage.heads)
        if isinstance(head.attention, PRM)
    ]
    heads = model.heads(normalise(crops))[0]
    for hook in hooks:
        hook.remove()
    size, shape = np.array(model.input_size[::-1]), heads.shape[:3]
    whole_crop = (np.full((shape[0] * shape[1], 2), extent) for extent in (size / 2, size))
    keypoints, scores = decode_heatmaps(heads.flatten(0, 1), *whole_crop, model.input_size, crop_settings(model)[1])
    keypoints, scores = keypoints.reshape(*shape, 2), scores.reshape(shape)
    matrix = crop_matrix(center, scale, 0, model.input_size)[0]
    return Insight(crops[0], matrix, heads.numpy(), keypoints, scores, attention)


def skeleton_of(model):
    """Return the skeleton that a network was trained on or, where its file does not say, the one with its number of
    keypoints. Raises UserError where there is none."""
    about = getattr(model, "about", {})
    if "skeleton" in about:
        try:
            return from_description(about["skeleton"])
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"the weights' skeleton is not readable ({type(error).__name__}: {error})") from None
    fitting = [skeleton for skeleton in SKELETONS.values() if len(skeleton) == model.keypoints]
    if not fitting:
        raise UserError(f"no skeleton is known for {model.keypoints} keypoints; use flip_test=False")
    return fitting[0]


def categories_of(model):
    """Return the category_ids whose boxes are for a network: those of its training, else a person's."""
    return getattr(model, "about", {}).get("categories", [PERSON])


def crop_settings(model):
    """Return the margin of a network's crops, fractions of width and height by which boxes grow, and the blur of its
    heatmaps: those of its training, else the released code's for MPII or COCO."""
    about = getattr(model, "about", {})
    skeleton = about.get("skeleton", MPII.name if model.keypoints == len(MPII) else None)
    margin, blur = ((0.25, 0.25), 9) if skeleton == MPII.name else ((0.09, 0.135), 5)
    return about.get("margin", about.get("enlarge", margin)), about.get("blur", blur)
