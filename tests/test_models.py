"""The networks: structure, names, cost and receptive fields."""

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from bench.counting import counted
from rsnlib.errors import UserError
from rsnlib.models.attention import CBAM, PRM, SE
from rsnlib.models.blocks import Res2Net, ResidualSteps
from rsnlib.models.zoo import ZOO, Architecture, create_model
from rsnlib.report.cost import cost, effective_fields, field_sizes, networks, receptive_fields, untrained_fields

SMALL = (64, 32)


@pytest.fixture(autouse=True)
def same_weights_each_time():
    torch.manual_seed(0)


def small(**fields):
    """A network of one block per level."""
    return create_model({"depths": [1, 1, 1, 1], **fields}, keypoints=5, input_size=SMALL)


# ---- the zoo


@pytest.mark.parametrize(
    ("name", "keypoints", "input_size"),
    [
        ("4xrsn50", 17, (256, 192)),
        ("2xrsn18", 14, (384, 288)),
        ("mspn50", 16, (256, 256)),
        ("res2net18", 1, (32, 96)),
        ("rsn18-prm", 40, (64, 32)),
    ],
)
def test_any_network_at_any_size_for_any_number_of_keypoints(name, keypoints, input_size):
    with torch.device("meta"):  # shapes alone
        heads = create_model(name, keypoints, input_size).eval().heads(torch.empty(2, 3, *input_size))
    height, width = input_size
    assert heads.shape == (2, ZOO[name].stages, 4, keypoints, height // 4, width // 4)


def test_an_architecture_needs_only_what_differs():
    model = create_model({"block": "bottleneck", "depths": [3, 4, 6, 3], "expansion": 4})
    assert model.architecture == Architecture("bottleneck", (3, 4, 6, 3), expansion=4) == ZOO["mspn50"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model": {"branches": 1}}, "^model: branches: must be a whole number from 2 to 6, not 1"),
        ({"model": {"stages": 2.0}}, "^model: stages: must be a whole number"),
        ({"model": {"depths": [2, 2, 2]}}, "^model: depths: must be four numbers"),
        ({"model": {"depths": [2, 2, 0, 2]}}, r"^model: depths\.2: must be a whole number from 1 to 100, not 0"),
        ({"model": {"attention": "eca"}}, "^model: attention: must be None, 'prm', .* or 'cbam', not 'eca'"),
        ({"model": {"width": "half"}}, "^model: width: must be a number from 0.125 to 4, not 'half'"),
        ({"model": {"width": 0.125, "branch_width": 1}}, "^model: branch_width: 1 leaves no channel at width 0.125"),
        ({"model": {"cross_stage": "no"}}, "^model: cross_stage: must be true or false"),
        ({"model": {"depth": [2, 2, 2, 2]}}, "^model: depth: unknown key"),
        ({"model": "rsn19"}, "'rsn19' is unknown; known are res18,"),
        ({"input_size": (100, 64)}, r"multiples of 32 .*\[100, 64\]"),
        ({"keypoints": 0}, "keypoints: must be a whole number from 1 to 1000, not 0"),
    ],
)
def test_an_impossible_network_is_refused_naming_the_mistake(options, message):
    with pytest.raises(UserError, match=message):
        create_model(**{"model": "rsn18"} | options)


# ---- structure


def test_forward_is_the_last_and_finest_head():
    model = small(stages=2, attention="prm").eval()
    images = torch.randn(2, 3, *SMALL)
    assert torch.equal(model(images), model.heads(images)[:, -1, -1])


def test_width_scales_the_channels_of_every_level():
    half = small(stages=2, width=0.5).state_dict()
    for name, tensor in small(stages=2).state_dict().items():
        scaled = [size if size in (1, 3, 5, 7) else size // 2 for size in tensor.shape]  # keypoints, colours, kernels
        assert list(half[name].shape) == scaled, name


@pytest.mark.parametrize("cross_stage", [True, False])
def test_without_cross_stage_features_a_stage_sees_its_input_alone(cross_stage):
    model = small(stages=2, cross_stage=cross_stage).eval()
    torch.nn.init.zeros_(model.stages[0].cross.bn.weight)  # whose bias is zero: the second stage's input is black
    one, other = model(torch.randn(2, 3, *SMALL))
    assert torch.equal(one, other) == (not cross_stage)
    assert any(".skip_" in name for name in model.state_dict()) == cross_stage


@pytest.mark.parametrize("branches", [2, 4, 6])
def test_the_blocks_are_the_papers_recurrences(branches):
    x = torch.randn(1, branches * 3, 8, 6, dtype=torch.float64)
    parts = x.chunk(branches, dim=1)
    steps, res2net = ResidualSteps(branches, 3).double().eval(), Res2Net(branches, 3).double().eval()
    y, ends = {}, [parts[0]]
    for i in range(branches):
        for j in range(i + 1):
            before = parts[i] if j == 0 else y[i, j - 1]
            y[i, j] = steps.steps[i][j](before + y[i - 1, j] if j < i else before)
        if i > 0:
            ends.append(res2net.convolutions[i - 1](parts[i] + ends[-1]))
    assert torch.allclose(steps(x), torch.cat([y[i, i] for i in range(branches)], dim=1))
    assert torch.allclose(res2net(x), torch.cat(ends, dim=1))


@pytest.mark.parametrize(("attention", "kind"), [("prm", PRM), ("prm-mmpose", PRM), ("se", SE), ("cbam", CBAM)])
@pytest.mark.parametrize(("where", "count"), [("last", 1), ("every", 8)])
def test_attention_refines_the_last_head_or_every_head(attention, kind, where, count):
    model = small(stages=2, attention=attention, attention_at=where)
    assert sum(isinstance(module, kind) for module in model.modules()) == count
    assert isinstance(model.stages[-1].heads[-1].attention, kind)
    assert model(torch.randn(2, 3, *SMALL)).shape == (2, 5, 16, 8)


def test_mmposes_prm_has_one_weight_per_position():
    _, channel, position = PRM(5, shared_position=True).eval().weights(torch.randn(2, 5, 8, 6))
    assert channel.shape == (2, 5, 1, 1)
    assert position.shape == (2, 5, 8, 6)
    assert torch.equal(position[:, 0], position[:, 4])


@pytest.mark.parametrize("fields", [{}, {"stages": 2, "attention": "prm"}])
def test_torch_export_gives_the_same_heatmaps_for_any_batch(fields):
    model = small(**fields).eval()
    batch = {"images": {0: torch.export.Dim("batch")}}
    exported = torch.export.export(model, (torch.randn(2, 3, *SMALL),), dynamic_shapes=batch).module()
    images = torch.randn(5, 3, *SMALL)
    with torch.no_grad():
        torch.testing.assert_close(exported(images), model(images), rtol=1e-4, atol=1e-4)


# ---- cost and receptive fields


def test_operations_bytes_and_memory_are_counted():
    first, second = torch.ones(10, 20), torch.ones(20, 30)

    def run():
        product = first @ second  # (10, 30), of 4 bytes each
        product.view(30, 10).add_(1)  # a view costs nothing, adding in place one read and one write
        del product
        return second.t().contiguous()

    matrices = 4 * (10 * 20 + 20 * 30 + 10 * 30)
    assert counted(run) == (2 * 10 * 20 * 30, matrices + 2 * 4 * 300 + 2 * 4 * 600, 4 * 600)


# The paper's cost, at 3 %: these five are how its widths were found; Res-18 and RSN-18 are what was released.
PUBLISHED = ["rsn50", "rsn101", "2xrsn50", "3xrsn50", "4xrsn50"]


def test_the_papers_networks_cost_what_was_published():
    table = networks({name: ZOO[name] for name in PUBLISHED}).dropna(subset="published")
    assert sorted(zip(table.model, table.input, strict=True)) == sorted(
        [(name, "256x192") for name in PUBLISHED] + [("4xrsn50", "384x288")]
    )
    assert table.ratio.between(0.97, 1.03).all(), table


@pytest.mark.parametrize(("name", "wanted"), [("res18", 2.07), ("rsn18", 2.25), ("rsn50-mmpose", 4.07)])
def test_released_networks_cost_what_their_code_costs(name, wanted):
    assert cost(ZOO[name])[1] / 1e9 == pytest.approx(wanted, abs=0.005)


def test_cost_is_that_of_torchs_flop_counter():
    for name in ("rsn18-prm", "2xmspn50"):
        model = create_model(name, 17, (64, 64)).eval()
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            model.heads(torch.zeros(1, 3, 64, 64))
        parameters, multiply_adds = cost(ZOO[name], 17, (64, 64))
        assert multiply_adds == counter.get_total_flops() // 2
        assert parameters == sum(parameter.numel() for parameter in model.parameters())


def test_receptive_fields_of_a_block_are_the_papers():
    table = receptive_fields({name: ZOO[name] for name in ("res18", "rsn18", "res2net18", "rsn50")}).set_index("block")
    assert table.loc["residual_steps", [1, 2, 3, 4]].tolist() == ["3", "5, 7", "7, 9, 11", "9, 11, 13, 15"]
    assert table.loc["res2net", [1, 2, 3, 4]].tolist() == ["1", "3", "3, 5", "3, 5, 7"]
    assert table.loc["bottleneck", [1, 2]].tolist() == ["3", ""]


@pytest.mark.parametrize(("block", "branches"), [("bottleneck", 1), ("res2net", 4), ("residual_steps", 3)])
def test_gradients_reach_as_far_as_the_receptive_fields_and_no_farther(block, branches):
    fields = untrained_fields(block, branches)
    for field, sizes in zip(fields, field_sizes(block, branches), strict=True):
        middle = field.shape[0] // 2
        rows = np.flatnonzero(field.any(axis=1))
        assert (rows[0], rows[-1]) == (middle - max(sizes) // 2, middle + max(sizes) // 2)
        assert field.max() == 1


def test_the_same_of_a_network_and_pictures():
    network = create_model("rsn18", 17, (64, 96)).eval()
    fields = effective_fields(network, torch.rand(2, 3, 64, 96))
    assert fields.shape == (4, 15, 15)  # as far as the 16 x 24 cells go
    assert (fields[0] > 0).sum() == 9
    assert all(parameter.grad is None for parameter in network.parameters())
