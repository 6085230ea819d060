"""A network and a person to look at where nothing was trained and no data set is at hand: paper.ipynb's."""

import tempfile
from pathlib import Path

import numpy as np
import torch

from rsnlib.apps.weights import load_model
from rsnlib.data.images import read_picture
from rsnlib.data.readers import read_people
from rsnlib.data.skeletons import COCO
from rsnlib.demo.annotate import draw_people
from rsnlib.models.zoo import create_model
from rsnlib.stages.artifacts import trained_weights


def example_network(attention=None):
    """Return a network and what to call it: of the folder weights/, else of the newest run, else one without training.

    attention: only networks with that attention, such as "prm"
    """
    found = trained_weights()
    for name in sorted(found, key=lambda name: not name.startswith("rsnlib/")):
        network = load_model(name)
        if attention in (None, network.architecture.attention):
            return network, name
    torch.manual_seed(0)
    return create_model("rsn18-prm", len(COCO), (128, 96)).eval(), "an untrained network"


def example_person(skeleton, seed=0):
    """Return a drawn person: the picture (H, W, 3) RGB, box (4,), keypoints (K, 2) in its pixels and visible (K,), by
    the names of `skeleton`; those that COCO lacks are not labelled."""
    with tempfile.TemporaryDirectory() as folder:
        draw_people(Path(folder) / "drawn", train=1, val=1, seed=seed)
        people = read_people(Path(folder) / "drawn", "coco", "val2017")
        picture = read_picture(people.images[0])
    keypoints, visible = np.zeros((len(skeleton), 2)), np.zeros(len(skeleton), int)
    for place, name in enumerate(skeleton.keypoints):
        if name in COCO.keypoints:
            keypoints[place] = people.keypoints[0, COCO.keypoints.index(name)]
            visible[place] = people.visible[0, COCO.keypoints.index(name)]
    return picture, people.boxes[0], keypoints, visible
