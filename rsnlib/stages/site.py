"""Stage `site`: pictures, headline, state of the run, tables and executed notebooks in one page, results/index.html."""

import base64
import re
import subprocess
from functools import cache
from html import escape
from itertools import groupby

import nbformat
import pandas as pd
from nbconvert import HTMLExporter
from nbconvert.filters import markdown2html

from rsnlib.errors import UserError
from rsnlib.files import project_root, read_json, whole_file
from rsnlib.report import site
from rsnlib.report.tables import is_drawn
from rsnlib.stages.layout import executed_path, notebooks_path, results_path, run_name, training_path
from rsnlib.stages.provenance import NOTEBOOK_STAGES, pipeline, read_time

SOURCES = ("rsnlib", "notebooks", "dvc.yaml", "params.yaml")  # what a commit stands for
TABLES = ("results", "differences", "published")  # the first of an overview

# by the beginning of their names: title, what there is to see, and True for those of a single run
FIGURES = {
    "poses": (
        "Poses",
        "Validation pictures with everyone's predicted skeleton: left limbs blue, right ones orange.",
        True,
    ),
    "heads": (
        "Heatmaps, coarse to fine",
        "A person's crop and one keypoint's heatmap over it, from each head, the coarsest to the finest.",
        True,
    ),
    "attention": (
        "Attention",
        "The weights of the Pose Refine Machine for one person: a bar and a map over the crop per keypoint.",
        True,
    ),
    "cost": ("Accuracy against cost", "A mark per network: its accuracy against its multiply-adds per person.", False),
    "predictions": (
        "Best, median and worst",
        "People with their true and their predicted skeletons, side by side.",
        True,
    ),
    "keypoints": ("Every keypoint", "A person's crop with the final heatmap of each keypoint over it.", True),
    "training": ("Training", "Curves of the loss, the validation accuracy and the learning rate by epoch.", False),
}


def write_site():
    """Write results/index.html from the pictures and tables in results/ and the executed notebooks of the pipeline;
    returns its path.

    The page names the stages whose notebooks are still missing.
    """
    ran = {name: each for name, each in pipeline().items() if each[0] in NOTEBOOK_STAGES}
    found = {name: _chapter(*each) for name, each in ran.items()}
    chapters = [each for each in found.values() if each]
    if not chapters:
        raise UserError(f"{notebooks_path()}: no executed notebooks; `dvc repro` makes them")
    chapters.sort(key=lambda each: (each["group"] == "", each["group"], each["place"], each["name"]))
    navigation = [
        (group, [(stage, list(some)) for stage, some in groupby(of_group, lambda each: each["stage"])])
        for group, of_group in groupby(chapters, lambda each: each["group"])
    ]
    times = {name: read_time(name) for name in ran}
    took = {name: site.duration(time["seconds"]) if time else "" for name, time in times.items()}
    stages = [site.Stage(name, each["anchor"] if each else "", took[name]) for name, each in found.items()]
    processors = dict.fromkeys(time["processor"] for time in times.values() if time)
    reports = [training_path(*item.values(), "run.json") for stage, item in ran.values() if stage == "train"]
    trainers = dict.fromkeys(read_json(path)["machine"] for path in reports if path.is_file())
    datasets = {path.parents[1].name for path in results_path().glob("*/tables/*.md")}
    datasets |= {group for group, _ in navigation if group}
    datasets = sorted(datasets, key=lambda name: (is_drawn(name), name))
    overviews = [_dataset(name, [each for each in chapters if each["group"] == name]) for name in datasets]
    networks = _networks("networks" if found["networks"] else "")
    path = results_path("index.html")
    with whole_file(path, "w") as file:
        about = stages, list(processors), list(trainers), chapters, navigation, _commit()
        file.write(site.render(overviews, networks, *about))
    return path


def pictures():
    """Return the paths of three pictures to begin with: poses, predictions and the cost of networks."""
    first = next(item["dataset"] for _, item in pipeline().values() if "dataset" in item)
    figures = results_path(first, "figures")
    return figures / "poses.jpg", figures / "predictions.jpg", results_path("networks", "cost.png")


# ---- chapters


def _chapter(stage, item):
    """Return a stage's executed notebook as a chapter: its place (group, a data set or "", stage and name), its body,
    its pictures and what made it. None: not executed, or not to the end."""
    path = executed_path(stage, item)
    notebook = nbformat.read(path, 4) if path.is_file() else None
    if not notebook or "rsnlib" not in notebook.metadata:
        return None
    group, name = item.get("dataset", ""), run_name(item["model"], item["seed"]) if "model" in item else ""
    anchor = "-".join(filter(None, (group, stage, name)))
    shown = _embed_pictures(notebook)
    body, _ = _exporter().from_notebook_node(notebook)
    body = body.replace("</h1>", f": {escape(name)}</h1>", 1) if name else body
    body = re.sub(r'(<h\d) id="[^"]*"', r"\1", body).replace('id="cell-id=', f'id="{anchor}-')  # unique in the site
    place = {"group": group, "stage": stage, "name": name, "place": NOTEBOOK_STAGES.index(stage), "pictures": shown}
    return place | {"anchor": anchor, "body": site.scrolling(body), "about": notebook.metadata["rsnlib"]}


@cache
def _exporter():
    """Return the exporter of all chapters: it compiles its templates once."""
    return HTMLExporter(template_name="basic", exclude_anchor_links=True)


def _embed_pictures(notebook):
    """Make every picture in the outputs of a notebook HTML that embeds it, with the heading above it as its text;
    returns them, as of `embed`."""
    heading, shown = "", []
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            heading = (re.findall(r"^#+ (.+)$", cell.source, re.MULTILINE) or [heading])[-1]
        for output in cell.get("outputs", []):
            for kind in {"image/png", "image/jpeg"} & output.get("data", {}).keys():
                shown.append(site.embed(base64.b64decode(output["data"][kind])))
                picture = f'<img src="{shown[-1][0]}" alt="{escape(heading)}" loading="lazy">'
                output["data"] = nbformat.from_dict({"text/html": f'<button class="picture">{picture}</button>'})
    return shown


# ---- the front page


def _dataset(name, chapters):
    """Return the Overview of a data set. chapters: those of its stages"""
    done = {each["stage"]: each["anchor"] for each in chapters}
    reports = [read_json(path) for path in sorted(results_path(name, "train").glob("*/run.json"))]
    table, headline, runs = results_path(name, "tables", "results.csv"), "", []
    if table.is_file() and reports:
        table = pd.read_csv(table)
        runs = [(each["model"], each["seed"]) for model in table["model"] for each in reports if each["model"] == model]
        differences = "".join(path.read_text("utf-8") for path in results_path(name).glob("*/differences.md"))
        headline = site.headline(name, table, reports[0]["people"], differences)
    shown = _pictures(name, runs, done.get("figures", ""))
    if not shown:
        people = "People of the data set with their keypoints, as networks see them in training."
        last = [picture for each in chapters if each["stage"] == "prepare" for picture in each["pictures"]][-1:]
        shown = [site.Picture("People", people, f"data set {name}", "prepare", done["prepare"], *each) for each in last]
    about = ["drawn people"] * is_drawn(name) + ["an earlier run, without its notebooks"] * (not done)
    return site.Overview(name, "; ".join(about), done.get("tables", ""), shown, headline, _tables(name, "*/*.md"))


def _networks(chapter):
    """Return the Overview of the networks. chapter: the anchor of their notebook, "" where it is missing."""
    table, figure = results_path("networks", "networks.csv"), results_path("networks", "cost.png")
    shown, headline = [], ""
    if table.is_file() and figure.is_file():
        title, alt, _ = FIGURES["cost"]
        made = "published validation results on COCO"
        shown = [site.Picture(title, alt, made, "networks", chapter, *site.embed(figure.read_bytes()))]
        headline = site.networks_headline(pd.read_csv(table))
    return site.Overview("networks", "", chapter, shown, headline, _tables("networks", "*.md"))


def _pictures(dataset, runs, chapter):
    """Return the figures of a data set as [Picture], at most one of each kind: of the last run where each run has one.
    Those behind the first row are left to the chapter that has all, where there is one.

    runs: [(model, seed)]; chapter: the anchor of the executed notebook `figures`, or ""
    """
    folder, found = results_path(dataset, "figures"), []
    whose = {run_name(*run): "model {}, seed {}".format(*run) for run in reversed(runs)}
    everyone = f"models {', '.join(dict.fromkeys(model for model, _ in runs))}"
    for kind, (title, alt, single) in list(FIGURES.items())[: site.FRONT if chapter else None]:
        names = {f"{kind}-{run}": about for run, about in whose.items()}
        names[kind] = next(iter(whose.values()), "") if single else everyone
        places = [(folder / f"{name}.{suffix}", about) for name, about in names.items() for suffix in ("jpg", "png")]
        path, about = next(((path, about) for path, about in places if path.is_file()), (None, ""))
        if path:
            made = f"data set {dataset}, {about}"
            found.append(site.Picture(title, alt, made, "figures", chapter, *site.embed(path.read_bytes())))
    return found


def _tables(name, pattern):
    """Return the tables below results/<name>/, {title: HTML}."""
    first = {name: place for place, name in enumerate(TABLES)}
    paths = results_path(name).glob(pattern)
    paths = sorted(paths, key=lambda path: (first.get(path.stem, len(first)), path.stem))
    return {path.stem.replace("-", " "): site.scrolling(markdown2html(path.read_text("utf-8"))) for path in paths}


def _commit():
    """Return the commit of code and parameters, in words; "" outside git."""

    def git(*arguments):
        done = subprocess.run(["git", *arguments], cwd=project_root(), capture_output=True, text=True)
        return done.stdout.strip()

    changed = git("status", "--porcelain", "--", *SOURCES)
    return git("log", "-1", "--format=%h of %cs") + (", with changes not committed" if changed else "")
