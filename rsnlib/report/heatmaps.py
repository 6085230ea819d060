"""Views into a network: heatmaps, attention, receptive fields."""

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.colors import PowerNorm

from rsnlib.report.drawing import crop_panel, draw_skeleton, first_axes, names_of, panel_grid, show_picture

HEAT = "magma"
INK = {"left": "#0072B2", "right": "#B87F00", "middle": "#555555"}  # drawing.SIDES, darker, for bars on white
HEAD_NAMES = ("coarsest", "coarse", "fine", "finest")


def draw_heatmap(axes, crop, heatmap, largest=255):
    """Draw a heatmap (h, w), from 0 to `largest`, over the grey crop (H, W, 3); return the artist for a colour bar."""
    height, width = crop.shape[:2]
    show_picture(axes, np.mean(crop, axis=2), cmap="gray")
    extent = (-0.5, width - 0.5, height - 0.5, -0.5)
    return axes.imshow(heatmap, cmap=HEAT, vmin=0, vmax=largest, alpha=0.65, extent=extent)


def heatmaps_by_head(crop, heads, keypoint, name):
    """Draw one keypoint's heatmaps over the crop, one row per stage, coarse to fine; the last of all is the result.

    crop: (H, W, 3) uint8; heads: (stages, 4, K, h, w); keypoint: its index; name: for the title
    """
    height, width = crop.shape[:2]
    size = 10, 2.1 * len(heads) * height / width + 0.8
    figure, grid = plt.subplots(len(heads), 5, figsize=size, squeeze=False, layout="constrained")
    for stage, (first, *line) in enumerate(grid):
        show_picture(first, crop)
        first.set_ylabel(f"stage {stage + 1}")
        for head, axes in enumerate(line):
            heat = draw_heatmap(axes, crop, heads[stage, head, keypoint])
    for axes, title in zip(grid[0, 1:], HEAD_NAMES):
        axes.set_title(title)
    figure.suptitle(name)
    figure.colorbar(heat, ax=grid, label="heatmap (255 is certain)", shrink=0.8)
    return figure


def heatmaps_by_keypoint(crop, heatmaps, skeleton):
    """Draw every keypoint's final heatmap (K, h, w) over the crop (H, W, 3)."""
    figure, grid = panel_grid(len(skeleton), 9, crop_panel(crop))
    for axes, name, heatmap in zip(grid, names_of(skeleton), heatmaps):
        draw_heatmap(axes, crop, heatmap)
        axes.set_title(name, fontsize=8)
    return figure


def attention(crop, channel, position, skeleton, title):
    """Draw the weights of one head's Pose Refine Machine for one person: one bar and one map per keypoint.

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
    maps = first_axes(right.subplots(rows, columns, squeeze=False), len(skeleton))
    for cell, name, weights in zip(maps, names_of(skeleton), position):
        heat = draw_heatmap(cell, crop, weights, 1)
        cell.set_title(name, fontsize=8)
    right.colorbar(heat, ax=list(maps), label="position weight", shrink=0.8)
    figure.suptitle(title)
    return figure


def effective_fields(fields):
    """Draw the effective receptive fields at the end of each branch of a block, one row per kind of block, one column
    per branch; above each the sizes of its receptive fields, the largest marked by a square.

    fields: {kind: (gradients (branches, size, size), at most 1; cost.field_sizes of each branch)}
    """
    columns = max(len(sizes) for _, sizes in fields.values())
    edge = max(max(sizes[-1]) for _, sizes in fields.values()) // 2 + 1
    size = {"figsize": (1.6 * columns + 1.95, 2 * len(fields) + 0.45), "layout": "constrained"}
    figure, grid = plt.subplots(len(fields), columns, sharex=True, sharey=True, squeeze=False, **size)
    for row, (kind, (gradients, sizes)) in zip(grid, fields.items()):
        for branch, axes in enumerate(first_axes(row, len(sizes))):
            gradient, seen = gradients[branch], ", ".join(map(str, sizes[branch]))
            half, largest = len(gradient) / 2, max(sizes[branch])
            heat = axes.imshow(gradient, cmap=HEAT, norm=PowerNorm(0.5, 0, 1), extent=(-half, half, half, -half))
            corner = -largest / 2, -largest / 2
            axes.add_patch(plt.Rectangle(corner, largest, largest, fill=False, color="white", linestyle="--"))
            axes.set(facecolor="black", xticks=[-edge, 0, edge], yticks=[-edge, 0, edge])
            axes.set(xlim=(-edge - 0.5, edge + 0.5), ylim=(edge + 0.5, -edge - 0.5))
            axes.tick_params(labelsize=8, labelbottom=True)
            axes.set_title(seen if len(sizes) == 1 else f"branch {branch + 1}\n{seen}", fontsize=8)
        row[0].set_ylabel(kind)
    figure.supxlabel("cells of the block's input, from the middle", fontsize=10)
    figure.colorbar(heat, ax=grid, ticks=[0, 0.1, 0.25, 0.5, 1], label="gradient, largest 1")
    return figure


def insight(seen, stage, head, keypoint, truth, visible, skeleton, title):
    """Draw the view of one head on a person: the skeleton read from the head, one keypoint's heatmap and, where the
    head has a Pose Refine Machine, the keypoint's weights. A cross marks the keypoint as read, a ring the truth.

    seen: an inference.predict.Insight; stage, head, keypoint: indices
    truth: (K, 2) in crop pixels, marked where visible (K,)
    """
    panels = 3 if (stage, head) in seen.attention else 2
    figure, (pose, heat, *weights) = _panels(seen.crop, panels, title)
    show_picture(pose, seen.crop)
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
    """Draw a crop (H, W, 3) with its true keypoints (K, 2), in the layout of `insight`. visible: (K,)"""
    figure, (axes,) = _panels(crop, 1, title)
    show_picture(axes, crop)
    draw_skeleton(axes, keypoints, visible, skeleton)
    axes.set_title("truth; rings are hidden keypoints", fontsize=9)
    return figure


def _panels(crop, count, title):
    """Return a figure and its `count` axes in a row, of a crop's aspect; placed by hand, quick to draw."""
    height = 2.2 * crop.shape[0] / crop.shape[1]
    figure, grid = plt.subplots(1, count, figsize=(2.3 * count, height + 0.6), squeeze=False)
    figure.subplots_adjust(0.01, 0.01, 0.99, height / (height + 0.6), 0.04, 0)
    figure.suptitle(title, fontsize=10)
    return figure, grid[0]


def _mark(axes, point, marker):
    """Mark a keypoint, (2,), by a "+" or an "o", white on black, visible on any ground."""
    for color, width in (("black", 3.5), ("white", 1.5)):
        face = {} if marker == "+" else {"facecolors": "none"}
        axes.scatter(*point, s=90, marker=marker, color=color, linewidths=width, zorder=4, **face)
