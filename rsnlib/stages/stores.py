"""Crop stores that the stage `prepare` left, loaded by the names of params.yaml."""

from dataclasses import replace

import numpy as np

from rsnlib.config import load_params
from rsnlib.data.store import CropStore
from rsnlib.errors import UserError
from rsnlib.stages.layout import crops_path, data_path


def load_store(dataset, split, model=None):
    """Return the crop store of "train" or "val", its pictures' paths as this machine has them.

    model: name of a model, for crops of the size that the model sees; None: of the data set's own
    """
    params = load_params()
    settings = params.dataset(dataset, model)
    store = CropStore(crops_path(dataset, split, params.model(model).training.input_size if model else "own"))
    if store.input_size != settings.input_size:
        raise UserError(f"{store.path}: made for another input_size; run the stage `prepare` again")
    skeleton = params.skeleton(settings)
    if skeleton.description != store.people.skeleton.description:
        raise UserError(f"{store.path}: made for another skeleton; make it again: `dvc repro prepare@{dataset}`")
    folder = data_path(dataset)
    images = np.array([str(folder / image) for image in store.people.images])
    store.people = replace(store.people, images=images, skeleton=skeleton)
    return store


def pictures(dataset):
    """Return the pictures of the validation people, in order: {image id: (path, upright)}, as `read_image` takes."""
    people = load_store(dataset, "val").people
    paths, first = np.unique(people.images, return_index=True)
    ways = zip(paths.tolist(), people.upright[first].tolist())
    return dict(zip(people.image_ids[first].tolist(), ways))
