"""Percentage of correct keypoints: PCKh in parts of the head for MPII, PCK in parts of the torso for LSP or, for
skeletons without sigmas, of the box."""

import numpy as np

from rsnlib.data.readers import mpii
from rsnlib.data.skeletons import LSP, MPII
from rsnlib.errors import UserError
from rsnlib.metrics.people import NEAR, box_distances

PCKH_WITHIN, PCK_WITHIN = 0.5, 0.2
HEAD_FRACTION = 0.6  # of the head box's diagonal, MPII's unit of length
RELEASED_TENTH = 0.11  # reported as 0.1 by the released evaluation: the twelfth of its steps of 0.01 from 0
GROUPS = ("Head", "Shoulder", "Elbow", "Wrist", "Hip", "Knee", "Ankle")


def pckh(predictions, ground_truth, people=None):
    """Return PCKh at 0.5 of each joint group and over all joints ("Mean", without pelvis and thorax), and "Mean@0.1";
    per cent (released RSN, MPIIDataset.evaluate).

    Takes the arguments of `head_distances`.
    """
    distance, counted = head_distances(predictions, ground_truth, people)
    shares = _shares(distance <= PCKH_WITHIN, counted, MPII, head=["head_top"])
    return shares | {"Mean@0.1": _share(distance <= RELEASED_TENTH, counted)}


def head_distances(predictions, ground_truth, people=None):
    """Return the distances of MPII's joints from the ground truth, in parts of the head, and whether they count, both
    (P, 16).

    predictions: (P, 16, 2), 0-based picture pixels
    ground_truth: the path of MPII's ground truth, gt_valid.mat or its own annotations
    people: the P People, whose ids are rows of the ground truth, from 1; None: all of its people, in order

    Raises UserError for another file, for another number of people or for other people.
    """
    positions, counted, heads = mpii.ground_truth(ground_truth)
    if people is not None:
        rows = people.ids[people.ids <= len(positions)] - 1
        positions, counted, heads = positions[rows], counted[rows], heads[rows]
    if len(predictions) != len(positions):
        raise UserError(f"{ground_truth}: has {len(positions)} people, the predictions {len(predictions)}")
    if people is not None:
        off = np.abs(people.keypoints + 1 - positions)[(people.visible > 0) & counted]
        if off.size and np.median(off) > 1:
            raise UserError(f"{ground_truth}: its people are not the annotations': their joints are elsewhere")
    unit = np.linalg.norm(heads[:, 1] - heads[:, 0], axis=1) * HEAD_FRACTION
    distance = np.linalg.norm(predictions + 1 - positions, axis=2) / unit[:, None]
    counted[:, [MPII.keypoints.index("pelvis"), MPII.keypoints.index("thorax")]] = False
    return distance, counted


def pck(keypoints, people):
    """Return PCK at 0.2 of each joint group and over all joints ("Mean"), per cent.

    keypoints and people: as for `torso_distances`
    """
    distance, counted = torso_distances(keypoints, people)
    return _shares(distance <= PCK_WITHIN, counted, LSP, head=["neck", "head_top"])


def torso_distances(keypoints, people):
    """Return the distances of LSP's joints from the ground truth, in torsos (left shoulder to right hip of the ground
    truth), and whether they count, both (P, 14); people whose torso is not labelled do not.

    keypoints: (P, 14, 2) in picture pixels; people: the People of an LSP data set
    """
    shoulder, hip = (LSP.keypoints.index(name) for name in ("left_shoulder", "right_hip"))
    torso = np.linalg.norm(people.keypoints[:, shoulder] - people.keypoints[:, hip], axis=1)
    measured = (people.visible[:, shoulder] > 0) & (people.visible[:, hip] > 0) & (torso > 0)
    distance = np.linalg.norm(keypoints - people.keypoints, axis=2) / np.where(measured, torso, 1)[:, None]
    return distance, (people.visible > 0) & measured[:, None]


def box_pck(keypoints, people):
    """Return PCK in longer sides of people's boxes over all keypoints, at 0.2 ("Mean") and 0.05 ("Mean@0.05"), per cent
    and, where the skeleton has `normalise_by`, the normalised mean error ("NME"): the mean distance in per cent of that
    between these two keypoints of the ground truth, of those people who have both.

    keypoints: (P, K, 2) in picture pixels; people: People
    """
    distance, labelled = box_distances(keypoints, people), people.visible > 0
    found = {"Mean": _share(distance <= PCK_WITHIN, labelled), "Mean@0.05": _share(distance <= NEAR, labelled)}
    if people.skeleton.normalise_by:
        first, second = people.skeleton.normalise_by
        unit = np.linalg.norm(people.keypoints[:, first] - people.keypoints[:, second], axis=1)
        measured = labelled & (labelled[:, first] & labelled[:, second] & (unit > 0))[:, None]
        pixels = np.linalg.norm(keypoints - people.keypoints, axis=2)
        errors = (pixels / np.maximum(unit, 1e-9)[:, None])[measured]
        found["NME"] = float(100 * errors.mean()) if len(errors) else -1.0
    return found


def _shares(right, counted, skeleton, head):
    """Return the share of right among counted (P, K), per cent: the mean over each group's joints, and over all joints.

    head: the names of the joints of the group "Head"
    """
    shares = {}
    for group in GROUPS:
        names = head if group == "Head" else [f"{side}_{group.lower()}" for side in ("left", "right")]
        joints = [skeleton.keypoints.index(name) for name in names]
        of_joints = [_share(right[:, joint], counted[:, joint]) for joint in joints if counted[:, joint].any()]
        shares[group] = float(np.mean(of_joints)) if of_joints else 0.0
    return shares | {"Mean": _share(right, counted)}


def _share(right, counted):
    return float(100 * (right & counted).sum() / max(1, counted.sum()))
