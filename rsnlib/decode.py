"""Heatmaps to keypoints."""

import cv2
import torch
from torch.nn.functional import conv2d, pad

from rsnlib.targets import PEAK

BORDER = 10  # cells around the heatmap in which the blurred peak is sought, too
SHIFT = 0.25  # of a cell, towards the second highest


def decode_heatmaps(heatmaps, center, scale, input_size, blur=5):
    """Keypoints and scores of heatmaps (released RSN, test.py, get_results): the highest cell of the blurred heatmap,
    moved a quarter of a cell towards the second highest.

    heatmaps: (N, K, h, w) tensor
    center, scale: (N, 2), of the crops: x, y and width, height in picture pixels
    input_size: height and width of the crops; blur: size of the Gaussian kernel (5 for COCO, 9 for MPII)
    -> keypoints (N, K, 2), x and y in picture pixels, and scores (N, K), heatmap / 255 + 0.5 at the cell; float64
    """
    heatmaps = torch.as_tensor(heatmaps).double()
    count, keypoints, height, width = heatmaps.shape
    center, scale = (torch.as_tensor(v, dtype=torch.float64, device=heatmaps.device) for v in (center, scale))
    peaks = _blurred(heatmaps, blur).flatten(2).topk(2, dim=2)  # in the padded frame
    x = peaks.indices % (width + 2 * BORDER) - BORDER
    y = peaks.indices // (width + 2 * BORDER) - BORDER
    cell = torch.stack([x, y], dim=-1).double()  # (N, K, 2 peaks, 2)
    towards = cell[:, :, 1] - cell[:, :, 0]
    cell = cell[:, :, 0] + SHIFT * towards / towards.norm(dim=-1, keepdim=True)
    cell = cell.clamp(min=0).minimum(torch.tensor([width - 1, height - 1], device=cell.device))

    column, row = cell.round().long().unbind(-1)
    scores = heatmaps.flatten(2).gather(2, (row * width + column)[..., None]).squeeze(2) / PEAK + 0.5
    crop = torch.tensor([input_size[1], input_size[0]], device=cell.device)
    positions = (cell * 4 + 2) / crop * scale[:, None] + (center - scale / 2)[:, None]
    return positions.cpu().numpy(), scores.cpu().numpy()


def _blurred(heatmaps, kernel):
    """(N, K, h + 2 BORDER, w + 2 BORDER): OpenCV's Gaussian of that size, zeros around the heatmap."""
    line = torch.as_tensor(cv2.getGaussianKernel(kernel, 0), device=heatmaps.device)  # (kernel, 1)
    frame = pad(heatmaps, [BORDER] * 4).flatten(0, 1)[:, None]
    half = kernel // 2
    frame = conv2d(conv2d(frame, line[None, None], padding=(half, 0)), line.T[None, None], padding=(0, half))
    return frame.view(*heatmaps.shape[:2], *frame.shape[-2:])


def mirror_heatmaps(heatmaps, mirrored):
    """Heatmaps (N, K, h, w) of mirrored crops, as if of the crops themselves. mirrored: Skeleton.mirrored."""
    return heatmaps.flip(3)[:, mirrored]
