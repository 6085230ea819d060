"""params.yaml: the committed one loads, and every kind of mistake is one error that names the key."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from rsnlib.config import Architecture, load_params, parse, project_root
from rsnlib.data.skeletons import COCO, Skeleton
from rsnlib.errors import UserError

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def load_changed(tmp_path):
    """A function: the committed parameters with one value changed, written, and loaded again."""

    def load(key, value, remove=False):
        values = json.loads(json.dumps(YAML(typ="safe").load(ROOT / "params.yaml")))  # no longer shared by anchors
        *parents, last = key
        place = values
        for parent in parents:
            place = place[parent]
        if remove:
            del place[last]
        else:
            place[last] = value
        path = tmp_path / "params.yaml"
        YAML(typ="safe").dump(values, path)
        return load_params(path)

    return load


def test_the_committed_parameters_are_the_papers(committed):
    coco = committed.dataset("coco")
    assert coco.input_size == (256, 192)
    assert coco.kernels == (15, 11, 9, 7, 5)
    assert coco.schedule.iterations == 96000 and coco.schedule.learning_rate == 4e-3
    assert coco.augmentation.scale == pytest.approx((0.8 * 0.75, 0.8 * 1.25))
    assert committed.dataset("mpii").schedule.iterations == 28800
    model = committed.model("4xrsn18")
    assert model.architecture == Architecture("residual_steps", stages=4, branches=4, branch_width=26)
    assert (model.kernels, model.intermediate_supervision, model.hard_keypoints) == (None, True, 8)
    assert committed.model("rsn18-prm").attention == "prm"
    assert committed.train.weight_decay == 1e-5


def test_one_list_names_the_papers_networks_and_every_ablation(committed):
    lists, ablations = committed.model_lists, committed.ablations
    assert set(lists["all"]) == set(lists["paper"]).union(lists["few"], *ablations.values())


def test_an_ablation_differs_from_what_it_is_compared_with(committed):
    for base, *others in committed.ablations.values():
        lines = [committed.model(name) for name in (base, *others)]
        assert all(line not in lines[:place] for place, line in enumerate(lines)), (base, others)


def test_a_model_may_have_an_input_size_and_kernels_of_its_own(load_changed):
    params = load_changed(["models", "rsn18-large", "kernels"], [23, 17, 13, 11, 7])
    usual, large = params.dataset("coco", "rsn18"), params.dataset("coco", "rsn18-large")
    assert (usual.input_size, usual.kernels) == ((256, 192), (15, 11, 9, 7, 5))
    assert (large.input_size, large.kernels) == ((384, 288), (23, 17, 13, 11, 7))
    assert params.dataset("coco", "rsn18-one-kernel").kernels == (5, 5, 5, 5, 5)
    assert params.dataset("coco").kernels == (15, 11, 9, 7, 5)


def test_a_change_is_read(load_changed):
    assert load_changed(["datasets", "demo", "input_size"], [160, 96]).dataset("demo").input_size == (160, 96)


@pytest.mark.parametrize(
    "level",
    [
        [],
        ["run"],
        ["datasets", "demo"],
        ["datasets", "demo", "augmentation"],
        ["datasets", "demo", "schedule"],
        ["models", "rsn18"],
        ["train"],
        ["evaluate"],
    ],
    ids=lambda level: ".".join(level) or "top",
)
def test_an_unknown_key_is_named(load_changed, level):
    with pytest.raises(UserError, match=r"params.yaml: " + r"\.".join([*level, "colour"]) + ": unknown key"):
        load_changed([*level, "colour"], 3)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("run.datasets", "demo"),  # no list
        ("run.seeds", [True]),
        ("run.seeds", [-1]),
        ("run.models", [1]),
        ("datasets.demo.reader", "imagenet"),
        ("datasets.demo.root", 3),
        ("datasets.demo.unusable", "ignore"),
        ("datasets.demo.splits", {"train": "train2017"}),  # no val
        ("datasets.demo.splits", {"train": "a", "val": "b", "test": "c"}),
        ("datasets.demo.splits", {"train": {"annotations": "a.json"}, "val": "val2017"}),  # no images
        ("datasets.demo.splits.val", {"annotations": "a.json", "pictures": "b"}),
        ("datasets.lspet.splits.train", [0, 5000]),
        ("datasets.demo.input_size", [100, 96]),  # not a multiple of 32
        ("datasets.demo.input_size", [128]),
        ("datasets.demo.input_size", [0, 96]),
        ("datasets.demo.more_input_sizes", [[256, 192]]),  # no names
        ("datasets.demo.more_input_sizes.large", [250, 192]),
        ("datasets.demo.kernels", [15, 11, 9, 7, 4]),
        ("datasets.demo.kernels", [15, 11, 9, 7]),
        ("datasets.demo.blur", 4),
        ("datasets.demo.blur", "5"),
        ("datasets.demo.enlarge", 0.1),
        ("datasets.demo.augmentation.flip", 1.5),
        ("datasets.demo.augmentation.flip", True),
        ("datasets.demo.augmentation.rotation", "45"),
        ("datasets.demo.augmentation.scale", [0, 1]),
        ("datasets.demo.schedule.batch_size", 0),
        ("datasets.demo.schedule.batch_size", 32.5),
        ("datasets.demo.schedule.warmup", None),
        ("datasets.demo.schedule.learning_rate", "2e-3x"),
        ("datasets.demo.schedule.learning_rate", float("nan")),
        ("datasets.demo.schedule.iterations", 100),  # epochs are given, too
        ("datasets.demo.schedule.epochs", None),  # and now neither
        ("models.rsn18.block", "resnet"),
        ("models.rsn18.depths", [2, 2, 2]),
        ("models.rsn18.stages", "2"),
        ("models.rsn18", None),
        ("models.rsn18.input_size", [256, 192]),  # no name
        ("models.rsn18.kernels", [15, 11, 9, 7, 4]),
        ("models.rsn18.kernels", 5),
        ("models.rsn18.hard_keypoints", 0),
        ("models.rsn18.intermediate_supervision", "no"),
        ("models.rsn18.cross_stage", 1),
        ("run.models", ["rsn18", "res18", "rsn18"]),
        ("ablations.branches", ["rsn18", "rsn18-branches2", "rsn18"]),
        ("ablations.branches", ["rsn18"]),  # nothing to compare it with
        ("ablations", ["rsn18", "res18"]),
        ("model_lists.few", "rsn18"),
        ("train.precision", "float16"),
        ("train.epochs", True),
        ("evaluate.flip_test", "yes"),
        ("evaluate.flip_test", 1),
        ("evaluate.decoding", "third"),
        ("evaluate.nms", "firm"),
        ("evaluate.nms_threshold", 0),
        ("evaluate.nms_threshold", 1.5),
        ("evaluate.detections", {"coco": 3}),
        ("evaluate.detections", "boxes.json"),
    ],
)
def test_a_wrong_value_is_named(load_changed, key, value):
    named = key.rpartition(".")[0] if key.endswith(("iterations", "schedule.epochs")) else key
    with pytest.raises(UserError, match=r"params.yaml: " + named.replace(".", r"\.")):
        load_changed(key.split("."), value)


@pytest.mark.parametrize(
    "key", ["run", "run.seeds", "datasets.demo.schedule.warmup", "datasets.lspet.more_input_sizes"]
)
def test_a_missing_key_is_named(load_changed, key):
    with pytest.raises(UserError, match=key.replace(".", r"\.") + ": is missing"):
        load_changed(key.split("."), None, remove=True)


@pytest.mark.parametrize("name", ["a/b", "it's", 'a"b', "../up", ".hidden", "-flag", "a b", "v1.2", ""])
@pytest.mark.parametrize("section", ["datasets", "models"])
def test_names_that_make_no_file_names_are_refused(load_changed, section, name):
    values = YAML(typ="safe").load(ROOT / "params.yaml")[section]
    with pytest.raises(UserError, match=rf"params.yaml: {section}\."):
        load_changed([section, name], next(iter(values.values())))


@pytest.mark.parametrize("section", ["datasets", "models"])
def test_what_is_run_must_exist(load_changed, section):
    with pytest.raises(UserError, match=f"{section} has no 'rsn19'; it has .*(rsn18|coco)"):
        load_changed(["run", section], ["rsn19"])


@pytest.mark.parametrize("key", ["run.models", "ablations.branches", "model_lists.few"])
def test_a_list_of_models_must_have_lines(load_changed, key):
    with pytest.raises(UserError, match=rf"params.yaml: {key}: models has no 'rsn19'; it has .*rsn18"):
        load_changed(key.split("."), ["rsn18", "rsn19"])


def test_an_input_size_must_be_one_of_the_data_sets(load_changed):
    with pytest.raises(
        UserError, match=r"models.rsn18.input_size is 'huge', which datasets.demo.more_input_sizes lacks"
    ):
        load_changed(["models", "rsn18", "input_size"], "huge")


@pytest.mark.parametrize(("dataset", "message"), [("cocoa", "has no 'cocoa'"), ("lspet", "evaluate.detections.lspet")])
def test_detections_must_be_of_a_data_set_in_cocos_format(load_changed, dataset, message):
    with pytest.raises(UserError, match=message):
        load_changed(["evaluate", "detections"], {dataset: "boxes.json"})


MOUSE = {
    "keypoints": ["nose", "l_ear", "r_ear", "tail"],
    "mirror": [["l_ear", "r_ear"]],
    "limbs": [["nose", "l_ear"], ["nose", "r_ear"], ["nose", "tail"]],
    "upper_body": ["nose"],
    "sigmas": [0.03, 0.04, 0.04, 0.09],
}
LISTS = ("mirror", "limbs", "upper_body")


@pytest.mark.parametrize("value", [{}, None])
def test_there_may_be_no_skeletons(load_changed, value):
    params = load_changed(["skeletons"], value)
    assert params.skeletons == {} and params.skeleton(params.dataset("demo")) == COCO
    assert load_changed(["skeletons"], None, remove=True).skeletons == {}


def test_a_skeleton_needs_neither_sides_nor_limbs(load_changed):
    params = load_changed(["skeletons"], {"dot": {"keypoints": ["dot"], "sigmas": [0.1]} | dict.fromkeys(LISTS, [])})
    assert params.skeletons["dot"].skeleton("dot") == Skeleton("dot", ("dot",), (), (), (), (0.1,))


def test_the_readmes_example_is_a_skeleton(load_changed):
    example = re.search(r"```yaml\n(datasets:.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)[1]
    example = YAML(typ="safe").load(example)
    loaded = load_changed(["skeletons"], example["skeletons"])
    mice = replace(loaded.dataset("demo"), **example["datasets"]["mice"])
    assert loaded.skeleton(mice).mirrored == [0, 2, 1, 3]
    assert mice.splits["val"] == {"annotations": "labels/val.json", "images": "photos"}


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("keypoints", [], "at least one"),
        ("keypoints", ["nose", "l_ear", "r_ear", "nose"], "more than once: nose"),
        ("keypoints", ["nose", "l_ear", "r_ear", ""], "at least 1 character"),
        ("keypoints", ["nose", "l_ear", "r_ear", 4], "string"),
        ("mirror", [["l_ear", "r_eye"]], "r_eye: not among the keypoints"),
        ("mirror", [["l_ear", "r_ear"], ["nose", "l_ear"]], "more than once: l_ear"),
        ("mirror", [["nose", "nose"]], "more than once: nose"),
        ("mirror", [["l_ear"]], ""),
        ("mirror", [[1, 2]], ""),
        ("limbs", [["nose", "foot"]], "foot: not among the keypoints"),
        ("limbs", [["nose", "nose"]], "two ends"),
        ("limbs", [["nose", "l_ear", "tail"]], ""),
        ("upper_body", ["nose", "hand"], "hand: not among the keypoints"),
        ("upper_body", ["nose", "nose"], "more than once: nose"),
        ("upper_body", "nose", ""),
        ("sigmas", [0.1] * 3, "must be 4, one a keypoint, not 3"),
        ("sigmas", [0.1] * 5, "must be 4, one a keypoint, not 5"),
        ("sigmas", [0.1, 0.1, 0, 0.1], "greater than 0"),
        ("sigmas", [0.1, 0.1, 0.1, "small"], "number"),
        ("colour", "grey", "unknown key"),
        *((key, None, "is missing") for key in MOUSE),
    ],
)
def test_what_is_wrong_with_a_skeleton_is_named(load_changed, key, value, message):
    definition = {name: entry for name, entry in (MOUSE | {key: value}).items() if entry is not None}
    with pytest.raises(UserError, match=rf"params.yaml: (.*; )?skeletons\.mouse\.{key}[^;]*{message}"):
        load_changed(["skeletons"], {"mouse": definition})


@pytest.mark.parametrize("name", ["coco", "mpii", "lsp"])
def test_built_in_skeletons_stay_as_they_are(load_changed, name):
    with pytest.raises(UserError, match=f"skeletons.{name}: is built in"):
        load_changed(["skeletons"], {name: MOUSE})


@pytest.mark.parametrize(
    ("dataset", "skeleton", "message"),
    [
        ("demo", "rat", "there is no skeleton 'rat', only coco, mpii, lsp"),
        ("demo", "mpii", "mpii has no sigmas"),
        ("mpii", "mpii", "is for reader coco; reader mpii has its own"),
        ("lsp", "coco", "is for reader coco; reader lsp has its own"),
        ("demo", 3, "string"),
    ],
)
def test_a_data_sets_skeleton_must_exist_and_be_for_its_reader(load_changed, dataset, skeleton, message):
    with pytest.raises(UserError, match=rf"params.yaml: datasets.{dataset}.skeleton: .*{message}"):
        load_changed(["datasets", dataset, "skeleton"], skeleton)


def test_several_mistakes_are_all_named(load_changed):
    with pytest.raises(UserError, match="branches.*colour"):
        load_changed(["models", "rsn18"], {"branches": 1, "colour": 2})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("run: {datasets: [demo", "not valid YAML.*line 1"),
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


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match="nowhere.yaml: no such file"):
        load_params(tmp_path / "nowhere.yaml")


def test_the_project_is_found_from_below(tmp_path):
    (tmp_path / "params.yaml").touch()
    (tmp_path / "notebooks" / "old").mkdir(parents=True)
    assert project_root(tmp_path / "notebooks" / "old") == tmp_path.resolve()


def test_outside_a_project_the_error_says_what_to_do(tmp_path):
    with pytest.raises(UserError, match="no params.yaml in .*checkout"):
        project_root(tmp_path)


def test_an_architecture_needs_only_what_differs():
    found = parse(Architecture, {"block": "bottleneck", "depths": [3, 4, 6, 3], "expansion": 4}, "model")
    assert found == Architecture("bottleneck", (3, 4, 6, 3), expansion=4)


@pytest.mark.parametrize("changes", [{"branches": 1}, {"attention": "eca"}, {"width_of": 26}, {"depth": [2, 2, 2, 2]}])
def test_an_architectures_mistake_is_named(changes):
    with pytest.raises(UserError, match=f"^model: {next(iter(changes))}: "):
        parse(Architecture, changes, "model")
