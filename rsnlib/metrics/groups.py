"""The accuracy of some people among all: by their size, and by how much of them is hidden or in others' boxes."""

import numpy as np
import pandas as pd

from rsnlib.metrics.coco import coco_ap, coco_ap_by_group, keypoints_of
from rsnlib.metrics.oks import oks

ENOUGH = 10  # people, for a group to be shown
SIZES = (0, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, np.inf)  # pixels, the ends of the groups by size
SHARES = {"none": 0, "up to 25 %": 0.25, "25 to 50 %": 0.5, "over 50 %": np.inf}  # the upper ends of those by share


def person_groups(people):
    """The groups that each person belongs to: a data frame, one row a person, a column for what they are grouped by,
    its categories in order. People in a group of fewer than `ENOUGH` are in none.

    size: COCO's medium and large; pixels: the square root of the area; hidden: the share of the labelled keypoints that
    are; in another's box: the largest share of a person's box that lies in one other's
    """
    size = np.sqrt(people.areas)
    names = [f"{low} to {high}" if high < np.inf else f"over {low}" for low, high in zip(SIZES, SIZES[1:])]
    groups = pd.DataFrame(
        {
            "size": pd.cut(size, [32, 96, np.inf], labels=["medium", "large"]),
            "pixels": pd.cut(size, SIZES, labels=names),
            "hidden": pd.cut(hidden_share(people), [-1, *SHARES.values()], labels=list(SHARES)),
            "in another's box": pd.cut(overlap(people), [-1, *SHARES.values()], labels=list(SHARES)),
        }
    )
    for by in groups:
        counts = groups[by].value_counts(sort=False)
        groups[by] = groups[by].cat.remove_categories(counts.index[counts < ENOUGH])
    return groups


def ap_by_group(results, people, annotations):
    """The average precision of everyone and of each of `person_groups`: a data frame, one row a group, columns by,
    group, people (how many) and AP, a fraction.

    results: a list in COCO's results format; people: the true People; annotations: the path of the annotations' JSON

    COCO's medium and large are its APM and APL. For any other group's AP, people of other groups are ignored as
    pycocotools ignores those of another size, and a prediction that matches nobody counts as a false alarm of the group
    of the person whom it is most like.
    """
    figures = coco_ap(results, annotations, people.skeleton)
    found = {("everyone", "all"): figures["AP"], ("size", "medium"): figures["APM"], ("size", "large"): figures["APL"]}
    groups, closest = person_groups(people), closest_people(results, people)
    for by in groups.columns.drop("size"):
        codes = groups[by].cat.codes.to_numpy()
        of_results = np.where(closest < 0, -1, codes[closest])
        of_people = dict(zip(people.ids.tolist(), codes.tolist(), strict=True))
        names = groups[by].cat.categories
        codes_of = of_people, of_results.tolist(), len(names)
        precisions = coco_ap_by_group(results, annotations, *codes_of, people.skeleton)
        found |= {(by, name): precision for name, precision in zip(names, precisions, strict=True)}
    table = _counted(groups)
    return table.assign(AP=[found[by, group] for by, group in zip(table["by"], table["group"])])


def pck_by_group(errors, people):
    """The share of right keypoints of everyone and by pixels: a data frame as of `ap_by_group`, with Mean, per cent, in
    place of AP.

    errors: as `pck_errors` gives it of these people
    """
    good = (errors["error"] == "good").to_numpy()
    groups = person_groups(people)[["pixels"]]
    size = groups["pixels"].to_numpy()[errors["person"]]
    table = _counted(groups)
    shares = [good.mean(), *(good[size == name].mean() for name in table["group"][1:])]
    return table.assign(Mean=100 * np.array(shares))


def hidden_share(people):
    """The share of each person's labelled keypoints that are hidden, (P,)."""
    return (people.visible == 1).sum(axis=1) / np.maximum(1, (people.visible > 0).sum(axis=1))


def overlap(people):
    """The largest share of each person's box that lies in the box of one other person of the picture, (P,)."""
    low, high = people.boxes[:, :2], people.boxes[:, :2] + people.boxes[:, 2:]
    shares = np.zeros(len(people))
    for rows in pd.Series(people.image_ids).groupby(people.image_ids).indices.values():
        sides = np.minimum(high[rows, None], high[rows]) - np.maximum(low[rows, None], low[rows])
        common = sides.clip(min=0).prod(axis=2)
        np.fill_diagonal(common, 0)
        shares[rows] = (common / people.boxes[rows, 2:].prod(axis=1)[:, None]).max(axis=1)
    return shares


def closest_people(results, people):
    """For each of the results, the row of the person in its picture that it is most like, (R,), by object keypoint
    similarity; -1 where it is like nobody."""
    predicted = keypoints_of(results, len(people.skeleton))
    image_ids = pd.Series([result["image_id"] for result in results], dtype=np.int64)
    found = image_ids.groupby(image_ids).indices
    closest = np.full(len(results), -1)
    for image_id, here in pd.Series(people.image_ids).groupby(people.image_ids).indices.items():
        rows = found.get(image_id, np.zeros(0, int))
        where = people.keypoints[here], predicted[rows], people.areas[here, None]
        similarity = oks(*where, people.skeleton.sigmas, people.visible[here] > 0)  # (people here, results here)
        closest[rows] = np.where(similarity.max(axis=0) > 0, here[similarity.argmax(axis=0)], -1)
    return closest


def _counted(groups):
    """How many people are in each of `person_groups`: a data frame, columns by, group and people; first, everyone."""
    rows = [("everyone", "all", len(groups))]
    rows += [(by, *row) for by in groups for row in groups[by].value_counts(sort=False).items()]
    return pd.DataFrame(rows, columns=["by", "group", "people"])
