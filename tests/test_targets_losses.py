"""Target heatmaps, and the loss of small cases worked out by hand."""

import numpy as np
import pytest
import torch

from rsnlib.data.targets import heatmap_targets, inside_crop
from rsnlib.training.losses import finest_loss, heatmap_loss

SIZE = (256, 192)

# ---- targets


@pytest.mark.shared
@pytest.mark.parametrize(("data", "size"), [("COCO", (256, 192)), ("MPII", (256, 256))])
def test_targets_are_those_of_the_released_code(shared, data, size):
    golden = np.load(shared / "goldens/targets.npz")
    found = heatmap_targets(golden[f"{data}_joints"], golden[f"{data}_visible"][:, 0], size)
    np.testing.assert_allclose(found, golden[f"{data}_labels"], atol=1e-3)


@pytest.mark.parametrize(("x", "y"), [(0, 0), (39.9, 40), (100, 50.5), (191, 255)])
def test_the_peak_is_255_at_the_keypoints_cell(x, y):
    targets = heatmap_targets(np.array([[x, y]]), np.array([1]), SIZE)
    assert targets.shape == (5, 1, 64, 48)
    for heatmap in targets[:, 0]:
        assert heatmap.max() == heatmap[int(y / 4), int(x / 4)] == 255
        assert (heatmap == 255).sum() == 1


def test_a_kernel_reaches_half_its_size():
    targets = heatmap_targets(np.array([[100, 100]]), np.array([2]), SIZE, kernels=(7, 5, 3))
    assert [(heatmap[0].sum(dim=0) > 0).sum().item() for heatmap in targets] == [7, 5, 3]
    assert targets[2, 0, 25, 24:27].tolist() == [127.5, 255, 127.5]  # OpenCV's kernel of 3: 1/4, 1/2, 1/4


@pytest.mark.parametrize(
    ("x", "y", "visible"),
    [(100, 100, 0), (192, 100, 2), (100, 256, 2), (-1, 100, 2), (100, -5, 2), (-1e9, 1e9, 2), (np.nan, np.nan, 0)],
)
def test_keypoints_outside_or_not_labelled_have_empty_heatmaps(x, y, visible):
    assert (heatmap_targets(np.array([[x, y]]), np.array([visible]), SIZE) == 0).all()


def test_a_batch_is_its_people_one_by_one():
    random = np.random.default_rng(0)
    keypoints, visible = random.uniform(-20, 220, (3, 17, 2)), random.integers(0, 3, (3, 17))
    batch = heatmap_targets(keypoints, visible, SIZE)
    assert batch.shape == (3, 5, 17, 64, 48) and batch.dtype == torch.float32
    for person in range(3):
        assert batch[person].equal(heatmap_targets(keypoints[person], visible[person], SIZE))


def test_a_keypoint_is_in_the_crop_up_to_its_last_pixel():
    keypoints = np.array([[0, 0], [191, 255], [191.5, 10], [10, 255.5], [-0.5, 10], [np.nan, 0]])
    assert inside_crop(keypoints, np.array([2, 1, 2, 2, 2, 2]), SIZE).tolist() == [2, 1, 0, 0, 0, 0]


# ---- losses: heads (N, stages, 4, K, 1, 1), heatmaps of a single cell


def cells(values):
    return torch.tensor(values, dtype=torch.float32)[..., None, None]


def test_hidden_keypoints_are_empty_for_the_first_heads_and_labelled_for_the_finest():
    targets = cells([[[2.0, 2.0, 2.0]] * 5])
    loss = heatmap_loss(torch.zeros(1, 1, 4, 3, 1, 1), targets, torch.tensor([[2, 1, 0]]))
    coarse = 3 * (2**2 + 0 + 0) / 3  # three heads, the mean of three keypoints
    fine = (2**2 + 2**2 + 0) / 3
    assert loss.item() == pytest.approx(coarse / 4 + fine)
    seen = cells([[[[2.0], [2.0], [2.0], [0.0]]]])  # by the first heads, of a hidden keypoint: an error
    assert heatmap_loss(seen, torch.zeros(1, 5, 1, 1, 1), torch.tensor([[1]])).item() == pytest.approx(3 * 2**2 / 4)


@pytest.fixture
def ten_errors():
    """Heads of one person and one stage that are right but for ten errors of the finest, and their targets."""
    heads = torch.zeros(1, 1, 4, 10, 1, 1)
    heads[0, 0, 3, :, 0, 0] = torch.tensor([9.0, 1, 2, 3, 4, 5, 6, 7, 8, 100])
    return heads, torch.zeros(1, 5, 10, 1, 1)


@pytest.mark.parametrize(
    ("visible", "hard_keypoints", "wanted"),
    [
        ([2] * 9 + [0], 8, sum(error**2 for error in range(2, 10)) / 8),  # the eight worst of those labelled
        ([2, 1] + [0] * 8, 8, (9**2 + 1) / 8),  # too few labelled keypoints are averaged with zeros
        ([2] * 8 + [1, 0], None, sum(error**2 for error in range(1, 10)) / 10),  # without mining: all
        ([2] + [0] * 9, None, 9**2 / 10),
        ([2] * 10, 17, (sum(error**2 for error in range(1, 10)) + 100**2) / 10),  # as many as there are
    ],
)
def test_the_finest_head_learns_the_worst_keypoints_or_every_labelled_one(ten_errors, visible, hard_keypoints, wanted):
    heads, targets = ten_errors
    visible = torch.tensor([visible])
    assert heatmap_loss(heads, targets, visible, hard_keypoints).item() == pytest.approx(wanted)
    assert finest_loss(heads[:, 0, 3], targets[:, 4], visible, hard_keypoints).tolist() == [pytest.approx(wanted)]


def test_each_stage_learns_wide_to_narrow_and_the_last_one_narrower():
    targets = cells([[[10.0], [20.0], [30.0], [40.0], [50.0]]])
    right = cells([[[[10.0], [20.0], [30.0], [40.0]], [[20.0], [30.0], [40.0], [50.0]]]])
    visible = torch.tensor([[2]])
    assert heatmap_loss(right, targets, visible).item() == 0
    wrong = right.clone()
    wrong[:, 0, 3] += 3  # counts fully
    wrong[:, 1, 0] += 2  # counts a quarter
    assert heatmap_loss(wrong, targets, visible).item() == pytest.approx(9 + 4 / 4)


def test_the_loss_is_the_mean_of_the_peoples():
    random = torch.Generator().manual_seed(0)
    heads, targets = torch.rand(3, 2, 4, 9, 4, 4, generator=random), torch.rand(3, 5, 9, 4, 4, generator=random)
    visible = torch.randint(0, 3, (3, 9), generator=random)
    alone = [heatmap_loss(heads[i : i + 1], targets[i : i + 1], visible[i : i + 1]).item() for i in range(3)]
    assert heatmap_loss(heads, targets, visible).item() == pytest.approx(np.mean(alone))


def test_half_precision_heads_are_compared_in_full():
    heads = torch.full((1, 1, 4, 1, 64, 48), 250.0, dtype=torch.bfloat16)
    loss = heatmap_loss(heads, torch.zeros(1, 5, 1, 64, 48), torch.tensor([[2]]))
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(250**2 * (3 / 4 + 1))
