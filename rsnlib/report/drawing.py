"""Drawings of people and of data sets: skeletons on crops and pictures, left in blue, right in orange."""

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
from matplotlib.collections import LineCollection

SIDES = {"left": "#0072B2", "right": "#E69F00", "middle": "#F0F0F0"}

INK = {"left": "#0072B2", "right": "#B87F00", "middle": "#555555"}  # the sides on white: the darker, to be read

PALETTE = ["#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#000000"]

MARKERS = "osD^vPX"


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


def keypoint_visibility(summary):
    """How often each keypoint is visible and hidden; `summary` as rsnlib.data.readers.summary gives it."""
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


def names_of(skeleton):
    """Its keypoints' names as a person writes them."""
    return [name.replace("_", " ") for name in skeleton.keypoints]


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
