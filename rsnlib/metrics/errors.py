"""What is wrong with predicted keypoints and what repairing it would bring, in the manner of Ronchi and Perona
("Benchmarking and error diagnosis in multi-instance pose estimation", ICCV 2017); by object keypoint similarity and, in
so far as it applies, by PCK."""

import numpy as np
import pandas as pd

from rsnlib.metrics.coco import coco_ap, keypoints_of
from rsnlib.metrics.oks import keypoint_similarity, oks

ERRORS = ("jitter", "mirror swap", "person swap", "miss")
PCK_ERRORS = ("mirror swap", "miss")
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
    predicted = keypoints_of(results, len(names))
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


def pck_errors(distances, keypoints, people, threshold):
    """The keypoints that PCK counts: a data frame as of `keypoint_errors`, without the column result. error: "good",
    within the threshold of its place; "mirror swap", within it of its mirror image; "miss", any other.

    distances: a function of keypoints (P, K, 2): how far from their places they are and which count, (P, K) both
    """
    mirrored = people.skeleton.mirrored
    distance, counted = distances(keypoints)
    of_mirror_images, labelled = distances(keypoints[:, mirrored])
    crossed = ((of_mirror_images <= threshold) & labelled)[:, mirrored]
    errors = np.select([distance <= threshold, crossed], ["good", PCK_ERRORS[0]], PCK_ERRORS[1])
    person, keypoint = np.nonzero(counted)
    where = {"person": person, "keypoint": keypoint, "name": np.array(people.skeleton.keypoints)[keypoint]}
    return pd.DataFrame(where | {"visible": people.visible[person, keypoint], "error": errors[person, keypoint]})


def errors_by_keypoint(table, skeleton, kinds=ERRORS):
    """How often each keypoint is good and wrong in each way: a data frame, one row a keypoint, columns keypoint, its
    name; judged, how many of it; good and the kinds, shares of these that add up to 1.

    table: as `keypoint_errors` or `pck_errors` gives it
    """
    counts = table.groupby(["keypoint", "error"]).size().unstack()
    counts = counts.reindex(index=range(len(skeleton)), columns=["good", *kinds]).fillna(0)
    judged = counts.sum(axis=1)
    shares = counts.div(judged, axis=0)
    shares.insert(0, "judged", judged.astype(int))
    shares.insert(0, "keypoint", skeleton.keypoints)
    return shares.reset_index(drop=True).rename_axis(columns=None)


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


def pck_gains(table):
    """What each kind of error costs PCK: a data frame as of `repair_gains`, with Mean, per cent, in place of AP.

    table: as `pck_errors` gives it
    """
    shares = table["error"].value_counts(normalize=True).reindex(["good", *PCK_ERRORS], fill_value=0)
    wrong = shares[list(PCK_ERRORS)].rename_axis("error").rename("share").reset_index()
    return wrong.assign(Mean=100 * (shares["good"] + wrong["share"]), gain=100 * wrong["share"])


def repaired(results, people, wrong):
    """`results` with the keypoints of `wrong`, rows of `keypoint_errors`' table, where they belong."""
    numbers = [np.reshape(result["keypoints"], (-1, 3)) for result in results]
    for row in wrong.itertuples():
        numbers[row.result][row.keypoint, :2] = people.keypoints[row.person, row.keypoint]
    return [result | {"keypoints": values.ravel().tolist()} for result, values in zip(results, numbers, strict=True)]


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
