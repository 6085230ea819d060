"""Accuracy of groups of people: by size, by how much of a person is hidden, by how much lies in another's box."""

import numpy as np
import pandas as pd

from rsnlib.metrics.coco import coco_ap, coco_ap_by_group, keypoints_of
from rsnlib.metrics.oks import by_picture, oks, rows_by_image

ENOUGH = 10  # people, for a group to be shown
SIZES = (0, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, np.inf)  # pixels, the bounds of the groups by size
SHARES = (-1, 0, 0.25, 0.5, np.inf), ("none", "up to 25 %", "25 to 50 %", "over 50 %")  # bounds, and names between


def person_groups(people):
    """Return the groups of each person: a data frame, one row per person, one categorical column per grouping. People
    in a group of fewer than `ENOUGH` are in none.

    size: COCO's medium and large; pixels: the square root of the area; hidden: the hidden share of the labelled
    keypoints; in another's box: the largest share of the person's box that lies in one other person's
    """
    size = np.sqrt(people.areas)
    hidden = (people.visible == 1).sum(axis=1) / np.maximum(1, (people.visible > 0).sum(axis=1))
    pixels = [f"{low} to {high}" if high < np.inf else f"over {low}" for low, high in zip(SIZES, SIZES[1:])]
    groupings = {
        "size": (size, [32, 96, np.inf], ["medium", "large"]),
        "pixels": (size, SIZES, pixels),
        "hidden": (hidden, *SHARES),
        "in another's box": (overlap(people), *SHARES),
    }
    groups = pd.DataFrame()
    for by, (values, bounds, names) in groupings.items():
        found = pd.Series(pd.cut(values, bounds, labels=names))
        counts = found.value_counts()
        groups[by] = found.cat.remove_categories(counts.index[counts < ENOUGH])
    return groups


def ap_by_group(results, people, annotations):
    """Return the average precision of everyone and of each of `person_groups`: a data frame, one row per group, columns
    by, group, people (a count) and AP, a fraction.

    Takes the arguments of errors.repair_gains. Medium and large have COCO's APM and APL. For the AP of any other group,
    people of other groups are ignored as pycocotools ignores people of another size, and a prediction without a match
    is a false positive of the group of the person most similar to it.
    """
    metrics = coco_ap(results, annotations, people.skeleton)
    found = {("everyone", "all"): metrics["AP"], ("size", "medium"): metrics["APM"], ("size", "large"): metrics["APL"]}
    groups, closest = person_groups(people), closest_people(results, people)
    for by in groups.columns.drop("size"):
        codes, names = groups[by].cat.codes.to_numpy(), groups[by].cat.categories
        of_results = np.where(closest < 0, -1, codes[closest])
        precisions = coco_ap_by_group(results, annotations, codes.tolist(), of_results, len(names), people.skeleton)
        found |= {(by, name): precision for name, precision in zip(names, precisions)}
    table = count_groups(groups)
    return table.assign(AP=[found[by, group] for by, group in zip(table["by"], table["group"])])


def overlap(people):
    """Return the largest share of each person's box that lies in the box of one other person of the picture, (P,)."""
    from pycocotools.mask import iou  # here, so that training does without it

    shares = np.zeros(len(people))
    for rows in rows_by_image(people.image_ids).values():
        boxes = people.boxes[rows]
        common = iou(boxes, boxes, np.ones(len(rows)))  # with a crowd: intersection over one's own area
        np.fill_diagonal(common, 0)
        shares[rows] = common.max(axis=1)
    return shares


def closest_people(results, people):
    """Return the row of the most similar person in the picture of each result, (R,), by object keypoint similarity; -1
    where every similarity is 0."""
    predicted = keypoints_of(results, len(people.skeleton))
    closest = np.full(len(results), -1)
    for here, rows in by_picture(people, [result["image_id"] for result in results]):
        pairs = people.keypoints[here], predicted[rows], people.areas[here, None]
        similarity = oks(*pairs, people.skeleton.sigmas, people.visible[here] > 0)  # (people here, results here)
        closest[rows] = np.where(similarity.max(axis=0) > 0, here[similarity.argmax(axis=0)], -1)
    return closest


def count_groups(groups):
    """Return the number of people in each of `person_groups`: a data frame, columns by, group and people; everyone
    first."""
    rows = [("everyone", "all", len(groups))]
    rows += [(by, *row) for by in groups for row in groups[by].value_counts(sort=False).items()]
    return pd.DataFrame(rows, columns=["by", "group", "people"])
