"""params.yaml: the committed one loads, and every kind of mistake is one error that names the key."""

import json
import re
import shutil
from functools import reduce
from operator import getitem
from pathlib import Path

import pytest
from dvc.utils.hydra import apply_overrides
from ruamel.yaml import YAML

from rsnlib.config import load_params, project_root
from rsnlib.data.skeletons import COCO, Skeleton
from rsnlib.errors import UserError
from rsnlib.metrics import protocol
from rsnlib.models.zoo import ZOO, Architecture

ROOT = Path(__file__).resolve().parents[1]
MOUSE = {
    "keypoints": ["nose", "l_ear", "r_ear", "tail"],
    "mirror": [["l_ear", "r_ear"]],
    "limbs": [["nose", "l_ear"], ["nose", "r_ear"], ["nose", "tail"]],
    "upper_body": ["nose"],
    "sigmas": [0.03, 0.04, 0.04, 0.09],
}


@pytest.fixture
def load_changed(tmp_path):
    """A function: the committed parameters with one value changed (None: removed), written, and loaded again."""

    def load(key, value):
        values = json.loads(json.dumps(YAML(typ="safe").load(ROOT / "params.yaml")))  # no longer shared by anchors
        *parents, last = key.split(".")
        place = reduce(getitem, parents, values)
        if value is None:
            del place[last]
        else:
            place[last] = value
        path = tmp_path / "params.yaml"
        YAML(typ="safe").dump(values, path)
        return load_params(path)

    return load


def test_the_committed_parameters_are_the_papers(committed):
    coco = committed.dataset("coco")
    assert (coco.input_size, coco.kernels) == ((256, 192), (15, 11, 9, 7, 5))
    assert coco.recipe.length == {"iterations": 96000} and coco.recipe.learning_rate == 4e-3
    assert coco.augmentation.scale == pytest.approx((0.8 * 0.75, 0.8 * 1.25))
    assert committed.dataset("mpii").recipe.length == {"iterations": 28800}
    assert committed.train.weight_decay == 1e-5
    assert committed.model("4xrsn18").architecture == Architecture("residual_steps", stages=4)
    assert committed.model("4xrsn18").training.hard_keypoints == 8
    assert committed.model("rsn18-cbam").architecture.attention == "cbam"
    assert committed.model("4xmspn50").architecture == ZOO["4xmspn50"]  # in no line: a network by its name


def test_an_ablation_differs_from_its_reference(committed):
    for name, lines in committed.ablations.items():
        models = [committed.model(model) for model in lines]
        assert all(model not in models[:place] for place, model in enumerate(models)), name


def test_one_list_names_the_papers_networks_and_every_ablation(committed):
    named = set(committed.model_lists["paper"]).union(*committed.ablations.values())
    assert set(committed.model_lists["all"]) == named and len(named) > 30


def test_run_names_ablations_and_their_models_follow(tmp_path):
    path = tmp_path / "params.yaml"
    shutil.copy(ROOT / "params.yaml", path)
    models = "  models: {<<: [*block-18, *attention], rsn101: {}}\n  seeds"
    text = re.sub(r"  models: #.*?  seeds", models, path.read_text(), flags=re.DOTALL)
    path.write_text(text)
    models = {"rsn18", "res18", "res2net18", "rsn18-prm", "rsn18-se", "rsn18-cbam", "rsn101"}
    assert set(load_params(path).run.models) == models


def test_an_experiment_may_run_an_ablation_or_another_length(tmp_path):
    path = tmp_path / "params.yaml"
    shutil.copy(ROOT / "params.yaml", path)
    apply_overrides(path, ["run.models=${ablations.attention}", "datasets.demo.recipe.length.epochs=3"])
    params = load_params(path)
    assert set(params.run.models) == {"rsn18", "rsn18-prm", "rsn18-se", "rsn18-cbam"}
    assert params.model("rsn18-se").architecture.attention == "se"
    assert params.dataset("demo").recipe.length == {"epochs": 3}
    apply_overrides(path, ["run.models=${model_lists.all}"])
    assert set(load_params(path).run.models) == set(params.model_lists["all"])


def test_a_model_may_have_an_input_size_and_kernels_of_its_own(committed):
    assert committed.dataset("coco", "rsn18").input_size == (256, 192)
    assert committed.dataset("coco", "rsn18-large").input_size == (384, 288)
    assert committed.model("rsn18-large").training.kernels == "own"
    assert committed.model("rsn18-one-kernel").training.kernels == (5, 5, 5, 5, 5)


@pytest.mark.parametrize(
    "level", ["", "run.", "datasets.demo.", "datasets.demo.augmentation.", "recipes.paper.", "train."]
)
def test_an_unknown_key_is_named(load_changed, level):
    with pytest.raises(UserError, match=rf"params.yaml: {re.escape(level)}colour: unknown key"):
        load_changed(f"{level}colour", 3)


@pytest.mark.parametrize(
    ("key", "value", "today"),
    [
        ("models", {"rsn18": {}}, "models: a model is a line of an ablation"),
        ("datasets.demo.schedule", {}, "datasets.demo.schedule: is called `recipe` now"),
        ("datasets.demo.enlarge", [0, 0], "datasets.demo.enlarge: is called `margin` now"),
        ("datasets.demo.recipe.epochs", 8, "datasets.demo.recipe.epochs: is called `length` now"),
        ("train.epochs", 3, "train.epochs: is gone: set the recipe.s `length`"),
        ("evaluate.detections", {}, "evaluate.detections: is a key of each data set now"),
        ("datasets.demo.root", "/mnt/demo", "datasets.demo.root: is gone: run.datasets gives the folder"),
        ("run.datasets", ["demo"], "run.datasets: .*is a mapping now, of names to folders"),
        ("run.models", ["rsn18"], "run.models: .*is a mapping now"),
    ],
)
def test_an_old_key_is_told_its_new_name(load_changed, key, value, today):
    with pytest.raises(UserError, match=rf"params.yaml: .*{today}"):
        load_changed(key, value)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("run.datasets", "demo"),  # no folder
        ("run.seeds", [True]),
        ("run.models", {"rsn18": 1}),
        ("datasets.demo.reader", "imagenet"),
        ("run.datasets.demo", 3),
        ("datasets.demo.unusable", "ignore"),
        ("datasets.demo.splits", {"train": "train2017"}),  # no val
        ("datasets.demo.splits", {"train": {"annotations": "a.json"}, "val": "val2017"}),  # no images
        ("datasets.demo.splits.val", {"annotations": "a.json", "pictures": "b"}),
        ("datasets.lspet.splits.train", [0, 5000]),
        ("datasets.demo.input_size", [100, 96]),  # not a multiple of 32
        ("datasets.demo.more_input_sizes", [[256, 192]]),  # no names
        ("datasets.demo.more_input_sizes.large", [250, 192]),
        ("datasets.demo.kernels", [15, 11, 9, 7, 4]),
        ("datasets.demo.blur", "5"),
        ("datasets.demo.margin", 0.1),
        ("datasets.demo.augmentation.flip", 1.5),
        ("datasets.demo.augmentation.scale", [0, 1]),
        ("datasets.demo.recipe.batch_size", 32.5),
        ("datasets.demo.recipe.learning_rate", float("nan")),
        ("datasets.demo.recipe.length", {"epochs": 8, "iterations": 100}),
        ("datasets.demo.recipe.length", {}),
        ("datasets.demo.recipe.length", {"iterations": 1.5}),
        ("ablations.branches", {"rsn18": {}}),  # nothing to compare it with
        ("ablations", ["rsn18", "res18"]),
        ("train.precision", "float16"),
        ("evaluate.flip_test", 1),
        ("evaluate.decoding", "third"),
        ("evaluate.nms", "firm"),
        ("evaluate.nms_threshold", 0),
    ],
)
def test_a_wrong_value_is_named(load_changed, key, value):
    with pytest.raises(UserError, match=r"params.yaml: " + key.replace(".", r"\.")):
        load_changed(key, value)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ({"network": "rsn19"}, "network 'rsn19' is unknown; known are .*rsn18"),
        ({"block": "resnet"}, "block"),
        ({"depths": [2, 2, 2]}, "depths"),
        ({"branches": 1}, "branches: must be"),
        ({"colour": 2}, "colour: unknown key"),
        ({"cross_stage": 1}, "cross_stage"),
        ({"input_size": [256, 192]}, "input_size"),
        ({"kernels": 5}, "kernels"),
        ({"hard_keypoints": 0}, "hard_keypoints"),
        ({"intermediate_supervision": "no"}, "intermediate_supervision"),
        ({"frozen": "stem"}, "frozen"),
        ({"init": "rsn81"}, r"init: 'rsn81' is no model and no published weights \(near: rsn18.*below data/: put"),
        ({"init": "weights/a.pth"}, "init: .* nor below data/: put a file of your own there"),
        ({"init": "data/../a.pth"}, "init: .* nor below data/"),
        ({"init": "rsn18"}, "init: rsn18 starts from rsn18: a circle"),
    ],
)
def test_what_is_wrong_with_a_model_is_named(load_changed, line, message):
    with pytest.raises(UserError, match=rf"params.yaml: ablations.block-18.rsn18: .*{message}"):
        load_changed("ablations.block-18.rsn18", line)


def test_a_model_starts_from_another_but_not_in_a_circle(load_changed):
    lines = {"a": {"network": "rsn18", "init": "b"}, "b": {"network": "rsn18", "init": "data/any.pth"}}
    assert load_changed("run.models", lines).model("a").training.init == "b"
    lines["b"]["init"] = "a"
    with pytest.raises(UserError, match=r"run.models.a: init: a starts from b starts from a: a circle"):
        load_changed("run.models", lines)


@pytest.mark.parametrize("key", ["run", "run.seeds", "recipes.paper.warmup", "datasets.lspet.more_input_sizes"])
def test_a_missing_key_is_named(load_changed, key):
    with pytest.raises(UserError, match=key.replace(".", r"\.") + ": is missing"):
        load_changed(key, None)


@pytest.mark.parametrize("name", ["a/b", "it's", "../up", "-flag", "a b", "v1.2", ""])
def test_names_that_make_no_file_names_are_refused(committed, load_changed, name):
    for key, value in (("run.models", {name: {}}), ("datasets", {name: {}})):
        with pytest.raises(UserError, match=f"params.yaml: {key}"):
            load_changed(key, value)


def test_what_is_run_must_exist(load_changed):
    with pytest.raises(UserError, match="datasets has no 'cocoa'; it has .*coco"):
        load_changed("run.datasets", {"cocoa": "data/cocoa"})
    with pytest.raises(UserError, match="run.models.rsn19: network 'rsn19' is unknown"):
        load_changed("run.models", {"rsn19": {}})


def test_an_input_size_must_be_one_of_the_data_sets(load_changed):
    with pytest.raises(UserError, match=r"run.models.rsn18.input_size is 'huge', which datasets.demo.more_input_sizes"):
        load_changed("run.models", {"rsn18": {"input_size": "huge"}})


def test_detections_must_be_of_a_data_set_in_cocos_format(load_changed):
    assert load_changed("datasets.coco.detections", "boxes.json").dataset("coco").detections == "boxes.json"
    with pytest.raises(UserError, match="datasets.lspet.*detections: must be none"):
        load_changed("datasets.lspet.detections", "boxes.json")


def test_areas_are_annotated_or_a_share_of_the_box(load_changed):
    assert load_changed("datasets.demo.area", "box 0.53").dataset("demo").area == "box 0.53"
    for dataset, area in (("demo", "box"), ("demo", "box 1.5"), ("lspet", "box 0.53")):
        with pytest.raises(UserError, match=f"datasets.{dataset}.*area"):
            load_changed(f"datasets.{dataset}.area", area)


def test_there_may_be_no_skeletons(load_changed):
    for value in ({}, None):
        params = load_changed("skeletons", value)
        assert params.skeletons == {} and params.skeleton(params.dataset("demo")) == COCO


def test_a_skeleton_needs_neither_sides_nor_limbs(load_changed):
    dot = {"keypoints": ["dot"], "sigmas": [0.1]} | dict.fromkeys(("mirror", "limbs", "upper_body"), [])
    params = load_changed("skeletons", {"dot": dot})
    assert params.skeletons["dot"].skeleton("dot") == Skeleton("dot", ("dot",), (), (), (), (0.1,))


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("keypoints", [], "at least 1"),
        ("keypoints", ["nose", "l_ear", "r_ear", "nose"], "more than once: nose"),
        ("keypoints", ["nose", "l_ear", "r_ear", 4], "string"),
        ("mirror", [["l_ear", "r_eye"]], "r_eye: not among the keypoints"),
        ("mirror", [["l_ear", "r_ear"], ["nose", "l_ear"]], "more than once: l_ear"),
        ("mirror", [["l_ear"]], ""),
        ("limbs", [["nose", "foot"]], "foot: not among the keypoints"),
        ("limbs", [["nose", "nose"]], "two ends"),
        ("upper_body", "nose", ""),
        ("sigmas", [0.1] * 3, "must be 4, one per keypoint, not 3"),
        ("sigmas", [0.1, 0.1, 0, 0.1], "greater than 0"),
        ("normalise_by", ["l_ear", "eye"], "eye: not among the keypoints"),
        ("normalise_by", ["l_ear", "l_ear"], "must be two keypoints"),
        ("colour", "grey", "unknown key"),
        ("limbs", None, "is missing"),
    ],
)
def test_what_is_wrong_with_a_skeleton_is_named(load_changed, key, value, message):
    definition = {name: entry for name, entry in (MOUSE | {key: value}).items() if entry is not None}
    with pytest.raises(UserError, match=rf"params.yaml: (.*; )?skeletons\.mouse(\.|: ){key}[^;]*{message}"):
        load_changed("skeletons", {"mouse": definition})


def test_without_sigmas_people_are_judged_in_their_own_boxes(load_changed):
    params = load_changed("datasets.coco.skeleton", "mpii")
    assert protocol(*params.judged_by("coco")).columns == ("Mean", "Mean@0.05")
    section = YAML(typ="safe").load(ROOT / "params.yaml")["datasets"]["coco"]
    with pytest.raises(UserError, match="datasets.coco.detections: must be none; mpii has no sigmas"):
        load_changed("datasets.coco", section | {"skeleton": "mpii", "detections": "boxes.json"})


def test_built_in_skeletons_stay_as_they_are(load_changed):
    with pytest.raises(UserError, match="skeletons.mpii: is built in"):
        load_changed("skeletons", {"mpii": MOUSE})


@pytest.mark.parametrize(
    ("dataset", "skeleton", "message"),
    [
        ("demo", "rat", "there is no skeleton 'rat', only coco, mpii, lsp"),
        ("mpii", "coco", "reader mpii has its own: mpii"),
        ("demo", 3, "string"),
    ],
)
def test_a_data_sets_skeleton_must_exist_and_be_for_its_reader(load_changed, dataset, skeleton, message):
    with pytest.raises(UserError, match=rf"params.yaml: datasets.{dataset}.skeleton: .*{message}"):
        load_changed(f"datasets.{dataset}.skeleton", skeleton)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("run: {datasets: {demo: data/demo", "not valid YAML.*line 1"),
        ("train: 1\ntrain: 2\n", "not valid YAML.*duplicate"),
        ("- a list", "the file"),
        ("", "the file"),
        (b"\xff\xfe\x00", "not valid YAML"),
    ],
)
def test_a_file_that_is_no_parameters_is_named(tmp_path, content, message):
    path = tmp_path / "params.yaml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError, match=rf"(?s)params\.yaml: .*{message}"):
        load_params(path)
    with pytest.raises(UserError, match="nowhere.yaml: no such file"):
        load_params(tmp_path / "nowhere.yaml")


def test_the_project_is_found_from_below(tmp_path):
    with pytest.raises(UserError, match="no params.yaml in .*checkout"):
        project_root(tmp_path)
    (tmp_path / "params.yaml").touch()
    (tmp_path / "notebooks" / "old").mkdir(parents=True)
    assert project_root(tmp_path / "notebooks" / "old") == tmp_path.resolve()
