"""Heatmaps to keypoints."""

import cv2
import numpy as np
import torch
from torch.nn.functional import pad

from rsnlib.data.targets import PEAK

SHIFT = 0.25  # of a cell
TINY = 1e-10  # replaces smaller heatmap values before the logarithm
PEOPLE_AT_A_TIME = 8  # on a CPU, whose caches fit float64 heatmaps of so many


def decode_heatmaps(heatmaps, center, scale, input_size, blur=5, decoding="quarter"):
    """Return keypoints and scores of heatmaps (released RSN, test.py, get_results): the highest cell of the blurred
    heatmap, moved a quarter of a cell towards the second highest ("quarter", the paper's), or along each axis
    ("axes", MMPose's), or to the maximum that the cells around it suggest ("dark", Zhang et al., CVPR 2020).

    heatmaps: (N, K, h, w) tensor
    center, scale: (N, 2), of the crops: x, y and width, height in picture pixels
    input_size: height and width of the crops; blur: size of the Gaussian kernel (5 for COCO, 9 for MPII)
    decoding: "quarter", "axes" or "dark"
    -> keypoints (N, K, 2), x and y in picture pixels, and scores (N, K), heatmap / 255 + 0.5 at the cell (as in MMPose
        with "axes": at its highest, wherever the blur moves that); float64
    """
    heatmaps = torch.as_tensor(heatmaps)
    height, width = heatmaps.shape[2:]
    # the released code puts 10 zeros around a heatmap; beyond the blur's reach all are alike, so one is enough
    refine, border = DECODINGS[decoding], blur // 2 + 1
    parts = heatmaps.split(PEOPLE_AT_A_TIME if heatmaps.device.type == "cpu" else max(1, len(heatmaps)))
    cells = torch.cat([refine(_blurred(part, blur, border), border) for part in parts])
    if decoding == "axes":
        x, y = cells.unbind(dim=-1)
        value = heatmaps.flatten(2).amax(dim=2)
    else:
        x, y = cells[..., 0].clamp(0, width - 1), cells[..., 1].clamp(0, height - 1)
        nearest = y.round().long() * width + x.round().long()
        value = heatmaps.flatten(2).gather(2, nearest[..., None])[..., 0]
    found = torch.stack([x, y, value], dim=-1).cpu().numpy()  # the only wait for a GPU
    center, scale = (np.asarray(v, np.float64)[:, None] for v in (center, scale))
    keypoints = (found[..., :2] * 4 + 2) / [input_size[1], input_size[0]] * scale + (center - scale / 2)
    return keypoints, found[..., 2] / PEAK + 0.5


def quarter_shift(heatmaps, border):
    """Return the highest cells, moved a quarter of a cell towards the second highest: x and y (N, K, 2).

    heatmaps: (N, K, h + 2 border, w + 2 border), blurred
    """
    peak, place = _highest(heatmaps, border)
    others = heatmaps.flatten(2).scatter(2, place[..., None], 0).view(heatmaps.shape)  # 0 as in the released code
    towards = (_highest(others, border)[0] - peak).double()
    return peak + SHIFT * towards / towards.norm(dim=2, keepdim=True).clamp(min=1)


def second_order(heatmaps, border):
    """Return the highest cells, moved by one Newton step towards the maximum of the heatmap's logarithm, by its first
    and second differences: exact for a Gaussian. Shapes as in `quarter_shift`.

    A step is at most a cell each way, and none where the logarithm does not bend down all around.
    """
    height, width = heatmaps.shape[2:]
    _, place = _highest(heatmaps, border)
    x, y = (place % width).clamp(1, width - 2), (place // width).clamp(1, height - 2)
    around = torch.arange(-1, 2, device=heatmaps.device)
    cells = (y[..., None, None] + around[:, None]) * width + x[..., None, None] + around  # (N, K, 3, 3)
    log = heatmaps.flatten(2).gather(2, cells.flatten(2)).clamp(min=TINY).log().view(cells.shape)
    dx, dy = (log[..., 1, 2] - log[..., 1, 0]) / 2, (log[..., 2, 1] - log[..., 0, 1]) / 2
    dxx = log[..., 1, 2] - 2 * log[..., 1, 1] + log[..., 1, 0]
    dyy = log[..., 2, 1] - 2 * log[..., 1, 1] + log[..., 0, 1]
    dxy = (log[..., 2, 2] - log[..., 2, 0] - log[..., 0, 2] + log[..., 0, 0]) / 4
    determinant = dxx * dyy - dxy**2
    step = torch.stack([dxy * dy - dyy * dx, dxy * dx - dxx * dy], dim=-1) / determinant[..., None]
    bends_down = (dxx < 0) & (determinant > TINY)
    return torch.stack([x, y], dim=-1) - border + torch.where(bends_down[..., None], step, 0).clamp(-1, 1)


def quarter_by_axis(heatmaps, border):
    """Return the highest cells inside the border, moved a quarter of a cell along each axis, towards the higher of the
    two neighbours there (MMPose 1.x, MegviiHeatmap.decode). Shapes as in `quarter_shift`.

    Next to the heatmap's edge MMPose leaves out the shift and the half cell from a cell's corner to its middle.
    """
    inside = heatmaps[..., border:-border, border:-border]
    size = torch.tensor([inside.shape[3], inside.shape[2]], device=heatmaps.device)
    peak, _ = _highest(inside, 0)
    stride, values = heatmaps.shape[3], heatmaps.flatten(2)
    place = ((peak[..., 1] + border) * stride + peak[..., 0] + border)[..., None]
    rise = [values.gather(2, place + step) - values.gather(2, place - step) for step in (1, stride)]
    shift = SHIFT * torch.cat(rise, dim=2).sign()
    away_from_edge = ((peak > 1) & (peak < size - 1)).all(dim=-1, keepdim=True)
    return peak + torch.where(away_from_edge, shift, -0.5)


DECODINGS = {"quarter": quarter_shift, "axes": quarter_by_axis, "dark": second_order}


def _highest(heatmaps, border):
    """Return the first highest cell of each bordered heatmap: x and y (N, K, 2) without the border, and its place
    (N, K) in the flat heatmap."""
    place = heatmaps.flatten(2).argmax(dim=2)
    width = heatmaps.shape[3]
    return torch.stack([place % width, place // width], dim=-1) - border, place


def _blurred(heatmaps, kernel, border):
    """Blur heatmaps (N, K, h, w) in a border of zeros with OpenCV's Gaussian of that size: float64, summed in
    OpenCV's order, so that equal cells stay equal."""
    reach = kernel // 2
    weights = cv2.getGaussianKernel(kernel, 0)[reach:, 0].tolist()  # from the middle on
    cells = pad(heatmaps.double().contiguous(), [border + reach] * 4)
    for dimension in (3, 2):
        size = cells.shape[dimension] - 2 * reach
        blurred = cells.narrow(dimension, reach, size) * weights[0]
        for steps, weight in enumerate(weights[1:], 1):
            before, behind = (cells.narrow(dimension, reach + offset, size) for offset in (-steps, steps))
            blurred.add_(before + behind, alpha=weight)
        cells = blurred
    return cells


def mirror_heatmaps(heatmaps, mirrored):
    """Return heatmaps (N, K, h, w) of mirrored crops as heatmaps of the crops. mirrored: Skeleton.mirrored."""
    return heatmaps.flip(3)[:, mirrored]
