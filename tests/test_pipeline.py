"""The real dvc.yaml, end to end, on a handful of people in a copy of the project."""

import contextlib
import json
import shutil

import pytest
from checkout import commit_all, copy_checkout
from checkout import run as run_as_user
from dvc.repo import Repo
from ruamel.yaml import YAML

from rsnlib.demo.annotate import draw_people

# a key of params.yaml, another value, and the stages that depend on the key themselves
CHANGES = [
    ("datasets.demo.blur", 9, {"evaluate"}),
    ("datasets.demo.margin", [0.2, 0.2], {"prepare", "train", "evaluate"}),
    ("datasets.demo.augmentation.flip", 0.25, {"prepare", "train"}),
    ("datasets.demo.recipe.learning_rate", 1e-4, {"train"}),
    (
        "run.models.rsn18-prm.hard_keypoints",
        7,
        {"train", "evaluate", "tables", "ablations", "figures", "networks", "site", "starts"},
    ),
    ("train.weight_decay", 0, {"train"}),
    ("evaluate.flip_test", False, {"evaluate"}),
    ("ablations.branches.rsn18-branches2.branches", 3, {"networks", "starts", "tables", "ablations", "figures"}),
    ("datasets.coco.blur", 9, set()),  # of a data set that is not run
]


def run(project, *command, code=0):
    """Return the output of a command in the project, where nobody is at home."""
    return run_as_user(project, *command, code=code, HOME=None)


def edit_params(project, changes):
    """Set keys, "a.b.c", of the project's params.yaml to values."""
    yaml = YAML()
    params = yaml.load(project / "params.yaml")
    for key, value in changes.items():
        *parents, last = key.split(".")
        place = params
        for parent in parents:
            place = place[parent]
        place[last] = value
    yaml.dump(params, project / "params.yaml")


def stale(project):
    """Return the stages, without their items, whose keys of params.yaml have changed."""
    with contextlib.chdir(project), Repo() as repo:
        changed = repo.status()
    return {stage.split("@")[0] for stage, why in changed.items() if "params.yaml" in str(why)}


@pytest.fixture
def project(tmp_path):
    """A git checkout of the project as it stands, with sixteen drawn people and the shortest run there is."""
    project = tmp_path / "a naïve checkout"
    copy_checkout(project)
    draw_people(project / "data" / "demo", train=12, val=4)
    short = {"batch_size": 4, "length": {"epochs": 1}}
    recipe = YAML(typ="safe").load(project / "params.yaml")["recipes"]["demo"] | short
    changes = {"run.models": {"rsn18-prm": {}}, "datasets.demo.input_size": [64, 64], "datasets.demo.recipe": recipe}
    edit_params(project, changes | {"train.validations": 1})
    commit_all(project)
    return project


def test_one_command_makes_every_result_and_a_second_has_nothing_to_do(project):
    run(project, "dvc", "repro")

    metrics = json.loads((project / "results/demo/evaluate/rsn18-prm-0.json").read_text())
    assert set(metrics) >= {"AP", "AP50", "AP75", "APM", "APL", "AR", "AR50", "AR75", "ARM", "ARL"}
    results = json.loads((project / "work/predictions/demo/rsn18-prm-0.json").read_text())
    assert len(results) == 4 and all(len(result["keypoints"]) == 51 for result in results)
    report = json.loads((project / "results/demo/train/rsn18-prm-0/run.json").read_text())
    assert report["people"] == {"train": 12, "val": 4} and report["iterations"] == 3 and report["input"] == "64x64"
    table = (project / "results/demo/tables/results.md").read_text()
    assert "Trainings: demo, 12 people" in table and "3 iterations of 4 people" in table
    site = (project / "results/index.html").read_text()
    for stage in ("prepare@demo", "train@demo-rsn18-prm-0", "evaluate@demo-rsn18-prm-0", "ablations@demo"):
        assert f"<code>{stage}</code>" in site
    drawn = {path.name for path in (project / "results/demo/figures").iterdir()}
    assert drawn >= {"training.png", "cost.png", "keypoints-accuracy.png", "receptive-fields.png"}
    assert drawn >= {"errors.png", "gains.png", "groups.png", "poses.jpg", "predictions.jpg"}
    assert drawn >= {"heads-rsn18-prm-0.jpg", "attention-rsn18-prm-0.jpg"}
    assert (project / "results/networks/cost.png").is_file()
    found = {path.stem for path in (project / "results/demo/evaluate/rsn18-prm-0").iterdir()}
    assert found == {"variants", "errors", "gains", "groups", "draws", "evaluation"}

    shutil.rmtree(project / "rsnlib/models/__pycache__")  # what a machine compiles for itself is no dependency
    assert "up to date" in run(project, "dvc", "status")
    assert "Running stage" not in run(project, "dvc", "repro")
    committed = (project / "params.yaml").read_text()
    for key, value, stages in CHANGES:
        edit_params(project, {key: value})
        assert stale(project) == stages, key
        (project / "params.yaml").write_text(committed)


def test_bad_data_stops_before_any_training_with_one_message_and_is_left_alone(project):
    picture = next((project / "data/demo/images/train2017").iterdir())
    picture.write_bytes(picture.read_bytes()[:1000])

    output = run(project, "dvc", "repro", code=255)

    assert f"{picture.name}" in output and "unusable: leave out" in output
    assert "Traceback" not in output and "train@" not in output
    assert picture.stat().st_size == 1000


def test_data_may_lie_anywhere_and_serve_two_sections(project, tmp_path):
    elsewhere = tmp_path / "other disk"
    (project / "data" / "demo").rename(elsewhere)
    settings = YAML().load(project / "params.yaml")["datasets"]["demo"]
    folders = {"demo": str(elsewhere), "flipless": "../other disk"}
    flipless = settings | {"augmentation": settings["augmentation"] | {"flip": 0}}
    edit_params(project, {"run.datasets": folders, "datasets.flipless": flipless})

    run(project, "dvc", "repro", "prepare")
    assert {path.parent.name for path in (project / "work/crops").rglob("*.safetensors")} == {"demo", "flipless"}

    moved = elsewhere.rename(tmp_path / "third")
    edit_params(project, {"run.datasets.demo": str(moved), "run.datasets.flipless": str(moved)})
    assert "Running stage 'prepare" not in run(project, "dvc", "repro", "prepare")  # the same files
    picture = next((moved / "images/val2017").iterdir())
    picture.write_bytes(picture.read_bytes() + b"\0")
    assert "Running stage 'prepare@flipless'" in run(project, "dvc", "repro", "prepare")
