"""Accuracy by each data set's own protocol: AP, PCKh or PCK."""

from rsnlib.metrics.bootstrap import resample
from rsnlib.metrics.coco import coco_ap, coco_results
from rsnlib.metrics.errors import keypoint_errors, repair_gains
from rsnlib.metrics.oks import nms, oks, suppress
from rsnlib.metrics.pck import pck, pckh
from rsnlib.metrics.people import NEAR, box_distances, keypoint_accuracy, of_people, person_scores
from rsnlib.metrics.protocols import accuracy, diagnose, headline, resampled_headline

__all__ = [
    "NEAR",
    "accuracy",
    "box_distances",
    "coco_ap",
    "coco_results",
    "diagnose",
    "headline",
    "keypoint_accuracy",
    "keypoint_errors",
    "nms",
    "of_people",
    "oks",
    "pck",
    "pckh",
    "person_scores",
    "repair_gains",
    "resample",
    "resampled_headline",
    "suppress",
]
