"""The page of all results: executed notebooks and tables, complete in itself, with navigation."""

from pathlib import Path

import jinja2
from pygments.formatters import HtmlFormatter

TEMPLATE = Path(__file__).with_name("site.html")


def render(chapters, navigation, overviews, missing, commit):
    """Return the page as HTML.

    chapters: [{"anchor", "stage", "body" (HTML), "about": {"stage", "parameters"}}]
    navigation: [(group, [(stage, [chapter])])]; overviews: [{"title", "tables": {name: HTML}}]
    missing: names of stages whose chapters are still to come
    commit: of code and parameters, in words, or ""
    """
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        chapters=chapters,
        navigation=navigation,
        overviews=overviews,
        missing=missing,
        commit=commit,
        colors={theme: HtmlFormatter(style=theme).get_style_defs(".highlight") for theme in ("default", "monokai")},
    )
