"""Networks and ensembles judged in true and in a detector's boxes, cut from the pictures."""

import json
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from ruamel.yaml import YAML
from scipy.io import loadmat

from rsnlib.__main__ import main
from rsnlib.apps.submission import write_submission
from rsnlib.config import project_root
from rsnlib.data.readers import read_detections, read_people
from rsnlib.data.store import CropStore, write_crop_store
from rsnlib.device import default_device
from rsnlib.errors import UserError
from rsnlib.files import read_json, write_json
from rsnlib.inference.predict import WAYS, average_heatmaps, predict_people, predict_store
from rsnlib.metrics import coco_ap, coco_results, protocol
from rsnlib.models.checkpoints import save_model
from rsnlib.models.zoo import create_model
from rsnlib.stages import layout
from rsnlib.stages.artifacts import load_poses
from rsnlib.stages.evaluate import evaluate, evaluate_weights, evaluation_people, predicted_crops
from rsnlib.stages.figures import poses_in_pictures
from rsnlib.stages.prepare import prepare
from rsnlib.stages.provenance import code_fingerprint
from rsnlib.stages.results import load_evaluation
from rsnlib.stages.stores import load_store
from rsnlib.stages.tables import tables

REPORT = {  # of a run, as `train` writes it
    "skeleton": "coco",
    "input": "128x96",
    "parameters": 9_000_000,
    "multiply_adds": 560_000_000,
    "people": {"train": 4, "val": 4},
    "iterations": 3,
    "batch_size": 4,
    "fingerprints": {"parameters": "a", "data": "b", "code": "c"},
}
DETECTIONS = "person_detection_results/COCO_val2017_detections_AP_H_56_person.json"


def network(size, seed=0, keypoints=17):
    """The smallest network there is, untrained, for crops of that height and width."""
    torch.manual_seed(seed)
    return create_model({"block": "bottleneck", "depths": [1, 1, 1, 1]}, keypoints, size).eval()


# ---- a detector's boxes


@pytest.fixture
def people(demo_folder):
    """The drawn validation people."""
    return read_people(demo_folder, "coco", "val2017")


@pytest.fixture
def detected(people, tmp_path):
    """A function: write a JSON of one detection of each drawn validation person, the last changed; return its path."""
    detections = [
        {"image_id": image_id, "category_id": 1, "bbox": box, "score": 0.9}
        for image_id, box in zip(people.image_ids.tolist(), people.boxes.tolist())
    ]

    def write(**changes):
        detections[-1].update(changes)
        (tmp_path / "detections.json").write_text(json.dumps(detections))
        return tmp_path / "detections.json"

    return write


def test_detections_are_people_without_keypoints(detected, people, demo_folder):
    found = read_detections(detected(score=0.25), demo_folder, "val2017")
    for name in ("boxes", "images", "image_sizes"):
        np.testing.assert_array_equal(getattr(found, name), getattr(people, name))
    assert found.scores.tolist() == [0.9, 0.9, 0.9, 0.25] and not found.visible.any()
    np.testing.assert_array_equal(found.areas, people.boxes[:, 2] * people.boxes[:, 3])
    other_category = detected(category_id=18)
    assert len(read_detections(other_category, demo_folder, "val2017")) == 3
    assert len(read_detections(detected(category_id=1), demo_folder, "val2017", min_score=0.5)) == 3
    with pytest.raises(UserError, match=r"not a single person \(category_id 1, score 0.95\) among 4"):
        read_detections(detected(), demo_folder, "val2017", min_score=0.95)


def test_an_image_may_be_named_by_its_file_or_by_digits(detected, people, demo_folder):
    last = Path(people.images[-1])
    for name in (last.name, last.stem, str(people.image_ids[-1])):
        found = read_detections(detected(image_id=name), demo_folder, "val2017")
        assert found.image_ids[-1] == people.image_ids[-1]


@pytest.mark.parametrize(("box", "reason"), [([1, 2, 0, 5], "has no area"), ([9999, 2, 5, 5], "lies wholly outside")])
def test_a_box_of_nothing_is_left_out_with_a_warning(detected, people, demo_folder, capsys, box, reason):
    assert len(read_detections(detected(bbox=box), demo_folder, "val2017")) == 3
    assert f"detections.json: entry 3: box {reason}" in capsys.readouterr().err


def test_a_detectors_normalised_boxes_and_corners_are_refused(people, demo_folder, tmp_path):
    sizes = people.image_sizes[:, [1, 0, 1, 0]]
    corners = np.concatenate([people.boxes[:, :2], people.boxes[:, :2] + people.boxes[:, 2:]], axis=1)
    for boxes, reason in [(people.boxes / sizes, "look normalised"), (corners, "look like two corners")]:
        entries = [
            {"image_id": image_id, "category_id": 1, "bbox": box, "score": 1}
            for image_id, box in zip(people.image_ids.tolist(), boxes.tolist())
        ]
        write_json(tmp_path / "boxes.json", entries)
        with pytest.raises(UserError, match=f"boxes.json: its boxes {reason}"):
            read_detections(tmp_path / "boxes.json", demo_folder, "val2017")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image_id": 999}, "image_id 999 is not among the images of .*val2017.json"),
        ({"image_id": "nobody"}, "image_id 'nobody' is not among the images"),
        ({"category_id": None}, "category_id: None is not a whole number"),
        ({"bbox": [1, 2, 3]}, "bbox: a list of 3 where a list of 4 numbers belongs"),
        ({"bbox": [1, 2, 3, float("nan")]}, "bbox: nan is not a finite number"),
        ({"score": "high"}, "score: 'high' is not a finite number"),
    ],
)
def test_a_malformed_detection_is_named(detected, demo_folder, changes, message):
    with pytest.raises(UserError, match=f"detections.json: entry 3: {message}"):
        read_detections(detected(**changes), demo_folder, "val2017")


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
    (tmp_path / "images/test2017").mkdir(parents=True)
    Image.new("RGB", (60, 80)).save(tmp_path / "images/test2017/7.png")
    listing = {"images": [{"id": 7, "file_name": "7.png", "height": 80, "width": 60}], "categories": []}
    write_json(tmp_path / "annotations/image_info_test-dev2017.json", listing)
    write_json(tmp_path / "boxes.json", [{"image_id": 7, "category_id": 1, "bbox": [5, 5, 40, 60], "score": 0.5}])
    found = read_detections(tmp_path / "boxes.json", tmp_path, "test-dev2017")
    assert found.image_ids.tolist() == [7]

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
    ways = [(True, decoding)]
    keypoints, scores = predict_people([model], store.people, (0.09, 0.135), ways)
    wanted = predict_store(model, store, ways)
    np.testing.assert_allclose(keypoints, wanted[0], atol=1e-3)
    np.testing.assert_allclose(scores, wanted[1], atol=1e-6)


def test_people_are_predicted_in_all_ways_as_in_one_at_a_time(people):
    models = [network((64, 64)), network((96, 96), seed=1)]
    keypoints, scores = predict_people(models, people, (0.1, 0.1), WAYS)
    for row, way in enumerate(WAYS):
        alone = predict_people(models, people, (0.1, 0.1), [way])
        np.testing.assert_allclose(keypoints[row], alone[0][0], atol=1e-3)
        np.testing.assert_allclose(scores[row], alone[1][0], atol=1e-6)


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


def test_an_ensemble_of_other_aspects_is_refused(people):
    with pytest.raises(UserError, match="one aspect.*64x64, 128x96"):
        predict_people([network((64, 64)), network((128, 96))], people, (0.1, 0.1))


# ---- whole evaluations


@pytest.fixture
def project(tmp_path, monkeypatch, committed):
    """A function: make a folder with params.yaml the working directory, in it `evaluate` and a data set there."""
    values = json.loads(json.dumps(YAML(typ="safe").load(project_root() / "params.yaml")))
    for name in ("dvc.yaml", "notebooks"):
        (tmp_path / name).symlink_to(project_root() / name)
    shutil.copytree(project_root() / "rsnlib", tmp_path / "rsnlib", ignore=shutil.ignore_patterns("__pycache__"))

    def make(root, dataset="coco", detections="none", **evaluate):
        values["run"]["datasets"] = {dataset: str(root)}
        values["datasets"][dataset]["detections"] = detections
        values["evaluate"] |= evaluate
        YAML(typ="safe").dump(values, tmp_path / "params.yaml")
        monkeypatch.chdir(tmp_path)
        return tmp_path

    return make


@pytest.fixture
def command(monkeypatch, capsys):
    """A function: run a command line and return its output."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["rsnlib", *arguments])
        main()
        return capsys.readouterr().out

    return run


def saved(*sizes):
    """Save networks of these input sizes in the current folder and return their paths."""
    for seed, size in enumerate(sizes):
        save_model(network(size, seed), f"{seed}.safetensors")
    return [f"{seed}.safetensors" for seed in range(len(sizes))]


def test_networks_for_256x192_and_384x288_are_an_ensemble(demo_folder, project, command):
    project(demo_folder)
    weights = saved((256, 192), (384, 288))
    figures = json.loads(command("evaluate", *weights, "--dataset", "coco", "-o", "results.json"))
    assert 0 <= figures["AP"] <= 1
    assert figures == coco_ap("results.json", demo_folder / "annotations/person_keypoints_val2017.json")
    small, large, both = (
        np.array([result["score"] for result in evaluate_weights(paths, "coco")[0]])
        for paths in (weights[:1], weights[1:], weights)
    )
    assert not np.allclose(both, small) and not np.allclose(both, large)


@pytest.mark.shared
def test_a_real_detectors_boxes_run_through_the_whole_evaluation(shared, project):
    folder = project(shared / "data/coco", detections=DETECTIONS)
    entries = json.loads((shared / "data/coco" / DETECTIONS).read_text())
    people = evaluation_people("coco")
    assert len(people) == len(entries) == 118 and people.image_count == 4
    assert people.scores.tolist() == [entry["score"] for entry in entries]

    results, figures = evaluate_weights(saved((128, 96)), "coco")
    assert set(figures) >= {"AP", "ARL"} and len(results) == 118
    for result, entry in zip(results, entries):
        assert result["image_id"] == entry["image_id"] and result["box"] == entry["bbox"]
        assert result["score"] == pytest.approx(entry["score"] * np.mean(result["keypoints"][2::3]))
    (folder / "results.json").write_text(json.dumps(results))
    assert write_submission(folder / "results.json", "val2017", "RSN", folder).is_file()


@pytest.mark.parametrize(("chosen", "followed"), [("quarter", "axes"), ("dark", "dark")])
def test_weights_are_judged_as_their_published_figures_were(demo_folder, project, monkeypatch, chosen, followed):
    project(demo_folder, decoding=chosen)
    save_model(network((64, 64)), "their.safetensors", {"margin": [0.25, 0.25], "blur": 7, "decoding": "axes"})
    ways = []

    def predict(models, people, *how):
        ways.append(how)
        return predict_people(models, people, *how)

    monkeypatch.setattr("rsnlib.stages.evaluate.predict_people", predict)
    evaluate_weights(["their.safetensors", *saved((64, 64))], "coco")
    evaluate_weights(saved((64, 64)), "coco")
    assert ways == [([0.25, 0.25], [(True, followed)], 7), ((0.09, 0.135), [(True, chosen)], 5)]


def test_boxes_of_a_low_score_are_left_out_of_an_evaluation(detected, demo_folder, project, command):
    project(demo_folder)
    boxes = ["--detections", str(detected(score=0.2)), "--min-score", "0.5"]
    command("evaluate", *saved((64, 64)), "--dataset", "coco", *boxes, "-o", "results.json")
    assert [result["person_id"] for result in read_json("results.json")] == [1, 2, 3]


def test_mpiis_test_people_are_predicted_for_its_leaderboard(mpii_folder, project, command):
    project(mpii_folder, "mpii")
    save_model(network((64, 64), keypoints=16), "weights.safetensors")
    said = command("evaluate", "weights.safetensors", "--dataset", "mpii", "--split", "test", "-o", "results.json")
    assert said == "4 people, of a split without annotations to judge them by\n"
    results = read_json("results.json")
    assert [result["person_id"] for result in results] == [1, 2, 3, 4]

    assert command("submit", "results.json", "--dataset", "mpii", "-o", "out") == "out/pred_keypoints_mpii.mat\n"
    points = loadmat("out/pred_keypoints_mpii.mat")["pred"][0, 2]["annorect"]["annopoints"][0, 3]["point"][0, 0]
    first = np.reshape(results[0]["keypoints"], (16, 3))  # of the last in MPII's own annotations of c.jpg
    found = [(point["x"].item(), point["y"].item()) for point in points.ravel()]
    np.testing.assert_allclose(found, first[:, :2] + 1)


def test_people_without_joints_are_not_trained_on(mpii_folder, project):
    folder = project(mpii_folder, "mpii")
    values = YAML(typ="safe").load(folder / "params.yaml")
    values["datasets"]["mpii"]["splits"] = {"train": "test", "val": "test"}
    YAML(typ="safe").dump(values, folder / "params.yaml")
    with pytest.raises(UserError, match="datasets.mpii.splits.train: nobody in it has a labelled keypoint"):
        prepare("mpii")


def test_where_results_cannot_be_written_nothing_is_computed(demo_folder, project, command):
    (project(demo_folder) / "file").write_text("a user's")
    with pytest.raises(SystemExit, match="error: file/results.json: cannot be written .file is a file, not a folder"):
        command("evaluate", "nowhere.safetensors", "--dataset", "coco", "-o", "file/results.json")


def test_suppression_takes_a_box_that_was_found_twice(demo_folder, detected, people, project):
    path = detected()
    write_json(path, [entry | {"score": score} for score in (0.9, 0.5) for entry in read_json(path)])
    scores = {}
    for nms in ("hard", "none", "soft"):
        project(demo_folder, nms=nms)
        results, _ = evaluate_weights(saved((64, 64)), "coco", detections=path)
        scores[nms] = [result["score"] for result in results]
    assert {nms: len(found) for nms, found in scores.items()} == {"hard": 4, "none": 8, "soft": 8}
    assert max(scores["soft"]) == max(scores["hard"])


@pytest.fixture
def a_run(project, demo_folder, people):
    """A function: a run of an untrained network on drawn people, judged as `evaluate` of params.yaml says; its store
    and metrics."""

    def judge(detections="none", **options):
        project(demo_folder, detections=detections, **options)
        for split in ("train", "val"):
            write_crop_store(layout.crops_path("coco", split), people, (256, 192), (0.09, 0.135))
        save_model(network((256, 192)), layout.weights_path("coco", "res18", 0))
        return load_store("coco", "val"), evaluate("coco", "res18", 0)

    return judge


@pytest.mark.parametrize(("flip_test", "decoding"), WAYS)
def test_the_way_that_params_choose_is_the_runs_own_as_if_alone(a_run, demo_folder, flip_test, decoding):
    store, metrics = a_run(flip_test=flip_test, decoding=decoding)
    (keypoints,), (scores,) = predict_store(network((256, 192)).to(default_device()), store, [(flip_test, decoding)])
    alone = coco_results(store.people.image_ids, keypoints, scores, store.people.scores, store.people.boxes)
    alone = [result | {"person_id": person} for result, person in zip(alone, store.people.ids.tolist())]
    assert read_json(layout.predictions_path("coco", "res18", 0)) == alone
    assert metrics == coco_ap(alone, demo_folder / "annotations/person_keypoints_val2017.json")
    assert read_json(layout.results_path("coco", "evaluate", "res18-0.json")) == metrics


def test_every_way_and_what_is_wrong_is_written_beside_the_metrics(a_run):
    _, metrics = a_run(flip_test=True, decoding="dark")
    variants = load_evaluation("coco", "res18", 0, "variants")
    assert list(zip(variants["flip_test"], variants["decoding"])) == list(WAYS)
    assert variants.iloc[3].drop(["flip_test", "decoding"]).to_dict() == pytest.approx(metrics)
    text = layout.evaluation_path("coco", "res18", 0, "variants").read_text()
    assert text.startswith("flip_test,decoding,AP,") and "\ntrue,dark," in text

    errors, gains, groups = (load_evaluation("coco", "res18", 0, name) for name in ("errors", "gains", "groups"))
    assert len(errors) == 17 and list(errors)[:3] == ["keypoint", "judged", "good"]
    about = read_json(layout.evaluation_path("coco", "res18", 0, "evaluation").with_suffix(".json"))
    assert (about["people"], about["boxes"], about["decoding"]) == (4, "ground truth", "dark")
    assert len(load_evaluation("coco", "res18", 0, "draws")["AP"]) == 1000
    assert list(gains) == ["error", "share", "AP", "gain"] and len(gains) == 4
    everyone = {"by": "everyone", "group": "all", "people": 4, "AP": pytest.approx(metrics["AP"])}
    assert groups.to_dict("records") == [everyone]
    with pytest.raises(UserError, match="res18-1/gains.csv: no such file; the stage `evaluate`"):
        load_evaluation("coco", "res18", 1, "gains")


@pytest.mark.parametrize("detector", [False, True])
def test_a_run_is_judged_as_params_say_and_its_poses_found_again(demo_folder, detected, people, a_run, detector):
    options = {"nms": "hard", "decoding": "dark", "detections": "detections.json"} if detector else {}
    write_json(demo_folder / "detections.json", 2 * read_json(detected()))
    _, metrics = a_run(**options)
    (demo_folder / "detections.json").unlink()
    predictions = layout.predictions_path("coco", "res18", 0)
    assert metrics == coco_ap(predictions, demo_folder / "annotations/person_keypoints_val2017.json")
    image_ids, poses = load_poses("coco", "res18", 0)
    assert sorted(image_ids) == sorted(people.image_ids) and len(poses.boxes) == len(people)
    crops, keypoints, scores = predicted_crops("coco", "res18", 0, count=3)
    assert crops.shape == (3, 256, 192, 3) and keypoints.shape == (3, 17, 2) and scores.shape == (3, 17)
    assert (keypoints >= 0).all() and (keypoints < [192, 256]).all()
    if not detector:
        store = load_store("coco", "val")
        windows = np.array([store.window(row) for row in range(3)], int)
        assert np.abs(crops - windows).max() <= 1  # a grey level, for the rounding of a picture among others
    (picture, *_), *_ = poses_in_pictures("coco", "res18", 0, count=2)
    assert picture.ndim == 3


# ---- the tables of runs


@pytest.fixture
def judged(demo_folder, people, tmp_path, monkeypatch):
    """A function: a project whose models predicted the drawn people, others than rsn18 with more noise; returns the
    folder of its tables."""
    random = np.random.default_rng(0)
    noise = random.normal(0, 1, (3, *people.keypoints.shape))
    values = YAML(typ="safe").load(project_root() / "params.yaml")

    def make(seeds=1, boxes="ground truth", models=("rsn18", "rsn18-prm")):
        lines = {model: {} for model in models}
        values["run"] = {"datasets": {"demo": "data/demo"}, "models": lines, "seeds": list(range(seeds))}
        YAML(typ="safe").dump(values, tmp_path / "params.yaml")
        monkeypatch.chdir(tmp_path)
        annotations = demo_folder / "annotations/person_keypoints_val2017.json"
        for model, seed in layout.runs("demo"):
            off = (1 if model == "rsn18" else 3) * noise[seed]
            scores = random.uniform(0.9, 1, people.visible.shape)
            results = coco_results(people.image_ids, people.keypoints + off, scores, people.scores, people.boxes)
            metrics = coco_ap(results, annotations)
            write_json(layout.metrics_path("demo", model, seed), metrics)
            rows = [{"flip_test": flip_test, "decoding": decoding, **metrics} for flip_test, decoding in WAYS]
            found = {"variants": rows, "draws": {"AP": protocol("coco").resample(people, results, annotations)}}
            folder = layout.evaluation_path("demo", model, seed, "").parent
            write_json(folder / "evaluation.json", {"people": 4, "boxes": boxes, "parameters": "p", "code": "c"})
            for name, table in found.items():
                pd.DataFrame(table).to_csv(folder / f"{name}.csv", index=False)
            report = layout.training_path("demo", model, seed, "run.json")
            write_json(report, REPORT | {"machine": f"machine {seed % 2}"})
        return tmp_path / "results/demo/tables"

    return make


def test_tables_tell_what_the_predictions_do_in_the_same_bytes_each_time(judged):
    folder = judged()
    markdown = tables("demo")
    assert list(markdown) == ["Results", "As published", "Differences", "Ways of evaluating"]
    results = pd.read_csv(folder / "results.csv").set_index("model")
    assert set(results["data"]) == {"demo"} and "demo" not in set(pd.read_csv(folder / "published.csv")["data"])
    for model in ("rsn18", "rsn18-prm"):
        metrics, row = read_json(folder.parent / f"evaluate/{model}-0.json"), results.loc[model]
        assert row["AP"] == pytest.approx(100 * metrics["AP"], abs=1e-4)
        assert row["AP low"] <= row["AP"] <= row["AP high"] and row["AP low"] < row["AP high"]
    ablation = pd.read_csv(folder / "ablation-attention.csv").set_index("model")
    assert ablation["verdict"].to_dict() == {"rsn18": "reference", "rsn18-prm": "lower"}
    assert ablation["difference"]["rsn18-prm"] == pytest.approx(-np.subtract(*results["AP"]), abs=2e-4)
    assert "attention: rsn18-prm scores lower than rsn18" in markdown["Differences"]

    written = {path.name: path.read_bytes() for path in folder.iterdir()}
    suffixes = ("csv", "md", "tex")
    names = ("results", "published", "ablation-attention", "evaluation")
    names = {f"{name}.{suffix}" for name in names for suffix in suffixes}
    assert set(written) == names | {"differences.md"}
    tables("demo")
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == written


def test_every_table_says_what_it_was_made_of(judged):
    folder = judged()
    others = "As published", "Differences"
    captions = [text.splitlines()[-1] for name, text in tables("demo").items() if name not in others]
    assert all("demo, 4 people to train on, 4 to validate on in true boxes" in caption for caption in captions)
    marks = re.search(r"on machine 0; fingerprints: parameters (\w{12}), data (\w{12}), code (\w{12})\.", captions[0])
    assert marks and all(marks[0] in caption for caption in captions)
    report = layout.training_path("demo", "rsn18", 0, "run.json")
    write_json(report, read_json(report) | {"fingerprints": REPORT["fingerprints"] | {"data": "other"}})
    changed = tables("demo")["Results"]
    assert f"parameters {marks[1]}, data {marks[2]}" not in changed and f"parameters {marks[1]}" in changed
    assert f"parameters {marks[1]}" in (folder / "results.tex").read_text()


def test_several_seeds_are_one_row_and_a_detectors_boxes_are_told(judged):
    folder = judged(seeds=3, boxes="detections")
    text = tables("demo")["Results"]
    results = pd.read_csv(folder / "results.csv")
    assert results["model"].tolist() == ["rsn18", "rsn18-prm"] and results["seeds"].tolist() == [3, 3]
    assert "means over 3 seeds" in text and "in a detector's boxes" in text and "machine 0, machine 1" in text


def test_the_first_of_a_group_that_is_run_is_its_reference_and_one_alone_is_no_table(judged):
    folder = judged(models=("res2net18", "res18", "rsn18-prm"))
    said = tables("demo")["Differences"]
    assert pd.read_csv(folder / "ablation-block-18.csv")["model"].tolist() == ["res18", "res2net18"]
    assert not (folder / "ablation-attention.md").exists()
    assert "res2net18 shows no difference to res18 (+0.0 AP [0.0, 0.0])" in said


def test_the_fingerprint_of_code_is_of_what_the_stages_depend_on(project, demo_folder):
    folder = project(demo_folder)

    def marks_after_a_change_of(path):
        with (folder / "rsnlib" / path).open("a") as file:
            file.write("# another\n")
        return code_fingerprint("train"), code_fingerprint("networks")

    before = code_fingerprint("train"), code_fingerprint("networks")
    both = marks_after_a_change_of("models/attention.py")
    assert both[0] != before[0] and both[1] != before[1]
    one = marks_after_a_change_of("training/losses.py")
    assert one[0] != both[0] and one[1] == both[1]
