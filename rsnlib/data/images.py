"""Pictures to crops: reading, warping, normalising."""

from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
import torch
from torch.nn.functional import grid_sample

from rsnlib.data.geometry import _seen, invert
from rsnlib.errors import UserError
from rsnlib.fast import fused_norm as native

# ImageNet's mean and deviation a channel, RGB, of pixels from 0 to 1
MEAN = (0.485, 0.456, 0.406)
DEVIATION = (0.229, 0.224, 0.225)


def warp(images, matrices, input_size, device="cpu"):
    """Crops (N, H, W, 3) uint8, bilinear, black outside the picture, as a tensor on `device`.

    images: N pictures, RGB uint8 arrays (h, w, 3) of any sizes
    matrices: (N, 2, 3), each picture's pixels to crop pixels
    """
    height, width = input_size
    largest = np.max([image.shape[:2] for image in images], axis=0)
    back = invert(np.asarray(matrices))
    # on a CPU, memory that nothing is written to is not taken
    number = np.float32 if torch.device(device).type == "cpu" else np.uint8
    batch = np.zeros((len(images), *largest, 3), number)
    for row, (image, part) in enumerate(zip(images, _seen(back, input_size, largest))):
        seen = image[part]
        batch[row][part][: seen.shape[0], : seen.shape[1]] = seen
    batch = torch.from_numpy(batch).to(device).permute(0, 3, 1, 2).float()
    back = torch.as_tensor(back, dtype=torch.float32, device=device)
    y, x = torch.meshgrid(torch.arange(height, device=device), torch.arange(width, device=device), indexing="ij")
    grid = torch.stack([x, y, torch.ones_like(x)], dim=-1).float() @ back.transpose(1, 2)[:, None]  # picture pixels
    size = torch.tensor([largest[1], largest[0]], device=device)
    crops = grid_sample(batch, (2 * grid + 1) / size - 1, mode="bilinear", align_corners=False)
    return crops.round().to(torch.uint8).permute(0, 2, 3, 1)


def quick_warp(image, matrix, input_size):
    """The same for one picture and a matrix (2, 3) as an array, with OpenCV's interpolation at 1/32 of a pixel: a grey
    level off here and there, and 20 times as fast on a CPU."""
    height, width = input_size
    return cv2.warpAffine(image, matrix, (width, height), flags=cv2.INTER_LINEAR)


def normalise(crops):
    """RGB uint8 crops (N, H, W, 3), array or tensor, as the network takes them: (N, 3, H, W) float32, channels last in
    memory."""
    crops = torch.as_tensor(crops)
    factor, offset = _line_norm(crops.shape[2]).to(crops.device)
    images = native.normalised(crops, factor, offset)
    if images is None:
        images = torch.addcmul(offset, crops.flatten(2).float(), factor).view(crops.shape)
    return images.permute(0, 3, 1, 2)


@lru_cache
def _line_norm(width):
    """(2, width * 3): what a line of pixels is multiplied by, and what is then added."""
    mean, deviation = (torch.tensor(values, dtype=torch.float64).repeat(width) for values in (MEAN, DEVIATION))
    return torch.stack([1 / (255 * deviation), -mean / deviation]).float()


def read_image(path):
    """A picture as RGB uint8 (H, W, 3), in the orientation it is stored in, as COCO's annotations expect."""
    image = cv2.imread(str(path), cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION)
    if image is None:
        raise UserError(f"{path}: " + ("not readable as an image" if Path(path).is_file() else "no such file"))
    return image
