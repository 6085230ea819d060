"""Residual Steps Network for multi-person pose estimation: networks, training, evaluation, tables and figures."""

from rsnlib.decode import decode_heatmaps
from rsnlib.deploy import export_onnx, fuse
from rsnlib.metrics import coco_ap, pckh
from rsnlib.models.checkpoints import load_checkpoint, load_model, save_checkpoint, save_model
from rsnlib.models.zoo import create_model, list_models
from rsnlib.predict import predict
from rsnlib.runtime import UserError
from rsnlib.targets import heatmap_targets

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
