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
from rsnlib.inference.decode import decode_heatmaps, mirror_heatmaps

SIZE = (256, 192)
WHOLE = {"center": [[96, 128]], "scale": [[192, 256]], "input_size": SIZE}  # the crop is the picture


@pytest.mark.shared
@pytest.mark.parametrize(("data", "size", "blur"), [("COCO", (256, 192), 5), ("MPII", (256, 256), 9)])
def test_keypoints_scores_and_mirrored_heatmaps_are_those_of_the_released_code(shared, data, size, blur):
    golden = np.load(shared / "goldens/decode.npz")
    heatmaps, center, scale = (golden[f"{data}_{name}"] for name in ("heatmaps", "center", "scale"))
    heatmaps = torch.from_numpy(heatmaps)
    keypoints, scores = decode_heatmaps(heatmaps, center, scale * 200, size, blur)
    np.testing.assert_allclose(keypoints, golden[f"{data}_keypoints"], atol=1e-3)
    np.testing.assert_allclose(scores, golden[f"{data}_scores"][..., 0], atol=1e-6)

    mirrored = mirror_heatmaps(heatmaps, getattr(skeletons, data).mirrored).numpy()
    np.testing.assert_array_equal(mirrored[:, :, :4, :4], golden[f"{data}_flip_back_corner"])
    np.testing.assert_allclose(mirrored.mean(axis=(2, 3)), golden[f"{data}_flip_back_mean"], atol=1e-6)


def heatmap(*peaks):
    """(1, 1, 64, 48): zeros but for the peaks (column, row, height)."""
    cells = torch.zeros(1, 1, 64, 48)
    for column, row, height in peaks:
        cells[0, 0, row, column] = height
    return cells


@pytest.mark.parametrize(("across", "down"), [(1, 0), (-1, 0), (0, 1), (0, -1)])
def test_the_keypoint_is_a_quarter_cell_towards_the_second_highest_and_its_score_not_blurred(across, down):
    keypoints, scores = decode_heatmaps(heatmap((10, 20, 51), (10 + across, 20 + down, 20)), **WHOLE)
    np.testing.assert_allclose(keypoints[0, 0], [(10 + across / 4) * 4 + 2, (20 + down / 4) * 4 + 2])
    assert scores[0, 0] == pytest.approx(51 / 255 + 0.5)


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


def cells(heatmaps, **how):
    """Return the keypoints of `decode_heatmaps`, in cells."""
    whole = {name: np.repeat(WHOLE[name], len(heatmaps), axis=0) for name in ("center", "scale")}
    keypoints, _ = decode_heatmaps(heatmaps, **whole, input_size=SIZE, **how)
    return (keypoints - 2) / 4


def errors(heatmaps, centers, decoding, blur=5):
    """Distances (N,) from the centers, in cells."""
    return np.linalg.norm(cells(heatmaps, blur=blur, decoding=decoding)[:, 0] - centers, axis=1)


@given(st.integers(0, 2**32 - 1), st.floats(1, 3), st.sampled_from([5, 7, 9]))
@settings(max_examples=25, deadline=None)
def test_second_order_refinement_finds_the_centre_of_a_gaussian_between_cells(seed, deviation, blur):
    centers = np.random.default_rng(seed).uniform([9, 9], [38, 54], (40, 2))
    heatmaps = gaussians(centers, deviation)
    refined = errors(heatmaps, centers, "dark", blur)
    assert refined.max() < 0.02
    assert refined.mean() < errors(heatmaps, centers, "quarter", blur).mean() / 10


def test_second_order_refinement_withstands_noise_and_corners():
    random = np.random.default_rng(0)
    centers = random.uniform([9, 9], [38, 54], (500, 2))
    heatmaps = gaussians(centers) + torch.from_numpy(random.normal(0, 4, (500, 1, 64, 48)))
    assert errors(heatmaps, centers, "dark").mean() < 0.6 * errors(heatmaps, centers, "quarter").mean()
    corners = np.array([[0, 0], [47, 0], [0, 63], [47, 63]], float)
    for decoding in ("quarter", "dark"):
        assert (errors(gaussians(corners), corners, decoding) < 1.5).all()


@pytest.mark.parametrize("decoding", ["quarter", "dark"])
@pytest.mark.parametrize("value", [0.0, 7.0, -3.0])
def test_a_heatmap_without_a_peak_gives_a_keypoint_in_the_crop(value, decoding):
    keypoints, scores = decode_heatmaps(torch.full((1, 2, 64, 48), value), **WHOLE, decoding=decoding)
    assert np.isfinite(keypoints).all() and (keypoints >= 0).all() and (keypoints < [192, 256]).all()
    np.testing.assert_allclose(scores, value / 255 + 0.5)


# ---- against a plain rewriting of the released rule


HEATMAPS = {
    "a peak, maybe beyond an edge": lambda random: (
        gaussians(random.uniform(-3, [[51, 67]]))[0, 0].numpy() + random.normal(0, 2, (64, 48))
    ),
    "noise": lambda random: random.normal(0, 50, (64, 48)),
    "equal cells": lambda random: random.integers(-1, 3, (64, 48)),
    "below zero": lambda random: -np.abs(random.normal(1, 1, (64, 48))),
    "flat": lambda random: np.full((64, 48), random.choice([-2, 0, 7])),
}


def released_rule(heatmap, blur):
    """Return x and y in cells, by the rule of the released code: in a frame of ten cells of zeros."""
    frame = cv2.GaussianBlur(np.pad(heatmap.astype(float), 10), (blur, blur), 0)
    highest = np.array(np.unravel_index(frame.argmax(), frame.shape))
    frame[tuple(highest)] = 0
    towards = np.array(np.unravel_index(frame.argmax(), frame.shape)) - highest
    cell = highest - 10 + 0.25 * towards / max(1, np.linalg.norm(towards))
    return np.clip(cell, 0, np.array(heatmap.shape) - 1)[::-1]


@pytest.mark.parametrize("blur", [5, 9])
@pytest.mark.parametrize("kind", HEATMAPS)
def test_the_cells_are_those_of_the_released_code(kind, blur):
    random = np.random.default_rng(0)
    heatmaps = np.array([[HEATMAPS[kind](random) for _ in range(3)] for _ in range(20)], np.float32)
    wanted = [[released_rule(heatmap, blur) for heatmap in person] for person in heatmaps]
    np.testing.assert_allclose(cells(torch.from_numpy(heatmaps), blur=blur), wanted, atol=1e-12)


def test_the_order_of_people_and_of_cells_in_memory_changes_nothing():
    heatmaps = torch.randn(20, 3, 64, 48)
    found = cells(heatmaps)
    np.testing.assert_array_equal(cells(heatmaps.flip(0)), found[::-1])
    np.testing.assert_array_equal(cells(heatmaps.contiguous(memory_format=torch.channels_last)), found)
    assert cells(heatmaps[:0]).shape == (0, 3, 2)  # nobody has no keypoints


def test_every_left_keypoint_mirrors_a_right_one_and_mirroring_twice_changes_nothing():
    for skeleton in skeletons.SKELETONS.values():
        for keypoint, other in enumerate(skeleton.mirrored):
            name, mirrored = skeleton.keypoints[keypoint], skeleton.keypoints[other]
            exchanged = {"left": name.replace("left", "right"), "right": name.replace("right", "left"), "middle": name}
            if "face-" not in name:  # numbered, without a side in their names
                assert mirrored == exchanged[skeleton.side(keypoint)]
        heatmaps = torch.rand(2, len(skeleton), 64, 48)
        assert mirror_heatmaps(mirror_heatmaps(heatmaps, skeleton.mirrored), skeleton.mirrored).equal(heatmaps)


def by_mmpose(heatmap, blur=5):
    """Keypoint, in crop pixels, and score of a heatmap (h, w), cell by cell: MMPose 1.x, MegviiHeatmap.decode."""
    height, width = heatmap.shape
    padded = cv2.copyMakeBorder(heatmap, *[blur // 2] * 4, cv2.BORDER_CONSTANT, value=0)
    blurred = cv2.GaussianBlur(padded, (blur, blur), 0)[blur // 2 : -(blur // 2), blur // 2 : -(blur // 2)]
    y, x = np.unravel_index(blurred.argmax(), blurred.shape)
    found = np.array([x, y], float)
    if 1 < x < width - 1 and 1 < y < height - 1:
        across, down = blurred[y, x + 1] - blurred[y, x - 1], blurred[y + 1, x] - blurred[y - 1, x]
        found += np.sign([across, down]) / 4 + 0.5
    return found * 4, heatmap.max() / 255 + 0.5


def test_the_quarter_by_axis_is_mmposes_also_at_the_edge():
    random = np.random.default_rng(0)
    peaks = random.uniform(-1, 1, (64, 1, 2)) + random.uniform(0, 1, (64, 1, 2)) * [47, 63]
    peaks[:16, :, 0] = random.uniform(-1, 2, (16, 1))  # near the left edge
    heatmaps = gaussians(peaks[:, 0]) + torch.from_numpy(random.normal(0, 9, (64, 1, 64, 48)))
    whole = {name: np.repeat(WHOLE[name], 64, axis=0) for name in ("center", "scale")}
    keypoints, scores = decode_heatmaps(heatmaps, **whole, input_size=SIZE, decoding="axes")
    wanted = [by_mmpose(each[0].numpy()) for each in heatmaps]
    np.testing.assert_allclose(keypoints[:, 0], [keypoint for keypoint, _ in wanted], atol=1e-9)
    np.testing.assert_allclose(scores[:, 0], [score for _, score in wanted])
    plain, _ = decode_heatmaps(heatmaps, **whole, input_size=SIZE)
    assert 0.05 < np.abs(plain - keypoints)[20:].mean() < 2  # crop pixels
