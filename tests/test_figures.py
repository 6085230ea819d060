"""Figures: what is drawn in them, where, and what axes and legends say of it."""

import shutil

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgb
from ruamel.yaml import YAML

from rsnlib.data.skeletons import COCO
from rsnlib.files import read_json, write_json
from rsnlib.inference.predict import Insight
from rsnlib.metrics import protocol
from rsnlib.metrics.groups import person_groups
from rsnlib.models.zoo import RSN18
from rsnlib.report import charts, drawing, heatmaps
from rsnlib.report.cost import cost
from rsnlib.stages import figures as figures_stage
from rsnlib.stages.layout import predictions_path
from rsnlib.stages.results import load_curves
from rsnlib.stages.stores import load_store

CROP = np.full((64, 48, 3), 120, np.uint8)
KEYPOINTS = np.random.default_rng(0).uniform(0, 48, (17, 2))
NAMES = [name.replace("_", " ") for name in COCO.keypoints]


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def visible_axes(figure):
    return [axes for axes in figure.axes if axes.get_visible()]


def titles(axes):
    return [each.get_title() for each in axes]


def rows_of(axes):
    return [label.get_text() for label in axes.get_yticklabels()]


def legend(legend):
    return [text.get_text() for text in legend.get_texts()]


# ---- skeletons on crops and pictures


def colors_at(axes, point):
    """The edge colours of the keypoint markers drawn at a point."""
    markers = [c for c in axes.collections if len(c.get_offsets()) and not hasattr(c, "get_segments")]
    return [
        tuple(color[:3])
        for marker in markers
        for offset, color in zip(marker.get_offsets(), marker.get_edgecolors())
        if np.allclose(offset, point)
    ]


def test_left_and_right_have_their_colours_hidden_keypoints_are_rings_and_unlabelled_ones_not_drawn():
    _, axes = plt.subplots()
    visible = np.zeros(17, int)
    visible[[0, 5, 6, 7]] = 2, 2, 2, 1  # nose, shoulders, left elbow
    drawing.draw_skeleton(axes, KEYPOINTS, visible, COCO)
    (nose,), (left,), (right,) = (colors_at(axes, KEYPOINTS[point]) for point in (0, 5, 6))
    assert left == to_rgb(drawing.SIDES["left"]) and right == to_rgb(drawing.SIDES["right"])
    assert nose not in (left, right)
    *limbs, filled, rings = axes.collections
    np.testing.assert_array_equal(filled.get_offsets(), KEYPOINTS[[0, 5, 6]])
    np.testing.assert_array_equal(rings.get_offsets(), KEYPOINTS[[7]])
    assert len(filled.get_facecolors()) == 3 and len(rings.get_facecolors()) == 0
    assert [len(limb.get_segments()) for limb in limbs] == [2, 2]  # shoulders and upper arm, and their shade


def test_pictures_have_their_people_in_their_own_pixels():
    numbers = [f"{i}" for i in range(10)]
    shown = visible_axes(drawing.people_grid([CROP] * 10, [KEYPOINTS] * 10, np.full((10, 17), 2), COCO, numbers))
    assert titles(shown) == numbers and all(len(axes.images) == 1 for axes in shown)

    seen = np.zeros((300, 400, 3), np.uint8), [KEYPOINTS, KEYPOINTS + 100], [[0, 0, 50, 50]] * 2
    figure = drawing.poses_in_pictures([seen] * 3, COCO, "rsn18-0")
    *_, axes = visible_axes(figure)
    assert figure.get_suptitle() == "rsn18-0" and len(visible_axes(figure)) == 3
    assert axes.get_xlim() == (-0.5, 399.5) and axes.get_ylim() == (299.5, -0.5)
    assert len(axes.patches) == 2
    assert colors_at(axes, KEYPOINTS[5] + 100) == [to_rgb(drawing.SIDES["left"])]


def test_predictions_stand_beside_the_truth():
    person = CROP, KEYPOINTS, np.where(np.arange(17) < 10, 2, 0), KEYPOINTS + 3, "similarity 0.90"
    shown = drawing.predictions({"best": [person] * 3, "worst": [person] * 3}, COCO).axes
    assert titles(shown) == ["truth", "similarity 0.90"] * 6
    assert [axes.get_ylabel() for axes in shown[::6]] == ["best", "worst"]
    assert colors_at(shown[0], KEYPOINTS[5]) and colors_at(shown[1], KEYPOINTS[5] + 3)
    assert not colors_at(shown[1], KEYPOINTS[12] + 3)  # nothing to compare it with


# ---- views into a network


def test_heatmaps_of_every_head_and_of_every_keypoint_are_shown():
    heads = np.random.default_rng(0).uniform(0, 255, (2, 4, 17, 16, 12))
    figure = heatmaps.heatmaps_by_head(CROP, heads, 3, "left ear")
    *grid, colorbar = figure.axes
    assert len(grid) == 2 * 5 and colorbar.get_ylabel() == "heatmap (255 is certain)"
    assert figure.get_suptitle() == "left ear" and titles(grid[:5]) == ["", "coarsest", "coarse", "fine", "finest"]
    np.testing.assert_array_equal(grid[9].images[-1].get_array(), heads[1, 3, 3])
    assert {axes.images[-1].get_clim() for axes in grid if len(axes.images) == 2} == {(0, 255)}

    shown = visible_axes(heatmaps.heatmaps_by_keypoint(CROP, heads[1, 3], COCO))
    assert titles(shown) == NAMES
    np.testing.assert_array_equal(shown[9].images[-1].get_array(), heads[1, 3, 9])


def test_attention_is_one_bar_and_one_map_per_keypoint():
    channel, position = np.linspace(0, 1, 17), np.random.default_rng(0).uniform(size=(17, 16, 12))
    bars, *maps, colorbar = visible_axes(heatmaps.attention(CROP, channel, position, COCO, "rsn18"))
    assert [bar.get_width() for bar in bars.patches] == channel.tolist() and bars.get_xlabel() == "channel weight"
    assert len({bar.get_facecolor() for bar in bars.patches[:3]}) == 3  # middle, left and right
    assert titles(maps) == NAMES
    np.testing.assert_array_equal(maps[3].images[-1].get_array(), position[3])
    assert colorbar.get_ylabel() == "position weight" and maps[3].images[-1].get_clim() == (0, 1)


def test_effective_fields_lie_in_their_squares():
    gradients = np.random.default_rng(0).uniform(size=(2, 25, 25))
    fields = {"bottleneck": (gradients[:1], [[3]]), "residual steps": (gradients, [[3], [5, 7]])}
    *shown, colorbar = visible_axes(heatmaps.effective_fields(fields))
    assert titles(shown) == ["3", "branch 1\n3", "branch 2\n5, 7"] and colorbar.get_ylabel() == "gradient, largest 1"
    np.testing.assert_array_equal(shown[2].images[0].get_array(), gradients[1])
    (square,) = shown[2].patches
    assert (square.get_x(), square.get_width()) == (-3.5, 7)
    assert {axes.get_xlim() for axes in shown} == {(-4.5, 4.5)}  # all on one scale


def test_an_insight_shows_the_head_and_keypoint_asked_for_beside_the_truth():
    random = np.random.default_rng(0)
    attention = {(1, 3): (np.linspace(0, 1, 17), random.uniform(size=(17, 16, 12)))}
    heads, keypoints = random.uniform(0, 255, (2, 4, 17, 16, 12)), random.uniform(0, 48, (2, 4, 17, 2))
    seen = Insight(CROP, np.eye(2, 3), heads, keypoints, heads.max(axis=(3, 4)) / 255 + 0.5, attention)
    pose, heat = heatmaps.insight(seen, 0, 2, 5, KEYPOINTS, np.full(17, 2), COCO, "rsn18-0").axes
    assert pose.get_title() == "stage 1, fine head" and heat.get_title().startswith("left shoulder, score 1.")
    np.testing.assert_array_equal(heat.images[-1].get_array(), seen.heads[0, 2, 5])
    assert colors_at(pose, seen.keypoints[0, 2, 7])
    marks = [tuple(mark.get_offsets()[0]) for mark in heat.collections]
    assert marks == [tuple(seen.keypoints[0, 2, 5])] * 2 + [tuple(KEYPOINTS[5])] * 2

    _, heat, weights = heatmaps.insight(seen, 1, 3, 5, KEYPOINTS, np.zeros(17), COCO, "rsn18-0").axes
    np.testing.assert_array_equal(weights.images[-1].get_array(), seen.attention[1, 3][1][5])
    assert weights.get_title() == "position weight, channel 0.31"
    assert len(heat.collections) == 2  # the truth is not labelled


# ---- charts of people and runs


def test_the_people_of_a_data_set_have_visible_keypoints_and_sizes(make_people):
    summary = pd.DataFrame({"keypoint": ["nose", "left_eye"], "visible": [7, 3], "hidden": [1, 2]})
    (axes,) = charts.keypoint_visibility(summary).axes
    assert axes.get_xlabel() == "people" and rows_of(axes) == ["nose", "left eye"]
    assert [bar.get_x() + bar.get_width() for bar in axes.patches] == [7, 3, 8, 5]

    many, one = [[0, 0, 10, height] for height in range(20, 60)], [[0, 0, 10, 30]]
    splits = {split: make_people(CROP, boxes, (0, 0)) for split, boxes in (("train", many), ("val", one))}
    (axes,) = charts.box_sizes(splits).axes
    assert axes.get_xlabel() == "box height (pixels)" and axes.get_ylabel() == "share of people (%)"
    assert legend(axes.get_legend()) == ["train", "val"]
    assert max(axes.get_ylim()) >= 100  # the only validation person


def curves(models, seeds=1, metric="AP"):
    curve = pd.DataFrame({"epoch": [1, 2, 3], "loss": [3.0, 2, 1], "learning_rate": [1e-3, 5e-4, 0]})
    curve[f"val_{metric}"] = [np.nan, 0.2, 0.4]
    runs = [(model, seed) for model in models for seed in range(seeds)]
    return pd.concat([curve.assign(model=model, seed=seed, loss=curve["loss"] + seed) for model, seed in runs])


def test_every_model_has_its_curve_however_many():
    models = [f"rsn18-{letter}" for letter in "abcdefghi"]
    loss, accuracy, rate = charts.training_curves(curves(models, metric="Mean"), protocol("mpii")).axes
    assert {axes.get_xlabel() for axes in (loss, accuracy, rate)} == {"epoch"}
    assert "loss" in loss.get_ylabel() and rate.get_ylabel() == "learning rate"
    assert accuracy.get_ylabel().startswith("validation PCKh@0.5 (%),")
    assert [len([line for line in axes.lines if len(line.get_xdata())]) for axes in (loss, accuracy)] == [9, 9]
    assert accuracy.lines[0].get_xdata().tolist() == [2, 3]  # the epochs with a validation
    assert legend(loss.get_legend()) == models and loss.lines[0].get_color() != loss.lines[1].get_color()


def test_seeds_are_a_mean_in_a_band_from_the_lowest_to_the_highest():
    loss, accuracy, _ = charts.training_curves(curves(["rsn18"], seeds=3), protocol("coco")).axes
    assert accuracy.get_ylabel().startswith("validation AP (%),")
    assert loss.lines[0].get_ydata().tolist() == [4, 3, 2]
    (band,) = loss.collections
    box = band.get_paths()[0].get_extents()
    assert (box.y0, box.y1) == (1, 5)
    assert "3 seeds" in loss.get_legend().get_title().get_text()


def test_kinds_of_errors_are_stacked_to_the_whole():
    table = pd.DataFrame({"keypoint": ["nose", "left_eye"], "judged": [9, 0]})
    table[["good", "mirror swap", "miss"]] = [[0.5, 0.2, 0.3], [np.nan] * 3]
    figure = charts.error_kinds({f"rsn18-{seed}": table for seed in range(5)})
    shown = visible_axes(figure)
    assert titles(shown) == [f"rsn18-{seed}" for seed in range(5)]
    assert rows_of(shown[0]) == ["nose", "left eye"]
    assert figure.get_supxlabel() == "share of labelled keypoints (%)"
    nose = shown[4].patches[::2]
    assert [bar.get_x() for bar in nose] == pytest.approx([0, 50, 70])
    assert nose[2].get_x() + nose[2].get_width() == pytest.approx(100)
    assert legend(figure.legends[0]) == ["good", "mirror swap", "miss"]
    assert len({bar.get_facecolor() for bar in nose}) == 3


def test_gains_of_all_runs_stand_side_by_side():
    gains = pd.DataFrame({"error": ["jitter", "miss"], "share": [0.1, 0.2], "gain": [0.1, 0.2]})
    runs = {"rsn18-0": gains, "res18-0": gains.assign(gain=[0.3, 0.05])}
    figure = charts.repair_gains(runs, protocol("coco"))
    (axes,) = figure.axes
    assert axes.get_xlabel() == "gain in AP if repaired (points)" and rows_of(axes) == ["jitter", "miss"]
    assert [[bar.get_width() for bar in bars] for bars in axes.containers] == [[10, 20], [30, 5]]
    assert legend(figure.legends[0]) == ["rsn18-0", "res18-0"]
    (axes,) = charts.repair_gains(runs, protocol("mpii")).axes
    assert axes.get_xlabel() == "gain in PCKh@0.5 if repaired (points)"


def test_groups_have_one_panel_per_grouping_and_say_how_many_they_are(make_people):
    columns = ["by", "group", "people", "AP"]
    rows = [("everyone", "all", 400, 0.6), ("hidden", "none", 300, 0.7), ("hidden", "up to 25 %", 100, 0.4)]
    groups = pd.DataFrame(rows, columns=columns)
    everyone, hidden = charts.accuracy_by_group({"rsn18-0": groups, "res18-0": groups}, protocol("coco")).axes
    assert rows_of(hidden) == ["none (300)", "up to 25 % (100)"]
    assert hidden.get_title(loc="left") == "share of labelled keypoints that are hidden"
    assert hidden.get_xlabel() == "AP (%); in brackets: people" and everyone.get_xlim() == hidden.get_xlim()
    assert [[bar.get_width() for bar in bars] for bars in hidden.containers] == [[70, 40], [70, 40]]
    assert set(charts.GROUPED_BY) == {"everyone", *person_groups(make_people(CROP, [[0, 0, 10, 10]], KEYPOINTS))}


@pytest.mark.parametrize("models", [["rsn18", "res18"], ["rsn18"]])
def test_accuracy_by_keypoint_has_one_mark_per_model_and_keypoint(models):
    rows = [(m, s, k, 50 + 10 * s) for m in models for s in (0, 1) for k in COCO.keypoints]
    table = pd.DataFrame(rows, columns=["model", "seed", "keypoint", "accuracy"])
    (axes,) = charts.keypoint_accuracy(table, COCO, "right (%)").axes
    assert rows_of(axes) == NAMES and axes.get_xlabel() == "right (%)"
    marks = [line for line in axes.lines if line.get_marker() not in ("", "None", None) and len(line.get_xdata())]
    assert [line.get_xdata().tolist() for line in marks] == [[55] * 17] * len(models)
    assert legend(axes.get_legend()) == models


def test_two_runs_are_two_marks_per_keypoint_and_one_dot_per_person():
    distances = np.array([[0.01, 0.02, np.inf], [0.03, 0.01, 0.5]])
    shares = np.stack([np.full(17, 60), np.full(17, 70)])
    apart = np.arange(17) == 9
    left, right = charts.two_runs(shares, apart, distances, ("a", "b"), COCO, 0.05, 1).axes
    colors = left.collections[0].get_colors()
    assert [index for index in range(17) if not colors[index, :3].any()] == [9]  # black
    assert [line.get_xdata().tolist() for line in left.lines] == [[60] * 17, [70] * 17]
    assert legend(left.get_legend()) == ["a", "b"]
    dots, _, ring = right.lines
    assert dots.get_xydata().tolist() == [[1, 3], [2, 1]] and ring.get_xydata().tolist() == [[2, 1]]
    assert "within 5 %" in left.get_xlabel() and right.get_ylabel() == "b (%)"


# ---- accuracy against cost


def against_cost(*rows, columns=("model", "source", "input", "multiply_adds", "accuracy")):
    (axes,) = charts.accuracy_against_cost(pd.DataFrame(rows, columns=columns), "AP").axes
    return axes


def test_networks_of_a_family_are_joined_and_a_source_has_a_colour():
    ours = [("rsn50", "paper", "256x192", 6, 74), ("2xrsn50", "paper", "256x192", 14, 77)]
    others = [("4xrsn50", "paper", "384x288", 65, 79), ("rsn50-mmpose", "MMPose", "256x192", 4, 72)]
    axes = against_cost(*ours, *others)
    assert sorted(line.get_xdata().tolist() for line in axes.lines) == [[4], [6, 14], [65]]
    assert [text.get_text() for text in axes.texts] == ["rsn50", "2x", "4xrsn50 384x288", "rsn50"]
    assert legend(axes.get_legend()) == ["paper", "MMPose"]
    assert axes.texts[0].get_color() == axes.texts[1].get_color() != axes.texts[3].get_color()
    assert axes.get_xscale() == "log" and axes.get_ylabel() == "AP (%)"
    assert axes.get_xlabel() == "multiply-adds of one person (G), input 256x192 where no other is named"


def test_labels_of_networks_alike_lie_apart_from_one_another_and_from_marks():
    spots = [(0.56, 58), (0.561, 58), (0.562, 58), (0.5, 62)]
    axes = against_cost(*((f"a-network-{number}", "this run", "64x64", *spot) for number, spot in enumerate(spots)))
    boxes = [text.get_window_extent() for text in axes.texts]
    assert all(box.count_overlaps(boxes) == 1 for box in boxes)  # itself
    assert not any(box.contains(*mark) for box in boxes for mark in axes.transData.transform(spots))


def test_our_accuracy_has_its_interval_and_without_networks_the_figure_is_empty():
    columns = ["model", "source", "input", "multiply_adds", "accuracy", "low", "high"]
    axes = against_cost(("rsn18", "this run", "64x64", 1, 50, 40, 60), columns=columns)
    assert axes.lines[0].get_xydata().tolist() == [[1, 50]]
    assert axes.collections[0].get_segments()[0].tolist() == [[1, 40], [1, 60]]
    assert axes.get_ylabel() == "AP (%), 95 % interval"
    axes = against_cost()
    assert not axes.lines and axes.get_xlabel() == "multiply-adds of one person (G), input of any size"


# ---- data that the stage gives to the figures


def test_runs_stand_beside_published_networks_of_the_same_data_alone(project):
    ours = figures_stage.costs("demo")
    assert ours["model"].tolist() == ["plain", "steps-prm"]
    assert set(ours["source"]) == {"this run"} and set(ours["input"]) == {"64x64"}
    for folder in ("work/crops", "work/models", "work/predictions", "results"):  # as if they were COCO's
        shutil.copytree(project / folder / "demo", project / folder / "coco")
    params = YAML(typ="safe").load(project / "params.yaml")
    params["datasets"]["coco"], params["run"]["datasets"] = (
        params["datasets"]["demo"],
        {"demo": "data/demo", "coco": "data/coco"},
    )
    YAML().dump(params, project / "params.yaml")
    costs = figures_stage.costs("coco")
    pd.testing.assert_frame_equal(costs[costs["source"] == "this run"].reset_index(drop=True), ours)
    others = costs[costs["source"] != "this run"].set_index(["model", "source"])
    assert others.loc[("rsn18", "MMPose"), "accuracy"] == 70.4
    np.testing.assert_allclose(others.loc["rsn18", "multiply_adds"], cost(RSN18)[1] / 1e9)


def test_curves_and_accuracies_are_those_of_the_runs(project):
    found = load_curves("demo")
    assert found.groupby(["model", "seed"]).size().tolist() == [3, 3]  # three batches of four
    assert found["val_AP"].notna().sum() == 2

    path = predictions_path("demo", "plain", 0)
    results, people = read_json(path), load_store("demo", "val").people
    truth = np.concatenate([people.keypoints, np.ones((6, 17, 1))], axis=2)
    truth[:3, 9, 0] += people.boxes[:3, 2:].max(axis=1)  # half of the left wrists are a box's side off
    write_json(path, [result | {"keypoints": points.ravel().tolist()} for result, points in zip(results, truth)])
    table = figures_stage.accuracy_by_keypoint("demo").query("model == 'plain'").set_index("keypoint")["accuracy"]
    right = 100 * (people.visible[3:, 9] > 0).sum() / (people.visible[:, 9] > 0).sum()
    assert table["left_wrist"] == pytest.approx(right) and table["nose"] == 100

    rows = figures_stage.best_and_worst("demo", "plain", 0, count=2)
    assert list(rows) == ["best", "median", "worst"] and all(len(people) == 2 for people in rows.values())
    crop, keypoints, _, predicted, title = rows["best"][0]
    assert title == "similarity 1.00" and crop.shape == (64, 64, 3)
    np.testing.assert_allclose(predicted, keypoints)
    assert rows["worst"][-1][4] < title
