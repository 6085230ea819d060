"""A machine that only trains and predicts, with the few packages that docs/experiments.md lists."""

import contextlib
import re
import sys
from importlib import metadata
from pathlib import Path

import pytest
from checkout import ROOT, run
from packaging.requirements import Requirement
from ruamel.yaml import YAML

from rsnlib.data import batches
from rsnlib.errors import UserError
from rsnlib.stages import train as train_stage
from rsnlib.stages.results import load_curve

SCRIPT = """
import sys
import rsnlib
import rsnlib.inference.predict, rsnlib.training.loop
assert not {"pandas", "scipy"} & set(sys.modules)
from rsnlib.__main__ import main
from rsnlib.data.images import read_image
from rsnlib.stages.stores import load_store

for words in ("demo data/more --train 2 --val 1", "prepare --dataset demo", "train --dataset demo --model plain"):
    sys.argv = ["rsnlib", *words.split()]
    main()
people = load_store("demo", "val").people
model = rsnlib.load_model("work/models/demo/plain-0.safetensors")
poses = rsnlib.predict(model, read_image(people.images[0]), people.boxes[:1])
print("predicted", poses.keypoints.shape)
"""


def link_packages(folder, names):
    """Fill a folder with links to installed packages of these names and to what they need."""
    wanted = list(names)
    for name in wanted:  # grows on the way
        for requirement in map(Requirement, metadata.requires(name) or []):
            needed = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
            with contextlib.suppress(metadata.PackageNotFoundError):  # of another build of torch
                if needed and requirement.name not in wanted:
                    metadata.distribution(requirement.name)
                    wanted.append(requirement.name)
        for top in {file.parts[0] for file in metadata.files(name)} - {".."}:
            if not (folder / top).exists():
                (folder / top).symlink_to(metadata.distribution(name).locate_file(top))


def shorten_demo():
    """Set the length of the demo's recipe to two iterations."""
    params = YAML(typ="safe").load(Path("params.yaml"))
    params["datasets"]["demo"]["recipe"]["length"] = {"iterations": 2}
    Path("params.yaml").unlink()  # a link to the file of other tests
    YAML(typ="safe").dump(params, Path("params.yaml"))


def test_the_listed_packages_suffice_to_prepare_train_and_predict(project, tmp_path, monkeypatch):
    shorten_demo()
    listed = re.search(r"^pip install (torch .*)$", (ROOT / "docs/experiments.md").read_text(), re.MULTILINE)[1]
    (tmp_path / "packages").mkdir()
    link_packages(tmp_path / "packages", listed.split())
    assert not (tmp_path / "packages/dvc").exists()
    said = run(project, sys.executable, "-S", "-c", SCRIPT, PYTHONPATH=f"{tmp_path}/packages:{ROOT}")
    assert "train: 12 people" in said and said.endswith("predicted (1, 17, 2)\n")
    assert said.count("no curves are written") == 1
    monkeypatch.setattr(batches, "make_batch", None)  # must not be called: with dvclive the curves, no training
    curve = train_stage.train("demo", "plain", 0)
    assert load_curve("demo", "plain", 0)["loss"].tolist() == pytest.approx(curve["loss"].tolist())


def test_a_data_set_judged_by_ap_asks_for_pycocotools_before_it_is_trained_on(project, monkeypatch):
    monkeypatch.setitem(sys.modules, "pycocotools.coco", None)
    monkeypatch.setattr(train_stage.loop, "train", None)  # must not be called
    with pytest.raises(UserError, match="COCO's AP needs a package: `pip install pycocotools`"):
        train_stage.train("demo", "plain", 0)
