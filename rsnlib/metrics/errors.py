"""What is wrong with predicted keypoints and what repairing it would bring, in the manner of Ronchi and Perona
("Benchmarking and error diagnosis in multi-instance pose estimation", ICCV 2017)."""

import numpy as np
import pandas as pd

from rsnlib.metrics.coco import coco_ap
from rsnlib.metrics.oks import keypoint_similarity, oks

ERRORS = ("jitter", "mirror swap", "person swap", "miss")
GOOD, NEAR = 0.85, 0.5  # from which similarity on a keypoint is right, and from which it is meant for a place
FOUND = 0.1  # above which object keypoint similarity a prediction can be of a person


def keypoint_errors(results, people):
    """Every labelled keypoint of the true people whom somebody predicted is of: a data frame, one row a keypoint.

    results: a list in COCO's results format; people: the true People
    Columns: result and person, their rows; keypoint, its index; name; visible (2 visible, 1 hidden); error: "good", or
    "jitter", near its place but not at it; "mirror swap", at its mirror image of the same person; "person swap", at
    that keypoint or its mirror image of somebody else; "miss", near none of these.
    """
    names = np.array(people.skeleton.keypoints)
    predicted = _points(results, len(names))
    scores = np.array([result["score"] for result in results], np.float64)
    image_ids = pd.Series([result["image_id"] for result in results], dtype=np.int64)
    found = image_ids.groupby(image_ids).indices
    columns = []
    for image_id, here in pd.Series(people.image_ids).groupby(people.image_ids).indices.items():
        rows = found.get(image_id, np.zeros(0, int))
        rows = rows[np.argsort(-scores[rows], kind="stable")]
        persons, places, errors = _errors_in_picture(predicted[rows], people.take(here))
        person, keypoint = np.nonzero(people.visible[here[persons]] > 0)
        columns.append((rows[places[person]], here[persons[person]], keypoint, errors[person, keypoint]))
    result, person, keypoint, error = map(np.concatenate, zip(*columns))
    where = {"result": result, "person": person, "keypoint": keypoint, "name": names[keypoint]}
    return pd.DataFrame(where | {"visible": people.visible[person, keypoint], "error": error})


def repair_gains(results, people, annotations):
    """What each kind of error costs: a data frame, one row a kind, columns error, share (of the labelled keypoints of
    people who were found), AP as it would be with these keypoints where they belong, and gain, that less today's.

    results, people: as for `keypoint_errors`; annotations: the path of the annotations' JSON
    """
    table = keypoint_errors(results, people)
    before = coco_ap(results, annotations, people.skeleton)["AP"]
    rows = []
    for error in ERRORS:
        wrong = table[table["error"] == error]
        after = coco_ap(repaired(results, people, wrong), annotations, people.skeleton)["AP"]
        share = len(wrong) / max(1, len(table))
        rows.append({"error": error, "share": share, "AP": after, "gain": after - before})
    return pd.DataFrame(rows)


def repaired(results, people, wrong):
    """`results` with the keypoints of `wrong`, rows of `keypoint_errors`' table, where they belong."""
    numbers = [np.reshape(result["keypoints"], (-1, 3)) for result in results]
    for row in wrong.itertuples():
        numbers[row.result][row.keypoint, :2] = people.keypoints[row.person, row.keypoint]
    return [result | {"keypoints": values.ravel().tolist()} for result, values in zip(results, numbers, strict=True)]


def _points(results, keypoints):
    """(P, K, 2)"""
    numbers = np.array([result["keypoints"] for result in results], np.float64)
    return numbers.reshape(len(results), keypoints, 3)[..., :2]


def _errors_in_picture(predicted, people):
    """The M people of one picture who were found, the predictions of them, and what is wrong with each keypoint.

    predicted: (Q, K, 2), best first; people: P of them -> persons (M,), places (M,), errors (M, K)
    """
    areas, sigmas, mirrored = people.areas[:, None], people.skeleton.sigmas, people.skeleton.mirrored
    labelled = people.visible > 0
    straight = keypoint_similarity(people.keypoints, predicted, areas, sigmas) * labelled[:, None]  # (P, Q, K)
    crossed = keypoint_similarity(people.keypoints[:, mirrored], predicted, areas, sigmas)
    crossed = np.where(np.arange(len(mirrored)) == mirrored, 0, crossed * labelled[:, None, mirrored])
    persons, places = _match(oks(people.keypoints, predicted, areas, sigmas, labelled))
    others = np.arange(len(people))[:, None] != persons  # (P, M)
    elsewhere = np.maximum(straight, crossed)[:, places] * others[..., None]
    own, mirror = straight[persons, places], crossed[persons, places]
    kinds = [own >= GOOD, own >= NEAR, mirror >= NEAR, elsewhere.max(axis=0) >= NEAR]
    return persons, places, np.select(kinds, ["good", *ERRORS[:3]], ERRORS[3])


def _match(similarity):
    """Predictions, best first, each take the person most similar to them who is left: rows and columns of (P, Q)."""
    left = similarity.copy()
    pairs = []
    for column in range(left.shape[1]):
        row = left[:, column].argmax()
        if left[row, column] > FOUND:
            pairs.append((row, column))
            left[row] = 0
    return np.array(pairs, int).reshape(-1, 2).T
