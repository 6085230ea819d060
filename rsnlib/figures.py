"""Everything that is drawn: people, heatmaps, data sets, curves. Each function returns a matplotlib figure.

Colours are those of Okabe and Ito, told apart in every common form of colour blindness: left is blue, right is orange.
"""

from itertools import cycle, product

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.collections import LineCollection
from matplotlib.colors import PowerNorm
from matplotlib.ticker import LogLocator, NullLocator

SIDES = {"left": "#0072B2", "right": "#E69F00", "middle": "#F0F0F0"}
INK = {"left": "#0072B2", "right": "#B87F00", "middle": "#555555"}  # the sides on white: the darker, to be read
PALETTE = ["#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#000000"]
KINDS = {"good": "#DDDDDD", "jitter": "#56B4E9", "mirror swap": "#E69F00", "person swap": "#CC79A7", "miss": "#D55E00"}
GROUPED_BY = {  # columns `by` of metrics.ap_by_group, in words
    "everyone": "",
    "size": "COCO's size",
    "pixels": "square root of the person's area (pixels)",
    "hidden": "share of labelled keypoints that are hidden",
    "in another's box": "share of the person's box that lies in another's",
}
MARKERS = "osD^vPX"
HEAT = "magma"
HEAD_NAMES = ("coarsest", "coarse", "fine", "finest")

sns.set_theme(
    style="ticks", palette=PALETTE, rc={"figure.dpi": 100, "axes.spines.right": False, "axes.spines.top": False}
)


def draw_skeleton(axes, keypoints, visible, skeleton, width=2.0):
    """Limbs and keypoints on `axes`: left blue, right orange, hidden keypoints as rings.

    keypoints: (K, 2) in the axes' pixels; visible: (K,), those with 0 are left out
    """
    keypoints, visible = np.asarray(keypoints), np.asarray(visible)
    limbs = [(a, b) for a, b in skeleton.limbs if visible[a] > 0 and visible[b] > 0]
    colors = [SIDES[limb_side(skeleton, a, b)] for a, b in limbs]
    segments = [keypoints[[a, b]] for a, b in limbs]
    axes.add_collection(LineCollection(segments, colors="black", linewidths=width + 1, alpha=0.4))
    axes.add_collection(LineCollection(segments, colors=colors, linewidths=width))
    for flag, face in ((2, True), (1, False)):
        points = np.flatnonzero(visible == flag)
        edge = [SIDES[skeleton.side(point)] for point in points]
        axes.scatter(
            *keypoints[points].T,
            s=7 * width,
            zorder=3,
            edgecolors=edge,
            facecolors=edge if face else "none",
            linewidths=1,
        )


def limb_side(skeleton, a, b):
    """'left', 'right' or 'middle': where the limb between two keypoints belongs."""
    sides = {skeleton.side(a), skeleton.side(b)} - {"middle"}
    return sides.pop() if len(sides) == 1 else "middle"


def people_grid(crops, keypoints, visible, skeleton, titles=None, columns=8):
    """Crops (N, H, W, 3) with skeletons: keypoints (N, K, 2) in the crop, visible (N, K)."""
    figure, grid = _grid(len(crops), columns, crops[0].shape[0] / crops[0].shape[1])
    for index, (axes, crop) in enumerate(zip(grid, crops, strict=False)):
        _picture(axes, crop)
        draw_skeleton(axes, keypoints[index], visible[index], skeleton, width=1.3)
        if titles is not None:
            axes.set_title(titles[index], fontsize=8)
    return figure


def poses_in_pictures(pictures, skeleton, title):
    """Pictures with everyone's predicted skeleton and box.

    pictures: image (H, W, 3), keypoints (P, K, 2) and boxes (P, 4) of each
    """
    columns = min(2, len(pictures))
    rows = -(-len(pictures) // columns)
    figure, grid = plt.subplots(rows, columns, figsize=(5 * columns, 4.2 * rows), squeeze=False, layout="constrained")
    for axes in grid.flat[len(pictures) :]:
        axes.set_visible(False)
    for axes, (image, keypoints, boxes) in zip(grid.flat, pictures):
        _picture(axes, image)
        for points, (x, y, width, height) in zip(keypoints, boxes):
            draw_skeleton(axes, points, np.full(len(skeleton), 2), skeleton)
            axes.add_patch(plt.Rectangle((x, y), width, height, fill=False, color="white", linewidth=1))
    figure.suptitle(title)
    return figure


def heatmaps_by_head(crop, heads, keypoint, name):
    """One keypoint's heatmaps over the crop, a row a stage, coarse to fine; the last column is the result.

    crop: (H, W, 3) uint8; heads: (stages, 4, K, h, w)
    """
    stages = heads.shape[0]
    height, width = crop.shape[:2]
    figure, grid = plt.subplots(
        stages, 5, figsize=(10, 2.1 * stages * height / width + 0.6), squeeze=False, layout="constrained"
    )
    for stage in range(stages):
        _picture(grid[stage, 0], crop)
        grid[stage, 0].set_ylabel(f"stage {stage + 1}")
        for head in range(4):
            heat = draw_heatmap(grid[stage, head + 1], crop, heads[stage, head, keypoint])
            if stage == 0:
                grid[stage, head + 1].set_title(HEAD_NAMES[head])
    grid[0, 0].set_title(name)
    figure.colorbar(heat, ax=grid, label="heatmap (255 is certain)", shrink=0.8)
    return figure


def heatmaps_by_keypoint(crop, heatmaps, skeleton):
    """Every keypoint's final heatmap (K, h, w) over the crop."""
    height, width = crop.shape[:2]
    figure, grid = _grid(len(skeleton), 9, height / width)
    for axes, name, heatmap in zip(grid, names_of(skeleton), heatmaps, strict=False):
        draw_heatmap(axes, crop, heatmap)
        axes.set_title(name, fontsize=8)
    return figure


def keypoint_visibility(summary):
    """How often each keypoint is visible and hidden; `summary` as rsnlib.datasets.summary gives it."""
    figure, axes = plt.subplots(figsize=(8, 0.24 * len(summary) + 1), layout="constrained")
    names = summary["keypoint"].str.replace("_", " ")
    axes.barh(names, summary["visible"], color=PALETTE[0], label="visible")
    axes.barh(names, summary["hidden"], left=summary["visible"], color=PALETTE[4], label="hidden, labelled")
    axes.invert_yaxis()
    axes.set_xlabel("people")
    axes.legend(frameon=False, ncols=2, loc="lower left", bbox_to_anchor=(0, 1))
    return figure


def box_sizes(people):
    """How large people are in their pictures; `people` is {split: People}."""
    figure, axes = plt.subplots(figsize=(8, 3), layout="constrained")
    heights = {split: found.boxes[:, 3] for split, found in people.items()}
    edges = np.histogram_bin_edges(np.concatenate(list(heights.values())), 30)
    for color, (split, values) in zip(PALETTE, heights.items(), strict=False):
        axes.hist(
            values, edges, weights=np.full(len(values), 100 / len(values)), histtype="step", color=color, label=split
        )
    axes.set_xlabel("box height (pixels)")
    axes.set_ylabel("share of people (%)")
    axes.legend(frameon=False)
    return figure


def training_curves(curves, figure_name):
    """Loss, validation accuracy and learning rate against the epoch, a line a model; where it has several seeds, their
    mean in a band from the lowest to the highest.

    curves: a data frame, the rows of pipeline.load_curve of every run with its model and seed
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


def attention(crop, channel, position, skeleton, title):
    """What the Pose Refine Machine of one head weighs for one person: a number a keypoint, and a map over the picture.

    crop: (H, W, 3) uint8; channel: (K,), position: (K, h, w), both from 0 to 1
    """
    columns, (height, width) = 6, crop.shape[:2]
    rows = -(-len(skeleton) // columns)
    size = 3.4 + 1.3 * columns, rows * (1.1 * height / width + 0.2) + 0.7
    figure = plt.figure(figsize=size, layout="constrained")
    left, right = figure.subfigures(1, 2, width_ratios=[3.4, 1.3 * columns + 0.4])
    axes = left.subplots()
    axes.barh(names_of(skeleton), channel, color=[INK[skeleton.side(index)] for index in range(len(skeleton))])
    axes.invert_yaxis()
    axes.set(xlabel="channel weight", xlim=(0, 1))
    grid = list(right.subplots(rows, columns, squeeze=False).flat)
    for cell in grid[len(skeleton) :]:
        cell.set_visible(False)
    for cell, name, weights in zip(grid, names_of(skeleton), position):
        heat = draw_heatmap(cell, crop, weights, 1)
        cell.set_title(name, fontsize=8)
    right.colorbar(heat, ax=grid, label="position weight", shrink=0.8)
    figure.suptitle(title)
    return figure


def effective_fields(fields):
    """What the ends of the branches of each kind of block look at, a row a kind, a column a branch.

    fields: {kind: (gradients (branches, size, size), their largest 1; the sizes of the receptive fields of each branch,
        as cost.field_sizes gives them)}; the squares are the largest of these
    """
    columns = max(len(sizes) for _, sizes in fields.values())
    edge = max(max(sizes[-1]) for _, sizes in fields.values()) // 2 + 1
    width, height = 1.6 * columns + 1.95, 2 * len(fields) + 0.45
    figure, grid = plt.subplots(len(fields), columns, sharex=True, sharey=True, figsize=(width, height), squeeze=False)
    figure.subplots_adjust(0.85 / width, 0.65 / height, 1 - 1.1 / width, 1 - 0.4 / height, 0.2, 0.5)
    for row, (kind, (gradients, sizes)) in zip(grid, fields.items()):
        for axes in row[len(sizes) :]:
            axes.set_visible(False)
        for number, (axes, gradient, extents) in enumerate(zip(row, gradients, sizes), start=1):
            half, extent = gradient.shape[0] / 2, max(extents)
            square = (-half, half, half, -half)
            heat = axes.imshow(gradient, cmap=HEAT, norm=PowerNorm(0.5, 0, 1), extent=square)
            corner = -extent / 2, -extent / 2
            axes.add_patch(plt.Rectangle(corner, extent, extent, fill=False, color="white", linestyle="--"))
            seen = ", ".join(map(str, extents))
            axes.set_title(seen if len(sizes) == 1 else f"branch {number}\n{seen}", fontsize=8)
            axes.set(facecolor="black", xticks=[-edge, 0, edge], yticks=[-edge, 0, edge])
            axes.set(xlim=(-edge - 0.5, edge + 0.5), ylim=(edge + 0.5, -edge - 0.5))
            axes.tick_params(labelsize=8, labelbottom=True)
        row[0].set_ylabel(kind)
    figure.supxlabel("cells of the block's input, from the middle", fontsize=10, y=0.05 / height)
    bar = figure.add_axes([1 - 0.95 / width, 0.65 / height, 0.15 / width, 1 - 1.05 / height])
    figure.colorbar(heat, bar, ticks=[0, 0.1, 0.25, 0.5, 1]).set_label("gradient, largest 1", fontsize=9)
    return figure


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


def predictions(rows, skeleton):
    """The truth and the prediction of people side by side, a row a kind of people.

    rows: {kind: [(crop (H, W, 3), true keypoints (K, 2) in it, visible (K,), predicted keypoints (K, 2), title)]}
    """
    columns = max(map(len, rows.values()))
    height, width = next(iter(rows.values()))[0][0].shape[:2]
    size = 2.7 * columns + 0.4, (1.3 * height / width + 0.3) * len(rows) + 0.3
    figure, grid = plt.subplots(len(rows), 2 * columns, figsize=size, squeeze=False, layout="constrained")
    for axes in grid.flat:
        axes.set_visible(False)
    for line, (kind, people) in zip(grid, rows.items()):
        for column, (crop, truth, visible, predicted, title) in enumerate(people):
            for axes, keypoints in zip(line[2 * column :], (truth, predicted)):
                axes.set_visible(True)
                _picture(axes, crop)
                draw_skeleton(axes, keypoints, np.where(visible > 0, 2, 0), skeleton, width=1.5)
            line[2 * column].set_title("truth", fontsize=8)
            line[2 * column + 1].set_title(title, fontsize=8)
        line[0].set_ylabel(kind)
    return figure


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


def insight(seen, stage, head, keypoint, truth, visible, skeleton, title):
    """What one head of a network makes of a person: the skeleton read from it, one keypoint's heatmap and, where the
    head has a Pose Refine Machine, what this weighs.

    seen: a predict.Insight; stage, head, keypoint: indices
    truth: (K, 2) in crop pixels, marked where visible (K,)
    """
    panels = 3 if (stage, head) in seen.attention else 2
    figure, (pose, heat, *weights) = _panels(seen.crop, panels, title)
    _picture(pose, seen.crop)
    draw_skeleton(pose, seen.keypoints[stage, head], np.full(len(skeleton), 2), skeleton)
    pose.set_title(f"stage {stage + 1}, {HEAD_NAMES[head]} head", fontsize=9)
    draw_heatmap(heat, seen.crop, seen.heads[stage, head, keypoint])
    name = names_of(skeleton)[keypoint]
    heat.set_title(f"{name}, score {seen.scores[stage, head, keypoint]:.2f}", fontsize=9)
    for axes in weights:
        channel, position = seen.attention[stage, head]
        draw_heatmap(axes, seen.crop, position[keypoint], 1)
        axes.set_title(f"position weight, channel {channel[keypoint]:.2f}", fontsize=9)
    for axes in (pose, heat):
        _mark(axes, seen.keypoints[stage, head, keypoint], "+")
        if visible[keypoint]:
            _mark(axes, truth[keypoint], "o")
    return figure


def true_person(crop, keypoints, visible, skeleton, title):
    """A crop with its true keypoints, to stand beside `insight`."""
    figure, (axes,) = _panels(crop, 1, title)
    _picture(axes, crop)
    draw_skeleton(axes, keypoints, visible, skeleton)
    axes.set_title("truth; rings are hidden keypoints", fontsize=9)
    return figure


def _panels(crop, count, title):
    """A figure for `count` pictures of a crop's aspect in a row, quick to draw."""
    height = 2.2 * crop.shape[0] / crop.shape[1]
    figure, grid = plt.subplots(1, count, figsize=(2.3 * count, height + 0.6), squeeze=False)
    figure.subplots_adjust(0.01, 0.01, 0.99, height / (height + 0.6), 0.04, 0)
    figure.suptitle(title, fontsize=10)
    return figure, grid[0]


def _mark(axes, point, marker):
    """A keypoint as a cross (read) or a ring (true), to be seen on any ground."""
    for color, width in (("black", 3.5), ("white", 1.5)):
        face = {} if marker == "+" else {"facecolors": "none"}
        axes.scatter(*point, s=90, marker=marker, color=color, linewidths=width, zorder=4, **face)


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


def draw_heatmap(axes, crop, heatmap, largest=255):
    """A heatmap (h, w), from 0 to `largest`, over the grey crop (H, W, 3) on `axes`; what a colour bar takes."""
    height, width = crop.shape[:2]
    _picture(axes, np.mean(crop, axis=2), cmap="gray")
    extent = (-0.5, width - 0.5, height - 0.5, -0.5)
    return axes.imshow(heatmap, cmap=HEAT, vmin=0, vmax=largest, alpha=0.65, extent=extent)


def names_of(skeleton):
    """Its keypoints' names as a person writes them."""
    return [name.replace("_", " ") for name in skeleton.keypoints]


def _plain_numbers(axis):
    """1, 2, 5, 10, ... at a logarithmic axis."""
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter("{x:g}")
    axis.set_minor_locator(NullLocator())


def _colors(names):
    """{name: colour} of the different `names`, in their order."""
    return dict(zip(dict.fromkeys(names), cycle(PALETTE)))


def _picture(axes, image, **options):
    axes.imshow(image, **options)
    axes.set(xticks=[], yticks=[], xlim=(-0.5, image.shape[1] - 0.5), ylim=(image.shape[0] - 0.5, -0.5))
    sns.despine(ax=axes, left=True, bottom=True)


def _grid(count, columns, aspect):
    """A figure of `count` axes for pictures of height / width `aspect`, the unused ones hidden."""
    columns = min(columns, count)
    rows = -(-count // columns)
    figure, grid = plt.subplots(
        rows, columns, figsize=(1.35 * columns, (1.35 * aspect + 0.2) * rows), squeeze=False, layout="constrained"
    )
    for axes in grid.flat[count:]:
        axes.set_visible(False)
    return figure, grid.flat[:count]
