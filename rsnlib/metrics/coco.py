"""Average precision by object keypoint similarity, as pycocotools computes it."""

import contextlib
import io

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from rsnlib.datasets import PERSON
from rsnlib.runtime import UserError, read_json
from rsnlib.skeletons import COCO as COCO_SKELETON

FIGURES = ("AP", "AP50", "AP75", "APM", "APL", "AR", "AR50", "AR75", "ARM", "ARL")


def coco_results(image_ids, keypoints, scores, box_scores, boxes=None, categories=None):
    """COCO's results format: a dict a person, its score the box's times the mean keypoint score.

    image_ids: (P,), keypoints: (P, K, 2) in picture pixels, scores: (P, K), box_scores: (P,)
    boxes: (P, 4), kept as "box" beside what COCO asks for ("bbox" would change what pycocotools takes a person's area
        for); None: not kept
    categories: (P,), their category_id; None: all of them people, as COCO has them
    """
    if categories is None:
        categories = np.full(len(image_ids), PERSON)
    results = [
        {
            "image_id": int(image_id),
            "category_id": int(category),
            "keypoints": [float(v) for (x, y), s in zip(points, values, strict=True) for v in (x, y, s)],
            "score": float(box_score * values.mean()),
        }
        for image_id, category, points, values, box_score in zip(
            image_ids, categories, keypoints, scores, box_scores, strict=True
        )
    ]
    if boxes is not None:
        for result, box in zip(results, boxes.tolist(), strict=True):
            result["box"] = box
    return results


def coco_ap(results, annotations, skeleton=COCO_SKELETON):
    """COCO's ten figures of merit for keypoints, fractions (-1 where there is nobody to count); where several
    categories have the skeleton, the mean over these.

    results: a list in COCO's results format, or the path of its JSON
    annotations: the path of the annotations' JSON; skeleton: what they are of, with sigmas
    """
    if not isinstance(results, list):
        results = read_json(results)
    truth = COCO()
    truth.dataset = _complete(read_json(annotations), skeleton)
    names = list(skeleton.keypoints)
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints its progress
        truth.createIndex()
        strangers = {result["image_id"] for result in results} - set(truth.imgs)
        if strangers:
            raise UserError(f"{annotations}: has no image {min(strangers)}, which the results name")
        if not results:
            return dict.fromkeys(FIGURES, 0.0)
        evaluation = COCOeval(truth, truth.loadRes(results), "keypoints")
        evaluation.params.kpt_oks_sigmas = np.array(skeleton.sigmas)
        categories = [category for category in truth.dataset["categories"] if category.get("keypoints", names) == names]
        evaluation.params.catIds = [category["id"] for category in categories]
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return dict(zip(FIGURES, map(float, evaluation.stats), strict=True))


def _complete(content, skeleton):
    """The content of an annotation file with what pycocotools takes for granted and a data set in COCO's format may
    lack. An annotation with the id 0, which pycocotools takes for nobody, gets another."""
    given = content.get("annotations", [])
    free = 1 + max((annotation["id"] for annotation in given), default=0)
    annotations = []
    for annotation in given:
        keypoints, box = annotation.get("keypoints") or [0] * 3 * len(skeleton), annotation.get("bbox") or [0] * 4
        usual = {"iscrowd": 0, "area": box[2] * box[3], "num_keypoints": np.count_nonzero(keypoints[2::3])}
        own = {"id": annotation["id"] or free, "keypoints": keypoints, "bbox": box}
        annotations.append(usual | annotation | own)
    return content | {"annotations": annotations}
