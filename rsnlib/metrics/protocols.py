"""One protocol per data set: accuracy, diagnosis and bootstrap in the terms of the data set's authors."""

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from rsnlib.data.skeletons import COCO
from rsnlib.metrics.bootstrap import resample, resampled_ap, resampled_share
from rsnlib.metrics.coco import METRICS, coco_ap, coco_matches, coco_results, keypoints_of, pycocotools
from rsnlib.metrics.errors import errors_by_keypoint, keypoint_errors, repair_gains
from rsnlib.metrics.groups import ap_by_group, count_groups, person_groups
from rsnlib.metrics.pck import GROUPS, PCK_WITHIN, PCKH_WITHIN, box_pck, head_distances, pck, pckh, torso_distances
from rsnlib.metrics.people import box_distances


@dataclass(frozen=True)
class Protocol:
    """The judgement of predicted keypoints by one data set's rules.

    accuracy(people, keypoints, scores, ground_truth) returns every metric, {name: number}
    diagnose(people, results, ground_truth) returns three data frames behind `metric`: "errors", the share of each kind
        of error by keypoint; "gains", the gain of `metric` from repairing each kind; "groups", `metric` by group
    resample(people, results, ground_truth) returns `metric` on resampled pictures, (draws,), in its own unit

    people: P ground-truth People, for `accuracy` those predicted (in a detector's boxes, perhaps)
    keypoints: (P, K, 2) in picture pixels, scores: (P, K), predicted
    results: a list in COCO's results format; for MPII and LSP one result per person, in the order of `people`
    ground_truth: of `data.readers.ground_truth`, or the path of COCO's annotations
    """

    metric: str  # by which runs are compared: a column of tables
    title: str  # of the metric, on axes and in sentences
    columns: tuple[str, ...]  # of a results table
    per_cent: int  # factor from a metric to per cent
    description: str  # of the metrics, for a caption
    variants: tuple[str, ...]  # the metrics by which ways of evaluating are compared
    published: str | None  # the CSV of published numbers in rsnlib/report

    def check(self):
        """Raise a UserError if a package is missing that `accuracy` needs: to be known before a long computation."""


class AveragePrecision(Protocol):
    """COCO: average precision and recall by object keypoint similarity, fractions. Kinds of errors are those of
    `keypoint_errors`; people are grouped by size, by what is hidden and by what lies in others' boxes."""

    def check(self):
        pycocotools()

    def accuracy(self, people, keypoints, scores, ground_truth):
        results = coco_results(people.image_ids, keypoints, scores, people.scores, categories=people.categories)
        return coco_ap(results, ground_truth, people.skeleton)

    def diagnose(self, people, results, ground_truth):
        return {
            "errors": errors_by_keypoint(keypoint_errors(results, people), people.skeleton),
            "gains": repair_gains(results, people, ground_truth),
            "groups": ap_by_group(results, people, ground_truth),
        }

    def resample(self, people, results, ground_truth):
        matches = coco_matches(results, ground_truth, people.skeleton)
        return resampled_ap(matches, resample(len(matches[0].people)))


class CorrectKeypoints(Protocol):
    """MPII and LSP: percentage of correct keypoints. Every keypoint that counts is good, a mirror swap (right for its
    mirror image) or a miss; people are grouped by size alone.

    `right` returns the keypoints (P, K, 2) that are right and those that count, both (P, K) bool.
    """

    def diagnose(self, people, results, ground_truth):
        keypoints, people = _in_order(keypoints_of(results, len(people.skeleton)), people)
        mirrored, kinds = people.skeleton.mirrored, ["mirror swap", "miss"]
        good, counted = self.right(keypoints, people, ground_truth)
        swapped = np.logical_and(*self.right(keypoints[:, mirrored], people, ground_truth))[:, mirrored]
        error = np.select([good, swapped], ["good", kinds[0]], kinds[1])[counted]
        errors = pd.DataFrame({"keypoint": np.nonzero(counted)[1], "error": error})

        shares = pd.Series(error).value_counts(normalize=True).reindex(["good", *kinds], fill_value=0)
        gains = shares[kinds].rename_axis("error").rename("share").reset_index()
        gains = gains.assign(Mean=100 * (shares["good"] + gains["share"]), gain=100 * gains["share"])

        sizes = person_groups(people)[["pixels"]]
        groups = count_groups(sizes)
        size = sizes["pixels"].to_numpy()[np.nonzero(counted)[0]]
        means = [good[counted].mean(), *(good[counted][size == name].mean() for name in groups["group"][1:])]
        groups = groups.assign(Mean=100 * np.array(means))
        return {"errors": errors_by_keypoint(errors, people.skeleton, kinds), "gains": gains, "groups": groups}

    def resample(self, people, results, ground_truth):
        keypoints, people = _in_order(keypoints_of(results, len(people.skeleton)), people)
        images, pictures = np.unique(people.image_ids, return_inverse=True)
        return resampled_share(*self.right(keypoints, people, ground_truth), pictures, resample(len(images)))


class PCKh(CorrectKeypoints):
    """MPII: PCKh at half a head."""

    def accuracy(self, people, keypoints, scores, ground_truth):
        keypoints, people = _in_order(keypoints, people)
        return pckh(keypoints, ground_truth, people)

    def right(self, keypoints, people, ground_truth):
        distance, counted = head_distances(keypoints, ground_truth, people)
        return distance <= PCKH_WITHIN, counted


class BoxPCK(CorrectKeypoints):
    """COCO's format where the skeleton has no sigmas: PCK at a fifth of the longer side of a person's box and, where
    the skeleton has `normalise_by`, the normalised mean error."""

    def accuracy(self, people, keypoints, scores, ground_truth):
        return box_pck(keypoints, people)

    def right(self, keypoints, people, ground_truth):
        return box_distances(keypoints, people) <= PCK_WITHIN, people.visible > 0


class PCK(CorrectKeypoints):
    """LSP and LSPET: PCK at a fifth of the torso."""

    def accuracy(self, people, keypoints, scores, ground_truth):
        return pck(keypoints, people)

    def right(self, keypoints, people, ground_truth):
        distance, counted = torso_distances(keypoints, people)
        return distance <= PCK_WITHIN, counted


def _in_order(keypoints, people):
    """Return keypoints (P, K, 2) and People in the order of the people's ids, which is that of MPII's ground truth."""
    order = np.argsort(people.ids)
    return keypoints[order], people.take(order)


COCO_AP = AveragePrecision(
    metric="AP",
    title="AP",
    columns=METRICS,
    per_cent=100,
    description="Average precision and recall by object keypoint similarity",
    variants=("AP", "AP75"),
    published="published.csv",
)
PCK_TITLE = f"PCK@{PCK_WITHIN}"
MEAN = {"metric": "Mean", "columns": (*GROUPS, "Mean"), "per_cent": 1, "variants": ("Mean",)}
MPII_PCKH = PCKh(**MEAN, title=f"PCKh@{PCKH_WITHIN}", description="Correct keypoints", published="published_mpii.csv")
LSP_PCK = PCK(**MEAN, title=PCK_TITLE, description="Correct keypoints", published=None)
BOX = "Correct keypoints, within a fifth of the longer side of the box (Mean@0.05: a twentieth)"
BOX_PCK = BoxPCK(**MEAN | {"columns": ("Mean", "Mean@0.05")}, title=PCK_TITLE, description=BOX, published=None)
NME = f"{BOX}; NME: mean error, of the distance between the skeleton's two keypoints `normalise_by`"
BOX_PCK_NME = replace(BOX_PCK, columns=(*BOX_PCK.columns, "NME"), description=NME)
PROTOCOLS = {"coco": COCO_AP, "mpii": MPII_PCKH, "lsp": LSP_PCK, "lspet": LSP_PCK}


def protocol(reader, skeleton=COCO):
    """Return the `Protocol` of a data set: of its reader, "coco", "mpii", "lsp" or "lspet", and in COCO's format of its
    Skeleton."""
    if reader == "coco" and skeleton.sigmas is None:
        return BOX_PCK_NME if skeleton.normalise_by else BOX_PCK
    return PROTOCOLS[reader]
