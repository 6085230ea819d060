"""Average precision by object keypoint similarity, as pycocotools computes it."""

import contextlib
import io

import numpy as np
from pycocotools.coco import COCO

from rsnlib.metrics.evaluation import KeypointEvaluation
from rsnlib.runtime import UserError, read_json

FIGURES = ("AP", "AP50", "AP75", "APM", "APL", "AR", "AR50", "AR75", "ARM", "ARL")
PERSON = 1


def coco_results(image_ids, keypoints, scores, box_scores, boxes=None):
    """COCO's results format: a dict a person, its score the box's times the mean keypoint score.

    image_ids: (P,), keypoints: (P, K, 2) in picture pixels, scores: (P, K), box_scores: (P,)
    boxes: (P, 4), kept as "box" beside what COCO asks for ("bbox" would change what pycocotools takes a person's area
        for); None: not kept
    """
    numbers = np.concatenate([keypoints, np.expand_dims(scores, 2)], axis=2).reshape(
        len(scores), 3 * keypoints.shape[1]
    )
    person_scores = box_scores * np.ascontiguousarray(scores).mean(axis=1)
    results = [
        {"image_id": image_id, "category_id": PERSON, "keypoints": values, "score": score}
        for image_id, values, score in zip(image_ids.tolist(), numbers.tolist(), person_scores.tolist(), strict=True)
    ]
    if boxes is not None:
        for result, box in zip(results, boxes.tolist(), strict=True):
            result["box"] = box
    return results


def coco_ap(results, annotations):
    """COCO's ten figures of merit for keypoints, fractions (-1 where there is nobody to count).

    results: a list in COCO's results format, or the path of its JSON
    annotations: the path of the annotations' JSON
    """
    if not isinstance(results, list):
        results = read_json(results)
    truth = COCO()
    truth.dataset = read_json(annotations)
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints its progress
        truth.createIndex()
        strangers = {result["image_id"] for result in results} - set(truth.imgs)
        if strangers:
            raise UserError(f"{annotations}: has no image {min(strangers)}, which the results name")
        if not results:
            return dict.fromkeys(FIGURES, 0.0)
        evaluation = KeypointEvaluation(truth, truth.loadRes(results))
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return dict(zip(FIGURES, map(float, evaluation.stats), strict=True))
