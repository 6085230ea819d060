"""Tables: our runs beside published numbers, ablations, captions, and the files that a reader opens."""

import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from ruamel.yaml import YAML

from rsnlib.errors import UserError
from rsnlib.metrics import protocol
from rsnlib.report.tables import (
    ablation_caption,
    ablation_table,
    base_model,
    differences,
    evaluation_table,
    origin,
    published,
    published_caption,
    published_table,
    results_caption,
    results_table,
    server_table,
    write_table,
)
from rsnlib.stages.ablations import ablations

COCO, MPII, LSP = protocol("coco"), protocol("mpii"), protocol("lsp")


def runs_of(*models, judgement=COCO, **changes):
    """The metrics of one run per model, all of them 0.5 but for `changes`."""
    run = {"seed": 0, "input": "256x192"} | dict.fromkeys(judgement.columns, 0.5) | changes
    return pd.DataFrame([{"model": model, **run} for model in models])


def draws_of(runs, judgement=COCO, spread=0.05):
    """Draws of each model: 1,001 evenly within `spread` of its metric, in the same order for all."""
    around = np.linspace(-spread, spread, 1001)
    return {model: rows[judgement.metric].to_numpy()[:, None] + around for model, rows in runs.groupby("model")}


def table_of(runs, dataset="coco", judgement=COCO, spread=0.05):
    return results_table(runs, draws_of(runs, judgement, spread), dataset, judgement)


# ---- results


def test_our_results_and_the_published_ones_are_two_tables():
    table = table_of(runs_of("rsn18", AP=0.7031))
    assert table["AP"].tolist() == pytest.approx([70.31])  # per cent
    others = published_table(["rsn18"], COCO)
    assert others["model"].unique().tolist() == ["rsn18"]
    by_source = others.set_index("source")["AP"]
    assert by_source["paper"] == 73.6  # validation, not test-dev
    assert by_source["released RSN"] == 70.4
    assert by_source.index.is_unique and "this run" not in by_source


def test_seeds_are_one_row_their_mean():
    runs = pd.concat([runs_of("res18", AP=0.9), runs_of("rsn18", AP=0.6), runs_of("rsn18", AP=0.7, AR=0.9)])
    ours = table_of(runs)
    assert ours["seeds"].tolist() == [1, 2]
    assert ours["AP"].tolist() == pytest.approx([90, 65]) and ours["AR"].tolist() == pytest.approx([50, 70])
    half = 12.7062 * 5  # Student's t with one degree of freedom, times the standard error
    bounds = [85.25, 94.75], [65 - half, 65 + half]  # of one seed: of the draws
    np.testing.assert_allclose(ours[["AP low", "AP high"]], bounds, atol=1e-3)


def test_an_ablation_is_published_as_the_model_that_it_varies():
    table = table_of(runs_of("rsn18-prm", input="128x96"), "demo")
    assert table[["model", "data", "input"]].iloc[0].tolist() == ["rsn18-prm", "demo", "128x96"]
    others = published_table(table["model"], COCO)
    assert set(others["model"]) == {"rsn18"} and set(others["data"]) == {"COCO val"}
    assert base_model("rsn50-mmpose") == "rsn50-mmpose"
    assert "not to be compared with those on demo" in published_caption("demo", COCO)
    assert "not to be compared" not in published_caption("coco", COCO)


def test_nobody_to_find_is_a_blank_cell(tmp_path):
    table = table_of(runs_of("rsn18", APM=-1.0, AP=0.0))
    assert np.isnan(table["APM"][0]) and table["AP"][0] == 0
    write_table(table, tmp_path, "results", "A caption.")
    assert all("-100" not in path.read_text() for path in tmp_path.iterdir())


def test_correct_keypoints_are_in_per_cent_already_and_stand_beside_their_own_data_set():
    table = table_of(runs_of("4xrsn50", judgement=MPII, Mean=90.0), "mpii", MPII)
    assert table["Mean"].tolist() == [90.0]
    assert published_table(["4xrsn50"], MPII).set_index("source")["Mean"].to_dict() == {"paper": 91.6}
    table = table_of(runs_of("rsn18", judgement=LSP, Mean=81.25), "lsp", LSP, spread=2)
    assert len(table) == 1 and table["Mean"][0] == 81.25 and table["Mean high"][0] == pytest.approx(83.15)
    assert published(LSP).empty and published_table(["rsn18"], LSP) is server_table("lsp", LSP) is None


def test_runs_that_lack_metrics_are_named():
    with pytest.raises(UserError, match="coco: .*lack APM"):
        table_of(runs_of("rsn18").drop(columns="APM"))


def test_what_was_published_of_test_people_is_in_the_papers_layout():
    table = server_table("coco", COCO)
    assert set(table["split"]) == {"test-dev", "test-challenge"}
    assert table.columns[-6:].tolist() == ["AP", "AP50", "AP75", "APM", "APL", "AR"]
    assert table[table["input"] == "384x288"]["AP"].tolist() == [78.6]
    assert server_table("mpii", MPII)["Mean"].tolist() == [93.0, 92.6]
    assert server_table("demo", COCO) is None


@pytest.mark.shared
@pytest.mark.parametrize("judgement", [COCO, MPII], ids=["coco", "mpii"])
def test_published_numbers_are_those_given(shared, judgement):
    given, ours = pd.read_csv(shared / "paper" / judgement.published), published(judgement)
    mspn = (ours["source"] == "MMPose") & ours["model"].str.endswith("mspn50")  # tests/test_published.py has these
    ours = ours[~mspn].reset_index(drop=True)
    assert len(ours) == len(given)
    numbers = ours.select_dtypes("number").columns.intersection(given.columns)
    assert len(numbers) >= 8
    pd.testing.assert_frame_equal(ours[numbers], given[numbers])


# ---- ablations and ways of evaluating

COSTS = {"rsn18": (9.2e6, 2.25e9), "res18": (8.6e6, 2.07e9), "rsn18-prm": (9.2e6, 2.26e9)}


def compared(**precision):
    """The ablation table of models of these average precisions, whose draws rise and fall together."""
    runs = pd.concat([runs_of(name.replace("_", "-"), AP=value) for name, value in precision.items()])
    return ablation_table(runs, draws_of(runs), list(runs["model"]), COSTS, COCO)


def test_an_ablation_is_compared_with_its_reference():
    table = compared(rsn18=0.7, res18=0.69, rsn18_prm=0.7001).set_index("model")
    assert table["verdict"].to_dict() == {"rsn18": "reference", "res18": "lower", "rsn18-prm": "higher"}
    assert table["AP high"]["res18"] > table["AP low"]["rsn18"]  # the intervals of the metrics overlap
    assert table.loc["res18", "difference":"difference high"].tolist() == pytest.approx([-1] * 3)
    assert np.isnan(table["difference"]["rsn18"])
    assert table.loc["res18", ["parameters (M)", "multiply-adds (G)"]].tolist() == [8.6, 2.07]
    assert table["paper"]["res18"] == 70.7 and np.isnan(table["paper"]["rsn18-prm"])  # of this very model alone


def test_differences_are_said_in_words():
    table = compared(rsn18=0.7, res18=0.69, rsn18_prm=0.72)
    said = differences({"block": table}, "coco", COCO, 1)
    assert "- block: res18 scores lower than rsn18 (-1.0 AP [-1.0, -1.0]); rsn18-prm scores higher" in said
    assert "single trainings" in said and "single trainings" not in differences({"a": table}, "coco", COCO, 3)
    assert "say nothing about COCO" in differences({"block": table}, "demo", COCO, 1)
    assert "No group" in differences({}, "coco", COCO, 1)

    runs = runs_of("rsn18", "rsn18-prm")
    draws = draws_of(runs)
    draws["rsn18-prm"] = draws["rsn18-prm"][:, ::-1] + 0.02
    table = ablation_table(runs, draws, ["rsn18", "rsn18-prm"], COSTS, COCO)
    assert table["verdict"][1] == "no difference shown"
    said = differences({"attention": table}, "coco", COCO, 1)
    assert said.startswith("- attention: rsn18-prm shows no difference to rsn18 (+0.0 AP [-7.5, 11.5]).\n")


def test_a_way_gains_over_the_plainest_of_its_own_run():
    ways = [(True, "dark"), (False, "quarter"), (False, "dark"), (True, "quarter")]
    metrics = [(best - less, (best - less) / 2) for best in (0.5, 0.6) for less in (0, 0.1, 0.05, 0.02)]
    rows = [("rsn18", seed, *way) for seed in (0, 1) for way in ways]
    variants = pd.DataFrame(rows, columns=["model", "seed", "flip_test", "decoding"])
    variants[["AP", "AP75"]], variants["Mean"] = metrics, 80.0
    table = evaluation_table(variants, COCO)
    assert list(table) == ["model", "seed", "flip test", "decoding", "AP", "AP gain", "AP75", "AP75 gain"]
    assert table["AP"].tolist()[4:] == pytest.approx([60, 50, 55, 58])
    assert table["AP gain"].tolist() == pytest.approx([10, 0, 5, 8] * 2)
    assert table["AP75 gain"].tolist() == pytest.approx([5, 0, 2.5, 4] * 2)
    assert table["flip test"].tolist()[:2] == ["yes", "no"]

    variants.loc[0, "Mean"] = 81.5  # per cent already
    assert evaluation_table(variants, MPII)["Mean gain"].tolist() == [1.5] + [0] * 7


# ---- captions


def test_a_caption_says_what_its_numbers_were_made_of():
    made = {"people": {"train": 2000, "val": 400}, "iterations": 1000, "batch_size": 16, "machine": "one CPU"}
    made["fingerprints"] = {"parameters": "1a2b", "data": "3c4d"}
    drawn, real = (origin(name, **made) for name in ("demo", "coco"))
    assert real.startswith("coco, 2,000 people to train on, 400 to validate on in true boxes;")
    assert "1,000 iterations of 16 people (8 epochs) on one CPU; fingerprints: parameters 1a2b, data 3c4d." in real
    assert "say nothing about COCO" in drawn and "say nothing" not in real
    assert "in a detector's boxes" in origin("coco", **made, detected=True)


@pytest.mark.parametrize("caption", [results_caption, ablation_caption])
def test_a_caption_says_which_interval_it_is_and_whose_other_numbers_are(caption):
    one, several, other = caption(COCO, 1, "made"), caption(COCO, 3, "made"), caption(LSP, 1, "made")
    assert "one seed" in one and "interval over people (bootstrap, 1,000 draws)" in one
    assert "means over 3 seeds" in several and "interval over seeds (Student's t)" in several
    assert "object keypoint similarity" in one and "Correct keypoints" in other
    assert "as published" not in other and ("as published, on COCO val" in one) == (caption is ablation_caption)


# ---- files


def test_a_table_is_written_as_markdown_csv_and_latex(tmp_path):
    table = table_of(runs_of("rsn18_wide", "rsn18", AP=0.70316))
    returned = write_table(table, tmp_path / "tables", "results", "Validation, 100 %.")
    folder = tmp_path / "tables"
    assert sorted(path.name for path in folder.iterdir()) == ["results.csv", "results.md", "results.tex"]

    written = pd.read_csv(folder / "results.csv")
    assert written["AP"][0] == 70.316 and written["model"].tolist() == table["model"].tolist()
    assert written.loc[0, ["AP low", "AP high"]].tolist() == [65.566, 75.066]
    markdown = (folder / "results.md").read_text()
    assert markdown == returned
    first, _, ours, *_, last = markdown.splitlines()
    assert [cell.strip() for cell in first.split("|")[1:7]] == ["model", "seeds", "data", "input", "AP", "AP50"]
    assert "| 70.3 [65.6, 75.1] |" in ours
    assert "nan" not in markdown.lower() and last == "Validation, 100 %."


NASTY = "50 % & more: a_b < c > d ~ e^f #1 {g} $h$ back\\slash `code` |pipe|"


@pytest.fixture
def latex_folder(tmp_path):
    """Every kind of table, one with everything that LaTeX takes for its own."""
    write_table(table_of(runs_of("rsn18_wide", "rsn18")), tmp_path, "results", NASTY)
    ablation = compared(rsn18=0.7, res18=0.69)
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
    assert r"rsn18\_wide" in (latex_folder / "results.tex").read_text()
    ours = r"res18 & 256x192 & 8.6 & 2.1 & 69.0 [64.2, 73.8] & -1.0 [-1.0, -1.0] & lower"
    assert ours in (latex_folder / "ablation.tex").read_text()


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


def test_the_page_asks_and_says_what_differs(project):
    params = YAML(typ="safe").load(Path("params.yaml"))
    params["ablations"] = {"mine": params["run"]["models"]}
    params["questions"] = {"mine": "Does it?"}
    Path("params.yaml").unlink()
    YAML().dump(params, Path("params.yaml"))
    (each,) = ablations("demo").values()
    assert each.introduction.startswith("## mine\n\nDoes it?\n")
    assert "# block: residual_steps" in each.introduction and "attention: prm" in each.introduction
    assert set(each.curves["model"]) == {"plain", "steps-prm"} and each.curves["people"].max() == 12
    assert "steps-prm" in each.says and "With 6 validation people, differences below about" in each.says
