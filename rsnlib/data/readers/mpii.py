"""MPII Human Pose (human-pose.mpi-inf.mpg.de), with the JSON annotations that pose estimation code commonly uses."""

import numpy as np

from rsnlib.data.images import read_image_size
from rsnlib.data.people import Person, Unusable, collect, finite_numbers, image_inside
from rsnlib.data.readers.matlab import read_matlab
from rsnlib.data.skeletons import MPII
from rsnlib.errors import UserError
from rsnlib.files import read_json

PIXELS_PER_SCALE = 200
LARGEST_FILE = 2**29  # bytes of MATLAB files, decompressed


def read(annotations_file, images_folder, split):
    """Read the people of one annot/*.json, a list of {image, center, scale, joints, joints_vis}.

    A person's id is its row in the file, from 1: row i of the predictions that `gt_valid.mat` expects is person i + 1.
    An image's id is the order in which the file first names it, from 1. People without a visible joint stay, as in the
    released RSN code. The file has no image sizes: they come from the images' headers. `split` is already in the path;
    in "test" nobody has joints: they are withheld. Raises UserError where the file as a whole is not
    such a list.
    """
    image_ids = {}

    def read_person(row, annotation):
        image = image_inside(images_folder, annotation.get("image"))
        image_id = image_ids.setdefault(image, len(image_ids) + 1)
        withheld = np.zeros((len(MPII), 2)), np.zeros(len(MPII))
        joints = withheld if split == "test" else _read_joints(annotation)
        return Person(row, image_id, image, read_image_size(image), _read_box(annotation), *joints)

    return collect(MPII, enumerate(read_list(annotations_file), start=1), read_person)


def read_list(annotations_file):
    """Return the people of one annot/*.json as the objects that stand there."""
    annotations = read_json(annotations_file)
    if not isinstance(annotations, list) or not all(isinstance(annotation, dict) for annotation in annotations):
        raise UserError(f"{annotations_file}: not a list of people, objects with `image`, `center`, `scale`, ...")
    return annotations


def read_test_images(file):
    """Read the M test images from MPII's own annotations, mpii_human_pose_v1_u12_1.mat.

    Returns their `annolist`, (1, M) structs as SciPy reads MATLAB's, and per image the people who are judged because
    they stand apart from others (`single_person`): {row of `annorect`, from 0: centre x, y}.
    """
    if not file.is_file():
        raise UserError(
            f"{file}: no such file; it is MPII's own, in mpii_human_pose_v1_u12_2.zip from human-pose.mpi-inf.mpg.de"
        )
    try:
        release = read_matlab(file, LARGEST_FILE)["RELEASE"][0, 0]
        test = release["img_train"].ravel() == 0
        annolist, rows = release["annolist"][:, test], release["single_person"].ravel()[test]
        centers = []
        for people, numbers in zip(annolist["annorect"][0], rows, strict=True):
            places = {int(number) - 1: people["objpos"][0, int(number) - 1][0, 0] for number in numbers.ravel()}
            centers.append({row: (place["x"].item(), place["y"].item()) for row, place in places.items()})
        return annolist, centers
    except Exception as error:  # a broken file can make SciPy raise anything
        raise UserError(f"{file}: not MPII's annotations ({type(error).__name__}: {error})") from None


def _read_joints(annotation):
    """Return 0-based pixels (16, 2) from the file's 1-based ones, and (16,) 2 where `joints_vis` is 1, else 0."""
    joints = annotation.get("joints")
    if joints is None:
        raise Unusable("no joints")
    if not isinstance(joints, list) or len(joints) != len(MPII):
        raise Unusable(f"joints: not a list of {len(MPII)} positions")
    joints = np.stack([finite_numbers(joint, 2, "joints") for joint in joints]) - 1
    visible = finite_numbers(annotation.get("joints_vis"), len(MPII), "joints_vis")
    if not np.isin(visible, (0, 1)).all():
        raise Unusable("joints_vis: a flag is not 0 or 1")
    return joints, visible * 2


def _read_box(annotation):
    """Return the square of 200 * scale pixels around the center, which as in the released RSN code is first moved down
    by 15 * scale (unless it is missing, x = -1) and made 0-based."""
    center = finite_numbers(annotation.get("center"), 2, "center")
    (scale,) = finite_numbers([annotation.get("scale")], 1, "scale")
    if center[0] != -1:
        center[1] += 15 * scale
    side = PIXELS_PER_SCALE * scale
    return np.array([*(center - 1 - side / 2), side, side])
