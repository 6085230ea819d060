"""Provenance of results: fingerprints of code, the machine, the time, and what `dvc repro` runs a stage with."""

import contextlib
import hashlib
import platform
import re
import time
from io import StringIO
from itertools import product
from pathlib import Path

from ruamel.yaml import YAML

from rsnlib.errors import UserError
from rsnlib.files import fingerprint, project_root, read_json, write_json
from rsnlib.stages.layout import time_path

# in the order of the site
NOTEBOOK_STAGES = ("tables", "ablations", "figures", "prepare", "train", "evaluate", "networks")


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
    import torch  # not at the top: the command of a stage, which reads dvc.yaml alone, starts in half of the time

    from rsnlib.device import cores

    cpu = f"{cores()} CPU core" + ("s" if cores() > 1 else "")
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else cpu
    return f"{device}, torch {torch.__version__.split('+')[0]}, Python {platform.python_version()}"


def processor():
    """Return the name of this machine's processor."""
    with contextlib.suppress(OSError):
        if found := re.search(r"model name\s*: (.+)", Path("/proc/cpuinfo").read_text()):
            return found[1]
    return platform.processor() or platform.machine()


@contextlib.contextmanager
def timed(stage, mark=None, resumed=False):
    """Record how long a stage takes, and on which processor, for the site: in work/times/.

    stage: its name as `dvc repro` takes it
    mark: of a stage that goes on where it was interrupted; while the mark is the same, times add up until the stage is
        finished once, and none is recorded where a part is `resumed` whose time is unknown
    """
    before, start, done = read_time(stage) or {}, time.monotonic(), False
    known = mark is not None and before.get("mark") == mark
    if resumed and not known:
        time_path(stage).unlink(missing_ok=True)
    if resumed and not known or known and before["done"]:
        yield
        return
    try:
        yield
        done = True
    finally:
        seconds = time.monotonic() - start + (before["seconds"] if known else 0)
        record = {"seconds": seconds, "processor": processor(), "mark": mark, "done": done}
        write_json(time_path(stage), record)


def read_time(stage):
    """Return what `timed` recorded of a stage: {"seconds", "processor", "mark", "done"}; None: nothing."""
    path = time_path(stage)
    return read_json(path) if path.is_file() else None


def stage_name(stage, item):
    """Return the name by which `dvc repro` takes a stage. item: {key of its matrix: value}"""
    return "@".join(filter(None, (stage, "-".join(map(str, item.values())))))


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
        place = used
        for section in sections:
            place = place.setdefault(section, {})
        place[last] = _looked_up(params, key, stage)
    text, plain = StringIO(), YAML()
    plain.default_flow_style = None  # innermost lists in one line, as in params.yaml
    plain.representer.ignore_aliases = lambda data: True
    plain.dump(used, text)
    return {"stage": stage_name(stage, item), "parameters": text.getvalue()}


def pipeline():
    """Return every stage that `dvc repro` runs, in its order: {name as `dvc repro` takes it: (stage, item)}, with item
    as for `made_by`."""
    stages, params = (_read(name) for name in ("dvc.yaml", "params.yaml"))
    found = {}
    for stage, entry in stages["stages"].items():
        matrix = entry.get("matrix") or ({"dataset": entry["foreach"]} if "foreach" in entry else {})
        lists = [_looked_up(params, template[2:-1], stage) for template in matrix.values()]  # of ${run.models}
        for values in product(*lists):
            item = dict(zip(matrix, values))
            found[stage_name(stage, item)] = stage, item
    return found


def place_in_pipeline(name):
    """Return a stage's place, "stage 3 of 11": all stages before it are done when `dvc repro` runs it. None: `run` in
    params.yaml does not list its data set, model or seed."""
    names = list(pipeline())
    return f"stage {names.index(name) + 1} of {len(names)}" if name in names else None


def _looked_up(params, key, stage):
    """Return the value of a key, "a.b.c"; a UserError names it where it is missing."""
    value = params
    try:
        for part in key.split("."):
            value = value[part]
    except (KeyError, TypeError):
        raise UserError(f"params.yaml: no {key}, on which the stage {stage} depends") from None
    return value


def _read(name):
    """Return the values of a YAML file of the project."""
    return YAML(typ="safe").load(project_root() / name)


def _filled(template, item):
    """Return `template` with each ${item.key} replaced."""
    for key, value in item.items():
        template = template.replace(f"${{item.{key}}}", str(value))
    return template
