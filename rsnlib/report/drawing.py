"""Skeletons on crops and pictures: left in blue, right in orange."""

from itertools import chain

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
from matplotlib.collections import LineCollection

SIDES = {"left": "#0072B2", "right": "#E69F00", "middle": "#F0F0F0"}


def draw_skeleton(axes, keypoints, visible, skeleton, width=2.0):
    """Draw limbs and keypoints on `axes`: left blue, right orange, hidden keypoints as rings.

    keypoints: (K, 2) in the axes' pixels; visible: (K,), 2 visible, 1 hidden, 0 not drawn
    """
    keypoints, visible = np.asarray(keypoints), np.asarray(visible)
    limbs = [(a, b) for a, b in skeleton.limbs if visible[a] > 0 and visible[b] > 0]
    colors = [SIDES[limb_side(skeleton, a, b)] for a, b in limbs]
    segments = [keypoints[[a, b]] for a, b in limbs]
    axes.add_collection(LineCollection(segments, colors="black", linewidths=width + 1, alpha=0.4))
    axes.add_collection(LineCollection(segments, colors=colors, linewidths=width))
    for flag in (2, 1):
        points = np.flatnonzero(visible == flag)
        edges = [SIDES[skeleton.side(point)] for point in points]
        faces = edges if flag == 2 else "none"
        axes.scatter(*keypoints[points].T, s=7 * width, zorder=3, edgecolors=edges, facecolors=faces, linewidths=1)


def limb_side(skeleton, a, b):
    """Return the side of the limb between the keypoints a and b: "left", "right" or "middle"."""
    sides = {skeleton.side(a), skeleton.side(b)} - {"middle"}
    return sides.pop() if len(sides) == 1 else "middle"


def names_of(skeleton):
    """Return the keypoints' names as a person writes them."""
    return [name.replace("_", " ") for name in skeleton.keypoints]


def people_grid(crops, keypoints, visible, skeleton, titles=None, columns=8):
    """Draw a grid of crops (N, H, W, 3) with skeletons.

    keypoints: (N, K, 2) in crop pixels; visible: (N, K), as for `draw_skeleton`; titles: N strings
    """
    figure, grid = panel_grid(len(crops), columns, crop_panel(crops[0]))
    for axes, crop, points, flags, title in zip(grid, crops, keypoints, visible, titles or [""] * len(crops)):
        show_picture(axes, crop)
        draw_skeleton(axes, points, flags, skeleton, width=1.3)
        axes.set_title(title, fontsize=8)
    return figure


def poses_in_pictures(pictures, skeleton, title):
    """Draw pictures with the predicted skeleton and box of everybody in them.

    pictures: (image (H, W, 3), keypoints (P, K, 2), boxes (P, 4)) of each, pixels
    """
    figure, grid = panel_grid(len(pictures), 2, (5, 4.2))
    for axes, (image, keypoints, boxes) in zip(grid, pictures):
        show_picture(axes, image)
        for points, (x, y, width, height) in zip(keypoints, boxes):
            draw_skeleton(axes, points, np.full(len(skeleton), 2), skeleton)
            axes.add_patch(plt.Rectangle((x, y), width, height, fill=False, color="white", linewidth=1))
    figure.suptitle(title)
    return figure


def predictions(rows, skeleton):
    """Draw the ground truth and the prediction of people side by side, one row per kind of people.

    rows: {kind: [(crop (H, W, 3), true keypoints (K, 2), visible (K,), predicted keypoints (K, 2), title)]}, keypoints
        in crop pixels, as many people of each kind
    """
    pictures = []
    for crop, truth, visible, predicted, title in chain(*rows.values()):
        shown = np.where(visible > 0, 2, 0)
        pictures += [(crop, truth, shown, "truth"), (crop, predicted, shown, title)]
    crops, keypoints, visible, titles = zip(*pictures)
    columns = len(pictures) // len(rows)
    figure = people_grid(crops, keypoints, visible, skeleton, titles, columns)
    for axes, kind in zip(figure.axes[::columns], rows):
        axes.set_ylabel(kind)
    return figure


def show_picture(axes, image, **options):
    """Show an image on `axes`, without ticks or spines. options: of imshow"""
    axes.imshow(image, **options)
    axes.set(xticks=[], yticks=[], xlim=(-0.5, image.shape[1] - 0.5), ylim=(image.shape[0] - 0.5, -0.5))
    sns.despine(ax=axes, left=True, bottom=True)


def crop_panel(crop):
    """Return the inches, (width, height), of the panel for a small crop (H, W, 3) and its title."""
    return 1.35, 1.35 * crop.shape[0] / crop.shape[1] + 0.2


def panel_grid(count, columns, panel, **options):
    """Return a figure and its `count` axes in rows of at most `columns`; panel: inches, (width, height), of each."""
    columns = min(columns, count)
    rows = -(-count // columns)
    size = panel[0] * columns, panel[1] * rows
    figure, grid = plt.subplots(rows, columns, figsize=size, squeeze=False, layout="constrained", **options)
    return figure, first_axes(grid, count)


def first_axes(grid, count):
    """Return the first `count` axes of a grid, and hide the others."""
    for axes in grid.flat[count:]:
        axes.set_visible(False)
    return grid.flat[:count]
