"""Charts: the people of a data set; training, accuracy, errors and cost of runs."""

from itertools import cycle, product

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.ticker import LogFormatter, LogLocator, NullLocator

from rsnlib.report.drawing import names_of, panel_grid

PALETTE = ["#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#000000"]
MARKERS = "osD^vPX"
KINDS = {"good": "#DDDDDD", "jitter": "#56B4E9", "mirror swap": "#E69F00", "person swap": "#CC79A7", "miss": "#D55E00"}

GROUPED_BY = {  # titles for the column `by` of metrics.groups.ap_by_group
    "everyone": "",
    "size": "COCO's size",
    "pixels": "square root of the person's area (pixels)",
    "hidden": "share of labelled keypoints that are hidden",
    "in another's box": "share of the person's box that lies in another's",
}

sns.set_theme(
    style="ticks", palette=PALETTE, rc={"figure.dpi": 100, "axes.spines.right": False, "axes.spines.top": False}
)


# ---- people of a data set


def keypoint_visibility(summary):
    """Draw the number of people who have each keypoint visible and hidden. summary: of data.people.summary"""
    figure, axes = plt.subplots(figsize=(8, 0.24 * len(summary) + 1), layout="constrained")
    counts = summary.set_index(summary["keypoint"].str.replace("_", " "))[["visible", "hidden"]]
    counts = counts.rename(columns={"hidden": "hidden, labelled"})
    counts.plot.barh(stacked=True, width=0.8, linewidth=0, color=[PALETTE[0], PALETTE[4]], ax=axes)
    axes.invert_yaxis()
    axes.set(xlabel="people", ylabel="")
    axes.legend(frameon=False, ncols=2, loc="lower left", bbox_to_anchor=(0, 1))
    return figure


def box_sizes(people):
    """Draw the distribution of box heights in each split. people: {split: People}"""
    figure, axes = plt.subplots(figsize=(8, 3), layout="constrained")
    heights = pd.concat([pd.DataFrame({"height": p.boxes[:, 3], "split": split}) for split, p in people.items()])
    shares = {"stat": "percent", "common_norm": False, "bins": 30, "element": "step", "fill": False}
    sns.histplot(heights, x="height", hue="split", ax=axes, **shares)
    axes.set(xlabel="box height (pixels)", ylabel="share of people (%)")
    axes.get_legend().set(title=None, frame_on=False)
    return figure


# ---- runs; `protocol`: the metrics.protocols.Protocol of their data set


def training_curves(curves, protocol):
    """Draw loss, validation metric and learning rate by epoch, one line per model; the mean of several seeds, in a band
    from the lowest to the highest.

    curves: a data frame, columns model, seed, epoch, loss, learning_rate and val_<metric> (NaN between validations)
    """
    metric, seeds = f"val_{protocol.metric}", curves["seed"].nunique()
    curves = curves.assign(**{metric: protocol.per_cent * curves[metric]})
    figure, grid = panel_grid(3, 3, (4, 3.4))
    labels = {
        "loss": "training loss",
        metric: f"validation {protocol.title} (%),\nwithout flip test",
        "learning_rate": "learning rate",
    }
    options = {"x": "epoch", "hue": "model", "palette": _colors(curves["model"]), "errorbar": ("pi", 100)}
    for axes, (column, label) in zip(grid, labels.items()):
        marks = {"marker": "o", "markeredgewidth": 0} if column == metric else {}
        known = curves.dropna(subset=[column])
        sns.lineplot(known, y=column, ax=axes, legend=column == "loss", **marks, **options)
        axes.set(xlabel="epoch", ylabel=label)
    grid[0].set(yscale="log")
    grid[0].yaxis.set(major_formatter=LogFormatter(), minor_formatter=LogFormatter())
    grid[1].set(ylim=(0, None))
    grid[0].legend(frameon=False, title=f"mean and range of {seeds} seeds" if seeds > 1 else None)
    return figure


def ablation(table, curves, protocol):
    """Draw models side by side, one colour per model: accuracy against cost, with its interval, and validation accuracy
    against the people seen, the mean of several seeds in a band from the lowest to the highest.

    table: of tables.ablation_table; curves: as for `training_curves`, and a column people
    """
    metric, colors = protocol.metric, _colors(table["model"])
    figure, (left, right) = panel_grid(2, 2, (4.9, 3.6))
    for (model, color), row in zip(colors.items(), table.to_dict("records")):
        value, low, high = (row[f"{metric}{end}"] for end in ("", " low", " high"))
        bar = [[value - low], [high - value]]
        left.errorbar(row["multiply-adds (G)"], value, bar, fmt="o", color=color, label=model, capsize=3)
    left.set(xlabel="multiply-adds of one person (G)", ylabel=f"{protocol.title} (%), 95 % interval")
    left.margins(0.15)
    left.locator_params(axis="x", nbins=5)
    known = curves.dropna(subset=[f"val_{metric}"])
    known = known.assign(accuracy=protocol.per_cent * known[f"val_{metric}"])
    marks = {"marker": "o", "markeredgewidth": 0, "errorbar": ("pi", 100), "legend": False}
    sns.lineplot(known, x="people", y="accuracy", hue="model", palette=colors, ax=right, **marks)
    right.set(xlabel="people seen in training", ylabel=f"{protocol.title} (%), without flip test", ylim=(0, None))
    figure.legend(*left.get_legend_handles_labels(), frameon=False, ncols=4, loc="outside upper center")
    return figure


def error_kinds(errors):
    """Draw the share of each kind of error by keypoint, one panel per run.

    errors: {run: data frame of metrics.errors.errors_by_keypoint}
    """
    keypoints = len(next(iter(errors.values())))
    panel = max(3.1, 8 / len(errors)), 0.2 * keypoints + 1.3
    figure, panels = panel_grid(len(errors), 4, panel, sharex=True, sharey=True)
    for axes, (run, table) in zip(panels, errors.items()):
        shares = 100 * table.set_index(table["keypoint"].str.replace("_", " "))[table.columns.intersection(list(KINDS))]
        shares.plot.barh(stacked=True, width=0.8, linewidth=0, color=KINDS, legend=False, ax=axes)
        axes.set(title=run, xlim=(0, 100), ylabel="")
    panels[0].invert_yaxis()
    figure.supxlabel("share of labelled keypoints (%)", fontsize="medium")
    figure.legend(*axes.get_legend_handles_labels(), frameon=False, ncols=len(KINDS), loc="outside upper center")
    return figure


def repair_gains(gains, protocol):
    """Draw the gain of the metric from repairing each kind of error, runs side by side.

    gains: {run: data frame of metrics.repair_gains}
    """
    tables = [
        table.assign(run=run, by="everyone", gain=protocol.per_cent * table["gain"]) for run, table in gains.items()
    ]
    figure = _bars(pd.concat(tables), "error", "gain")
    figure.axes[0].set(xlabel=f"gain in {protocol.title} if repaired (points)")
    return figure


def accuracy_by_group(groups, protocol):
    """Draw the metric of groups of people, one panel per grouping, runs side by side.

    groups: {run: data frame of metrics.groups.ap_by_group}
    """
    table = pd.concat([table.assign(run=run) for run, table in groups.items()])
    table["group"] = table["group"] + " (" + table["people"].astype(str) + ")"
    table["accuracy"] = protocol.per_cent * table[protocol.metric]
    figure = _bars(table, "group", "accuracy")
    figure.axes[-1].set(xlabel=f"{protocol.title} (%); in brackets: people", xlim=(0, None))
    return figure


def _bars(table, rows, value):
    """Draw horizontal bars of the column `value` for each value of the column `rows`, one colour per run, one panel per
    grouping (column by)."""
    panels = dict(list(table.groupby("by", sort=False)))
    heights = [panel[rows].nunique() * (0.12 + 0.13 * table["run"].nunique()) for panel in panels.values()]
    shared = {"squeeze": False, "sharex": True, "height_ratios": heights, "layout": "constrained"}
    figure, grid = plt.subplots(len(panels), figsize=(8, sum(heights) + 0.35 * len(panels) + 0.5), **shared)
    for axes, (by, panel) in zip(grid.flat, panels.items()):
        sns.barplot(panel, x=value, y=rows, hue="run", palette=_colors(table["run"]), saturation=1, ax=axes)
        axes.get_legend().remove()
        axes.set(xlabel="", ylabel="")
        axes.set_title(GROUPED_BY[by], loc="left", fontsize="medium")
    figure.legend(*axes.get_legend_handles_labels(), frameon=False, loc="outside right upper")
    return figure


def keypoint_accuracy(table, skeleton, label):
    """Draw the accuracy of each keypoint, one mark per model: the mean of the seeds, and their range.

    table: a data frame with columns model, seed, keypoint (as the skeleton names it) and accuracy (%)
    label: of the axis of accuracy
    """
    models = table["model"].nunique()
    size = 9, len(skeleton) * max(0.22, 0.09 * models) + 0.9
    figure, axes = plt.subplots(figsize=size, layout="constrained")
    options = {"order": list(skeleton.keypoints), "hue": "model", "palette": _colors(table["model"])}
    marks = [MARKERS[index % len(MARKERS)] for index in range(models)]
    style = {"markers": marks, "linestyle": "none", "markersize": 5, "errorbar": ("pi", 100)}
    style["dodge"] = 0.5 if models > 1 else False
    sns.pointplot(table, x="accuracy", y="keypoint", err_kws={"linewidth": 1.5}, ax=axes, **options, **style)
    axes.set_yticks(range(len(skeleton)), names_of(skeleton))
    axes.set(xlabel=label, ylabel="", xlim=(None, 100))
    axes.grid(axis="y", alpha=0.4)
    axes.legend(frameon=False, title=None, loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def two_runs(accuracies, apart, distances, names, skeleton, near, person=None):
    """Draw two runs beside each other: each keypoint's accuracy, and each person's mean distance.

    accuracies: (2, K), per cent, of keypoints within `near`, a share of the box's longer side; apart: (K,) bool, those
        whose difference is more than chance, joined by a dark line
    distances: (2, P), mean over a person's keypoints, in the same unit; person: an index, ringed
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(9.5, 0.2 * len(skeleton) + 1), width_ratios=[3, 2])
    figure.subplots_adjust(0.14, 0.17, 0.99, 0.98, 0.22)
    rows = np.arange(len(skeleton))
    left.hlines(rows, *accuracies, color=np.where(apart, "black", "lightgrey"), zorder=0)
    for values, name, color, marker in zip(accuracies, names, PALETTE, MARKERS):
        left.plot(values, rows, marker, color=color, label=name)
    left.set_yticks(rows, names_of(skeleton))
    left.invert_yaxis()
    left.set_xlabel(f"keypoints within {100 * near:g} % of the box's longer side (%)")
    left.legend(frameon=False)
    shown = distances[:, np.isfinite(distances).all(axis=0)]
    if shown.size:
        right.plot(*100 * shown, ".", color="grey", alpha=0.6)
        ends = 100 * shown.min(), 100 * shown.max()
        right.plot(ends, ends, color="black", linewidth=0.8)
        if person is not None:
            right.plot(*100 * distances[:, [person]], "o", ms=11, mew=2, fillstyle="none", color=PALETTE[5])
        right.set(xscale="log", yscale="log")
        for axis in (right.xaxis, right.yaxis):
            _plain_numbers(axis)
    right.set(xlabel=f"a person's mean distance,\n{names[0]} (%)", ylabel=f"{names[1]} (%)")
    return figure


# ---- networks


def accuracy_against_cost(table, title):
    """Draw accuracy against multiply-adds, one mark per network, one colour per source. Networks of one family and
    source, which differ by their stages, are joined by a line with the name of the first, then "2x", "3x".

    table: a data frame with columns model, source, input, multiply_adds (G) and accuracy (%), and for intervals low and
        high; title: of the accuracy
    """
    figure, axes = plt.subplots(figsize=(9, 5.6), layout="constrained")
    points = table.assign(family=table["model"].str.replace(r"^\dx", "", regex=True) + table["input"])
    usual = next(iter(table["input"].mode()), "of any size")
    for index, (source, color) in enumerate(_colors(table["source"]).items()):
        here = points[points["source"] == source]
        style = {"marker": MARKERS[index], "markersize": 6 + 3 * (index % 2), "fillstyle": "none", "color": color}
        for _, line in here.sort_values("multiply_adds").groupby("family"):
            axes.plot(line["multiply_adds"], line["accuracy"], markeredgewidth=1.6, **style)
            for place, point in enumerate(line.itertuples()):
                name = point.model.removesuffix(f"-{source.lower()}")
                name = name if point.input == usual else f"{name} {point.input}"
                label, spot = name[:2] if place else name, (point.multiply_adds, point.accuracy)
                axes.annotate(label, spot, (0, 0), color=color, fontsize=8, textcoords="offset points")
        axes.lines[-1].set_label(source)
        if "low" in here:
            axes.vlines(here["multiply_adds"], here["low"], here["high"], color=color)
    named = " where no other is named" if table["input"].nunique() > 1 else ""
    interval = ", 95 % interval" if "low" in table else ""
    axes.set(xlabel=f"multiply-adds of one person (G), input {usual}{named}", ylabel=f"{title} (%){interval}")
    axes.margins(0.12)
    if table["multiply_adds"].max() > 4 * table["multiply_adds"].min():
        axes.set_xscale("log")
        _plain_numbers(axes.xaxis)
    if table["source"].nunique() > 1:
        axes.legend(frameon=False, loc="lower right")
    _place_labels(figure, axes)
    return figure


def _place_labels(figure, axes):
    """Move every label beside its mark to the first place that covers least of lines, marks and labels before it."""
    figure.draw_without_rendering()  # from here on, places in pixels are final
    paths = [line.get_transform().transform_path(line.get_path()) for line in axes.lines]
    inside, placed = axes.bbox.padded(4), []
    beside = ("left", 6), ("right", -6), ("center", 0)  # alignments and their offsets in points
    above = ("bottom", 5), ("top", -5), ("center", 0)
    for label in axes.texts:
        costs = {}
        for (ha, x), (va, y) in product(beside, above):
            label.set(ha=ha, va=va, position=(x, y))
            box = label.get_window_extent().padded(2)
            lines = sum(path.intersects_bbox(box, filled=False) + box.count_contains(path.vertices) for path in paths)
            outside = not (inside.contains(*box.p0) and inside.contains(*box.p1))
            costs[ha, va, x, y] = lines + 9 * box.count_overlaps(placed) + 99 * outside
        ha, va, x, y = min(costs, key=costs.get)
        label.set(ha=ha, va=va, position=(x, y))
        placed.append(label.get_window_extent())


def _plain_numbers(axis):
    """Write 1, 2, 5, 10, ... at a logarithmic axis."""
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter("{x:g}")
    axis.set_minor_locator(NullLocator())


def _colors(names):
    """Return {name: colour} of the different `names`, in their order."""
    return dict(zip(dict.fromkeys(names), cycle(PALETTE)))
