"""Everything that is drawn: people, heatmaps, data sets, curves. Each function returns a matplotlib figure.

Colours are those of Okabe and Ito, told apart in every common form of colour blindness: left is blue, right is orange.
"""

from itertools import cycle

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.collections import LineCollection

SIDES = {"left": "#0072B2", "right": "#E69F00", "middle": "#F0F0F0"}
PALETTE = ["#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#000000"]
KINDS = {"good": "#DDDDDD", "jitter": "#56B4E9", "mirror swap": "#E69F00", "person swap": "#CC79A7", "miss": "#D55E00"}
GROUPED_BY = {  # columns `by` of metrics.ap_by_group, in words
    "everyone": "",
    "size": "COCO's size",
    "pixels": "square root of the person's area (pixels)",
    "hidden": "share of labelled keypoints that are hidden",
    "in another's box": "share of the person's box that lies in another's",
}
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
            axes = grid[stage, head + 1]
            _picture(axes, np.mean(crop, axis=2), cmap="gray")
            heat = axes.imshow(
                heads[stage, head, keypoint],
                cmap=HEAT,
                vmin=0,
                vmax=255,
                alpha=0.65,
                extent=(-0.5, width - 0.5, height - 0.5, -0.5),
            )
            if stage == 0:
                axes.set_title(HEAD_NAMES[head])
    grid[0, 0].set_title(name)
    figure.colorbar(heat, ax=grid, label="heatmap (255 is certain)", shrink=0.8)
    return figure


def heatmaps_by_keypoint(crop, heatmaps, skeleton):
    """Every keypoint's final heatmap (K, h, w) over the crop."""
    height, width = crop.shape[:2]
    figure, grid = _grid(len(skeleton), 9, height / width)
    for axes, name, heatmap in zip(grid, skeleton.keypoints, heatmaps, strict=False):
        _picture(axes, np.mean(crop, axis=2), cmap="gray")
        extent = (-0.5, width - 0.5, height - 0.5, -0.5)
        axes.imshow(heatmap, cmap=HEAT, vmin=0, vmax=255, alpha=0.65, extent=extent)
        axes.set_title(name.replace("_", " "), fontsize=8)
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
    """Loss, validation accuracy and learning rate against the epoch; curves: {run: data frame of load_curve}."""
    figure, (loss, accuracy, rate) = plt.subplots(1, 3, figsize=(12, 3.4), layout="constrained")
    for color, (name, curve) in zip(cycle(PALETTE), curves.items()):
        loss.plot(curve["epoch"], curve["loss"], color=color, label=name)
        validated = curve.dropna(subset=[f"val_{figure_name}"])
        accuracy.plot(validated["epoch"], validated[f"val_{figure_name}"], "o-", color=color, label=name)
        rate.plot(curve["epoch"], curve["learning_rate"], color=color)
    loss.set(xlabel="epoch", ylabel="training loss", yscale="log")
    unit = "" if figure_name == "AP" else " (%)"
    accuracy.set(xlabel="epoch", ylabel=f"validation {figure_name}{unit}, without flip test", ylim=(0, None))
    rate.set(xlabel="epoch", ylabel="learning rate")
    loss.legend(frameon=False)
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
