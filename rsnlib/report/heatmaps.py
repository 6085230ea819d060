"""Pictures of what a network sees: heatmaps, attention, receptive fields."""

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.colors import PowerNorm

from rsnlib.report.drawing import INK, _grid, _picture, draw_skeleton, names_of

HEAT = "magma"

HEAD_NAMES = ("coarsest", "coarse", "fine", "finest")


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


def draw_heatmap(axes, crop, heatmap, largest=255):
    """A heatmap (h, w), from 0 to `largest`, over the grey crop (H, W, 3) on `axes`; what a colour bar takes."""
    height, width = crop.shape[:2]
    _picture(axes, np.mean(crop, axis=2), cmap="gray")
    extent = (-0.5, width - 0.5, height - 0.5, -0.5)
    return axes.imshow(heatmap, cmap=HEAT, vmin=0, vmax=largest, alpha=0.65, extent=extent)
