"""Heatmaps to keypoints."""

import cv2
import torch
from torch.nn.functional import conv2d, pad

from rsnlib.targets import PEAK

BORDER = 10  # cells around the heatmap in which the blurred peak is sought, too
SHIFT = 0.25  # of a cell, towards the second highest
TINY = 1e-10  # what counts as zero of a heatmap, before its logarithm


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
    heatmaps = torch.as_tensor(heatmaps).double()
    count, keypoints, height, width = heatmaps.shape
    center, scale = (torch.as_tensor(v, dtype=torch.float64, device=heatmaps.device) for v in (center, scale))
    cell = DECODINGS[decoding](_blurred(heatmaps, blur)) - BORDER
    cell = cell.clamp(min=0).minimum(torch.tensor([width - 1, height - 1], device=cell.device))

    column, row = cell.round().long().unbind(-1)
    scores = heatmaps.flatten(2).gather(2, (row * width + column)[..., None]).squeeze(2) / PEAK + 0.5
    crop = torch.tensor([input_size[1], input_size[0]], device=cell.device)
    positions = (cell * 4 + 2) / crop * scale[:, None] + (center - scale / 2)[:, None]
    return positions.cpu().numpy(), scores.cpu().numpy()


def quarter_shift(frame):
    """The highest cells of a frame (N, K, h, w), a quarter of a cell towards the second highest: (N, K, 2), x and y."""
    peaks = frame.flatten(2).topk(2, dim=2).indices
    cell = torch.stack([peaks % frame.shape[3], peaks // frame.shape[3]], dim=-1).double()  # (N, K, 2 peaks, 2)
    towards = cell[:, :, 1] - cell[:, :, 0]
    return cell[:, :, 0] + SHIFT * towards / towards.norm(dim=-1, keepdim=True)


def second_order(frame):
    """The highest cells of a frame (N, K, h, w), one Newton step towards the maximum of the heatmap's logarithm, by its
    first and second differences: exact for a Gaussian. (N, K, 2), x and y.

    A step is at most a cell each way, and none where the logarithm does not bend down all around.
    """
    height, width = frame.shape[2:]
    peak = frame.flatten(2).argmax(dim=2)
    x, y = (peak % width).clamp(1, width - 2), (peak // width).clamp(1, height - 2)
    around = torch.tensor([-1, 0, 1], device=frame.device)
    cells = (y[..., None, None] + around[:, None]) * width + x[..., None, None] + around  # (N, K, 3, 3)
    log = frame.flatten(2).gather(2, cells.flatten(2)).clamp(min=TINY).log().view(cells.shape)
    dx, dy = (log[..., 1, 2] - log[..., 1, 0]) / 2, (log[..., 2, 1] - log[..., 0, 1]) / 2
    dxx = log[..., 1, 2] - 2 * log[..., 1, 1] + log[..., 1, 0]
    dyy = log[..., 2, 1] - 2 * log[..., 1, 1] + log[..., 0, 1]
    dxy = (log[..., 2, 2] - log[..., 2, 0] - log[..., 0, 2] + log[..., 0, 0]) / 4
    determinant = dxx * dyy - dxy**2
    step = torch.stack([dxy * dy - dyy * dx, dxy * dx - dxx * dy], dim=-1) / determinant[..., None]
    bends_down = (dxx < 0) & (determinant > TINY)
    step = torch.where(bends_down[..., None], step, 0).clamp(-1, 1)
    return torch.stack([x, y], dim=-1) + step


DECODINGS = {"quarter": quarter_shift, "dark": second_order}


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
