"""Widened, recomputing and fused networks give the network's own numbers (the fused norm: test_fused_norm.py)."""

import copy

import pytest
import torch

from rsnlib.fast import faster, folded, fuse, slower
from rsnlib.fast.recompute import recompute_activations
from rsnlib.fast.sums import ResidualWithAddend
from rsnlib.fast.widths import widen
from rsnlib.models.blocks import ConvNorm
from rsnlib.models.zoo import create_model
from rsnlib.training.losses import heatmap_loss

SIZE = (64, 64)
NETWORKS = [
    {},
    {"stages": 2, "attention": "prm"},
    {"block": "res2net", "expansion": 4, "width_of": "base", "attention": "cbam"},
    {"branches": 3, "branch_width": 35, "attention": "prm-mmpose", "attention_at": "every"},
    {"block": "bottleneck", "attention": "se"},
]


def network(fields):
    """A small network in float64, whose batch norms have seen something."""
    torch.manual_seed(0)
    model = create_model({"depths": [1, 1, 2, 1], **fields}, keypoints=5, input_size=SIZE).double()
    for name, tensor in model.state_dict().items():
        if ".bn." in name and tensor.ndim:  # weights so low that signals do not grow from block to block
            tensor.uniform_(*(0.4, 0.8) if name.endswith("weight") else (0.5, 1.5))
    return model


def loss(model):
    random = torch.Generator().manual_seed(1)
    images = torch.randn(3, 3, *SIZE, generator=random, dtype=torch.float64)
    targets = torch.rand(3, 5, 5, 16, 16, generator=random, dtype=torch.float64)
    return heatmap_loss(model.heads(images), targets, torch.full((3, 5), 2))


# ---- widened


@pytest.mark.parametrize("fields", NETWORKS)
def test_a_widened_network_has_the_same_loss_and_gradients_and_what_it_adds_stays_zero(fields):
    model = network(fields)
    wide = widen(model, 32)
    losses = [loss(each) for each in (model, wide)]
    torch.testing.assert_close(*losses)
    sum(losses).backward()
    gradients = copy.deepcopy(wide)
    for parameter, source in zip(gradients.parameters(), wide.parameters()):
        parameter.data = torch.zeros_like(source) if source.grad is None else source.grad
    narrowed = dict(slower(gradients, network(fields)).named_parameters())
    for name, parameter in model.named_parameters():
        if not name.endswith("conv.bias"):
            torch.testing.assert_close(narrowed[name], parameter.grad, rtol=1e-6, atol=1e-9, msg=name)
    for found, wanted in zip(slower(wide, network(fields)).buffers(), model.buffers()):
        torch.testing.assert_close(found, wanted)

    optimizer = torch.optim.Adam(wide.parameters(), lr=1e-2, weight_decay=1e-2)
    for _ in range(3):
        optimizer.step()
        optimizer.zero_grad()
        loss(wide).backward()
    trained = slower(wide, network(fields))
    assert not trained.stem.conv.weight.equal(model.stem.conv.weight)
    again = zip(widen(trained, 32).named_parameters(), wide.parameters())  # which adds zeros
    assert all(wider.equal(parameter) for (name, wider), parameter in again if not name.endswith("conv.bias"))


def test_branches_have_a_multiple_of_channels_and_nothing_else_changes():
    model = network({})
    changed = set()
    for (name, module), wider in zip(model.named_modules(), widen(model, 32).modules()):
        if isinstance(module, ConvNorm) and module.conv.weight.shape != wider.conv.weight.shape:
            changed.add(name.split(".")[5])
        if ".middle." in name and isinstance(module, ConvNorm):
            assert wider.conv.in_channels == wider.conv.out_channels == wider.bn.num_features
            assert 0 <= wider.conv.in_channels - module.conv.in_channels < 32 and wider.conv.in_channels % 32 == 0
    assert changed == {"reduce", "middle", "expand"}
    assert all(a.equal(b) for a, b in zip(widen(model, 1).parameters(), model.parameters()))


# ---- recomputing


def test_recomputing_keeps_less_and_changes_neither_gradients_nor_statistics():
    def outcome(model):
        """The gradients and statistics of one step, and the bytes that it keeps for the gradients, weights aside."""
        kept = {}

        def keep(tensor):
            kept.setdefault(tensor.data_ptr(), tensor)
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            error = loss(model)
        weights = {parameter.data_ptr() for parameter in model.parameters()}
        size = sum(tensor.nbytes for pointer, tensor in kept.items() if pointer not in weights)
        error.backward()
        return [*model.buffers()], [parameter.grad for parameter in model.parameters()], size

    models = [network({"stages": 2, "attention": "prm"}).train() for _ in range(2)]
    recompute_activations(models[1])
    (*plain, everything), (*recomputed, less) = map(outcome, models)
    torch.testing.assert_close(recomputed, plain)
    assert less < everything / 3


def test_a_network_that_recomputes_can_be_compiled():
    learner = faster(network({}).float(), torch.device("cpu"), "float32", recompute=True)
    images = torch.randn(2, 3, *SIZE)
    compiled = torch.compile(learner.heads, backend="eager")(images)
    compiled.sum().backward()
    assert learner.stem.conv.weight.grad.isfinite().all()
    torch.testing.assert_close(compiled, learner.heads(images))


# ---- fused for inference


@pytest.mark.parametrize("fields", NETWORKS)
def test_a_fused_network_gives_the_same_heads_without_batch_norms(fields):
    model, images = network(fields).float().eval(), torch.randn(2, 3, *SIZE)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    fused = fuse(model)
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in fused.modules())
    with torch.no_grad():
        heads, expected = fused.heads(images), model.heads(images)
    assert (heads - expected).abs().max() < 1e-4 * expected.abs().max()
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert fuse(fused) is fused


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("stride", [1, 2])
def test_onednn_gives_the_sum_and_the_relu_of_torch(monkeypatch, stride, dtype):
    model = network({"block": "bottleneck"})
    block = fuse(model.stages[0].down[stride - 1][0]).to(dtype)  # without and with a shortcut of its own
    x = torch.randn(2, 64, 12, 10).to(dtype)
    before = x.clone()
    assert folded.ONEDNN and type(block) is ResidualWithAddend
    found = block(x)
    assert x.equal(before)
    monkeypatch.setattr(folded, "ONEDNN", False)
    expected = block(x)
    assert (found - expected).abs().max() <= (2**-6 if dtype == torch.bfloat16 else 1e-6) * expected.abs().max()
