"""Accuracy by each data set's own protocol: AP, PCKh or PCK."""

from rsnlib.metrics.coco import coco_ap, coco_results
from rsnlib.metrics.errors import keypoint_errors, repair_gains
from rsnlib.metrics.oks import suppress
from rsnlib.metrics.pck import pckh
from rsnlib.metrics.people import NEAR, box_distances, keypoint_accuracy, match_by_box, person_scores
from rsnlib.metrics.protocols import protocol

__all__ = [
    "NEAR",
    "box_distances",
    "coco_ap",
    "coco_results",
    "keypoint_accuracy",
    "keypoint_errors",
    "match_by_box",
    "pckh",
    "person_scores",
    "protocol",
    "repair_gains",
    "suppress",
]
