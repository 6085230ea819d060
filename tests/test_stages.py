"""dvc.yaml against the code: each stage depends on the modules that change its result and on the keys that it reads."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from ruamel.yaml import YAML

ROOT = Path(__file__).resolve().parents[1]
STAGES = YAML(typ="safe").load(ROOT / "dvc.yaml")["stages"]
NOTEBOOKS = [stage for stage in STAGES if stage not in ("digest", "site", "starts", "weights")]
ITEM = {"dataset": "demo", "model": "steps-prm", "seed": 0}

# imported, but no change of them can change a result: errors, files and their places; the names of networks, where no
# network is built
HARMLESS = {
    "networks": ["data", "metrics"],  # names of keypoints and metrics
    "prepare": ["metrics", "models"],  # sentences about runs
    "tables": ["data", "models"],
    "ablations": ["data", "models"],
    "train": [],
    "evaluate": [],
    "figures": [],
}
EVERYWHERE = ["errors.py", "files.py", "stages/layout.py", "stages/provenance.py"]
EMPTY = [str(path.relative_to(ROOT / "rsnlib")) for path in (ROOT / "rsnlib").rglob("__init__.py")]
EMPTY = [path for path in EMPTY if path == "__init__.py" or not (ROOT / "rsnlib" / path).read_text().strip()]
# keys that a stage reads only of data sets in a detector's boxes, on which others were published, or where two models
# of an ablation ran
SOMETIMES = {
    "ablations": {"questions"},
    "evaluate": {"datasets.demo.area", "datasets.demo.boxes", "datasets.demo.exif", "datasets.demo.unusable"},
    "figures": {"ablations", "model_lists"},
}

EXECUTE = """
import dataclasses, json, sys
from pathlib import Path
import nbformat
from rsnlib import config

name, item = sys.argv[1], json.loads(sys.argv[2])
sections = {"Dataset": "datasets.demo", "Run": "run", "Train": "train", "Evaluate": "evaluate", "Params": ""}
read, paused = set(), []

def watch(kind, section):
    get = kind.__getattribute__
    def watched(self, name):
        if name in kind.__dataclass_fields__ and not paused:
            read.add(f"{section}.{name}".strip("."))
        return get(self, name)
    kind.__getattribute__ = watched

def unwatched(function):
    def run(*given, **options):
        paused.append(function)
        try:
            return function(*given, **options)
        finally:
            paused.pop()
    return run

for kind, section in sections.items():
    watch(getattr(config, kind), section)
config.parse, config.replace = unwatched(config.parse), unwatched(config.replace)
config._check_models, config._check_skeletons = (unwatched(f) for f in (config._check_models, config._check_skeletons))

load = config.load_params
def load_params(path=None):  # every run is checked when the file is loaded, which is no use of its values
    params = unwatched(load)(path)
    return params
config.load_params = load_params

names = {}
for cell in nbformat.read(f"notebooks/{name}.ipynb", 4).cells:
    if cell.cell_type == "code":
        exec(cell.source, names)
        if "parameters" in cell.metadata.get("tags", []):
            names.update(item)
package = Path(config.__file__).parent
files = (getattr(module, "__file__", None) for key, module in list(sys.modules.items()) if key.startswith("rsnlib"))
modules = sorted(str(Path(file).relative_to(package)) for file in files if file)
print(json.dumps({"modules": modules, "read": sorted(read)}), file=open("seen.json", "w"))
"""


@pytest.fixture(scope="module")
def seen(trained_project, tmp_path_factory):
    """Modules that each stage imports and keys that it reads, with two small runs: {stage: {"modules", "read"}}."""
    project = tmp_path_factory.mktemp("stages") / "project"
    shutil.copytree(trained_project, project, symlinks=True)
    found = {}
    for stage in NOTEBOOKS:
        item = {key: ITEM[key] for key in STAGES[stage].get("matrix", {})}
        environment = os.environ | {"PYTHONPATH": str(ROOT), "MPLBACKEND": "Agg"}
        command = [sys.executable, "-c", EXECUTE, stage, json.dumps(item)]
        done = subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, f"{stage}: {done.stderr[-3000:]}"
        found[stage] = json.loads((project / "seen.json").read_text())
    return found


def covered(path, entries):
    """Return True if a path is among the entries or below one."""
    return any(path == entry or path.startswith(f"{entry.rstrip('/')}/") for entry in entries)


def missing(modules, deps, harmless):
    """Return the modules of rsnlib that are imported, but neither in a stage's deps nor harmless."""
    known = [dep.removeprefix("rsnlib/") for dep in deps if dep.startswith("rsnlib/")] + [
        *harmless,
        *EVERYWHERE,
        *EMPTY,
    ]
    return [module for module in modules if not covered(module, known)]


def test_a_module_that_a_stage_lacks_is_found():
    modules = ["errors.py", "data/store.py", "models/blocks.py"]
    assert missing(modules, ["rsnlib/data", "notebooks/train.ipynb"], []) == ["models/blocks.py"]
    assert missing(modules, ["rsnlib/data/store.py"], ["models"]) == []


@pytest.mark.parametrize("stage", NOTEBOOKS)
def test_a_stage_depends_on_every_module_that_can_change_its_result(seen, stage):
    found = missing(seen[stage]["modules"], STAGES[stage]["deps"], HARMLESS[stage])
    assert found == [], f"{stage}: {', '.join(found)}"


@pytest.mark.parametrize("stage", NOTEBOOKS)
def test_a_stage_depends_on_no_room_that_it_does_not_import(seen, stage):
    modules = seen[stage]["modules"]
    for dep in STAGES[stage]["deps"]:
        if dep.endswith(".html"):
            continue
        if dep.startswith("rsnlib/"):
            assert any(covered(module, [dep.removeprefix("rsnlib/")]) for module in modules), dep


@pytest.mark.parametrize("stage", NOTEBOOKS)
def test_a_stage_depends_on_exactly_the_keys_that_it_reads(seen, stage):
    """A key is a field of one of the classes of rsnlib.config; what lies below it is read as a whole."""
    declared = {
        key.replace("${item.dataset}", "demo").replace(".${item.model}", "") for key in STAGES[stage].get("params", [])
    }
    sections = {"run", "train", "evaluate", "datasets"}
    wholes = {key for key in declared if key in sections}
    elsewhere = {"run.datasets"}  # where the data lie; for what they are, work/digests stands
    read = {key for key in seen[stage]["read"] if key not in sections | elsewhere}
    assert {key for key in read if key not in declared and key.split(".")[0] not in wholes} == set()
    assert {key for key in declared - wholes if key not in read} <= SOMETIMES.get(stage, set())
    assert all(any(key.startswith(f"{whole}.") for key in read) for whole in wholes)
