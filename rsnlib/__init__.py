"""Residual Steps Network for multi-person pose estimation: networks, training, evaluation, tables and figures.

Names are imported when they are first used: a stage, or a machine that only trains, loads no more than it needs.
"""

import importlib

HOMES = {
    "UserError": "errors",
    "coco_ap": "metrics",
    "create_model": "models.zoo",
    "decode_heatmaps": "inference.decode",
    "export_onnx": "apps.onnx",
    "fuse": "fast",
    "heatmap_loss": "training.losses",
    "heatmap_targets": "data.targets",
    "list_models": "models.zoo",
    "list_weights": "apps.weights",
    "load_checkpoint": "models.checkpoints",
    "load_model": "apps.weights",
    "pckh": "metrics",
    "predict": "inference.predict",
    "save_checkpoint": "models.checkpoints",
    "save_model": "models.checkpoints",
}
__all__ = sorted(HOMES)


def __getattr__(name):
    if name not in HOMES:
        raise AttributeError(f"module 'rsnlib' has no attribute {name!r}")
    return getattr(importlib.import_module(f"rsnlib.{HOMES[name]}"), name)


def __dir__():
    return __all__
