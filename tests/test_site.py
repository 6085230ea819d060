"""The site: pictures, headline, state of the run, tables and executed notebooks in one page, complete in itself."""

import base64
import html
import io
import re
import shutil

import nbformat
import numpy as np
import pandas as pd
import pytest
from checkout import ROOT, commit_all, git
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from PIL import Image
from ruamel.yaml import YAML

from rsnlib.errors import Stopped, UserError
from rsnlib.files import write_json
from rsnlib.report.site import duration, embed, headline, networks_headline
from rsnlib.stages import notebook, provenance, site
from rsnlib.stages.layout import notebooks_path, results_path, training_path
from rsnlib.stages.provenance import NOTEBOOK_STAGES, made_by, pipeline, read_time, timed


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
    kinds = {"seed = 0": "parameters", "seed = 1": "injected-parameters"}
    parameters = [new_code_cell(source, metadata={"tags": [tag]}) for source, tag in kinds.items()]
    code = new_code_cell("1 + 1", outputs=list(outputs), metadata={"execution": {"iopub.execute_input": time}})
    contents = new_notebook(cells=[new_markdown_cell(f"# {title}"), *parameters, code])
    contents.metadata["papermill"] = {"start_time": time}
    path = notebooks_path(f"{name}.ipynb")
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(contents, path)
    return path


def picture(path, width=60, height=40, seed=0):
    """A picture of noise, in a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def finish(dataset, *models, metric="AP"):
    """The results of a finished run on a data set: tables, reports of trainings and pictures; AP 50, 51, ..."""
    tables, rows = results_path(dataset, "tables"), []
    tables.mkdir(parents=True, exist_ok=True)
    for number, model in enumerate(models):
        value = 50 + number
        rows.append({"model": model, "seeds": 1, "data": dataset, "input": "64x64"})
        rows[-1] |= {metric: value, f"{metric} low": value - 2, f"{metric} high": value + 2, "AR": 0}
        report = {"model": model, "seed": 0, "people": {"train": 2000, "val": 400}, "machine": "one machine"}
        write_json(training_path(dataset, model, 0, "run.json"), report)
        picture(results_path(dataset, "figures", f"heads-{model}-0.jpg"), seed=number)
    pd.DataFrame(rows).to_csv(tables / "results.csv", index=False)
    (tables / "results.md").write_text(f"| model | AP |\n|:--|--:|\n| {models[0]} | 50.0 |\n\nTable of {dataset}.\n")
    said = "".join(f"- group: {model} scores higher than {models[0]} (+1.0 AP [0.5, 1.5]).\n" for model in models[1:])
    (tables / "differences.md").write_text(said or "No group.\n")
    for name in ("poses.jpg", "cost.png", "training.png"):
        picture(results_path(dataset, "figures", name))


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
        ("explore", {}, "explore: not a stage of the pipeline with a notebook; these are ablations, evaluate, figures"),
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
    assert len(left) == 1 and [cell.source for cell in found.cells] == ["# A title", "seed = 1", "1 + 1"]
    assert [output["data"] for output in found.cells[2].outputs] == [{"text/plain": "<Styler>"}]


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
        heading = f"<h1>{stage}{stage.replace('train@demo-', ': ') * stage.startswith('train')}</h1>"
        assert all(said in text for said in (heading, f"<code>{stage}</code>", f"of: {stage}"))
    assert 'href="../notebooks/train.ipynb"' in text and re.search("<td[^>]*>rsn18</td>", text)
    assert text.count("<table") == text.count('<div class="wide" tabindex="0"><table')
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
    assert not re.findall(r"""(?:src|href)=["']?(?:https?:)?//|@import|<script .|<link""", text)


def test_the_page_grows_and_says_what_is_missing(project):
    params, said = YAML().load(project / "params.yaml"), []
    params["run"]["models"] = {"rsn18": {}}
    YAML().dump(params, project / "params.yaml")
    stages = ["demo/prepare", "demo/train/rsn18-0", "demo/evaluate/rsn18-0", "demo/tables"]
    stages += ["demo/ablations", "demo/figures"]
    for name in ["networks", *stages]:
        path, heading = execute(name, title=name), f"<h1>{name}{': rsn18-0' * name.endswith('rsn18-0')}</h1>"
        if said:  # stopped in its midst
            assert heading not in site.write_site().read_text()
        notebook.clean_notebook(path, {"stage": name, "parameters": ""})
        text = site.write_site().read_text()
        assert heading in text
        said.append(re.findall("<code>([^<]+)</code>", "".join(re.findall("Still to come:[^.]*", text))))
    missing = ["prepare@demo", "train@demo-rsn18-0", "evaluate@demo-rsn18-0", "tables@demo"]
    missing += ["ablations@demo", "figures@demo"]
    assert said == [missing[done:] for done in range(7)]


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


# ---- the front page


def test_pictures_come_first_and_say_what_made_them(project):
    finish("demo", "rsn18", "rsn18-prm")
    notebook.clean_notebook(execute("demo/figures"), {"stage": "figures@demo", "parameters": ""})
    text = site.write_site().read_text()
    front = text[text.index('<section id="overview">') :]
    figures = re.findall(r"<figure.*?</figure>", front, re.DOTALL)
    titles = [re.search("<figcaption>([^<]+)", figure)[1] for figure in figures]
    assert titles == ["Poses", "Heatmaps, coarse to fine", "Accuracy against cost"]  # the rest stands in the chapter
    made = "data set demo, model rsn18-prm, seed 0; drawn by"
    assert made in figures[0] and made in figures[1] and "models rsn18, rsn18-prm" in figures[2]
    assert all('href="../notebooks/figures.ipynb"' in figure and "#demo-figures" in figure for figure in figures)
    (second,) = re.findall('src="([^"]+)"', figures[1])
    assert second == embed(results_path("demo", "figures", "heads-rsn18-prm-0.jpg").read_bytes())[0]
    places = [front.index(said) for said in ("<figure", "Of 2 networks", "stages are done", "Table of demo")]
    assert places == sorted(places)


def test_every_picture_has_a_text(project):
    finish("demo", "rsn18")
    contents = picture(project / "drawing.jpg").read_bytes()
    shown = new_output("display_data", {"image/jpeg": base64.b64encode(contents).decode(), "text/plain": "<Figure>"})
    path = execute("demo/train/rsn18-small-0", shown, title='Loss "of" <all>')
    notebook.clean_notebook(path, {"stage": "train@demo-rsn18-small-0", "parameters": ""})
    text = site.write_site().read_text()
    shown = re.findall(r"<img [^>]*data:image/webp[^>]*>", text)
    alts = [html.unescape(re.search(r"""alt=(["'])(.*?)\1""", each)[2]) for each in shown]
    assert len(alts) == text.count("data:image/") == 5 and all(alts)
    assert 'Loss "of" <all>' in alts and "Figure&gt;" not in text


def test_real_people_come_before_drawn_ones_whether_they_are_run_or_not(project):
    finish("demo", "rsn18")
    finish("lspet-small", "rsn18", "rsn18-prm", metric="Mean")
    picture(results_path("lspet-small", "figures", "predictions.jpg"))
    notebook.clean_notebook(execute("demo/tables"), {"stage": "tables@demo", "parameters": ""})
    text = site.write_site().read_text()
    assert re.findall("<h2>([^<]+)</h2>", text) == [
        "lspet-small: an earlier run, without its notebooks",
        "demo: drawn people",
    ]
    assert text.index("rsn18-prm scores highest: 51.0 % of keypoints right [49.0, 53.0]") < text.index("Table of lspet")
    assert text.index("scores highest") < text.index("Training<span")  # no chapter has the figures after the first four


def test_before_any_training_the_page_has_people_and_networks(project):
    contents = picture(project / "people.jpg").read_bytes()
    shown = new_output("display_data", {"image/jpeg": base64.b64encode(contents).decode()})
    shutil.rmtree(project / "results")
    networks = pd.DataFrame({"model": ["rsn18", "4xrsn50", "4xrsn50", "se"], "ratio": [0.9, 0.98, 1.02, None]})
    assert networks_headline(networks).startswith("3 networks")
    assert "the 3 whose cost was published have 0.90 to 1.02 times" in networks_headline(networks)
    picture(results_path("networks", "cost.png"))
    networks.to_csv(results_path("networks", "networks.csv"), index=False)
    (results_path("networks") / "networks.md").write_text("Cost of every network.\n")
    notebook.clean_notebook(execute("networks"), {"stage": "networks", "parameters": ""})
    notebook.clean_notebook(execute("demo/prepare", shown), {"stage": "prepare@demo", "parameters": ""})
    text = site.write_site().read_text()
    front = text[text.index('<section id="overview">') :]
    assert re.findall("<figcaption>([^<]+)", front) == ["People", "Accuracy against cost"]
    assert '<p class="headline">3 networks' in front and "<details open><summary><h3>Networks</h3>" in front
    assert "Still to come: <code>train@demo-rsn18-small-0</code>" in front


def test_the_headline_is_computed_from_the_tables():
    table = pd.DataFrame({"model": ["a", "b"], "input": "64x64", "AP": [50.0, 48], "AP low": [48.0, 46]})
    table["AP high"], people = table["AP"] + 2, {"train": 2000, "val": 400}
    said = headline("demo", table, people, "- small: b scores lower than a (-2.0 AP [-3.0, -1.0]).\n- big: c.\n")
    assert said == (
        "Of 2 networks trained on demo, 2,000 drawn people, a scores highest: 50.0 AP [48.0, 52.0] on 400 drawn people "
        "whom no network had seen. Side by side, b scores lower than a (-2.0 AP [-3.0, -1.0])."
    )
    alone = headline("coco", table[:1], people, "No group of ablations.\n")
    assert alone.startswith("Trained on coco, 2,000 people, a reaches 50.0 AP [48.0, 52.0]") and "Side" not in alone


def test_pictures_are_embedded_small():
    file = io.BytesIO()
    Image.new("RGB", (2200, 1000), "white").save(file, "PNG")
    source, aspect = embed(file.getvalue())
    assert source.startswith("data:image/webp;base64,") and aspect == pytest.approx(2.2)
    assert Image.open(io.BytesIO(base64.b64decode(source.split(",")[1]))).size == (1100, 500)


# ---- times


def test_the_state_of_the_run_names_times_and_machines(project, monkeypatch):
    finish("demo", "rsn18-small")
    monkeypatch.setattr(provenance, "processor", lambda: "A Processor")
    with timed("tables@demo"):
        notebook.clean_notebook(execute("demo/tables"), {"stage": "tables@demo", "parameters": ""})
    text, count = site.write_site().read_text(), sum(stage in NOTEBOOK_STAGES for stage, _ in pipeline().values())
    assert (
        f"1 of {count} stages are done</strong> for demo on A Processor; networks were trained on one machine." in text
    )
    rows = dict(re.findall(r"<tr><td>(?:<a[^>]*>)?([^<]+).*?<time>([^<]*)</time>", text, re.DOTALL))
    assert rows["tables@demo"] == "0 s" and rows["figures@demo"] == "" and len(rows) == count
    assert [duration(seconds) for seconds in (7.6, 250, 7500)] == ["8 s", "4 min 10 s", "2 h 5 min"]


@pytest.fixture
def clock(monkeypatch):
    """Seconds that pass: a list, whose last is now."""
    seconds = [0]
    monkeypatch.setattr(provenance.time, "monotonic", lambda: seconds[-1])
    return seconds


def test_a_training_that_goes_on_takes_the_time_of_all_its_parts_once(project, clock):
    def train(until, mark="a", resumed=False, stop=False):
        with timed("train@demo", mark, resumed):
            clock.append(until)
            if stop:
                raise Stopped
        return read_time("train@demo")["seconds"]

    with pytest.raises(Stopped):
        train(5, stop=True)
    assert train(12, resumed=True) == 12
    assert train(15, resumed=True) == 12  # found finished
    assert train(35, mark="b") == 20  # another training
    with timed("train@demo", "c", resumed=True):  # by whom, and in what time, is unknown
        assert read_time("train@demo") is None


def test_a_stage_run_again_takes_its_last_time(project, clock):
    for until, seconds in ((4, 4), (6, 2)):
        with timed("tables@demo"):
            clock.append(until)
        assert read_time("tables@demo")["seconds"] == seconds
