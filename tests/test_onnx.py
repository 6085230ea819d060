"""Networks for use elsewhere give the network's own heatmaps."""

import sys

import numpy as np
import onnxruntime
import pytest
import torch

from rsnlib.__main__ import main
from rsnlib.apps.onnx import export_onnx
from rsnlib.errors import UserError
from rsnlib.models.checkpoints import save_model
from rsnlib.models.zoo import create_model

SMALL = (64, 32)


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


@pytest.mark.parametrize("fields", [{}, {"stages": 2, "attention": "prm"}])
def test_onnx_gives_the_same_heatmaps_for_any_batch(tmp_path, fields):
    model = trained(fields).train()  # however it comes, it is exported for inference
    path = tmp_path / "network.onnx"
    assert export_onnx(model, path) < 1e-4
    assert model.training
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    for people in (1, 5):
        images = torch.randn(people, 3, *SMALL)
        (heatmaps,) = session.run(["heatmaps"], {"images": images.numpy()})
        expected = model.eval()(images).detach().numpy()
        assert heatmaps.shape == expected.shape
        assert np.abs(heatmaps - expected).max() < 1e-4 * np.abs(expected).max()
    assert [file.name for file in tmp_path.iterdir()] == ["network.onnx"]


@pytest.mark.parametrize(("found", "said"), [(0.5, r"5\.0e-01"), (float("nan"), "nan")])
def test_an_export_that_differs_leaves_no_file(tmp_path, monkeypatch, found, said):
    monkeypatch.setattr("rsnlib.apps.onnx._difference", lambda contents, model: found)
    with pytest.raises(UserError, match=rf"network\.onnx: not written: .* from the network by {said} of the peak"):
        export_onnx(trained({}), tmp_path / "network.onnx")
    assert not list(tmp_path.iterdir())


def test_where_no_file_can_be_written_nothing_is_exported(tmp_path):
    (tmp_path / "file").write_text("a user's")
    with pytest.raises(UserError, match="file/network.onnx: cannot be written .*file is a file, not a folder"):
        export_onnx(None, tmp_path / "file/network.onnx")


def test_the_command_exports_a_file_of_ours_alone(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    save_model(trained({}), "ours.safetensors")
    monkeypatch.setattr(sys, "argv", ["rsnlib", "export", "ours.safetensors", "ours.onnx"])
    main()
    assert capsys.readouterr().out.startswith("ours.onnx: 64x32 images, within ")
    session = onnxruntime.InferenceSession("ours.onnx", providers=["CPUExecutionProvider"])
    (heatmaps,) = session.run(None, {"images": np.zeros((1, 3, *SMALL), np.float32)})
    assert heatmaps.shape == (1, 5, 16, 8)
    monkeypatch.setattr(sys, "argv", ["rsnlib", "export", "nowhere.safetensors", "other.onnx"])
    with pytest.raises(SystemExit, match="^error: nowhere.safetensors: no such file"):
        main()
