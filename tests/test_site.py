"""The site: executed notebooks and tables in one page, complete in itself."""

import re
import shutil

import nbformat
import pandas as pd
import pytest
from checkout import ROOT, commit_all, git
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from ruamel.yaml import YAML

from rsnlib.errors import UserError
from rsnlib.stages import notebook, site
from rsnlib.stages.layout import notebooks_path
from rsnlib.stages.provenance import made_by


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project with the committed params.yaml and dvc.yaml and one table, outside git."""
    for name in ("params.yaml", "dvc.yaml"):
        shutil.copy(ROOT / name, tmp_path)
    table = tmp_path / "results/demo/tables/results.md"
    table.parent.mkdir(parents=True)
    table.write_text("| model | AP |\n|:--|--:|\n| rsn18 | 58.1 |\n\nDrawn people.\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def execute(name, *outputs, title="A title", time="12:00"):
    """An executed notebook in work/notebooks, as papermill leaves it."""
    parameters = new_code_cell("seed = 1", metadata={"tags": ["injected-parameters"]})
    code = new_code_cell("1 + 1", outputs=list(outputs), metadata={"execution": {"iopub.execute_input": time}})
    contents = new_notebook(cells=[new_markdown_cell(f"# {title}"), parameters, code])
    contents.metadata["papermill"] = {"start_time": time}
    path = notebooks_path(f"{name}.ipynb")
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(contents, path)
    return path


def test_a_stage_is_told_with_its_parameters_and_no_others(project):
    about = made_by("evaluate", {"dataset": "demo", "model": "rsn18-small", "seed": 0})
    assert about["stage"] == "evaluate@demo-rsn18-small-0"
    assert "margin: [0.09, 0.135]" in about["parameters"] and "flip_test: true" in about["parameters"]
    assert "learning_rate" not in about["parameters"]
    with pytest.raises(UserError, match=r"params\.yaml: no datasets\.nobody\.\w+, on which the stage prepare depends"):
        made_by("prepare", {"dataset": "nobody"})


@pytest.mark.parametrize(
    ("stage", "item", "said"),
    [
        ("train", {"dataset": "demo", "model": "rsn18"}, "the stage train takes --dataset --model --seed"),
        ("networks", {"dataset": "demo"}, "the stage networks takes no dataset, model or seed"),
        ("explore", {}, "explore: not a stage of the pipeline with a notebook; these are evaluate, figures, networks"),
    ],
)
def test_what_a_notebook_is_not_executed_for_is_said(project, monkeypatch, stage, item, said):
    (project / "notebooks").mkdir()
    (project / f"notebooks/{stage}.ipynb").touch()
    monkeypatch.setattr(notebook.papermill, "execute_notebook", lambda *given, **options: pytest.fail("executed"))
    with pytest.raises(UserError, match=said):
        notebook.run_notebook(stage, item)


def test_the_same_results_leave_the_same_notebook(project):
    bar, left = new_output("display_data", {notebook.WIDGET: {"model_id": "x"}}), set()
    for time in ("12:00", "12:01"):
        result = new_output("execute_result", {"text/plain": f"<Styler at 0x7f{time[-2:]}>"}, execution_count=1)
        path = execute("demo/tables", new_output("stream", name="stderr", text=time), bar, result, time=time)
        notebook.clean_notebook(path, {"stage": "tables@demo", "parameters": ""})
        left.add(path.read_bytes())
    found = nbformat.read(path, 4)
    assert len(left) == 1 and [cell.source for cell in found.cells] == ["# A title", "1 + 1"]
    assert [output["data"] for output in found.cells[1].outputs] == [{"text/plain": "<Styler>"}]


def test_the_site_has_every_notebook_with_what_made_it_and_the_tables(project):
    runs = {f"demo/train/{model}-0": f"train@demo-{model}-0" for model in ("rsn18-small", "res18-small")}
    runs |= {"demo/tables": "tables@demo", "networks": "networks"}
    for name, stage in runs.items():
        notebook.clean_notebook(execute(name, title=stage), {"stage": stage, "parameters": f"of: {stage}\n"})
    for name in ("demo/train/rsn18-7", "demo/train/a-model-of-old-0", "data-of-old/tables"):
        notebook.clean_notebook(execute(name, title="no longer in params.yaml"), {"stage": "", "parameters": ""})
    text = site.write_site().read_text()
    assert "no longer" not in text and "of-old" not in text
    for stage in runs.values():
        assert all(said in text for said in (f"<h1>{stage}</h1>", f"<code>{stage}</code>", f"of: {stage}"))
    assert 'href="../notebooks/train.ipynb"' in text and re.search("<td[^>]*>rsn18</td>", text)
    targets, links = (set(re.findall(f'{part}([^"]+)"', text)) for part in ('<section id="', 'href="#'))
    assert (
        targets
        == links
        == {"demo-train-rsn18-small-0", "demo-train-res18-small-0", "demo-tables", "networks", "overview"}
    )
    assert pd.Series(re.findall(r'\bid="([^"]+)"', text)).is_unique


def test_the_overview_begins_with_the_results_and_needs_nothing_from_elsewhere(project):
    for name in ("ablation-branches", "differences"):
        (project / f"results/demo/tables/{name}.md").write_text(f"From {name}.\n")
    notebook.clean_notebook(execute("demo/tables"), {"stage": "tables@demo", "parameters": ""})
    text = site.write_site().read_text()
    places = [text.index(said) for said in ("Drawn people.", "From differences.", "From ablation-branches.")]
    assert places == sorted(places)
    assert not re.findall(r"""(?:src|href)=["']?(?:https?:)?//|@import|<script|<link""", text)


def test_the_page_grows_and_says_what_is_missing(project):
    params, said = YAML().load(project / "params.yaml"), []
    params["run"]["models"] = {"rsn18": {}}
    YAML().dump(params, project / "params.yaml")
    stages = ["demo/prepare", "demo/train/rsn18-0", "demo/evaluate/rsn18-0", "demo/tables", "demo/figures"]
    for name in ["networks", *stages]:
        path = execute(name, title=name)
        if said:  # stopped in its midst
            assert f"<h1>{name}</h1>" not in site.write_site().read_text()
        notebook.clean_notebook(path, {"stage": name, "parameters": ""})
        text = site.write_site().read_text()
        assert f"<h1>{name}</h1>" in text
        said.append(re.findall("<code>([^<]+)</code>", "".join(re.findall("Still to come:[^.]*", text))))
    missing = ["prepare@demo", "train@demo-rsn18-0", "evaluate@demo-rsn18-0", "tables@demo", "figures@demo"]
    assert said == [missing[done:] for done in range(6)]


def test_the_site_names_the_commit_and_what_is_not_committed(project):
    with pytest.raises(UserError, match="no executed notebooks; `dvc repro`"):
        site.write_site()
    notebook.clean_notebook(execute("networks"), {"stage": "networks", "parameters": ""})
    assert "Commit" not in site.write_site().read_text()
    commit_all(project)
    text = site.write_site().read_text()
    assert f"Commit {git(project, 'log', '-1', '--format=%h of %cs').strip()}.</p>" in text  # nothing more
    (project / "params.yaml").write_text((ROOT / "params.yaml").read_text() + "# changed\n")
    assert "not committed" in site.write_site().read_text()
