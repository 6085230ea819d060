"""Training augmentation: half body, scale, rotation and flip as one matrix per person."""

import numpy as np

from rsnlib.data.geometry import compose, crop_matrix, fit_aspect, transform
from rsnlib.data.targets import inside_crop

# The released code compares a normal, not a uniform, number with 0.5: the chance of a normal number below 0.5
UPPER_BODY_PROBABILITY = 0.6915
LEAST_HALF_BODY = 3  # keypoints


def augment(people, settings, input_size, random):
    """Draw one crop per person as the released code does (JointsDataset.__getitem__), all people at once.

    people: People; settings: config.Augmentation; input_size: height and width; random: numpy Generator
    -> matrices (P, 2, 3) from picture pixels to crop pixels, keypoints (P, K, 2) in the crop, visible (P, K) with 0 for
    keypoints outside it. Where a person is mirrored, left and right keypoints have changed places.
    """
    count = len(people)
    center = people.boxes[:, :2] + people.boxes[:, 2:] / 2
    scale = people.boxes[:, 2:] * (1 + np.array(settings.enlarge))
    scale = fit_aspect(scale * (1 + random.random((count, 2)) * settings.random_enlarge), input_size)
    center, scale = _half_body(people, center, scale, settings, input_size, random)
    scale = scale * random.uniform(*settings.scale, (count, 1))
    rotated = random.random(count) < settings.rotation_probability
    rotation = np.where(rotated, random.uniform(-settings.rotation, settings.rotation, count), 0)
    flipped = random.random(count) < settings.flip

    mirror = np.tile(np.eye(2, 3), (count, 1, 1))  # picture pixels to those of the mirrored picture
    width = people.image_sizes[:, 1]
    mirror[flipped, 0, 0] = -1
    mirror[flipped, 0, 2] = width[flipped] - 1
    center = np.where(flipped[:, None], np.stack([width - 1 - center[:, 0], center[:, 1]], 1), center)
    matrices = compose(crop_matrix(center, scale, rotation, input_size), mirror)

    keypoints, visible = transform(matrices, people.keypoints), people.visible.copy()
    swap = people.skeleton.mirrored
    keypoints[flipped] = keypoints[flipped][:, swap]
    visible[flipped] = visible[flipped][:, swap]
    return matrices, keypoints, inside_crop(keypoints, visible, input_size)


def reach(settings):
    """Return width and height of the largest crop that `augment` can take, over those of the box."""
    return (1 + np.array(settings.enlarge)) * (1 + np.array(settings.random_enlarge)) * max(settings.scale)


def _half_body(people, center, scale, settings, input_size, random):
    """Return center and scale, those of the upper or lower body for people drawn for it."""
    labelled = people.visible > 0
    upper = np.isin(np.arange(len(people.skeleton)), people.skeleton.upper_body)
    wanted = (labelled.sum(1) > settings.half_body_above) & (random.random(len(people)) < settings.half_body)
    prefers_upper = random.random(len(people)) < UPPER_BODY_PROBABILITY
    uppers, lowers = (labelled & upper).sum(1), (labelled & ~upper).sum(1)
    takes_upper = (prefers_upper & (uppers > LEAST_HALF_BODY)) | (lowers <= LEAST_HALF_BODY)
    selected = labelled & np.where(takes_upper[:, None], upper, ~upper)
    wanted &= selected.sum(1) >= LEAST_HALF_BODY

    low = np.where(selected[..., None], people.keypoints, np.inf).min(axis=1)
    high = np.where(selected[..., None], people.keypoints, -np.inf).max(axis=1)
    enlarge = 1 + random.random((len(people), 2)) * settings.half_body_enlarge
    wanted = wanted & ((high - low).max(axis=1) > 0)
    half_center = np.where(wanted[:, None], low + high, 0) / 2
    half_scale = fit_aspect(np.where(wanted[:, None], high - low, 0) * enlarge, input_size)
    return np.where(wanted[:, None], half_center, center), np.where(wanted[:, None], half_scale, scale)
