"""Weights of ours and of everyone else: read, written, refused."""

import importlib.util
import json
import os
import pickle
import re
import sys
from types import ModuleType

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from rsnlib.__main__ import main
from rsnlib.errors import UserError
from rsnlib.inference.predict import skeleton_of
from rsnlib.models.attention import PRM
from rsnlib.models.checkpoints import load_checkpoint, load_model, read_weights, save_checkpoint, save_model
from rsnlib.models.foreign import foreign_names
from rsnlib.models.torch_files import read_torch_file
from rsnlib.models.zoo import create_model, describe
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
    ("name", "network", "keypoints"),
    [
        ("rsn18_coco", "rsn18", 17),
        ("res18_coco", "res18", 17),
        ("4xrsn18_coco", "4xrsn18", 17),
        ("rsn18_mpii", "rsn18", 16),
        ("2xmspn50_coco", "2xmspn50", 17),
        ("mmpose_rsn18", "rsn18", 17),
        ("mmpose_rsn50", "rsn50-mmpose", 17),
        ("mmpose_2xrsn50", "2xrsn50-mmpose", 17),
        ("mmpose_rsn18_prm", "rsn18-prm-mmpose", 17),
    ],
)
def test_every_golden_network_is_recognised_and_holds(golden, tmp_path, name, network, keypoints):
    state, images, expected = golden(name)
    path = tmp_path / "weights.pth"
    torch.save({"state_dict" if name.startswith("mmpose") else "model": state}, path)
    model = load_model(path)
    assert (describe(model.architecture), model.keypoints, model.input_size) == (network, keypoints, images.shape[-2:])
    assert f"input size {model.input_size[0]}x{model.input_size[1]}" in model.about["assumed"]
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


@pytest.mark.parametrize("format", ["rsn", "mmpose"])
def test_the_command_converts_to_others_and_back_and_keeps_what_ours_says(tmp_path, monkeypatch, capsys, format):
    monkeypatch.chdir(tmp_path)
    model, about = small(), {"dataset": "demo", "skeleton": {"name": "x"}, "margin": [0.1, 0.2]}
    save_model(model, "ours.safetensors", about)
    for names in (["ours.safetensors", "theirs.pth", "--format", format], ["theirs.pth", "back.safetensors"]):
        monkeypatch.setattr(sys, "argv", ["rsnlib", "convert", *names])
        main()
    again = load_model("back.safetensors")
    assert (again.architecture, again.input_size) == (model.architecture, SMALL)
    assert again.about == load_model("ours.safetensors").about
    if format == "rsn":
        assert_same(again, tensors(model))
    for names in (["ours.safetensors", "theirs.pth"], ["ours.safetensors", "a.safetensors", "--format", "rsn"]):
        monkeypatch.setattr(sys, "argv", ["rsnlib", "convert", *names])
        with pytest.raises(SystemExit, match=rf"{names[1]}: ours are named \.safetensors, others' otherwise"):
            main()


def test_of_others_files_the_command_says_what_it_takes_them_for(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    torch.save(saved(small(), "bare.pth", "mmpose"), "bare.pth")
    monkeypatch.setattr(sys, "argv", ["rsnlib", "convert", "bare.pth", "ours.safetensors"])
    main()
    said = r"bare\.pth: block residual_steps, depths .*, 5 keypoints, weights of MMPose; input size 256x192: .*\n"
    assert re.fullmatch(said, capsys.readouterr().err)
    assert load_model("ours.safetensors").about["source"] == "MMPose"


# What may lie around a state dict


@pytest.fixture
def elsewhere(monkeypatch):
    """Write a file as a program does that has classes of its own: elsewhere(path, contents, **options), where contents
    is a function of a function of a class's module and name that makes an instance. Reading finds no such classes."""

    def instance(module, name, base=object, **values):
        kind = type(name, (base,), {"__module__": module})
        for parent in [module[:end] for end, letter in enumerate(module) if letter == "."] + [module]:
            monkeypatch.setitem(sys.modules, parent, ModuleType(parent))
        setattr(sys.modules[module], name, kind)
        made = kind()
        vars(made).update(values)
        return made

    def write(path, contents, **options):
        torch.save(contents(instance), path, **options)
        monkeypatch.undo()

    return write


COCO_META = {
    "dataset_name": "coco",
    "keypoint_id2name": dict(enumerate(["nose", "left_eye", "right_eye"])),
    "flip_indices": [0, 2, 1],
    "sigmas": np.array([0.026, 0.025, 0.025], np.float32),
    "keypoint_colors": np.array([[51, 153, 255]] * 3, np.uint8),
}
CONFIG = "codec = [dict(heatmap_size=(48, 64), input_size=(\n    192,\n    256,\n), type='MegviiHeatmap')]\n"


def runner(state, instance, **more):
    """Return what mmengine's runner saves for MMPose 1.x."""
    network = torch.nn.Linear(2, 2)
    optimiser = torch.optim.Adam(network.parameters())
    network(torch.ones(2)).sum().backward()
    optimiser.step()
    history = {"_log_history": np.arange(3.0), "_count_history": np.ones(3, np.int64), "_max_length": 10}
    buffer = instance("mmengine.logging.history_buffer", "HistoryBuffer", **history)
    config = instance("mmengine.config.config", "ConfigDict", dict, type="TopdownPoseEstimator")
    meta = {"epoch": 210, "iter": 98280, "cfg": CONFIG, "seed": 0, "mmengine_version": "0.10.7", "model": config}
    hub = {"log_scalars": {"train/loss": buffer}, "runtime_info": {"seed": np.int64(0)}, "resumed_keys": {}}
    preprocessor = {"data_preprocessor.mean": torch.ones(3, 1, 1), "data_preprocessor.std": torch.ones(3, 1, 1)}
    return {
        "meta": meta | {"dataset_meta": COCO_META},
        "state_dict": state | preprocessor,
        "message_hub": hub,
        "optimizer": optimiser.state_dict(),
        "param_schedulers": [{"last_step": 1, "_global_step": np.float64(2)}],
        **more,
    }


def older(state, instance):
    """Return what MMPose 0.x publishes."""
    names = {re.sub("^head", "keypoint_head", name): tensor for name, tensor in state.items()}
    return {"meta": {"mmpose_version": "0.9.0", "config": CONFIG.replace("input", "image")}, "state_dict": names}


def averaged(state, instance):
    return runner(state, instance, ema_state_dict={f"module.{n}": t + 1 for n, t in state.items()} | {"steps": 7})


def raw(state, instance):
    """Return what the released RSN and MSPN code saves while it trains."""
    scheduler = instance("lib.utils.solver", "WarmupScheduler", base_lrs=[5e-4])
    return {"model": state, "optimizer": runner({}, instance)["optimizer"], "scheduler": scheduler, "iteration": 96000}


def lightning(state, instance):
    parameters = instance("argparse_like", "Namespace", lr=np.float32(5e-4))
    state = {f"model.{name}": tensor for name, tensor in state.items()}
    return {"epoch": 3, "state_dict": state, "hyper_parameters": parameters, "callbacks": {"Checkpoint": {"best": 1}}}


@pytest.mark.shared
@pytest.mark.parametrize("old", [False, True], ids=["zip", "legacy"])
@pytest.mark.parametrize(
    ("name", "contents"),
    [
        ("mmpose_rsn18", runner),
        ("mmpose_rsn18", older),
        ("mmpose_rsn18", averaged),
        ("mmpose_rsn18", lightning),
        ("rsn18_coco", raw),
        ("rsn18_coco", lambda state, _: {"model": {f"module.{name}": tensor for name, tensor in state.items()}}),
        ("rsn18_coco", lambda state, _: {name: tensor.clone() for name, tensor in state.items()}),
    ],
    ids=["mmengine", "MMPose 0.x", "moving average", "Lightning", "released", "DataParallel", "bare"],
)
def test_whatever_lies_around_weights_they_give_the_goldens_heatmaps(golden, elsewhere, tmp_path, name, contents, old):
    state, images, expected = golden(name)
    path = tmp_path / "weights.pth"
    elsewhere(path, lambda instance: contents(state, instance), _use_new_zipfile_serialization=not old)
    model = load_model(path)
    assert model.about["model"] == "rsn18"
    assert ("assumed" in model.about) == (contents not in (runner, older, averaged))  # a configuration tells the size
    assert model.about.get("skeleton") == ("coco" if contents in (runner, averaged) else None)
    with torch.no_grad():
        heatmaps = model(torch.from_numpy(images[:1])).numpy()
    assert np.abs(heatmaps - expected["final"][:1]).max() < 5e-6


def test_half_precision_is_widened(tmp_path):
    model = small()
    torch.save({"model": {name: tensor.half() for name, tensor in model.state_dict().items()}}, tmp_path / "half.pth")
    again = load_model(tmp_path / "half.pth")
    assert_same(again, {name: tensor.half().to(tensor.dtype) for name, tensor in tensors(model).items()})


@pytest.mark.parametrize(
    "fields",
    [
        {"depths": [1, 2, 3, 1], "branches": 3, "branch_width": 20},
        {"stages": 2, "block": "res2net", "expansion": 2, "depths": [2, 1, 1, 1]},
        {"stages": 3, "cross_stage": False, "expansion": 4, "branch_width": 24, "width_of": "base"},
        {"stages": 2, "attention": "cbam", "attention_at": "every", "block": "bottleneck"},
        {"attention": "se", "width": 0.5},
    ],
)
def test_networks_without_a_name_are_told_by_names_and_shapes(tmp_path, fields):
    model = small(**fields)
    save_file(tensors(model), tmp_path / "bare.safetensors")
    again = load_model(tmp_path / "bare.safetensors")
    assert again.architecture == model.architecture
    assert (again.keypoints, again.input_size) == (5, (256, 192))
    assert_same(again, tensors(model))


def test_mmposes_meta_tells_the_skeleton(tmp_path):
    names = ["nose", "right_ear", "left_ear", "neck", "tail"]
    birds = {"dataset_name": "birds", "keypoint_id2name": dict(enumerate(names)), "flip_pairs": [[1, 2]]}
    birds |= {"skeleton_links": [(0, 3), (3, 4)], "upper_body_ids": [0, 1, 2, 3], "sigmas": np.full(5, 0.1)}
    state = saved(small(), tmp_path / "birds.pth", format="mmpose")
    torch.save({"meta": {"dataset_meta": birds}, "state_dict": state}, tmp_path / "birds.pth")
    skeleton = skeleton_of(load_model(tmp_path / "birds.pth"))
    assert (skeleton.name, skeleton.keypoints, skeleton.mirror) == ("birds", tuple(names), ((2, 1),))  # left, right


def test_weights_by_our_names_need_no_network_to_fit(tmp_path):
    model = small(stages=2)
    state = saved(model, tmp_path / "mmpose.pth", format="mmpose")
    other = {**state, "head.another.weight": torch.ones(3)}
    del other["head.predict_layers.0.conv_layers.0.conv.weight"]
    torch.save({"state_dict": other}, tmp_path / "mmpose.pth")
    read = read_weights(tmp_path / "mmpose.pth")
    assert set(tensors(model)) - set(read) == {"stages.0.heads.0.features.conv.weight"}
    assert torch.equal(read["stages.1.heads.3.heatmaps.conv.weight"], model.stages[1].heads[3].heatmaps.conv.weight)
    assert not read["stem.conv.bias"].any()
    saved(model, tmp_path / "rsn.pth", format="rsn")
    assert torch.equal(read_weights(tmp_path / "rsn.pth")["stem.conv.weight"], model.stem.conv.weight)  # RGB


@pytest.fixture
def mmpose_state(tmp_path):
    """A small MMPose state dict, and the weights it gives."""
    state = saved(small(), tmp_path / "mmpose.pth", format="mmpose")
    return state, tensors(load_checkpoint(small(seed=1), tmp_path / "mmpose.pth"))


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


def test_a_file_of_another_network_is_refused_with_the_nearest(tmp_path):
    state = saved(create_model("rsn18", 17), tmp_path / "a.pth", "rsn")
    del state["top.conv.bn.weight"]
    torch.save({"model": state}, tmp_path / "a.pth")
    why = r"a\.pth \(rsn names\): the network nearest to it is rsn18 with 17 .* fit: top\.conv\.bn\.weight is missing$"
    with pytest.raises(UserError, match=why):
        load_model(tmp_path / "a.pth")
    torch.save({f"{name}.top.conv.conv.weight": torch.ones(1) for name in ("student", "teacher")}, tmp_path / "a.pth")
    with pytest.raises(UserError, match=r"a\.pth: holds several networks.*'student\.', 'teacher\.'"):
        load_model(tmp_path / "a.pth")
    torch.save({"conv1.weight": torch.ones(64, 3, 7, 7), "fc.bias": torch.ones(1000)}, tmp_path / "a.pth")
    with pytest.raises(UserError, match=r"a\.pth: 2 tensors for 8 blocks"):
        load_model(tmp_path / "a.pth")


@pytest.mark.parametrize("keep", [0.001, 0.5, 0.999])
def test_a_truncated_file_is_refused(tmp_path, keep):
    save_checkpoint(small(), tmp_path / "cut.pth", format="rsn")
    save_model(small(), tmp_path / "cut.safetensors")
    for file in tmp_path.iterdir():
        whole = file.read_bytes()
        file.write_bytes(whole[: int(keep * len(whole))])
        assert "damaged or cut short" in refusal(file)


class Harmful:
    """A pickle of one makes a folder where it is trusted."""

    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


@pytest.mark.parametrize("old", [False, True], ids=["zip", "legacy"])
@pytest.mark.parametrize("protocol", [2, pickle.HIGHEST_PROTOCOL])
@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_code_in_a_file_is_not_executed_and_the_weights_beside_it_load(tmp_path, protocol, old):
    path, trace, state = tmp_path / "harmful.pth", tmp_path / "trace", tensors(small())
    harmful = Harmful(trace)
    hidden = {"hook": harmful, "array": np.array([harmful], object), "set": {1: {harmful}}, harmful: [harmful]}
    options = {"pickle_protocol": protocol, "_use_new_zipfile_serialization": not old}
    torch.save({"meta": hidden, "state_dict": state, "optimizer": harmful}, path, **options)
    assert_same(load_checkpoint(small(seed=1), path), state)
    torch.save(state | {"stem.conv.weight": harmful}, path, **options)
    assert "stem.conv.weight is not stored as plain real numbers" in refusal(path)
    torch.save(harmful, path, **options)
    assert "holds no state dict" in refusal(path)
    path.write_bytes(pickle.dumps({"model": harmful}, protocol))
    assert "no file of torch.save" in refusal(path)
    assert not trace.exists()
    pickle.loads(path.read_bytes())
    assert trace.exists()  # a reader that trusts the file does execute it


def test_a_state_that_a_file_gives_to_a_function_changes_nothing(tmp_path):
    state = b"(N}X\x0c\x00\x00\x00__defaults__K\x01\x85st"  # (None, {"__defaults__": (1,)})
    program = b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n" + state + b"b."
    before = [pickle.dumps(value, 2) for value in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True})]
    (tmp_path / "a.pth").write_bytes(b"".join([*before, program, pickle.dumps([], 2)]))
    assert read_torch_file(tmp_path / "a.pth").__defaults__ is None
    assert pickle.loads(program).__defaults__ == (1,)  # as pickle would have it
    torch._utils._rebuild_tensor_v2.__defaults__ = (None,)


def test_a_file_of_something_else_is_refused(tmp_path):
    (tmp_path / "page.pth").write_text("\n<!DOCTYPE html><html><body>Sign in to download</body></html>")
    torch.save({"epoch": 3}, tmp_path / "else.pth")
    for name, why in (("page", "a web page"), ("else", "holds no state dict"), ("nowhere", "No such file")):
        assert why in refusal(tmp_path / f"{name}.pth")
