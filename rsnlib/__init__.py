"""Residual Steps Network for multi-person pose estimation: networks, training, evaluation, tables and figures."""

from rsnlib.apps.onnx import export_onnx
from rsnlib.data.targets import heatmap_targets
from rsnlib.errors import UserError
from rsnlib.fast.folded import fuse
from rsnlib.inference.decode import decode_heatmaps
from rsnlib.inference.predict import predict
from rsnlib.metrics import coco_ap, pckh
from rsnlib.models.checkpoints import load_checkpoint, load_model, save_checkpoint, save_model
from rsnlib.models.zoo import create_model, list_models

__all__ = [
    "UserError",
    "coco_ap",
    "create_model",
    "decode_heatmaps",
    "export_onnx",
    "fuse",
    "heatmap_targets",
    "list_models",
    "load_checkpoint",
    "load_model",
    "pckh",
    "predict",
    "save_checkpoint",
    "save_model",
]
