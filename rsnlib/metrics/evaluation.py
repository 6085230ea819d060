"""pycocotools' evaluation of keypoints, all pictures at once: the same numbers to the last digit in less time."""

from dataclasses import dataclass

import numpy as np
from pycocotools.cocoeval import COCOeval

TINY = np.spacing(1)


@dataclass(frozen=True)
class Records:
    """True people or predictions of one category, P of them, a picture's together.

    counts: (I,), how many in each picture; keypoints: (P, K, 3); outside: (A, P), of each range of areas
    """

    counts: np.ndarray
    keypoints: np.ndarray
    outside: np.ndarray

    @property
    def first(self):
        """(I,), the first of each picture."""
        return self.counts.cumsum() - self.counts


@dataclass(frozen=True)
class TruePeople(Records):
    """areas, crowd (P,); boxes (P, 4); ignored: (A, P), who neither counts nor makes a prediction wrong"""

    areas: np.ndarray
    boxes: np.ndarray
    crowd: np.ndarray
    ignored: np.ndarray


@dataclass(frozen=True)
class Predictions(Records):
    """scores: (P,), in each picture the best first"""

    scores: np.ndarray


class KeypointEvaluation(COCOeval):
    """COCOeval, whose `evaluate` and `accumulate` go through pictures, people and thresholds in Python, with these two
    as operations on arrays. `params`, `eval` and `stats` are as there; `evalImgs` is, for each category, its TruePeople
    and Predictions, which of these match somebody and which do not count, both (A, T, predictions).

    ranged: the key of people and predictions by which params.areaRng tells who counts
    Sizes: T thresholds of similarity, A ranges of areas, R recalls, I pictures, K keypoints.
    """

    def __init__(self, truth, results, ranged="area"):
        super().__init__(truth, results, "keypoints")
        self.ranged = ranged

    def evaluate(self):
        """Match the predictions of each category with its people."""
        self.params.imgIds = np.unique(self.params.imgIds).tolist()
        self.params.catIds = np.unique(self.params.catIds).tolist()
        self.evalImgs = []
        for category in self.params.catIds:
            people, predictions = self._people(category), self._predictions(category)
            self.evalImgs.append((people, predictions, *self._match(people, predictions)))

    def accumulate(self):
        """Precision (T, R, categories, A, 1) at each recall and highest recall (T, categories, A, 1); -1 where there is
        nobody to find."""
        p = self.params
        shape = len(p.iouThrs), len(p.recThrs), len(p.catIds), len(p.areaRng), 1
        precision, recall = -np.ones(shape), -np.ones((shape[0], *shape[2:]))
        for category, (people, predictions, matched, ignored) in enumerate(self.evalImgs):
            order = np.argsort(-predictions.scores, kind="stable")
            right = (matched & ~ignored)[..., order].cumsum(axis=2, dtype=float)  # (A, T, predictions)
            wrong = (~matched & ~ignored)[..., order].cumsum(axis=2, dtype=float)
            for area, count in enumerate((~people.ignored).sum(axis=1)):
                if count == 0:
                    continue
                found = right[area] / count
                exact = right[area] / (wrong[area] + right[area] + TINY)
                exact = np.maximum.accumulate(exact[:, ::-1], axis=1)[:, ::-1]
                for threshold in range(shape[0]):
                    places = np.searchsorted(found[threshold], p.recThrs)
                    precision[threshold, :, category, area, 0] = np.append(exact[threshold], 0)[places]
                    recall[threshold, category, area] = found[threshold, -1] if len(order) else 0
        self.eval = {"precision": precision, "recall": recall}

    def _people(self, category):
        records, about = self._records(self.cocoGt, category)
        crowd = np.array([bool(record["iscrowd"]) for record in records], bool)
        unlabelled = np.array([record["num_keypoints"] == 0 for record in records], bool)
        return TruePeople(
            **about,
            areas=np.array([record["area"] for record in records], float),
            boxes=np.array([record["bbox"] for record in records], float).reshape(-1, 4),
            crowd=crowd,
            ignored=crowd | unlabelled | about["outside"],
        )

    def _predictions(self, category):
        records, about = self._records(self.cocoDt, category, most=self.params.maxDets[-1])
        return Predictions(**about, scores=np.array([record["score"] for record in records], float))

    def _records(self, annotations, category, most=None):
        """The annotations of a category, those of a picture in their order or, where there are at most so many to a
        picture, the best first; and the columns of `Records`."""
        p = self.params
        ranks = {image_id: rank for rank, image_id in enumerate(p.imgIds)}
        records = annotations.loadAnns(annotations.getAnnIds(imgIds=p.imgIds, catIds=[category]))
        picture = np.array([ranks[record["image_id"]] for record in records], int)
        if most is not None:
            order = np.lexsort([[-record["score"] for record in records], picture])
            order = order[np.arange(len(order)) - np.searchsorted(picture, picture) < most]
            records, picture = [records[row] for row in order], picture[order]
        values, ranges = np.array([record[self.ranged] for record in records], float), np.reshape(p.areaRng, (-1, 2))
        keypoints = np.array([record["keypoints"] for record in records], float)
        return records, {
            "counts": np.bincount(picture, minlength=len(ranks)),
            "keypoints": keypoints.reshape(len(records), len(p.kpt_oks_sigmas), 3),
            "outside": (values < ranges[:, :1]) | (values > ranges[:, 1:]),
        }

    def _match(self, people, predictions):
        """Which predictions match somebody, and which do not count; both (A, T, predictions).

        In each picture every prediction, the best first, takes the most similar of the people left. Those who are
        ignored are taken only where nobody else is similar enough; a crowd can be taken any number of times.
        """
        thresholds = self.params.iouThrs[:, None, None]
        shape = len(people.ignored), len(thresholds), len(predictions.scores)
        matched, ignored = np.zeros(shape, bool), np.zeros(shape, bool)
        similarity, first_pair = self._similarities(people, predictions)
        for ours, theirs in np.unique(np.stack([predictions.counts, people.counts], axis=1), axis=0):
            if not ours or not theirs:
                continue
            # side by side: every picture with so many predictions and people
            pictures = np.flatnonzero((predictions.counts == ours) & (people.counts == theirs))
            persons = people.first[pictures, None] + np.arange(theirs)  # (I, theirs)
            pairs = first_pair[pictures, None] + np.arange(ours * theirs)
            alike = similarity[pairs].reshape(-1, ours, theirs)
            second_choice = people.ignored[:, None, persons]  # (A, 1, I, theirs)
            left = np.ones((*shape[:2], *persons.shape), bool)
            for place in range(ours):
                alike_enough = left & (alike[:, place] >= thresholds)
                first_choice = alike_enough & ~second_choice
                choice = np.where(first_choice.any(axis=-1, keepdims=True), first_choice, alike_enough)
                last = np.where(choice, alike[:, place], -1)[..., ::-1].argmax(axis=-1)  # of equals
                taken = choice & (np.arange(theirs) == theirs - 1 - last[..., None])
                left &= ~taken | people.crowd[persons]
                row = predictions.first[pictures] + place
                matched[..., row] = taken.any(axis=-1)
                ignored[..., row] = (taken & second_choice).any(axis=-1)
        return matched, ignored | (~matched & predictions.outside[:, None])

    def _similarities(self, people, predictions):
        """Object keypoint similarity of each prediction with each of the people in its picture, one after the other,
        and where each picture's begin."""
        counts = people.counts * predictions.counts
        theirs = np.repeat(people.counts, predictions.counts)  # of each prediction
        prediction = np.repeat(np.arange(len(theirs)), theirs)
        person = np.arange(len(prediction)) + np.repeat(
            np.repeat(people.first, predictions.counts) - (theirs.cumsum() - theirs), theirs
        )
        tolerance = (self.params.kpt_oks_sigmas * 2) ** 2
        visible = people.keypoints[..., 2] > 0
        labelled = visible.sum(axis=1)
        similarity = np.zeros(len(person))
        for count in np.unique(labelled):  # so many terms at a time: zeros among them could change a sum's last digit
            rows = np.flatnonzero(labelled[person] == count)
            p, d = person[rows, None], prediction[rows, None]
            if count:
                keypoint = visible[person[rows]].nonzero()[1].reshape(-1, count)
                offset = predictions.keypoints[d, keypoint, :2] - people.keypoints[p, keypoint, :2]
            else:  # how far a keypoint is outside the box, enlarged by its size on every side
                keypoint = np.arange(visible.shape[1])[None]
                point = predictions.keypoints[d, keypoint, :2]
                corner, size = people.boxes[p, :2], people.boxes[p, 2:]
                offset = np.maximum(0, corner - size - point) + np.maximum(0, point - (corner + size * 2))
            square = offset[..., 0] ** 2 + offset[..., 1] ** 2
            distance = square / tolerance[keypoint] / (people.areas[p] + TINY) / 2
            similarity[rows] = np.exp(-distance).sum(axis=1) / distance.shape[1]
        return similarity, counts.cumsum() - counts
