"""Average precision by object keypoint similarity, as pycocotools computes it."""

import contextlib
import io
from dataclasses import dataclass

import numpy as np
from pycocotools.coco import COCO

from rsnlib.data.readers import PERSON
from rsnlib.data.skeletons import COCO as COCO_SKELETON
from rsnlib.errors import UserError
from rsnlib.files import read_json, uncollected
from rsnlib.metrics.evaluation import KeypointEvaluation

FIGURES = ("AP", "AP50", "AP75", "APM", "APL", "AR", "AR50", "AR75", "ARM", "ARL")
COUNTED = {"iscrowd", "area", "num_keypoints", "keypoints", "bbox"}  # what pycocotools reads of an annotation
PIECE = 4_000_000  # predictions in all draws that are resampled at a time, for the memory they take


def coco_results(image_ids, keypoints, scores, box_scores, boxes=None, categories=None):
    """COCO's results format: a dict a person, its score the box's times the mean keypoint score.

    image_ids: (P,), keypoints: (P, K, 2) in picture pixels, scores: (P, K), box_scores: (P,)
    boxes: (P, 4), kept as "box" beside what COCO asks for ("bbox" would change what pycocotools takes a person's area
        for); None: not kept
    categories: (P,), their category_id; None: all of them people, as COCO has them
    """
    if categories is None:
        categories = np.full(len(image_ids), PERSON)
    numbers = np.concatenate([keypoints, np.expand_dims(scores, 2)], axis=2)
    numbers = numbers.reshape(len(scores), 3 * keypoints.shape[1])
    person_scores = box_scores * np.ascontiguousarray(scores).mean(axis=1)
    columns = (np.asarray(each).tolist() for each in (image_ids, categories, numbers, person_scores))
    results = [
        {"image_id": image_id, "category_id": category, "keypoints": values, "score": score}
        for image_id, category, values, score in zip(*columns, strict=True)
    ]
    if boxes is not None:
        for result, box in zip(results, boxes.tolist(), strict=True):
            result["box"] = box
    return results


def keypoints_of(results, keypoints):
    """The keypoints (P, K, 2) of P `coco_results` of K keypoints."""
    numbers = np.array([result["keypoints"] for result in results], np.float64)
    return numbers.reshape(len(results), keypoints, 3)[..., :2]


def coco_ap(results, annotations, skeleton=COCO_SKELETON):
    """COCO's ten figures of merit for keypoints, fractions (-1 where there is nobody to count); where several
    categories have the skeleton, the mean over these.

    results: a list in COCO's results format, or the path of its JSON
    annotations: the path of the annotations' JSON; skeleton: what they are of, with sigmas
    """
    evaluation = _evaluation(results, annotations, skeleton)
    if not evaluation.cocoDt.anns:
        return dict.fromkeys(FIGURES, 0.0)
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints its progress
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
        if not (annotation["id"] and annotation.keys() >= COUNTED):
            keypoints, box = annotation.get("keypoints") or [0] * 3 * len(skeleton), annotation.get("bbox") or [0] * 4
            usual = {"iscrowd": 0, "area": box[2] * box[3], "num_keypoints": np.count_nonzero(keypoints[2::3])}
            annotation = usual | annotation | {"id": annotation["id"] or free, "keypoints": keypoints, "bbox": box}
        annotations.append(annotation)
    return content | {"annotations": annotations}


def _predictions(results, truth):
    """`results` as pycocotools' COCO.loadRes gives them: numbered, with the area of their box, where they have one, or
    that their keypoints enclose."""
    if results and results[0].get("bbox"):
        sizes = np.array([result["bbox"] for result in results], np.float64)[:, 2:]
    else:
        sizes = (
            np.ptp(keypoints_of(results, len(results[0]["keypoints"]) // 3), axis=1) if results else np.zeros((0, 2))
        )
    found = COCO()
    own = ({"id": number, "area": area} for number, area in enumerate(sizes.prod(axis=1).tolist(), 1))
    found.dataset = truth.dataset | {"annotations": [result | more for result, more in zip(results, own, strict=True)]}
    found.createIndex()
    return found


def _evaluation(results, annotations, skeleton, ranged="area"):
    """pycocotools' evaluation, not yet begun."""
    if not isinstance(results, list):
        results = read_json(results)
    truth = COCO()
    with uncollected(), contextlib.redirect_stdout(io.StringIO()):
        truth.dataset = _complete(read_json(annotations), skeleton)
        truth.createIndex()
        strangers = {result["image_id"] for result in results} - set(truth.imgs)
        if strangers:
            raise UserError(f"{annotations}: has no image {min(strangers)}, which the results name")
        evaluation = KeypointEvaluation(truth, _predictions(results, truth), ranged)
    evaluation.params.kpt_oks_sigmas = np.array(skeleton.sigmas)
    names = list(skeleton.keypoints)
    categories = [category for category in truth.dataset["categories"] if category.get("keypoints", names) == names]
    evaluation.params.catIds = [category["id"] for category in categories]
    return evaluation


def coco_ap_by_group(results, annotations, people, predictions, groups, skeleton=COCO_SKELETON):
    """The average precision of each of G groups of people, a list of fractions. As pycocotools computes it of people of
    medium size, but by group: people of other groups are ignored, and so are predictions that match nobody and are of
    another group or of none. NaN where there is nobody to count.

    results, annotations, skeleton: as for `coco_ap`
    people: {annotation id: group}, 0 to G - 1; any other number, and whoever is not in it, is of none
    predictions: the group of each of the results, likewise
    groups: G
    """
    evaluation = _evaluation(results, annotations, skeleton, ranged="group")
    if not evaluation.cocoDt.anns:
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


@dataclass(frozen=True)
class Matches:
    """All that the average precision of a category is computed from: D predictions, the best first, at T thresholds of
    similarity, on I pictures.

    right, wrong: (T, D) bool; neither where a prediction is of somebody who does not count (a crowd)
    pictures: (D,), each prediction's picture, from 0, in the order of the image ids
    people: (I,), how many people there are to find in each picture
    recalls: the recalls at which the precision is averaged
    """

    right: np.ndarray
    wrong: np.ndarray
    pictures: np.ndarray
    people: np.ndarray
    recalls: np.ndarray


def coco_matches(results, annotations, skeleton=COCO_SKELETON):
    """Which predictions pycocotools takes for right: Matches, one a category. Takes what `coco_ap` takes."""
    evaluation = _evaluation(results, annotations, skeleton)
    evaluation.params.areaRng = evaluation.params.areaRng[:1]  # of every size
    evaluation.evaluate()
    return [_matches(*category, evaluation.params.recThrs) for category in evaluation.evalImgs]


def _matches(people, predictions, matched, ignored, recalls):
    """Of one category, what `KeypointEvaluation.evaluate` found."""
    order = np.argsort(-predictions.scores, kind="stable")
    matched, counts = matched[0][:, order], ~ignored[0][:, order]
    pictures = np.arange(len(people.counts))
    to_find = np.repeat(pictures, people.counts)[~people.ignored[0]]
    return Matches(
        right=matched & counts,
        wrong=~matched & counts,
        pictures=np.repeat(pictures, predictions.counts)[order],
        people=np.bincount(to_find, minlength=len(pictures)),
        recalls=recalls,
    )


def resampled_ap(matches, counts):
    """The average precision, a fraction, where picture i counts counts[:, i] times: what pycocotools gives on so many
    copies of it. (draws, I) -> (draws,), NaN where there is nobody to find.

    matches: those of every category (coco_matches), over which the mean is taken
    """
    figures = []
    for each in matches:
        pieces = 1 + len(counts) * len(each.pictures) // PIECE
        figures.append(np.concatenate([_resampled_ap(each, piece) for piece in np.array_split(counts, pieces)]))
    known = ~np.isnan(figures)
    return np.nansum(figures, axis=0) / np.where(known.any(axis=0), known.sum(axis=0), np.nan)


def _resampled_ap(matches, counts):
    weights = counts[:, matches.pictures]  # (draws, D)
    people = np.where(counts @ matches.people > 0, counts @ matches.people, np.nan)[:, None]
    precisions = np.zeros((len(counts), len(matches.right), len(matches.recalls)))
    for threshold, (right, wrong) in enumerate(zip(matches.right, matches.wrong)):
        # recall rises, and precision has its peaks, at right predictions: only they matter
        hits = weights[:, right].cumsum(axis=1)
        misses = (weights * wrong).cumsum(axis=1)[:, right]
        precision = hits / (hits + misses + np.spacing(1))
        highest = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]  # at this recall or a higher one
        for draw, recall in enumerate(hits / people):
            reached = np.searchsorted(recall, matches.recalls)
            precisions[draw, threshold] = np.append(highest[draw], 0)[reached]
    return np.where(np.isnan(people[:, 0]), np.nan, precisions.mean(axis=(1, 2)))
