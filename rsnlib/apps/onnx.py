"""ONNX files of trained networks."""

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


def export_onnx(model, path):
    """Write `model`, fused, as ONNX: `images` (N, 3, H, W) as the network takes them, `heatmaps` (N, K, H / 4, W / 4)
    for any N and the model's own input size. The file appears only after onnxruntime has computed the network's
    heatmaps with it, on random images, to 1e-4 of their peak; returns the largest difference over that peak.
    """
    check_writable(path)
    fused = fuse(model).cpu()
    images = torch.randn(2, 3, *model.input_size)
    with contextlib.redirect_stdout(io.StringIO()), _quiet("torch.onnx"):
        program = torch.onnx.export(
            fused,
            (images,),
            dynamo=True,
            input_names=["images"],
            output_names=["heatmaps"],
            dynamic_shapes={"images": {0: "batch"}},
            verbose=False,
        )
    contents = program.model_proto.SerializeToString()
    difference = _difference(contents, copy.deepcopy(model).cpu().eval())
    if not difference <= TOLERANCE:  # nor where it is not a number
        raise UserError(
            f"{path}: not written: what is exported differs from the network by {difference:.1e} of the peak"
        )
    with whole_file(path) as file:
        file.write(contents)
    return difference


def _difference(contents, model):
    """How far an ONNX file is from the network, over the highest peak, on a batch of another size."""
    import onnxruntime  # here, so that training does without it

    session = onnxruntime.InferenceSession(contents, providers=["CPUExecutionProvider"])
    images = torch.randn(3, 3, *model.input_size)
    with torch.no_grad():
        expected = model(images).numpy()
    (heatmaps,) = session.run(None, {"images": images.numpy()})
    return float(np.abs(heatmaps - expected).max() / np.abs(expected).max())


@contextlib.contextmanager
def _quiet(logger):
    """The exporter's remarks about its own workings are of no use to a reader."""
    level = logging.getLogger(logger).level
    logging.getLogger(logger).setLevel(logging.ERROR)
    try:
        yield
    finally:
        logging.getLogger(logger).setLevel(level)
