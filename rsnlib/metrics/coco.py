"""Average precision by object keypoint similarity, computed by pycocotools; and COCO's results format."""

import contextlib
import io
from dataclasses import dataclass

import numpy as np

from rsnlib.data.people import PERSON
from rsnlib.data.readers.coco import ground_truth, read
from rsnlib.data.skeletons import COCO as COCO_SKELETON
from rsnlib.errors import UserError
from rsnlib.files import read_json, uncollected

METRICS = ("AP", "AP50", "AP75", "APM", "APL", "AR", "AR50", "AR75", "ARM", "ARL")


def coco_results(image_ids, keypoints, scores, box_scores, boxes=None, categories=None):
    """Return predictions in COCO's results format: one dict per person, whose score is the box's times the mean
    keypoint score.

    image_ids: (P,), keypoints: (P, K, 2) in picture pixels, scores: (P, K), box_scores: (P,)
    boxes: (P, 4), kept as "box" beside COCO's own keys (from "bbox" pycocotools would take the person's area)
    categories: (P,), the people's category_id; None: COCO's person for everyone
    """
    columns = {
        "image_id": image_ids,
        "category_id": np.full(len(scores), PERSON) if categories is None else categories,
        "keypoints": np.concatenate([keypoints, scores[:, :, None]], axis=2).reshape(len(scores), 3 * scores.shape[1]),
        "score": box_scores * np.ascontiguousarray(scores).mean(axis=1),
    }
    if boxes is not None:
        columns["box"] = boxes
    rows = zip(*(np.asarray(column).tolist() for column in columns.values()), strict=True)
    return [dict(zip(columns, row)) for row in rows]


def keypoints_of(results, keypoints):
    """Return the keypoints, (P, K, 2) in pixels, of P results in COCO's format. keypoints: K"""
    numbers = np.array([result["keypoints"] for result in results], np.float64)
    return numbers.reshape(len(results), keypoints, 3)[..., :2]


def coco_ap(results, annotations, skeleton=COCO_SKELETON):
    """Return COCO's ten keypoint metrics, fractions: {"AP": ..., ..., "ARL": ...}; -1 where there is nobody to find.
    Where several categories have the skeleton, each metric is the mean over the categories.

    results: a list in COCO's results format, or the path of its JSON
    annotations: the path of the annotations' JSON, or what `data.readers.ground_truth` returns: the people who were
        read, and others to be ignored
    skeleton: the annotations' Skeleton, with sigmas

    Raises UserError for unreadable files, for people in such a file who cannot be used, and for results in images that
    the annotations lack.
    """
    evaluation = _evaluation(results, annotations, skeleton)
    if not evaluation.cocoDt.anns:
        return dict.fromkeys(METRICS, 0.0)
    with _silence():
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return dict(zip(METRICS, map(float, evaluation.stats), strict=True))


def coco_ap_by_group(results, annotations, people, predictions, groups, skeleton=COCO_SKELETON):
    """Return the average precision of each of some groups of people, a list of fractions, NaN where there is nobody to
    find. A group is treated as COCO treats medium people in APM: people of other groups are ignored, and so are
    predictions that match nobody and belong to another group or to none.

    results, annotations, skeleton: as for `coco_ap`
    people: (P,), the group of each person who counts, in the order of the annotations; predictions: (R,), of each
        result. Groups are numbers from 0 to `groups` - 1; whoever has another number is in none
    """
    evaluation = _evaluation(results, annotations, skeleton)
    _use_groups_as_areas(evaluation)
    if not evaluation.cocoDt.anns:
        return [0.0] * groups
    for number, annotation in evaluation.cocoGt.anns.items():
        annotation["group"] = people[number - 1] if number <= len(people) else -1
    for result, group in zip(evaluation.cocoDt.dataset["annotations"], predictions, strict=True):
        result["group"] = group
    evaluation.params.areaRng = [(group, group) for group in range(groups)]
    with _silence():
        evaluation.evaluate()
        evaluation.accumulate()
    precision = evaluation.eval["precision"]  # (thresholds, recalls, categories, groups, 1), -1: nobody to find
    return [float(each[each > -1].mean()) if (each > -1).any() else float("nan") for each in precision.T[0]]


def _use_groups_as_areas(evaluation):
    """Let the ranges of areas of a COCOeval, `params.areaRng`, be ranges of the key "group". It stands for the area
    once similarity is computed: from then on COCOeval reads the area only to tell who is within a range."""
    compute = evaluation.computeOks

    def compute_then_replace(image_id, category_id):
        similarity = compute(image_id, category_id)
        for record in evaluation._gts[image_id, category_id] + evaluation._dts[image_id, category_id]:
            record["area"] = record["group"]
        return similarity

    evaluation.computeOks = compute_then_replace


@dataclass(frozen=True)
class Matches:
    """Everything that the average precision of one category is computed from: D predictions, the best first, at T
    similarity thresholds, in I pictures."""

    right: np.ndarray  # (T, D) bool
    wrong: np.ndarray  # (T, D) bool; a prediction matched to somebody who does not count (a crowd) is neither
    pictures: np.ndarray  # (D,), each prediction's picture, from 0, in the order of the image ids
    people: np.ndarray  # (I,), the number of people to find in each picture
    recalls: np.ndarray  # (R,), at which the precision is averaged


def coco_matches(results, annotations, skeleton=COCO_SKELETON):
    """Return the `Matches` of every category among people of all sizes. Takes the arguments of `coco_ap`."""
    evaluation = _evaluation(results, annotations, skeleton)
    params = evaluation.params
    params.areaRng = params.areaRng[:1]  # of every size
    with _silence():
        evaluation.evaluate()
    none, found = np.zeros((len(params.iouThrs), 0)), []
    nobody = {"dtScores": none[0], "dtMatches": none, "dtIgnore": none, "gtIgnore": none[0]}
    for pictures in np.reshape(evaluation.evalImgs, (len(params.catIds), -1)):
        pictures = [picture or nobody for picture in pictures]
        keys = "dtScores", "dtMatches", "dtIgnore"
        scores, matched, ignored = (np.concatenate([each[key] for each in pictures], axis=-1) for key in keys)
        order = np.argsort(-scores, kind="stable")
        matched, counts = matched[:, order] != 0, ignored[:, order] == 0
        places = np.repeat(np.arange(len(pictures)), [len(each["dtScores"]) for each in pictures])[order]
        people = np.array([np.count_nonzero(each["gtIgnore"] == 0) for each in pictures])
        found.append(Matches(matched & counts, ~matched & counts, places, people, params.recThrs))
    return found


def pycocotools():
    """Return pycocotools' classes of annotations and of an evaluation, COCO and COCOeval; a UserError says how to get
    the package, which a machine that only trains may lack."""
    try:
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval
    except ImportError:
        raise UserError("COCO's AP needs a package: `pip install pycocotools`") from None
    return COCO, COCOeval


def _evaluation(results, annotations, skeleton):
    """Return a COCOeval with the skeleton's sigmas."""
    COCO, COCOeval = pycocotools()
    if not isinstance(results, list):
        results = read_json(results)
    where = "the ground truth"
    if not isinstance(annotations, dict):
        where, annotations = annotations, _read(annotations, skeleton)
    numbers = {image["name"]: image["id"] for image in annotations["images"]}  # of ids as text
    results = [result | {"image_id": numbers.get(result["image_id"], result["image_id"])} for result in results]
    truth = COCO()
    with uncollected(), _silence():
        truth.dataset = annotations | {"annotations": [dict(each) for each in annotations["annotations"]]}
        truth.createIndex()
        strangers = {result["image_id"] for result in results} - set(truth.imgs)
        if strangers:
            raise UserError(f"{where}: has no image {min(strangers, key=str)}, which the results name")
        predictions = truth.loadRes(results) if results else COCO()
        run = COCOeval(truth, predictions, "keypoints")
    run.params.kpt_oks_sigmas = np.array(skeleton.sigmas)
    return run


def _read(annotations, skeleton):
    """Return the ground truth of a file in which everyone counts who can be judged."""
    people = read(annotations, None, None, skeleton)
    for identity, reason in people.unusable:
        raise UserError(f"{annotations}: {identity}: {reason}")
    return ground_truth(annotations, people)


def _silence():
    """Drop the progress that pycocotools prints."""
    return contextlib.redirect_stdout(io.StringIO())
