"""A data set with a skeleton of its own, birds with five keypoints, through every stage, never taken for COCO's."""

import contextlib
import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from ruamel.yaml import YAML

from rsnlib.__main__ import main
from rsnlib.config import load_params, project_root
from rsnlib.data.augment import augment
from rsnlib.data.batches import cut_crops
from rsnlib.data.images import read_image
from rsnlib.data.readers import read_detections, read_people
from rsnlib.data.readers.detections import Detections
from rsnlib.data.skeletons import COCO, SKELETONS, Skeleton, from_description
from rsnlib.data.store import CropStore
from rsnlib.errors import UserError
from rsnlib.inference.predict import categories_of, predict_store, skeleton_of
from rsnlib.metrics import coco_ap, coco_results, repair_gains
from rsnlib.metrics.coco import keypoints_of
from rsnlib.models.checkpoints import load_model, save_model
from rsnlib.models.zoo import create_model
from rsnlib.stages.evaluate import evaluate, evaluate_weights
from rsnlib.stages.figures import heads_of
from rsnlib.stages.layout import metrics_path, predictions_path, weights_path
from rsnlib.stages.prepare import prepare
from rsnlib.stages.results import load_curve
from rsnlib.stages.stores import load_store
from rsnlib.stages.tables import tables
from rsnlib.stages.train import train

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
UNJUDGED = replace(BIRD, sigmas=None)  # in crop stores and weights
RED, BLUE = (255, 0, 0), (0, 0, 255)  # the dots of left and right wings
PLACES = np.array([[60, 15], [20, 50], [100, 50], [60, 60], [60, 105]])  # of a bird's keypoints
CROW, ROBIN, TREE = 4, 9, 2  # category ids
SPLITS = {split: {"annotations": f"labels/{split}.json", "images": "photos"} for split in ("train", "val")}


def draw_birds(folder, split, count):
    """`count` pictures of a bird each, crows and robins in turn, and their annotations as some tools write them:
    without `area`, `iscrowd` and `num_keypoints`, numbered from 0."""
    images, annotations = [], []
    for number in range(count):
        keypoints = PLACES + [number, 2 * number]
        picture = np.full((130 + 2 * count, 130 + count, 3), 90, np.uint8)
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
    (folder / SPLITS[split]["annotations"]).write_text(json.dumps(content))


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
    settings = values["datasets"]["demo"] | {"skeleton": "bird", "splits": SPLITS}
    settings |= {"input_size": [64, 64], "recipe": settings["recipe"] | {"batch_size": 4, "length": {"epochs": 1}}}
    values["datasets"]["birds"] = settings
    values["skeletons"] = {"bird": DEFINITION}
    tiny = {"network": "res18", "depths": [1, 1, 1, 1], "attention": "prm"}
    values["run"] = {"datasets": {"birds": "data/birds"}, "models": {"tiny": tiny}, "seeds": [0]}
    values["train"]["validations"] = 1
    YAML(typ="safe").dump(values, folder / "params.yaml")
    for name in ("dvc.yaml", "rsnlib", "notebooks"):
        (folder / name).symlink_to(project_root() / name)
    with contextlib.chdir(folder):
        prepare("birds")
        train("birds", "tiny", 0)
        evaluate("birds", "tiny", 0)
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


def read_birds(folder):
    return read_people(folder, "coco", SPLITS["val"], skeleton=BIRD)


# ---- what a skeleton is


def test_a_definition_by_names_is_the_skeleton_by_indices(in_project):
    params = load_params()
    assert params.skeleton(params.dataset("birds")) == BIRD
    assert [BIRD.side(index) for index in range(5)] == ["middle", "left", "right", "middle", "middle"]
    assert params.skeleton(params.dataset("demo")) == COCO
    assert params.skeleton(params.dataset("mpii")).name == "mpii"


@pytest.mark.parametrize(
    ("name", "keypoints", "pair", "middle"),
    [
        ("crowdpose", 14, ("left_ankle", "right_ankle"), "head"),
        ("aic", 14, ("left_wrist", "right_wrist"), "neck"),
        ("ap10k", 17, ("left_back_paw", "right_back_paw"), "root_of_tail"),
        ("halpe26", 26, ("left_heel", "right_heel"), "hip"),
        ("coco-wholebody", 133, ("left_pinky_finger4", "right_pinky_finger4"), "face-8"),
        ("coco-wholebody", 133, ("face-42", "face-39"), "face-30"),  # the eyes' inner corners
    ],
)
def test_other_data_sets_skeletons_are_built_in(name, keypoints, pair, middle):
    skeleton = SKELETONS[name]
    left, right = map(skeleton.keypoints.index, pair)
    assert len(skeleton) == len(skeleton.sigmas) == len(set(skeleton.keypoints)) == keypoints
    assert skeleton.mirrored[left] == right and skeleton.side(left) == "left"
    assert skeleton.side(skeleton.keypoints.index(middle)) == "middle"
    assert {end for limb in skeleton.limbs for end in limb} <= set(range(keypoints))


def test_a_file_says_of_its_skeleton_what_another_machine_needs():
    for skeleton in (*SKELETONS.values(), BIRD, replace(COCO, limbs=())):
        description = json.loads(json.dumps(skeleton.description))
        built_in = skeleton in SKELETONS.values()
        assert from_description(description) == (skeleton if built_in else replace(skeleton, sigmas=None))
        assert isinstance(description, str) == built_in


# ---- reading


def test_all_categories_with_its_keypoints_are_read_and_keep_their_ids(birds, tmp_path):
    people = read_birds(birds)
    assert people.skeleton == BIRD
    assert people.categories.tolist() == [CROW, ROBIN, CROW, ROBIN]  # and no tree
    np.testing.assert_array_equal(people.keypoints[3], PLACES + [3, 6])
    assert [Path(image).name for image in people.images] == [f"val-{number}.png" for number in range(4)]
    # of a file that names no keypoints, the only category
    folder = edited(birds, tmp_path, lambda content: content.update(categories=[{"id": CROW, "name": "crow"}]))
    people = read_people(folder, "coco", SPLITS["val"], "leave out", BIRD)
    assert people.categories.tolist() == [CROW, CROW] and [identity for identity, _ in people.unusable] == [
        "1",
        "3",
        "4",
    ]


@pytest.mark.parametrize(
    "names",
    [["beak", "r_wing", "l_wing", "belly", "tail"], ["beak", "l_wing", "r_wing", "belly"], []],
    ids=["another order", "fewer", "several without"],
)
def test_keypoints_that_are_not_the_skeletons_are_an_error_with_both_lists(birds, tmp_path, names):
    def rename(content):
        for category in content["categories"]:
            category["keypoints"] = names

    folder = edited(birds, tmp_path, rename)
    both = f"bird: beak, l_wing, r_wing, belly, tail\n.*crow: {', '.join(names) or 'no keypoints'};"
    with pytest.raises(UserError, match=f"(?s){folder / SPLITS['val']['annotations']}: key `categories`.*{both}"):
        read_birds(folder)


@pytest.mark.parametrize(
    ("edit", "reason"),
    [
        (lambda content: content["categories"][0].update(id="crow"), "val.json: key `categories`: key `id`"),
        (lambda content: content["annotations"][1]["keypoints"].pop(), "1: keypoints: a list of 14 where a list of 15"),
    ],
)
def test_what_is_wrong_with_a_file_of_birds_is_named(birds, tmp_path, edit, reason):
    with pytest.raises(UserError, match=reason):
        read_birds(edited(birds, tmp_path, edit))
    with pytest.raises(UserError, match="none has the keypoints of the skeleton coco.*`skeleton` in params.yaml"):
        read_people(birds, "coco", SPLITS["val"])


def test_a_detectors_boxes_of_these_categories_are_taken(birds, tmp_path):
    boxes = [{"image_id": 2, "category_id": kind, "bbox": [5, 5, 50, 60], "score": 0.5} for kind in (ROBIN, TREE, 1)]
    (tmp_path / "boxes.json").write_text(json.dumps(boxes))
    found = read_detections(tmp_path / "boxes.json", birds, SPLITS["val"], BIRD)
    assert found.categories.tolist() == [ROBIN] and found.keypoints.shape == (1, 5, 2)
    (tmp_path / "boxes.json").write_text(json.dumps(boxes[1:]))
    with pytest.raises(UserError, match="boxes.json: not a single person .category_id 4, 9"):
        read_detections(tmp_path / "boxes.json", birds, SPLITS["val"], BIRD)
    with pytest.raises(UserError, match="boxes.json: none of its 2 boxes has the category_id of the network: 4, 9"):
        Detections(tmp_path / "boxes.json", [CROW, ROBIN])


# ---- accuracy


def test_average_precision_is_by_the_skeletons_sigmas_and_the_mean_over_its_categories(birds):
    """The file lacks `area`, `iscrowd` and `num_keypoints`, which pycocotools wants."""
    people, annotations = read_birds(birds), birds / SPLITS["val"]["annotations"]
    noise = np.random.default_rng(0).normal(0, 9, people.keypoints.shape)
    off = people.keypoints + np.where((people.categories == CROW)[:, None, None], 500, noise)
    results = coco_results(people.image_ids, off, np.ones((4, 5)), people.scores, categories=people.categories)
    by_sigmas = [replace(BIRD, sigmas=tuple(factor * np.array(BIRD.sigmas))) for factor in (0.5, 1, 9)]
    strict, usual, lax = (coco_ap(results, annotations, skeleton)["AP"] for skeleton in by_sigmas)
    assert strict < usual < lax == pytest.approx(0.5)  # robins 1, crows 0


def test_errors_are_told_by_its_mirror_pairs_and_judged_by_its_sigmas(birds):
    people = read_birds(birds)
    swapped = people.keypoints[:, BIRD.mirrored]
    results = coco_results(people.image_ids, swapped, np.ones((4, 5)), people.scores, categories=people.categories)
    gains = repair_gains(results, people, birds / SPLITS["val"]["annotations"]).set_index("error")
    assert gains["share"].to_dict() == {"jitter": 0, "mirror swap": 2 / 5, "person swap": 0, "miss": 0}
    assert gains["AP"]["mirror swap"] == 1
    assert gains["gain"]["mirror swap"] == pytest.approx(0.7)  # three of five right: a similarity up to 0.6


# ---- crops


def test_a_mirrored_birds_left_wing_is_what_was_its_right(in_project):
    settings, store = load_params().dataset("birds"), load_store("birds", "train")
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
    assert "val_AP" in load_curve("birds", "tiny", 0)
    people = CropStore("work/crops/birds/val.safetensors").people  # known without params.yaml
    assert people.skeleton == UNJUDGED and people.categories.tolist() == [CROW, ROBIN, CROW, ROBIN]
    _, heads, name = heads_of("birds", "tiny", 0, person=0, keypoint=2)
    assert heads.shape[2] == 5 and name == "r wing"
    written = tables("birds")
    assert list(written) == ["Results", "Differences", "Ways of evaluating"]
    assert {path.stem for path in Path("results/birds/tables").glob("*.csv")} == {"results", "evaluation"}
    assert "object keypoint similarity" in written["Results"] and "published" not in written["Results"]


def test_a_flip_test_exchanges_its_wings(in_project):
    store = load_store("birds", "val")
    model = load_model("work/models/birds/tiny-0.safetensors")
    _, (scores,) = predict_store(model, store)
    store.people = replace(store.people, skeleton=replace(BIRD, mirror=()))
    _, (unpaired,) = predict_store(model, store)
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
    assert skeleton_of(model) == UNJUDGED and categories_of(model) == [CROW, ROBIN]
    for options in (["-o", "whole"], ["--boxes", "boxes.json", "-o", "boxed"]):
        monkeypatch.setattr(sys, "argv", ["rsnlib", "predict", "bird.safetensors", "val-0.png", *options])
        main()
        (pose,) = json.loads((tmp_path / options[-1] / "poses.json").read_text())
        assert len(pose["keypoints"]) == 15
        assert read_image(tmp_path / options[-1] / "val-0.jpg").shape == read_image("val-0.png").shape


def test_weights_of_another_skeleton_with_as_many_keypoints_or_of_none_are_refused(in_project, tmp_path):
    model = create_model({"block": "bottleneck", "depths": [1, 1, 1, 1]}, 5, (64, 64))
    fish = replace(BIRD, name="fish", keypoints=("mouth", "l_fin", "r_fin", "back", "tail"))
    save_model(model, tmp_path / "fish.safetensors", {"skeleton": fish.description})
    with pytest.raises(UserError, match="fish.safetensors: is of the skeleton fish, birds of bird"):
        evaluate_weights([tmp_path / "fish.safetensors"], "birds")
    save_model(model, tmp_path / "any.safetensors")
    results, _ = evaluate_weights([tmp_path / "any.safetensors"], "birds")
    assert len(results) == 4
    for skeleton in ("unheard of", {"name": "bird"}, None):
        model.about = {"skeleton": skeleton}
        with pytest.raises(UserError, match="the weights' skeleton is not readable"):
            skeleton_of(model)


@pytest.fixture
def redefined(in_project, tmp_path, monkeypatch):
    """A function: change the definition of the trained project's skeleton, in a copy that is the current folder."""

    def redefine(**changes):
        shutil.copytree(in_project, tmp_path / "redefined", symlinks=True)
        values = YAML(typ="safe").load(in_project / "params.yaml")
        values["skeletons"]["bird"] |= changes
        YAML(typ="safe").dump(values, tmp_path / "redefined/params.yaml")
        monkeypatch.chdir(tmp_path / "redefined")

    return redefine


def test_crops_made_for_another_skeleton_are_not_trained_on(redefined):
    redefined(mirror=[])
    with pytest.raises(UserError, match="train.safetensors: made for another skeleton; .*prepare@birds"):
        train("birds", "tiny", 0)


def test_other_sigmas_judge_the_same_weights_anew(redefined):
    redefined(sigmas=[100.0] * 5)
    weights, curve = weights_path("birds", "tiny", 0).read_bytes(), load_curve("birds", "tiny", 0)
    prepare("birds")
    train("birds", "tiny", 0)
    assert weights_path("birds", "tiny", 0).read_bytes() == weights
    judged = load_curve("birds", "tiny", 0)
    assert judged["loss"].tolist() == curve["loss"].tolist()
    assert judged["val_AP"].iloc[-1] == 1 > curve["val_AP"].iloc[-1]


def test_without_sigmas_correct_keypoints_and_the_mean_error_judge_the_same_weights(redefined):
    redefined(sigmas=None, normalise_by=["l_wing", "r_wing"])
    weights = weights_path("birds", "tiny", 0).read_bytes()
    train("birds", "tiny", 0)
    assert weights_path("birds", "tiny", 0).read_bytes() == weights
    evaluate("birds", "tiny", 0)
    results = json.loads(predictions_path("birds", "tiny", 0).read_text())
    people = load_store("birds", "val").people
    off = np.linalg.norm(keypoints_of(results, 5) - people.keypoints, axis=2)[people.visible > 0]
    metrics = json.loads(metrics_path("birds", "tiny", 0).read_text())
    side = people.boxes[0, 2:].max()  # of every bird
    assert metrics["Mean"] == pytest.approx(100 * np.mean(off <= 0.2 * side))
    wings = np.linalg.norm(np.diff(people.keypoints[0, [1, 2]], axis=0))
    assert metrics["NME"] == pytest.approx(100 * off.mean() / wings)
    assert load_curve("birds", "tiny", 0)["val_Mean"].iloc[-1] >= 0
    written = tables("birds")["Results"]
    assert "NME" in written and "longer side" in written
