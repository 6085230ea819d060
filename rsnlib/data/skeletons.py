"""Skeletons: the keypoints of each kind of data set, their mirror pairs, limbs, upper body and OKS sigmas."""

from dataclasses import asdict, dataclass, replace


@dataclass(frozen=True)
class Skeleton:
    """Names and order of K keypoints, and what belongs to each.

    mirror: (left, right) index pairs; limbs: index pairs to draw; upper_body: indices
    sigmas: constants of object keypoint similarity, one per keypoint; None where no standard exists
    """

    name: str
    keypoints: tuple[str, ...]
    mirror: tuple[tuple[int, int], ...]
    limbs: tuple[tuple[int, int], ...]
    upper_body: tuple[int, ...]
    sigmas: tuple[float, ...] | None = None

    def __len__(self):
        return len(self.keypoints)

    @property
    def mirrored(self):
        """Index of each keypoint's mirror image, its own where it has none: a list of K."""
        order = list(range(len(self.keypoints)))
        for a, b in self.mirror:
            order[a], order[b] = b, a
        return order

    def side(self, index):
        """Return the side of a keypoint: "left", "right" or, in no mirror pair, "middle"."""
        sides = (dict(zip(pair, ("left", "right"))) for pair in self.mirror)
        return next((pair[index] for pair in sides if index in pair), "middle")

    @property
    def description(self):
        """JSON value for this skeleton in a file: its name where that is in SKELETONS, else all fields but the sigmas:
        they judge, and neither crops nor weights depend on them."""
        return self.name if SKELETONS.get(self.name) == self else asdict(replace(self, sigmas=None))


# cocodataset.org; sigmas as in pycocotools; upper body as in the released RSN code
COCO = Skeleton(
    name="coco",
    keypoints=(
        "nose", "left_eye", "right_eye", "left_ear", "right_ear", "left_shoulder", "right_shoulder",
        "left_elbow", "right_elbow", "left_wrist", "right_wrist", "left_hip", "right_hip",
        "left_knee", "right_knee", "left_ankle", "right_ankle",
    ),
    mirror=((1, 2), (3, 4), (5, 6), (7, 8), (9, 10), (11, 12), (13, 14), (15, 16)),
    limbs=(
        (15, 13), (13, 11), (16, 14), (14, 12), (11, 12), (5, 11), (6, 12), (5, 6), (5, 7), (6, 8),
        (7, 9), (8, 10), (1, 2), (0, 1), (0, 2), (1, 3), (2, 4), (3, 5), (4, 6),
    ),
    upper_body=tuple(range(13)),
    sigmas=(
        0.026, 0.025, 0.025, 0.035, 0.035, 0.079, 0.079, 0.072, 0.072, 0.062, 0.062,
        0.107, 0.107, 0.087, 0.087, 0.089, 0.089,
    ),
)  # fmt: skip

# human-pose.mpi-inf.mpg.de; upper body as in the released RSN code
MPII = Skeleton(
    name="mpii",
    keypoints=(
        "right_ankle", "right_knee", "right_hip", "left_hip", "left_knee", "left_ankle", "pelvis", "thorax",
        "upper_neck", "head_top", "right_wrist", "right_elbow", "right_shoulder", "left_shoulder",
        "left_elbow", "left_wrist",
    ),
    mirror=((5, 0), (4, 1), (3, 2), (15, 10), (14, 11), (13, 12)),
    limbs=(
        (0, 1), (1, 2), (2, 6), (3, 4), (3, 6), (4, 5), (6, 7), (7, 8), (8, 9), (8, 12), (8, 13),
        (10, 11), (11, 12), (13, 14), (14, 15),
    ),
    upper_body=tuple(range(7, 16)),
)  # fmt: skip

# Leeds Sports Pose and its extension, sam.johnson.io/research
LSP = Skeleton(
    name="lsp",
    keypoints=(
        "right_ankle", "right_knee", "right_hip", "left_hip", "left_knee", "left_ankle", "right_wrist",
        "right_elbow", "right_shoulder", "left_shoulder", "left_elbow", "left_wrist", "neck", "head_top",
    ),
    mirror=((5, 0), (4, 1), (3, 2), (11, 6), (10, 7), (9, 8)),
    limbs=(
        (0, 1), (1, 2), (2, 3), (3, 4), (4, 5), (2, 8), (3, 9), (6, 7), (7, 8), (8, 12), (9, 12), (9, 10),
        (10, 11), (12, 13),
    ),
    upper_body=tuple(range(6, 14)),
)  # fmt: skip

SKELETONS = {skeleton.name: skeleton for skeleton in (COCO, MPII, LSP)}


def from_description(description):
    """Return the skeleton of a `description`. Raises KeyError, TypeError or ValueError where it describes none."""
    if isinstance(description, str):
        return SKELETONS[description]
    return Skeleton(**{key: _tuples(value) for key, value in dict(description).items()})


def _tuples(value):
    """Return `value` with a tuple in place of every list."""
    return tuple(map(_tuples, value)) if isinstance(value, list | tuple) else value
