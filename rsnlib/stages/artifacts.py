"""Networks and predictions that earlier stages left, loaded by the names of params.yaml."""

import numpy as np

from rsnlib.config import project_root
from rsnlib.errors import UserError
from rsnlib.files import read_json
from rsnlib.inference.predict import Poses
from rsnlib.metrics import match_by_box
from rsnlib.models.checkpoints import load_model
from rsnlib.stages.layout import predictions_path, weights_path
from rsnlib.stages.stores import load_store


def load_run(dataset, model, seed):
    """Return the trained network of a run."""
    return load_model(weights_path(dataset, model, seed))


def trained_weights():
    """Return {name: path} of the project's weights: as "data set/run" those under work/models, the newest first, then
    as "rsnlib/file" those in weights/. Outside of a project there are none."""
    try:
        root = project_root()
    except UserError:
        return {}
    runs = sorted(root.glob("work/models/*/*.safetensors"), key=lambda path: -path.stat().st_mtime)
    found = {f"{path.parent.name}/{path.stem}": path for path in runs}
    return found | {f"rsnlib/{path.stem}": path for path in sorted(root.glob("weights/*.safetensors"))}


def load_poses(dataset, model, seed):
    """Return everyone whom a run predicted in the validation pictures: image ids (P,) and Poses."""
    return read_poses(predictions_path(dataset, model, seed))


def read_poses(path):
    """Return everyone in a file of predictions: image ids (P,) and Poses."""
    results = read_json(path)
    values = np.array([result["keypoints"] for result in results]).reshape(len(results), -1, 3)
    image_ids, boxes, score = (np.array([result[key] for result in results]) for key in ("image_id", "box", "score"))
    return image_ids, Poses(values[..., :2], values[..., 2], boxes, score / values[..., 2].mean(axis=1), score)


def match_predictions(dataset, path):
    """Return the validation people and the predictions of a file, matched: keypoints (P, K, 2), NaN for people whom
    nobody predicted."""
    people = load_store(dataset, "val").people
    image_ids, poses = read_poses(path)
    return people, match_by_box(people, image_ids, poses.boxes, poses.keypoints)
