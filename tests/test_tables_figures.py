"""What readers see: tables with published numbers beside ours, and figures."""

from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgb

from rsnlib import figures
from rsnlib.metrics.coco import FIGURES
from rsnlib.metrics.groups import person_groups
from rsnlib.runtime import UserError
from rsnlib.skeletons import COCO
from rsnlib.tables import base_model, caption, evaluation_table, figure_names, published, results_table, write_table

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


def test_a_way_gains_over_the_plainest_of_its_own_run():
    ways = [(True, "dark"), (False, "quarter"), (False, "dark"), (True, "quarter")]
    rows = [
        {"model": model, "seed": seed, "flip_test": flip_test, "decoding": decoding, "AP": ap, "AP75": ap / 2}
        for model, seed, best in (("rsn18", 0, 0.5), ("rsn18", 1, 0.6), ("res18", 0, 0.4))
        for (flip_test, decoding), ap in zip(ways, (best, best - 0.1, best - 0.05, best - 0.02))
    ]
    table = evaluation_table(pd.DataFrame(rows), "coco")
    assert list(table) == ["model", "seed", "flip test", "decoding", "AP", "AP gain", "AP75", "AP75 gain"]
    assert table["AP"].tolist()[4:8] == pytest.approx([60, 50, 55, 58])
    assert table["AP gain"].tolist() == pytest.approx([10, 0, 5, 8] * 3)
    assert table["AP75 gain"].tolist() == pytest.approx([5, 0, 2.5, 4] * 3)
    assert table["flip test"].tolist()[:2] == ["yes", "no"]


def test_pcks_mean_is_per_cent_already():
    rows = [("rsn18", 0, False, "quarter", 80.0), ("rsn18", 0, True, "quarter", 81.5)]
    columns = ["model", "seed", "flip_test", "decoding", "Mean"]
    table = evaluation_table(pd.DataFrame(rows, columns=columns), "mpii")
    assert table[["Mean", "Mean gain"]].to_numpy().tolist() == [[80, 0], [81.5, 1.5]]


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


def test_every_run_has_its_curve_however_many():
    curve = pd.DataFrame({"epoch": [1, 2], "loss": [3.0, 2], "learning_rate": [1e-3, 0], "val_AP": [0.1, 0.2]})
    loss, accuracy, _ = figures.training_curves({f"rsn18-{seed}": curve for seed in range(9)}, "AP").axes
    assert len(loss.lines) == len(accuracy.lines) == len(loss.get_legend().get_texts()) == 9


@pytest.mark.parametrize(("name", "unit"), [("AP", ""), ("Mean", "(%)")])
def test_curves_have_axes_and_a_legend(name, unit):
    curve = pd.DataFrame({"epoch": [1, 2, 3], "loss": [3.0, 2, 1], "learning_rate": [1e-3, 5e-4, 0]})
    curve[f"val_{name}"] = [np.nan, 0.2, 0.4]
    figure = figures.training_curves({"rsn18-0": curve, "res18-0": curve}, name)
    loss, accuracy, rate = figure.axes
    assert [axes.get_xlabel() for axes in figure.axes] == ["epoch"] * 3
    assert "loss" in loss.get_ylabel() and rate.get_ylabel() == "learning rate"
    assert f"validation {name}" in accuracy.get_ylabel() and unit in accuracy.get_ylabel()
    assert accuracy.lines[0].get_xdata().tolist() == [2, 3]  # where it was validated
    assert [text.get_text() for text in loss.get_legend().get_texts()] == ["rsn18-0", "res18-0"]
    assert loss.lines[0].get_color() != loss.lines[1].get_color()


def test_kinds_of_errors_are_stacked_to_the_whole():
    table = pd.DataFrame({"keypoint": ["nose", "left_eye"], "judged": [9, 0]})
    table[["good", "mirror swap", "miss"]] = [[0.5, 0.2, 0.3], [np.nan] * 3]
    figure = figures.error_kinds({f"rsn18-{seed}": table for seed in range(5)})
    shown = [axes for axes in figure.axes if axes.get_visible()]
    assert [axes.get_title() for axes in shown] == [f"rsn18-{seed}" for seed in range(5)]
    assert [label.get_text() for label in shown[0].get_yticklabels()] == ["nose", "left eye"]
    assert figure.get_supxlabel() == "share of labelled keypoints (%)"
    nose = shown[4].patches[::2]
    assert [bar.get_x() for bar in nose] == pytest.approx([0, 50, 70])
    assert nose[2].get_x() + nose[2].get_width() == pytest.approx(100)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["good", "mirror swap", "miss"]
    assert len({bar.get_facecolor() for bar in nose}) == 3


@pytest.mark.parametrize(("name", "unit"), [("AP", ""), ("Mean", " (%)")])
def test_gains_of_all_runs_stand_side_by_side(name, unit):
    gains = pd.DataFrame({"error": ["jitter", "miss"], "share": [0.1, 0.2], name: [0.5, 0.6], "gain": [0.1, 0.2]})
    figure = figures.repair_gains({"rsn18-0": gains, "res18-0": gains.assign(gain=[0.3, 0.05])}, name)
    (axes,) = figure.axes
    assert axes.get_xlabel() == f"gain in {name}{unit} if repaired"
    assert [label.get_text() for label in axes.get_yticklabels()] == ["jitter", "miss"]
    assert [[bar.get_width() for bar in bars] for bars in axes.containers] == [[0.1, 0.2], [0.3, 0.05]]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["rsn18-0", "res18-0"]


def test_every_grouping_has_its_words(make_people):
    grouped = person_groups(make_people(CROP, [[0, 0, 10, 10]], KEYPOINTS))
    assert set(figures.GROUPED_BY) == {"everyone", *grouped}


def test_groups_have_a_panel_each_way_of_grouping_and_say_how_many_they_are():
    groups = pd.DataFrame(
        [("everyone", "all", 400, 0.6), ("hidden", "none", 300, 0.7), ("hidden", "up to 25 %", 100, 0.4)],
        columns=["by", "group", "people", "AP"],
    )
    figure = figures.accuracy_by_group({"rsn18-0": groups, "res18-0": groups}, "AP")
    everyone, hidden = figure.axes
    assert [label.get_text() for label in hidden.get_yticklabels()] == ["none (300)", "up to 25 % (100)"]
    assert hidden.get_title(loc="left") == "share of labelled keypoints that are hidden"
    assert hidden.get_xlabel() == "AP; in brackets: people" and everyone.get_xlim() == hidden.get_xlim()
    assert [[bar.get_width() for bar in bars] for bars in hidden.containers] == [[0.7, 0.4], [0.7, 0.4]]
