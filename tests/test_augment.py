"""Training augmentation: one matrix per person, and keypoints that follow their pixels."""

from dataclasses import replace

import numpy as np
import pytest

from rsnlib.config import Augmentation
from rsnlib.data.augment import UPPER_BODY_PROBABILITY, augment, reach
from rsnlib.data.geometry import crop_matrix, evaluation_region, transform
from rsnlib.data.images import warp
from rsnlib.data.skeletons import COCO

SIZE = (128, 96)
EVERYTHING = Augmentation(
    enlarge=(0.09, 0.135),
    random_enlarge=(0.6, 0.8),
    half_body=0.3,
    half_body_above=3,
    half_body_enlarge=(0.6, 0.8),
    scale=(0.6, 1.0),
    rotation=45,
    rotation_probability=0.5,
    flip=0.5,
)
WHOLE = replace(EVERYTHING, half_body=0, random_enlarge=(0, 0), half_body_enlarge=(0, 0), flip=0)
OFF = replace(WHOLE, scale=(1, 1), rotation_probability=0)
HALF = replace(OFF, half_body=1)
HEIGHT, WIDTH = 200, 160
BOX = [50, 40, 60, 110]
BLACK = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
STANDING = np.stack([60 + 2.5 * np.arange(17), 45 + 6.0 * np.arange(17)], axis=1)  # a nose above, ankles below


def random(seed=0):
    return np.random.default_rng(seed)


def test_without_variation_it_is_the_evaluation_crop(make_people):
    people = make_people(BLACK, [BOX, [10, 20, 100, 30]], STANDING)
    matrices, keypoints, visible = augment(people, OFF, SIZE, random())
    wanted = crop_matrix(*evaluation_region(people.boxes, SIZE, OFF.enlarge), 0, SIZE)
    np.testing.assert_allclose(matrices, wanted)
    np.testing.assert_allclose(keypoints, transform(wanted, people.keypoints))
    assert (visible[0] == 2).all()


def test_flip_is_the_mirrored_picture_with_left_and_right_exchanged(make_people):
    picture = random().integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    flags = random(1).integers(0, 3, 17)
    people = make_people(picture, [BOX], STANDING, flags)
    x, y, width, height = BOX
    mirrored = make_people(  # the same person in the mirrored picture: what was a left wrist is a right one
        picture,
        [[WIDTH - 1 - x - width, y, width, height]],
        ([WIDTH - 1, 0] + STANDING * [-1, 1])[COCO.mirrored],
        flags[COCO.mirrored],
    )
    matrices, keypoints, visible = augment(people, replace(OFF, flip=1), SIZE, random())
    plain_matrices, plain_keypoints, plain_visible = augment(mirrored, OFF, SIZE, random())
    np.testing.assert_allclose(keypoints, plain_keypoints, atol=1e-9)
    np.testing.assert_array_equal(visible, plain_visible)
    crop = warp(picture, matrices[0], SIZE)
    plain = warp(np.ascontiguousarray(picture[:, ::-1]), plain_matrices[0], SIZE)
    np.testing.assert_allclose(crop.astype(int), plain, atol=1)  # a grey level, from rounding
    assert (crop == plain).mean() > 0.99


def test_keypoints_stay_on_their_pixels(make_people, draw_dot, find_dot):
    dot = np.array([90.0, 70.0])
    picture = draw_dot(HEIGHT, WIDTH, *dot)
    people = make_people(picture, [BOX] * 20, dot)
    settings = replace(EVERYTHING, rotation_probability=1, half_body=0, scale=(0.9, 1.3))
    matrices, keypoints, visible = augment(people, settings, SIZE, random())
    assert (visible == 2).all()
    assert len(np.unique(matrices[:, 0, 0])) == 20
    for matrix, points in zip(matrices, keypoints):
        np.testing.assert_allclose(find_dot(warp(picture, matrix, SIZE)), points[0], atol=0.3)


def test_rotation_and_scale_fill_their_range_and_half_the_people_are_flipped(make_people):
    people = make_people(BLACK, [BOX] * 2000, STANDING)
    matrices, _, _ = augment(people, WHOLE, SIZE, random())
    angle = np.rad2deg(np.arctan2(matrices[:, 0, 1], matrices[:, 0, 0]))
    rotated = np.abs(angle) > 1e-9
    assert rotated.mean() == pytest.approx(0.5, abs=0.05)
    assert angle[rotated].min() == pytest.approx(-45, abs=1) and angle[rotated].max() == pytest.approx(45, abs=1)
    unvaried = crop_matrix(*evaluation_region(people.boxes[:1], SIZE, OFF.enlarge), 0, SIZE)[0, 0, 0]
    scale = unvaried / np.hypot(matrices[:, 0, 0], matrices[:, 0, 1])
    assert scale.min() == pytest.approx(0.6, abs=0.01) and scale.max() == pytest.approx(1.0, abs=0.01)
    matrices, _, _ = augment(people, replace(OFF, flip=0.5), SIZE, random())
    assert (matrices[:, 0, 0] < 0).mean() == pytest.approx(0.5, abs=0.05)


def test_keypoints_outside_the_crop_are_not_visible_and_unlabelled_ones_may_lie_anywhere(make_people):
    keypoints = np.tile([80.0, 90.0], (17, 1))
    keypoints[[3, 4]] = [[80, 10], [158, 90]]  # above the box, and right of it
    _, _, visible = augment(make_people(BLACK, [BOX], keypoints, 1), OFF, SIZE, random())
    assert visible[0].tolist() == [1, 1, 1, 0, 0] + [1] * 12
    keypoints = STANDING.copy()
    keypoints[[2, 16]] = [[np.nan, np.nan], [-1e6, 1e6]]
    flags = np.where(np.isin(np.arange(17), [2, 16]), 0, 2)
    people = make_people(BLACK, [BOX] * 50, keypoints, flags)
    matrices, _, visible = augment(people, replace(EVERYTHING, half_body=1), SIZE, random())
    assert np.isfinite(matrices).all()
    for point in (2, 16):
        assert (visible[:, [point, COCO.mirrored[point]]] == 0).any(axis=1).all()


def holds(keypoints, points):
    """Return True, (P,), where the crop holds those keypoints."""
    height, width = SIZE
    inside = (keypoints > -1e-6) & (keypoints < np.array([width, height]) + 1e-6)
    return inside[:, points].all(axis=(1, 2))


def test_half_body_crops_tightly_hold_one_half_the_upper_more_often(make_people):
    _, keypoints, _ = augment(make_people(BLACK, [BOX] * 4000, STANDING), HALF, SIZE, random())
    upper = holds(keypoints, list(COCO.upper_body))
    lower = holds(keypoints, [13, 14, 15, 16])
    assert (upper ^ lower).all()
    assert upper.mean() == pytest.approx(0.6915, abs=0.02)  # released: a normal number below 0.5
    assert (random().standard_normal(100_000) < 0.5).mean() == pytest.approx(UPPER_BODY_PROBABILITY, abs=0.005)
    height = np.ptp(keypoints[upper][:, :13, 1], axis=1)
    np.testing.assert_allclose(height, SIZE[0])  # from the crop's upper edge to its lower one


@pytest.mark.parametrize(
    ("labelled", "half"),
    [
        (range(3), None),  # too few for half a body
        ([0, 1, 2, 13, 14], [0, 1, 2]),  # too few of the lower body
        ([0, 1, 13, 14, 15, 16], [13, 14, 15, 16]),  # the upper body, where preferred, is too little: the lower
        ([0, 1, 13, 14], None),  # too few of either
        (range(13), range(13)),
    ],
)
def test_half_a_body_needs_enough_keypoints(make_people, labelled, half):
    flags = np.isin(np.arange(17), list(labelled)) * 2
    people = make_people(BLACK, [BOX] * 100, STANDING, flags)
    matrices, keypoints, _ = augment(people, HALF, SIZE, random())
    whole, _, _ = augment(people, OFF, SIZE, random())
    changed = (matrices != whole).any(axis=(1, 2))
    assert changed.all() == (half is not None) and changed.any() == changed.all()
    if half is not None:
        assert holds(keypoints, list(half)).all()


def test_the_same_generator_gives_the_same_crops(make_people):
    people = make_people(BLACK, [BOX] * 10, STANDING)
    first, again, other = (augment(people, EVERYTHING, SIZE, random(seed)) for seed in (3, 3, 4))
    for a, b in zip(first, again, strict=True):
        np.testing.assert_array_equal(a, b)
    assert (first[0] != other[0]).any(axis=(1, 2)).all()
    assert (people.keypoints == STANDING).all() and (people.visible == 2).all()  # as they were


def test_no_crop_is_larger_than_the_reach(make_people):
    people = make_people(BLACK, [[50, 40, 60, 80]] * 3000, STANDING)
    matrices, _, _ = augment(people, replace(EVERYTHING, half_body=0, rotation=0), SIZE, random())
    width = SIZE[1] / np.abs(matrices[:, 0, 0])
    largest = 80 * reach(EVERYTHING)[1] * 3 / 4
    assert 0.98 * largest < width.max() <= largest
