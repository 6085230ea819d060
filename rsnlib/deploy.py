"""Networks for use elsewhere: batch norms folded away, ONNX files."""

import contextlib
import copy
import io
import logging

import numpy as np
import torch
from torch.nn.utils.fusion import fuse_conv_bn_eval

from rsnlib.models.blocks import ConvNorm
from rsnlib.models.native import PRECISIONS
from rsnlib.runtime import UserError, check_writable, whole_file

ONEDNN = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_convolution_pointwise")
TOLERANCE = 1e-4  # of the highest peak


def fuse(model):
    """A copy of `model` for inference, every batch norm folded into its convolution: the same heatmaps, faster. Save
    the model itself; a fused one has no batch norms to load or train. A model without any is returned as it is."""
    if not any(isinstance(module, torch.nn.BatchNorm2d) for module in model.modules()):
        return model
    fused = copy.deepcopy(model).eval()
    for module in fused.modules():
        if isinstance(module, ConvNorm):
            module.conv = fuse_conv_bn_eval(module.conv, module.bn)
            module.bn = torch.nn.Identity()
            module.__class__ = Folded
    return fused.requires_grad_(False).to(memory_format=torch.channels_last)


class Folded(ConvNorm):
    """A ConvNorm whose batch norm is folded into its convolution: on a CPU with oneDNN, sum and ReLU are as well."""

    def forward(self, x, other=None):
        if x.device.type != "cpu" or not ONEDNN or torch.compiler.is_compiling() or x.dtype not in PRECISIONS:
            return super().forward(x, other)
        conv, relu = self.conv, "relu" if self.relu else None
        shape = conv.weight, conv.bias, conv.padding, conv.stride, conv.dilation, conv.groups
        if other is None:
            return torch.ops.mkldnn._convolution_pointwise(x, *shape, relu or "none", [], None)
        return torch.ops.mkldnn._convolution_pointwise.binary(x, other, *shape, "add", 1.0, relu, [], None)


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
