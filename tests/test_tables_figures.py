"""What readers see: tables with published numbers beside ours, and figures, with what is drawn in them."""

import re
import shutil
import subprocess

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgb
from ruamel.yaml import YAML

from rsnlib.config import Architecture
from rsnlib.data.skeletons import COCO
from rsnlib.errors import UserError
from rsnlib.files import read_json, write_json
from rsnlib.inference.predict import Insight
from rsnlib.metrics.coco import FIGURES
from rsnlib.metrics.groups import person_groups
from rsnlib.report import charts, drawing, heatmaps
from rsnlib.report.cost import cost
from rsnlib.report.tables import (
    ablation_caption,
    ablation_table,
    base_model,
    differences,
    evaluation_table,
    figure_names,
    origin,
    published,
    results_caption,
    results_table,
    server_table,
    write_table,
)
from rsnlib.stages import figures as figures_stage
from rsnlib.stages import layout

# ---- tables


def coco_runs(*models, **changes):
    return pd.DataFrame(
        [{"model": m, "seed": 0, "input": "256x192"} | dict.fromkeys(FIGURES, 0.5) | changes for m in models]
    )


def draws_of(runs, figure="AP", spread=0.05):
    """Draws of each run: 1,001 evenly within `spread` of its figure, in the same order for all."""
    around = np.linspace(-spread, spread, 1001)
    return {model: rows[figure].to_numpy()[:, None] + around for model, rows in runs.groupby("model")}


def table_of(runs, settings, dataset="coco", **changes):
    return results_table(runs, draws_of(runs, **changes), dataset, settings)


@pytest.fixture
def settings(committed):
    return committed.dataset("coco")


def test_published_results_stand_beside_ours(settings):
    table = table_of(coco_runs("rsn18", AP=0.7031), settings)
    assert table["model"].unique().tolist() == ["rsn18"]
    by_source = table.set_index("source")["AP"]
    assert by_source["this run"] == pytest.approx(70.31)  # per cent
    assert by_source["paper"] == 73.6  # validation, not test-dev
    assert by_source["released RSN"] == 70.4
    assert by_source.index.is_unique
    assert table["seeds"].tolist()[0] == 1 and table["seeds"][1:].isna().all()


def test_of_one_seed_the_interval_is_of_the_draws(settings):
    table = table_of(coco_runs("rsn18", AP=0.7), settings)
    assert table[["AP low", "AP high"]].iloc[0].tolist() == pytest.approx([65.25, 74.75])
    assert table[["AP low", "AP high"]][1:].isna().all(axis=None)


def test_seeds_are_one_row_their_mean(settings):
    runs = pd.concat([coco_runs("res18", AP=0.9), coco_runs("rsn18", AP=0.6), coco_runs("rsn18", AP=0.7, AR=0.9)])
    table = table_of(runs, settings).set_index(["model", "source"]).loc[[("res18", "this run"), ("rsn18", "this run")]]
    assert table["seeds"].tolist() == [1, 2]
    assert table["AP"].tolist() == pytest.approx([90, 65]) and table["AR"].tolist() == pytest.approx([50, 70])
    half = 12.7062 * 5  # Student's t with one degree of freedom, times the standard error
    assert table[["AP low", "AP high"]].iloc[1].tolist() == pytest.approx([65 - half, 65 + half], abs=1e-3)


def test_an_ablation_stands_beside_what_it_varies(settings):
    table = table_of(coco_runs("rsn18-prm"), settings)
    assert table["model"].tolist()[0] == "rsn18-prm" and set(table["model"][1:]) == {"rsn18"}
    assert base_model("rsn50-mmpose") == "rsn50-mmpose"


def test_published_rows_say_what_they_were_measured_on(settings):
    table = table_of(coco_runs("rsn18", input="128x96"), settings, "demo")
    assert table[["data", "input"]].iloc[0].tolist() == ["demo", "128x96"]
    assert set(table["data"][1:]) == {"COCO val"}


def test_nobody_to_count_is_a_blank_cell(settings, tmp_path):
    table = table_of(coco_runs("rsn18", APM=-1.0, AP=0.0), settings)
    assert np.isnan(table["APM"][0])
    assert table["AP"][0] == 0
    write_table(table, tmp_path, "results", "A caption.")
    for suffix in ("md", "csv", "tex"):
        assert "-100" not in (tmp_path / f"results.{suffix}").read_text()


@pytest.mark.parametrize("name", ["lsp", "lspet"])
def test_lsp_has_no_published_rows_and_is_in_per_cent_already(committed, name):
    runs = pd.DataFrame([{"model": "rsn18", "seed": 3, "input": "256x192"} | dict.fromkeys(figure_names(name), 81.25)])
    table = table_of(runs, committed.dataset(name), name, figure="Mean", spread=2)
    assert len(table) == 1 and table["Mean"][0] == 81.25 and table["Mean high"][0] == pytest.approx(83.15)
    assert published(name) is None and server_table(name, committed.dataset(name)) is None


def test_mpii_stands_beside_mpii(committed):
    runs = pd.DataFrame(
        [{"model": "4xrsn50", "seed": 0, "input": "256x256"} | dict.fromkeys(figure_names("mpii"), 90.0)]
    )
    table = table_of(runs, committed.dataset("mpii"), "mpii", figure="Mean")
    assert table.set_index("source")["Mean"].to_dict() == {"this run": 90.0, "paper": 91.6}


def test_runs_that_lack_figures_are_named(settings):
    with pytest.raises(UserError, match="coco: .*lack APM"):
        table_of(coco_runs("rsn18").drop(columns="APM"), settings)


COSTS = {"rsn18": (9.2e6, 2.25e9), "res18": (8.6e6, 2.07e9), "rsn18-prm": (9.2e6, 2.26e9)}


def compared(settings, **precision):
    """The ablation table of models of these average precisions, whose draws rise and fall together."""
    runs = pd.concat([coco_runs(name.replace("_", "-"), AP=figure) for name, figure in precision.items()])
    return ablation_table(runs, draws_of(runs), list(runs["model"]), COSTS, settings)


def test_an_ablation_is_compared_with_its_reference(settings):
    table = compared(settings, rsn18=0.7, res18=0.69, rsn18_prm=0.7001).set_index("model")
    assert table["verdict"].to_dict() == {"rsn18": "reference", "res18": "lower", "rsn18-prm": "higher"}
    assert table["AP high"]["res18"] > table["AP low"]["rsn18"]  # the intervals of the figures overlap
    assert table.loc["res18", ["difference", "difference low", "difference high"]].tolist() == pytest.approx([-1] * 3)
    assert np.isnan(table["difference"]["rsn18"])
    assert table.loc["res18", ["parameters (M)", "multiply-adds (G)"]].tolist() == [8.6, 2.07]
    assert table["paper"]["res18"] == 70.7 and np.isnan(table["paper"]["rsn18-prm"])  # what was published of it alone


def test_a_difference_within_its_interval_is_none(settings):
    runs = coco_runs("rsn18", "rsn18-prm")
    draws = draws_of(runs)
    draws["rsn18-prm"] = draws["rsn18-prm"][:, ::-1] + 0.02
    table = ablation_table(runs, draws, ["rsn18", "rsn18-prm"], COSTS, settings)
    assert table["difference low"][1] < 0 < table["difference high"][1]
    assert table["verdict"][1] == "no difference shown"
    said = differences({"attention": table}, "coco", "coco", 1)
    assert said.startswith("- attention: between rsn18-prm and rsn18 no difference is shown (+0.0 AP [-7.5, 11.5]).\n")


def test_what_tables_say_is_said_in_words(settings):
    table = compared(settings, rsn18=0.7, res18=0.69, rsn18_prm=0.72)
    said = differences({"block": table}, "coco", "coco", 1)
    assert "- block: res18 scores lower than rsn18 (-1.0 AP [-1.0, -1.0]); rsn18-prm scores higher" in said
    assert "single trainings" in said and "single trainings" not in differences({"a": table}, "coco", "coco", 3)
    assert "say nothing about COCO" in differences({"block": table}, "demo", "coco", 1)
    assert "No group" in differences({}, "coco", "coco", 1)


def test_what_was_published_of_test_people_is_in_the_papers_layout(committed):
    table = server_table("coco", committed.dataset("coco"))
    assert set(table["split"]) == {"test-dev", "test-challenge"}
    assert table.columns[-6:].tolist() == ["AP", "AP50", "AP75", "APM", "APL", "AR"]
    assert table[table["input"] == "384x288"]["AP"].tolist() == [78.6]
    assert server_table("mpii", committed.dataset("mpii"))["Mean"].tolist() == [93.0, 92.6]
    assert server_table("demo", committed.dataset("demo")) is None


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
    table = table_of(coco_runs("rsn18_wide", "rsn18", AP=0.70316), settings)
    returned = write_table(table, tmp_path / "tables", "results", "Validation, 100 %.")
    folder = tmp_path / "tables"
    assert sorted(path.name for path in folder.iterdir()) == ["results.csv", "results.md", "results.tex"]

    written = pd.read_csv(folder / "results.csv")
    assert written["AP"][0] == 70.316 and written["model"].tolist() == table["model"].tolist()
    assert written.loc[0, ["AP low", "AP high"]].tolist() == [65.566, 75.066]
    markdown = (folder / "results.md").read_text()
    assert markdown == returned
    first, _, ours, *_, last = markdown.splitlines()
    assert [cell.strip() for cell in first.split("|")[1:7]] == ["model", "source", "seeds", "data", "input", "AP"]
    assert "| 70.3 [65.6, 75.1] |" in ours and "| 73.6 |" in re.sub(" +", " ", markdown)
    assert "nan" not in markdown.lower() and last == "Validation, 100 %."


NASTY = "50 % & more: a_b < c > d ~ e^f #1 {g} $h$ back\\slash `code` |pipe|"


@pytest.fixture
def latex_folder(settings, tmp_path):
    """Every kind of table, one with everything that LaTeX takes for its own."""
    write_table(table_of(coco_runs("rsn18_wide", "rsn18"), settings), tmp_path, "results", NASTY)
    ablation = compared(settings, rsn18=0.7, res18=0.69)
    write_table(ablation, tmp_path, "ablation", "Caption.", formats={"difference": "{:+.1f}"})
    write_table(pd.DataFrame({NASTY: [NASTY], "AP": [1.0]}), tmp_path, "nasty", "Caption.")
    return tmp_path


def test_latex_is_escaped_and_balanced_and_has_booktabs_rules(latex_folder):
    for name in ("results", "ablation", "nasty"):
        latex = (latex_folder / f"{name}.tex").read_text()
        bare = re.sub(r"\\[%&_#${}]", "", latex)
        assert bare.count("{") == bare.count("}") and not set("~^<#$`") & set(bare)
        assert re.findall(r"\\begin\{(\w+)", latex) == re.findall(r"\\end\{(\w+)", latex)[::-1] == ["table", "tabular"]
        rules = re.findall(r"\\(top|mid|bottom)rule", latex)
        assert rules == ["top", "mid", "bottom"] and "nan" not in latex.lower()
        (columns,) = re.findall(r"\\begin\{tabular\}\{([lr]+)\}", latex)
        body = latex[latex.index("toprule") : latex.index("bottomrule")]
        rows = [line for line in body.splitlines() if line.endswith(r"\\")]
        assert len(rows) >= 2 and {len(re.findall(r"(?<!\\)&", row)) + 1 for row in rows} == {len(columns)}
    assert r"+0.0" not in latex and r"rsn18\_wide" in (latex_folder / "results.tex").read_text()
    assert (
        r"res18 & 256x192 & 8.6 & 2.1 & 69.0 [64.2, 73.8] & -1.0 [-1.0, -1.0] & lower"
        in (latex_folder / "ablation.tex").read_text()
    )


def test_latex_compiles(latex_folder):
    if not shutil.which("pdflatex") or not shutil.which("kpsewhich"):
        pytest.skip("no pdflatex here: LaTeX is only checked for its structure")
    if subprocess.run(["kpsewhich", "booktabs.sty", "graphicx.sty"], capture_output=True).returncode:
        pytest.skip("pdflatex here lacks booktabs or graphicx: LaTeX is only checked for its structure")
    inputs = "".join(f"\\input{{{name}}}" for name in ("results", "ablation", "nasty"))
    document = rf"\documentclass{{article}}\usepackage{{booktabs,graphicx}}\begin{{document}}{inputs}\end{{document}}"
    (latex_folder / "all.tex").write_text(document)
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "all.tex"]
    done = subprocess.run(command, cwd=latex_folder, capture_output=True, text=True, errors="replace")
    assert done.returncode == 0, done.stdout
    assert (latex_folder / "all.pdf").stat().st_size and "Overfull \\hbox" not in done.stdout


MADE = {
    "people": {"train": 2000, "val": 400},
    "iterations": 1000,
    "batch_size": 16,
    "machine": "one CPU",
    "fingerprints": {"parameters": "1a2b", "data": "3c4d"},
}


def test_a_caption_says_what_its_numbers_were_made_of():
    drawn, real = (origin(name, **MADE) for name in ("demo", "coco"))
    assert real.startswith("coco, 2,000 people to train on, 400 to validate on in true boxes;")
    assert "1,000 iterations of 16 people (8 epochs) on one CPU; fingerprints: parameters 1a2b, data 3c4d." in real
    assert "say nothing about COCO" in drawn and "say nothing" not in real
    assert "in a detector's boxes" in origin("coco", **MADE, detected=True)


def test_a_caption_says_which_interval_it_is(committed):
    coco, lspet = committed.dataset("coco"), committed.dataset("lspet")
    for caption in (results_caption, ablation_caption):
        one, several, other = caption(coco, 1, "made"), caption(coco, 3, "made"), caption(lspet, 1, "made")
        assert "one seed" in one and "interval over people (bootstrap, 1,000 draws)" in one
        assert "means over 3 seeds" in several and "interval over seeds (Student's t)" in several
        assert "object keypoint similarity" in one and "Correct keypoints" in other
    assert "Other rows" in results_caption(coco, 1, "made") and "Other rows" not in results_caption(lspet, 1, "made")
    assert "as published, on COCO val" in ablation_caption(coco, 1, "made")
    assert "as published" not in ablation_caption(lspet, 1, "made")


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
    drawing.draw_skeleton(axes, KEYPOINTS, np.full(17, 2), COCO)
    left, right, nose = (KEYPOINTS[COCO.keypoints.index(name)] for name in ("left_wrist", "right_wrist", "nose"))
    assert colors_at(axes, left) == [to_rgb(drawing.SIDES["left"])]
    assert colors_at(axes, right) == [to_rgb(drawing.SIDES["right"])]
    assert len({*colors_at(axes, left), *colors_at(axes, right), *colors_at(axes, nose)}) == 3


def test_hidden_keypoints_are_rings_and_unlabelled_ones_not_drawn():
    _, axes = plt.subplots()
    visible = np.zeros(17, int)
    visible[[5, 7]] = 2, 1  # shoulder, elbow
    drawing.draw_skeleton(axes, KEYPOINTS, visible, COCO)
    *limbs, filled, rings = axes.collections
    assert filled.get_offsets().tolist() == [KEYPOINTS[5].tolist()] and len(filled.get_facecolors()) == 1
    assert rings.get_offsets().tolist() == [KEYPOINTS[7].tolist()] and len(rings.get_facecolors()) == 0
    assert [len(limb.get_segments()) for limb in limbs] == [1, 1]  # the upper arm and its shade


def test_a_grid_has_one_picture_a_person():
    titles = [f"{i}" for i in range(10)]
    figure = drawing.people_grid([CROP] * 10, [KEYPOINTS] * 10, np.full((10, 17), 2), COCO, titles)
    shown = [axes for axes in figure.axes if axes.get_visible()]
    assert [axes.get_title() for axes in shown] == titles
    assert all(len(axes.images) == 1 for axes in shown)


def test_poses_lie_in_the_pixels_of_their_picture():
    picture = np.zeros((300, 400, 3), np.uint8)
    seen = picture, [KEYPOINTS, KEYPOINTS + 100], [[0, 0, 50, 50]] * 2
    figure = drawing.poses_in_pictures([seen] * 3, COCO, "rsn18-0")
    assert figure.get_suptitle() == "rsn18-0"
    assert [axes.get_visible() for axes in figure.axes] == [True, True, True, False]
    axes = figure.axes[2]
    assert axes.get_xlim() == (-0.5, 399.5) and axes.get_ylim() == (299.5, -0.5)
    assert len(axes.patches) == 2
    assert colors_at(axes, KEYPOINTS[5] + 100) == [to_rgb(drawing.SIDES["left"])]


def test_heatmaps_of_every_head_are_shown_on_one_scale():
    heads = np.random.default_rng(0).uniform(0, 255, (2, 4, 17, 16, 12))
    figure = heatmaps.heatmaps_by_head(CROP, heads, 3, "left ear")
    *grid, colorbar = figure.axes
    assert len(grid) == 2 * 5
    assert colorbar.get_ylabel() == "heatmap (255 is certain)"
    assert [axes.get_title() for axes in grid[:5]] == ["left ear", "coarsest", "coarse", "fine", "finest"]
    np.testing.assert_array_equal(grid[9].images[-1].get_array(), heads[1, 3, 3])
    assert {axes.images[-1].get_clim() for axes in grid if len(axes.images) == 2} == {(0, 255)}


def test_every_keypoint_has_its_heatmap():
    heatmaps = np.random.default_rng(0).uniform(0, 255, (17, 16, 12))
    figure = heatmaps.heatmaps_by_keypoint(CROP, heatmaps, COCO)
    shown = [axes for axes in figure.axes if axes.get_visible()]
    assert [axes.get_title() for axes in shown] == [name.replace("_", " ") for name in COCO.keypoints]
    np.testing.assert_array_equal(shown[9].images[-1].get_array(), heatmaps[9])


def test_visibility_is_stacked():
    summary = pd.DataFrame({"keypoint": ["nose", "left_eye"], "visible": [7, 3], "hidden": [1, 2]})
    (axes,) = drawing.keypoint_visibility(summary).axes
    assert axes.get_xlabel() == "people"
    assert [label.get_text() for label in axes.get_yticklabels()] == ["nose", "left eye"]
    ends = [bar.get_x() + bar.get_width() for bar in axes.patches]
    assert ends == [7, 3, 8, 5]


def test_box_sizes_are_shares_of_each_split(make_people):
    splits = {
        "train": make_people(CROP, [[0, 0, 10, height] for height in range(20, 60)], (0, 0)),
        "val": make_people(CROP, [[0, 0, 10, 30]], (0, 0)),
    }
    (axes,) = drawing.box_sizes(splits).axes
    assert axes.get_xlabel() == "box height (pixels)" and axes.get_ylabel() == "share of people (%)"
    assert {text.get_text() for text in axes.get_legend().get_texts()} == {"train", "val"}
    assert max(axes.get_ylim()) >= 100  # the only validation person


def curves(models, seeds=1, figure="AP"):
    curve = pd.DataFrame({"epoch": [1, 2, 3], "loss": [3.0, 2, 1], "learning_rate": [1e-3, 5e-4, 0]})
    curve[f"val_{figure}"] = [np.nan, 0.2, 0.4]
    runs = [(model, seed) for model in models for seed in range(seeds)]
    return pd.concat([curve.assign(model=model, seed=seed, loss=curve["loss"] + seed) for model, seed in runs])


def test_every_model_has_its_curve_however_many():
    loss, accuracy, _ = charts.training_curves(curves([f"rsn18-{letter}" for letter in "abcdefghi"]), "AP").axes
    shown = [len([line for line in axes.lines if len(line.get_xdata())]) for axes in (loss, accuracy)]
    assert shown == [9, 9] and len(loss.get_legend().get_texts()) == 9


@pytest.mark.parametrize(("name", "unit"), [("AP", ""), ("Mean", "(%)")])
def test_curves_have_axes_and_a_legend(name, unit):
    figure = charts.training_curves(curves(["rsn18", "res18"], figure=name), name)
    loss, accuracy, rate = figure.axes
    assert [axes.get_xlabel() for axes in figure.axes] == ["epoch"] * 3
    assert "loss" in loss.get_ylabel() and rate.get_ylabel() == "learning rate"
    assert f"validation {name}" in accuracy.get_ylabel() and unit in accuracy.get_ylabel()
    assert accuracy.lines[0].get_xdata().tolist() == [2, 3]  # where it was validated
    assert [text.get_text() for text in loss.get_legend().get_texts()] == ["rsn18", "res18"]
    assert loss.lines[0].get_color() != loss.lines[1].get_color()


def test_kinds_of_errors_are_stacked_to_the_whole():
    table = pd.DataFrame({"keypoint": ["nose", "left_eye"], "judged": [9, 0]})
    table[["good", "mirror swap", "miss"]] = [[0.5, 0.2, 0.3], [np.nan] * 3]
    figure = charts.error_kinds({f"rsn18-{seed}": table for seed in range(5)})
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
    figure = charts.repair_gains({"rsn18-0": gains, "res18-0": gains.assign(gain=[0.3, 0.05])}, name)
    (axes,) = figure.axes
    assert axes.get_xlabel() == f"gain in {name}{unit} if repaired"
    assert [label.get_text() for label in axes.get_yticklabels()] == ["jitter", "miss"]
    assert [[bar.get_width() for bar in bars] for bars in axes.containers] == [[0.1, 0.2], [0.3, 0.05]]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["rsn18-0", "res18-0"]


def test_every_grouping_has_its_words(make_people):
    grouped = person_groups(make_people(CROP, [[0, 0, 10, 10]], KEYPOINTS))
    assert set(curves.GROUPED_BY) == {"everyone", *grouped}


def test_groups_have_a_panel_each_way_of_grouping_and_say_how_many_they_are():
    groups = pd.DataFrame(
        [("everyone", "all", 400, 0.6), ("hidden", "none", 300, 0.7), ("hidden", "up to 25 %", 100, 0.4)],
        columns=["by", "group", "people", "AP"],
    )
    figure = charts.accuracy_by_group({"rsn18-0": groups, "res18-0": groups}, "AP")
    everyone, hidden = figure.axes
    assert [label.get_text() for label in hidden.get_yticklabels()] == ["none (300)", "up to 25 % (100)"]
    assert hidden.get_title(loc="left") == "share of labelled keypoints that are hidden"
    assert hidden.get_xlabel() == "AP; in brackets: people" and everyone.get_xlim() == hidden.get_xlim()
    assert [[bar.get_width() for bar in bars] for bars in hidden.containers] == [[0.7, 0.4], [0.7, 0.4]]


def test_seeds_are_a_mean_in_a_band_from_the_lowest_to_the_highest():
    loss, _, _ = charts.training_curves(curves(["rsn18"], seeds=3), "AP").axes
    assert loss.lines[0].get_ydata().tolist() == [4, 3, 2]
    (band,) = loss.collections
    box = band.get_paths()[0].get_extents()
    assert (box.y0, box.y1) == (1, 5)
    assert "3 seeds" in loss.get_legend().get_title().get_text()


def test_attention_is_a_bar_and_a_map_a_keypoint():
    channel, position = np.linspace(0, 1, 17), np.random.default_rng(0).uniform(size=(17, 16, 12))
    bars, *maps, colorbar = [axes for axes in heatmaps.attention(CROP, channel, position, COCO, "rsn18").axes]
    assert [bar.get_width() for bar in bars.patches] == channel.tolist() and bars.get_xlabel() == "channel weight"
    assert len({bar.get_facecolor() for bar in bars.patches[:3]}) == 3  # middle, left and right
    shown = [axes for axes in maps if axes.get_visible()]
    assert [axes.get_title() for axes in shown] == [name.replace("_", " ") for name in COCO.keypoints]
    np.testing.assert_array_equal(shown[3].images[-1].get_array(), position[3])
    assert colorbar.get_ylabel() == "position weight" and shown[3].images[-1].get_clim() == (0, 1)


def test_effective_fields_lie_in_their_squares():
    gradients = np.random.default_rng(0).uniform(size=(2, 25, 25))
    fields = {"bottleneck": (gradients[:1], [[3]]), "residual steps": (gradients, [[3], [5, 7]])}
    grid = heatmaps.effective_fields(fields).axes
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
    (axes,) = charts.accuracy_against_cost(table, "AP").axes
    assert sorted(line.get_xdata().tolist() for line in axes.lines) == [[4], [6, 14], [65]]
    assert [text.get_text() for text in axes.texts] == ["rsn50", "2xrsn50", "4xrsn50 384x288", "rsn50"]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["paper", "MMPose"]
    assert axes.texts[0].get_color() == axes.texts[1].get_color() != axes.texts[3].get_color()
    assert axes.get_xscale() == "log" and "multiply-adds" in axes.get_xlabel() and axes.get_ylabel() == "AP (%)"


def test_labels_of_networks_alike_lie_apart_from_one_another_and_from_marks():
    rows = [(f"a-network-{number}", "this run", "64x64", 0.56 + number / 1000, 58) for number in range(3)]
    rows += [("another", "this run", "64x64", 0.5, 62)]
    table = pd.DataFrame(rows, columns=["model", "source", "input", "multiply_adds", "accuracy"])
    figure = charts.accuracy_against_cost(table, "AP")
    (axes,) = figure.axes
    boxes = [text.get_window_extent() for text in axes.texts]
    assert all(box.count_overlaps(boxes) == 1 for box in boxes)  # itself
    marks = axes.transData.transform(table[["multiply_adds", "accuracy"]])
    assert not any(box.contains(*mark) for box in boxes for mark in marks)


def test_seeds_are_one_mark_with_their_range():
    rows = [("rsn18", "this run", "64x64", 1, accuracy) for accuracy in (40, 50, 60)]
    table = pd.DataFrame(rows, columns=["model", "source", "input", "multiply_adds", "accuracy"])
    (axes,) = charts.accuracy_against_cost(table, "AP").axes
    assert axes.lines[0].get_xydata().tolist() == [[1, 50]]
    assert axes.collections[0].get_segments()[0].tolist() == [[1, 40], [1, 60]]


def test_where_no_network_was_published_the_figure_is_empty():
    table = pd.DataFrame(columns=["model", "source", "input", "multiply_adds", "accuracy"])
    (axes,) = charts.accuracy_against_cost(table, "AP").axes
    assert not axes.lines and axes.get_xlabel() == "multiply-adds of one person (G), input of any size"


def test_predictions_stand_beside_the_truth():
    person = CROP, KEYPOINTS, np.where(np.arange(17) < 10, 2, 0), KEYPOINTS + 3, "similarity 0.90"
    figure = drawing.predictions({"best": [person] * 3, "worst": [person]}, COCO)
    shown = [axes for axes in figure.axes if axes.get_visible()]
    assert [axes.get_title() for axes in shown] == ["truth", "similarity 0.90"] * 4
    assert [axes.get_ylabel() for axes in shown if axes.get_ylabel()] == ["best", "worst"]
    assert colors_at(shown[0], KEYPOINTS[5]) and colors_at(shown[1], KEYPOINTS[5] + 3)
    assert not colors_at(shown[1], KEYPOINTS[12] + 3)  # nothing to compare it with


@pytest.mark.parametrize("models", [["rsn18", "res18"], ["rsn18"]])
def test_accuracy_by_keypoint_has_a_mark_a_model_and_keypoint(models):
    rows = [(m, s, k, 50 + 10 * s) for m in models for s in (0, 1) for k in COCO.keypoints]
    table = pd.DataFrame(rows, columns=["model", "seed", "keypoint", "accuracy"])
    (axes,) = charts.keypoint_accuracy(table, COCO, "right (%)").axes
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
    pose, heat = heatmaps.insight(seen, 0, 2, 5, KEYPOINTS, np.full(17, 2), COCO, "rsn18-0").axes
    assert pose.get_title() == "stage 1, fine head" and heat.get_title().startswith("left shoulder, score 1.")
    np.testing.assert_array_equal(heat.images[-1].get_array(), seen.heads[0, 2, 5])
    assert colors_at(pose, seen.keypoints[0, 2, 7])
    marks = [tuple(mark.get_offsets()[0]) for mark in heat.collections]
    assert marks == [tuple(seen.keypoints[0, 2, 5])] * 2 + [tuple(KEYPOINTS[5])] * 2


def test_an_insight_shows_attention_where_the_head_has_it_and_no_truth_where_there_is_none(seen):
    _, heat, weights = heatmaps.insight(seen, 1, 3, 5, KEYPOINTS, np.zeros(17), COCO, "rsn18-0").axes
    np.testing.assert_array_equal(weights.images[-1].get_array(), seen.attention[1, 3][1][5])
    assert weights.get_title() == "position weight, channel 0.31"
    assert len(heat.collections) == 2


def test_two_runs_are_two_marks_a_keypoint_and_a_dot_a_person():
    distances = np.array([[0.01, 0.02, np.inf], [0.03, 0.01, 0.5]])
    figure = charts.two_runs(np.stack([np.full(17, 60), np.full(17, 70)]), distances, ("a", "b"), COCO, 0.05, 1)
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
    ours, all_of_coco = figures_stage.costs("demo"), figures_stage.costs("coco")
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
    curves = layout.load_curves("demo")
    assert curves.groupby(["model", "seed"]).size().tolist() == [3, 3]  # three batches of four
    assert curves["val_AP"].notna().sum() == 2


def test_accuracy_by_keypoint_is_that_of_the_predictions(project):
    path = layout.predictions_path("demo", "plain", 0)
    results, people = read_json(path), layout.load_store("demo", "val").people
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
