"""A data set with a skeleton of its own, drawn birds with five keypoints, through every stage: nothing takes it for
COCO's people."""

import contextlib
import io
import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from pycocotools.coco import COCO as CocoFile
from pycocotools.cocoeval import COCOeval
from ruamel.yaml import YAML

from rsnlib.__main__ import main
from rsnlib.apps.pictures import Detections
from rsnlib.config import load_params, project_root
from rsnlib.data.augment import augment
from rsnlib.data.images import read_image
from rsnlib.data.readers import read_detections, read_people
from rsnlib.data.skeletons import COCO, LSP, MPII, SKELETONS, Skeleton, from_description
from rsnlib.data.store import CropStore
from rsnlib.errors import UserError
from rsnlib.inference.predict import categories_of, predict_store, skeleton_of
from rsnlib.metrics import accuracy, coco_ap, coco_results, repair_gains
from rsnlib.models.checkpoints import load_model, save_model
from rsnlib.models.zoo import create_model
from rsnlib.stages import evaluate as evaluate_stage
from rsnlib.stages import figures as figures_stage
from rsnlib.stages import layout
from rsnlib.stages import prepare as prepare_stage
from rsnlib.stages import tables as tables_stage
from rsnlib.stages import train as train_stage
from rsnlib.training.loop import cut_crops

DEFINITION = {
    "keypoints": ["beak", "l_wing", "r_wing", "belly", "tail"],
    "mirror": [["l_wing", "r_wing"]],
    "limbs": [["beak", "belly"], ["belly", "l_wing"], ["belly", "r_wing"], ["belly", "tail"]],
    "upper_body": ["beak"],
    "sigmas": [0.03, 0.1, 0.1, 0.05, 0.08],
}
BIRD = Skeleton(
    name="bird",
    keypoints=("beak", "l_wing", "r_wing", "belly", "tail"),
    mirror=((1, 2),),
    limbs=((0, 3), (3, 1), (3, 2), (3, 4)),
    upper_body=(0,),
    sigmas=(0.03, 0.1, 0.1, 0.05, 0.08),
)
RED, BLUE = (255, 0, 0), (0, 0, 255)  # the dots of left and right wings
PLACES = np.array([[60, 15], [20, 50], [100, 50], [60, 60], [60, 105]])  # of a bird's keypoints
CROW, ROBIN, TREE = 4, 9, 2  # category ids
SPLITS = {
    "train": {"annotations": "labels/train.json", "images": "photos"},
    "val": {"annotations": "labels/val.json", "images": "photos"},
}


def draw_birds(folder, split, count):
    """`count` pictures of a bird each, crows and robins in turn, and their annotations as some tools write them:
    without `area`, `iscrowd` and `num_keypoints`, numbered from 0."""
    images, annotations = [], []
    for number in range(count):
        keypoints = PLACES + [number, 2 * number]
        picture = np.full((130 + 2 * count, 130 + count, 3), 90, np.uint8)
        for first, second in BIRD.limbs:
            cv2.line(picture, keypoints[first].tolist(), keypoints[second].tolist(), (230, 230, 230), 5)
        for place, color in zip(keypoints.tolist(), ((255, 255, 0), RED, BLUE, (0, 0, 0), (0, 160, 0))):
            cv2.circle(picture, place, 7, color, cv2.FILLED)
        name = f"{split}-{number}.png"
        cv2.imwrite(str(folder / "photos" / name), picture[..., ::-1])
        images.append({"id": number, "file_name": name, "height": picture.shape[0], "width": picture.shape[1]})
        bird = {"id": number, "image_id": number, "category_id": (CROW, ROBIN)[number % 2]}
        box = [*(keypoints.min(axis=0) - 10).tolist(), *(np.ptp(keypoints, axis=0) + 20).tolist()]
        annotations.append(bird | {"bbox": box, "keypoints": np.insert(keypoints, 2, 2, axis=1).ravel().tolist()})
    annotations.append({"id": count, "image_id": 0, "category_id": TREE, "bbox": [0, 0, 9, 9]})
    names = {CROW: "crow", ROBIN: "robin"}
    categories = [{"id": key, "name": name, "keypoints": DEFINITION["keypoints"]} for key, name in names.items()]
    content = {"images": images, "annotations": annotations, "categories": [*categories, {"id": TREE, "name": "tree"}]}
    (folder / "labels" / f"{split}.json").write_text(json.dumps(content))


@pytest.fixture(scope="module")
def birds(tmp_path_factory):
    """The folder of eight birds to train on and four to validate on, laid out in a way of its own."""
    folder = tmp_path_factory.mktemp("drawn") / "birds"
    for name in ("labels", "photos"):
        (folder / name).mkdir(parents=True)
    draw_birds(folder, "train", 8)
    draw_birds(folder, "val", 4)
    return folder


@pytest.fixture(scope="module")
def project(tmp_path_factory, birds):
    """A project whose params.yaml has the birds, prepared, trained and evaluated for one epoch."""
    folder = tmp_path_factory.mktemp("project")
    values = YAML(typ="safe").load(project_root() / "params.yaml")
    shutil.copytree(birds, folder / "data" / "birds")
    settings = values["datasets"]["demo"] | {"root": "data/birds", "skeleton": "bird", "splits": SPLITS}
    settings |= {"input_size": [64, 64], "schedule": values["datasets"]["demo"]["schedule"] | {"batch_size": 4}}
    values["datasets"]["birds"] = settings
    values["skeletons"] = {"bird": DEFINITION}
    values["models"]["tiny"] = {"block": "bottleneck", "depths": [1, 1, 1, 1], "attention": "prm"}
    values["run"] = {"datasets": ["birds"], "models": ["tiny"], "seeds": [0]}
    values["train"] |= {"epochs": 1, "validations": 1}
    YAML(typ="safe").dump(values, folder / "params.yaml")
    for name in ("dvc.yaml", "rsnlib", "notebooks"):
        (folder / name).symlink_to(project_root() / name)
    with contextlib.chdir(folder):
        prepare_stage.prepare("birds")
        train_stage.train("birds", "tiny", 0)
        evaluate_stage.evaluate("birds", "tiny", 0)
    return folder


@pytest.fixture
def in_project(project, monkeypatch):
    monkeypatch.chdir(project)
    return project


def edited(birds, tmp_path, edit):
    """The annotations of the validation birds, changed by `edit` in a copy of the folder; the folder."""
    folder = tmp_path / "birds"
    shutil.copytree(birds, folder)
    file = folder / SPLITS["val"]["annotations"]
    content = json.loads(file.read_text())
    edit(content)
    file.write_text(json.dumps(content))
    return folder


def read_birds(folder, **options):
    return read_people(folder, "coco", SPLITS["val"], skeleton=BIRD, **options)


# ---- what a skeleton is


def test_a_definition_by_names_is_the_skeleton_by_indices(in_project):
    params = load_params()
    assert params.skeleton(params.dataset("birds")) == BIRD
    assert params.skeleton(params.dataset("demo")) == COCO
    assert params.skeleton(params.dataset("mpii")) is None


def test_sides_are_those_of_the_mirror_pairs_whatever_the_names():
    assert [BIRD.side(index) for index in range(5)] == ["middle", "left", "right", "middle", "middle"]
    for skeleton in (COCO, MPII, LSP):
        by_name = [next((s for s in ("left", "right") if name.startswith(s)), "middle") for name in skeleton.keypoints]
        assert [skeleton.side(index) for index in range(len(skeleton))] == by_name


@pytest.mark.parametrize("skeleton", [*SKELETONS.values(), BIRD, replace(COCO, limbs=())], ids=lambda s: s.name)
def test_a_file_says_of_its_skeleton_what_another_machine_needs(skeleton):
    description = json.loads(json.dumps(skeleton.description))
    assert from_description(description) == skeleton
    assert isinstance(description, str) == (skeleton in SKELETONS.values())


# ---- reading


def test_all_categories_with_its_keypoints_are_read_and_keep_their_ids(birds):
    people = read_birds(birds)
    assert people.skeleton == BIRD and people.keypoints.shape == (4, 5, 2)
    assert people.categories.tolist() == [CROW, ROBIN, CROW, ROBIN]  # and no tree
    np.testing.assert_array_equal(people.keypoints[3], PLACES + [3, 6])
    assert [Path(image).name for image in people.images] == [f"val-{number}.png" for number in range(4)]


def test_a_file_that_names_no_keypoints_may_have_one_category(birds, tmp_path):
    def unnamed(content):
        content["categories"] = [{"id": CROW, "name": "crow"}]

    assert read_birds(edited(birds, tmp_path, unnamed)).categories.tolist() == [CROW, CROW]


@pytest.mark.parametrize(
    "names",
    [["beak", "r_wing", "l_wing", "belly", "tail"], ["beak", "l_wing", "r_wing", "belly"], None, []],
    ids=["another order", "fewer", "several without", "empty"],
)
def test_keypoints_that_are_not_the_skeletons_are_an_error_with_both_lists(birds, tmp_path, names):
    def rename(content):
        for category in content["categories"]:
            category.pop("keypoints", None)
            category |= {} if names is None else {"keypoints": names}

    folder = edited(birds, tmp_path, rename)
    with pytest.raises(UserError) as stopped:
        read_birds(folder)
    message = str(stopped.value)
    assert f"{folder / SPLITS['val']['annotations']}: key `categories`" in message
    assert "bird: beak, l_wing, r_wing, belly, tail" in message
    assert f"crow: {', '.join(names or ['no keypoints'])}" in message


def test_a_category_without_a_whole_number_is_an_error(birds, tmp_path):
    folder = edited(birds, tmp_path, lambda content: content["categories"][0].update(id="crow"))
    with pytest.raises(UserError, match="val.json: key `categories`: key `id`"):
        read_birds(folder)


def test_a_wrong_number_of_keypoints_is_named(birds, tmp_path):
    folder = edited(birds, tmp_path, lambda content: content["annotations"][1]["keypoints"].pop())
    with pytest.raises(UserError, match="1: keypoints: a list of 14 where a list of 15 numbers belongs"):
        read_birds(folder)


def test_cocos_reader_says_what_a_data_set_with_other_keypoints_does(birds):
    with pytest.raises(UserError, match="no category named person.*`skeleton` in params.yaml"):
        read_people(birds, "coco", SPLITS["val"])


def test_files_that_a_split_names_and_that_are_not_there_are_named(birds):
    with pytest.raises(UserError, match="labels/test.json: no such file"):
        read_people(birds, "coco", SPLITS["val"] | {"annotations": "labels/test.json"}, skeleton=BIRD)
    with pytest.raises(UserError, match="pictures: no such folder"):
        read_people(birds, "coco", SPLITS["val"] | {"images": "pictures"}, skeleton=BIRD)


def test_a_detectors_boxes_of_these_categories_are_taken(birds, tmp_path):
    boxes = [{"image_id": 2, "category_id": kind, "bbox": [5, 5, 50, 60], "score": 0.5} for kind in (ROBIN, TREE, 1)]
    (tmp_path / "boxes.json").write_text(json.dumps(boxes))
    found = read_detections(tmp_path / "boxes.json", birds, SPLITS["val"], BIRD)
    assert found.categories.tolist() == [ROBIN] and found.keypoints.shape == (1, 5, 2)
    (tmp_path / "boxes.json").write_text(json.dumps(boxes[1:]))
    with pytest.raises(UserError, match="boxes.json: not a single person .category_id 4, 9"):
        read_detections(tmp_path / "boxes.json", birds, SPLITS["val"], BIRD)


# ---- accuracy


def by_pycocotools(results, annotations, skeleton):
    """(10,) with the sigmas of the skeleton, of annotations with all that pycocotools wants."""
    with contextlib.redirect_stdout(io.StringIO()):
        truth = CocoFile(str(annotations))
        evaluation = COCOeval(truth, truth.loadRes(results), "keypoints")
        evaluation.params.kpt_oks_sigmas = np.array(skeleton.sigmas)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation.stats


@pytest.fixture
def jittered(birds):
    """The validation birds and keypoints some pixels from theirs, the crows' further."""
    people = read_birds(birds)
    noise = np.random.default_rng(0).normal(0, 1, people.keypoints.shape)
    far = np.where(people.categories == CROW, 7, 3)[:, None, None]
    return people, people.keypoints + noise * far, np.random.default_rng(1).uniform(0.5, 1.5, (4, 5))


def test_average_precision_is_by_pycocotools_with_the_skeletons_sigmas(jittered, birds, tmp_path):
    def complete(content):
        content["annotations"] = [
            bird | {"id": bird["id"] + 1, "iscrowd": 0, "num_keypoints": 5, "area": bird["bbox"][2] * bird["bbox"][3]}
            for bird in content["annotations"]
            if bird["category_id"] != TREE
        ]

    people, keypoints, scores = jittered
    annotations = edited(birds, tmp_path, complete) / SPLITS["val"]["annotations"]
    results = coco_results(people.image_ids, keypoints, scores, people.scores, categories=people.categories)
    figures = coco_ap(results, birds / SPLITS["val"]["annotations"], BIRD)  # with less than pycocotools wants
    assert list(figures.values()) == by_pycocotools(results, annotations, BIRD).tolist()
    strict, lax = (replace(BIRD, sigmas=tuple(factor * np.array(BIRD.sigmas))) for factor in (0.5, 2))
    assert coco_ap(results, annotations, strict)["AP"] < figures["AP"] < coco_ap(results, annotations, lax)["AP"]


def test_average_precision_is_the_mean_over_the_categories(jittered, birds, project):
    people, keypoints, scores = jittered
    settings = load_params(project / "params.yaml").dataset("birds")
    right = np.where((people.categories == ROBIN)[:, None, None], people.keypoints, people.keypoints + 500)
    figures = accuracy(settings, project, people, right, scores)
    assert figures["AP"] == pytest.approx(0.5)  # robins 1, crows 0


def test_errors_are_told_by_its_mirror_pairs_and_judged_by_its_sigmas(birds):
    people = read_birds(birds)
    swapped = people.keypoints[:, BIRD.mirrored]
    results = coco_results(people.image_ids, swapped, np.ones((4, 5)), people.scores, categories=people.categories)
    gains = repair_gains(results, people, birds / SPLITS["val"]["annotations"]).set_index("error")
    assert gains["share"].to_dict() == {"jitter": 0, "mirror swap": 2 / 5, "person swap": 0, "miss": 0}
    assert gains["AP"]["mirror swap"] == 1
    assert gains["gain"]["mirror swap"] == pytest.approx(0.7)  # three of five right: a similarity up to 0.6


# ---- crops


def test_a_crop_store_says_its_skeleton_without_params(project, tmp_path):
    store = CropStore(shutil.copy(project / "work/crops/birds/val.safetensors", tmp_path))
    assert store.people.skeleton == BIRD
    assert store.people.categories.tolist() == [CROW, ROBIN, CROW, ROBIN]


def test_a_store_of_cocos_people_says_nothing_new(demo_folder, tmp_path, monkeypatch, committed):
    shutil.copytree(demo_folder, tmp_path / "data" / "demo")
    shutil.copy(project_root() / "params.yaml", tmp_path)
    monkeypatch.chdir(tmp_path)
    prepare_stage.prepare("demo")
    header = (tmp_path / "work/crops/demo/val.safetensors").read_bytes()[:4000]
    assert b'\\"skeleton\\": \\"coco\\"' in header and b"categories" not in header


def test_a_mirrored_birds_left_wing_is_what_was_its_right(in_project):
    settings, store = load_params().dataset("birds"), layout.load_store("birds", "train")
    still = replace(settings.augmentation, half_body=0, rotation_probability=0, scale=(1.0, 1.0))
    for flip, color in ((0, RED), (1, BLUE)):
        turned = replace(settings, augmentation=replace(still, flip=flip))
        ((crops, keypoints, visible),) = cut_crops(np.arange(8), store, turned, np.random.default_rng(0))
        assert (visible == 2).all()
        for crop, (x, y) in zip(crops, np.round(keypoints[:, BIRD.keypoints.index("l_wing")]).astype(int)):
            np.testing.assert_allclose(crop[y, x], color, atol=60)  # JPEG


@pytest.mark.parametrize("upper_body", [(), (0, 1, 2, 3, 4)], ids=["none", "all"])
def test_half_a_body_without_another_half_is_the_whole_crop_or_its_keypoints(birds, committed, upper_body):
    people = replace(read_birds(birds), skeleton=replace(BIRD, upper_body=upper_body))
    settings = replace(committed.dataset("coco").augmentation, half_body=1)
    matrices, keypoints, visible = augment(people, settings, (64, 64), np.random.default_rng(0))
    assert np.isfinite(matrices).all() and (np.linalg.det(matrices[..., :2]) != 0).all()


# ---- the stages


def test_every_stage_keeps_to_the_skeleton(in_project):
    results = json.loads((in_project / "work/predictions/birds/tiny-0.json").read_text())
    assert [len(result["keypoints"]) for result in results] == [15] * 4
    assert [result["category_id"] for result in results] == [CROW, ROBIN, CROW, ROBIN]
    figures = json.loads((in_project / "results/birds/evaluate/tiny-0.json").read_text())
    assert figures == coco_ap(results, in_project / "data/birds/labels/val.json", BIRD)
    assert "val_AP" in layout.load_curve("birds", "tiny", 0)
    _, heads, name = figures_stage.heads_of("birds", "tiny", 0, person=0, keypoint=2)
    assert heads.shape[2] == 5 and name == "r wing"


def test_its_tables_have_our_runs_alone(in_project):
    written = tables_stage.tables("birds")
    assert list(written) == ["Results", "Differences", "Ways of evaluating"]
    assert pd.read_csv("results/birds/tables/results.csv")["source"].tolist() == ["this run"]
    assert "object keypoint similarity" in written["Results"] and "published" not in written["Results"]


def test_a_flip_test_exchanges_its_wings(in_project):
    store = layout.load_store("birds", "val")
    model = load_model("work/models/birds/tiny-0.safetensors")
    _, scores = predict_store(model, store)
    store.people = replace(store.people, skeleton=replace(BIRD, mirror=()))
    _, unpaired = predict_store(model, store)
    paired = [1, 2]
    np.testing.assert_array_equal(np.delete(scores, paired, 1), np.delete(unpaired, paired, 1))
    assert (scores[:, paired] != unpaired[:, paired]).any()


def test_the_weights_alone_are_enough_to_predict(project, birds, tmp_path, monkeypatch):
    shutil.copy(project / "work/models/birds/tiny-0.safetensors", tmp_path / "bird.safetensors")
    shutil.copy(birds / "photos/val-0.png", tmp_path)
    boxes = [{"file_name": "val-0.png", "category_id": kind, "bbox": [10, 5, 90, 100]} for kind in (ROBIN, 1)]
    (tmp_path / "boxes.json").write_text(json.dumps(boxes))
    monkeypatch.chdir(tmp_path)
    model = load_model("bird.safetensors")
    assert skeleton_of(model) == BIRD and categories_of(model) == [CROW, ROBIN]
    for arguments, count in ((["-o", "whole"], 1), (["--boxes", "boxes.json", "-o", "boxed"], 1)):
        monkeypatch.setattr(sys, "argv", ["rsnlib", "predict", "bird.safetensors", "val-0.png", *arguments])
        main()
        poses = json.loads((tmp_path / arguments[-1] / "poses.json").read_text())
        assert [len(pose["keypoints"]) for pose in poses] == [15] * count
        assert read_image(tmp_path / arguments[-1] / "val-0.jpg").shape == read_image("val-0.png").shape


def test_boxes_none_of_which_is_for_the_network_are_named(tmp_path):
    (tmp_path / "boxes.json").write_text(json.dumps([{"image_id": 1, "category_id": 19, "bbox": [0, 0, 9, 9]}]))
    with pytest.raises(UserError, match="boxes.json: none of its 1 boxes has the category_id of the network: 4, 9"):
        Detections(tmp_path / "boxes.json", [CROW, ROBIN])


def test_weights_of_another_skeleton_with_as_many_keypoints_are_refused(in_project, tmp_path):
    model = create_model({"block": "bottleneck", "depths": [1, 1, 1, 1]}, 5, (64, 64))
    fish = replace(BIRD, name="fish", keypoints=("mouth", "l_fin", "r_fin", "back", "tail"))
    save_model(model, tmp_path / "fish.safetensors", {"skeleton": fish.description})
    with pytest.raises(UserError, match="fish.safetensors: is of the skeleton fish, birds of bird"):
        evaluate_stage.evaluate_weights([tmp_path / "fish.safetensors"], "birds")
    save_model(model, tmp_path / "any.safetensors")
    results, _ = evaluate_stage.evaluate_weights([tmp_path / "any.safetensors"], "birds")
    assert len(results) == 4


@pytest.mark.parametrize("skeleton", ["unheard of", {"name": "bird"}, 3, None, {"colour": 3}])
def test_weights_whose_skeleton_is_none_are_refused(skeleton):
    model = create_model({"block": "bottleneck", "depths": [1, 1, 1, 1]}, 5, (64, 64))
    model.about = {"skeleton": skeleton}
    with pytest.raises(UserError, match="skeleton"):
        skeleton_of(model)


def test_crops_made_for_another_skeleton_are_not_trained_on(in_project, tmp_path, monkeypatch):
    values = YAML(typ="safe").load(in_project / "params.yaml")
    values["skeletons"]["bird"]["sigmas"] = [0.1] * 5
    YAML(typ="safe").dump(values, tmp_path / "params.yaml")
    shutil.copytree(in_project / "work", tmp_path / "work")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="train.safetensors: made for another skeleton; .*prepare@birds"):
        train_stage.train("birds", "tiny", 0)
