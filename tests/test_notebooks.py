"""Notebooks are pages: short cells, no code of their own, nothing executed. And dvc.yaml calls them as they are."""

import ast
import re
import shutil
from itertools import product
from pathlib import Path

import matplotlib.pyplot as plt
import nbformat
import pytest
from ruamel.yaml import YAML

from rsnlib.stages.train import PACKAGE, WEIGHTS_CODE

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
STAGES = YAML(typ="safe").load(ROOT / "dvc.yaml")["stages"]
SITE, STARTS = STAGES.pop("site"), STAGES.pop("starts")  # without a notebook; the site is made of the others'
DIGEST = STAGES.pop("digest")["do"]
STAGES.pop("weights")  # of no notebook, either
FOR_A_PERSON = {"explore", "paper", "predict"}  # and not for the pipeline
LONGEST_CELL = 15  # lines


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def notebook(request):
    contents = nbformat.read(request.param, 4)
    nbformat.validate(contents)
    return contents


def code(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def parameters(notebook):
    """The names that the notebook's parameters cell sets."""
    cells = [cell for cell in code(notebook) if "parameters" in cell.metadata.get("tags", [])]
    return {target.id for cell in cells for line in ast.parse(cell.source).body for target in line.targets}


def test_it_is_committed_without_outputs(notebook):
    assert all(not cell.outputs and cell.execution_count is None for cell in code(notebook))


def test_its_cells_are_short_and_call_the_library(notebook):
    for cell in code(notebook):
        assert len(cell.source.splitlines()) <= LONGEST_CELL
        assert not re.search(r"^\s*(def|class) |lambda", cell.source, re.MULTILINE)


def test_it_starts_with_a_title_and_what_the_reader_will_see(notebook):
    title, *text = notebook.cells[0].source.splitlines()
    assert notebook.cells[0].cell_type == "markdown"
    assert title.startswith("# ") and len(" ".join(text).split()) >= 8


def test_every_notebook_is_a_stage_or_for_a_person():
    assert {path.stem for path in NOTEBOOKS} - FOR_A_PERSON == set(STAGES)


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_calls_its_notebook_with_its_parameters(stage):
    command = STAGES[stage]["cmd"]
    name = re.match(r"python -m rsnlib notebook (\w+)", command)[1]
    matrix = STAGES[stage].get("matrix", {})
    assert command == f"python -m rsnlib notebook {name}" + (" ${item}" if matrix else "")
    assert f"notebooks/{name}.ipynb" in STAGES[stage]["deps"]
    assert parameters(nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", 4)) == set(matrix)


@pytest.mark.parametrize("stage", STAGES)
def test_a_stages_code_exists(stage):
    ours = [path for path in STAGES[stage]["deps"] if path.startswith(("rsnlib/", "notebooks/"))]
    assert len(ours) >= 2
    assert [path for path in ours if not (ROOT / path).exists()] == []


def test_trained_weights_are_told_apart_by_code_that_their_stage_depends_on():
    rooms = [path.removeprefix("rsnlib/") for path in STAGES["train"]["deps"] if path.startswith("rsnlib/")]
    assert all((PACKAGE / path).exists() for path in WEIGHTS_CODE)
    assert all(any(path == room or path.startswith(f"{room}/") for room in rooms) for path in WEIGHTS_CODE)


@pytest.mark.parametrize("stage", STAGES)
def test_a_stages_parameters_exist_whatever_is_run(stage):
    params = YAML(typ="safe").load(ROOT / "params.yaml")
    for key in STAGES[stage].get("params", []):
        for dataset, model in product(params["datasets"], params["run"]["models"]):
            place = params
            for part in key.replace("${item.dataset}", dataset).replace("${item.model}", model).split("."):
                place = place[part]


def test_what_a_stage_reads_of_the_others_they_write():
    def folders(stage, key):
        paths = [entry if isinstance(entry, str) else next(iter(entry)) for entry in stage.get(key, [])]
        return {path for path in paths if path.startswith(("work/", "results/"))}

    stages = [*STAGES.values(), STARTS]
    written = set().union(*(folders(stage, key) for stage in stages for key in ("outs", "metrics", "plots")))
    written |= {path.replace("${key}", "${item.dataset}") for path in DIGEST["outs"]}
    for path in set().union(*(folders(stage, "deps") for stage in stages)):
        assert any(f"{out}/".startswith(f"{path}/") or path.startswith(f"{out}/") for out in written), path


def test_every_stage_leaves_its_executed_notebook_for_the_site():
    assert "work/notebooks" in SITE["deps"]
    for name, stage in STAGES.items():
        assert [path for path in stage["outs"] if isinstance(path, str) and path.startswith("work/notebooks/")], name


def test_predict_shows_a_picture_as_the_newest_run_sees_it_without_a_network(project, monkeypatch):
    monkeypatch.setattr("torch.hub.download_url_to_file", None)
    found = {}
    for cell in code(nbformat.read(ROOT / "notebooks/predict.ipynb", 4)):
        exec(cell.source, found)
    assert found["weights"].value == "demo/steps-prm-0" and "mmpose/4xmspn50" in found["weights"].options
    assert len(found["poses"].keypoints) == len(found["scores"].columns) > 0


@pytest.mark.parametrize("trained", [True, False])
def test_the_paper_runs_with_weights_and_without(project, trained):
    if not trained:
        shutil.rmtree("work/models")
    found = {}
    for cell in code(nbformat.read(ROOT / "notebooks/paper.ipynb", 4)):
        exec(cell.source, found)
        plt.close("all")
    assert found["name"] == ("demo/steps-prm-0" if trained else "an untrained network")
    assert found["paths"].to_dict() == {"bottleneck": 1, "res2net": 10, "residual_steps": 22}
    assert found["loss"] > found["finest"] > 0 and len(found["mined"]) == 8
    assert ((found["channel"] >= 0.5) & (found["channel"] <= 1)).all()
