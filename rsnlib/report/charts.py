"""Charts of runs: training, accuracy, errors, cost."""

from itertools import cycle, product

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.ticker import LogLocator, NullLocator

from rsnlib.report.drawing import MARKERS, PALETTE, names_of

sns.set_theme(
    style="ticks", palette=PALETTE, rc={"figure.dpi": 100, "axes.spines.right": False, "axes.spines.top": False}
)

KINDS = {"good": "#DDDDDD", "jitter": "#56B4E9", "mirror swap": "#E69F00", "person swap": "#CC79A7", "miss": "#D55E00"}

GROUPED_BY = {  # columns `by` of metrics.ap_by_group, in words
    "everyone": "",
    "size": "COCO's size",
    "pixels": "square root of the person's area (pixels)",
    "hidden": "share of labelled keypoints that are hidden",
    "in another's box": "share of the person's box that lies in another's",
}


def training_curves(curves, figure_name):
    """Loss, validation accuracy and learning rate against the epoch, a line a model; where it has several seeds, their
    mean in a band from the lowest to the highest.

    curves: a data frame, the rows of layout.load_curve of every run with its model and seed
    """
    figure, (loss, accuracy, rate) = plt.subplots(1, 3, figsize=(12, 3.4), layout="constrained")
    validated = curves.dropna(subset=[f"val_{figure_name}"])
    options = {"x": "epoch", "hue": "model", "palette": _colors(curves["model"]), "errorbar": ("pi", 100)}
    sns.lineplot(curves, y="loss", ax=loss, **options)
    sns.lineplot(validated, y=f"val_{figure_name}", marker="o", markeredgewidth=0, ax=accuracy, legend=False, **options)
    sns.lineplot(curves, y="learning_rate", ax=rate, legend=False, **options)
    loss.set(xlabel="epoch", ylabel="training loss", yscale="log")
    unit = "" if figure_name == "AP" else " (%)"
    accuracy.set(xlabel="epoch", ylabel=f"validation {figure_name}{unit}, without flip test", ylim=(0, None))
    rate.set(xlabel="epoch", ylabel="learning rate")
    seeds = curves["seed"].nunique()
    loss.legend(frameon=False, title=f"mean and range of {seeds} seeds" if seeds > 1 else None)
    return figure


def error_kinds(errors):
    """What becomes of each keypoint, a panel a run; errors: {run: data frame of metrics.errors_by_keypoint}."""
    columns = min(4, len(errors))
    rows = -(-len(errors) // columns)
    keypoints = len(next(iter(errors.values())))
    size = (max(8, 2 + 2.6 * columns), (0.2 * keypoints + 0.9) * rows + 0.4)
    shared = {"sharex": True, "sharey": True}
    figure, grid = plt.subplots(rows, columns, figsize=size, squeeze=False, layout="constrained", **shared)
    for axes in grid.flat[len(errors) :]:
        axes.set_visible(False)
    for axes, (run, table) in zip(grid.flat, errors.items()):
        names, start = table["keypoint"].str.replace("_", " "), 0
        for kind in table.columns.intersection(list(KINDS), sort=False):
            axes.barh(names, 100 * table[kind], left=start, color=KINDS[kind], linewidth=0, label=kind)
            start = start + 100 * table[kind]
        axes.set(title=run, xlim=(0, 100))
    grid[0, 0].invert_yaxis()
    figure.supxlabel("share of labelled keypoints (%)", fontsize="medium")
    figure.legend(*axes.get_legend_handles_labels(), frameon=False, ncols=len(KINDS), loc="outside upper center")
    return figure


def repair_gains(gains, figure_name):
    """What AP or Mean, `figure_name`, would gain without each kind of error, runs side by side; gains: {run: data frame
    of metrics.repair_gains}."""
    table = _of_runs(gains)
    figure, axes = plt.subplots(figsize=(8, 0.9 + _height(table, "error")), layout="constrained")
    _bars(axes, table, "gain", "error")
    axes.set(xlabel=f"gain in {figure_name}{_unit(figure_name)} if repaired", ylabel="")
    figure.legend(*axes.get_legend_handles_labels(), frameon=False, loc="outside right upper")
    return figure


def accuracy_by_group(groups, figure_name):
    """AP or Mean, `figure_name`, of groups of people, a panel for what they are grouped by, runs side by side; groups:
    {run: data frame of metrics.ap_by_group}."""
    table = _of_runs(groups)
    table["group"] = table["group"] + " (" + table["people"].astype(str) + ")"
    panels = dict(list(table.groupby("by", sort=False)))
    heights = [_height(panel, "group") for panel in panels.values()]
    figure, grid = plt.subplots(
        len(panels),
        figsize=(8, sum(heights) + 0.35 * len(panels) + 0.5),
        squeeze=False,
        sharex=True,
        height_ratios=heights,
        layout="constrained",
    )
    for axes, (by, panel) in zip(grid.flat, panels.items()):
        _bars(axes, panel, figure_name, "group")
        axes.set(xlabel="", ylabel="")
        axes.set_title(GROUPED_BY[by], loc="left", fontsize="medium")
    axes.set(xlabel=f"{figure_name}{_unit(figure_name)}; in brackets: people", xlim=(0, None))
    figure.legend(*axes.get_legend_handles_labels(), frameon=False, loc="outside right upper")
    return figure


def _of_runs(tables):
    """{run: data frame} as one, with the column run."""
    return pd.concat([table.assign(run=run) for run, table in tables.items()], ignore_index=True)


def _height(table, rows):
    """Inches for the bars of `table`: a group of them for each of the column `rows`, in it one a run."""
    return table[rows].nunique() * (0.12 + 0.13 * table["run"].nunique())


def _bars(axes, table, value, rows):
    """Horizontal bars of the column `value`, a group for each of the column `rows`, a colour for each run."""
    colors = [color for color, _ in zip(cycle(PALETTE), table["run"].unique())]
    sns.barplot(table, x=value, y=rows, hue="run", palette=colors, saturation=1, ax=axes)
    axes.get_legend().remove()


def _unit(figure_name):
    """What follows a figure's name on an axis: AP is a fraction, PCK's mean per cent."""
    return "" if figure_name == "AP" else " (%)"


def accuracy_against_cost(table, figure_name):
    """Accuracy against multiply-adds, a mark a network, a colour a source; the networks of one family and source, which
    differ by their stages, are joined by a line. Several seeds of a run are their mean and range.

    table: a data frame with columns model, source, input, multiply_adds (G) and accuracy (%)
    """
    figure, axes = plt.subplots(figsize=(9, 5.6), layout="constrained")
    keys = ["source", "model", "input", "multiply_adds"]
    points = table.groupby(keys, sort=False)["accuracy"].agg(["mean", "min", "max"]).reset_index()
    points["family"] = points["model"].str.replace(r"^\dx", "", regex=True) + points["input"]
    usual = next(iter(table["input"].mode()), "of any size")
    for index, (source, color) in enumerate(_colors(table["source"]).items()):
        here = points[points["source"] == source]
        style = {"marker": MARKERS[index], "markersize": 6 + 3 * (index % 2), "fillstyle": "none", "color": color}
        for _, line in here.sort_values("multiply_adds").groupby("family"):
            axes.plot(line["multiply_adds"], line["mean"], markeredgewidth=1.6, **style)
        axes.lines[-1].set_label(source)
        axes.vlines(here["multiply_adds"], here["min"], here["max"], color=color)
        for point in here.itertuples():
            name = point.model.removesuffix(f"-{source.lower()}")
            name = name if point.input == usual else f"{name} {point.input}"
            spot = (point.multiply_adds, point.mean)
            axes.annotate(name, spot, (0, 0), color=color, fontsize=8, textcoords="offset points")
    axes.set(xlabel=f"multiply-adds of one person (G), input {usual}", ylabel=f"{figure_name} (%)")
    axes.margins(0.12)
    if table["multiply_adds"].max() > 4 * table["multiply_adds"].min():
        axes.set_xscale("log")
        _plain_numbers(axes.xaxis)
    if table["source"].nunique() > 1:
        axes.legend(frameon=False, loc="lower right")
    _place_labels(figure, axes)
    return figure


def _place_labels(figure, axes):
    """Move every label beside its mark to where it covers least of lines, marks and labels placed before."""
    if not axes.texts:
        return
    figure.draw_without_rendering()  # from here on, places in pixels are final
    drawn = [axes.transData.transform(line.get_xydata()) for line in axes.lines]
    steps = np.linspace(0, 1, 50)[:, None, None]
    segments = [path[:-1] + steps * (path[1:] - path[:-1]) for path in drawn]
    covered = np.concatenate([path.reshape(-1, 2) for path in drawn + segments])
    placed = []
    for label in axes.texts:
        places = []
        for (dx, dy), across, up in product([(6, 4), (1, 8), (8, 0)], (-1, 1), (1, -1)):
            label.set(ha=("right", "left")[across > 0] if dx > 1 else "center", position=(across * dx, up * dy))
            label.set(va=("top", "bottom")[up > 0] if dy else "center")
            box = label.get_window_extent().padded(3)
            lines = ((covered > (box.x0, box.y0)) & (covered < (box.x1, box.y1))).all(axis=1).sum()
            outside = not axes.bbox.padded(4).contains(*box.p0) or not axes.bbox.padded(4).contains(*box.p1)
            cost = lines + 1000 * (box.count_overlaps(placed) + outside)
            places.append((cost, len(places), box, label.get_position(), label.get_ha(), label.get_va()))
        _, _, box, position, ha, va = min(places, key=lambda place: place[:2])
        label.set(position=position, ha=ha, va=va)
        placed.append(box)


def keypoint_accuracy(table, skeleton, ylabel):
    """How often each keypoint is right, a mark a model, its seeds' mean and range.

    table: a data frame with columns model, seed, keypoint (as the skeleton names it) and accuracy (%)
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
    axes.set(xlabel=ylabel, ylabel="", xlim=(None, 100))
    axes.grid(axis="y", alpha=0.4)
    axes.legend(frameon=False, title=None, loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def two_runs(accuracies, distances, names, skeleton, near, person=None):
    """How two runs differ: each keypoint's accuracy, and how far each person's keypoints are off.

    accuracies: (2, K), per cent, of keypoints within `near`, a share of the box's longer side
    distances: (2, P), mean over a person's keypoints, in the same unit; person: an index, ringed
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(9.5, 0.2 * len(skeleton) + 1), width_ratios=[3, 2])
    figure.subplots_adjust(0.14, 0.17, 0.99, 0.98, 0.22)
    rows = np.arange(len(skeleton))
    left.hlines(rows, *accuracies, color="lightgrey", zorder=0)
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


def _plain_numbers(axis):
    """1, 2, 5, 10, ... at a logarithmic axis."""
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter("{x:g}")
    axis.set_minor_locator(NullLocator())


def _colors(names):
    """{name: colour} of the different `names`, in their order."""
    return dict(zip(dict.fromkeys(names), cycle(PALETTE)))
