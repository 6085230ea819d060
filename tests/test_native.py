"""What is compiled gives torch's numbers, both ways."""

import contextlib
import copy
import os
import shutil

import pytest
import torch

from rsnlib.data.images import normalise
from rsnlib.data.targets import heatmap_targets
from rsnlib.fast import fused_norm as native
from rsnlib.fast.fused_norm import compiled, join, norm, plain_torch, split
from rsnlib.models.blocks import ConvNorm, fork, kept_statistics
from rsnlib.models.zoo import create_model
from rsnlib.training.losses import heatmap_loss

pytestmark = pytest.mark.skipif(not shutil.which(os.environ.get("CC", "cc")), reason="there is no C compiler")

SHAPES = [(2, 17, 9, 7), (3, 26, 16, 12), (16, 64, 32, 24), (2, 600, 3, 5), (1, 1, 64, 512), (5, 3, 1, 1)]
HALF = 2**-8  # of a bfloat16 number: the most that rounding to the nearest moves it


def draw(shape, dtype):
    """A float64 input far from zero, another, a gradient, all numbers of `dtype`, and a batch norm."""
    random = torch.Generator().manual_seed(sum(shape))
    tensors = [torch.randn(shape, generator=random) for _ in range(3)]
    tensors[0] = 3 * tensors[0] + 20
    bn = torch.nn.BatchNorm2d(shape[1])
    for tensor in (bn.weight, bn.bias, bn.running_mean, bn.running_var):
        tensor.data.uniform_(0.5, 1.5, generator=random)
    return [each.to(dtype).double() for each in tensors], bn


def run(x, other, gradient, bn, relu):
    """The output, the gradients and the running statistics, all in float64."""
    x = x.clone(memory_format=torch.channels_last).requires_grad_()
    other = None if other is None else other.clone().requires_grad_()
    y = norm(x, bn, relu, other)
    y.backward(gradient)
    of_other = torch.zeros_like(x) if other is None else other.grad
    found = (y, x.grad, of_other, bn.weight.grad, bn.bias.grad, bn.running_mean, bn.running_var)
    return [tensor.detach().double() for tensor in found], bn.num_batches_tracked.item()


@pytest.fixture
def calls(monkeypatch):
    """How often the compiled functions are used: a list that grows."""
    assert compiled(torch.float32), "the C compiler does not compile it"
    used, compiled_apply = [], native._Norm.apply
    monkeypatch.setattr(native._Norm, "apply", lambda *given: used.append(given) or compiled_apply(*given))
    return used


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("added", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", SHAPES)
def test_output_gradients_and_statistics_are_torchs(calls, shape, dtype, added, relu, threads):
    (x, other, gradient), bn = draw(shape, dtype)
    other = other if added else None
    wanted, batches = run(x, other, gradient, copy.deepcopy(bn).double(), relu)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        found, counted = run(*(None if each is None else each.to(dtype) for each in (x, other, gradient)), bn, relu)
    finally:
        torch.set_num_threads(before)
    assert len(calls) == 1 and counted == batches == 1
    # where the sum is as good as zero, rounding decides what the ReLU does
    sure = run(x, other, gradient, copy.deepcopy(bn).double(), relu=False)[0][0].abs() > 1e-4
    rounding = HALF if dtype == torch.bfloat16 else 1e-5
    for name, ours, exact in zip(("y", "x", "other"), found, wanted):
        error = (ours - exact)[sure].abs().max()
        assert error <= rounding * exact.abs().max(), name
    for name, ours, exact in zip(("weight", "bias"), found[3:], wanted[3:]):
        torch.testing.assert_close(ours, exact, rtol=1e-3, atol=1e-3 * exact.abs().max().item(), msg=name)
    for ours, exact in zip(found[5:], wanted[5:]):
        torch.testing.assert_close(ours, exact, rtol=1e-5, atol=1e-5)


def test_what_is_not_contiguous_is_taken_as_it_is(calls):
    (x, other, gradient), bn = draw((3, 26, 16, 12), torch.float32)
    wanted, _ = run(x, other, gradient, copy.deepcopy(bn).double(), relu=True)
    transposed = [each.float().mT.contiguous().mT for each in (other, gradient)]
    found, _ = run(x.float(), *transposed, bn, relu=True)
    assert len(calls) == 1
    torch.testing.assert_close(found[:3], wanted[:3], rtol=1e-4, atol=1e-4)


def test_kept_statistics_are_kept(calls):
    (x, _, _), bn = draw((3, 26, 16, 12), torch.float32)
    before = copy.deepcopy(bn.state_dict())
    with kept_statistics(bn):
        norm(x.float(), bn, relu=True)
    assert len(calls) == 1
    assert all(after.equal(before[name]) for name, after in bn.state_dict().items())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_is_not_a_number_stays_so_and_in_its_channel(calls, dtype):
    (x, _, _), bn = draw((3, 26, 16, 12), torch.float32)
    x[1, 5, 3, 4] = torch.nan
    y = norm(x.to(dtype), bn, relu=True)
    assert len(calls) == 1
    assert y[:, 5].isnan().all() and not y[:, :5].isnan().any() and not y[:, 6:].isnan().any()


def test_a_network_is_as_exact_as_with_torchs(calls):
    """Batch norms of few values multiply rounding: what ours and torch's give is measured on float64."""
    torch.manual_seed(0)
    model = create_model({"depths": [1] * 4, "stages": 2, "attention": "prm"}, keypoints=5, input_size=(64, 64))
    images, targets = torch.randn(8, 3, 64, 64), torch.rand(8, 5, 5, 16, 16)

    def gradients(model, compute):
        model = copy.deepcopy(model)
        with compute():
            heatmaps = model.heads(images.to(model.stem.conv.weight.dtype))
            heatmap_loss(heatmaps, targets, torch.full((8, 5), 2)).backward()
        return torch.cat([each.grad.double().flatten() for name, each in model.named_parameters() if ".bn." in name])

    ours, torchs = gradients(model, contextlib.nullcontext), gradients(model, plain_torch)
    assert len(calls) == sum(isinstance(module, torch.nn.BatchNorm2d) for module in model.modules())
    exact = gradients(model.double(), contextlib.nullcontext)
    assert (ours - exact).norm() < 2 * (torchs - exact).norm() < 0.1 * exact.norm()


def test_other_numbers_and_evaluation_are_torchs(calls):
    (x, _, _), bn = draw((3, 26, 16, 12), torch.float32)
    norm(x, copy.deepcopy(bn).double(), relu=True)
    norm(x.float(), copy.deepcopy(bn).eval(), relu=True)
    with plain_torch():
        norm(x.float(), bn, relu=True)
    assert not calls


@pytest.mark.parametrize("compute", [contextlib.nullcontext, plain_torch])
def test_single_values_have_no_norm(compute):
    with compute(), pytest.raises(ValueError, match="more than 1 value per channel"):
        norm(torch.ones(1, 26, 1, 1), torch.nn.BatchNorm2d(26), relu=True)


def results(convolution, inputs, compute):
    """What `compute`, of a ConvNorm and tensors, gives, and the gradients of it all, in float64."""
    inputs = [each.clone(memory_format=torch.channels_last).requires_grad_() for each in inputs]
    outputs = compute(convolution, *inputs)
    random = torch.Generator().manual_seed(1)
    sum((output * torch.randn(output.shape, generator=random)).sum() for output in outputs).backward()
    learned = {name: each.grad for name, each in convolution.named_parameters()}
    tensors = {"inputs": [each.grad for each in inputs], **learned, "outputs": outputs}
    tensors |= {"running mean": convolution.bn.running_mean, "running variance": convolution.bn.running_var}
    return {
        name: [t.detach().double() for t in (each if isinstance(each, (list, tuple)) else [each])]
        for name, each in tensors.items()
    }


def assert_torchs(calls, convolution, inputs, compute, dtype):
    """`compute`, compiled, against torch in float64; in bfloat16, as autocast has it, on numbers of few digits."""
    if dtype == torch.bfloat16:
        inputs = [each.bfloat16().float() for each in inputs]
        convolution.conv.weight.data = convolution.conv.weight.data.bfloat16().float()
    exact = results(copy.deepcopy(convolution).double(), [each.double() for each in inputs], compute)
    with torch.autocast("cpu", dtype, enabled=dtype == torch.bfloat16):
        inputs = [each.to(dtype) for each in inputs]
        found = results(convolution, inputs, compute)
    assert len(calls) == 1
    exact["conv.bias"][0].zero_()  # but for rounding
    tolerance = 0.02 if dtype == torch.bfloat16 else 1e-5
    for name, wanted in exact.items():
        for ours, right in zip(found[name], wanted, strict=True):
            assert (ours - right).norm() <= tolerance * right.norm(), name


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    "about", [(8, 6, 1), (8, 6, 1, 2), (8, 6, 3), (40, 6, 3), (40, 7, 5), (8, 6, 3, 2), (6, 6, 9, 1, 6), (3, 4, 7, 2)]
)
def test_a_convolution_with_its_norm_is_torchs(calls, about, dtype):
    torch.manual_seed(0)
    convolution = ConvNorm(*about).to(memory_format=torch.channels_last)
    inputs = [torch.randn(2, about[0], 8, 6)]
    assert_torchs(calls, convolution, inputs, lambda compute, x: [compute(x)], dtype)


@pytest.mark.parametrize("padding", [0, 1, 2])
@pytest.mark.parametrize("dilation", [1, 2])
def test_a_convolution_of_another_kind_is_torchs(calls, padding, dilation):
    torch.manual_seed(0)
    convolution = ConvNorm(40, 6, 3)
    convolution.conv.padding, convolution.conv.dilation = (padding, padding), (dilation, dilation)
    convolution.to(memory_format=torch.channels_last)
    inputs = [torch.randn(2, 40, 8, 6)]
    assert_torchs(calls, convolution, inputs, lambda compute, x: [compute(x)], torch.float32)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("then", [False, True])
@pytest.mark.parametrize("read", [slice(0, 1), slice(1, 2), slice(0, 2)])
def test_a_fork_is_the_output_and_its_sum(calls, read, then, dtype):
    torch.manual_seed(0)
    inputs = [torch.randn(2, 7, 8, 6), torch.randn(2, 5, 8, 6)][: 1 + then]
    if then and read == slice(0, 1):  # nothing reads the sum
        inputs.pop()
        read_first = lambda compute, x: fork(compute, x, torch.ones(2, 5, 8, 6, dtype=x.dtype))[:1]  # noqa: E731
        assert_torchs(calls, ConvNorm(7, 5, 3), inputs, read_first, dtype)
    else:
        assert_torchs(calls, ConvNorm(7, 5, 3), inputs, lambda compute, *given: fork(compute, *given)[read], dtype)


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_branches_are_split_and_joined(dtype, threads):
    x = torch.randn(2, 4 * 13, 24, 16).to(dtype)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        for given in (x, x.contiguous(memory_format=torch.channels_last)):
            given.requires_grad_()
            parts = split(given, 4)
            assert all(part.equal(of_x) for part, of_x in zip(parts, x.chunk(4, dim=1), strict=True))
            again = join(parts[::-1])
            assert again.equal(torch.cat(x.chunk(4, dim=1)[::-1], dim=1))
            (gradient,) = torch.autograd.grad(again, given, x)
            assert gradient.equal(torch.cat(x.chunk(4, dim=1)[::-1], dim=1))
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("compiler", ["there-is-none", "false"])
def test_without_a_compiler_that_can_torch_computes(monkeypatch, compiler):
    monkeypatch.setenv("CC", compiler)
    assert compiled.__wrapped__(torch.float32) is None


@pytest.mark.parametrize("size", [(64, 48), (45, 37)], ids=str)
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_images_and_targets_are_torchs(threads, size):
    random = torch.Generator().manual_seed(0)
    crops = torch.randint(0, 256, (3, *size, 3), generator=random, dtype=torch.uint8)
    keypoints = torch.rand(3, 17, 2, generator=random) * 80 - 10
    visible = torch.randint(0, 3, (3, 17), generator=random)
    with plain_torch():
        images, targets = normalise(crops), heatmap_targets(keypoints, visible, size)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        found, drawn = normalise(crops), heatmap_targets(keypoints, visible, size)
    finally:
        torch.set_num_threads(before)
    assert (found - images).abs().max() < 1e-6 and found.stride() == images.stride()
    assert drawn.equal(targets) and drawn.is_contiguous() and not targets.is_contiguous()


def test_what_is_added_has_the_same_shape(calls):
    with pytest.raises(ValueError, match=r"not of shape \(2, 5, 8, 6\)"):
        norm(torch.randn(2, 5, 8, 6), torch.nn.BatchNorm2d(5), True, torch.randn(2, 5, 4, 3))
    assert len(calls) == 1
