"""Readers: files as their authors publish them -> People."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from rsnlib.data.people import PERSON, People, check_images, summary
from rsnlib.data.readers import coco, lsp, mpii
from rsnlib.data.readers.detections import read_detections, withheld
from rsnlib.errors import UserError

__all__ = [
    "PERSON",
    "People",
    "annotations_path",
    "check_images",
    "read_detections",
    "read_people",
    "summary",
    "withheld",
]

# reader: how it reads, and what gives the annotations and the images of a split below the data set's root
READERS = {
    "coco": (coco.read, coco.split_files),
    "mpii": (mpii.read, lambda split: (f"annot/{split}.json", "images")),
    "lsp": (lsp.read, lambda split: ("joints.mat", "images")),
    "lspet": (lsp.read_extended, lambda split: ("joints.mat", "images")),
}
LISTED_REASONS = 10


def read_people(root, reader, split, unusable="stop", skeleton=None):
    """The people of one split of the data set in folder `root`, their images checked.

    reader: "coco", "mpii", "lsp" or "lspet"
    split: COCO "train2017" (annotations/person_keypoints_train2017.json, images/train2017/) or, where a data set in
        COCO's format has other names, {"annotations": a file, "images": a folder}; MPII "valid" (annot/valid.json,
        images/); LSP and LSPET [1, 1000], the first and last image (joints.mat, images/)
    unusable: what to do about annotations with something wrong: "stop" or "leave out"
    skeleton: of the annotations, for reader "coco"; None: the reader's own

    Raises UserError for missing or malformed files, for unusable annotations unless they are to be left out (then they
    stand in `People.unusable`), and where nobody usable remains. The images' paths begin with `root` as given.
    """
    if reader not in READERS:
        raise UserError(f"reader {reader!r}: there is no such reader, only {', '.join(READERS)}")
    if unusable not in ("stop", "leave out"):
        raise UserError(f"unusable {unusable!r}: must be `stop` or `leave out`")
    read, split_files = READERS[reader]
    if reader == "coco" and not isinstance(split, str | dict):
        raise UserError(f"split {split!r}: reader coco takes a name, as in {split_files('<name>')[0]}, or both paths")
    if reader == "mpii" and not isinstance(split, str):
        raise UserError(f"split {split!r}: reader mpii takes a name, as in {split_files('<name>')[0]}")
    annotations, images = split_files(split)
    own = {} if skeleton is None else {"skeleton": skeleton}

    root = Path(root)
    if not root.is_dir():
        raise UserError(f"{root}: no such folder; the {reader} data set belongs there: {annotations}, {images}/")
    if not (root / annotations).is_file():
        raise UserError(f"{root / annotations}: no such file; the {reader} data set's annotations belong there")
    if not (root / images).is_dir():
        raise UserError(f"{root / images}: no such folder; the {reader} data set's images belong there")

    people = _without_broken_images(read(root / annotations, root / images, split, **own))
    if people.unusable and unusable == "stop":
        raise UserError(_describe_unusable(people, root / annotations))
    if not len(people):
        left_out = f" ({len(people.unusable)} left out as unusable)" if people.unusable else ""
        raise UserError(f"{root / annotations}: split {split!r} has not a single usable person{left_out}")
    return people


def annotations_path(root, reader, split):
    """Where the data set in folder `root` has the annotations of `split`."""
    return Path(root) / READERS[reader][1](split)[0]


def _without_broken_images(people):
    """`people` without those whose image is broken; these are added to `unusable`."""
    reasons = dict(check_images(people))
    broken = np.array([image in reasons for image in people.images], dtype=bool)
    unusable = [
        (str(identity), f"image {image}: {reasons[image]}")
        for identity, image in zip(people.ids[broken], people.images[broken], strict=True)
    ]
    return replace(people.take(~broken), unusable=people.unusable + tuple(unusable))


def _describe_unusable(people, annotations_file):
    count, total = len(people.unusable), len(people.unusable) + len(people)
    lines = [f"{annotations_file}: {count} of {total} people are unusable:"]
    lines += [f"  {identity}: {reason}" for identity, reason in people.unusable[:LISTED_REASONS]]
    if count > LISTED_REASONS:
        lines.append(f"  ... and {count - LISTED_REASONS} more")
    lines.append("Mend them, or set `unusable: leave out` for this data set in params.yaml.")
    return "\n".join(lines)
