"""Networks for use elsewhere give the network's own heatmaps."""

import subprocess
import sys

import numpy as np
import onnxruntime
import pytest
import torch

from rsnlib.apps.onnx import export_onnx
from rsnlib.errors import UserError
from rsnlib.fast import folded as folding
from rsnlib.fast.folded import fuse
from rsnlib.models.blocks import ConvNorm
from rsnlib.models.checkpoints import save_model
from rsnlib.models.zoo import create_model

SMALL = (64, 32)
NETWORKS = [
    {},
    {"stages": 2},
    {"attention": "prm"},
    {"stages": 2, "attention": "prm-mmpose", "attention_at": "every"},
    {"block": "res2net", "attention": "cbam"},
    {"block": "bottleneck", "expansion": 4, "attention": "se"},
]
EXPORTED = [{}, {"stages": 2, "attention": "prm"}]


def trained(fields):
    """A small network whose batch norms have seen something."""
    torch.manual_seed(0)
    model = create_model({"depths": [1, 1, 1, 1], **fields}, keypoints=5, input_size=SMALL)
    for name, tensor in model.state_dict().items():
        if name.endswith(("bias", "running_mean")):
            tensor.normal_(0, 0.1)
        elif name.endswith("running_var"):
            tensor.uniform_(0.5, 1.5)
        elif tensor.dim() == 1:  # the weight of a batch norm, low enough for signals not to grow from block to block
            tensor.uniform_(0.4, 0.8)
    return model.eval()


def assert_close(heatmaps, expected):
    """Within 1e-4 of the peak."""
    assert heatmaps.shape == expected.shape
    assert (heatmaps - expected).abs().max() < 1e-4 * expected.abs().max()


@pytest.mark.parametrize("fields", NETWORKS)
def test_a_fused_network_gives_the_same_heads_without_batch_norms(fields):
    model = trained(fields)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    images = torch.randn(2, 3, *SMALL)
    fused = fuse(model)
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in fused.modules())
    with torch.no_grad():
        assert_close(fused.heads(images), model.heads(images))
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_a_depthwise_convolution_is_fused():
    torch.manual_seed(0)
    module = ConvNorm(6, 6, 9, groups=6).eval()
    module.bn.running_mean.normal_()
    module.bn.running_var.uniform_(0.5, 1.5)
    x = torch.randn(2, 6, 12, 10)
    with torch.no_grad():
        assert_close(fuse(module)(x), module(x))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("added", [False, True])
def test_onednn_gives_the_sum_and_the_relu_of_torch(monkeypatch, added, relu, dtype):
    torch.manual_seed(0)
    folded = fuse(ConvNorm(6, 8, 3, stride=2, relu=relu)).to(dtype)
    x, other = torch.randn(2, 6, 12, 10).to(dtype), torch.randn(2, 8, 6, 5).to(dtype) if added else None
    before = None if other is None else other.clone()
    assert folding.ONEDNN
    found = folded(x, other)
    assert other is None or other.equal(before)
    monkeypatch.setattr(folding, "ONEDNN", False)
    expected = folded(x, other)
    assert (found - expected).abs().max() <= (2**-7 if dtype == torch.bfloat16 else 1e-6) * expected.abs().max()


@pytest.mark.parametrize("fields", EXPORTED)
def test_onnx_gives_the_same_heatmaps_for_any_batch(tmp_path, fields):
    model = trained(fields).train()  # however it comes, it is exported for inference
    path = tmp_path / "network.onnx"
    assert export_onnx(model, path) < 1e-4
    assert model.training
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    for people in (1, 5):
        images = torch.randn(people, 3, *SMALL)
        (heatmaps,) = session.run(["heatmaps"], {"images": images.numpy()})
        with torch.no_grad():
            assert_close(torch.from_numpy(heatmaps), model.eval()(images))
    assert [file.name for file in tmp_path.iterdir()] == ["network.onnx"]


@pytest.mark.parametrize(("found", "said"), [(0.5, r"5\.0e-01"), (float("nan"), "nan")])
def test_an_export_that_differs_leaves_no_file(tmp_path, monkeypatch, found, said):
    monkeypatch.setattr("rsnlib.deploy._difference", lambda contents, model: found)
    with pytest.raises(UserError, match=rf"network\.onnx: not written: .* from the network by {said} of the peak"):
        export_onnx(trained({}), tmp_path / "network.onnx")
    assert not list(tmp_path.iterdir())


def test_where_no_file_can_be_written_nothing_is_exported(tmp_path):
    (tmp_path / "file").write_text("a user's")
    with pytest.raises(UserError, match="file/network.onnx: cannot be written .*file is a file, not a folder"):
        export_onnx(None, tmp_path / "file/network.onnx")


@pytest.mark.parametrize("fields", EXPORTED)
def test_torch_export_gives_the_same_heatmaps_for_any_batch(fields):
    model = trained(fields)
    batch = {"images": {0: torch.export.Dim("batch")}}
    exported = torch.export.export(model, (torch.randn(2, 3, *SMALL),), dynamic_shapes=batch).module()
    images = torch.randn(5, 3, *SMALL)
    with torch.no_grad():
        assert_close(exported(images), model(images))


def test_the_command_line_exports_a_file_of_ours(tmp_path):
    save_model(trained({}), tmp_path / "ours.safetensors")
    command = [
        sys.executable,
        "-m",
        "rsnlib",
        "export",
        str(tmp_path / "ours.safetensors"),
        str(tmp_path / "ours.onnx"),
    ]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "64x32" in done.stdout
    session = onnxruntime.InferenceSession(tmp_path / "ours.onnx", providers=["CPUExecutionProvider"])
    (heatmaps,) = session.run(None, {"images": np.zeros((1, 3, *SMALL), np.float32)})
    assert heatmaps.shape == (1, 5, 16, 8)


def test_the_command_line_refuses_what_is_no_model(tmp_path):
    command = [sys.executable, "-m", "rsnlib", "export", "nowhere.safetensors", str(tmp_path / "ours.onnx")]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr == "error: nowhere.safetensors: no such file\n"
