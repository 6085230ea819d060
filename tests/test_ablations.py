"""The ablations of params.yaml, each trained and judged in small."""

import json
import shutil
from functools import reduce
from operator import getitem

import pytest
import torch
from ruamel.yaml import YAML

from rsnlib.config import load_params, project_root
from rsnlib.errors import UserError
from rsnlib.stages.artifacts import load_run
from rsnlib.stages.evaluate import evaluate, predicted_crops
from rsnlib.stages.figures import heads_of
from rsnlib.stages.networks import networks
from rsnlib.stages.prepare import prepare
from rsnlib.stages.results import load_metrics
from rsnlib.stages.stores import load_store
from rsnlib.stages.tables import compare, tables
from rsnlib.stages.train import train
from rsnlib.training.states import States


@pytest.fixture
def project(tmp_path, demo_folder, monkeypatch):
    """A function: change params.yaml of a folder with eight drawn people, where networks are narrow, with one block per
    level, and trained for two batches."""
    values = json.loads(json.dumps(YAML(typ="safe").load(project_root() / "params.yaml")))
    values["datasets"]["demo"] |= {"input_size": [64, 64], "more_input_sizes": {"large": [96, 96]}}
    values["datasets"]["demo"]["recipe"] |= {"batch_size": 4, "length": {"epochs": 1}}
    values["train"]["validations"] = 1
    for lines in values["ablations"].values():
        for line in lines.values():
            line |= {"depths": [1, 1, 1, 1], "width": line.get("width", 1) / 4}
    shutil.copytree(demo_folder, tmp_path / "data/demo")
    for name in ("dvc.yaml", "rsnlib", "notebooks"):
        (tmp_path / name).symlink_to(project_root() / name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(States, "save", lambda *_: None)

    def change(changes=None):
        for key, value in (changes or {}).items():
            *parents, last = key.split(".")
            reduce(getitem, parents, values)[last] = value
        YAML(typ="safe").dump(values, tmp_path / "params.yaml")
        return load_params()

    return change


def test_every_ablation_is_trained_and_judged(project, committed):
    params = project()
    models = {name: line for lines in params.ablations.values() for name, line in lines.items()}
    params = project({"run.models": models})
    prepare("demo")
    marks, first_layers = set(), {}
    for model in models:
        train("demo", model, 0)
        evaluate("demo", model, 0)
        found = load_run("demo", model, 0)
        assert found.architecture == params.model(model).architecture
        marks.add(found.about["params"])
        first_layers[model] = found.stem.conv.weight

    assert len(marks) == len(models)  # none goes on with the state of another
    for base, *others in params.ablations.values():
        for other in others:
            assert not torch.equal(first_layers[base], first_layers[other]), other
    metrics = load_metrics("demo")
    written = tables("demo")
    assert set(compare("demo")) == set(params.ablations) and "Differences" in written
    assert metrics["model"].tolist() == list(params.run.models) and set(metrics["model"]) == set(models)
    assert metrics.loc[metrics["input"] == "96x96", "model"].tolist() == ["rsn18-large"]
    assert predicted_crops("demo", "rsn18-large", 0, count=2)[0].shape == (2, 96, 96, 3)
    crop, heads, _ = heads_of("demo", "rsn18-large", 0, person=0, keypoint=0)
    assert crop.shape == (96, 96, 3) and heads.shape == (1, 4, 17, 24, 24)


def test_a_model_of_another_input_size_has_crops_of_its_own(project):
    project()
    prepare("demo")
    usual, large = (load_store("demo", "val", model) for model in ("rsn18", "rsn18-large"))
    assert (usual.path.name, usual.window(0).shape) == ("val.safetensors", (64, 64, 3))
    assert (large.path.name, large.window(0).shape) == ("val-large.safetensors", (96, 96, 3))
    assert usual.people.ids.tolist() == large.people.ids.tolist()
    project({"datasets.demo.more_input_sizes": {"large": [128, 128]}})
    with pytest.raises(UserError, match="train-large.safetensors: made for another input_size; run the stage `prep"):
        train("demo", "rsn18-large", 0)
    message = r"run\.models\.rsn18-large\.input_size is 'large', .*datasets\.demo\.more_input_sizes"
    with pytest.raises(UserError, match=message):
        large = {"network": "rsn18", "input_size": "large"}
        project({"run.models": {"rsn18": {}, "rsn18-large": large}, "datasets.demo.more_input_sizes": {}})


def test_a_run_is_known_by_what_it_is_trained_with_and_by_nothing_else(project):
    def mark(changes=None):
        project(changes)
        prepare("demo")
        train("demo", "rsn18", 0)
        return load_run("demo", "rsn18", 0).about["params"]

    line = {"depths": [1, 1, 1, 1], "width": 0.25}
    first = mark({"run.models": {"rsn18": line}})
    assert mark({"datasets.demo.more_input_sizes": {}, "ablations": {}}) == first
    assert mark({"run.models": {"rsn18": line | {"hard_keypoints": 7}}}) != first


def test_models_that_only_train_a_network_otherwise_are_no_networks_of_their_own(project):
    lines = {
        "res18": {"hard_keypoints": 7},
        "res18-no-mining": {"network": "res18", "hard_keypoints": "all"},
        "res18-narrow": {"network": "rsn18", "branch_width": 8},
    }
    project({"ablations": {"some": lines}})
    table, _ = networks()
    assert "res18-narrow" in set(table["model"]) and "res18-no-mining" not in set(table["model"])
    assert {"res18", "4xrsn50", "4xmspn50"} <= set(table["model"])
