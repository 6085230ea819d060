"""Weights of ours and of everyone else: read, written, refused."""

import importlib.util
import json
import os
import pickle

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from rsnlib.errors import UserError
from rsnlib.models.attention import PRM
from rsnlib.models.checkpoints import load_checkpoint, load_model, save_checkpoint, save_model
from rsnlib.models.zoo import create_model

SMALL = (64, 32)
ONE_BLOCK = {"depths": [1, 1, 1, 1]}


def small(seed=0, **fields):
    """A network of one block a level, whose batch norms have seen something."""
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
        outputs = dict(np.load(shared / "goldens" / f"{name}.npz"))
        if "input_seed" not in about:
            return state, None, outputs
        images = rule.image(about["input_seed"], tuple(about["input_shape"]))
        if not name.startswith("mmpose"):
            images = images[:, ::-1].copy()  # released RSN and MSPN take BGR
        return state, torch.from_numpy(images), outputs

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
        heads = model.heads(images)
    cells = heads.flatten(-2)
    assert np.abs(heads[:, -1, -1].numpy() - expected["final"]).max() < 5e-6
    assert np.abs(cells.mean(-1).numpy() - expected["heads_mean"]).max() < 5e-6
    assert np.abs(cells.std(-1).numpy() - expected["heads_std"]).max() < 5e-6
    assert np.abs(cells.amax(-1).numpy() - expected["heads_max"]).max() < 5e-6


@pytest.mark.shared
def test_the_golden_prm_holds(golden):
    state, _, expected = golden("prm17")
    x = torch.from_numpy(np.random.default_rng(7).standard_normal((2, 17, 64, 48)).astype(np.float32))
    model = load_checkpoint(PRM(17), state).eval()
    with torch.no_grad():
        assert np.abs(model(x).numpy() - next(iter(expected.values()))).max() < 5e-6


# Round trips


@pytest.mark.parametrize(
    "fields", [{}, {"stages": 2}, {"block": "bottleneck"}, {"block": "bottleneck", "expansion": 4}]
)
def test_to_the_released_format_and_back_is_identical(tmp_path, fields):
    model = small(**fields)
    save_checkpoint(model, tmp_path / "rsn.pth", format="rsn")
    assert_same(load_checkpoint(small(seed=1, **fields), tmp_path / "rsn.pth"), tensors(model))


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"stages": 2, "branches": 3},
        {"block": "bottleneck", "expansion": 4, "stages": 2},
        {**MMPOSE_PRM, "stages": 2},
    ],
)
def test_to_mmpose_and_back_gives_the_same_heatmaps(tmp_path, fields):
    model = small(**fields)
    save_checkpoint(model, tmp_path / "mmpose.pth", format="mmpose")
    again = load_checkpoint(small(seed=1, **fields), tmp_path / "mmpose.pth")
    images = torch.randn(2, 3, *SMALL)
    with torch.no_grad():
        heads = model.heads(images)
        torch.testing.assert_close(again.heads(images), heads, rtol=0, atol=1e-5 * heads.abs().max().item())
    assert not again.stem.conv.bias.any()


def test_a_released_file_is_bgr(tmp_path):
    model = small()
    save_checkpoint(model, tmp_path / "rsn.pth", format="rsn")
    written = torch.load(tmp_path / "rsn.pth", weights_only=True)["model"]
    assert torch.equal(written["top.conv.conv.weight"], model.stem.conv.weight.flip(1))


@pytest.mark.shared
@pytest.mark.parametrize(
    ("name", "model", "format"),
    [
        ("4xrsn18_coco", "4xrsn18", "rsn"),
        ("2xmspn50_coco", "2xmspn50", "rsn"),
        ("mmpose_2xrsn50", "2xrsn50-mmpose", "mmpose"),
        ("mmpose_rsn18_prm", MMPOSE_PRM, "mmpose"),
    ],
)
def test_written_files_have_the_names_and_shapes_of_the_original(shared, tmp_path, name, model, format):
    save_checkpoint(create_model(model), tmp_path / "weights.pth", format)
    (written,) = [value for value in torch.load(tmp_path / "weights.pth", weights_only=True).values() if value]
    theirs = json.loads((shared / "goldens" / f"{name}.json").read_text())["state_dict"]
    assert {key: list(tensor.shape) for key, tensor in written.items()} == theirs


def test_our_own_file_says_what_it_is(tmp_path):
    model = small(stages=2, attention="se", attention_at="every")
    save_model(model, tmp_path / "ours.safetensors", {"dataset": "demo", "params": "0123456789ab"})
    again = load_model(tmp_path / "ours.safetensors")
    assert again.architecture == model.architecture
    assert (again.keypoints, again.input_size) == (5, SMALL)
    assert (again.about["dataset"], again.about["params"]) == ("demo", "0123456789ab")
    assert_same(again, tensors(model))


def test_a_file_from_before_a_field_was_there_has_its_default(tmp_path):
    model = small(stages=2)
    path = tmp_path / "ours.safetensors"
    save_model(model, path)
    with safe_open(path, "pt") as file:
        about = json.loads(file.metadata()["rsnlib"])
    del about["architecture"]["cross_stage"]
    save_file(tensors(model), path, {"rsnlib": json.dumps(about)})
    assert load_model(path).architecture == model.architecture


@pytest.mark.parametrize(
    ("fields", "format", "why"),
    [
        ({"stages": 2, "cross_stage": False}, "rsn", "cross_stage: false"),
        ({"stages": 2, "cross_stage": False}, "mmpose", "cross_stage: false"),
        ({"attention": "prm"}, "rsn", "attention 'prm'.*never call"),
        ({"attention": "se"}, "rsn", "attention 'se'"),
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
    save_checkpoint(small(), tmp_path / "mmpose.pth", format="mmpose")
    state = torch.load(tmp_path / "mmpose.pth", weights_only=True)["state_dict"]
    return state, tensors(load_checkpoint(small(seed=1), tmp_path / "mmpose.pth"))


def test_a_bare_state_dict_needs_no_wrapping(tmp_path, mmpose_state):
    state, expected = mmpose_state
    torch.save(state, tmp_path / "bare.pth")
    assert_same(load_checkpoint(small(seed=1), tmp_path / "bare.pth"), expected)
    assert_same(load_checkpoint(small(seed=1), state), expected)


def test_the_head_may_have_its_name_of_mmpose_0(mmpose_state):
    state, expected = mmpose_state
    old = {("keypoint_" + name if name.startswith("head.") else name): tensor for name, tensor in state.items()}
    assert_same(load_checkpoint(small(seed=1), old), expected)


def test_data_parallel_leaves_a_prefix(tmp_path):
    model = small()
    save_checkpoint(model, tmp_path / "rsn.pth", format="rsn")
    state = torch.load(tmp_path / "rsn.pth", weights_only=True)["model"]
    torch.save({"model": {f"module.{name}": tensor for name, tensor in state.items()}}, tmp_path / "parallel.pth")
    assert_same(load_checkpoint(small(seed=1), tmp_path / "parallel.pth"), tensors(model))


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


@pytest.fixture
def released(tmp_path):
    """A small released checkpoint: its path and its state dict."""
    path = tmp_path / "released.pth"
    save_checkpoint(small(), path, format="rsn")
    return path, torch.load(path, weights_only=True)["model"]


def refusal(path):
    """Why `path` is refused; the network stays as it was."""
    model = small(seed=1)
    before = tensors(model)
    with pytest.raises(UserError) as refused:
        load_checkpoint(model, path)
    assert_same(model, before)
    assert str(path) in str(refused.value)
    return str(refused.value)


def test_a_renamed_tensor_is_named_in_the_files_own_words(released):
    path, state = released
    state["top.conv.conv.wait"] = state.pop("top.conv.conv.weight")
    torch.save({"model": state}, path)
    why = refusal(path)
    assert "top.conv.conv.weight is missing" in why
    assert "top.conv.conv.wait does not belong" in why


def test_a_tensor_of_another_shape_is_named(released):
    path, state = released
    state["top.conv.bn.weight"] = torch.ones(32)
    torch.save({"model": state}, path)
    assert "top.conv.bn.weight has shape (32,), not (64,)" in refusal(path)


def test_a_missing_linear_bias_of_mmpose_is_no_zero(tmp_path):
    model = small(**MMPOSE_PRM)
    save_checkpoint(model, tmp_path / "mmpose.pth", format="mmpose")
    state = torch.load(tmp_path / "mmpose.pth", weights_only=True)["state_dict"]
    del state["head.predict_layers.0.prm.middle_path.3.bias"]
    with pytest.raises(UserError, match=r"head\.predict_layers\.0\.prm\.middle_path\.3\.bias is missing"):
        load_checkpoint(model, state)


@pytest.mark.parametrize("keep", [0.5, 0.999, 0.001])
def test_a_truncated_file_is_refused(released, keep):
    path, _ = released
    whole = path.read_bytes()
    path.write_bytes(whole[: int(keep * len(whole))])
    assert "damaged or cut short" in refusal(path)


def test_a_truncated_safetensors_file_is_refused(tmp_path):
    path = tmp_path / "ours.safetensors"
    save_model(small(), path)
    path.write_bytes(path.read_bytes()[:-1000])
    assert "damaged or cut short" in refusal(path)


class Harmful:
    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


def test_a_file_that_would_execute_code_is_refused(tmp_path):
    path, trace = tmp_path / "harmful.pth", tmp_path / "trace"
    torch.save({"model": Harmful(f"touch {trace}")}, path)
    assert f"asks for {os.system.__module__}.system, which could execute code" in refusal(path)
    assert not trace.exists()


@pytest.mark.parametrize("protocol", [0, 2, pickle.DEFAULT_PROTOCOL])
@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_a_plain_pickle_that_would_execute_code_is_refused(tmp_path, protocol):
    path, trace = tmp_path / "harmful.pkl", tmp_path / "trace"
    path.write_bytes(pickle.dumps({"model": Harmful(f"touch {trace}")}, protocol))
    assert "could execute code" in refusal(path)
    assert not trace.exists()


def test_a_web_page_is_refused(tmp_path):
    path = tmp_path / "weights.pth"
    path.write_text("\n<!DOCTYPE html><html><body>Sign in to download</body></html>")
    assert "a web page" in refusal(path)


def test_a_file_of_something_else_is_refused(tmp_path):
    torch.save({"epoch": 3}, tmp_path / "else.pth")
    assert "holds no state dict" in refusal(tmp_path / "else.pth")
    assert "No such file" in refusal(tmp_path / "nowhere.pth")
