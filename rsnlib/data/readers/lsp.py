"""Leeds Sports Pose (Johnson and Everingham, BMVC 2010) and Leeds Sports Pose Extended (CVPR 2011): one person per
image, the same 14 joints in both; the arrays have other axes and the flags the opposite meaning."""

import numpy as np

from rsnlib.data.images import read_image_size
from rsnlib.data.people import Person, Unusable, box_around, collect
from rsnlib.data.readers.matlab import read_matlab
from rsnlib.data.skeletons import LSP
from rsnlib.errors import UserError

LARGEST_FILE = 2**26  # bytes, decompressed; the larger of the two data sets has 3.4 million


def read(joints_file, images_folder, split):
    """Read the people of Leeds Sports Pose (2,000 images); range, ids, boxes and errors as in `read_extended`.

    Every joint is labelled. The third number of `joints`, (3, 14, N), is 1 where a joint is hidden: the data set's
    README.txt calls it joint visibility, but code that reads the file takes it for occlusion (pytorch-pose,
    miscs/gen_lsp.m: 1 - joints(3,:,:); TensorBay, LeedsSportsPose/loader.py: not keypoint[2]). So 0 becomes 2, visible,
    and 1 stays, hidden but labelled.
    """
    return _read(joints_file, (3, len(LSP)), {0: 2, 1: 1}, images_folder, "im{:04d}.jpg", split)


def read_extended(joints_file, images_folder, split):
    """Read the people of images first to last, where `split` is [first, last], 1-based and inclusive: one person per
    image, whose id and image id are the image's number.

    A visible joint, flagged 1 in `joints`, (14, 3, N), becomes 2, any other 0 (not labelled; its coordinates become 0).
    Coordinates stay as published. Box: the bounding box of the labelled joints, enlarged by 20 % about its centre, our
    choice. Area: the box's. Raises UserError where `joints_file` is not the data set's or the range goes beyond it.
    """
    return _read(joints_file, (len(LSP), 3), {0: 0, 1: 2}, images_folder, "im{:05d}.jpg", split)


def _read(file, shape, flags, images_folder, image_name, split):
    """Return People of a file with `joints` of `shape`, (14, 3) x, y, flag or transposed, by N images.

    flags: {the file's flag: that of `People.visible`}
    """
    wanted = f"({shape[0]}, {shape[1]}, N)"
    try:
        joints = read_matlab(file, LARGEST_FILE).get("joints")
    except Exception as error:  # a broken file can make SciPy raise anything
        raise UserError(f"{file}: not readable as a MATLAB file ({error})") from None
    if not isinstance(joints, np.ndarray) or joints.dtype.kind not in "iuf" or joints.ndim != 3:
        raise UserError(f"{file}: no numbers named `joints` of shape {wanted}")
    if joints.shape[:2] != shape:
        raise UserError(f"{file}: `joints` has shape {joints.shape}, not {wanted}")
    count = joints.shape[2]
    whole = isinstance(split, list | tuple) and len(split) == 2 and all(type(number) is int for number in split)
    if not whole or not 1 <= split[0] <= split[1] <= count:
        raise UserError(f"{file}: has images 1 to {count}; split {split!r} is not a range [first, last] of these")
    joints = np.moveaxis(joints.astype(np.float64), 2, 0)
    joints = joints if shape[1] == 3 else joints.swapaxes(1, 2)  # (N, 14, 3)

    def read_person(number, joints):
        if not np.isin(joints[:, 2], (0, 1)).all():
            raise Unusable("joints: a visibility flag is not 0 or 1")
        visible = np.where(joints[:, 2] == 1, flags[1], flags[0])
        labelled = visible > 0
        if not np.isfinite(joints[labelled]).all():
            raise Unusable("joints: a labelled joint's position is not finite")
        box, places = box_around(joints[:, :2], labelled), np.where(labelled[:, None], joints[:, :2], 0)
        image = str(images_folder / image_name.format(number))
        return Person(number, number, image, read_image_size(image), box, places, visible)

    first, last = split
    return collect(LSP, enumerate(joints[first - 1 : last], start=first), read_person)
