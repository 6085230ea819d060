"""People followed from frame to frame of a video."""

import numpy as np
from scipy.optimize import linear_sum_assignment

from rsnlib.metrics.oks import oks

SIMILAR = 0.3  # object keypoint similarity from which two frames show one person
REMEMBERED = 10  # frames for which somebody who is not seen keeps the number
SIGMA = 0.08  # of keypoints of a skeleton without sigmas; COCO's are 0.025 to 0.107


class Tracks:
    """Numbers, from 1, that the people in a video keep from frame to frame."""

    def __init__(self, skeleton):
        self.sigmas = skeleton.sigmas or [SIGMA] * len(skeleton)
        self.count, self.frame = 0, 0
        self.seen = {}  # {number: (keypoints (K, 2), area of the box, frame)}, as last seen

    def follow(self, poses):
        """Return the numbers, a list of P, of the people in the next frame, from their `Poses`: those of the people of
        the last frames to whom they are the most similar, or new ones."""
        areas, numbers = poses.boxes[:, 2:].prod(axis=1), [0] * len(poses.boxes)
        known = list(self.seen)
        if known and numbers:
            keypoints, known_areas = (np.array([self.seen[number][part] for number in known]) for part in (0, 1))
            similarity = oks(poses.keypoints, keypoints, (areas[:, None] + known_areas) / 2, self.sigmas)
            for row, column in zip(*linear_sum_assignment(similarity, maximize=True)):
                if similarity[row, column] > SIMILAR:
                    numbers[row] = known[column]
        self.frame += 1
        for row, number in enumerate(numbers):
            if not number:
                self.count += 1
                numbers[row] = self.count
            self.seen[numbers[row]] = poses.keypoints[row], areas[row], self.frame
        self.seen = {number: last for number, last in self.seen.items() if last[2] > self.frame - REMEMBERED}
        return numbers
