"""The fused CPU kernels give torch's numbers, forward and backward."""

import copy
import os
import shutil

import pytest
import torch

from rsnlib.fast import faster, fused_norm
from rsnlib.fast.fused_norm import FusedBatchNorm
from rsnlib.fast.norm_cpu import library
from rsnlib.models.blocks import frozen_statistics
from rsnlib.models.zoo import create_model
from rsnlib.training.losses import heatmap_loss

pytestmark = pytest.mark.skipif(not shutil.which(os.environ.get("CC", "cc")), reason="there is no C compiler")

SHAPES = [(2, 17, 9, 7), (3, 26, 16, 12), (16, 64, 32, 24), (2, 600, 3, 5), (1, 1, 64, 512), (5, 3, 1, 1)]
HALF = 2**-8  # of a bfloat16 number: the most that rounding to the nearest moves it
CPU = torch.device("cpu")


@pytest.fixture
def calls(monkeypatch):
    """A list that grows with every call of the compiled functions."""
    assert library(torch.float32), "the C compiler does not compile them"
    used, apply = [], fused_norm._FusedNorm.apply
    monkeypatch.setattr(fused_norm._FusedNorm, "apply", lambda *given: used.append(given) or apply(*given))
    return used


def draw(shape, dtype=torch.float32):
    """An input far from zero, an addend and a gradient, all of `dtype`, and a batch norm."""
    random = torch.Generator().manual_seed(sum(shape))
    x, addend, gradient = (torch.randn(shape, generator=random) for _ in range(3))
    norm = FusedBatchNorm(shape[1])
    for tensor in (norm.weight, norm.bias, norm.running_mean, norm.running_var):
        tensor.data.uniform_(0.5, 1.5, generator=random)
    return [each.to(dtype) for each in (3 * x + 20, addend, gradient)], norm


def run(tensors, norm, added, relu):
    """The output, all gradients and the running statistics, in float64."""
    x, addend, gradient = (each.clone(memory_format=torch.preserve_format) for each in tensors)
    x.requires_grad_(), addend.requires_grad_()
    y = norm(x, addend if added else None, relu)
    y.backward(gradient)
    of_addend = addend.grad if added else torch.zeros_like(x)
    found = y, x.grad, of_addend, norm.weight.grad, norm.bias.grad, norm.running_mean, norm.running_var
    return [tensor.detach().double() for tensor in found]


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize(("added", "relu"), [(False, False), (False, True), (True, True)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", SHAPES)
def test_output_gradients_and_statistics_are_torchs(calls, shape, dtype, added, relu, threads):
    tensors, norm = draw(shape, dtype)
    exact, before = [copy.deepcopy(norm).double() for _ in range(2)], torch.get_num_threads()
    doubles = [each.double() for each in tensors]
    wanted = run(doubles, exact[0], added, relu)
    torch.set_num_threads(threads)
    try:
        found = run(tensors, norm, added, relu)
    finally:
        torch.set_num_threads(before)
    assert len(calls) == 1 and norm.num_batches_tracked == 1
    # where the output is as good as zero, rounding decides what the ReLU does
    sure = (exact[1](doubles[0]) + added * doubles[1]).abs() > 1e-4
    for name, ours, right in zip(("y", "x", "addend"), found, wanted):
        rounding = HALF if dtype == torch.bfloat16 else 1e-5
        assert (ours - right)[sure].abs().max() <= rounding * right.abs().max(), name
    for ours, right in zip(found[3:5], wanted[3:5]):
        torch.testing.assert_close(ours, right, rtol=1e-3, atol=1e-3 * right.abs().max().item())
    torch.testing.assert_close(found[5:], wanted[5:], rtol=1e-5, atol=1e-5)


def test_any_memory_layout_is_taken(calls):
    tensors, norm = draw((3, 26, 16, 12))
    wanted = run([each.double() for each in tensors], copy.deepcopy(norm).double(), True, True)
    found = run([each.mT.contiguous().mT for each in tensors], norm, True, True)
    assert len(calls) == 1
    torch.testing.assert_close(found[:3], wanted[:3], rtol=1e-4, atol=1e-4)


def test_frozen_statistics_stay(calls):
    (x, _, _), norm = draw((3, 26, 16, 12))
    before = copy.deepcopy(norm.state_dict())
    with frozen_statistics(norm):
        norm(x)
    assert len(calls) == 1
    assert all(after.equal(before[name]) for name, after in norm.state_dict().items())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_nan_stays_nan_and_in_its_channel(calls, dtype):
    (x, _, _), norm = draw((3, 26, 16, 12), dtype)
    x[1, 5, 3, 4] = torch.nan
    found = norm(x, relu=True).isnan()
    assert len(calls) == 1
    assert found[:, 5].all() and found.sum() == found[:, 5].sum()


def test_a_network_is_as_exact_as_with_torchs_batch_norm(calls):
    """Batch norms of few values multiply rounding: the errors of ours and of torch's are measured against float64."""
    torch.manual_seed(0)
    model = create_model({"depths": [1] * 4, "stages": 2, "attention": "prm"}, keypoints=5, input_size=(64, 64))
    images, targets = torch.randn(8, 3, 64, 64), torch.rand(8, 5, 5, 16, 16)

    def gradients(model):
        heatmaps = model.heads(images.to(model.stem.conv.weight.dtype))
        heatmap_loss(heatmaps, targets, torch.full((8, 5), 2)).backward()
        return torch.cat([each.grad.double().flatten() for name, each in model.named_parameters() if ".bn." in name])

    ours = gradients(faster(model, CPU, "float32"))
    assert len(calls) == sum(isinstance(module, torch.nn.BatchNorm2d) for module in model.modules())
    torchs, exact = gradients(copy.deepcopy(model)), gradients(copy.deepcopy(model).double())
    assert (ours - exact).norm() < 2 * (torchs - exact).norm() < 0.1 * exact.norm()


def test_torch_computes_other_dtypes_evaluation_and_single_values(calls):
    (x, addend, _), norm = draw((3, 26, 16, 12))
    plain = torch.nn.BatchNorm2d(26).double()
    plain.load_state_dict(norm.state_dict())
    y = copy.deepcopy(norm).double()(x.double(), addend.double())
    torch.testing.assert_close(y, torch.relu(plain(x.double()) + addend))
    copy.deepcopy(norm).eval()(x)
    assert not calls
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        norm(torch.ones(1, 26, 1, 1))


@pytest.mark.parametrize("compiler", ["there-is-none", "false"])
def test_without_a_compiler_that_works_torch_computes(monkeypatch, compiler):
    monkeypatch.setenv("CC", compiler)
    assert library.__wrapped__(torch.float32) is None
