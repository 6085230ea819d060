"""Weights of ours and of everyone else: read, written, refused."""

import importlib.util
import json
import os
import pickle
import re

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from rsnlib.errors import UserError
from rsnlib.models.attention import PRM
from rsnlib.models.checkpoints import foreign_names, load_checkpoint, load_model, save_checkpoint, save_model
from rsnlib.models.zoo import create_model
from rsnlib.training.losses import heatmap_loss

SMALL = (64, 32)
ONE_BLOCK = {"depths": [1, 1, 1, 1]}


def small(seed=0, **fields):
    """A network of one block per level, whose batch norms have seen something."""
    torch.manual_seed(seed)
    model = create_model({**ONE_BLOCK, **fields}, keypoints=5, input_size=SMALL)
    for name, tensor in model.state_dict().items():
        if name.endswith("running_var"):
            tensor.uniform_(0.5, 1.5)
        elif tensor.dtype.is_floating_point and tensor.dim() == 1:
            tensor.normal_(0.5, 0.1)
    return model.eval()


def tensors(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def assert_same(model, weights):
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, weights[name]), name


def saved(model, path, format):
    """Save `model` and return the state dict in the file."""
    save_checkpoint(model, path, format)
    return torch.load(path, weights_only=True)["model" if format == "rsn" else "state_dict"]


# Other people's networks


@pytest.fixture(scope="session")
def golden(shared):
    """A released network: its weights by its own names, the input in RGB, and its outputs."""
    spec = importlib.util.spec_from_file_location("golden_fill", shared / "goldens" / "fill.py")
    rule = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(rule)

    def read(name):
        about = json.loads((shared / "goldens" / f"{name}.json").read_text())
        prefix = about.get("name_prefix", "")
        state = {key: torch.from_numpy(rule.fill(prefix + key, tuple(s))) for key, s in about["state_dict"].items()}
        images = rule.image(about["input_seed"], tuple(about["input_shape"])) if "input_seed" in about else None
        if images is not None and not name.startswith("mmpose"):
            images = images[:, ::-1].copy()  # released RSN and MSPN take BGR
        return state, images, np.load(shared / "goldens" / f"{name}.npz")

    return read


MMPOSE_PRM = {"block": "residual_steps", "attention": "prm-mmpose", "attention_at": "every"}


@pytest.mark.shared
@pytest.mark.parametrize(
    ("name", "model", "keypoints"),
    [
        ("rsn18_coco", "rsn18", 17),
        ("res18_coco", "res18", 17),
        ("4xrsn18_coco", "4xrsn18", 17),
        ("rsn18_mpii", "rsn18", 16),
        ("2xmspn50_coco", "2xmspn50", 17),
        ("mmpose_rsn18", "rsn18", 17),
        ("mmpose_rsn50", "rsn50-mmpose", 17),
        ("mmpose_2xrsn50", "2xrsn50-mmpose", 17),
        ("mmpose_rsn18_prm", MMPOSE_PRM, 17),
    ],
)
def test_every_golden_network_holds(golden, tmp_path, name, model, keypoints):
    state, images, expected = golden(name)
    path = tmp_path / "weights.pth"
    torch.save({"state_dict" if name.startswith("mmpose") else "model": state}, path)
    model = load_checkpoint(create_model(model, keypoints, images.shape[-2:]), path).eval()
    with torch.no_grad():
        heads = model.heads(torch.from_numpy(images))
    cells = heads.flatten(-2)
    found = {"final": heads[:, -1, -1], "heads_mean": cells.mean(-1), "heads_std": cells.std(-1)}
    for number, tensor in (found | {"heads_max": cells.amax(-1)}).items():
        assert np.abs(tensor.numpy() - expected[number]).max() < 5e-6, number
    written = saved(model, path, "mmpose" if name.startswith("mmpose") else "rsn")
    assert {key: tensor.shape for key, tensor in written.items()} == {key: value.shape for key, value in state.items()}


@pytest.mark.shared
def test_the_golden_prm_holds(golden):
    state, _, expected = golden("prm17")
    x = torch.from_numpy(np.random.default_rng(7).standard_normal((2, 17, 64, 48)).astype(np.float32))
    model = load_checkpoint(PRM(17), state).eval()
    with torch.no_grad():
        assert np.abs(model(x).numpy() - next(iter(expected.values()))).max() < 5e-6


@pytest.mark.shared
@pytest.mark.parametrize("name", ["rsn18", "4xrsn18"])
def test_loss_and_gradients_are_those_of_the_released_code(shared, golden, name):
    state, images, _ = golden(f"{name}_coco")
    wanted = json.loads((shared / f"goldens/{name}_coco_loss.json").read_text())
    model = load_checkpoint(create_model(name).eval(), state)
    random = np.random.default_rng(11)
    valid = torch.from_numpy(random.choice([0.0, 1.0, 2.0], (2, 17, 1))[..., 0])
    targets = torch.from_numpy((random.random((2, 5, 17, 64, 48)) ** 8 * 255).astype(np.float32))
    loss = heatmap_loss(model.heads(torch.from_numpy(images)), targets, valid)
    loss.backward()
    assert loss.item() == pytest.approx(wanted["loss"], rel=1e-5)
    names, _ = foreign_names(model, "rsn")
    norms = {names[key]: parameter.grad.norm().item() for key, parameter in model.named_parameters()}
    assert {key: norms[key] for key in wanted["gradient_norms"]} == pytest.approx(wanted["gradient_norms"], rel=1e-3)


# Round trips


@pytest.mark.parametrize(
    ("format", "fields"),
    [
        ("rsn", {"stages": 2}),
        ("rsn", {"block": "bottleneck", "expansion": 4}),
        ("mmpose", {"stages": 2, "branches": 3}),
        ("mmpose", {"stages": 2, "block": "bottleneck", "expansion": 4}),
        ("mmpose", {"stages": 2, **MMPOSE_PRM}),
    ],
)
def test_a_network_written_and_read_gives_the_same_heatmaps(tmp_path, format, fields):
    model = small(**fields)
    written = saved(model, tmp_path / "weights.pth", format)
    again = load_checkpoint(small(seed=1, **fields), tmp_path / "weights.pth")
    if format == "rsn":
        assert_same(again, tensors(model))
        assert torch.equal(written["top.conv.conv.weight"], model.stem.conv.weight.flip(1))  # BGR
    else:  # biases are folded into statistics
        assert not again.stem.conv.bias.any()
        images = torch.randn(2, 3, *SMALL)
        with torch.no_grad():
            heads = model.heads(images)
            torch.testing.assert_close(again.heads(images), heads, rtol=0, atol=1e-5 * heads.abs().max().item())


def test_our_own_file_says_what_it_is(tmp_path):
    model, path = small(stages=2, attention="se", attention_at="every"), tmp_path / "ours.safetensors"
    save_model(model, path, {"dataset": "demo", "params": "0123456789ab"})
    again = load_model(path)
    assert again.architecture == model.architecture
    assert (again.keypoints, again.input_size) == (5, SMALL)
    assert (again.about["dataset"], again.about["params"]) == ("demo", "0123456789ab")
    assert_same(again, tensors(model))
    with safe_open(path, "pt") as file:
        about = json.loads(file.metadata()["rsnlib"])
    del about["architecture"]["cross_stage"]  # a file from before there was this field has the default
    save_file(tensors(model), path, {"rsnlib": json.dumps(about)})
    assert load_model(path).architecture == model.architecture


@pytest.mark.parametrize(
    ("fields", "format", "why"),
    [
        ({"stages": 2, "cross_stage": False}, "rsn", "cross_stage: false"),
        ({"width": 0.5}, "rsn", "width 0.5"),
        ({"stages": 2, "cross_stage": False}, "mmpose", "cross_stage: false"),
        ({"attention": "prm"}, "rsn", "attention 'prm'.*never call"),
        ({"branches": 3}, "rsn", "3 branches"),
        ({"block": "res2net"}, "rsn", "Res2Net"),
        ({"attention": "prm", "attention_at": "every"}, "mmpose", "attention 'prm' at 'every'"),
        ({"attention": "prm-mmpose"}, "mmpose", "attention 'prm-mmpose' at 'last'"),
        ({"expansion": 4, "width_of": "base"}, "mmpose", "expansion 4 and width_of 'base'"),
        ({"block": "bottleneck"}, "mmpose", "bottlenecks of expansion 1"),
        ({}, "onnx", "'onnx' is unknown; known are rsn, mmpose"),
    ],
)
def test_what_a_format_cannot_express_is_not_written(tmp_path, fields, format, why):
    with pytest.raises(UserError, match=why):
        save_checkpoint(small(**fields), tmp_path / "weights.pth", format)
    assert not list(tmp_path.iterdir())


# What may lie around a state dict


@pytest.fixture
def mmpose_state(tmp_path):
    """A small MMPose state dict, and the weights it gives."""
    state = saved(small(), tmp_path / "mmpose.pth", format="mmpose")
    return state, tensors(load_checkpoint(small(seed=1), tmp_path / "mmpose.pth"))


def test_a_state_dict_may_be_bare_or_have_old_names_or_data_parallels_prefix(tmp_path, mmpose_state):
    state, expected = mmpose_state
    torch.save(state, tmp_path / "bare.pth")
    old = {re.sub("^head", "keypoint_head", name): tensor for name, tensor in state.items()}  # of MMPose 0.x
    parallel = {"model": {f"module.{name}": tensor for name, tensor in state.items()}}
    for given in (tmp_path / "bare.pth", state, old, parallel):
        assert_same(load_checkpoint(small(seed=1), given), expected)


@pytest.mark.parametrize("meta", [{}, {"mmengine_version": "0.10.4"}])
def test_a_moving_average_is_preferred(tmp_path, mmpose_state, meta):
    averaged, expected = mmpose_state
    last = {name: torch.zeros_like(tensor) for name, tensor in averaged.items()}
    if meta:  # mmengine's EMAHook swaps the two when it saves
        averaged, last = last, averaged
    average = {"steps": torch.tensor(7)} | {f"module.{name}": tensor for name, tensor in averaged.items()}
    torch.save({"meta": meta, "state_dict": last, "ema_state_dict": average}, tmp_path / "ema.pth")
    assert_same(load_checkpoint(small(seed=1), tmp_path / "ema.pth"), expected)


# Refusals


def refusal(path):
    """Return the reason for refusing `path`; the network stays as it was."""
    model = small(seed=1)
    before = tensors(model)
    with pytest.raises(UserError) as refused:
        load_checkpoint(model, path)
    assert_same(model, before)
    assert str(path) in str(refused.value)
    return str(refused.value)


def test_tensors_that_do_not_fit_are_named_in_the_files_own_words(tmp_path):
    state = saved(small(), tmp_path / "released.pth", "rsn")
    state["top.conv.conv.wait"] = state.pop("top.conv.conv.weight")
    state["top.conv.bn.weight"] = torch.ones(32)
    torch.save({"model": state}, tmp_path / "released.pth")
    why = refusal(tmp_path / "released.pth")
    assert "top.conv.conv.weight is missing" in why
    assert "top.conv.conv.wait does not belong" in why
    assert "top.conv.bn.weight has shape (32,), not (64,)" in why


def test_a_missing_linear_bias_of_mmpose_is_no_zero(tmp_path):
    model = small(**MMPOSE_PRM)
    state = saved(model, tmp_path / "mmpose.pth", format="mmpose")
    del state["head.predict_layers.0.prm.middle_path.3.bias"]
    with pytest.raises(UserError, match=r"head\.predict_layers\.0\.prm\.middle_path\.3\.bias is missing"):
        load_checkpoint(model, state)


@pytest.mark.parametrize("keep", [0.001, 0.5, 0.999])
def test_a_truncated_file_is_refused(tmp_path, keep):
    save_checkpoint(small(), tmp_path / "cut.pth", format="rsn")
    save_model(small(), tmp_path / "cut.safetensors")
    for file in tmp_path.iterdir():
        whole = file.read_bytes()
        file.write_bytes(whole[: int(keep * len(whole))])
        assert "damaged or cut short" in refusal(file)


class Harmful:
    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


@pytest.mark.parametrize("protocol", [0, 2, pickle.DEFAULT_PROTOCOL])
@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_a_file_that_would_execute_code_is_refused(tmp_path, protocol):
    path, trace = tmp_path / "harmful.pth", tmp_path / "trace"
    contents = {"model": Harmful(f"touch {trace}")}
    path.write_bytes(pickle.dumps(contents, protocol))
    assert "could execute code" in refusal(path)
    torch.save(contents, path)
    assert f"asks for {os.system.__module__}.system, which could execute code" in refusal(path)
    assert not trace.exists()


def test_a_file_of_something_else_is_refused(tmp_path):
    (tmp_path / "page.pth").write_text("\n<!DOCTYPE html><html><body>Sign in to download</body></html>")
    torch.save({"epoch": 3}, tmp_path / "else.pth")
    for name, why in (("page", "a web page"), ("else", "holds no state dict"), ("nowhere", "No such file")):
        assert why in refusal(tmp_path / f"{name}.pth")
