"""How far a figure depends on the people it was measured on: a bootstrap over the validation pictures.

A draw takes as many pictures as there are, with replacement, and everybody in them: people of one picture stay
together. Every run on a data set meets the same draws, so that two are compared draw by draw (a paired bootstrap).
"""

import numpy as np
from scipy.stats import t

DRAWS = 1000
COVERAGE = 0.95


def resample(pictures, draws=DRAWS):
    """How often each picture counts in each draw, (draws, pictures): always the same for the same numbers."""
    return np.random.default_rng(0).multinomial(pictures, np.full(pictures, 1 / pictures), size=draws)


def interval(draws):
    """The 95 % percentile interval, (low, high), of the figures of all draws (NaN where a draw had nobody to count)."""
    outside = 100 * (1 - COVERAGE) / 2
    low, high = np.nanpercentile(draws, [outside, 100 - outside])
    return low, high


def mean_and_interval(figures, draws):
    """The mean of a model's runs and its 95 % interval, (mean, low, high): of several seeds Student's t over the seeds,
    of one the percentile interval over people.

    figures: (seeds,), draws: (seeds, draws)
    """
    mean = np.mean(figures)
    if len(figures) == 1:
        return mean, *interval(draws[0])
    half = t.ppf((1 + COVERAGE) / 2, len(figures) - 1) * np.std(figures, ddof=1) / np.sqrt(len(figures))
    return mean, mean - half, mean + half


def paired_difference(figures, draws, reference_figures, reference_draws):
    """By how much a model's mean over its seeds is above a reference's, and the 95 % interval over people of that
    difference, (difference, low, high).

    figures: (seeds,), draws: (seeds, draws); the two may have different numbers of seeds
    """
    difference = np.mean(figures) - np.mean(reference_figures)
    return difference, *interval(np.mean(draws, axis=0) - np.mean(reference_draws, axis=0))
