"""Provenance of results: fingerprints of code, the machine, and what `dvc repro` runs a stage with."""

import hashlib
import platform
from io import StringIO
from pathlib import Path

import torch
from ruamel.yaml import YAML

from rsnlib.config import project_root
from rsnlib.errors import UserError
from rsnlib.files import fingerprint

NOTEBOOK_STAGES = ("tables", "figures", "prepare", "train", "evaluate", "networks")  # in the order of the site


def code_fingerprint(*stages):
    """Return the fingerprint of the code that stages of dvc.yaml depend on: modules of rsnlib and notebooks."""
    known = _read("dvc.yaml")["stages"]
    paths = [path for stage in stages for path in known[stage]["deps"] if path.startswith(("rsnlib", "notebooks"))]
    return fingerprint(digests(project_root(), paths))


def digests(root, paths):
    """Return {path below `root`: SHA-256} of files, and of the code in folders."""
    paths = [Path(root, path) for path in paths]
    folders = [path for path in paths if path.is_dir()]
    files = {file for folder in folders for kind in ("*.py", "*.c") for file in folder.rglob(kind)}
    files |= set(paths) - set(folders)
    return {str(file.relative_to(root)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def machine():
    """Return hardware and software of this machine in a few words."""
    threads = torch.get_num_threads()
    cpu = f"{threads} CPU thread" + ("s" if threads > 1 else "")
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else cpu
    return f"{device}, torch {torch.__version__.split('+')[0]}, Python {platform.python_version()}"


def made_by(stage, item):
    """Return what makes a stage's results: {"stage": name as `dvc repro` takes it, "parameters": YAML}.

    item: {key of the stage's matrix: value}
    Raises UserError where there is no such stage or its matrix has other keys, and where params.yaml lacks something.
    """
    stages, params = (_read(name) for name in ("dvc.yaml", "params.yaml"))
    if stage not in NOTEBOOK_STAGES:
        known = ", ".join(sorted(NOTEBOOK_STAGES))
        raise UserError(f"{stage}: not a stage of the pipeline with a notebook; these are {known}")
    entry = stages["stages"][stage]
    if item.keys() != entry.get("matrix", {}).keys():
        wanted = " ".join(f"--{key}" for key in entry.get("matrix", {})) or "no dataset, model or seed"
        raise UserError(f"the stage {stage} takes {wanted}")
    used = {}
    for template in entry.get("params", []):
        key = _filled(template, item)
        *sections, last = key.split(".")
        place, value = used, params
        try:
            for section in sections:
                place, value = place.setdefault(section, {}), value[section]
            place[last] = value[last]
        except (KeyError, TypeError):
            raise UserError(f"params.yaml: no {key}, on which the stage {stage} depends") from None
    text, plain = StringIO(), YAML()
    plain.default_flow_style = None  # innermost lists in one line, as in params.yaml
    plain.representer.ignore_aliases = lambda data: True
    plain.dump(used, text)
    name = "-".join(str(item[key]) for key in entry.get("matrix", {}))
    return {"stage": f"{stage}@{name}" if name else stage, "parameters": text.getvalue()}


def _read(name):
    """Return the values of a YAML file of the project."""
    return YAML(typ="safe").load(project_root() / name)


def _filled(template, item):
    """Return `template` with each ${item.key} replaced."""
    for key, value in item.items():
        template = template.replace(f"${{item.{key}}}", str(value))
    return template
