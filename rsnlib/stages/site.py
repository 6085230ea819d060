"""Stage `site`: every executed notebook and the tables in one page, results/index.html."""

import re
import subprocess
from itertools import groupby

import nbformat
from nbconvert import HTMLExporter
from nbconvert.filters import markdown2html

from rsnlib.config import load_params, project_root, run_name
from rsnlib.errors import UserError
from rsnlib.files import whole_file
from rsnlib.report.site import render
from rsnlib.stages.layout import notebooks_path, results_path
from rsnlib.stages.provenance import NOTEBOOK_STAGES

TABLES = ("results", "differences")  # the first of an overview
SOURCES = ("rsnlib", "notebooks", "dvc.yaml", "params.yaml")  # what a commit stands for


def write_site():
    """Write results/index.html from the executed notebooks of the runs of params.yaml and the tables; returns its
    path."""
    run = load_params().run
    groups, names = ("", *run.datasets), ["", *(run_name(model, seed) for model in run.models for seed in run.seeds)]
    chapters = [_chapter(path) for path in notebooks_path().rglob("*.ipynb")]
    chapters = [each for each in chapters if each["group"] in groups and each["name"] in names]
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
        file.write(render(chapters, navigation, overviews, _commit()))
    return path


def _chapter(path):
    """Return one executed notebook as a chapter: its place (group, a data set or "", stage and name), its body and what
    made it."""
    notebook = nbformat.read(path, 4)
    *group, stage, name = ("", *path.relative_to(notebooks_path()).with_suffix("").parts)[-3:]
    if stage not in NOTEBOOK_STAGES:  # <data set>/<stage> or <stage>, not <data set>/<stage>/<run>
        group, stage, name = [stage], name, ""
    anchor = "-".join(filter(None, (*group, stage, name)))
    body, _ = HTMLExporter(template_name="basic", exclude_anchor_links=True).from_notebook_node(notebook)
    body = re.sub(r'(<h\d) id="[^"]*"', r"\1", body).replace('id="cell-id=', f'id="{anchor}-')  # unique in the site
    place = {"group": group[0], "stage": stage, "name": name, "place": NOTEBOOK_STAGES.index(stage)}
    return place | {"anchor": anchor, "body": body, "about": notebook.metadata.get("rsnlib", {})}


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
