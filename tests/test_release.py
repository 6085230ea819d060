"""The stage `weights`: a run as a half-precision file with a card, found by name."""

import pytest
import torch
from ruamel.yaml import YAML

import rsnlib
from rsnlib.errors import UserError
from rsnlib.stages import release as stage
from rsnlib.stages.layout import weights_path

RUN = {"dataset": "demo", "model": "steps-prm", "seed": 0, "licence": "drawn people: for anything"}


def list_release(project, **changes):
    """List the run `steps-prm` in params.yaml as the weights "drawn"."""
    params = YAML(typ="safe").load(project / "params.yaml")
    params["release"] = {"drawn": RUN | changes}
    (project / "params.yaml").unlink()
    YAML().dump(params, project / "params.yaml")


@pytest.fixture
def released(project):
    """A project whose run was released as `drawn`."""
    list_release(project)
    stage.release("drawn")
    return project


def test_released_weights_are_the_runs_in_half_the_bytes(released):
    file, whole = released / "weights/drawn.safetensors", weights_path("demo", "steps-prm", 0)
    assert file.stat().st_size < 0.55 * whole.stat().st_size
    ours, theirs = rsnlib.load_model("rsnlib/drawn"), rsnlib.load_model(whole)
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        here, there = ours(images), theirs(images)
    assert here.dtype == torch.float32
    assert (here - there).abs().max() < 0.01 * there.abs().max()


def test_card_says_what_the_weights_learnt_from_and_who_may_use_them(released):
    card = (released / "weights/drawn.md").read_text()
    for words in ("12 people of `demo`, 12 seen in 3 iterations of 4", "64x64", "on 6 people", RUN["licence"]):
        assert words in card


def test_released_weights_are_listed_with_accuracy_and_licence(released):
    row = rsnlib.list_weights().set_index("name").loc["rsnlib/drawn"]
    assert row["licence"] == RUN["licence"]
    assert 0 <= row["AP"] <= 100


def test_network_too_large_to_commit_is_refused(project, monkeypatch):
    list_release(project)
    monkeypatch.setattr(stage, "LARGEST_FILE", 2**20)
    with pytest.raises(UserError, match=r"params\.yaml: release\.drawn: steps-prm takes .* at most 1"):
        stage.release("drawn")
    assert not (project / "weights").exists()


def test_release_of_a_run_that_is_not_listed_is_refused(project):
    list_release(project, seed=7)
    with pytest.raises(UserError, match=r"params\.yaml: release\.drawn: no such run"):
        stage.release("drawn")
