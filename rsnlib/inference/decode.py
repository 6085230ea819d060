"""Heatmaps to keypoints."""

import cv2
import numpy as np
import torch
from torch.nn.functional import pad

from rsnlib.data.targets import PEAK
from rsnlib.device import one_thread

BORDER = 10  # cells of zeros that the released code puts around a heatmap
SHIFT = 0.25  # of a cell, towards the second highest
TINY = 1e-10  # what counts as zero of a heatmap, before its logarithm
NEAR = 2  # cells around the peak beyond which nothing is expected to be as high
PEOPLE_AT_A_TIME = 32  # on a CPU: more would not fit its caches


def decode_heatmaps(heatmaps, center, scale, input_size, blur=5, decoding="quarter"):
    """Keypoints and scores of heatmaps (released RSN, test.py, get_results): the highest cell of the blurred heatmap,
    moved a quarter of a cell towards the second highest ("quarter", the paper's), or to the maximum that the cells
    around it suggest ("dark", Zhang et al., CVPR 2020).

    heatmaps: (N, K, h, w) tensor
    center, scale: (N, 2), of the crops: x, y and width, height in picture pixels
    input_size: height and width of the crops; blur: size of the Gaussian kernel (5 for COCO, 9 for MPII)
    decoding: "quarter" or "dark"
    -> keypoints (N, K, 2), x and y in picture pixels, and scores (N, K), heatmap / 255 + 0.5 at the cell; float64
    """
    heatmaps = torch.as_tensor(heatmaps)
    height, width = heatmaps.shape[2:]
    search = _search if heatmaps.device.type == "cpu" and len(heatmaps) else _search_whole
    cell = search(heatmaps, blur, DECODINGS[decoding]).view(*heatmaps.shape[:2], 2)
    x, y = cell[..., 0].clamp(0, width - 1), cell[..., 1].clamp(0, height - 1)
    person, keypoint = (torch.arange(size, device=heatmaps.device) for size in heatmaps.shape[:2])
    value = heatmaps[person[:, None], keypoint, y.round().long(), x.round().long()]
    found = torch.stack([x, y, value], dim=-1).cpu().numpy()
    center, scale = (np.asarray(v, np.float64)[:, None] for v in (center, scale))
    keypoints = (found[..., :2] * 4 + 2) / [input_size[1], input_size[0]] * scale + (center - scale / 2)
    return keypoints, found[..., 2] / PEAK + 0.5


def quarter_shift(frames, first):
    """The highest cells of frames, a quarter of a cell towards the second highest.

    frames: (M, h, w), blurred; first: (M, 2), x and y of their first cells
    -> cells (M, 2), x and y, and the lowest values (M,) that they are due to
    """
    place, peak, _ = _highest(frames, first)
    frames.flatten(1).scatter_(1, place[:, None], 0)  # as in the released code
    _, second, value = _highest(frames, first)
    towards = (second - peak).double()
    return peak + SHIFT * towards / towards.norm(dim=1, keepdim=True).clamp(min=1), value


def second_order(frames, first):
    """The highest cells of frames, one Newton step towards the maximum of the heatmap's logarithm, by its first and
    second differences: exact for a Gaussian. What is given and returned is as for `quarter_shift`.

    A step is at most a cell each way, and none where the logarithm does not bend down all around.
    """
    height, width = frames.shape[1:]
    place, _, value = _highest(frames, first)
    x, y = (place % width).clamp(1, width - 2), (place // width).clamp(1, height - 2)
    around = torch.arange(-1, 2, device=frames.device)
    cells = (y[:, None, None] + around[:, None]) * width + x[:, None, None] + around  # (M, 3, 3)
    log = frames.flatten(1).gather(1, cells.flatten(1)).clamp(min=TINY).log().view(cells.shape)
    dx, dy = (log[:, 1, 2] - log[:, 1, 0]) / 2, (log[:, 2, 1] - log[:, 0, 1]) / 2
    dxx = log[:, 1, 2] - 2 * log[:, 1, 1] + log[:, 1, 0]
    dyy = log[:, 2, 1] - 2 * log[:, 1, 1] + log[:, 0, 1]
    dxy = (log[:, 2, 2] - log[:, 2, 0] - log[:, 0, 2] + log[:, 0, 0]) / 4
    determinant = dxx * dyy - dxy**2
    step = torch.stack([dxy * dy - dyy * dx, dxy * dx - dxx * dy], dim=-1) / determinant[:, None]
    bends_down = (dxx < 0) & (determinant > TINY)
    step = torch.where(bends_down[:, None], step, 0).clamp(-1, 1)
    return first + torch.stack([x, y], dim=1) + step, value


DECODINGS = {"quarter": quarter_shift, "dark": second_order}


def _highest(frames, first):
    """The highest cell of each frame, the first of equals: its place in the frame (M,), x and y (M, 2), and value (M,).
    Where none is above zero, x and y are those of the first zero around the heatmap in the released code."""
    value, place = frames.flatten(1).max(dim=1)
    cell = first + torch.stack([place % frames.shape[2], place // frames.shape[2]], dim=1)
    return place, torch.where(value[:, None] > 0, cell, -BORDER), value


def _search_whole(heatmaps, kernel, find):
    """What `find` finds in heatmaps (N, K, h, w), blurred: cells (N K, 2), x and y. Nothing here waits for a GPU."""
    return find(*_whole(heatmaps.flatten(0, 1), kernel))[0]


@one_thread()  # each step takes microseconds, too little to wait for others
def _search(heatmaps, kernel, find):
    """The same, several times as fast on a CPU: blurs what is around the highest cell before the blur. What it finds
    there is right if it is above every cell further away, of which no blur makes more; else it blurs everything."""
    keypoints, height, width = heatmaps.shape[1:]
    reach = kernel // 2
    blurred = NEAR + reach + 1  # to the neighbours of all that cells near the highest can raise
    radius = blurred + reach
    around, near = torch.arange(-radius, radius + 1), torch.arange(-NEAR, NEAR + 1)
    found = []
    for part in heatmaps.split(PEOPLE_AT_A_TIME):
        rows, columns = _maximum(part, 3), _maximum(part, 2)  # (n, K, h), (n, K, w)
        y, x = rows.argmax(dim=2, keepdim=True), columns.argmax(dim=2, keepdim=True)
        ys, xs = (y + around)[..., None], (x + around)[..., None, :]
        places = ys.clamp(0, height - 1) * (width * keypoints) + xs.clamp(0, width - 1) * keypoints
        places += torch.arange(keypoints)[:, None, None]  # (n, K, 2 radius + 1, 2 radius + 1)
        cells = part.permute(0, 2, 3, 1).flatten(1)  # the order in memory of what convolutions in that order give
        window = cells.gather(1, places.flatten(1)).view(places.shape).double()
        window *= (ys >= 0) & (ys < height)  # zeros around the heatmap
        window *= (xs >= 0) & (xs < width)
        cell, lowest = find(_blur(window.flatten(0, 1), kernel), torch.cat([x, y], dim=2).flatten(0, 1) - blurred)
        rows.scatter_(2, (y + near).clamp(0, height - 1), 0)
        columns.scatter_(2, (x + near).clamp(0, width - 1), 0)
        rest = torch.maximum(rows.amax(dim=2), columns.amax(dim=2)).double().flatten()
        unsure = (lowest <= rest * (1 + 1e-9)).nonzero()[:, 0]
        if len(unsure):
            cell[unsure], _ = find(*_whole(part[unsure // keypoints, unsure % keypoints], kernel))
        found.append(cell)
    return torch.cat(found)


def _maximum(cells, dimension):
    """amax, by halves and several times as fast."""
    while (size := cells.shape[dimension]) > 1:
        half = (size + 1) // 2  # of an odd number they overlap
        cells = torch.maximum(cells.narrow(dimension, 0, half), cells.narrow(dimension, size - half, half))
    return cells.squeeze(dimension)


def _whole(heatmaps, kernel):
    """Heatmaps (M, h, w), blurred, with the cells around them that are not always zero; and x and y of the first."""
    reach = kernel // 2
    return _blur(pad(heatmaps.double(), [1 + 2 * reach] * 4), kernel), -1 - reach


def _blur(cells, kernel):
    """(M, h, w) float64 -> (M, h - 2 (kernel // 2), w - 2 (kernel // 2)): OpenCV's Gaussian of that size, summed in its
    order, so that what is equal stays equal."""
    reach = kernel // 2
    weights = cv2.getGaussianKernel(kernel, 0)[reach:, 0].tolist()  # from the middle on
    for dimension in (2, 1):
        size = cells.shape[dimension] - 2 * reach
        blurred = cells.narrow(dimension, reach, size) * weights[0]
        for steps, weight in enumerate(weights[1:], 1):
            before, behind = (cells.narrow(dimension, reach + offset, size) for offset in (-steps, steps))
            blurred.add_(before + behind, alpha=weight)
        cells = blurred
    return cells


def mirror_heatmaps(heatmaps, mirrored):
    """Heatmaps (N, K, h, w) of mirrored crops, as if of the crops themselves. mirrored: Skeleton.mirrored."""
    return heatmaps.flip(3)[:, mirrored]
