"""Crops to heatmaps, a picture and boxes to poses."""

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from pathlib import Path

import numpy as np
import torch
from torch.nn.functional import interpolate
from tqdm.auto import tqdm

from rsnlib.apps.pictures import Detections, check_boxes, find_people, read_picture
from rsnlib.data.geometry import crop_matrix, evaluation_region
from rsnlib.data.images import normalise, read_image, warp
from rsnlib.data.readers import PERSON
from rsnlib.data.skeletons import SKELETONS, from_description
from rsnlib.device import default_device, keep_memory
from rsnlib.errors import UserError
from rsnlib.fast.folded import fuse
from rsnlib.inference.decode import decode_heatmaps, mirror_heatmaps
from rsnlib.models.attention import PRM

BATCH = 32
WAYS = tuple(product((False, True), ("quarter", "dark")))  # flip test and decoding, the plainest first


@dataclass(frozen=True)
class Poses:
    """P people: keypoints (P, K, 2) in picture pixels and their scores (P, K), boxes (P, 4) and their scores (P,), and
    the score (P,) of each person: the box's times the mean of the keypoints'."""

    keypoints: np.ndarray
    scores: np.ndarray
    boxes: np.ndarray
    box_scores: np.ndarray
    score: np.ndarray


@torch.no_grad()
def predict_heatmaps(model, crops, mirrored=None):
    """Heatmaps (N, K, h, w) float32 of RGB uint8 crops (N, H, W, 3), on the model's device and in its precision.

    mirrored: Skeleton.mirrored to average with the heatmaps of the mirrored crops (flip test), None not to
    """
    return _heatmaps_by_flip_test(model, crops, mirrored)[mirrored is not None]


def _heatmaps_by_flip_test(model, crops, mirrored):
    """`predict_heatmaps` without and, unless `mirrored` is None, with the flip test, from one pass: {flip_test: (N, K,
    h, w)}."""
    like = next(model.parameters())
    images = normalise(torch.as_tensor(crops).to(like.device)).to(like.dtype, memory_format=torch.channels_last)
    if mirrored is None:
        return {False: model(images).float()}
    heatmaps, flipped = model(torch.cat([images, images.flip(3)])).float().chunk(2)
    return {False: heatmaps, True: (heatmaps + mirror_heatmaps(flipped, mirrored)) / 2}


def predict_store(model, store, flip_test=True, blur=5, decoding="quarter"):
    """Keypoints (P, K, 2) in picture pixels and scores (P, K) of everyone in an evaluation crop store."""
    keypoints, scores = predict_store_in_ways(model, store, [(flip_test, decoding)], blur)
    return keypoints[0], scores[0]


@torch.no_grad()
def predict_store_in_ways(model, store, ways, blur=5):
    """`predict_store` in each of W ways, (flip_test, decoding), from one pass of the crops and, where a way asks for
    them, the mirrored crops: keypoints (W, P, K, 2) and scores (W, P, K)."""
    keep_memory()
    model, mirrored = fuse(model), _mirrored(store.people, ways)
    keypoints, scores = _places(store.people, ways)
    for first in range(0, len(store), BATCH):
        rows = range(first, min(first + BATCH, len(store)))
        heatmaps = _heatmaps_by_flip_test(model, np.stack([store.window(row) for row in rows]), mirrored)
        region = store.center[rows], store.scale[rows]
        for way, (flip_test, decoding) in enumerate(ways):
            decoded = decode_heatmaps(heatmaps[flip_test], *region, store.input_size, blur, decoding)
            keypoints[way, rows], scores[way, rows] = decoded
    return keypoints, scores


def predict_people(models, people, enlarge, flip_test=True, blur=5, decoding="quarter"):
    """Keypoints (P, K, 2) in picture pixels and scores (P, K) of people in their boxes, cut from the pictures as
    `predict_store`'s crops are, a batch at a time.

    models: one network or, as an ensemble, several; their heatmaps are averaged before decoding. Input sizes may differ
        but for their aspect: the heatmaps are resized, bilinearly, to the largest
    enlarge: fractions of width and height by which the boxes grow
    """
    keypoints, scores = predict_people_in_ways(models, people, enlarge, [(flip_test, decoding)], blur)
    return keypoints[0], scores[0]


@torch.no_grad()
def predict_people_in_ways(models, people, enlarge, ways, blur=5):
    """`predict_people` in several ways from one pass, as `predict_store_in_ways` has them."""
    sizes = [tuple(model.input_size) for model in models]
    largest = max(sizes)
    if any(height * largest[1] != width * largest[0] for height, width in sizes):
        shown = ", ".join(f"{height}x{width}" for height, width in sizes)
        raise UserError(f"an ensemble's networks must see crops of one aspect, height to width, not {shown}")
    keep_memory()
    models, mirrored = [fuse(model) for model in models], _mirrored(people, ways)
    center, scale = evaluation_region(people.boxes, largest, enlarge)
    matrices = {size: crop_matrix(center, scale, 0, size) for size in sizes}
    keypoints, scores = _places(people, ways)
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
                _heatmaps_by_flip_test(model, torch.stack([crop[size] for crop in crops]), mirrored)
                for model, size in zip(models, sizes)
            ]
            heatmaps = {flip_test: average_heatmaps([one[flip_test] for one in each]) for flip_test in each[0]}
            for way, (flip_test, decoding) in enumerate(ways):
                decoded = decode_heatmaps(heatmaps[flip_test], center[rows], scale[rows], largest, blur, decoding)
                keypoints[way, rows], scores[way, rows] = decoded
            bar.update(len(rows))
    return keypoints, scores


def _mirrored(people, ways):
    """What `predict_heatmaps` needs for the flip test, None where no way asks for one."""
    return people.skeleton.mirrored if any(flip_test for flip_test, _ in ways) else None


def _places(people, ways):
    """Room for the keypoints (W, P, K, 2) and scores (W, P, K) of people."""
    shape = len(ways), len(people), len(people.skeleton)
    return np.zeros((*shape, 2)), np.zeros(shape)


def average_heatmaps(heatmaps):
    """The mean (N, K, h, w) of several networks' heatmaps of the same crops, at the size of the largest."""
    largest = max(heatmaps, key=lambda each: each.shape[2]).shape[2:]
    return torch.stack([interpolate(each, size=largest, mode="bilinear") for each in heatmaps]).mean(dim=0)


def predict(model, image, boxes=None, flip_test=True):
    """The poses of people in a picture, best with boxes around them.

    model: as load_model gives it
    image: a path, a PIL image or an array, as `rsnlib.apps.pictures.read_picture` takes it
    boxes: (P, 4) x, y, width, height in pixels, or (P, 5) with a score; or the path of a detector's results, as
        `rsnlib.apps.pictures.Detections` reads them; None: OpenCV's people detector, `rsnlib.apps.pictures.find_people`
    """
    picture = read_picture(image)
    if isinstance(boxes, (str, Path)):
        name = image if isinstance(image, (str, Path)) else getattr(image, "filename", None)
        if not name:
            raise UserError(f"{boxes}: tells pictures by their file names, and this one has none; give its path")
        boxes = Detections(boxes, categories_of(model)).of(name, picture)
    boxes = check_boxes(find_people(picture) if boxes is None else boxes, picture)
    boxes, box_scores = boxes[:, :4], boxes[:, 4]
    crops, center, scale = cut_boxes(model, picture, boxes)
    mirrored = skeleton_of(model).mirrored if flip_test else None
    blur = getattr(model, "about", {}).get("blur", 5)
    keypoints = np.zeros((len(boxes), model.keypoints, 2))
    scores = np.zeros((len(boxes), model.keypoints))
    model = fuse(model).to(default_device()).eval()
    for first in range(0, len(boxes), BATCH):
        rows = slice(first, first + BATCH)
        heatmaps = predict_heatmaps(model, crops[rows], mirrored)
        keypoints[rows], scores[rows] = decode_heatmaps(heatmaps, center[rows], scale[rows], model.input_size, blur)
    return Poses(keypoints, scores, boxes, box_scores, box_scores * scores.mean(axis=1))


@dataclass(frozen=True)
class Insight:
    """What a network makes of one person.

    crop: (H, W, 3) uint8; matrix: (2, 3), picture pixels to crop pixels
    heads: (stages, 4, K, h, w), coarse to fine
    keypoints: (stages, 4, K, 2), read from each head, in crop pixels; scores: (stages, 4, K)
    attention: what Pose Refine Machines weigh, {(stage, head): (channel (K,), position (K, h, w))}
    """

    crop: np.ndarray
    matrix: np.ndarray
    heads: np.ndarray
    keypoints: np.ndarray
    scores: np.ndarray
    attention: dict


@torch.no_grad()
def look_inside(model, picture, box):
    """The `Insight` of a network, on the CPU, into the person in a box (4,) of an RGB picture; without flip test."""
    crops, center, scale = cut_boxes(model, picture, box[None])
    inputs = {}
    watched = [
        head.attention.register_forward_hook(lambda _, given, __, place=(i, j): inputs.update({place: given[0]}))
        for i, stage in enumerate(model.stages)
        for j, head in enumerate(stage.heads)
        if isinstance(head.attention, PRM)
    ]
    heads = model.heads(normalise(crops))[0]
    for hook in watched:
        hook.remove()
    attention = {}
    for (stage, head), given in inputs.items():
        _, channel, position = model.stages[stage].heads[head].attention.weights(given)
        attention[stage, head] = channel[0, :, 0, 0].numpy(), position[0].numpy()
    size, (stages, levels, count) = np.array(model.input_size[::-1]), heads.shape[:3]
    whole_crop = np.full((stages * levels, 2), size / 2), np.full((stages * levels, 2), size)
    blur = getattr(model, "about", {}).get("blur", 5)
    keypoints, scores = decode_heatmaps(heads.flatten(0, 1), *whole_crop, model.input_size, blur)
    keypoints, scores = keypoints.reshape(stages, levels, count, 2), scores.reshape(stages, levels, count)
    matrix = crop_matrix(center, scale, 0, model.input_size)[0]
    return Insight(crops[0], matrix, heads.numpy(), keypoints, scores, attention)


def cut_boxes(model, picture, boxes):
    """What a network sees of each box (P, 4) of an RGB picture: crops (P, H, W, 3) uint8, their center and scale."""
    about = getattr(model, "about", {})
    center, scale = evaluation_region(boxes, model.input_size, about.get("enlarge", (0.09, 0.135)))
    matrices = crop_matrix(center, scale, 0, model.input_size)
    crops = np.zeros((len(boxes), *model.input_size, 3), np.uint8)
    for row in range(len(boxes)):  # one at a time: `warp` copies the picture for each
        crops[row] = warp([picture], matrices[row : row + 1], model.input_size)[0].numpy()
    return crops, center, scale


def skeleton_of(model):
    """The skeleton that a network was trained on or, where it does not say, the one with its number of keypoints."""
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
    """The category_ids whose boxes are for a network: those it was trained on or, where it does not say, a person's."""
    return getattr(model, "about", {}).get("categories", [PERSON])
