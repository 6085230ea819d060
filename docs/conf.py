"""Sphinx: the documentation from README.md, docs/ and notebooks/, which `make docs` builds from the project's root."""

import re

project = "rsnlib"
extensions = ["myst_nb", "sphinx.ext.autodoc"]
root_doc = "docs/index"
include_patterns = ["README.md", "docs/*.md", "notebooks/*.ipynb", "results/bench/cuda/h200.md"]
exclude_patterns = [".*", "work", "data", "rsnlib"]
html_theme = "furo"
html_title = "Residual Steps Network"
default_role = "code"  # docstrings write `name`
myst_heading_anchors = 3
nb_execution_mode = "off"


def keep_lines(app, what, name, obj, options, lines):
    """Keep the line breaks in a docstring's list of arguments ("keypoints: (K, 2) ...") and results ("-> ...")."""
    lines[:] = [re.sub(r"^((\w+(, \w+)*:|->) )", r"| \1", line) for line in lines]


def setup(app):
    """Let `keep_lines` read every docstring."""
    app.connect("autodoc-process-docstring", keep_lines)
