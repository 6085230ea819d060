"""Stage `site`: every executed notebook and the tables in one page, results/index.html."""

import re
import subprocess
from itertools import groupby

import nbformat
from nbconvert import HTMLExporter
from nbconvert.filters import markdown2html

from rsnlib.errors import UserError
from rsnlib.files import project_root, whole_file
from rsnlib.report.site import render
from rsnlib.stages.layout import executed_path, notebooks_path, results_path, run_name
from rsnlib.stages.provenance import NOTEBOOK_STAGES, pipeline

TABLES = ("results", "differences")  # the first of an overview
SOURCES = ("rsnlib", "notebooks", "dvc.yaml", "params.yaml")  # what a commit stands for


def write_site():
    """Write results/index.html from the executed notebooks of the pipeline and the tables; returns its path.

    The page names the stages whose notebooks are still missing.
    """
    found = {name: _chapter(*each) for name, each in pipeline().items() if each[0] in NOTEBOOK_STAGES}
    chapters, missing = [each for each in found.values() if each], [name for name, each in found.items() if not each]
    if not chapters:
        raise UserError(f"{notebooks_path()}: no executed notebooks; `dvc repro` makes them")
    chapters.sort(key=lambda each: (each["group"] == "", each["group"], each["place"], each["name"]))
    navigation = [
        (group, [(stage, list(some)) for stage, some in groupby(of_group, lambda each: each["stage"])])
        for group, of_group in groupby(chapters, lambda each: each["group"])
    ]
    overviews = [_overview(group) for group, _ in navigation if group]
    path = results_path("index.html")
    with whole_file(path, "w") as file:
        file.write(render(chapters, navigation, overviews, missing, _commit()))
    return path


def pictures():
    """Return the paths of three pictures to begin with: poses, predictions and the cost of networks."""
    first = next(item["dataset"] for _, item in pipeline().values() if "dataset" in item)
    figures = results_path(first, "figures")
    return figures / "poses.jpg", figures / "predictions.jpg", results_path("networks", "cost.png")


def _chapter(stage, item):
    """Return a stage's executed notebook as a chapter: its place (group, a data set or "", stage and name), its body
    and what made it. None: not executed, or not to the end."""
    path = executed_path(stage, item)
    notebook = nbformat.read(path, 4) if path.is_file() else None
    if not notebook or "rsnlib" not in notebook.metadata:
        return None
    group, name = item.get("dataset", ""), run_name(item["model"], item["seed"]) if "model" in item else ""
    anchor = "-".join(filter(None, (group, stage, name)))
    body, _ = HTMLExporter(template_name="basic", exclude_anchor_links=True).from_notebook_node(notebook)
    body = re.sub(r'(<h\d) id="[^"]*"', r"\1", body).replace('id="cell-id=', f'id="{anchor}-')  # unique in the site
    place = {"group": group, "stage": stage, "name": name, "place": NOTEBOOK_STAGES.index(stage)}
    return place | {"anchor": anchor, "body": body, "about": notebook.metadata["rsnlib"]}


def _overview(dataset):
    """Return the tables of one data set as HTML."""
    first = {name: place for place, name in enumerate(TABLES)}
    tables = sorted(
        results_path(dataset, "tables").glob("*.md"), key=lambda path: (first.get(path.stem, len(first)), path.stem)
    )
    texts = {path.stem.replace("-", " "): path.read_text(encoding="utf-8") for path in tables}
    return {"title": dataset, "tables": {name: markdown2html(text) for name, text in texts.items()}}


def _commit():
    """Return the commit of code and parameters, in words; "" outside git."""

    def git(*arguments):
        done = subprocess.run(["git", *arguments], cwd=project_root(), capture_output=True, text=True)
        return done.stdout.strip()

    changed = git("status", "--porcelain", "--", *SOURCES)
    return git("log", "-1", "--format=%h of %cs") + (", with changes not committed" if changed else "")
