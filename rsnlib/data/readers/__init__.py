"""Readers: files as their authors publish them -> People."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from rsnlib.data.images import check_images
from rsnlib.data.people import count_reasons
from rsnlib.data.readers import coco, lsp, mpii
from rsnlib.data.readers.detections import read_detections
from rsnlib.data.skeletons import COCO
from rsnlib.errors import UserError

__all__ = ["annotations_path", "ground_truth", "read_detections", "read_people", "withheld"]


@dataclass(frozen=True)
class Reader:
    """One published format.

    read: function of the annotation file, the images folder and the split (and, if any skeleton, `skeleton`) -> People
    files: function of the split and the data set's root -> the paths, below it, of the annotations and of the images
    skeleton: the annotations' skeleton, a name of SKELETONS; None: any
    """

    read: Callable
    files: Callable
    skeleton: str | None


READERS = {
    "coco": Reader(coco.read, lambda split, _: coco.split_files(split), None),
    "mpii": Reader(mpii.read, mpii.split_files, "mpii"),
    "lsp": Reader(lsp.read, lambda *_: ("joints.mat", "images"), "lsp"),
    "lspet": Reader(lsp.read_extended, lambda *_: ("joints.mat", "images"), "lsp"),
}
LISTED_REASONS = 10


def read_people(
    root, reader, split, unusable="stop", skeleton=None, boxes="annotated", areas="annotated", exif="ignore"
):
    """Read the people of one split of the data set in folder `root`, and check their images.

    reader: "coco", "mpii", "lsp" or "lspet"
    split: COCO "train2017" (annotations/person_keypoints_train2017.json, images/train2017/) or, where a data set in
        COCO's format has other names, {"annotations": a file, "images": a folder}; MPII "valid" (annot/valid.json,
        images/) or [1, 1000], of its training images as MPII itself lists them (mpii.RELEASE); LSP and LSPET [1, 1000],
        the first and last image (joints.mat, images/)
    unusable: "stop" at annotations with something wrong, or "leave out" these
    skeleton: of the annotations, for reader "coco"; None: the reader's own
    boxes: for reader "coco", "annotated" or "keypoints": around the labelled ones; areas: for the same reader,
        "annotated" or "box 0.53": this share of the box
    exif: as for `check_images`

    Raises UserError for missing or malformed files, for unusable annotations unless they are to be left out (then they
    stand in `People.unusable`), and where nobody usable remains. The images' paths begin with `root` as given.
    """
    if reader not in READERS:
        raise UserError(f"reader {reader!r}: there is no such reader, only {', '.join(READERS)}")
    if unusable not in ("stop", "leave out"):
        raise UserError(f"unusable {unusable!r}: must be `stop` or `leave out`")
    read, split_files = READERS[reader].read, READERS[reader].files
    root, name = Path(root), split_files("<name>", Path(root))[0]
    if reader == "coco" and not isinstance(split, str | dict):
        raise UserError(f"split {split!r}: reader coco takes a name, as in {name}, or both paths")
    if reader == "mpii" and isinstance(split, dict):
        raise UserError(
            f"split {split!r}: reader mpii takes a name, as in {name}, or a range of MPII's training images"
        )
    annotations, images = split_files(split, root)
    own = {} if READERS[reader].skeleton else {"skeleton": skeleton or COCO, "boxes": boxes, "areas": areas}

    if not root.is_dir():
        raise UserError(f"{root}: no such folder; the {reader} data set belongs there: {annotations}, {images}/")
    if not (root / annotations).is_file():
        raise UserError(f"{root / annotations}: no such file; the {reader} data set's annotations belong there")
    if not (root / images).is_dir():
        raise UserError(f"{root / images}: no such folder; the {reader} data set's images belong there")

    people = _without_broken_images(read(root / annotations, root / images, split, **own), exif)
    if people.unusable and unusable == "stop":
        raise UserError(_describe_unusable(people, root / annotations))
    if not len(people):
        why = count_reasons([*people.passed_over, *(reason for _, reason in people.unusable)]) or "nobody"
        raise UserError(f"{root / annotations}: split {split!r} has not a single usable person ({why})")
    return people


def annotations_path(root, reader, split):
    """Return the path of the annotations of `split` of the data set in folder `root`."""
    return Path(root) / READERS[reader].files(split, Path(root))[0]


def ground_truth(root, reader, split, people):
    """Return what predictions are judged by as the `people` of `split` were read: for COCO's format
    `coco.ground_truth`, for MPII the path of gt_valid.mat or, of a range, of its own annotations; None for LSP and
    LSPET, where the people are enough."""
    if reader == "coco":
        return coco.ground_truth(annotations_path(root, reader, split), people)
    if reader == "mpii":
        return Path(root) / ("annot/gt_valid.mat" if isinstance(split, str) else mpii.RELEASE)
    return None


def withheld(reader, split):
    """Return True if only COCO's or MPII's authors know the joints of a split's people."""
    return split == "test" if reader == "mpii" else reader == "coco" and coco.is_test_split(split)


def _without_broken_images(people, exif):
    """Return `people` without those whose image is broken, who are added to `unusable`."""
    people, reasons = check_images(people, exif)
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
