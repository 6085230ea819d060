"""Boxes to predict in: checked where they are given, found where they are not."""

from functools import lru_cache

import cv2
import numpy as np

from rsnlib.data.people import Unusable, check_box, finite_numbers
from rsnlib.errors import UserError

WINDOW = (128, 64)  # height and width that the detector looks at
LONGEST = 800  # pixels; a longer side is reduced to it before people are sought
OVERLAP = 0.5  # of two windows that overlap more, intersection over union, the surer one stays
MARGINS = (0.08, 0.2)  # of a window's height and width: background above and below, left and right of a person


def check_boxes(boxes, picture):
    """Return boxes as (P, 5) float64: x, y, width, height in pixels of the picture (H, W, 3), and their scores.

    boxes: (P, 4), or (P, 5) with scores; without, they are 1. May be empty.

    A box may reach out of the picture, where the network sees black. Raises UserError for one that lies wholly outside.
    """
    try:
        boxes = np.atleast_2d(np.asarray(boxes, np.float64))
        if boxes.size == 0:
            return np.zeros((0, 5))
        if boxes.ndim != 2 or boxes.shape[1] not in (4, 5):
            raise ValueError
    except (TypeError, ValueError):
        raise UserError("boxes: each must be four numbers: x, y, width, height (or five: and a score)") from None
    for row, box in enumerate(boxes.tolist()):
        try:
            check_box(finite_numbers(box, len(box), "box")[:4], picture.shape[:2])
        except Unusable as reason:
            raise UserError(f"boxes: row {row}: {reason}") from None
    return boxes if boxes.shape[1] == 5 else np.insert(boxes, 4, 1, axis=1)


def find_people(picture):
    """Find the upright people in an RGB picture by OpenCV's histograms of oriented gradients (Dalal and Triggs, CVPR
    2005): boxes (P, 4); where it finds nobody, one box, the whole picture."""
    height, width = picture.shape[:2]
    zoom = min(1, LONGEST / max(height, width))
    size = max(1, round(zoom * width)), max(1, round(zoom * height))
    small = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
    windows, weights = (), ()
    if small.shape[0] >= WINDOW[0] and small.shape[1] >= WINDOW[1]:
        windows, weights = _detector().detectMultiScale(small, winStride=(8, 8), padding=(16, 16), scale=1.05)
    if not len(windows):
        return np.array([[0, 0, width, height]], np.float64)
    surest = cv2.dnn.NMSBoxes(windows, np.ravel(weights), 0, OVERLAP)
    windows = np.asarray(windows, np.float64)[np.ravel(surest)]
    margins = windows[:, [2, 3]] * MARGINS[::-1]
    low = np.clip((windows[:, :2] + margins) / zoom, 0, (width - 1, height - 1))
    high = np.clip((windows[:, :2] + windows[:, 2:] - margins) / zoom, low + 1, (width, height))
    return np.concatenate([low, high - low], axis=1)


@lru_cache
def _detector():
    detector = cv2.HOGDescriptor()
    detector.setSVMDetector(cv2.HOGDescriptor_getDefaultPeopleDetector())
    return detector
