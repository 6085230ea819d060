"""results/index.html: every executed notebook and the tables in one page, complete in itself, with navigation."""

import re
import subprocess
from io import StringIO
from itertools import groupby
from pathlib import Path

import jinja2
import nbformat
from nbconvert import HTMLExporter
from nbconvert.filters import markdown2html
from pygments.formatters import HtmlFormatter
from ruamel.yaml import YAML

from rsnlib.config import load_params, project_root, run_name
from rsnlib.errors import UserError
from rsnlib.files import whole_file

WIDGET = "application/vnd.jupyter.widget-view+json"
TABLES = ("results", "differences")  # come first in an overview
STAGES = ("tables", "figures", "prepare", "train", "evaluate", "networks")  # in the site's order
TEMPLATE = Path(__file__).parent / "site.html"
SOURCES = ("rsnlib", "notebooks", "dvc.yaml", "params.yaml")


def notebooks_folder():
    """Where executed notebooks lie."""
    return project_root() / "work" / "notebooks"


def made_by(stage, item):
    """What makes a stage's results: its name, as `dvc repro` takes it, and its parameters as YAML.

    item: {key of the stage's matrix: value}
    Raises UserError where there is no such stage, or its matrix has other keys, and where params.yaml lacks something.
    """
    root, yaml = project_root(), YAML(typ="safe")
    stages, params = (yaml.load(root / name) for name in ("dvc.yaml", "params.yaml"))
    if stage not in STAGES:
        raise UserError(f"{stage}: not a stage of the pipeline with a notebook; these are {', '.join(sorted(STAGES))}")
    entry = stages["stages"][stage]
    if item.keys() != entry.get("matrix", {}).keys():
        wanted = " ".join(f"--{key}" for key in entry.get("matrix", {})) or "no dataset, model or seed"
        raise UserError(f"the stage {stage} takes {wanted}")
    used = {}
    for template in entry.get("params", []):
        *sections, last = _filled(template, item).split(".")
        place, value = used, params
        try:
            for section in sections:
                place, value = place.setdefault(section, {}), value[section]
            place[last] = value[last]
        except (KeyError, TypeError):
            raise UserError(f"params.yaml: no {_filled(template, item)}, on which the stage {stage} depends") from None
    text, plain = StringIO(), YAML()
    plain.default_flow_style = None  # innermost lists in one line, as in params.yaml
    plain.representer.ignore_aliases = lambda data: True
    plain.dump(used, text)
    name = "-".join(str(item[key]) for key in entry.get("matrix", {}))
    return {"stage": f"{stage}@{name}" if name else stage, "parameters": text.getvalue()}


def _filled(template, item):
    """`template` with its ${item.key} replaced."""
    for key, value in item.items():
        template = template.replace(f"${{item.{key}}}", str(value))
    return template


def clean_notebook(path, about):
    """Take out of an executed notebook what is of no interest to a reader or different each time: papermill's own cell,
    progress bars, times, objects' addresses. The same results leave the same bytes. about: what `made_by` says; stays
    in its metadata.
    """
    notebook = nbformat.read(path, 4)
    kept = {key: value for key, value in notebook.metadata.items() if key == "kernelspec"}
    notebook.metadata = nbformat.from_dict(kept | {"rsnlib": about})
    notebook.cells = [cell for cell in notebook.cells if "injected-parameters" not in cell.metadata.get("tags", [])]
    for number, cell in enumerate(notebook.cells):
        cell.id = f"cell-{number}"
        cell.metadata = nbformat.from_dict({})
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if _is_a_result(output)]
            for data in (output["data"] for output in cell.outputs if "text/plain" in output.get("data", {})):
                data["text/plain"] = re.sub(r" at 0x[0-9a-f]+>", ">", data["text/plain"])
    with whole_file(path, "w") as file:
        nbformat.write(notebook, file)


def _is_a_result(output):
    return output.get("name") != "stderr" and WIDGET not in output.get("data", {})


def write_site():
    """Write results/index.html from the executed notebooks in work/notebooks, those of the runs of params.yaml and no
    older ones, and the tables beside it; returns its path."""
    root, run = project_root(), load_params().run
    groups, names = ("", *run.datasets), ["", *(run_name(model, seed) for model in run.models for seed in run.seeds)]
    chapters = [_chapter(path) for path in notebooks_folder().rglob("*.ipynb")]
    chapters = [each for each in chapters if each["group"] in groups and each["name"] in names]
    if not chapters:
        raise UserError(f"{notebooks_folder()}: no executed notebooks; `dvc repro` makes them")
    chapters.sort(key=lambda each: (each["group"] == "", each["group"], STAGES.index(each["stage"]), each["name"]))
    navigation = [
        (group, [(stage, list(some)) for stage, some in groupby(of_group, lambda each: each["stage"])])
        for group, of_group in groupby(chapters, lambda each: each["group"])
    ]
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    page = environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        chapters=chapters,
        navigation=navigation,
        overviews=[_overview(root / "results" / group) for group, _ in navigation if group],
        commit=_commit(root),
        colors={theme: HtmlFormatter(style=theme).get_style_defs(".highlight") for theme in ("default", "monokai")},
    )
    path = root / "results" / "index.html"
    with whole_file(path, "w") as file:
        file.write(page)
    return path


def _chapter(path):
    """One executed notebook: where it stands (group, a data set or "", stage and name), its body and what made it."""
    notebook = nbformat.read(path, 4)
    *group, stage, name = ("", *path.relative_to(notebooks_folder()).with_suffix("").parts)[-3:]
    if stage not in STAGES:  # <data set>/<stage> or <stage>, not <data set>/<stage>/<run>
        group, stage, name = [stage], name, ""
    anchor = "-".join(filter(None, (*group, stage, name)))
    body, _ = HTMLExporter(template_name="basic", exclude_anchor_links=True).from_notebook_node(notebook)
    body = re.sub(r'(<h\d) id="[^"]*"', r"\1", body).replace('id="cell-id=', f'id="{anchor}-')  # unique in the site
    about = notebook.metadata.get("rsnlib", {})
    return {"group": group[0], "stage": stage, "name": name, "anchor": anchor, "body": body, "about": about}


def _overview(folder):
    """The tables of one data set as HTML."""
    first = {name: place for place, name in enumerate(TABLES)}
    tables = sorted((folder / "tables").glob("*.md"), key=lambda path: (first.get(path.stem, len(first)), path.stem))
    texts = {path.stem.replace("-", " "): path.read_text(encoding="utf-8") for path in tables}
    return {"title": folder.name, "tables": {name: markdown2html(text) for name, text in texts.items()}}


def _commit(root):
    """The commit that the code and parameters are at, in words; "" outside git."""

    def git(*arguments):
        return subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True).stdout.strip()

    changed = git("status", "--porcelain", "--", *SOURCES)
    return git("log", "-1", "--format=%h of %cs") + (", with changes not committed" if changed else "")
