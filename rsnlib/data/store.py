"""The crop store: the people of one split with the pixels around each, one memory-mapped file."""

import hashlib
import json
import shutil
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields
from pathlib import Path

import cv2
import numpy as np
import safetensors
from tqdm.auto import tqdm

from rsnlib.data.geometry import LONGEST_SIDE, _seen, crop_matrix, evaluation_region, fit_aspect, invert
from rsnlib.data.images import quick_warp, read_image, warp
from rsnlib.data.readers import PERSON, People
from rsnlib.data.skeletons import from_description
from rsnlib.device import cores
from rsnlib.errors import UserError
from rsnlib.files import fingerprint, whole_file, writing

# A training window holds the picture around a person as far as augmentation may look, in original pixels, unless these
# are more than WINDOW_DETAIL times those of a crop that fits the box; then it is reduced to that.
WINDOW_DETAIL = 1.25
JPEG = [cv2.IMWRITE_JPEG_QUALITY, 95, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]
TILE = (8, 32)  # height and width of what can be decoded by itself: a restart marker follows each
JPEG += [cv2.IMWRITE_JPEG_RST_INTERVAL, TILE[1] // 8]
PNG = [cv2.IMWRITE_PNG_COMPRESSION, 1]
PICTURES_AT_A_TIME = 64


class CropStore:
    """The people of one split with the pixels around each, one file, memory-mapped.

    people: People; input_size: height and width of the crops
    center, scale: (P, 2), of the crop to evaluate in
    matrices: (P, 2, 3), picture pixels to window pixels; sizes: (P, 2), height and width of the windows
    fingerprint: stands for everything in it
    window(row): RGB uint8 (h, w, 3). In an evaluation store the window is the crop itself.
    """

    def __init__(self, path):
        try:
            with safetensors.safe_open(path, "np") as file:
                about = json.loads((file.metadata() or {})["crops"])
                arrays = {name: file.get_tensor(name) for name in file.keys() if name != "pixels"}
            self.pixels = _map_tensor(path, "pixels")
            self.path, self.fingerprint, self.input_size = path, about["fingerprint"], tuple(about["input_size"])
            self.offsets, self.matrices = arrays.pop("offsets"), arrays.pop("matrices")
            self.center, self.scale, self.sizes = (arrays.pop(name) for name in ("center", "scale", "sizes"))
            images = np.array(about["images"])
            self.people = People(
                skeleton=from_description(about["skeleton"]), images=images[arrays.pop("image_rows")], **arrays
            )
            self._check()
        except FileNotFoundError:
            raise UserError(f"{path}: no such crop store; the stage `prepare` writes it") from None
        except (safetensors.SafetensorError, OSError, LookupError, TypeError, ValueError, RecursionError) as error:
            raise UserError(f"{path}: not a crop store ({error}); run the stage `prepare` again") from None

    def _check(self):
        """Raise ValueError where the arrays do not fit one another."""
        people, keypoints = len(self.people.ids), len(self.people.skeleton)
        shapes = {
            "ids": (),
            "image_ids": (),
            "images": (),
            "image_sizes": (2,),
            "boxes": (4,),
            "areas": (),
            "scores": (),
        }
        shapes |= {"keypoints": (keypoints, 2), "visible": (keypoints,), "categories": ()}
        arrays = {name: (getattr(self.people, name), shape) for name, shape in shapes.items()}
        arrays |= {"matrices": (self.matrices, (2, 3)), "center": (self.center, (2,)), "scale": (self.scale, (2,))}
        arrays |= {"sizes": (self.sizes, (2,))}
        for name, (array, shape) in arrays.items():
            if array.shape != (people, *shape):
                raise ValueError(f"{name} has shape {array.shape}, not {(people, *shape)}")
        ends = self.offsets
        rising = ends.shape == (people + 1,) and ends[0] == 0 and (ends[1:] >= ends[:-1]).all()
        if ends.dtype != np.int64 or not rising or ends[-1] != len(self.pixels):
            raise ValueError("offsets do not divide its pixels among its people")
        if self.sizes.dtype != np.int64 or (self.sizes < 1).any():
            raise ValueError("sizes are not whole numbers above 0")
        sides = [type(length) is int and 0 < length <= LONGEST_SIDE for length in self.input_size]
        if len(sides) != 2 or not all(sides):
            raise ValueError(f"the crops' height and width are said to be {self.input_size}")

    def __len__(self):
        return len(self.people)

    def window(self, row):
        """The window of the person in a row. Raises UserError where it is damaged."""
        return self._decode(row, self.pixels[self.offsets[row] : self.offsets[row + 1]], self.sizes[row])

    def crops(self, rows, matrices):
        """Crops (N, H, W, 3) uint8 of some people of a training store: `quick_warp` of their windows by `matrices`
        (N, 2, 3), window pixels to crop pixels. No more of a window is decoded than its crop can see."""
        sizes = self.sizes[rows]
        parts = _seen(invert(matrices), self.input_size, sizes)
        given = list(zip(rows, sizes.tolist(), parts, matrices, strict=True))
        crops = np.empty((len(rows), *self.input_size, 3), np.uint8)

        def cut(some):
            for place in some:
                crops[place] = self._crop(*given[place])

        workers = cores()
        with ThreadPoolExecutor(workers) as pool:  # OpenCV lets other threads run while it decodes and warps
            list(pool.map(cut, np.array_split(np.arange(len(rows)), workers)))
        return crops

    def _crop(self, row, size, part, matrix):
        try:
            encoded, top, left = _cut_jpeg(self.pixels[self.offsets[row] : self.offsets[row + 1]], size, *part)
        except (IndexError, ValueError):
            raise self._damaged(row) from None
        window = self._decode(row, encoded, (max(size[0] - top, 1), max(size[1] - left, 1)))
        moved = matrix.copy()  # pixels of the part to crop pixels
        moved[:, 2] += matrix[:, :2] @ (left, top)
        return quick_warp(window, moved, self.input_size)

    def _decode(self, row, encoded, size):
        """The first lines and columns, `size`, of a picture, or all it has, if that is fewer."""
        picture = cv2.imdecode(encoded, cv2.IMREAD_COLOR_RGB) if len(encoded) else None
        if picture is None:
            raise self._damaged(row)
        return picture[: size[0], : size[1]]

    def _damaged(self, row):
        person = self.people.ids[row]
        return UserError(f"{self.path}: the window of person {person} is damaged; run the stage `prepare` again")


def write_crop_store(path, people, input_size, enlarge, reach=None):
    """Write the crop store of `people`.

    input_size, enlarge: as for `evaluation_region`
    reach: None for an evaluation store, whose windows are the crops, exactly. Else the training store: the width and
        height of the largest crop that augmentation may take, over the box's.
    """
    order = np.argsort(people.images, kind="stable")  # a picture is read once, for all its people
    people = people.take(order)
    center, scale = evaluation_region(people.boxes, input_size, enlarge)
    if reach is None:
        matrices = crop_matrix(center, scale, 0, input_size)
        sizes = np.broadcast_to(np.array(input_size), (len(people), 2))
    else:
        matrices, sizes = _windows(people, input_size, reach)
    path = Path(path)
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    with writing(path), tempfile.TemporaryFile(dir=path.parent) as pixels:
        lengths, digest = [], hashlib.sha256()
        for encoded in _encode_windows(people, matrices, sizes, exact=reach is None):
            pixels.write(encoded)
            digest.update(encoded)
            lengths.append(len(encoded))
        images, image_rows = np.unique(people.images, return_inverse=True)
        arrays = {f.name: getattr(people, f.name) for f in fields(People)}
        for name in ("skeleton", "images", "unusable"):
            del arrays[name]
        if (people.categories == PERSON).all():  # as an absent one is read
            del arrays["categories"]
        arrays |= {"offsets": np.cumsum([0, *lengths]), "image_rows": image_rows}
        arrays |= {"matrices": matrices, "sizes": np.array(sizes, np.int64), "center": center, "scale": scale}
        for array in arrays.values():
            digest.update(np.ascontiguousarray(array).tobytes())
        about = {"skeleton": people.skeleton.description, "input_size": list(input_size), "images": images.tolist()}
        about["fingerprint"] = fingerprint(about, digest.hexdigest())
        _write_safetensors(path, arrays, pixels, {"crops": json.dumps(about)})


def _windows(people, input_size, reach):
    """Matrices (P, 2, 3) and sizes (P, 2: height, width) of the training windows: each a rectangle of the picture."""
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
    """The encoded windows in order."""
    starts = np.flatnonzero(np.r_[True, people.images[1:] != people.images[:-1], True])
    pictures = list(zip(starts[:-1], starts[1:], strict=True))

    def encode(rows):
        image = read_image(people.images[rows[0]])
        windows = []
        for row in range(*rows):
            if exact:
                window = warp([image], matrices[row : row + 1], sizes[row])[0].numpy()
            else:
                window = _cut(image, matrices[row], sizes[row])
                window = cv2.copyMakeBorder(window, 0, 0, 0, -window.shape[1] % TILE[1], cv2.BORDER_REPLICATE)
            window = cv2.cvtColor(window, cv2.COLOR_RGB2BGR)
            ok, encoded = cv2.imencode(".png" if exact else ".jpg", window, PNG if exact else JPEG)
            if not ok:
                raise UserError(f"{people.images[row]}: the window of person {people.ids[row]} cannot be encoded")
            windows.append(encoded.tobytes())
        return windows

    with ThreadPoolExecutor(cores()) as pool, tqdm(total=len(people), unit="person", desc="crops") as bar:
        for first in range(0, len(pictures), PICTURES_AT_A_TIME):
            for windows in pool.map(encode, pictures[first : first + PICTURES_AT_A_TIME]):
                yield from windows
                bar.update(len(windows))


def _cut(image, matrix, size):
    """An upright rectangle of the picture, reduced by averaging where the window is smaller."""
    height, width = size
    zoom = np.array([matrix[0, 0], matrix[1, 1]])
    first = np.round(0.5 - (matrix[:, 2] + 0.5) / zoom).astype(int)
    last = first + np.round(np.array([width, height]) / zoom).astype(int)
    window = image[first[1] : last[1], first[0] : last[0]]
    return cv2.resize(window, (int(width), int(height)), interpolation=cv2.INTER_AREA)


def _cut_jpeg(encoded, size, rows, columns):
    """The tiles of a training window that hold some rows and columns, slices, as a JPEG, and row and column of its
    first pixel. Nothing is decoded for it: between two restart markers a JPEG stands for itself.

    encoded: (bytes,) uint8; size: height and width of the window
    Raises IndexError or ValueError where it is not such a JPEG.
    """
    header, at, frame = encoded[:4096].tobytes(), 2, None
    while header[at + 1] != 0xDA:  # start of scan
        if header[at + 1] == 0xC0:  # start of frame
            frame = at
        at += 2 + int.from_bytes(header[at + 2 : at + 4], "big")
    start = at + 2 + int.from_bytes(header[at + 2 : at + 4], "big")
    scan = encoded[start:]
    (bytes_ff,) = np.nonzero(scan[:-1] == 0xFF)
    ends = bytes_ff[scan[bytes_ff + 1] & 0xF8 == 0xD0] + 2  # behind the restart markers
    starts = np.concatenate([[0], ends, [len(scan)]])
    down, across = (-(-length // tile) for length, tile in zip(size, TILE, strict=True))
    if frame is None or len(starts) != down * across + 1:
        raise ValueError("other tiles")
    top, left = min(rows.start // TILE[0], down - 1), min(columns.start // TILE[1], across - 1)
    bottom, right = max(-(-rows.stop // TILE[0]), top + 1), max(-(-columns.stop // TILE[1]), left + 1)
    new = bytearray(header[:start])
    height_width = (bottom - top) * TILE[0], (right - left) * TILE[1]
    new[frame + 5 : frame + 9] = b"".join(length.to_bytes(2, "big") for length in height_width)
    lines = np.arange(top, bottom) * across
    pieces = [scan[starts[line + left] : starts[line + right]] for line in lines]
    part = np.concatenate([np.frombuffer(new, np.uint8), *pieces])
    lengths = np.diff(starts)[lines[:, None] + np.arange(left, right)].ravel()
    part[start + np.cumsum(lengths) - 1] = 0xD0 + np.arange(len(lengths)) % 8  # the markers count from 0 to 7
    part[-1] = 0xD9  # end of image
    return part, top * TILE[0], left * TILE[1]


def _write_safetensors(path, arrays, pixels, metadata):
    """A safetensors file of `arrays` and, as the tensor "pixels", the bytes in the open file `pixels`: written piece
    by piece, so that it may be larger than memory."""
    names = {"int64": "I64", "float64": "F64", "float32": "F32"}
    header, position = {"__metadata__": metadata}, 0
    for name, array in arrays.items():
        entry = {"dtype": names[str(array.dtype)], "shape": list(array.shape)}
        header[name] = entry | {"data_offsets": [position, position + array.nbytes]}
        position += array.nbytes
    size = pixels.tell()
    header["pixels"] = {"dtype": "U8", "shape": [size], "data_offsets": [position, position + size]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    pixels.seek(0)
    with whole_file(path) as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for array in arrays.values():
            file.write(np.ascontiguousarray(array).tobytes())
        shutil.copyfileobj(pixels, file, 1 << 20)


def _map_tensor(path, name):
    """One uint8 tensor of a safetensors file as a memory map."""
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        first, last = json.loads(file.read(length))[name]["data_offsets"]
    return np.asarray(
        np.memmap(path, np.uint8, "r", 8 + length + first, (last - first,))
    )  # sliced faster than a memmap
