"""Skeletons: the keypoints of each kind of data set, their mirror pairs, limbs, upper body and OKS sigmas."""

from dataclasses import asdict, dataclass, replace


@dataclass(frozen=True)
class Skeleton:
    """Names and order of K keypoints, and what belongs to each.

    mirror: (left, right) index pairs; limbs: index pairs to draw; upper_body: indices
    sigmas: constants of object keypoint similarity, one per keypoint; None where no standard exists
    normalise_by: two indices, whose distance is the unit of the normalised mean error (NME); None: there is none
    """

    name: str
    keypoints: tuple[str, ...]
    mirror: tuple[tuple[int, int], ...]
    limbs: tuple[tuple[int, int], ...]
    upper_body: tuple[int, ...]
    sigmas: tuple[float, ...] | None = None
    normalise_by: tuple[int, int] | None = None

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
        """JSON value for this skeleton in a file: its name where that is in SKELETONS, else all fields but sigmas and
        normalise_by: they judge, and neither crops nor weights depend on them."""
        if SKELETONS.get(self.name) == self:
            return self.name
        return {key: value for key, value in asdict(replace(self, sigmas=None)).items() if key != "normalise_by"}


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


def _paired(name, keypoints, limbs, upper_body, sigmas, mirror=()):
    """Return the Skeleton of `keypoints`, names in one text; besides `mirror`, those pairs change places in a mirrored
    picture whose names differ in left and right alone."""
    keypoints = tuple(keypoints.split())
    lefts = ((index, each.replace("left", "right")) for index, each in enumerate(keypoints) if "left" in each)
    mirror = (*((index, keypoints.index(right)) for index, right in lefts), *mirror)
    return Skeleton(name, keypoints, mirror, limbs, tuple(upper_body), sigmas)


# Li et al., CVPR 2019, github.com/Jeff-sjtu/CrowdPose; sigmas as in crowdposetools
CROWDPOSE = _paired(
    "crowdpose",
    "left_shoulder right_shoulder left_elbow right_elbow left_wrist right_wrist left_hip right_hip left_knee "
    "right_knee left_ankle right_ankle head neck",
    limbs=(
        (10, 8), (8, 6), (11, 9), (9, 7), (6, 7), (0, 6), (1, 7), (0, 2), (1, 3), (2, 4), (3, 5), (12, 13), (0, 13),
        (1, 13),
    ),
    upper_body=(*range(6), 12, 13),
    sigmas=(0.079, 0.079, 0.072, 0.072, 0.062, 0.062, 0.107, 0.107, 0.087, 0.087, 0.089, 0.089, 0.079, 0.079),
)  # fmt: skip

# AI Challenger, Wu et al., arXiv 1711.06475; sigmas as in its evaluation
AIC = _paired(
    "aic",
    "right_shoulder right_elbow right_wrist left_shoulder left_elbow left_wrist right_hip right_knee right_ankle "
    "left_hip left_knee left_ankle head_top neck",
    limbs=(
        (0, 1), (1, 2), (3, 4), (4, 5), (6, 7), (7, 8), (9, 10), (10, 11), (6, 9), (0, 6), (3, 9), (12, 13), (0, 13),
        (3, 13),
    ),
    upper_body=(*range(6), 12, 13),
    sigmas=(
        0.01388152, 0.01515228, 0.01057665, 0.01417709, 0.01497891, 0.01402144, 0.03909642, 0.03686941, 0.01981803,
        0.03843971, 0.03412318, 0.02415081, 0.01291456, 0.01236173,
    ),
)  # fmt: skip

# Yu et al., NeurIPS 2021, github.com/AlexTheBad/AP-10K; sigmas as in its evaluation
AP10K = _paired(
    "ap10k",
    "left_eye right_eye nose neck root_of_tail left_shoulder left_elbow left_front_paw right_shoulder right_elbow "
    "right_front_paw left_hip left_knee left_back_paw right_hip right_knee right_back_paw",
    limbs=(
        (0, 1), (0, 2), (1, 2), (2, 3), (3, 4), (3, 5), (5, 6), (6, 7), (3, 8), (8, 9), (9, 10), (4, 11), (11, 12),
        (12, 13), (4, 14), (14, 15), (15, 16),
    ),
    upper_body=(*range(4), *range(5, 11)),
    sigmas=(
        0.025, 0.025, 0.026, 0.035, 0.035, 0.079, 0.072, 0.062, 0.079, 0.072, 0.062, 0.107, 0.087, 0.089, 0.107, 0.087,
        0.089,
    ),
)  # fmt: skip

# Halpe Full-Body, github.com/Fang-Haoshu/Halpe-FullBody, its first 26 keypoints; sigmas as in AlphaPose
HALPE26 = _paired(
    "halpe26",
    f"{' '.join(COCO.keypoints)} head neck hip left_big_toe right_big_toe left_small_toe right_small_toe left_heel "
    "right_heel",
    limbs=(
        (15, 13), (13, 11), (11, 19), (16, 14), (14, 12), (12, 19), (17, 18), (18, 19), (18, 5), (5, 7), (7, 9),
        (18, 6), (6, 8), (8, 10), (1, 2), (0, 1), (0, 2), (1, 3), (2, 4), (15, 20), (15, 22), (15, 24), (16, 21),
        (16, 23), (16, 25),
    ),
    upper_body=(*range(11), 17, 18),
    sigmas=(*COCO.sigmas, 0.026, 0.026, 0.066, *[0.079] * 6),
)  # fmt: skip

# Jin et al., ECCV 2020, github.com/jin-s13/COCO-WholeBody: body, feet, 300-W's 68 landmarks of the face (which begin at
# the right ear), hands; sigmas as in its evaluation
FINGERS = ("thumb", "forefinger", "middle_finger", "ring_finger", "pinky_finger")
HANDS = [
    [f"{side}_hand_root", *(f"{side}_{each}{i}" for each in FINGERS for i in "1234")] for side in ("left", "right")
]
FACE_PAIRS = (
    *zip(range(16, 8, -1), range(8)), *zip(range(26, 21, -1), range(17, 22)), (35, 31), (34, 32), (45, 36), (44, 37),
    (43, 38), (42, 39), (47, 40), (46, 41), (54, 48), (53, 49), (52, 50), (59, 55), (58, 56), (64, 60), (63, 61),
    (67, 65),
)  # fmt: skip
FACE_SIGMAS = (
    0.042, 0.043, 0.044, 0.043, 0.040, 0.035, 0.031, 0.025, 0.020, 0.023, 0.029, 0.032, 0.037, 0.038, 0.043, 0.041,
    0.045, 0.013, 0.012, 0.011, 0.011, 0.012, 0.012, 0.011, 0.011, 0.013, 0.015, 0.009, 0.007, 0.007, 0.007, 0.012,
    0.009, 0.008, 0.016, 0.010, 0.017, 0.011, 0.009, 0.011, 0.009, 0.007, 0.013, 0.008, 0.011, 0.012, 0.010, 0.034,
    0.008, 0.008, 0.009, 0.008, 0.008, 0.007, 0.010, 0.008, 0.009, 0.009, 0.009, 0.007, 0.007, 0.008, 0.011, 0.008,
    0.008, 0.008, 0.010, 0.008,
)  # fmt: skip
HAND_SIGMAS = (
    0.029, 0.022, 0.035, 0.037, 0.047, 0.026, 0.025, 0.024, 0.035, 0.018, 0.024, 0.022, 0.026, 0.017, 0.021, 0.021,
    0.032, 0.020, 0.019, 0.022, 0.031,
)  # fmt: skip
WHOLEBODY = _paired(
    "coco-wholebody",
    " ".join([
        *COCO.keypoints, "left_big_toe", "left_small_toe", "left_heel", "right_big_toe", "right_small_toe",
        "right_heel", *(f"face-{i}" for i in range(68)), *HANDS[0], *HANDS[1],
    ]),
    limbs=(
        *COCO.limbs, *((ankle, toe) for ankle, foot in ((15, 17), (16, 20)) for toe in range(foot, foot + 3)),
        *((root if joint % 4 == 1 else root + joint - 1, root + joint) for root in (91, 112) for joint in range(1, 21)),
    ),
    upper_body=(*COCO.upper_body, *range(23, 133)),
    sigmas=(*COCO.sigmas, 0.068, 0.066, 0.066, 0.092, 0.094, 0.094, *FACE_SIGMAS, *HAND_SIGMAS, *HAND_SIGMAS),
    mirror=tuple((23 + left, 23 + right) for left, right in FACE_PAIRS),
)  # fmt: skip

SKELETONS = {each.name: each for each in (COCO, MPII, LSP, CROWDPOSE, AIC, AP10K, HALPE26, WHOLEBODY)}


def from_description(description):
    """Return the skeleton of a `description`. Raises KeyError, TypeError or ValueError where it describes none."""
    if isinstance(description, str):
        return SKELETONS[description]
    return Skeleton(**{key: _tuples(value) for key, value in dict(description).items()})


def _tuples(value):
    """Return `value` with a tuple in place of every list."""
    return tuple(map(_tuples, value)) if isinstance(value, list | tuple) else value
