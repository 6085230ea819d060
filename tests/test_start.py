"""Trainings that start from weights: what fits is taken, keypoints by name; frozen parts stay; DVC sees changes."""

import json
import re
import shutil
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from checkout import ROOT, commit_all, copy_checkout, with_sections
from checkout import run as run_as_user
from ruamel.yaml import YAML

from rsnlib import fast
from rsnlib.config import Recipe, Train, load_params
from rsnlib.data.augment import reach
from rsnlib.data.readers import read_people
from rsnlib.data.skeletons import COCO, LSP, MPII
from rsnlib.data.store import CropStore, write_crop_store
from rsnlib.errors import UserError
from rsnlib.models.checkpoints import load_model, save_checkpoint, save_model
from rsnlib.models.zoo import create_model
from rsnlib.stages.layout import training_path, weights_path
from rsnlib.stages.prepare import prepare
from rsnlib.stages.starts import write_starts
from rsnlib.stages.train import train as train_stage
from rsnlib.training import loop
from rsnlib.training.start import describe, parts, take_weights

RECIPE = Recipe(
    batch_size=4, length={"iterations": 6}, learning_rate=2e-3, warmup=2, warmup_factor=0.1, output_scale=256
)
SHARED = Train(weight_decay=0.1, precision="float32", validations=2, device_batch=32, activation_checkpointing=False)


def small_network(seed=0, keypoints=17, **fields):
    torch.manual_seed(seed)
    return create_model({"block": "bottleneck", "depths": [1, 1, 1, 1], **fields}, keypoints, (64, 64))


def changed(network, start, part=""):
    """Return the tensors of a part of `network` that differ from those of `start`, but for numbers of batches."""
    other = start.state_dict()
    mine = {name: values for name, values in network.state_dict().items() if f"{name}.".startswith(part)}
    return [name for name, values in mine.items() if values.is_floating_point() and not values.equal(other[name])]


# ---- what fits


def test_the_first_stages_of_a_deeper_network_start_a_shallower_one_and_the_reverse():
    deep, shallow = small_network(1, stages=2), small_network(2)
    taken = take_weights(shallow, deep.state_dict(), COCO.keypoints, COCO.keypoints)
    assert taken["taken"] == taken["tensors"] and taken["left"] == [] and taken["keypoints"] is None
    assert not changed(shallow, deep)

    deeper = small_network(3, stages=3)
    before = deepcopy(deeper)
    taken = take_weights(deeper, deep.state_dict(), COCO.keypoints)
    ups = [f"stages.1.up.{unit}.skip_{way}" for unit in range(4) for way in ("down", "up")]
    assert taken["left"] == [*ups, "stages.1.cross", "stages.2"]
    assert not changed(deeper, before, "stages.2.") and not changed(deeper, deep, "stages.0.")


def test_keypoints_that_both_skeletons_name_are_carried_over_by_name():
    coco, lsp = small_network(1, attention="prm"), small_network(2, 14, attention="prm")
    before = deepcopy(lsp)
    taken = take_weights(lsp, coco.state_dict(), LSP.keypoints, COCO.keypoints)
    shared = [name for name in LSP.keypoints if name not in ("neck", "head_top")]
    assert taken["keypoints"] == shared and taken["taken"] == taken["tensors"] and taken["left"] == []
    there, here = COCO.keypoints.index("left_wrist"), LSP.keypoints.index("left_wrist")
    head, source, untouched = (network.stages[0].heads[3] for network in (lsp, coco, before))
    assert head.heatmaps.conv.weight[here].equal(source.heatmaps.conv.weight[there])
    neck = LSP.keypoints.index("neck")
    assert head.heatmaps.conv.weight[neck].equal(untouched.heatmaps.conv.weight[neck])
    ankle, other = LSP.keypoints.index("right_ankle"), COCO.keypoints.index("right_ankle")
    mixing = head.attention.features.conv.weight  # of keypoints with keypoints
    assert mixing[here, ankle].equal(source.attention.features.conv.weight[there, other])
    assert mixing[here, neck].equal(untouched.attention.features.conv.weight[here, neck])
    assert head.attention.position[1].conv.weight[here].equal(source.attention.position[1].conv.weight[there])
    text = describe({"source": "mmpose/rsn18", **taken}, LSP)
    assert text.startswith("Starts from mmpose/rsn18: ") and "12 of 14 keypoints (right_ankle, right_knee," in text


def test_as_many_keypoints_of_other_names_are_not_taken_for_the_same():
    source, network = small_network(1), small_network(2)
    before, names = deepcopy(network), ("beak", "tail", *COCO.keypoints[2:])
    taken = take_weights(network, source.state_dict(), names, COCO.keypoints)
    weights, theirs, old = (each.stages[0].heads[0].heatmaps.conv.weight for each in (network, source, before))
    assert taken["keypoints"] == list(COCO.keypoints[2:])
    assert weights[:2].equal(old[:2]) and weights[2:].equal(theirs[2:])


def test_heads_without_a_common_keypoint_begin_anew_and_a_network_without_a_common_tensor_is_refused():
    network = small_network(2, keypoints=4)
    taken = take_weights(network, small_network(1).state_dict(), ("beak", "l_wing", "r_wing", "tail"), COCO.keypoints)
    heads = [f"stages.0.heads.{level}.heatmaps" for level in range(4)]
    assert taken["left"] == heads and taken["keypoints"] == []
    with pytest.raises(UserError, match=r"none of its 2 tensors \(a, b, ...\) fits"):
        take_weights(network, {"a": torch.zeros(3), "b": torch.zeros(())}, MPII.keypoints)


# ---- frozen parts


@pytest.fixture(scope="module")
def run(demo_folder, demo_settings, tmp_path_factory):
    """A function: train a network on eight drawn people; its arguments override the settings above."""
    path = tmp_path_factory.mktemp("crops") / "train"
    people = read_people(demo_folder, "coco", "train2017")
    write_crop_store(path, people, demo_settings.input_size, demo_settings.margin, reach(demo_settings.augmentation))
    store = CropStore(path)

    def run(model, recipe=RECIPE, shared=SHARED, **options):
        return loop.train(model, store, demo_settings, recipe, seed=0, train=shared, **options)

    return run


FROZEN = ("stem", "stages.0.down.1", "stages.0.heads.0")


@pytest.mark.parametrize("way", ["plain", "wide", "recomputed", "pieces"])
def test_frozen_parts_stay_as_they_are_their_batch_norms_too(run, monkeypatch, way):
    """Weight decay is large, and validation on the way sets the network to evaluation and back."""
    if way == "wide":
        monkeypatch.setattr(fast, "MULTIPLES", {("cpu", "float32"): 32})
    shared = {"recomputed": {"activation_checkpointing": True}, "pieces": {"device_batch": 2}}.get(way, {})
    model = small_network(block="residual_steps")
    start = deepcopy(model)
    model, _ = run(model, shared=replace(SHARED, **shared), frozen=FROZEN, validate=lambda model: {})
    model.cpu()
    for part in FROZEN:
        assert not changed(model, start, part), part
    for part in ("stages.0.down.0.0.reduce.conv.weight", "stages.0.down.0.0.reduce.bn.running_mean"):
        assert changed(model, start, part), part
    assert changed(model, start, "stages.0.heads.1.heatmaps.bn.weight")


def test_an_interrupted_training_with_frozen_parts_goes_on_to_the_same_weights(run, tmp_path, monkeypatch):
    def power_cut(row):
        if row["iteration"] == 4:
            raise KeyboardInterrupt

    uninterrupted, _ = run(small_network(), frozen=FROZEN)
    monkeypatch.setattr(loop, "SAVE_EVERY", 0)
    monkeypatch.setattr(loop, "SAVE_SHARE", float("inf"))
    with pytest.raises(KeyboardInterrupt):
        run(small_network(), frozen=FROZEN, state=tmp_path, log=power_cut)
    resumed, _ = run(small_network(), frozen=FROZEN, state=tmp_path)
    assert not changed(resumed, uninterrupted)


def test_a_frozen_part_that_is_not_there_is_named_with_the_nearest():
    with pytest.raises(UserError, match="no part 'stages.0.dwon'; near are stages.0.down"):
        parts(small_network(), ["stages.0.dwon"])
    with pytest.raises(UserError, match="frozen: stem, stages are all of the network"):
        parts(small_network(), ["stem", "stages"])


# ---- runs that start from others


def test_fine_tuning_beats_a_training_from_scratch_of_as_many_steps(run):
    """Of a network with a Pose Refine Machine, from one without, after 12 steps each."""
    shared = replace(SHARED, weight_decay=1e-5)
    source, _ = run(small_network(1), replace(RECIPE, length={"iterations": 120}), shared)
    losses = {}
    for way in ("from scratch", "tuned"):
        network = small_network(2, attention="prm")
        if way == "tuned":
            take_weights(network, source.state_dict(), COCO.keypoints)
        _, curve = run(network, replace(RECIPE, length={"iterations": 12}), shared)
        losses[way] = sum(row["loss"] for row in curve[-4:]) / 4
    assert losses["tuned"] < 0.85 * losses["from scratch"], losses


def edit_models(project, **lines):
    """Set lines of run.models in the params.yaml of a project."""
    path = project / "params.yaml"
    values = YAML(typ="safe").load(path)
    values["run"]["models"] |= lines
    path.unlink()  # a link to the file of other tests
    YAML(typ="safe").dump(values, path)


TUNED = {"network": "rsn18-prm", "block": "bottleneck", "depths": [1, 1, 1, 1], "init": "plain", "frozen": ["stem"]}


def test_a_run_starts_from_another_which_is_trained_first_where_it_is_not(project, capsys):
    edit_models(project, tuned=TUNED)
    plain = weights_path("demo", "plain", 0)
    written = plain.read_bytes()
    train_stage("demo", "tuned", 0)
    said = capsys.readouterr()
    assert "Starts from plain: " in said.out and "anew: stages.0.heads.3.attention." in said.out
    assert "comes first" not in said.err
    tuned, source = load_model(weights_path("demo", "tuned", 0)), load_model(plain)
    assert not changed(tuned, source, "stem") and changed(tuned, source, "stages.0.down.0")
    start = json.loads(training_path("demo", "tuned", 0, "run.json").read_text())["start"]
    assert start["source"] == "plain" and start["left"] == ["stages.0.heads.3.attention"]

    shutil.rmtree("work/models")
    shutil.rmtree("work/state")
    train_stage("demo", "tuned", 0)
    assert "plain-0 on demo comes first" in capsys.readouterr().err
    assert not changed(load_model(weights_path("demo", "tuned", 0)), tuned)
    curve = train_stage("demo", "plain", 0)
    assert plain.read_bytes() == written and curve["val_AP"].notna().sum() == 1


def test_a_run_starts_from_a_file_below_data_and_another_file_is_another_training(project, capsys):
    edit_models(project, tuned=TUNED | {"init": "data/own.safetensors"})
    states, names = [], ("beak", *COCO.keypoints[1:])
    for about in ({}, {"skeleton": replace(COCO, name="bird", keypoints=names).description}):
        save_model(small_network(), "data/own.safetensors", about)
        train_stage("demo", "tuned", 0)
        states.append({path.name for path in (project / "work/state").iterdir()})
    assert len(states[1]) == len(states[0]) + 1
    first, second = capsys.readouterr().out.split("Starts from data/own.safetensors: ")[1:]
    assert "keypoints" not in first and "16 of 17 keypoints (left_eye, " in second


def test_a_file_may_hold_a_part_of_a_network(project, capsys):
    edit_models(project, tuned=TUNED | {"init": "data/stem.pth"})
    state = {name: values for name, values in small_network().state_dict().items() if name.startswith("stem.")}
    torch.save(state, "data/stem.pth")
    train_stage("demo", "tuned", 0)
    assert "data/stem.pth: 6 of " in capsys.readouterr().out
    torch.save({"a.weight": torch.zeros(3)}, "data/stem.pth")
    with pytest.raises(UserError, match=r"data/stem.pth \(`init` of tuned in params.yaml\): none of its 1 tensors"):
        train_stage("demo", "tuned", 0)


def test_what_is_wrong_with_a_start_is_said_before_any_training(project):
    for line, message in (
        ({"init": "data/none.pth"}, r"data/none.pth \(`init` in params.yaml\): No such file"),
        ({"frozen": ["stages.1"]}, r"params.yaml: tuned.frozen: the network has no part 'stages.1'; near are stages.0"),
    ):
        edit_models(project, tuned=TUNED | line)
        with pytest.raises(UserError, match=message):
            write_starts()


# ---- published weights


@pytest.fixture
def gym(demo_folder, tmp_path, monkeypatch):
    """A project with the worked example of docs/own-data.md, crops and recipe smaller: drawn people with its
    joints, the neck at the nose.
    """
    example = re.search(r"```yaml\n(.*?)```", (ROOT / "docs/own-data.md").read_text(), re.DOTALL)[1]
    text = with_sections(example)
    (tmp_path / "params.yaml").write_text(text)
    assert load_params(tmp_path / "params.yaml").dataset("gym", "tuned").recipe.length == {"epochs": 30}
    values = json.loads(json.dumps(YAML(typ="safe").load(text)))
    values["datasets"]["gym"] |= {"input_size": [64, 64], "more_input_sizes": {}}
    values["datasets"]["gym"]["recipe"] |= {"batch_size": 4, "length": {"iterations": 2}}
    folder, names = tmp_path / "project/data/gym", values["skeletons"]["gym"]["keypoints"]
    joints = [name.replace("neck", "nose").replace("heel", "ankle") for name in names]
    (folder / "labels").mkdir(parents=True)
    for split in ("train", "val"):
        shutil.copytree(demo_folder / f"images/{split}2017", folder / "photos", dirs_exist_ok=True)
        content = json.loads((demo_folder / f"annotations/person_keypoints_{split}2017.json").read_text())
        content["categories"][0]["keypoints"] = names
        for person in content["annotations"]:
            points = [person["keypoints"][3 * index :][:3] for index in map(COCO.keypoints.index, joints)]
            person["keypoints"] = sum(points, [])
        (folder / f"labels/{split}.json").write_text(json.dumps(content))
    monkeypatch.chdir(tmp_path / "project")
    for name in ("dvc.yaml", "rsnlib", "notebooks"):
        Path(name).symlink_to(ROOT / name)
    YAML(typ="safe").dump(values, Path("params.yaml"))
    return names


def test_the_worked_example_starts_from_published_weights_and_trains(gym, publish, tmp_path, capsys):
    torch.manual_seed(1)
    published = create_model("rsn18")
    save_checkpoint(published, tmp_path / "rsn18.pth", "mmpose")
    publish((tmp_path / "rsn18.pth").read_bytes())
    prepare("gym")
    curve = train_stage("gym", "tuned", 0)
    total = sum(values.is_floating_point() for values in published.state_dict().values())
    shared = "nose, left_wrist, right_wrist, left_hip, right_hip"
    text = f"Starts from mmpose/rsn18: {total} of {total} tensors taken, in heads the channels of 5 of 8 keypoints"
    assert f"{text} ({shared})." in capsys.readouterr().out
    assert len(curve) == 2 and load_model(weights_path("gym", "tuned", 0)).keypoints == len(gym)


# ---- DVC


@pytest.fixture
def pipeline(tmp_path):
    """A checkout with the stages `starts` and `train` alone, whose trainings are empty files."""
    project = tmp_path / "checkout"
    copy_checkout(project)
    stages = YAML(typ="safe").load(project / "dvc.yaml")["stages"]
    stages = {name: stages[name] for name in ("starts", "train")}
    del stages["train"]["metrics"], stages["train"]["plots"]
    stages["train"]["outs"] = stages["train"]["outs"][:1]
    stages["train"]["cmd"] = "touch " + stages["train"]["outs"][0]
    YAML(typ="safe").dump({"stages": stages}, project / "dvc.yaml")
    for folder in ("data", "work/crops/demo", "work/models/demo"):
        (project / folder).mkdir(parents=True)
    for path in (project / "work/crops/demo/train.safetensors", project / "data/own.safetensors"):
        path.touch()
    values = YAML(typ="safe").load(project / "params.yaml")
    values["run"]["models"] = {"rsn18": {}, "tuned": {"init": "middle"}, "own": {"init": "data/own.safetensors"}}
    values["run"]["models"]["middle"] = {"network": "rsn18", "init": "rsn18"}
    for name in ("tuned", "own"):
        values["run"]["models"][name]["network"] = "rsn18-prm"
    YAML(typ="safe").dump(values, project / "params.yaml")
    commit_all(project)
    return project


def trained(project):
    """Return the models that `dvc repro` trains."""
    output = run_as_user(project, "dvc", "repro", HOME=None)
    return set(re.findall(r"Running stage 'train@demo-(\w+)-0'", output))


def test_dvc_trains_anew_what_starts_from_something_changed_and_nothing_else(pipeline):
    assert trained(pipeline) == {"rsn18", "middle", "tuned", "own"}
    assert trained(pipeline) == set()
    (pipeline / "data/own.safetensors").write_text("other weights")
    assert trained(pipeline) == {"own"}
    edit_models(pipeline, rsn18={"hard_keypoints": 7}, more={"network": "rsn18"})
    assert trained(pipeline) == {"rsn18", "middle", "tuned", "more"}
