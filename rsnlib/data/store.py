"""The crop store: the people of one split with the pixels around each, memory-mapped: it may be larger than memory.

<split>.safetensors holds the people and the windows' matrices, <split>.bin the windows, encoded, one after the other.
"""

import hashlib
import json
import zlib
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path

import cv2
import numpy as np
import safetensors
import safetensors.numpy
from tqdm.auto import tqdm

from rsnlib.data.geometry import crop_matrix, evaluation_region, fit_aspect
from rsnlib.data.images import quick_warp, read_image, warp
from rsnlib.data.people import People
from rsnlib.data.skeletons import from_description
from rsnlib.device import cores
from rsnlib.errors import UserError
from rsnlib.files import fingerprint, whole_file

# A training window shows the picture around a person as far as augmentation may look, in original pixels, unless these
# are more than WINDOW_DETAIL times those of a crop that fits the box; then it is reduced to that.
WINDOW_DETAIL = 1.25
JPEG = [cv2.IMWRITE_JPEG_QUALITY, 95, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]
PNG = [cv2.IMWRITE_PNG_COMPRESSION, 1]
PICTURES_AT_A_TIME = 64


class CropStore:
    """The people of one split with the pixels around each.

    people: People; input_size: height and width of the crops
    center, scale: (P, 2), of the crop to evaluate in
    matrices: (P, 2, 3), picture pixels to window pixels
    fingerprint: stands for everything in the store

    Raises UserError where the files are no crop store.
    """

    def __init__(self, path):
        self.path = path
        try:
            with safetensors.safe_open(path, "np") as file:
                about = json.loads((file.metadata() or {})["crops"])
                arrays = {name: file.get_tensor(name) for name in file.keys()}
            if about["checksum"] != _checksum(about, arrays):
                raise ValueError("its contents are no longer those that were written")
            self.fingerprint, self.input_size = about["fingerprint"], tuple(about["input_size"])
            self.windows = np.asarray(np.memmap(_windows_path(path), np.uint8, "r"))  # sliced faster than a memmap
            self.offsets, self.checksums = arrays.pop("offsets"), arrays.pop("checksums")
            if self.offsets[-1] != len(self.windows):
                raise ValueError("offsets do not divide its windows among its people")
            self.matrices, self.center, self.scale = (arrays.pop(name) for name in ("matrices", "center", "scale"))
            images = np.array(about["images"], np.str_)[arrays.pop("image_rows")]
            self.people = People(skeleton=from_description(about["skeleton"]), images=images, **arrays)
        except (safetensors.SafetensorError, OSError, LookupError, TypeError, ValueError, RecursionError) as error:
            if not Path(path).exists():
                raise UserError(f"{path}: no such crop store; the stage `prepare` writes it") from None
            raise UserError(f"{path}: not a crop store ({error}); run the stage `prepare` again") from None

    def __len__(self):
        return len(self.people)

    @cached_property
    def pool(self):
        """Threads to decode in: OpenCV lets others run meanwhile."""
        return ThreadPoolExecutor(cores())

    def window(self, row):
        """Return the window of the person in a row, RGB uint8 (h, w, 3); in an evaluation store it is the crop itself.
        Raises UserError where it is damaged."""
        encoded = self.windows[self.offsets[row] : self.offsets[row + 1]]
        intact = zlib.crc32(encoded) == self.checksums[row]
        window = cv2.imdecode(encoded, cv2.IMREAD_COLOR_RGB) if intact and len(encoded) else None
        if window is None:
            person = self.people.ids[row]
            raise UserError(f"{self.path}: the window of person {person} is damaged; run the stage `prepare` again")
        return window

    def crops(self, rows, matrices):
        """Return crops (N, H, W, 3) uint8 of the people in `rows` of a training store.

        matrices: (N, 2, 3), window pixels to crop pixels
        """

        def cut(row, matrix):
            return quick_warp(self.window(row), matrix, self.input_size)

        crops = list(self.pool.map(cut, rows, matrices))
        return np.array(crops, np.uint8).reshape(-1, *self.input_size, 3)


def write_crop_store(path, people, input_size, margin, reach=None, root=None):
    """Write the crop store of `people`, picture by picture.

    input_size, margin: as for `evaluation_region`
    reach: None for an evaluation store, whose windows are the crops, exactly. Else the training store: the width and
        height of the largest crop that augmentation may take, over the box's.
    root: folder below which the store names the pictures, so that it is the same bytes wherever they lie; None: they
        keep their paths
    """
    order = np.argsort(people.images, kind="stable")  # a picture is read once, for all its people
    people = people.take(order)
    center, scale = evaluation_region(people.boxes, input_size, margin)
    if reach is None:
        matrices, sizes = crop_matrix(center, scale, 0, input_size), np.tile(input_size, (len(people), 1))
    else:
        matrices, sizes = _place_windows(people, input_size, reach)
    with whole_file(path) as arrays_file, whole_file(_windows_path(path)) as windows_file:
        lengths, checksums, digest = [], [], hashlib.sha256()
        for encoded in _encode_windows(people, matrices, sizes, exact=reach is None):
            windows_file.write(encoded)
            digest.update(encoded)
            lengths.append(len(encoded))
            checksums.append(zlib.crc32(encoded))
        arrays = people.arrays
        images, arrays["image_rows"] = np.unique(arrays.pop("images"), return_inverse=True)
        arrays |= {"offsets": np.cumsum([0, *lengths]), "checksums": np.array(checksums, np.int64)}
        arrays |= {"matrices": matrices, "center": center, "scale": scale}
        for array in arrays.values():
            digest.update(np.ascontiguousarray(array))
        images = images.tolist()
        names = [Path(image).relative_to(root).as_posix() for image in images] if root else images
        about = {"skeleton": people.skeleton.description, "input_size": list(input_size), "images": names}
        about["fingerprint"] = fingerprint(about, digest.hexdigest())
        about["checksum"] = _checksum(about, arrays)
        arrays_file.write(safetensors.numpy.save(arrays, {"crops": json.dumps(about)}))


def _checksum(about, arrays):
    """Return the digits by which a damaged safetensors file is recognised."""
    return fingerprint(about | {"checksum": None}, hashlib.sha256(safetensors.numpy.save(arrays)).hexdigest())


def _windows_path(path):
    return Path(path).with_suffix(".bin")


def _place_windows(people, input_size, reach):
    """Return matrices (P, 2, 3) and sizes (P, 2: height, width) of the training windows, each a rectangle of the
    picture."""
    labelled = (people.visible > 0)[..., None]
    corners = people.boxes[:, :2], people.boxes[:, :2] + people.boxes[:, 2:]
    low = np.minimum(corners[0], np.where(labelled, people.keypoints, np.inf).min(axis=1))
    high = np.maximum(corners[1], np.where(labelled, people.keypoints, -np.inf).max(axis=1))
    center = (low + high) / 2
    largest = fit_aspect((high - low) * reach, input_size)
    half = np.linalg.norm(largest, axis=1, keepdims=True) / 2  # however the crop is rotated
    picture = people.image_sizes[:, ::-1]
    first = np.clip(np.floor(center - half), 0, picture - 1)
    last = np.clip(np.ceil(center + half), first + 1, picture)
    box_scale = fit_aspect(high - low, input_size)
    zoom = np.minimum(1, WINDOW_DETAIL * input_size[0] / box_scale[:, 1])[:, None]
    sizes = np.maximum(1, np.round((last - first) * zoom)).astype(int)
    zoom = sizes / (last - first)
    # a reduced pixel's centre lies at the centre of the pixels it stands for, as in cv2.resize
    matrices = np.zeros((len(people), 2, 3))
    matrices[:, [0, 1], [0, 1]] = zoom
    matrices[:, :, 2] = (0.5 - first) * zoom - 0.5
    return matrices, sizes[:, ::-1]


def _encode_windows(people, matrices, sizes, exact):
    """Yield the encoded windows in order: PNG of the exact crops, or JPEG of training windows."""
    starts = np.flatnonzero(np.r_[True, people.images[1:] != people.images[:-1], True])
    pictures = list(zip(starts[:-1], starts[1:], strict=True))
    cut, suffix, quality = (warp, ".png", PNG) if exact else (_cut_rectangle, ".jpg", JPEG)

    def encode(rows):
        image = read_image(people.images[rows[0]], people.upright[rows[0]])
        windows = []
        for row in range(*rows):
            window = cv2.cvtColor(cut(image, matrices[row], sizes[row]), cv2.COLOR_RGB2BGR)
            encoded, data = cv2.imencode(suffix, window, quality)
            if not encoded:
                raise UserError(f"{people.images[row]}: the window of person {people.ids[row]} cannot be encoded")
            windows.append(data.tobytes())
        return windows

    with ThreadPoolExecutor(cores()) as pool, tqdm(total=len(people), unit="person", desc="crops") as bar:
        for first in range(0, len(pictures), PICTURES_AT_A_TIME):
            for windows in pool.map(encode, pictures[first : first + PICTURES_AT_A_TIME]):
                yield from windows
                bar.update(len(windows))


def _cut_rectangle(image, matrix, size):
    """Return an upright rectangle of the picture, reduced by averaging where the window is smaller."""
    height, width = size
    zoom = np.array([matrix[0, 0], matrix[1, 1]])
    first = np.round(0.5 - (matrix[:, 2] + 0.5) / zoom).astype(int)
    last = first + np.round(np.array([width, height]) / zoom).astype(int)
    window = image[first[1] : last[1], first[0] : last[0]]
    return cv2.resize(window, (int(width), int(height)), interpolation=cv2.INTER_AREA)
