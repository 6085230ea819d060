"""Bootstrap over the validation pictures: how far a metric depends on the people it was measured on.

A draw takes as many pictures as there are, with replacement, and everybody in them: people of one picture stay
together. All runs on a data set share the draws, so that two are compared draw by draw (a paired bootstrap).
"""

import numpy as np

DRAWS = 1000
COVERAGE = 0.95


def resample(pictures, draws=DRAWS):
    """Return each picture's count in each draw, (draws, pictures): always the same for the same numbers."""
    return np.random.default_rng(0).multinomial(pictures, np.full(pictures, 1 / pictures), size=draws)


def resampled_ap(matches, counts):
    """Return the average precision of each draw, (draws,) fractions, NaN where there is nobody to find: the value of
    pycocotools on counts[:, i] copies of picture i. matches: of coco.coco_matches; counts: (draws, pictures)"""
    precisions = np.array([[_average_precision(each, draw) for draw in counts] for each in matches])
    known = ~np.isnan(precisions)
    return np.nansum(precisions, axis=0) / np.where(known.any(axis=0), known.sum(axis=0), np.nan)


def _average_precision(matches, counts):
    """Return the average precision of one category on counts[i] copies of picture i."""
    people = counts @ matches.people
    if not people:
        return np.nan
    weights = counts[matches.pictures]
    hits, misses = ((weights * each).cumsum(axis=1) for each in (matches.right, matches.wrong))  # (T, D)
    precision = hits / (hits + misses + np.spacing(1))
    highest = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]  # at this recall or a higher one
    highest = np.pad(highest, ((0, 0), (0, 1)))  # 0 at recalls that are not reached
    reached = [np.searchsorted(recall, matches.recalls) for recall in hits / people]
    return np.take_along_axis(highest, np.array(reached), axis=1).mean()


def resampled_share(right, counted, pictures, counts):
    """Return the share of right keypoints among the counted of each draw, (draws,) per cent, NaN where nothing counts.

    right, counted: (P, K) bool; pictures: (P,), each person's picture, from 0
    counts: (draws, pictures)
    """
    pictures_right, pictures_counted = (
        np.bincount(pictures, keypoints.sum(axis=1), counts.shape[1]) for keypoints in (right & counted, counted)
    )
    with np.errstate(invalid="ignore"):
        return 100 * (counts @ pictures_right) / (counts @ pictures_counted)


def interval(draws):
    """Return the 95 % percentile interval of a metric, (low, high). draws: (draws,), NaN where nobody counted"""
    outside = 100 * (1 - COVERAGE) / 2
    low, high = np.nanpercentile(draws, [outside, 100 - outside])
    return low, high


def mean_and_interval(values, draws):
    """Return the mean of a model's runs and its 95 % interval, (mean, low, high): Student's t over several seeds, or
    the percentile interval over people for one seed.

    values: (seeds,), draws: (seeds, draws)
    """
    from scipy.special import stdtrit  # the quantile of Student's t; here, as it takes a while to import

    mean = np.mean(values)
    if len(values) == 1:
        return mean, *interval(draws[0])
    half = stdtrit(len(values) - 1, (1 + COVERAGE) / 2) * np.std(values, ddof=1) / np.sqrt(len(values))
    return mean, mean - half, mean + half


def paired_difference(values, draws, reference_values, reference_draws):
    """Return the difference between the means of a model and of a reference over their seeds, and its 95 % interval
    over people, (difference, low, high).

    values: (seeds,), draws: (seeds, draws); the two may have different numbers of seeds
    """
    difference = np.mean(values) - np.mean(reference_values)
    return difference, *interval(np.mean(draws, axis=0) - np.mean(reference_draws, axis=0))
