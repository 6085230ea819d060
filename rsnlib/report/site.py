"""The page of all results: pictures, a headline, the state of the run, tables, executed notebooks, in one file."""

import base64
import io
import re
from dataclasses import dataclass
from pathlib import Path

import jinja2
from PIL import Image
from pygments.formatters import HtmlFormatter

from rsnlib.report.tables import is_drawn

TEMPLATE = Path(__file__).with_name("site.html")
FRONT = 4  # pictures stand in the first row, above the headline
WIDEST, QUALITY = 1100, 50  # pixels, and of WebP: charts stay sharp, skeletons and faces can be told


@dataclass(frozen=True)
class Picture:
    """A picture and what to say of it.

    alt: what there is to see; made: of which data set and runs; notebook: the name of that which drew it
    chapter: the anchor of the notebook as executed, "" where the page does not have it
    source: a data URI; aspect: width over height
    """

    title: str
    alt: str
    made: str
    notebook: str
    chapter: str
    source: str
    aspect: float


@dataclass(frozen=True)
class Overview:
    """Front page's view of a data set, or of the networks.

    about: a few words behind the name; chapter: the anchor of the executed notebook with the tables, or ""
    headline: sentences; tables: {title: HTML}
    """

    name: str
    about: str
    chapter: str
    pictures: list[Picture]
    headline: str
    tables: dict[str, str]


@dataclass(frozen=True)
class Stage:
    """A stage of the pipeline: its name as `dvc repro` takes it, the anchor of its chapter, "" while it is not done,
    and how long it took, in words."""

    name: str
    chapter: str
    took: str


def render(overviews, networks, stages, processors, trainers, chapters, navigation, commit):
    """Return the page as HTML.

    overviews: an Overview of each data set, the most important first; networks: an Overview
    stages: [Stage]; processors: those that they ran on; trainers: what networks were trained on, in words
    chapters: [{"anchor", "stage", "body" (HTML), "about": {"stage", "parameters"}}]
    navigation: [(group, [(stage, [chapter])])]
    commit: of code and parameters, in words, or ""
    """
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        overviews=overviews,
        front=FRONT,
        networks=networks,
        stages=stages,
        missing=[stage.name for stage in stages if not stage.chapter],
        processors=processors,
        trainers=trainers,
        chapters=chapters,
        navigation=navigation,
        commit=commit,
        colors={theme: HtmlFormatter(style=theme).get_style_defs(".highlight") for theme in ("default", "monokai")},
    )


# ---- words


def headline(dataset, table, people, differences):
    """Return the best of a data set's networks and, from the second on, how they differ: one sentence, or two.

    table: of tables.results_table; people: {"train": number, "val": number}; differences: Markdown of
    tables.differences, whose first group is told
    """
    metric = table.columns[table.columns.get_loc("input") + 1]
    best = table.loc[table[metric].idxmax()]
    numbers = f"{best[metric]:.1f}{' AP' if metric == 'AP' else ' % of keypoints right'}"
    numbers += f" [{best[f'{metric} low']:.1f}, {best[f'{metric} high']:.1f}]"
    drawn = "drawn " if is_drawn(dataset) else ""
    learnt = f"{dataset}, {people['train']:,} {drawn}people"
    judged = f"on {people['val']:,} {drawn}people whom no network had seen"
    if len(table) > 1:
        text = f"Of {len(table)} networks trained on {learnt}, {best['model']} scores highest: {numbers} {judged}."
    else:
        text = f"Trained on {learnt}, {best['model']} reaches {numbers} {judged}."
    found = re.search(r"^- [^:]+: (.+)$", differences, re.MULTILINE)
    return f"{text} Side by side, {found[1]}" if found else text


def networks_headline(table):
    """Return what is known of networks before any is trained. table: columns model and "ratio", our multiply-adds over
    the published ones"""
    known = table["ratio"].dropna()
    return (
        f"{table['model'].nunique()} networks stand here with their cost, counted operation by operation; the "
        f"{len(known)} whose cost was published have {known.min():.2f} to {known.max():.2f} times the published one."
    )


def duration(seconds):
    """Return a time in words: "8 s", "4 min 10 s", "2 h 5 min"."""
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds} s"
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {seconds} s"


# ---- pictures and tables as HTML


def embed(contents):
    """Return a picture file's data URI and aspect (width over height): as WebP, no wider than WIDEST."""
    picture = Image.open(io.BytesIO(contents)).convert("RGB")
    picture.thumbnail((WIDEST, 10 * WIDEST))
    file = io.BytesIO()
    picture.save(file, "WEBP", quality=QUALITY)
    source = f"data:image/webp;base64,{base64.b64encode(file.getvalue()).decode()}"
    return source, picture.width / picture.height


def scrolling(html):
    """Return HTML whose tables scroll in themselves, by keyboard, too."""
    html = re.sub(r"<table\b", '<div class="wide" tabindex="0"><table', html)
    return html.replace("</table>", "</table></div>")
