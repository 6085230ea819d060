"""What readers see: tables with published numbers beside ours, and figures, with what is drawn in them."""

import shutil
from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgb
from ruamel.yaml import YAML

from rsnlib import figures, pipeline
from rsnlib.config import Architecture
from rsnlib.cost import cost
from rsnlib.metrics.coco import FIGURES
from rsnlib.predict import Insight
from rsnlib.runtime import UserError, read_json, write_json
from rsnlib.skeletons import COCO
from rsnlib.tables import base_model, caption, figure_names, published, results_table, write_table

# ---- tables


def coco_runs(*models, **changes):
    return pd.DataFrame([{"model": m, "seed": 0} | dict.fromkeys(FIGURES, 0.5) | changes for m in models])


@pytest.fixture
def settings(committed):
    return committed.dataset("coco")


def test_published_results_stand_beside_ours(settings):
    table = results_table(coco_runs("rsn18", AP=0.7031), "coco", settings)
    assert table["model"].unique().tolist() == ["rsn18"]
    by_source = table.set_index("source")["AP"]
    assert by_source["this run"] == pytest.approx(70.31)  # per cent
    assert by_source["paper"] == 73.6  # validation, not test-dev
    assert by_source["released RSN"] == 70.4
    assert by_source.index.is_unique
    assert table["seed"].tolist()[0] == 0 and table["seed"][1:].isna().all()


def test_an_ablation_stands_beside_what_it_varies(settings):
    table = results_table(coco_runs("rsn18-prm"), "coco", settings)
    assert table["model"].tolist()[0] == "rsn18-prm" and set(table["model"][1:]) == {"rsn18"}
    assert base_model("rsn50-mmpose") == "rsn50-mmpose"


def test_published_rows_say_what_they_were_measured_on(settings):
    table = results_table(coco_runs("rsn18"), "demo", replace(settings, input_size=(128, 96)))
    assert table[["data", "input"]].iloc[0].tolist() == ["demo", "128x96"]
    assert set(table["data"][1:]) == {"COCO val"}


def test_nobody_to_count_is_a_blank_cell(settings, tmp_path):
    table = results_table(coco_runs("rsn18", APM=-1.0, AP=0.0), "coco", settings)
    assert np.isnan(table["APM"][0])
    assert table["AP"][0] == 0
    write_table(table, tmp_path, "results", "A caption.")
    for suffix in ("md", "csv", "tex"):
        assert "-100" not in (tmp_path / f"results.{suffix}").read_text()


def test_lsp_has_no_published_rows_and_is_in_per_cent_already(committed):
    runs = pd.DataFrame([{"model": "rsn18", "seed": 3} | dict.fromkeys(figure_names("lspet"), 81.25)])
    table = results_table(runs, "lspet", committed.dataset("lspet"))
    assert len(table) == 1 and table["Mean"][0] == 81.25
    assert published("lspet") is None


def test_mpii_stands_beside_mpii(committed):
    runs = pd.DataFrame([{"model": "4xrsn50", "seed": 0} | dict.fromkeys(figure_names("mpii"), 90.0)])
    table = results_table(runs, "mpii", committed.dataset("mpii"))
    assert table.set_index("source")["Mean"].to_dict() == {"this run": 90.0, "paper": 91.6}


def test_runs_that_lack_figures_are_named(settings):
    with pytest.raises(UserError, match="coco: .*lack APM"):
        results_table(coco_runs("rsn18").drop(columns="APM"), "coco", settings)


@pytest.mark.shared
@pytest.mark.parametrize("name", ["published", "published_mpii"])
def test_published_numbers_are_those_given(shared, name):
    given = pd.read_csv(shared / f"paper/{name}.csv")
    ours = published("mpii" if name.endswith("mpii") else "coco")
    assert len(ours) == len(given)
    numbers = ours.select_dtypes("number").columns.intersection(given.columns)
    assert len(numbers) >= 8
    pd.testing.assert_frame_equal(ours[numbers], given[numbers])


def test_a_table_is_written_as_markdown_csv_and_latex(settings, tmp_path):
    table = results_table(coco_runs("rsn18_wide", "rsn18", AP=0.70316), "coco", settings)
    write_table(table, tmp_path / "tables", "results", "Validation, 100 %.")
    folder = tmp_path / "tables"
    assert sorted(path.name for path in folder.iterdir()) == ["results.csv", "results.md", "results.tex"]

    written = pd.read_csv(folder / "results.csv")
    assert written["AP"][0] == 70.316 and written["model"].tolist() == table["model"].tolist()
    markdown = (folder / "results.md").read_text().splitlines()
    assert markdown[0].split("|")[1].strip() == "model"
    assert "70.3" in markdown[2] and "nan" not in "".join(markdown).lower()
    assert markdown[-1] == "Validation, 100 %."
    latex = (folder / "results.tex").read_text()
    assert all(rule in latex for rule in (r"\toprule", r"\midrule", r"\bottomrule"))
    assert r"rsn18\_wide" in latex and r"100 \%" in latex and "nan" not in latex.lower()


def test_a_caption_is_escaped_for_latex(settings, tmp_path):
    text = caption("my_people", settings, 400, "one CPU")
    write_table(results_table(coco_runs("rsn18"), "my_people", settings), tmp_path, "results", text)
    assert r"my\_people, 400" in (tmp_path / "results.tex").read_text()


def test_the_caption_warns_of_drawn_people(committed, settings):
    drawn, real = (caption(name, settings, 400, "one CPU") for name in ("demo", "coco"))
    assert "400 validation people" in real and "one CPU" in real and "object keypoint similarity" in real
    assert "say nothing about COCO" in drawn and "say nothing" not in real
    assert "correct keypoints" in caption("mpii", committed.dataset("mpii"), 1, "")


# ---- figures

CROP = np.full((64, 48, 3), 120, np.uint8)
KEYPOINTS = np.random.default_rng(0).uniform(0, 48, (17, 2))


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def colors_at(axes, point):
    """The edge colours of the keypoint markers drawn at a point."""
    markers = [c for c in axes.collections if len(c.get_offsets()) and not hasattr(c, "get_segments")]
    return [
        tuple(color[:3])
        for marker in markers
        for offset, color in zip(marker.get_offsets(), marker.get_edgecolors())
        if np.allclose(offset, point)
    ]


def test_left_and_right_have_their_colours():
    _, axes = plt.subplots()
    figures.draw_skeleton(axes, KEYPOINTS, np.full(17, 2), COCO)
    left, right, nose = (KEYPOINTS[COCO.keypoints.index(name)] for name in ("left_wrist", "right_wrist", "nose"))
    assert colors_at(axes, left) == [to_rgb(figures.SIDES["left"])]
    assert colors_at(axes, right) == [to_rgb(figures.SIDES["right"])]
    assert len({*colors_at(axes, left), *colors_at(axes, right), *colors_at(axes, nose)}) == 3


def test_hidden_keypoints_are_rings_and_unlabelled_ones_not_drawn():
    _, axes = plt.subplots()
    visible = np.zeros(17, int)
    visible[[5, 7]] = 2, 1  # shoulder, elbow
    figures.draw_skeleton(axes, KEYPOINTS, visible, COCO)
    *limbs, filled, rings = axes.collections
    assert filled.get_offsets().tolist() == [KEYPOINTS[5].tolist()] and len(filled.get_facecolors()) == 1
    assert rings.get_offsets().tolist() == [KEYPOINTS[7].tolist()] and len(rings.get_facecolors()) == 0
    assert [len(limb.get_segments()) for limb in limbs] == [1, 1]  # the upper arm and its shade


def test_a_grid_has_one_picture_a_person():
    titles = [f"{i}" for i in range(10)]
    figure = figures.people_grid([CROP] * 10, [KEYPOINTS] * 10, np.full((10, 17), 2), COCO, titles)
    shown = [axes for axes in figure.axes if axes.get_visible()]
    assert [axes.get_title() for axes in shown] == titles
    assert all(len(axes.images) == 1 for axes in shown)


def test_poses_lie_in_the_pixels_of_their_picture():
    picture = np.zeros((300, 400, 3), np.uint8)
    seen = picture, [KEYPOINTS, KEYPOINTS + 100], [[0, 0, 50, 50]] * 2
    figure = figures.poses_in_pictures([seen] * 3, COCO, "rsn18-0")
    assert figure.get_suptitle() == "rsn18-0"
    assert [axes.get_visible() for axes in figure.axes] == [True, True, True, False]
    axes = figure.axes[2]
    assert axes.get_xlim() == (-0.5, 399.5) and axes.get_ylim() == (299.5, -0.5)
    assert len(axes.patches) == 2
    assert colors_at(axes, KEYPOINTS[5] + 100) == [to_rgb(figures.SIDES["left"])]


def test_heatmaps_of_every_head_are_shown_on_one_scale():
    heads = np.random.default_rng(0).uniform(0, 255, (2, 4, 17, 16, 12))
    figure = figures.heatmaps_by_head(CROP, heads, 3, "left ear")
    *grid, colorbar = figure.axes
    assert len(grid) == 2 * 5
    assert colorbar.get_ylabel() == "heatmap (255 is certain)"
    assert [axes.get_title() for axes in grid[:5]] == ["left ear", "coarsest", "coarse", "fine", "finest"]
    np.testing.assert_array_equal(grid[9].images[-1].get_array(), heads[1, 3, 3])
    assert {axes.images[-1].get_clim() for axes in grid if len(axes.images) == 2} == {(0, 255)}


def test_every_keypoint_has_its_heatmap():
    heatmaps = np.random.default_rng(0).uniform(0, 255, (17, 16, 12))
    figure = figures.heatmaps_by_keypoint(CROP, heatmaps, COCO)
    shown = [axes for axes in figure.axes if axes.get_visible()]
    assert [axes.get_title() for axes in shown] == [name.replace("_", " ") for name in COCO.keypoints]
    np.testing.assert_array_equal(shown[9].images[-1].get_array(), heatmaps[9])


def test_visibility_is_stacked():
    summary = pd.DataFrame({"keypoint": ["nose", "left_eye"], "visible": [7, 3], "hidden": [1, 2]})
    (axes,) = figures.keypoint_visibility(summary).axes
    assert axes.get_xlabel() == "people"
    assert [label.get_text() for label in axes.get_yticklabels()] == ["nose", "left eye"]
    ends = [bar.get_x() + bar.get_width() for bar in axes.patches]
    assert ends == [7, 3, 8, 5]


def test_box_sizes_are_shares_of_each_split(make_people):
    splits = {
        "train": make_people(CROP, [[0, 0, 10, height] for height in range(20, 60)], (0, 0)),
        "val": make_people(CROP, [[0, 0, 10, 30]], (0, 0)),
    }
    (axes,) = figures.box_sizes(splits).axes
    assert axes.get_xlabel() == "box height (pixels)" and axes.get_ylabel() == "share of people (%)"
    assert {text.get_text() for text in axes.get_legend().get_texts()} == {"train", "val"}
    assert max(axes.get_ylim()) >= 100  # the only validation person


def curves(models, seeds=1, figure="AP"):
    curve = pd.DataFrame({"epoch": [1, 2, 3], "loss": [3.0, 2, 1], "learning_rate": [1e-3, 5e-4, 0]})
    curve[f"val_{figure}"] = [np.nan, 0.2, 0.4]
    runs = [(model, seed) for model in models for seed in range(seeds)]
    return pd.concat([curve.assign(model=model, seed=seed, loss=curve["loss"] + seed) for model, seed in runs])


def test_every_model_has_its_curve_however_many():
    loss, accuracy, _ = figures.training_curves(curves([f"rsn18-{letter}" for letter in "abcdefghi"]), "AP").axes
    shown = [len([line for line in axes.lines if len(line.get_xdata())]) for axes in (loss, accuracy)]
    assert shown == [9, 9] and len(loss.get_legend().get_texts()) == 9


@pytest.mark.parametrize(("name", "unit"), [("AP", ""), ("Mean", "(%)")])
def test_curves_have_axes_and_a_legend(name, unit):
    figure = figures.training_curves(curves(["rsn18", "res18"], figure=name), name)
    loss, accuracy, rate = figure.axes
    assert [axes.get_xlabel() for axes in figure.axes] == ["epoch"] * 3
    assert "loss" in loss.get_ylabel() and rate.get_ylabel() == "learning rate"
    assert f"validation {name}" in accuracy.get_ylabel() and unit in accuracy.get_ylabel()
    assert accuracy.lines[0].get_xdata().tolist() == [2, 3]  # where it was validated
    assert [text.get_text() for text in loss.get_legend().get_texts()] == ["rsn18", "res18"]
    assert loss.lines[0].get_color() != loss.lines[1].get_color()


def test_seeds_are_a_mean_in_a_band_from_the_lowest_to_the_highest():
    loss, _, _ = figures.training_curves(curves(["rsn18"], seeds=3), "AP").axes
    assert loss.lines[0].get_ydata().tolist() == [4, 3, 2]
    (band,) = loss.collections
    box = band.get_paths()[0].get_extents()
    assert (box.y0, box.y1) == (1, 5)
    assert "3 seeds" in loss.get_legend().get_title().get_text()


def test_attention_is_a_bar_and_a_map_a_keypoint():
    channel, position = np.linspace(0, 1, 17), np.random.default_rng(0).uniform(size=(17, 16, 12))
    bars, *maps, colorbar = [axes for axes in figures.attention(CROP, channel, position, COCO, "rsn18").axes]
    assert [bar.get_width() for bar in bars.patches] == channel.tolist() and bars.get_xlabel() == "channel weight"
    assert len({bar.get_facecolor() for bar in bars.patches[:3]}) == 3  # middle, left and right
    shown = [axes for axes in maps if axes.get_visible()]
    assert [axes.get_title() for axes in shown] == [name.replace("_", " ") for name in COCO.keypoints]
    np.testing.assert_array_equal(shown[3].images[-1].get_array(), position[3])
    assert colorbar.get_ylabel() == "position weight" and shown[3].images[-1].get_clim() == (0, 1)


def test_effective_fields_lie_in_their_squares():
    gradients = np.random.default_rng(0).uniform(size=(2, 25, 25))
    fields = {"bottleneck": (gradients[:1], [[3]]), "residual steps": (gradients, [[3], [5, 7]])}
    grid = figures.effective_fields(fields).axes
    assert [axes.get_visible() for axes in grid[:4]] == [True, False, True, True]
    assert [grid[place].get_title() for place in (0, 2, 3)] == ["3", "branch 1\n3", "branch 2\n5, 7"]
    np.testing.assert_array_equal(grid[3].images[0].get_array(), gradients[1])
    (square,) = grid[3].patches
    assert (square.get_x(), square.get_width()) == (-3.5, 7)
    assert {axes.get_xlim() for axes in grid[:4]} == {(-4.5, 4.5)}  # all on one scale


def test_networks_of_a_family_are_joined_and_a_source_has_a_colour():
    rows = [("rsn50", "paper", "256x192", 6, 74), ("2xrsn50", "paper", "256x192", 14, 77)]
    rows += [("4xrsn50", "paper", "384x288", 65, 79), ("rsn50-mmpose", "MMPose", "256x192", 4, 72)]
    table = pd.DataFrame(rows, columns=["model", "source", "input", "multiply_adds", "accuracy"])
    (axes,) = figures.accuracy_against_cost(table, "AP").axes
    assert sorted(line.get_xdata().tolist() for line in axes.lines) == [[4], [6, 14], [65]]
    assert [text.get_text() for text in axes.texts] == ["rsn50", "2xrsn50", "4xrsn50 384x288", "rsn50"]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["paper", "MMPose"]
    assert axes.texts[0].get_color() == axes.texts[1].get_color() != axes.texts[3].get_color()
    assert axes.get_xscale() == "log" and "multiply-adds" in axes.get_xlabel() and axes.get_ylabel() == "AP (%)"


def test_seeds_are_one_mark_with_their_range():
    rows = [("rsn18", "this run", "64x64", 1, accuracy) for accuracy in (40, 50, 60)]
    table = pd.DataFrame(rows, columns=["model", "source", "input", "multiply_adds", "accuracy"])
    (axes,) = figures.accuracy_against_cost(table, "AP").axes
    assert axes.lines[0].get_xydata().tolist() == [[1, 50]]
    assert axes.collections[0].get_segments()[0].tolist() == [[1, 40], [1, 60]]


def test_predictions_stand_beside_the_truth():
    person = CROP, KEYPOINTS, np.where(np.arange(17) < 10, 2, 0), KEYPOINTS + 3, "similarity 0.90"
    figure = figures.predictions({"best": [person] * 3, "worst": [person]}, COCO)
    shown = [axes for axes in figure.axes if axes.get_visible()]
    assert [axes.get_title() for axes in shown] == ["truth", "similarity 0.90"] * 4
    assert [axes.get_ylabel() for axes in shown if axes.get_ylabel()] == ["best", "worst"]
    assert colors_at(shown[0], KEYPOINTS[5]) and colors_at(shown[1], KEYPOINTS[5] + 3)
    assert not colors_at(shown[1], KEYPOINTS[12] + 3)  # nothing to compare it with


@pytest.mark.parametrize("models", [["rsn18", "res18"], ["rsn18"]])
def test_accuracy_by_keypoint_has_a_mark_a_model_and_keypoint(models):
    rows = [(m, s, k, 50 + 10 * s) for m in models for s in (0, 1) for k in COCO.keypoints]
    table = pd.DataFrame(rows, columns=["model", "seed", "keypoint", "accuracy"])
    (axes,) = figures.keypoint_accuracy(table, COCO, "right (%)").axes
    assert [label.get_text() for label in axes.get_yticklabels()][:2] == ["nose", "left eye"]
    marks = [line for line in axes.lines if line.get_marker() not in ("", "None", None)]
    assert [len(line.get_xdata()) for line in marks if len(line.get_xdata())] == [17] * len(models)
    assert marks[0].get_xdata().tolist() == [55] * 17
    assert [text.get_text() for text in axes.get_legend().get_texts()] == models


@pytest.fixture
def seen():
    """An Insight of two stages, with a Pose Refine Machine in the last head."""
    random = np.random.default_rng(0)
    attention = {(1, 3): (np.linspace(0, 1, 17), random.uniform(size=(17, 16, 12)))}
    heads, keypoints = random.uniform(0, 255, (2, 4, 17, 16, 12)), random.uniform(0, 48, (2, 4, 17, 2))
    return Insight(CROP, np.eye(2, 3), heads, keypoints, heads.max(axis=(3, 4)) / 255 + 0.5, attention)


def test_an_insight_shows_the_head_and_keypoint_asked_for(seen):
    pose, heat = figures.insight(seen, 0, 2, 5, KEYPOINTS, np.full(17, 2), COCO, "rsn18-0").axes
    assert pose.get_title() == "stage 1, fine head" and heat.get_title().startswith("left shoulder, score 1.")
    np.testing.assert_array_equal(heat.images[-1].get_array(), seen.heads[0, 2, 5])
    assert colors_at(pose, seen.keypoints[0, 2, 7])
    marks = [tuple(mark.get_offsets()[0]) for mark in heat.collections]
    assert marks == [tuple(seen.keypoints[0, 2, 5])] * 2 + [tuple(KEYPOINTS[5])] * 2


def test_an_insight_shows_attention_where_the_head_has_it_and_no_truth_where_there_is_none(seen):
    _, heat, weights = figures.insight(seen, 1, 3, 5, KEYPOINTS, np.zeros(17), COCO, "rsn18-0").axes
    np.testing.assert_array_equal(weights.images[-1].get_array(), seen.attention[1, 3][1][5])
    assert weights.get_title() == "position weight, channel 0.31"
    assert len(heat.collections) == 2


def test_two_runs_are_two_marks_a_keypoint_and_a_dot_a_person():
    distances = np.array([[0.01, 0.02, np.inf], [0.03, 0.01, 0.5]])
    figure = figures.two_runs(np.stack([np.full(17, 60), np.full(17, 70)]), distances, ("a", "b"), COCO, 0.05, 1)
    left, right = figure.axes
    assert [line.get_xdata().tolist() for line in left.lines] == [[60] * 17, [70] * 17]
    assert [text.get_text() for text in left.get_legend().get_texts()] == ["a", "b"]
    dots, _, ring = right.lines
    assert dots.get_xydata().tolist() == [[1, 3], [2, 1]] and ring.get_xydata().tolist() == [[2, 1]]
    assert "within 5 %" in left.get_xlabel() and right.get_ylabel() == "b (%)"


# ---- what pipeline gives the figures


@pytest.fixture
def published_project(project):
    """`project` with data and runs as if they were COCO's, and two models of the paper."""
    for folder in ("work/crops", "work/models", "work/predictions", "results"):
        shutil.copytree(project / folder / "demo", project / folder / "coco")
    params = YAML(typ="safe").load(project / "params.yaml")
    params["datasets"]["coco"] = params["datasets"]["demo"]
    params["run"]["datasets"] = ["demo", "coco"]
    params["models"] |= {"rsn18": {"block": "residual_steps"}, "res18": {"block": "bottleneck"}}
    YAML().dump(params, project / "params.yaml")
    return project


def test_runs_stand_beside_published_networks_of_the_same_data_alone(published_project):
    ours, all_of_coco = pipeline.costs("demo"), pipeline.costs("coco")
    assert ours[["model", "source", "input"]].values.tolist() == [
        ["plain", "this run", "64x64"],
        ["steps-prm", "this run", "64x64"],
    ]
    pd.testing.assert_frame_equal(all_of_coco[all_of_coco["source"] == "this run"].reset_index(drop=True), ours)
    published_ones = all_of_coco[all_of_coco["source"] != "this run"].set_index(["model", "source"])
    assert set(published_ones.index.get_level_values("model")) == {"rsn18", "res18"}
    assert published_ones.loc[("rsn18", "MMPose"), "accuracy"] == 70.4
    np.testing.assert_allclose(published_ones.loc["rsn18", "multiply_adds"], cost(Architecture())[1] / 1e9)


def test_every_seed_has_its_curve(project):
    curves = pipeline.load_curves("demo")
    assert curves.groupby(["model", "seed"]).size().tolist() == [3, 3]  # three batches of four
    assert curves["val_AP"].notna().sum() == 2


def test_accuracy_by_keypoint_is_that_of_the_predictions(project):
    path = pipeline.predictions_path("demo", "plain", 0)
    results, people = read_json(path), pipeline.load_store("demo", "val").people
    truth = np.concatenate([people.keypoints, np.ones((6, 17, 1))], axis=2)
    truth[:3, 9, 0] += people.boxes[:3, 2:].max(axis=1)  # half of the left wrists are a box's side off
    write_json(path, [result | {"keypoints": points.ravel().tolist()} for result, points in zip(results, truth)])
    table = pipeline.accuracy_by_keypoint("demo").query("model == 'plain'").set_index("keypoint")["accuracy"]
    right = 100 * (people.visible[3:, 9] > 0).sum() / (people.visible[:, 9] > 0).sum()
    assert table["left_wrist"] == pytest.approx(right) and table["nose"] == 100

    rows = pipeline.best_and_worst("demo", "plain", 0, count=2)
    assert list(rows) == ["best", "median", "worst"] and all(len(people) == 2 for people in rows.values())
    crop, keypoints, _, predicted, title = rows["best"][0]
    assert title == "similarity 1.00" and crop.shape == (64, 64, 3)
    np.testing.assert_allclose(predicted, keypoints)
    assert rows["worst"][-1][4] < title
