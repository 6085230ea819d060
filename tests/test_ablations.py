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
from rsnlib.models import network
from rsnlib.stages import evaluate as evaluate_stage
from rsnlib.stages import figures as figures_stage
from rsnlib.stages import layout
from rsnlib.stages import networks as networks_stage
from rsnlib.stages import prepare as prepare_stage
from rsnlib.stages import tables as tables_stage
from rsnlib.stages import train as train_stage
from rsnlib.training.states import States


@pytest.fixture
def project(tmp_path, demo_folder, monkeypatch):
    """A function: change params.yaml of a folder with eight drawn people, where networks are narrow, with one block a
    level, and trained for two batches."""
    values = json.loads(json.dumps(YAML(typ="safe").load(project_root() / "params.yaml")))
    values["datasets"]["demo"] |= {"input_size": [64, 64], "more_input_sizes": {"large": [96, 96]}}
    values["datasets"]["demo"]["schedule"]["batch_size"] = 4
    values["train"] |= {"epochs": 1, "validations": 1}
    for line in values["models"].values():
        line["depths"] = [1, 1, 1, 1]
    shutil.copytree(demo_folder, tmp_path / "data/demo")
    for name in ("dvc.yaml", "rsnlib", "notebooks"):
        (tmp_path / name).symlink_to(project_root() / name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(network, "WIDTHS", (8, 16, 32, 64))
    monkeypatch.setattr(network, "UP_CHANNELS", 16)
    monkeypatch.setattr(States, "save", lambda *_: None)

    def change(changes=None):
        for key, value in (changes or {}).items():
            *parents, last = key.split(".")
            reduce(getitem, parents, values)[last] = value
        YAML(typ="safe").dump(values, tmp_path / "params.yaml")
        return load_params()

    return change


def test_every_ablation_is_trained_and_judged(project, committed):
    models = sorted(set().union(*committed.ablations.values()))
    params = project({"run.models": models})
    prepare_stage.prepare("demo")
    marks, first_layers = set(), {}
    for model in models:
        train_stage.train("demo", model, 0)
        evaluate_stage.evaluate("demo", model, 0)
        found = layout.load_run("demo", model, 0)
        assert found.architecture == params.model(model).architecture
        marks.add(found.about["params"])
        first_layers[model] = found.stem.conv.weight

    assert len(marks) == len(models)  # none goes on with the state of another
    for base, *others in params.ablations.values():
        for other in others:
            assert not torch.equal(first_layers[base], first_layers[other]), other
    figures = layout.load_figures("demo")
    written = tables_stage.tables("demo")
    assert {f"Ablation: {group}" for group in params.ablations} <= set(written)
    assert figures["model"].tolist() == models
    assert (figures["input"] == "96x96").tolist() == [model == "rsn18-large" for model in models]
    assert evaluate_stage.predicted_crops("demo", "rsn18-large", 0, count=2)[0].shape == (2, 96, 96, 3)
    crop, heads, _ = figures_stage.heads_of("demo", "rsn18-large", 0, person=0, keypoint=0)
    assert crop.shape == (96, 96, 3) and heads.shape == (1, 4, 17, 24, 24)


def test_a_model_of_another_input_size_has_crops_of_its_own(project):
    project()
    prepare_stage.prepare("demo")
    usual, large = (layout.load_store("demo", "val", model) for model in ("rsn18", "rsn18-large"))
    assert (usual.path.name, usual.window(0).shape) == ("val.safetensors", (64, 64, 3))
    assert (large.path.name, large.window(0).shape) == ("val-large.safetensors", (96, 96, 3))
    assert usual.people.ids.tolist() == large.people.ids.tolist()


def test_a_size_that_a_data_set_lacks_is_named_before_anything_runs(project):
    with pytest.raises(
        UserError, match=r"models\.rsn18-large\.input_size is 'large', .*datasets\.demo\.more_input_sizes"
    ):
        project({"run.models": ["rsn18", "rsn18-large"], "datasets.demo.more_input_sizes": {}})


def test_crops_of_an_earlier_size_are_refused(project):
    project()
    prepare_stage.prepare("demo")
    project({"datasets.demo.more_input_sizes": {"large": [128, 128]}})
    with pytest.raises(
        UserError, match="train-large.safetensors: made for another input_size; run the stage `prepare`"
    ):
        train_stage.train("demo", "rsn18-large", 0)


def test_a_run_is_known_by_what_it_is_trained_with_and_by_nothing_else(project):
    def mark():
        prepare_stage.prepare("demo")
        train_stage.train("demo", "rsn18", 0)
        return layout.load_run("demo", "rsn18", 0).about["params"]

    project()
    first = mark()
    project({"datasets.demo.more_input_sizes": {}, "ablations": {}, "models.res18.branches": 3})
    assert mark() == first
    project({"models.rsn18.hard_keypoints": 7})
    assert mark() != first


def test_lines_that_only_train_a_network_otherwise_are_no_networks_of_their_own(project):
    lines = {
        "res18": {"block": "bottleneck"},
        "res18-no-mining": {"block": "bottleneck", "hard_keypoints": None},
        "res18-large": {"block": "bottleneck", "input_size": "large"},
        "2xres18-no-cross-stage": {"block": "bottleneck", "stages": 2, "cross_stage": False},
    }
    project({"models": lines, "run.models": ["res18"], "model_lists": {}, "ablations": {}})
    table, _ = networks_stage.networks()
    assert set(table["model"]) == {"res18", "2xres18-no-cross-stage"}
