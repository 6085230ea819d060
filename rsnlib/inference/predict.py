"""Crops to heatmaps, a picture and boxes to poses."""

import copy
import sys
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import islice, product
from pathlib import Path

import numpy as np
import torch
from torch.nn.functional import interpolate
from tqdm.auto import tqdm

from rsnlib.data.batches import ahead
from rsnlib.data.geometry import crop_matrix, evaluation_region
from rsnlib.data.images import LARGEST_PICTURE, normalise, read_image, read_picture, warp
from rsnlib.data.people import PERSON
from rsnlib.data.readers.detections import Detections
from rsnlib.data.skeletons import COCO, MPII, SKELETONS, from_description
from rsnlib.device import cores, default_device, keep_memory
from rsnlib.errors import UserError
from rsnlib.fast.folded import fuse
from rsnlib.inference.boxes import check_boxes, find_people
from rsnlib.inference.decode import decode_heatmaps, mirror_heatmaps
from rsnlib.models.attention import PRM

BATCH = 32  # people
GPU_BATCH = 256
CPU_BATCH = 8  # people of several pictures; a CPU is as fast with a quarter of the memory
PARTS = ("crops", "center", "scale")  # of Seen, which a network needs
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


def pose_reader(models, input_size, mirrored, ways=USUAL, blur=5, device=None):
    """Return a function that reads people's poses, in ways of (flip_test, decoding) from one pass of the networks: it
    takes, per network, crops (N, H, W, 3) uint8, and their center and scale (N, 2), and returns keypoints (W, N, K, 2)
    in picture pixels and scores (W, N, K).

    models: one network or, as an ensemble, several; the callers' own stay as and where they are
    input_size: of the largest crops; mirrored: Skeleton.mirrored, None without a flip test
    device: None for the networks' own
    """
    networks = []
    for model in models:
        home = next(model.parameters()).device
        to = torch.device(device or home)
        network = fuse(model, to)
        elsewhere = network is model and home.type != to.type
        networks.append((copy.deepcopy(model) if elsewhere else network).to(to))
    mirrored = mirrored if any(flip_test for flip_test, _ in ways) else None

    def read(crops, center, scale):
        each = [predict_heatmaps(network, seen, mirrored) for network, seen in zip(networks, crops, strict=True)]
        heatmaps = [average_heatmaps(same) for same in zip(*each, strict=True)]
        where = center, scale, input_size, blur
        found = [decode_heatmaps(heatmaps[flip_test], *where, decoding) for flip_test, decoding in ways]
        return [np.stack(part) for part in zip(*found)]

    return read


def predict_store(model, store, ways=USUAL, blur=5):
    """Return keypoints (W, P, K, 2) in picture pixels and scores (W, P, K) of everyone in an evaluation crop store, in
    ways of (flip_test, decoding)."""
    keep_memory()
    read = pose_reader([model], store.input_size, store.people.skeleton.mirrored, ways, blur)
    batches = _batches(len(store), next(model.parameters()).device)
    crops, found = ahead(range(len(store)), store.window, 2 * len(batches[0]), cores()), []
    for rows in batches:
        seen = np.stack(list(islice(crops, len(rows))))
        found.append(read([seen], store.center[rows], store.scale[rows]))
    return [np.concatenate(part, axis=1) for part in zip(*found)]


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
    order = np.argsort(people.images, kind="stable")  # a picture's people follow one another
    center, scale = evaluation_region(people.boxes[order], largest, margin)
    matrices = {size: crop_matrix(center, scale, 0, size) for size in sizes}
    picture = lru_cache(maxsize=cores())(read_image)

    def cut(place):
        row = order[place]
        image = picture(people.images[row], people.upright[row])
        return [warp(image, matrices[size][place], size) for size in sizes]

    read = pose_reader(models, largest, people.skeleton.mirrored, ways, blur)
    batches = _batches(len(people), next(models[0].parameters()).device)
    crops, found = ahead(range(len(people)), cut, 2 * len(batches[0]), cores()), []
    with tqdm(total=len(people), unit="person", desc="poses") as bar:
        for places in batches:
            seen = [np.stack(same) for same in zip(*islice(crops, len(places)))]
            found.append(read(seen, center[places], scale[places]))
            bar.update(len(places))
    in_order = np.argsort(order)
    return [np.concatenate(part, axis=1)[:, in_order] for part in zip(*found)]


def _batches(count, device):
    """Return the places 0 to `count` in batches as large as a device takes."""
    size = GPU_BATCH if device.type == "cuda" else BATCH
    return [np.arange(first, min(count, first + size)) for first in range(0, count, size)]


@dataclass(frozen=True)
class Poses:
    """Keypoints of P people in a picture."""

    keypoints: np.ndarray  # (P, K, 2), in picture pixels
    scores: np.ndarray  # (P, K), of the keypoints
    boxes: np.ndarray  # (P, 4)
    box_scores: np.ndarray  # (P,)
    score: np.ndarray  # (P,), of the person: the box's times the mean of the keypoints'


def predict(model, image, boxes=None, flip_test=True, decoding=None):
    """Return the `Poses` of people in a picture, best with boxes around them. Computed on a GPU where there is one.

    model: as load_model returns it, or fused; it stays as and where it is
    image: a path, a PIL image or an array, as `data.images.read_picture` takes it
    boxes: (P, 4) x, y, width, height in pixels, or (P, 5) with a score; or the path of a detector's results, as
        `data.readers.detections.Detections` reads them, whose unusable boxes are left out with a warning; None: those
        that `inference.boxes.find_people` finds
    decoding: "quarter" or "dark", as for `decode_heatmaps`; None: the network's own
    """
    picture = read_picture(image)
    if isinstance(boxes, (str, Path)):
        name = image if isinstance(image, (str, Path)) else getattr(image, "filename", None)
        if not name:
            raise UserError(f"{boxes}: tells pictures by their file names, and this one has none; give its path")
        detections = Detections(boxes, categories_of(model))
        detections.check({name: picture.shape[:2]})
        boxes, faults = detections.find(name, picture.shape[:2])
        for fault in faults:
            print(f"warning: {fault}", file=sys.stderr)
    seen = see(model, picture, check_boxes(find_people(picture) if boxes is None else boxes, picture))
    (((_, poses),),) = predict_batches(model, [seen], flip_test, decoding)
    return poses


@dataclass(frozen=True)
class Seen:
    """Everything a network sees of the people in a picture."""

    picture: np.ndarray  # (H, W, 3) uint8
    boxes: np.ndarray  # (P, 5), with scores
    crops: np.ndarray  # (P, h, w, 3) uint8
    center: np.ndarray  # (P, 2), of the crops, in picture pixels
    scale: np.ndarray  # (P, 2), width and height of the crops, in picture pixels
    about: object = None  # whatever the caller knows of the picture


def see(model, picture, boxes, about=None):
    """Return what a network sees, `Seen`, of the people in boxes (P, 5) of an RGB picture."""
    return Seen(picture, boxes, *cut_boxes(model, picture, boxes[:, :4]), about)


def predict_batches(model, pictures, flip_test=True, decoding=None):
    """Yield [(Seen, Poses), ...] of some pictures at a time, in the order of `pictures`, an iterator of `Seen`: the
    people of several pictures share a pass of the network. Computed on a GPU where there is one; arguments as for
    `predict`."""
    way = flip_test, decoding or decoding_of(model)
    mirrored = mirrored_keypoints(model) if flip_test else None
    device = default_device()
    read = pose_reader([model], model.input_size, mirrored, [way], crop_settings(model)[1], device)
    size = GPU_BATCH if device.type == "cuda" else CPU_BATCH
    waiting, people, pixels = [], 0, 0
    for seen in pictures:
        waiting.append(seen)
        people, pixels = people + len(seen.boxes), pixels + seen.picture.size // 3
        if people >= size or len(waiting) >= BATCH or pixels >= LARGEST_PICTURE:
            yield _poses(model, waiting, read, size)
            waiting, people, pixels = [], 0, 0
    if waiting:
        yield _poses(model, waiting, read, size)


def _poses(model, pictures, read, size):
    """Return [(Seen, Poses), ...] of pictures, read in passes of about `size` people by a `pose_reader`."""
    crops, center, scale = (np.concatenate([getattr(seen, part) for seen in pictures]) for part in PARTS)
    keypoints, scores = np.zeros((len(crops), model.keypoints, 2)), np.zeros((len(crops), model.keypoints))
    for rows in np.array_split(np.arange(len(crops)), max(1, round(len(crops) / size))):
        if len(rows):
            (keypoints[rows],), (scores[rows],) = read([crops[rows]], center[rows], scale[rows])
    found, ends = [], np.cumsum([len(seen.boxes) for seen in pictures])
    for seen, end in zip(pictures, ends):
        rows, box_scores = slice(end - len(seen.boxes), end), seen.boxes[:, 4]
        score = box_scores * scores[rows].mean(axis=1)
        found.append((seen, Poses(keypoints[rows], scores[rows], seen.boxes[:, :4], box_scores, score)))
    return found


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
    how = crop_settings(model)[1], decoding_of(model)
    keypoints, scores = decode_heatmaps(heads.flatten(0, 1), *whole_crop, model.input_size, *how)
    keypoints, scores = keypoints.reshape(*shape, 2), scores.reshape(shape)
    matrix = crop_matrix(center, scale, 0, model.input_size)[0]
    return Insight(crops[0], matrix, heads.numpy(), keypoints, scores, attention)


def skeleton_of(model):
    """Return the skeleton that a network was trained on, `about["skeleton"]`, or, where its file does not say, the
    first of SKELETONS with its number of keypoints. Raises UserError where there is none."""
    about = getattr(model, "about", {})
    if "skeleton" not in about:
        return SKELETONS[_fitting(model)[0]]
    try:
        skeleton = from_description(about["skeleton"])
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"the weights' skeleton is not readable ({type(error).__name__}: {error})") from None
    if len(skeleton) != model.keypoints:
        raise UserError(f"the skeleton {skeleton.name} has {len(skeleton)} keypoints, the network {model.keypoints}")
    return skeleton


def assumption(model):
    """Return what is assumed of a network whose file does not say its skeleton, a sentence; None where it says."""
    if "skeleton" in getattr(model, "about", {}):
        return None
    name, *others = _fitting(model)
    as_many = f" (others of as many: {', '.join(others)})" if others else ""
    return f"the weights do not say whose {model.keypoints} keypoints they find: taken for those of {name}{as_many}"


def mirrored_keypoints(model):
    """Return `Skeleton.mirrored` of a network, for the flip test. Raises UserError where its file does not say its
    skeleton and several are known with its number of keypoints, unless COCO's is one of them: the networks that people
    publish without a word are COCO's."""
    if assumption(model) and len(fitting := _fitting(model)) > 1 and COCO.name not in fitting:
        raise UserError(
            f"the flip test takes a skeleton, and the weights do not say theirs: {', '.join(fitting)} have "
            f'{model.keypoints} keypoints; say which (--skeleton, model.about["skeleton"] = "{fitting[0]}") or '
            "do without the flip test (--no-flip; flip_test=False)"
        )
    return skeleton_of(model).mirrored


def _fitting(model):
    """Return the names of the known skeletons with a network's number of keypoints, one at least."""
    fitting = [name for name, skeleton in SKELETONS.items() if len(skeleton) == model.keypoints]
    if not fitting:
        raise UserError(f"no skeleton is known for {model.keypoints} keypoints; use flip_test=False")
    return fitting


def categories_of(model):
    """Return the category_ids whose boxes are for a network: those of its training, else a person's."""
    return getattr(model, "about", {}).get("categories", [PERSON])


def crop_settings(model):
    """Return the margin of a network's crops, fractions of width and height by which boxes grow, and the blur of its
    heatmaps: those of its training, else the released code's for MPII or COCO."""
    about = getattr(model, "about", {})
    skeleton = about.get("skeleton", MPII.name if model.keypoints == len(MPII) else None)
    name = skeleton.get("name") if isinstance(skeleton, dict) else skeleton
    margin, blur = ((0.25, 0.25), 9) if name == MPII.name else ((0.09, 0.135), 5)
    return about.get("margin", about.get("enlarge", margin)), about.get("blur", blur)


def decoding_of(model):
    """Return the decoding of a network's heatmaps: of what its published figures were made with, else the paper's."""
    return getattr(model, "about", {}).get("decoding", "quarter")
