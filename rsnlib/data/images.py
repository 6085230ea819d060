"""Pictures to crops: checking, reading, warping, normalising."""

import contextlib
import threading
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
import torch
from PIL import ExifTags, Image, ImageOps
from torch.nn.functional import grid_sample
from tqdm.contrib.concurrent import thread_map

from rsnlib.data.geometry import invert, transform
from rsnlib.data.people import Unusable
from rsnlib.errors import UserError

cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_ERROR)  # errors here say enough about a broken picture

# ImageNet's mean and deviation per channel, RGB, of pixels from 0 to 1
MEAN = (0.485, 0.456, 0.406)
DEVIATION = (0.229, 0.224, 0.225)

LARGEST_PICTURE = 2**26  # pixels; the header of a file of a few kilobytes may claim any number
LARGE_PICTURE = 2**24  # pixels; pictures with more are decoded one at a time
LARGE = threading.Lock()
TURNED = 5  # EXIF's orientations from 5 to 8 exchange height and width; 2, 3 and 4 keep them


def check_images(people, exif="ignore"):
    """Decode every image of `people` once. Returns the People, `upright` and `exif` set, and {path: reason} of each
    image that is missing, unreadable, cut short, or of another size than `people.image_sizes`.

    A photo that its camera marked as rotated (EXIF) is read upright where that gives it the annotations' size, as
    stored where its stored size is theirs.
    exif: for photos with this size both ways, "ignore": as stored, or "apply": upright
    """
    images, first, places = np.unique(people.images, return_index=True, return_inverse=True)
    images, sizes = images.tolist(), people.image_sizes[first].tolist()
    found = thread_map(_check_image, images, sizes, desc="checking images", unit="image")
    faults = {image: fault for image, (fault, _, _) in zip(images, found) if fault}
    upright = np.array([way == "upright" or way == "either" and exif == "apply" for _, _, way in found], bool)
    said = {"upright": "upright, by its annotation's size", "stored": "as stored, by its annotation's size"}
    said["either"] = f"{'upright' if exif == 'apply' else 'as stored'}, by `exif: {exif}`"
    marked = [(image, mark, said[way]) for image, (_, mark, way) in zip(images, found) if mark > 1]
    exif = tuple((image, f"EXIF orientation {mark}: {how}") for image, mark, how in marked)
    return replace(people, upright=upright[places], exif=exif), faults


@contextlib.contextmanager
def _readable(image):
    """Open the image at a path, or take a PIL image. Raises Unusable for any fault, here or in the block."""
    try:
        with contextlib.nullcontext(image) if isinstance(image, Image.Image) else Image.open(image) as opened:
            if opened.width * opened.height > LARGEST_PICTURE:
                size = f"{opened.width} x {opened.height} pixels"
                raise ValueError(f"{size} are too many; {LARGEST_PICTURE:,} is the limit")
            yield opened
    except FileNotFoundError:
        raise Unusable("no such file") from None
    except Exception as error:  # a broken file can make an image library raise anything
        raise Unusable(f"not readable as an image ({error})") from None


def _check_image(path, expected_size):
    """Return what is wrong with an image file, or None; its EXIF orientation, 1 to 8; and how it is of `expected_size`,
    [height, width]: "stored", "upright" or "either".

    Decodes with Pillow because OpenCV fills the missing part of a JPEG with grey and reports nothing.
    """
    try:
        with _readable(path) as image:
            size, mark = [image.height, image.width], _orientation(image)
            with LARGE if size[0] * size[1] > LARGE_PICTURE else contextlib.nullcontext():
                image.draft("L", (1, 1))  # a JPEG: read the whole file, but decode to an eighth of its size
                image.load()
    except Unusable as reason:
        return str(reason), 1, "stored"
    turned = size[::-1] if mark >= TURNED else size
    if expected_size in (size, turned):
        way = "upright" if size != expected_size else "stored" if mark == 1 or turned != size else "either"
        return None, mark, way
    either = f" (or turned, as EXIF says, {turned[1]} x {turned[0]})" if turned != size else ""
    said = f"its annotation says {expected_size[1]} x {expected_size[0]}"
    return f"is {size[1]} x {size[0]} pixels{either}, {said}", mark, "stored"


def _orientation(image):
    """Return the EXIF orientation of a PIL image, 1 to 8; 1, upright, where it has none that is readable."""
    try:
        mark = image.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # broken EXIF can raise anything, and says nothing
        mark = None
    return mark if mark in range(1, 9) else 1


def read_image_size(path):
    """Return (height, width) from the header of an image file. Raises Unusable."""
    try:
        with _readable(path) as image:
            return image.height, image.width
    except Unusable as reason:
        raise Unusable(f"image {path}: {reason}") from None


def read_image(path, upright=False):
    """Return an image of a data set as RGB uint8 (H, W, 3). Raises UserError.

    upright: turned as its EXIF says; else in the orientation in which it is stored, as COCO's annotations expect
    """
    if upright:
        return read_picture(path)
    image = cv2.imread(str(path), cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION)
    if image is None:
        raise UserError(f"{path}: " + ("not readable as an image" if Path(path).is_file() else "no such file"))
    return image


def read_picture(image):
    """Return a picture of one's own as RGB uint8 (H, W, 3), as a person would see it.

    image: a path, a PIL image, or an array (H, W) or (H, W, 1 to 4) of uint8, uint16 or bool: grey, grey with alpha,
        RGB or RGBA

    A photo that its camera marked as rotated (EXIF) is turned upright. Grey becomes three equal channels, 16 bits their
    upper 8, what is transparent white. Of an animation the first picture is taken. Raises UserError for anything else,
    and for more than LARGEST_PICTURE pixels.
    """
    where = image if isinstance(image, (str, Path)) else "image"
    if isinstance(image, (str, Path, Image.Image)):
        try:
            with _readable(image) as opened:
                image = _upright(opened)
        except Unusable as reason:
            raise UserError(f"{where}: {reason}") from None
    image = np.asarray(image)
    shape = image.shape
    if image.ndim == 2:
        image = image[..., None]
    if image.dtype.kind == "u" and image.dtype.itemsize == 2:
        image = (image >> 8).astype(np.uint8)
    elif image.dtype == bool:
        image = image * np.uint8(255)
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] not in (1, 2, 3, 4) or not image.size:
        kinds = "(H, W) or (H, W, 1 to 4) of uint8, uint16 or bool"
        raise UserError(f"{where}: must be {kinds}, not {shape} of {image.dtype}")
    if image.shape[2] in (2, 4):  # laid on white, and rounded
        opaque = image[..., -1:].astype(np.uint16)
        image = ((image[..., :-1] * opaque + 255 * (255 - opaque) + 127) // 255).astype(np.uint8)
    return np.broadcast_to(image, (*shape[:2], 3)).copy()


def _upright(image):
    """Return the array of a PIL image, upright."""
    image = ImageOps.exif_transpose(image)
    if image.mode == "F" or image.mode.startswith("I"):
        array = np.asarray(image)  # in some versions and formats 16 bits are held as 32
        whole = array.dtype.kind in "iu" and array.min() >= 0 and array.max() <= 65535
        return array.astype(np.uint16) if whole else array
    return np.asarray(image.convert("RGBA" if image.has_transparency_data else "RGB"))


def warp(image, matrix, input_size):
    """Return the exact crop of a picture, for evaluation: (H, W, 3) uint8, bilinear, black outside the picture.

    image: RGB uint8 (h, w, 3); matrix: (2, 3), picture pixels to crop pixels; input_size: height and width of the crop
    """
    height, width = input_size
    back = invert(matrix)
    rows, columns = _seen(back, input_size, image.shape[:2])
    picture = np.zeros(image.shape, np.float32)  # only the part that is written takes memory
    picture[rows, columns] = image[rows, columns]
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    across, down, offset = torch.from_numpy(back).float().T
    places = x[..., None] * across + y[..., None] * down + offset  # of the crop's pixels in the picture
    grid = (2 * places + 1) / torch.tensor(image.shape[1::-1]) - 1
    picture = torch.from_numpy(picture).permute(2, 0, 1)
    (crop,) = grid_sample(picture[None], grid[None], mode="bilinear", align_corners=False)
    return crop.round().to(torch.uint8).permute(1, 2, 0).numpy()


def _seen(back, input_size, picture_size):
    """Return the rows and columns, two slices, of a picture that a crop can show.

    back: (2, 3), crop pixels to picture pixels; input_size, picture_size: height and width
    """
    height, width = input_size
    corners = transform(back, np.array([[0, 0], [width, 0], [0, height], [width, height]]))
    limits = np.array(picture_size[::-1])
    margin = 2 + 1e-6 * limits  # float32 puts coordinates off by less
    left, top = np.clip(np.floor(corners.min(axis=0) - margin), 0, limits).astype(int)
    right, bottom = np.clip(np.ceil(corners.max(axis=0) + margin), 0, limits).astype(int)
    return slice(top, bottom), slice(left, right)


def quick_warp(image, matrix, input_size):
    """Return the crop that `warp` returns but for a grey level here and there, 20 times as fast on a CPU: OpenCV
    interpolates at 1/32 of a pixel. For training."""
    height, width = input_size
    return cv2.warpAffine(image, matrix, (width, height), flags=cv2.INTER_LINEAR)


def normalise(crops):
    """Return RGB uint8 crops (N, H, W, 3), array or tensor, as the network's input: (N, 3, H, W) float32, channels last
    in memory, with ImageNet's mean and deviation."""
    crops = torch.as_tensor(crops)
    offset, factor = _line_norm(crops.device)
    return torch.addcmul(offset, crops.float(), factor).permute(0, 3, 1, 2)


@lru_cache
def _line_norm(device):
    """Return offset and factor (3,) of the normalisation, on a device."""
    mean, deviation = (torch.tensor(values, dtype=torch.float64) for values in (MEAN, DEVIATION))
    return (-mean / deviation).float().to(device), (1 / (255 * deviation)).float().to(device)
