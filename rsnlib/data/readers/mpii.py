"""MPII Human Pose (human-pose.mpi-inf.mpg.de), with the JSON annotations that pose estimation code commonly uses."""

from dataclasses import dataclass

import numpy as np

from rsnlib.data.images import read_image_size
from rsnlib.data.people import Person, Unusable, collect, finite_numbers, image_inside
from rsnlib.data.readers.matlab import read_matlab
from rsnlib.data.skeletons import MPII
from rsnlib.errors import UserError
from rsnlib.files import read_json

PIXELS_PER_SCALE = 200
LARGEST_FILE = 2**29  # bytes of MATLAB files, decompressed
RELEASE = "annot/mpii_human_pose_v1_u12_1.mat"  # MPII's own annotations
WITHHELD = np.zeros((len(MPII), 2)), np.zeros(len(MPII))  # joints and flags of people without
MISSHAPEN = (AttributeError, LookupError, TypeError, ValueError)  # of structs that are not as MPII's
SOURCE = "it is MPII's own, in mpii_human_pose_v1_u12_2.zip from human-pose.mpi-inf.mpg.de"


def split_files(split, root):
    """Return the annotations file of a split and its images folder, below the data set's folder `root`.

    split: [first, last], a range of MPII's own training images, or a name: "test" is read from MPII's own annotations
        where there is no annot/test.json
    """
    if isinstance(split, str) and (split != "test" or (root / "annot/test.json").is_file()):
        return f"annot/{split}.json", "images"
    return RELEASE, "images"


def read(annotations_file, images_folder, split):
    """Read the people of one annot/*.json, a list of {image, center, scale, joints, joints_vis}, or of MPII's own
    annotations (.mat), `read_release`.

    A person's id is its row in the file, from 1: row i of the predictions that `gt_valid.mat` expects is person i + 1.
    An image's id is the order in which the file first names it, from 1. People without a visible joint stay, as in the
    released RSN code. The file has no image sizes: they come from the images' headers. `split` is already in the path;
    in "test" nobody has joints: they are withheld. Raises UserError where the file as a whole is not
    such a list.
    """
    if annotations_file.suffix == ".mat":
        return read_release(annotations_file, images_folder, split)
    image_ids = {}

    def read_person(row, annotation):
        image = image_inside(images_folder, annotation.get("image"))
        image_id = image_ids.setdefault(image, len(image_ids) + 1)
        joints = WITHHELD if split == "test" else _read_joints(annotation)
        return Person(row, image_id, image, read_image_size(image), _read_box(annotation), *joints)

    return collect(MPII, enumerate(read_list(annotations_file), start=1), read_person)


def read_list(annotations_file):
    """Return the people of one annot/*.json as the objects that stand there."""
    annotations = read_json(annotations_file)
    if not isinstance(annotations, list) or not all(isinstance(annotation, dict) for annotation in annotations):
        raise UserError(f"{annotations_file}: not a list of people, objects with `image`, `center`, `scale`, ...")
    return annotations


def read_release(file, images_folder, split):
    """Read people of MPII's own annotations; boxes, joints and errors as in `read`.

    split: "test", the people of the test images who are judged because they stand apart from others (`single_person`);
        or [first, last], 1-based and inclusive: everyone with joints in these of the training images, in the file's
        order (the usual train.json and valid.json divide them otherwise and leave some out)

    A person's id is its number among everyone in the file, an image's id its number in `annolist`, both from 1. A joint
    whose `is_visible` is 0 becomes 1, hidden, any other 2.
    """
    images = [image for image in _release(file)[1] if image.train == (split != "test")]
    if split != "test":
        first, last = split if len(split) == 2 else (0, 0)
        if not 1 <= first <= last <= len(images):
            raise UserError(f"{file}: has training images 1 to {len(images)}; {split!r} is not a range of these")
        images = images[first - 1 : last]

    def read_person(number, entry):
        image, row = entry
        if split == "test" and row not in image.single:
            return "not judged"
        if split != "test" and not _has(image.people[row], "annopoints"):
            return "no joints"
        try:
            center, scale = _center(image.people[row]), _number(image.people[row], "scale")
            if None in (*center, scale):
                return "no centre or scale"
            joints, visible = WITHHELD if split == "test" else _points(image.people[row])
        except MISSHAPEN as error:
            raise Unusable(f"not as MPII has people ({error})") from None
        path, box = image_inside(images_folder, image.name), _read_box({"center": center, "scale": scale})
        places = np.where(visible[:, None], joints - 1, 0)
        return Person(number, image.number, path, read_image_size(path), box, places, visible)

    entries = [(image.first + row, (image, row)) for image in images for row in range(len(image.people))]
    return collect(MPII, entries, read_person)


def read_test_images(file):
    """Read the M test images of MPII's own annotations.

    Returns their `annolist`, (1, M) structs as SciPy reads MATLAB's, and per image the people who are judged: {row of
    `annorect`, from 0: (id of `read_release`, image's name, centre x, y in whole pixels)}.
    """
    release, images = _release(file)
    tests, judged = [image for image in images if not image.train], []
    for image in tests:
        try:
            places = {row: [round(position) for position in _center(image.people[row])] for row in image.single}
        except MISSHAPEN:
            raise UserError(f"{file}: not MPII's annotations (someone judged in {image.name} is nowhere)") from None
        judged.append({row: (image.first + row, image.name, *place) for row, place in places.items()})
    return release["annolist"].reshape(1, -1)[:, [image.number - 1 for image in tests]], judged


def ground_truth(file):
    """Return everyone in gt_valid.mat or in MPII's own annotations, in order: positions of joints (P, 16, 2), in pixels
    counted from 1, which of these are labelled (P, 16) bool, and corners of the boxes around heads (P, 2, 2)."""
    try:
        truth = read_matlab(file, LARGEST_FILE)
        if "RELEASE" not in truth:
            corners = np.moveaxis(truth["headboxes_src"], 2, 0)  # (P, 2, 2)
            return truth["pos_gt_src"].transpose(2, 0, 1), truth["jnt_missing"].T == 0, corners
        everyone = [person for image in _release_images(truth["RELEASE"][0, 0]) for person in image.people]
        corners = [[[_number(person, f"{axis}{end}") for axis in "xy"] for end in (1, 2)] for person in everyone]
        corners = np.array(corners, float)  # NaN where there is none
        points = [_points(person) if _has(person, "annopoints") else WITHHELD for person in everyone]
        positions, visible = (np.array(part) for part in zip(*points))
        return positions, (visible > 0) & ~np.isnan(corners).any(axis=(1, 2))[:, None], corners
    except Exception as error:  # a broken file can make SciPy raise anything
        raise UserError(f"{file}: not MPII's ground truth ({error})") from None


@dataclass(frozen=True)
class ReleaseImage:
    """An image of MPII's own annotations."""

    number: int  # in `annolist`, from 1
    name: str
    train: bool
    people: list  # MATLAB structs, `annorect`
    first: int  # the number of the first of them among everyone in the file, from 1
    single: list[int]  # rows of `people` who stand apart from others


def _release(file):
    """Return MPII's own annotations, `RELEASE` as SciPy reads it, and the ReleaseImages in it."""
    if not file.is_file():
        raise UserError(f"{file}: no such file; {SOURCE}")
    try:
        release = read_matlab(file, LARGEST_FILE)["RELEASE"][0, 0]
        return release, _release_images(release)
    except Exception as error:  # a broken file can make SciPy raise anything
        raise UserError(f"{file}: not MPII's annotations ({type(error).__name__}: {error})") from None


def _release_images(release):
    """Return the images of `RELEASE`, as SciPy reads it."""
    images, first = [], 1
    rows = zip(release["annolist"].ravel(), release["img_train"].ravel(), release["single_person"].ravel(), strict=True)
    for number, (image, train, single) in enumerate(rows, start=1):
        people = list(image["annorect"].ravel()) if image["annorect"].dtype.names else []
        name = str(image["image"].ravel()[0]["name"].ravel()[0])
        images.append(ReleaseImage(number, name, train == 1, people, first, [int(row) - 1 for row in single.ravel()]))
        first += len(people)
    return images


def _has(struct, key):
    return key in struct.dtype.names and struct[key].size > 0


def _number(struct, key):
    """Return the number under a key of a MATLAB struct, None where there is none."""
    return float(struct[key].ravel()[0]) if _has(struct, key) else None


def _center(person):
    """Return [x, y] of `objpos`, None for what is missing."""
    place = person["objpos"].ravel()[0] if _has(person, "objpos") else None
    return [None if place is None else _number(place, axis) for axis in "xy"]


def _points(person):
    """Return the positions of joints (16, 2), in pixels counted from 1, and flags (16,): 2 visible, 1 hidden, 0 not
    labelled."""
    joints, visible = np.zeros((len(MPII), 2)), np.zeros(len(MPII))
    points = person["annopoints"].ravel()[0]["point"].ravel()
    for point in points:
        joint, *position = (_number(point, key) for key in ("id", "x", "y"))
        if joint not in range(len(MPII)):
            raise Unusable(f"annopoints: there is no joint {joint}, only 0 to {len(MPII) - 1}")
        joints[int(joint)] = finite_numbers(position, 2, "annopoints")
        visible[int(joint)] = 1 if _number(point, "is_visible") == 0 else 2
    return joints, visible


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
