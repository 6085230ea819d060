"""Everything that is drawn: people, heatmaps, data sets, curves. Each function returns a matplotlib figure.

Colours are those of Okabe and Ito, told apart in every common form of colour blindness: left is blue, right is orange.
"""

from itertools import cycle

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
from matplotlib.collections import LineCollection

SIDES = {"left": "#0072B2", "right": "#E69F00", "middle": "#F0F0F0"}
PALETTE = ["#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#000000"]
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
