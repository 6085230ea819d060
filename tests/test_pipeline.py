"""The real dvc.yaml, end to end, on a handful of people in a copy of the project."""

import json
import shutil

import pytest
from ruamel.yaml import YAML
from scenarios import commit_all, copy_checkout
from scenarios import run as run_as_user

from rsnlib.demo.annotate import draw_people


def run(project, *command, code=0):
    """The output of a command in the project, where nobody is at home."""
    return run_as_user(project, *command, code=code, HOME=None)


def edit_params(project, edit):
    yaml = YAML()
    params = yaml.load(project / "params.yaml")
    edit(params)
    yaml.dump(params, project / "params.yaml")


@pytest.fixture
def project(tmp_path):
    """A git checkout of the project as it stands, with sixteen drawn people and the shortest run there is."""
    project = tmp_path / "a naïve checkout"
    copy_checkout(project)
    draw_people(project / "data" / "demo", train=12, val=4)

    def shorten(params):
        params["run"]["models"] = ["rsn18-prm"]
        params["datasets"]["demo"]["input_size"] = [64, 64]
        params["datasets"]["demo"]["schedule"]["batch_size"] = 4
        params["train"].update({"epochs": 1, "validations": 1})

    edit_params(project, shorten)
    commit_all(project)
    return project


def test_one_command_makes_every_result_and_a_second_has_nothing_to_do(project):
    run(project, "dvc", "repro")

    figures = json.loads((project / "results/demo/evaluate/rsn18-prm-0.json").read_text())
    assert set(figures) >= {"AP", "AP50", "AP75", "APM", "APL", "AR", "AR50", "AR75", "ARM", "ARL"}
    results = json.loads((project / "work/predictions/demo/rsn18-prm-0.json").read_text())
    assert len(results) == 4 and all(len(result["keypoints"]) == 51 for result in results)
    table = (project / "results/demo/tables/results.md").read_text()
    assert "this run" in table and "73.6" in table  # ours beside the paper's RSN-18
    site = (project / "results/index.html").read_text()
    for stage in ("prepare@demo", "train@demo-rsn18-prm-0", "evaluate@demo-rsn18-prm-0", "tables@demo", "figures@demo"):
        assert f"<code>{stage}</code>" in site
    drawn = {path.name for path in (project / "results/demo/figures").iterdir()}
    assert drawn >= {"training.png", "cost.png", "keypoints-accuracy.png", "receptive-fields.png"}
    assert drawn >= {"errors.png", "gains.png", "groups.png", "poses.jpg", "predictions.jpg"}
    assert drawn >= {"heads-rsn18-prm-0.jpg", "attention-rsn18-prm-0.jpg"}
    assert (project / "results/networks/cost.png").is_file()
    found = {path.stem for path in (project / "results/demo/evaluate/rsn18-prm-0").iterdir()}
    assert found == {"variants", "errors", "gains", "groups"}
    assert "dark" in (project / "results/demo/tables/evaluation.md").read_text()

    shutil.rmtree(project / "rsnlib/models/__pycache__")  # what a machine compiles for itself is no dependency
    assert "up to date" in run(project, "dvc", "status")
    assert "Running stage" not in run(project, "dvc", "repro")

    def change_another_model(params):
        params["models"]["rsn18"]["branches"] = 3
        params["models"]["rsn18-prm"]["branches"] = 4

    edit_params(project, change_another_model)
    status = run(project, "dvc", "status")
    assert "networks" in status and "@" not in status  # its cost is another, no run of a network is


def test_bad_data_stops_before_any_training_with_one_message_and_is_left_alone(project):
    picture = next((project / "data/demo/images/train2017").iterdir())
    picture.write_bytes(picture.read_bytes()[:1000])

    output = run(project, "dvc", "repro", code=255)

    assert f"{picture.name}" in output and "unusable: leave out" in output
    assert "Traceback" not in output and "train@" not in output
    assert picture.stat().st_size == 1000
