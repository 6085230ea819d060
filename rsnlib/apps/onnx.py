"""Trained networks as ONNX files."""

import contextlib
import copy
import io
import logging

import numpy as np
import torch

from rsnlib.errors import UserError
from rsnlib.fast.folded import fuse
from rsnlib.files import check_writable, whole_file

TOLERANCE = 1e-4  # of the highest peak
logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # a reader has no use for the exporter's inner workings


def export_onnx(model, path):
    """Write `model`, fused, as ONNX; return the largest difference of its heatmaps, as a fraction of their peak.

    The file takes `images` (N, 3, H, W), as the network does, and gives `heatmaps` (N, K, H / 4, W / 4), for any N and
    the model's own input size. It appears only after onnxruntime, on random images, has computed the network's heatmaps
    with it to 1e-4 of their peak; else UserError is raised.
    """
    check_writable(path)
    with contextlib.redirect_stdout(io.StringIO()):
        program = torch.onnx.export(
            fuse(model, "cpu"),
            (torch.randn(2, 3, *model.input_size),),
            dynamo=True,
            input_names=["images"],
            output_names=["heatmaps"],
            dynamic_shapes={"images": {0: "batch"}},
            verbose=False,
        )
    contents = program.model_proto.SerializeToString()
    difference = _difference(contents, copy.deepcopy(model).cpu().eval())
    if not difference <= TOLERANCE:  # a NaN is no better
        raise UserError(f"{path}: not written: the export differs from the network by {difference:.1e} of the peak")
    with whole_file(path) as file:
        file.write(contents)
    return difference


def _difference(contents, model):
    """Return the largest difference between an ONNX file's heatmaps and the network's, as a fraction of the peak, on a
    batch of another size than the exported one."""
    import onnxruntime  # here, so that training does without it

    session = onnxruntime.InferenceSession(contents, providers=["CPUExecutionProvider"])
    images = torch.randn(3, 3, *model.input_size)
    with torch.no_grad():
        expected = model(images).numpy()
    (heatmaps,) = session.run(None, {"images": images.numpy()})
    return float(np.abs(heatmaps - expected).max() / np.abs(expected).max())
