"""People: what every reader gives, whatever the files look like."""

from dataclasses import dataclass, fields, replace

import numpy as np

from rsnlib.skeletons import Skeleton


@dataclass(frozen=True)
class People:
    """One row a person. P people, K keypoints.

    skeleton: the keypoints' names and order
    ids: (P,) int64, annotation ids (row numbers from 1 where the data set has none)
    image_ids: (P,) int64
    images: (P,) str, paths of the image files
    image_sizes: (P, 2) int64, height and width
    boxes: (P, 4) float64, x, y, width, height in pixels
    keypoints: (P, K, 2) float64, x and y in pixels; meaningless where not labelled
    visible: (P, K) int64, 2 visible, 1 hidden but labelled, 0 not labelled
    areas: (P,) float64, pixels covered by the person (of the box where the data set has none)
    scores: (P,) float64, the box's confidence, 1 for ground truth
    unusable: (id, reason) of each annotation that was left out because something is wrong with it
    """

    skeleton: Skeleton
    ids: np.ndarray
    image_ids: np.ndarray
    images: np.ndarray
    image_sizes: np.ndarray
    boxes: np.ndarray
    keypoints: np.ndarray
    visible: np.ndarray
    areas: np.ndarray
    scores: np.ndarray
    unusable: tuple[tuple[str, str], ...] = ()

    def __len__(self):
        return len(self.ids)

    def take(self, rows):
        """The people of `rows` (indices or a boolean mask)."""
        arrays = [f.name for f in fields(self) if f.name not in ("skeleton", "unusable")]
        return replace(self, **{name: getattr(self, name)[rows] for name in arrays})
