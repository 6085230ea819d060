"""Kinds of errors of predicted keypoints, and the gain from repairing each kind (after Ronchi and Perona, "Benchmarking
and error diagnosis in multi-instance pose estimation", ICCV 2017), by object keypoint similarity."""

import numpy as np
import pandas as pd

from rsnlib.metrics.bootstrap import resampled_ap
from rsnlib.metrics.coco import coco_matches, keypoints_of
from rsnlib.metrics.oks import by_picture, keypoint_similarity, oks

ERRORS = ("jitter", "mirror swap", "person swap", "miss")
GOOD, CLOSE = 0.85, 0.5  # the least similarity of a right keypoint, and of one that is meant for a place
MATCH = 0.1  # the object keypoint similarity above which a prediction can match a person


def keypoint_errors(results, people):
    """Classify every labelled keypoint of each ground-truth person matched by a prediction. Return a data frame, one
    row per keypoint, with the columns

        result, person: their rows in `results` and `people`
        keypoint, name: index and name
        visible: 2 visible, 1 hidden
        error: "good"; "jitter", near its place but not at it; "mirror swap", at its mirror image of the same person;
            "person swap", at that keypoint or its mirror image of somebody else; "miss", near none of these

    results: a list in COCO's results format; people: the ground-truth People
    """
    names = np.array(people.skeleton.keypoints)
    predicted = keypoints_of(results, len(names))
    scores = np.array([result["score"] for result in results], np.float64)
    columns = []
    for here, rows in by_picture(people, [result["image_id"] for result in results]):
        rows = rows[np.argsort(-scores[rows], kind="stable")]
        persons, places, errors = _errors_in_picture(predicted[rows], people.take(here))
        person, keypoint = np.nonzero(people.visible[here[persons]] > 0)
        columns.append((rows[places[person]], here[persons[person]], keypoint, errors[person, keypoint]))
    result, person, keypoint, error = map(np.concatenate, zip(*columns))
    table = {"result": result, "person": person, "keypoint": keypoint, "name": names[keypoint]}
    return pd.DataFrame(table | {"visible": people.visible[person, keypoint], "error": error})


def _errors_in_picture(predicted, people):
    """Match predictions (Q, K, 2), the best first, with the P people of one picture: each takes the most similar person
    left. Return the M matched people and their predictions, (M,) indices, and the error of each keypoint, (M, K)."""
    areas, sigmas, mirrored = people.areas[:, None], people.skeleton.sigmas, people.skeleton.mirrored
    labelled = people.visible > 0
    straight = keypoint_similarity(people.keypoints, predicted, areas, sigmas) * labelled[:, None]  # (P, Q, K)
    crossed = keypoint_similarity(people.keypoints[:, mirrored], predicted, areas, sigmas)
    crossed = np.where(np.arange(len(mirrored)) == mirrored, 0, crossed * labelled[:, None, mirrored])
    left, pairs = oks(people.keypoints, predicted, areas, sigmas, labelled), []
    for place in range(len(predicted)):
        person = left[:, place].argmax()
        if left[person, place] > MATCH:
            pairs.append((person, place))
            left[person] = 0
    persons, places = np.array(pairs, int).reshape(-1, 2).T
    others = np.arange(len(people))[:, None] != persons  # (P, M)
    elsewhere = np.maximum(straight, crossed)[:, places] * others[..., None]
    own, mirror = straight[persons, places], crossed[persons, places]
    kinds = [own >= GOOD, own >= CLOSE, mirror >= CLOSE, elsewhere.max(axis=0) >= CLOSE]
    return persons, places, np.select(kinds, ["good", *ERRORS[:3]], ERRORS[3])


def errors_by_keypoint(table, skeleton, kinds=ERRORS):
    """Return the share of each kind of error by keypoint: a data frame, one row per keypoint, columns keypoint, its
    name; judged, a count; good and the kinds, shares of the judged that add up to 1.

    table: a data frame with the columns keypoint, an index, and error, one of "good" and the kinds
    """
    counts = table.groupby(["keypoint", "error"]).size().unstack()
    counts = counts.reindex(index=range(len(skeleton)), columns=["good", *kinds]).fillna(0)
    judged = counts.sum(axis=1)
    shares = counts.div(judged, axis=0)
    shares.insert(0, "judged", judged.astype(int))
    shares.insert(0, "keypoint", skeleton.keypoints)
    return shares.reset_index(drop=True).rename_axis(columns=None)


def repair_gains(results, people, annotations):
    """Return the cost of each kind of error: a data frame, one row per kind, columns error; share, of the labelled
    keypoints of matched people; AP, a fraction, with these keypoints moved to their places; gain, its increase.

    results, people: as for `keypoint_errors`; annotations: the path of the annotations' JSON
    """

    def precision(results):
        matches = coco_matches(results, annotations, people.skeleton)
        return resampled_ap(matches, np.ones((1, len(matches[0].people)), int)).item()

    table, before, rows = keypoint_errors(results, people), precision(results), []
    for error in ERRORS:
        wrong = table[table["error"] == error]
        numbers = np.array([result["keypoints"] for result in results], np.float64)
        numbers = numbers.reshape(len(results), len(people.skeleton), 3)
        numbers[wrong["result"], wrong["keypoint"], :2] = people.keypoints[wrong["person"], wrong["keypoint"]]
        repaired = [result | {"keypoints": values.ravel().tolist()} for result, values in zip(results, numbers)]
        after = precision(repaired)
        share = len(wrong) / max(1, len(table))
        rows.append({"error": error, "share": share, "AP": after, "gain": after - before})
    return pd.DataFrame(rows)
