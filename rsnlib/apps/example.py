"""A network and people to look at where nothing was trained and no data set is at hand."""

import tempfile
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import torch

from rsnlib.apps.weights import load_model
from rsnlib.data.images import read_image
from rsnlib.data.readers import annotations_path, coco
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


def example_person(skeleton):
    """Return a drawn person: the picture (H, W, 3) RGB, box (4,), keypoints (K, 2) in its pixels and visible (K,)."""
    people = example_people(skeleton, 1)
    return read_image(people.images[0]), people.boxes[0], people.keypoints[0], people.visible[0]


def example_people(skeleton, count):
    """Return drawn `People` by the names of `skeleton`; the keypoints that COCO lacks are not labelled."""
    folder = Path(_folder().name) / str(count)
    if not folder.exists():
        draw_people(folder, train=1, val=count)
    people = coco.read(annotations_path(folder, "coco", "val2017"), folder / "images/val2017", "val2017")
    shape = len(people), len(skeleton)
    keypoints, visible = np.zeros((*shape, 2)), np.zeros(shape, int)
    for place, name in enumerate(skeleton.keypoints):
        if name in COCO.keypoints:
            drawn = COCO.keypoints.index(name)
            keypoints[:, place], visible[:, place] = people.keypoints[:, drawn], people.visible[:, drawn]
    return replace(people, skeleton=skeleton, keypoints=keypoints, visible=visible)


@cache
def _folder():
    """Return the temporary folder of the drawn pictures, there as long as the process is."""
    return tempfile.TemporaryDirectory()
