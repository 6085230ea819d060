"""Crops cut from windows in memory and resizing by matrix products, as a GPU does both, tried on the CPU."""

import numpy as np
import pytest
import torch
from torch.nn.functional import interpolate

from rsnlib.data.augment import reach
from rsnlib.data.batches import make_batch
from rsnlib.data.readers import read_people
from rsnlib.data.resident import ResidentStore, resident, window_sizes
from rsnlib.data.store import CropStore, write_crop_store
from rsnlib.fast.sums import bilinear_weights

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def store(demo_folder, demo_settings, tmp_path_factory):
    path = tmp_path_factory.mktemp("crops") / "train"
    people, far = read_people(demo_folder, "coco", "train2017"), reach(demo_settings.augmentation)
    write_crop_store(path, people, demo_settings.input_size, demo_settings.margin, far)
    return CropStore(path)


def test_crops_are_those_of_the_store_but_for_opencvs_steps_of_a_32nd_of_a_pixel(store, demo_settings):
    held = ResidentStore(store, window_sizes(store), CPU)
    for number in (1, 2, 3):
        given = number, demo_settings, len(store), 0, [slice(None)]
        (found,), (wanted,) = (make_batch(given[0], each, *given[1:]) for each in (held, store))
        apart = (found[0].int() - wanted[0].int()).abs().float()
        assert apart.mean() < 0.12 and apart.max() <= 4
        assert all(torch.equal(*both) for both in zip(found[1:], wanted[1:]))


def test_outside_its_window_a_crop_is_black(store):
    held = ResidentStore(store, window_sizes(store), CPU)
    far_away = np.tile([[1.0, 0, 10_000], [0, 1, 0]], (2, 1, 1))
    assert not held.crops(np.array([0, 1]), far_away).any()


def test_a_cpu_keeps_the_encoded_windows(store):
    assert resident(store, CPU) is store


@pytest.mark.parametrize(("before", "after"), [(6, 48), (24, 48), (1, 5)])
def test_a_product_with_the_weights_resizes_a_line(before, after):
    line = torch.randn(1, 1, before, dtype=torch.float64)
    wanted = interpolate(line, size=after, mode="linear", align_corners=True)
    torch.testing.assert_close(bilinear_weights(before, after, line.dtype, CPU) @ line[0, 0], wanted[0, 0])
