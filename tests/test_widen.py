"""Widened networks train as the networks that they are of."""

import copy

import pytest
import torch

from rsnlib.fast.widths import narrow, widen
from rsnlib.models.blocks import ConvNorm
from rsnlib.models.zoo import create_model
from rsnlib.training.losses import heatmap_loss

SIZE = (64, 64)
NETWORKS = [
    {},
    {"stages": 2, "attention": "prm"},
    {"block": "res2net", "expansion": 4, "width_of": "base"},
    {"branches": 3, "branch_width": 35},
    {"block": "bottleneck"},
]


def network(fields):
    """A small network in float64, whose batch norms do not start alike."""
    torch.manual_seed(0)
    model = create_model({"depths": [1, 1, 2, 1], **fields}, keypoints=5, input_size=SIZE).double()
    for name, parameter in model.named_parameters():
        if ".bn." in name:
            torch.nn.init.uniform_(parameter, 0.5, 1.5)
    return model


def loss(model):
    random = torch.Generator().manual_seed(1)
    images = torch.randn(3, 3, *SIZE, generator=random, dtype=torch.float64)
    targets = torch.rand(3, 5, 5, 16, 16, generator=random, dtype=torch.float64)
    return heatmap_loss(model.heads(images), targets, torch.full((3, 5), 2))


@pytest.mark.parametrize("fields", NETWORKS)
def test_loss_gradients_and_statistics_are_those_of_the_network(fields):
    model = network(fields)
    wide = widen(model, 32)
    for each in (model, wide):
        loss(each).backward()
    torch.testing.assert_close(loss(wide), loss(model))
    gradients = copy.deepcopy(wide)
    with torch.no_grad():
        for parameter, source in zip(gradients.parameters(), wide.parameters(), strict=True):
            parameter.copy_(torch.zeros_like(source) if source.grad is None else source.grad)
    for (name, found), wanted in zip(
        narrow(gradients, network(fields)).named_parameters(), model.parameters(), strict=True
    ):
        if not name.endswith("conv.bias"):
            torch.testing.assert_close(found, wanted.grad, rtol=1e-6, atol=1e-9, msg=name)
    for found, wanted in zip(narrow(wide, network(fields)).buffers(), model.buffers(), strict=True):
        torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("fields", NETWORKS)
def test_what_is_added_is_zero_and_stays_zero(fields):
    model = network(fields)
    wide = widen(model, 32)
    optimizer = torch.optim.Adam(wide.parameters(), lr=1e-2, weight_decay=1e-2)
    for _ in range(3):
        optimizer.zero_grad()
        loss(wide).backward()
        optimizer.step()
    trained = narrow(wide, copy.deepcopy(model))
    assert not trained.stem.conv.weight.equal(model.stem.conv.weight)
    for again, parameter in zip(widen(trained, 32).parameters(), wide.parameters(), strict=True):
        assert again.equal(parameter)


def test_branches_have_a_multiple_of_channels_and_nothing_else_changes():
    model = network({})
    wide = widen(model, 32)
    changed = set()
    for (name, module), wider in zip(model.named_modules(), wide.modules(), strict=True):
        if isinstance(module, ConvNorm) and module.conv.weight.shape != wider.conv.weight.shape:
            changed.add(name.split(".")[5])
        if ".middle." in name and isinstance(module, ConvNorm):
            assert wider.conv.in_channels == wider.conv.out_channels == wider.bn.num_features
            assert 0 <= wider.conv.in_channels - module.conv.in_channels < 32 and wider.conv.in_channels % 32 == 0
    assert changed == {"reduce", "middle", "expand"}
    assert all(a.equal(b) for a, b in zip(widen(model, 1).parameters(), model.parameters(), strict=True))
