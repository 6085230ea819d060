"""Stage `prepare`: a data set as published to crop stores."""

from pathlib import Path

import numpy as np
import pandas as pd

from rsnlib.config import load_params
from rsnlib.data.augment import reach
from rsnlib.data.batches import cut_crops
from rsnlib.data.people import count_reasons
from rsnlib.data.readers import read_people
from rsnlib.data.store import write_crop_store
from rsnlib.errors import UserError
from rsnlib.stages.layout import crops_path, data_path
from rsnlib.stages.stores import load_store


def prepare(dataset):
    """Read a data set, check every file, write its crop stores; returns the people of each split, {split: People}."""
    params = load_params()
    settings = params.dataset(dataset)
    root = data_path(dataset)
    people = {}
    for split in ("train", "val"):
        given = settings.splits[split]
        how = settings.unusable, params.skeleton(settings), settings.boxes, settings.area, settings.exif
        found = read_people(root, settings.reader, given, *how)
        if not found.visible.any():
            raise UserError(f"params.yaml: datasets.{dataset}.splits.{split}: nobody in it has a labelled keypoint")
        far = reach(settings.augmentation) if split == "train" else None
        for size, input_size in ({"own": settings.input_size} | settings.more_input_sizes).items():
            write_crop_store(crops_path(dataset, split, size), found, input_size, settings.margin, far, root)
        people[split] = found
    return people


def describe(people):
    """Return what `prepare` found: a data frame, one row per split, with those passed over and left out as text."""
    rows = [
        {
            "split": split,
            "people": len(found),
            "pictures": found.image_count,
            "labelled keypoints": int((found.visible > 0).sum()),
            "passed over": count_reasons(found.passed_over),
            "left out": len(found.unusable),
            "why": "; ".join(f"{identity}: {reason}" for identity, reason in found.unusable),
            "marked as rotated": "; ".join(f"{Path(image).name}: {way}" for image, way in found.exif),
        }
        for split, found in people.items()
    ]
    return pd.DataFrame(rows)


def training_crops(dataset, people, variations):
    """Return the first `people` of the training split in `variations` draws each, as training sees them: crops,
    keypoints (N, K, 2) in the crops and visible (N, K)."""
    settings = load_params().dataset(dataset)
    store = load_store(dataset, "train")
    rows = np.repeat(np.arange(min(people, len(store))), variations)
    return cut_crops(rows, store, settings, np.random.default_rng(0))[0]
