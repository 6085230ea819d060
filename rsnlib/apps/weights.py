"""Weights by name: those trained in this project, those in its folder weights/, and those that others published."""

import difflib
import json
from pathlib import Path

import pandas as pd
import safetensors

from rsnlib.errors import UserError
from rsnlib.files import read_json
from rsnlib.models import checkpoints
from rsnlib.models.published import PUBLISHED, published_file
from rsnlib.stages.artifacts import trained_weights
from rsnlib.stages.layout import results_path
from rsnlib.stages.networks import published_weights


def list_weights():
    """Return the weights that `load_model` knows by name, the project's own first: a data frame, one row each, columns
    name, network, keypoints, input (height x width), data (trained on), AP and AR (published ones on COCO's validation
    pictures in a detector's boxes) and PCK, per cent, licence and file: a path or, before the download, an address."""
    table = published_weights()
    table.insert(table.columns.get_loc("AR") + 1, "PCK", float("nan"))
    kept = [PUBLISHED[name] for name in table["name"]]
    table["file"] = [str(each.path) if each.path.is_file() else each.url for each in kept]
    own = [_describe(name, path) for name, path in trained_weights().items()]
    table = pd.DataFrame(own + table.to_dict("records"), columns=table.columns)
    return table.astype({"keypoints": "Int64"})  # some may be missing


def _describe(name, path):
    """Return the row of `list_weights` of a file of ours; what the file does not say stays empty."""
    try:
        with safetensors.safe_open(path, "pt") as file:
            about = json.loads(file.metadata()["rsnlib"])
    except (OSError, KeyError, TypeError, ValueError, safetensors.SafetensorError):
        about = {}
    known = {"network": "model", "keypoints": "keypoints", "data": "dataset", "licence": "licence"}
    row = {"name": name, "file": str(path)} | {column: about.get(key) for column, key in known.items()}
    row["input"] = "x".join(map(str, about.get("input_size", ())))
    metrics = results_path(path.parent.name, "evaluate", f"{path.stem}.json")
    metrics = read_json(metrics) if metrics.is_file() else about.get("metrics", {})
    factors = {"AP": ("AP", 100), "AR": ("AR", 100), "PCK": ("Mean", 1)}
    return row | {column: by * metrics[key] for column, (key, by) in factors.items() if key in metrics}


def find_weights(path_or_name):
    """Return the path of a file, or of the weights of `list_weights` that have that name, downloaded if they are not
    here yet. Raises UserError for one that is neither, with the nearest names."""
    path, name = Path(path_or_name), str(path_or_name)
    if path.is_file():
        return path
    if name in PUBLISHED:
        return published_file(name)
    own = trained_weights()
    if name in own:
        return own[name]
    near = difflib.get_close_matches(name, [*own, *PUBLISHED], cutoff=0.5)
    known = f"the nearest are {', '.join(near)}" if near else "`python -m rsnlib weights` lists the names"
    raise UserError(f"{name}: no such file, and no weights have that name; {known}")


def load_model(path_or_name):
    """Return the network of a file or of weights known by name (`list_weights`), ready to predict; of published weights
    the file is downloaded the first time. Otherwise as models.checkpoints.load_model, whose errors it raises, too."""
    return checkpoints.load_model(find_weights(path_or_name))
