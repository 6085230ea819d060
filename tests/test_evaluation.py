"""Networks and ensembles judged in true and in a detector's boxes, cut from the pictures."""

import json
import re
import shutil
import sys

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from ruamel.yaml import YAML
from scipy.io import loadmat

from rsnlib.__main__ import main
from rsnlib.apps.submission import check_submission, write_submission
from rsnlib.config import project_root
from rsnlib.data.readers import read_detections, read_people
from rsnlib.data.store import CropStore, write_crop_store
from rsnlib.errors import UserError
from rsnlib.files import write_json
from rsnlib.inference.predict import WAYS, average_heatmaps, predict_people, predict_people_in_ways, predict_store
from rsnlib.metrics import coco_ap, coco_results
from rsnlib.models.checkpoints import save_model
from rsnlib.models.zoo import create_model
from rsnlib.stages import evaluate as evaluate_stage
from rsnlib.stages import figures as figures_stage
from rsnlib.stages import layout
from rsnlib.stages import prepare as prepare_stage
from rsnlib.stages import tables as tables_stage

DETECTIONS = "person_detection_results/COCO_val2017_detections_AP_H_56_person.json"


def network(size, seed=0, keypoints=17):
    """The smallest network there is, untrained, for crops of that height and width."""
    torch.manual_seed(seed)
    return create_model({"block": "bottleneck", "depths": [1, 1, 1, 1]}, keypoints, size).eval()


# ---- a detector's boxes


@pytest.fixture
def detected(demo_folder, tmp_path):
    """A function: a file of one detection of each drawn validation person, its last changed; and those people."""
    people = read_people(demo_folder, "coco", "val2017")
    detections = [
        {"image_id": image_id, "category_id": 1, "bbox": box, "score": 0.9}
        for image_id, box in zip(people.image_ids.tolist(), people.boxes.tolist())
    ]

    def write(**changes):
        detections[-1].update(changes)
        path = tmp_path / "detections.json"
        path.write_text(json.dumps(detections))
        return path, people

    return write


def test_detections_are_people_without_keypoints(detected, demo_folder):
    path, people = detected(score=0.25)
    found = read_detections(path, demo_folder, "val2017")
    np.testing.assert_array_equal(found.boxes, people.boxes)
    np.testing.assert_array_equal(found.images, people.images)
    np.testing.assert_array_equal(found.image_sizes, people.image_sizes)
    assert found.scores.tolist() == [0.9, 0.9, 0.9, 0.25] and not found.visible.any()
    np.testing.assert_array_equal(found.areas, people.boxes[:, 2] * people.boxes[:, 3])


def test_other_categories_are_passed_over(detected, demo_folder):
    path, _ = detected(category_id=18)
    assert len(read_detections(path, demo_folder, "val2017")) == 3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image_id": 999}, "image_id 999 is not among the images of .*val2017.json"),
        ({"image_id": "1"}, "image_id: '1' is not a whole number"),
        ({"category_id": None}, "category_id: None is not a whole number"),
        ({"bbox": [1, 2, 3]}, "bbox: a list of 3 where a list of 4 numbers belongs"),
        ({"bbox": [1, 2, 3, float("nan")]}, "bbox: nan is not a finite number"),
        ({"bbox": [1, 2, 0, 5]}, "box has no area"),
        ({"bbox": [9999, 2, 5, 5]}, "box lies wholly outside its image"),
        ({"score": "high"}, "score: 'high' is not a finite number"),
    ],
)
def test_a_malformed_detection_is_named(detected, demo_folder, changes, message):
    path, _ = detected(**changes)
    with pytest.raises(UserError, match=f"detections.json: entry 3: {message}"):
        read_detections(path, demo_folder, "val2017")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{}", "not a list of detections"),
        ("[3]", "entry 0: not an object"),
        ("[]", "not a single person"),
        ("[", "not readable as JSON"),
    ],
)
def test_a_file_that_is_no_detections_is_named(demo_folder, tmp_path, content, message):
    (tmp_path / "some.json").write_text(content)
    with pytest.raises(UserError, match=f"some.json: {message}"):
        read_detections(tmp_path / "some.json", demo_folder, "val2017")


def test_test_splits_are_listed_without_annotations(tmp_path):
    (tmp_path / "annotations").mkdir()
    (tmp_path / "images/test2017").mkdir(parents=True)
    Image.new("RGB", (60, 80)).save(tmp_path / "images/test2017/7.png")
    listing = {"images": [{"id": 7, "file_name": "7.png", "height": 80, "width": 60}], "categories": []}
    (tmp_path / "annotations/image_info_test-dev2017.json").write_text(json.dumps(listing))
    detection = {"image_id": 7, "category_id": 1, "bbox": [5, 5, 40, 60], "score": 0.5}
    (tmp_path / "boxes.json").write_text(json.dumps([detection]))
    people = read_detections(tmp_path / "boxes.json", tmp_path, "test-dev2017")
    assert people.image_ids.tolist() == [7]

    (tmp_path / "images/test2017/7.png").unlink()
    with pytest.raises(UserError, match="7.png: no such file"):
        read_detections(tmp_path / "boxes.json", tmp_path, "test-dev2017")


# ---- crops cut from the pictures


@pytest.mark.parametrize("decoding", ["quarter", "dark"])
def test_people_are_predicted_as_their_crop_store_is(demo_folder, tmp_path, decoding):
    people = read_people(demo_folder, "coco", "train2017")
    model = network((64, 64))
    write_crop_store(tmp_path / "store", people, (64, 64), (0.09, 0.135))
    store = CropStore(tmp_path / "store")
    keypoints, scores = predict_people([model], store.people, (0.09, 0.135), decoding=decoding)
    wanted = predict_store(model, store, decoding=decoding)
    np.testing.assert_allclose(keypoints, wanted[0], atol=1e-3)
    np.testing.assert_allclose(scores, wanted[1], atol=1e-6)


def test_people_are_predicted_in_all_ways_as_in_one_at_a_time(demo_folder):
    people = read_people(demo_folder, "coco", "val2017")
    models = [network((64, 64)), network((96, 96), seed=1)]
    keypoints, scores = predict_people_in_ways(models, people, (0.1, 0.1), WAYS)
    for way, (flip_test, decoding) in enumerate(WAYS):
        alone = predict_people(models, people, (0.1, 0.1), flip_test, decoding=decoding)
        np.testing.assert_allclose(keypoints[way], alone[0], atol=1e-3)
        np.testing.assert_allclose(scores[way], alone[1], atol=1e-6)


def test_more_people_than_a_batch_keep_their_order(demo_folder):
    people = read_people(demo_folder, "coco", "val2017")
    rows = np.random.default_rng(0).integers(0, 4, 70)
    keypoints, scores = predict_people([network((32, 32))], people, (0.1, 0.1), flip_test=False)
    many, many_scores = predict_people([network((32, 32))], people.take(rows), (0.1, 0.1), flip_test=False)
    np.testing.assert_allclose(many, keypoints[rows], atol=1e-3)
    np.testing.assert_allclose(many_scores, scores[rows], atol=1e-6)


# ---- ensembles


def test_heatmaps_of_other_sizes_are_averaged_where_they_show_the_same():
    small, large = torch.zeros(1, 1, 64, 48), torch.zeros(1, 1, 96, 72)
    small[0, 0, 20, 10] = large[0, 0, 30, 15] = 200.0  # the same place of the crop to two thirds of a cell
    averaged = average_heatmaps([small, large])
    assert averaged.shape == (1, 1, 96, 72)
    row, column = divmod(int(averaged.argmax()), 72)
    assert (row, column) == (30, 15)
    ramp = torch.arange(64.0)[:, None].expand(1, 1, 64, 48)
    inner = average_heatmaps([ramp, torch.zeros(1, 1, 96, 72)])[0, 0, 2:-2, 0]
    # cell i of the larger covers (i + 0.5) / 1.5 - 0.5 of the smaller's
    torch.testing.assert_close(inner, ((torch.arange(2.0, 94) + 0.5) / 1.5 - 0.5) / 2)


def test_an_ensemble_of_one_network_twice_is_that_network(demo_folder):
    people = read_people(demo_folder, "coco", "val2017")
    model = network((64, 64))
    alone, twice = (predict_people(models, people, (0.1, 0.1)) for models in ([model], [model, model]))
    np.testing.assert_allclose(twice[0], alone[0], atol=1e-3)
    np.testing.assert_allclose(twice[1], alone[1], atol=1e-6)


def test_an_ensemble_of_other_aspects_is_refused(demo_folder):
    people = read_people(demo_folder, "coco", "val2017")
    with pytest.raises(UserError, match="one aspect.*64x64, 128x96"):
        predict_people([network((64, 64)), network((128, 96))], people, (0.1, 0.1))


# ---- whole evaluations


@pytest.fixture
def project(tmp_path, monkeypatch, committed):
    """A function: make a folder with params.yaml the working directory, in it `evaluate` and a data set there."""
    values = YAML(typ="safe").load(project_root() / "params.yaml")

    def make(root, dataset="coco", **evaluate):
        values["datasets"][dataset]["root"] = str(root)
        values["evaluate"] |= evaluate
        YAML(typ="safe").dump(values, tmp_path / "params.yaml")
        monkeypatch.chdir(tmp_path)
        return tmp_path

    return make


def saved(folder, *sizes):
    paths = [folder / f"{index}.safetensors" for index in range(len(sizes))]
    for seed, (path, size) in enumerate(zip(paths, sizes)):
        save_model(network(size, seed), path)
    return list(map(str, paths))


def test_networks_for_256x192_and_384x288_are_an_ensemble(demo_folder, project, monkeypatch, capsys):
    folder = project(demo_folder)
    weights = saved(folder, (256, 192), (384, 288))
    monkeypatch.setattr(sys, "argv", ["rsnlib", "evaluate", *weights, "--dataset", "coco", "-o", "results.json"])
    main()
    figures = json.loads(capsys.readouterr().out)
    assert 0 <= figures["AP"] <= 1
    assert figures == coco_ap(folder / "results.json", demo_folder / "annotations/person_keypoints_val2017.json")
    small, large, both = (
        np.array([result["score"] for result in evaluate_stage.evaluate_weights(paths, "coco")[0]])
        for paths in (weights[:1], weights[1:], weights)
    )
    assert not np.allclose(both, small) and not np.allclose(both, large)


@pytest.mark.shared
def test_a_real_detectors_boxes_run_through_the_whole_evaluation(shared, project):
    folder = project(shared / "data/coco", detections={"coco": DETECTIONS})
    entries = json.loads((shared / "data/coco" / DETECTIONS).read_text())
    people = evaluate_stage.evaluation_people("coco")
    assert len(people) == len(entries) == 118 and people.image_count == 4
    assert people.scores.tolist() == [entry["score"] for entry in entries]

    results, figures = evaluate_stage.evaluate_weights(saved(folder, (128, 96)), "coco")
    assert set(figures) >= {"AP", "ARL"} and len(results) == 118
    for result, entry in zip(results, entries):
        assert result["image_id"] == entry["image_id"] and result["box"] == entry["bbox"]
        assert result["score"] == pytest.approx(entry["score"] * np.mean(result["keypoints"][2::3]))
    (folder / "results.json").write_text(json.dumps(results))
    check_submission(write_submission(folder / "results.json", "val2017", "RSN", folder))


def test_mpiis_test_people_are_predicted_for_its_leaderboard(mpii_folder, project, monkeypatch, capsys):
    folder = project(mpii_folder, "mpii")
    save_model(network((64, 64), keypoints=16), "weights.safetensors")
    command = ["rsnlib", "evaluate", "weights.safetensors", "--dataset", "mpii", "--split", "test"]
    monkeypatch.setattr(sys, "argv", [*command, "-o", "results.json"])
    main()
    assert capsys.readouterr().out == "4 people, of a split without annotations to judge them by\n"
    results = json.loads((folder / "results.json").read_text())
    assert [result["person_id"] for result in results] == [1, 2, 3, 4]

    monkeypatch.setattr(sys, "argv", ["rsnlib", "submit", "results.json", "--dataset", "mpii", "-o", "out"])
    main()
    assert capsys.readouterr().out == "out/pred_keypoints_mpii.mat\n"
    points = loadmat("out/pred_keypoints_mpii.mat")["pred"][0, 2]["annorect"]["annopoints"][0, 3]["point"][0, 0]
    first = np.reshape(results[0]["keypoints"], (16, 3))  # of the last in MPII's own annotations of c.jpg
    np.testing.assert_allclose([point["x"].item() for point in points.ravel()], first[:, 0] + 1)
    np.testing.assert_allclose([point["y"].item() for point in points.ravel()], first[:, 1] + 1)


def test_people_without_joints_are_not_trained_on(mpii_folder, project):
    folder = project(mpii_folder, "mpii")
    values = YAML(typ="safe").load(folder / "params.yaml")
    values["datasets"]["mpii"]["splits"] = {"train": "test", "val": "test"}
    YAML(typ="safe").dump(values, folder / "params.yaml")
    with pytest.raises(UserError, match="datasets.mpii.splits.train: nobody in it has a labelled keypoint"):
        prepare_stage.prepare("mpii")


def test_where_results_cannot_be_written_nothing_is_computed(demo_folder, project, monkeypatch):
    folder = project(demo_folder)
    (folder / "file").write_text("a user's")
    command = ["rsnlib", "evaluate", "nowhere.safetensors", "--dataset", "coco", "-o", "file/results.json"]
    monkeypatch.setattr(sys, "argv", command)
    with pytest.raises(SystemExit, match="error: file/results.json: cannot be written .file is a file, not a folder"):
        main()


def test_suppression_takes_a_box_that_was_found_twice(demo_folder, detected, project):
    path, people = detected()
    twice = [entry | {"score": score} for score in (0.9, 0.5) for entry in json.loads(path.read_text())]
    path.write_text(json.dumps(twice))
    folder = project(demo_folder, nms="hard")
    weights = saved(folder, (64, 64))
    results, figures = evaluate_stage.evaluate_weights(weights, "coco", detections=path)
    assert len(results) == len(people)
    project(demo_folder, nms=None)
    assert len(evaluate_stage.evaluate_weights(weights, "coco", detections=path)[0]) == 2 * len(people)
    project(demo_folder, nms="soft")
    softened = sorted(
        result["score"] for result in evaluate_stage.evaluate_weights(weights, "coco", detections=path)[0]
    )
    assert len(softened) == 2 * len(people) and softened[-1] == max(result["score"] for result in results)


def test_detections_are_for_cocos_format(project, demo_folder):
    project(demo_folder, detections={"mpii": "boxes.json"})
    with pytest.raises(UserError, match="evaluate.detections.mpii"):
        evaluate_stage.evaluation_people("coco")


@pytest.fixture
def a_run(project, demo_folder):
    """A function: a run of an untrained network on drawn people, judged as `evaluate` of params.yaml says; its store
    and figures."""

    def judge(**options):
        project(demo_folder, **options)
        people = read_people(demo_folder, "coco", "val2017")
        write_crop_store(layout.crops_path("coco", "val"), people, (256, 192), (0.09, 0.135))
        save_model(network((256, 192)), layout.weights_path("coco", "res18", 0))
        return layout.load_store("coco", "val"), evaluate_stage.evaluate("coco", "res18", 0)

    return judge


@pytest.mark.parametrize(("flip_test", "decoding"), WAYS)
def test_the_way_that_params_choose_is_the_runs_own_as_if_alone(a_run, demo_folder, flip_test, decoding):
    store, figures = a_run(flip_test=flip_test, decoding=decoding)
    keypoints, scores = predict_store(network((256, 192)), store, flip_test, decoding=decoding)
    alone = coco_results(store.people.image_ids, keypoints, scores, store.people.scores, store.people.boxes)
    alone = [result | {"person_id": person} for result, person in zip(alone, store.people.ids.tolist())]
    assert json.loads(layout.predictions_path("coco", "res18", 0).read_text()) == alone
    assert figures == coco_ap(alone, demo_folder / "annotations/person_keypoints_val2017.json")
    assert json.loads(layout.results_path("coco", "evaluate", "res18-0.json").read_text()) == figures


def test_every_way_and_what_is_wrong_is_written_beside_the_figures(a_run):
    _, figures = a_run(flip_test=True, decoding="dark")
    variants = layout.load_evaluation("coco", "res18", 0, "variants")
    assert list(zip(variants["flip_test"], variants["decoding"])) == list(WAYS)
    assert variants.iloc[3].drop(["flip_test", "decoding"]).to_dict() == pytest.approx(figures)
    text = layout.evaluation_path("coco", "res18", 0, "variants").read_text()
    assert text.startswith("flip_test,decoding,AP,") and "\ntrue,dark," in text

    errors, gains, groups = (layout.load_evaluation("coco", "res18", 0, name) for name in ("errors", "gains", "groups"))
    assert len(errors) == 17 and list(errors)[:3] == ["keypoint", "judged", "good"]
    assert list(gains) == ["error", "share", "AP", "gain"] and len(gains) == 4
    everyone = {"by": "everyone", "group": "all", "people": 4, "AP": pytest.approx(figures["AP"])}
    assert groups.to_dict("records") == [everyone]


def test_a_run_that_is_not_judged_yet_is_named(project, demo_folder):
    project(demo_folder)
    with pytest.raises(UserError, match="res18-0/gains.csv: no such file; the stage `evaluate`"):
        layout.load_evaluation("coco", "res18", 0, "gains")


@pytest.mark.parametrize(
    "options", [{}, {"nms": "hard", "decoding": "dark", "detections": {"coco": "detections.json"}}]
)
def test_a_run_is_judged_as_params_say_and_its_poses_found_again(demo_folder, detected, project, options):
    folder = project(demo_folder, **options)
    _, people = detected()
    for split in ("train", "val"):
        write_crop_store(layout.crops_path("coco", split), people, (256, 192), (0.09, 0.135))
    entries = json.loads((folder / "detections.json").read_text())
    (demo_folder / "detections.json").write_text(json.dumps(entries + entries))
    layout.weights_path("coco", "res18", 0).parent.mkdir(parents=True)
    save_model(network((256, 192)), layout.weights_path("coco", "res18", 0))

    figures = evaluate_stage.evaluate("coco", "res18", 0)
    (demo_folder / "detections.json").unlink()
    predictions = layout.predictions_path("coco", "res18", 0)
    assert figures == coco_ap(predictions, demo_folder / "annotations/person_keypoints_val2017.json")
    image_ids, poses = layout.load_poses("coco", "res18", 0)
    assert sorted(image_ids) == sorted(people.image_ids) and len(poses.boxes) == len(people)
    crops, keypoints, scores = evaluate_stage.predicted_crops("coco", "res18", 0, count=3)
    assert crops.shape == (3, 256, 192, 3) and keypoints.shape == (3, 17, 2) and scores.shape == (3, 17)
    assert (keypoints >= 0).all() and (keypoints < [192, 256]).all()
    if not options:
        store = layout.load_store("coco", "val")
        windows = np.array([store.window(row) for row in range(3)], int)
        assert np.abs(crops - windows).max() <= 1  # a grey level, for the rounding of a picture among others
    (picture, *_), *_ = figures_stage.pictures("coco", "res18", 0, count=2)
    assert picture.ndim == 3


# ---- the tables of runs


@pytest.fixture
def judged(demo_folder, tmp_path, monkeypatch):
    """A function: a project whose models predicted the drawn people, others than rsn18 with more noise."""
    people = read_people(demo_folder, "coco", "val2017")
    random = np.random.default_rng(0)
    noise = random.normal(0, 1, (3, *people.keypoints.shape))
    values = YAML(typ="safe").load(project_root() / "params.yaml")
    for name in ("dvc.yaml", "rsnlib", "notebooks"):
        (tmp_path / name).symlink_to(project_root() / name)

    def make(seeds, detections=None, models=("rsn18", "rsn18-prm")):
        values["datasets"]["demo"]["root"] = str(demo_folder)
        values["run"] = {"datasets": ["demo"], "models": list(models), "seeds": list(range(seeds))}
        values["evaluate"]["detections"] = {"demo": detections} if detections else {}
        YAML(typ="safe").dump(values, tmp_path / "params.yaml")
        monkeypatch.chdir(tmp_path)
        for split in ("train", "val"):
            write_crop_store(layout.crops_path("demo", split), people, (128, 96), (0.09, 0.135))
        for model, seed in layout.runs("demo"):
            where = people.take(np.repeat(np.arange(4), 3 if detections else 1))  # a detector finds everybody thrice
            off = (1 if model == "rsn18" else 3) * np.repeat(noise[seed], 3 if detections else 1, axis=0)
            scores = random.uniform(0.9, 1, where.visible.shape)
            results = coco_results(where.image_ids, where.keypoints + off, scores, where.scores, where.boxes)
            write_json(layout.predictions_path("demo", model, seed), results)
            figures = coco_ap(results, demo_folder / "annotations/person_keypoints_val2017.json")
            write_json(layout.results_path("demo", "evaluate", f"{model}-{seed}.json"), figures)
            rows = [{"flip_test": flip_test, "decoding": decoding, **figures} for flip_test, decoding in WAYS]
            path = layout.evaluation_path("demo", model, seed, "variants")
            path.parent.mkdir(parents=True, exist_ok=True)
            pd.DataFrame(rows).to_csv(path, index=False)
            layout.weights_path("demo", model, seed).parent.mkdir(parents=True, exist_ok=True)
            about = {"params": f"{model}{seed}", "machine": f"machine {seed % 2}"}
            save_model(network((128, 96)), layout.weights_path("demo", model, seed), about)
        return tmp_path / "results/demo/tables"

    return make


def test_tables_are_the_same_bytes_from_the_same_inputs(judged):
    folder = judged(seeds=1)
    tables_stage.tables("demo")
    written = {path.name: path.read_bytes() for path in folder.iterdir()}
    suffixes = ("csv", "md", "tex")
    names = {f"{name}.{suffix}" for name in ("results", "ablation-attention", "evaluation") for suffix in suffixes}
    assert set(written) == names | {"differences.md"}
    tables_stage.tables("demo")
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == written


def test_tables_tell_what_the_predictions_do(judged):
    folder = judged(seeds=1)
    markdown = tables_stage.tables("demo")
    assert list(markdown) == ["Results", "Differences", "Ablation: attention", "Ways of evaluating"]
    results = pd.read_csv(folder / "results.csv").query("source == 'this run'").set_index("model")
    for model in ("rsn18", "rsn18-prm"):
        figures = json.loads((folder.parent / f"evaluate/{model}-0.json").read_text())
        row = results.loc[model]
        assert row["AP"] == pytest.approx(100 * figures["AP"], abs=1e-4)
        assert row["AP low"] <= row["AP"] <= row["AP high"] and row["AP low"] < row["AP high"]
    ablation = pd.read_csv(folder / "ablation-attention.csv").set_index("model")
    assert ablation["verdict"].to_dict() == {"rsn18": "reference", "rsn18-prm": "lower"}
    assert ablation["difference"]["rsn18-prm"] == pytest.approx(-np.subtract(*results["AP"]), abs=2e-4)
    assert "attention: rsn18-prm scores lower than rsn18" in markdown["Differences"]


def test_every_table_says_what_it_was_made_of(judged):
    folder = judged(seeds=1)
    captions = [text.splitlines()[-1] for name, text in tables_stage.tables("demo").items() if name != "Differences"]
    assert all("demo, 4 people to train on, 4 to validate on in true boxes" in caption for caption in captions)
    marks = re.search(r"on machine 0; fingerprints: parameters (\w{12}), data (\w{12}), code (\w{12})\.", captions[0])
    assert marks and all(marks[0] in caption for caption in captions)
    save_model(network((128, 96)), layout.weights_path("demo", "rsn18", 0), {"params": "other", "machine": "machine 0"})
    changed = tables_stage.tables("demo")["Results"]
    assert marks[1] not in changed and f"data {marks[2]}, code {marks[3]}" in changed
    assert f"data {marks[2]}, code {marks[3]}" in (folder / "results.tex").read_text()


def test_several_seeds_are_one_row_and_a_detectors_boxes_are_told(judged):
    folder = judged(seeds=3, detections="boxes.json")
    text = tables_stage.tables("demo")["Results"]
    results = pd.read_csv(folder / "results.csv").query("source == 'this run'")
    assert results["model"].tolist() == ["rsn18", "rsn18-prm"] and results["seeds"].tolist() == [3, 3]
    assert "means over 3 seeds" in text and "in a detector's boxes" in text and "machine 0, machine 1" in text


def test_the_first_of_a_group_that_is_run_is_its_reference_and_one_alone_is_no_table(judged):
    folder = judged(seeds=1, models=("res2net18", "res18", "rsn18-prm"))
    said = tables_stage.tables("demo")["Differences"]
    assert pd.read_csv(folder / "ablation-block-18.csv")["model"].tolist() == ["res18", "res2net18"]
    assert not (folder / "ablation-attention.md").exists()
    assert "between res2net18 and res18 no difference is shown (+0.0 AP [0.0, 0.0])" in said


def test_the_fingerprint_of_code_is_of_what_the_stages_depend_on(project, demo_folder):
    root, folder = project_root(), project(demo_folder)
    for path in ("dvc.yaml", "notebooks"):
        (folder / path).symlink_to(root / path)
    shutil.copytree(root / "rsnlib", folder / "rsnlib", ignore=shutil.ignore_patterns("__pycache__"))
    before = layout.code_fingerprint("train"), layout.code_fingerprint("networks")
    with (folder / "rsnlib/models/attention.py").open("a") as file:
        file.write("# another\n")
    changed = layout.code_fingerprint("train"), layout.code_fingerprint("networks")
    assert changed[0] != before[0] and changed[1] != before[1]
    with (folder / "rsnlib/training/losses.py").open("a") as file:
        file.write("# another\n")
    assert layout.code_fingerprint("train") != changed[0]
    assert layout.code_fingerprint("networks") == changed[1]
