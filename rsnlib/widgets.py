"""The controls of the notebooks that are for a person. Their `value` is what was chosen."""

from itertools import islice

import ipywidgets

from rsnlib import pipeline
from rsnlib.config import project_root
from rsnlib.overlays import PICTURES

SUGGESTIONS = 200
WIDE = ipywidgets.Layout(width="36rem")


def choose_run():
    """Which weights under work/models; the value is their path."""
    return ipywidgets.Dropdown(options=pipeline.trained(), description="run", layout=WIDE)


def choose_picture():
    """Which picture: any path may be typed; some of the pictures below data/ are suggested."""
    paths = (str(path) for path in (project_root() / "data").rglob("*") if path.suffix.lower() in PICTURES)
    found = sorted(islice(paths, SUGGESTIONS))
    value = found[0] if found else ""
    return ipywidgets.Combobox(options=found, value=value, description="picture", layout=WIDE)
