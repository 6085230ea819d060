"""Heatmaps to keypoints."""

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rsnlib.data import skeletons
from rsnlib.data.geometry import crop_matrix, invert, transform
from rsnlib.data.targets import heatmap_targets
from rsnlib.inference import decode
from rsnlib.inference.decode import decode_heatmaps, mirror_heatmaps

SIZE = (256, 192)
WHOLE = {"center": [[96, 128]], "scale": [[192, 256]], "input_size": SIZE}  # the crop is the picture


@pytest.mark.shared
@pytest.mark.parametrize(("data", "size", "blur"), [("COCO", (256, 192), 5), ("MPII", (256, 256), 9)])
def test_keypoints_and_scores_are_those_of_the_released_code(shared, data, size, blur):
    golden = np.load(shared / "goldens/decode.npz")
    heatmaps, center, scale = (golden[f"{data}_{name}"] for name in ("heatmaps", "center", "scale"))
    keypoints, scores = decode_heatmaps(torch.from_numpy(heatmaps), center, scale * 200, size, blur)
    np.testing.assert_allclose(keypoints, golden[f"{data}_keypoints"], atol=1e-3)
    np.testing.assert_allclose(scores, golden[f"{data}_scores"][..., 0], atol=1e-6)


@pytest.mark.shared
@pytest.mark.parametrize("data", ["COCO", "MPII"])
def test_mirrored_heatmaps_are_those_of_the_released_code(shared, data):
    golden = np.load(shared / "goldens/decode.npz")
    heatmaps = torch.from_numpy(golden[f"{data}_heatmaps"])
    mirrored = mirror_heatmaps(heatmaps, getattr(skeletons, data).mirrored).numpy()
    np.testing.assert_array_equal(mirrored[:, :, :4, :4], golden[f"{data}_flip_back_corner"])
    np.testing.assert_allclose(mirrored.mean(axis=(2, 3)), golden[f"{data}_flip_back_mean"], atol=1e-6)


def heatmap(*peaks):
    """(1, 1, 64, 48): zeros but for the peaks (column, row, height)."""
    cells = torch.zeros(1, 1, 64, 48)
    for column, row, height in peaks:
        cells[0, 0, row, column] = height
    return cells


@pytest.mark.parametrize(
    ("second", "shift"), [((11, 20), (0.25, 0)), ((9, 20), (-0.25, 0)), ((10, 21), (0, 0.25)), ((10, 19), (0, -0.25))]
)
def test_the_keypoint_is_a_quarter_cell_towards_the_second_highest(second, shift):
    keypoints, scores = decode_heatmaps(heatmap((10, 20, 255), (*second, 50)), **WHOLE)
    np.testing.assert_allclose(keypoints[0, 0], [(10 + shift[0]) * 4 + 2, (20 + shift[1]) * 4 + 2])
    assert scores[0, 0] == pytest.approx(1.5)


def test_the_score_is_read_at_the_cell_before_the_blur():
    _, scores = decode_heatmaps(heatmap((10, 20, 51), (11, 20, 20)), **WHOLE)
    assert scores[0, 0] == pytest.approx(51 / 255 + 0.5)


def test_blurring_prefers_a_broad_peak_to_a_lonely_one():
    broad = [(column, row, 150) for column in (29, 30, 31) for row in (39, 40, 41)]
    keypoints, _ = decode_heatmaps(heatmap((5, 5, 200), *broad), **WHOLE)
    np.testing.assert_allclose(keypoints[0, 0], [122, 162], atol=1.1)


@pytest.mark.parametrize(("column", "row"), [(0, 0), (47, 63), (0, 30), (47, 0)])
def test_peaks_at_the_border_stay_in_the_crop(column, row):
    keypoints, scores = decode_heatmaps(heatmap((column, row, 255)), **WHOLE)
    np.testing.assert_allclose(keypoints[0, 0], [column * 4 + 2, row * 4 + 2], atol=1.01)
    assert (keypoints > 0).all() and (keypoints[0, 0] < [192, 256]).all()
    assert scores[0, 0] == pytest.approx(1.5)


def test_an_empty_heatmap_gives_a_keypoint_of_no_confidence_in_the_crop():
    keypoints, scores = decode_heatmaps(torch.zeros(1, 2, 64, 48), **WHOLE)
    assert (keypoints >= 0).all() and (keypoints < [192, 256]).all()
    assert (scores == 0.5).all()


def test_targets_decode_to_the_keypoints_they_were_made_of():
    random = np.random.default_rng(0)
    center, scale = np.array([[310.0, 200.0], [50.0, 80.0]]), np.array([[96.0, 128.0], [384.0, 512.0]])
    in_crop = random.uniform(0, 1, (2, 17, 2)) * [191, 255]
    targets = heatmap_targets(in_crop, np.full((2, 17), 2), SIZE)[:, 4]
    keypoints, _ = decode_heatmaps(targets, center, scale, SIZE)
    wanted = transform(invert(crop_matrix(center, scale, 0, SIZE)), in_crop)
    cell = scale[:, None] / [48, 64]
    assert (np.abs(keypoints - wanted) <= 0.75 * cell + 1e-9).all()  # half a cell of rounding, a quarter of shift


def gaussians(centers, deviation=2.0, height=200.0):
    """Heatmaps (N, 1, 64, 48) of Gaussians around centers (N, 2), x and y in cells."""
    rows, columns = np.mgrid[:64, :48]
    square = (columns - centers[:, 0, None, None]) ** 2 + (rows - centers[:, 1, None, None]) ** 2
    return torch.from_numpy(height * np.exp(-square / (2 * deviation**2)))[:, None]


def errors(heatmaps, centers, decoding, blur=5):
    """Distances (N,) from the centers, in cells."""
    whole = {name: np.repeat(WHOLE[name], len(centers), axis=0) for name in ("center", "scale")}
    keypoints, _ = decode_heatmaps(heatmaps, **whole, input_size=SIZE, blur=blur, decoding=decoding)
    return np.linalg.norm((keypoints[:, 0] - 2) / 4 - centers, axis=1)


@given(st.integers(0, 2**32 - 1), st.floats(1, 3), st.sampled_from([5, 7, 9]))
@settings(max_examples=25, deadline=None)
def test_second_order_refinement_finds_the_centre_of_a_gaussian_between_cells(seed, deviation, blur):
    centers = np.random.default_rng(seed).uniform([9, 9], [38, 54], (40, 2))
    heatmaps = gaussians(centers, deviation)
    refined = errors(heatmaps, centers, "dark", blur)
    assert refined.max() < 0.02
    assert refined.mean() < errors(heatmaps, centers, "quarter", blur).mean() / 10


def test_second_order_refinement_withstands_noise():
    random = np.random.default_rng(0)
    centers = random.uniform([9, 9], [38, 54], (500, 2))
    heatmaps = gaussians(centers) + torch.from_numpy(random.normal(0, 4, (500, 1, 64, 48)))
    assert errors(heatmaps, centers, "dark").mean() < 0.6 * errors(heatmaps, centers, "quarter").mean()


@pytest.mark.parametrize("decoding", ["quarter", "dark"])
@pytest.mark.parametrize("column", [0, 47])
@pytest.mark.parametrize("row", [0, 63])
def test_a_gaussian_in_the_corner_is_decoded_there(column, row, decoding):
    centers = np.array([[column, row]], float)
    assert errors(gaussians(centers), centers, decoding) < 1.5


@pytest.mark.parametrize("value", [0.0, 7.0, -3.0])
def test_second_order_refinement_of_what_has_no_peak_stays_in_the_crop(value):
    keypoints, scores = decode_heatmaps(torch.full((1, 2, 64, 48), value), **WHOLE, decoding="dark")
    assert np.isfinite(keypoints).all() and (keypoints >= 0).all() and (keypoints < [192, 256]).all()
    np.testing.assert_allclose(scores, value / 255 + 0.5)


# ---- all at once as one by one


def peaks(random, count, deviations, noise):
    """(64, 48): up to `count` Gaussian peaks, some of them outside, and noise."""
    rows, columns = np.mgrid[:64, :48]
    heatmap = random.normal(0, noise, (64, 48))
    for _ in range(random.integers(count) + 1):
        x, y = random.uniform(-3, [51, 67])
        square = (columns - x) ** 2 + (rows - y) ** 2
        heatmap += random.uniform(20, 255) * np.exp(-square / (2 * random.choice(deviations) ** 2))
    return heatmap


def rectangles(random):
    heatmap = np.zeros((64, 48))
    for _ in range(3):
        x, y, width, height = random.integers([0, 0, 1, 1], [48, 64, 6, 6])
        heatmap[y : y + height, x : x + width] = 100
    return heatmap


def pit(random, depth, edge, peak, size=2):
    """(64, 48): -depth around a lonely peak, higher at the edge of that square."""
    heatmap, (x, y) = np.zeros((64, 48)), random.integers([5, 5], [43, 59])
    heatmap[max(0, y - size) : y + size + 1, max(0, x - size) : x + size + 1] = -depth
    heatmap[max(0, y - size) : y + size + 1, x + size : x + size + 1] = edge
    heatmap[y, x] = peak
    return heatmap


HEATMAPS = {
    "one peak": lambda random: peaks(random, 1, [1, 1.5, 2], noise=0),
    "one peak in noise": lambda random: peaks(random, 1, [1, 1.5, 2], noise=2),
    "several peaks": lambda random: peaks(random, 4, [1, 2, 4], noise=1),
    "broad peaks": lambda random: peaks(random, 3, [6, 12], noise=0),
    "noise": lambda random: random.normal(0, 50, (64, 48)),
    "equal cells": lambda random: random.integers(-1, 3, (64, 48)),
    "rectangles": rectangles,
    "a peak in a pit": lambda random: pit(random, 1000, edge=9, peak=10),
    "one cell above zero": lambda random: pit(random, 20, edge=-20, peak=180, size=64),
    "below zero": lambda random: -np.abs(random.normal(1, 1, (64, 48))),
    "flat": lambda random: np.full((64, 48), random.choice([-2, 0, 7])),
}


def make_heatmaps(kind):
    """(20, 3, 64, 48) float32"""
    random = np.random.default_rng(0)
    return np.array([[HEATMAPS[kind](random) for _ in range(3)] for _ in range(20)], np.float32)


def released_rule(heatmap, blur):
    """x and y in cells, by the rule of the released code: in a frame of ten cells of zeros."""
    frame = cv2.GaussianBlur(np.pad(heatmap.astype(float), 10), (blur, blur), 0)
    highest = np.array(np.unravel_index(frame.argmax(), frame.shape))
    frame[tuple(highest)] = 0
    towards = np.array(np.unravel_index(frame.argmax(), frame.shape)) - highest
    cell = highest - 10 + 0.25 * towards / max(1, np.linalg.norm(towards))
    return np.clip(cell, 0, np.array(heatmap.shape) - 1)[::-1]


def cells(heatmaps, **how):
    """What `decode_heatmaps` finds, in cells."""
    whole = {name: np.repeat(WHOLE[name], len(heatmaps), axis=0) for name in ("center", "scale")}
    keypoints, _ = decode_heatmaps(heatmaps, **whole, input_size=SIZE, **how)
    return (keypoints - 2) / 4


@pytest.mark.parametrize("blur", [5, 9])
@pytest.mark.parametrize("kind", HEATMAPS)
def test_the_cells_are_those_of_the_released_code(kind, blur):
    heatmaps = make_heatmaps(kind)
    wanted = [[released_rule(heatmap, blur) for heatmap in person] for person in heatmaps]
    np.testing.assert_allclose(cells(torch.from_numpy(heatmaps), blur=blur), wanted, atol=1e-12)


@pytest.mark.parametrize("how", [{"decoding": "quarter"}, {"decoding": "dark"}, {"decoding": "dark", "blur": 1}])
@pytest.mark.parametrize("kind", HEATMAPS)
def test_what_is_found_around_the_peak_is_what_is_found_in_the_whole_heatmap(kind, how, monkeypatch):
    heatmaps = torch.from_numpy(make_heatmaps(kind))
    found = cells(heatmaps, **how)
    monkeypatch.setattr(decode, "_search", decode._search_whole)  # as on a GPU
    np.testing.assert_allclose(found, cells(heatmaps, **how), atol=1e-12)


def test_the_order_of_people_and_of_cells_in_memory_changes_nothing():
    heatmaps = torch.from_numpy(make_heatmaps("several peaks"))
    found = cells(heatmaps)
    np.testing.assert_array_equal(cells(heatmaps.flip(0)), found[::-1])
    np.testing.assert_array_equal(cells(heatmaps.contiguous(memory_format=torch.channels_last)), found)


def test_nobody_has_no_keypoints():
    keypoints, scores = decode_heatmaps(torch.zeros(0, 17, 64, 48), np.zeros((0, 2)), np.zeros((0, 2)), SIZE)
    assert keypoints.shape == (0, 17, 2) and scores.shape == (0, 17)


def test_mirroring_twice_changes_nothing():
    heatmaps = torch.rand(2, 17, 64, 48)
    mirrored = mirror_heatmaps(heatmaps, skeletons.COCO.mirrored)
    left, right = (skeletons.COCO.keypoints.index(f"{side}_wrist") for side in ("left", "right"))
    assert mirrored[0, left, 3, 5] == heatmaps[0, right, 3, 42]
    assert mirror_heatmaps(mirrored, skeletons.COCO.mirrored).equal(heatmaps)


@pytest.mark.parametrize("skeleton", [skeletons.COCO, skeletons.MPII, skeletons.LSP], ids=lambda s: s.name)
def test_every_left_keypoint_mirrors_a_right_one(skeleton):
    for keypoint, other in enumerate(skeleton.mirrored):
        name, mirrored = skeleton.keypoints[keypoint], skeleton.keypoints[other]
        exchanged = {"left": name.replace("left", "right"), "right": name.replace("right", "left"), "middle": name}
        assert mirrored == exchanged[skeleton.side(keypoint)]
