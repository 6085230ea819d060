"""Sentences to stand under figures, computed from what the figures show.

`protocol`: the metrics.protocols.Protocol of the data set; `runs`: {name of a run: its data frame}
"""

import numpy as np
import pandas as pd

from rsnlib.data.targets import inside_crop
from rsnlib.metrics.bootstrap import mean_and_interval
from rsnlib.report.charts import GROUPED_BY
from rsnlib.report.drawing import names_of

FEW = 30  # people: the metric of fewer is mostly chance


def _listed(parts):
    """Return one clause as a sentence, several as a Markdown list."""
    parts = list(parts)
    return f"{parts[0]}." if len(parts) == 1 else "".join(f"\n- {part}" for part in parts)


# ---- people of a data set


def box_sizes(people, crop_height):
    """Compare the height of boxes with that of the crop, pixels. people: {split: People}"""
    heights = {split: found.boxes[:, 3] for split, found in people.items()}
    medians = ", ".join(f"{np.median(each):.0f} pixels in {split}" for split, each in heights.items())
    small = (np.concatenate(list(heights.values())) < crop_height).mean()
    low = f"{100 * small:.0f} % of all people are lower than the crop, {crop_height} pixels"
    return f"The median height is {medians}; {low}."


def visibility(summary):
    """Name the keypoints that are hidden most often and most rarely. summary: of data.people.summary"""
    names = summary["keypoint"].str.replace("_", " ")
    hidden = (summary["hidden"] / summary["labelled"]).set_axis(names)
    total, share = summary["labelled"].sum(), summary["hidden"].sum() / summary["labelled"].sum()
    which = [f"{name} ({100 * hidden[name]:.0f} %)" for name in (hidden.idxmax(), hidden.idxmin())]
    which = f", most often the {which[0]}, most rarely the {which[1]}" if share else ""
    return f"Of {total:,} labelled keypoints {100 * share:.0f} % are hidden{which}."


def inside(keypoints, visible, size):
    """Count the labelled keypoints (N, K, 2) that lie within their crops of a size, (height, width). visible: (N, K)"""
    within = inside_crop(keypoints, visible, size) > 0
    return f"{within.sum():,} of the {(visible > 0).sum():,} labelled keypoints lie within these crops."


# ---- runs


def training(curves, protocol):
    """Say where loss and validation metric of each run began and ended. curves: as for charts.training_curves"""
    metric, parts = f"val_{protocol.metric}", []
    for (model, seed), curve in curves.groupby(["model", "seed"], sort=False):
        loss, known = curve["loss"], curve.dropna(subset=[metric])
        best = known.loc[known[metric].idxmax()]
        value, highest = (protocol.per_cent * each for each in (known[metric].iloc[-1], best[metric]))
        peak = "its highest" if value == highest else f"{highest:.1f} at epoch {best['epoch']:.3g}"
        parts.append(
            f"{model}-{seed}: loss from {loss.iloc[0]:.0f} to {loss.iloc[-1]:.0f}, {protocol.title} in the end "
            f"{value:.1f} %, {peak}"
        )
    return _listed(parts)


def errors_by_head(errors):
    """Compare the first and the last head. errors: (stages, 4), coarse to fine, as shares of an empty heatmap's"""
    first, last = 100 * errors[0, 0], 100 * errors[-1, -1]
    return f"Of the error of an empty heatmap {first:.0f} % is left at the first head, {last:.0f} % at the last."


def accuracy(metrics, draws, protocol):
    """Give a run's metric with its interval over people. metrics: {name: number}; draws: (draws,), resampled"""
    scale = protocol.per_cent
    value, low, high = mean_and_interval(np.array([scale * metrics[protocol.metric]]), scale * np.array([draws]))
    return f"{protocol.title} is {value:.1f} % [{low:.1f}, {high:.1f}]: in brackets the 95 % interval over people."


def ways(table, protocol):
    """Compare the ways of evaluating one run. table: of tables.evaluation_table"""
    gains = [
        f"{row['decoding']} {'with' if row['flip test'] == 'yes' else 'without'} the flip test brings "
        f"{row[f'{protocol.metric} gain']:+z.1f}"
        for row in table.iloc[1:].to_dict("records")
    ]
    return f"In points of {protocol.title}, over the first way:\n{_listed(gains)}"


def errors(runs):
    """Name the most frequent kind of error and its keypoint. runs: of metrics.errors.errors_by_keypoint"""
    parts = []
    for run, table in runs.items():
        shares = table.set_index(table["keypoint"].str.replace("_", " ")).drop(columns="keypoint")
        judged = shares.pop("judged")
        if not judged.any():
            parts.append(f"{run}: nobody was found")
            continue
        overall = shares.mul(judged, axis=0).sum() / judged.sum()
        worst = overall.drop("good").idxmax()
        parts.append(
            f"{run}: {100 * overall['good']:.0f} % of the keypoints are good; the most frequent error is {worst}, "
            f"{100 * overall[worst]:.0f} %, most at the {shares[worst].idxmax()}, {100 * shares[worst].max():.0f} %"
        )
    return _listed(parts)


def gains(runs, protocol):
    """Name the error whose repair would bring most. runs: of metrics.repair_gains"""
    best = {run: table.loc[table["gain"].idxmax()] for run, table in runs.items()}
    return _listed(
        f"{run} would gain most from repairing {row['error']}: {protocol.per_cent * row['gain']:+z.1f} points of "
        f"{protocol.title}"
        for run, row in best.items()
    )


def groups(runs, protocol):
    """Name the group of at least FEW people whom a run gets best and worst. runs: of metrics.groups.ap_by_group"""
    parts = []
    for run, table in runs.items():
        known = table[(table["by"] != "everyone") & (table["people"] >= FEW)].dropna(subset=[protocol.metric])
        if known.empty:
            continue
        ends = [known.loc[place] for place in (known[protocol.metric].idxmax(), known[protocol.metric].idxmin())]
        best, worst = (
            f"{protocol.per_cent * row[protocol.metric]:.1f} % ({GROUPED_BY[row['by']]}: {row['group']})"
            for row in ends
        )
        parts.append(f"{run}: {protocol.title} is {best} at best, {worst} at worst")
    return _listed(parts) if parts else f"No group has {FEW} people."


def keypoints(table):
    """Name the keypoints that are right most often and most rarely, and that on which models differ most.

    table: as for charts.keypoint_accuracy
    """
    shares = table.assign(keypoint=table["keypoint"].str.replace("_", " "))
    shares = shares.groupby(["keypoint", "model"], sort=False)["accuracy"].mean().unstack()
    means, spread = shares.mean(axis=1), shares.max(axis=1) - shares.min(axis=1)
    text = f"The {means.idxmax()} is right most often ({means.max():.0f} %), the {means.idxmin()} most rarely "
    text += f"({means.min():.0f} %)"
    if shares.shape[1] < 2:
        return f"{text}."
    most = shares.loc[spread.idxmax()]
    return (
        f"{text}, means over the models. These differ most on the {spread.idxmax()}: {most.idxmax()} "
        f"{most.max():.0f} %, {most.idxmin()} {most.min():.0f} %."
    )


def difference(names, metric, differences, near, skeleton):
    """Compare two runs, the second with the first.

    metric: (metric, difference, low, high), of the data set's own metric, or None; differences: (1 + K, 3), of all
        keypoints and of each, difference, low, high; near: a share of the box's longer side
    """
    every, *each = differences
    parts = [f"{metric[0]} {_points(*metric[1:])}"] if metric else []
    parts.append(f"keypoints within {100 * near:g} % of the box's longer side {_points(*every)}")
    apart = [f"{name} {_points(*row)}" for name, row in zip(names_of(skeleton), each) if row[1] > 0 or row[2] < 0]
    parts.append(f"different for {', '.join(apart)}" if apart else "no keypoint is shown to be different")
    return f"{names[1]} less {names[0]}, in points with the 95 % interval over people: {'; '.join(parts)}."


def _points(value, low, high):
    return f"{value:+z.1f} [{low:z.1f}, {high:z.1f}]"


def most_accurate(table, title):
    """Name the most accurate network of each source. table: as for charts.accuracy_against_cost"""
    best = table.loc[table.groupby("source")["accuracy"].idxmax()]
    return f"The most accurate{' of each source' if len(best) > 1 else ''}:\n" + _listed(
        f"{row.source}: {row.model} at {row.input}, {row.accuracy:.1f} % {title} for {row.multiply_adds:.2g} G"
        for row in best.itertuples()
    )


# ---- views into a network


def heads(name, heatmaps):
    """Compare a keypoint's heatmaps (4, h, w) of a stage's first and last head. name: of what they are"""
    heatmaps = heatmaps[[0, -1]]
    peaks = heatmaps.max(axis=(1, 2))
    cells = (heatmaps > peaks[:, None, None] / 2).sum(axis=(1, 2))
    first, last = (f"{peak:.0f} (cells above half of it: {count})" for peak, count in zip(peaks, cells))
    return f"{name}: from a peak of {first} in the coarsest head to {last} in the finest."


def surest(heatmaps, skeleton):
    """Name the keypoints with the highest and the lowest peak of their heatmaps (K, h, w)."""
    peaks = pd.Series(heatmaps.max(axis=(1, 2)), names_of(skeleton))
    highest, lowest = f"{peaks.idxmax()} has the highest peak, {peaks.max():.0f}", f"{peaks.idxmin()} the lowest"
    return f"The {highest}, the {lowest}, {peaks.min():.0f}; 255 is certain."


def attention(channel, position, skeleton):
    """Describe the weights of a Pose Refine Machine for one person. channel: (K,); position: (K, h, w)"""
    most, factors = names_of(skeleton)[channel.argmax()], 1 + channel[:, None, None] * position
    return (
        f"Channel weights lie between {channel.min():.2f} and {channel.max():.2f} ({most}); 0.50 is the sigmoid "
        f"of 0. Position weights vary by {position.std(axis=(1, 2)).mean():.3f} within a keypoint's map. Features "
        f"are multiplied by {factors.min():.2f} to {factors.max():.2f}, of 1.25 to 2 that the sigmoids allow."
    )


def sight(fields):
    """Count the cells that the last branch of each block looks at. fields: as for heatmaps.effective_fields"""
    cells = [f"{(each[-1] > 0.1).sum()} in {kind.splitlines()[0]}" for kind, (each, _) in fields.items()]
    return f"Cells at which the last branch looks with a tenth of its strength or more: {', '.join(cells)}."
