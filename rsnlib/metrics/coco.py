"""Average precision by object keypoint similarity, as pycocotools computes it."""

import contextlib
import io

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from rsnlib.runtime import UserError, read_json

FIGURES = ("AP", "AP50", "AP75", "APM", "APL", "AR", "AR50", "AR75", "ARM", "ARL")
PERSON = 1


def coco_results(image_ids, keypoints, scores, box_scores, boxes=None):
    """COCO's results format: a dict a person, its score the box's times the mean keypoint score.

    image_ids: (P,), keypoints: (P, K, 2) in picture pixels, scores: (P, K), box_scores: (P,)
    boxes: (P, 4), kept as "box" beside what COCO asks for ("bbox" would change what pycocotools takes a person's area
        for); None: not kept
    """
    results = [
        {
            "image_id": int(image_id),
            "category_id": PERSON,
            "keypoints": [float(v) for (x, y), s in zip(points, values, strict=True) for v in (x, y, s)],
            "score": float(box_score * values.mean()),
        }
        for image_id, points, values, box_score in zip(image_ids, keypoints, scores, box_scores, strict=True)
    ]
    if boxes is not None:
        for result, box in zip(results, boxes.tolist(), strict=True):
            result["box"] = box
    return results


def keypoints_of(results, keypoints):
    """The keypoints (P, K, 2) of P `coco_results` of K keypoints."""
    numbers = np.array([result["keypoints"] for result in results], np.float64)
    return numbers.reshape(len(results), keypoints, 3)[..., :2]


def coco_ap(results, annotations):
    """COCO's ten figures of merit for keypoints, fractions (-1 where there is nobody to count).

    results: a list in COCO's results format, or the path of its JSON
    annotations: the path of the annotations' JSON
    """
    evaluation = _evaluation(results, annotations)
    if evaluation is None:
        return dict.fromkeys(FIGURES, 0.0)
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints its progress
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return dict(zip(FIGURES, map(float, evaluation.stats), strict=True))


def coco_ap_by_group(results, annotations, people, predictions, groups):
    """The average precision of each of G groups of people, a list of fractions. As pycocotools computes it of people of
    medium size, but by group: people of other groups are ignored, and so are predictions that match nobody and are of
    another group or of none. NaN where there is nobody to count.

    results, annotations: as for `coco_ap`
    people: {annotation id: group}, 0 to G - 1; any other number, and whoever is not in it, is of none
    predictions: the group of each of the results, likewise
    groups: G
    """
    evaluation = _evaluation(results, annotations, _GroupEvaluation)
    if evaluation is None:
        return [0.0] * groups
    for annotation in evaluation.cocoGt.anns.values():
        annotation["group"] = people.get(annotation["id"], -1)
    for result, group in zip(evaluation.cocoDt.dataset["annotations"], predictions, strict=True):
        result["group"] = group
    evaluation.params.areaRng = [(group, group) for group in range(groups)]
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation.evaluate()
        evaluation.accumulate()
    precision = evaluation.eval["precision"]  # (thresholds, recalls, categories, groups, 1), -1: nobody to count
    return [float(each[each > -1].mean()) if (each > -1).any() else float("nan") for each in precision.T[0]]


class _GroupEvaluation(COCOeval):
    """pycocotools' evaluation by an annotation's "group". It computes every similarity, for which it needs the areas,
    before it matches the people of any picture."""

    def evaluateImg(self, image, *arguments):
        for annotation in self.cocoGt.imgToAnns[image] + self.cocoDt.imgToAnns[image]:
            annotation["area"] = annotation["group"]
        return super().evaluateImg(image, *arguments)


def _evaluation(results, annotations, kind=COCOeval):
    """pycocotools' evaluation of results, its `evaluate` not yet called; None where there are no results."""
    if not isinstance(results, list):
        results = read_json(results)
    truth = COCO()
    truth.dataset = read_json(annotations)
    with contextlib.redirect_stdout(io.StringIO()):
        truth.createIndex()
        strangers = {result["image_id"] for result in results} - set(truth.imgs)
        if strangers:
            raise UserError(f"{annotations}: has no image {min(strangers)}, which the results name")
        # copies: pycocotools writes into what it is given
        return kind(truth, truth.loadRes(list(map(dict, results))), "keypoints") if results else None
