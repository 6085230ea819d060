"""Average precision by pycocotools, and COCO's results format."""

import contextlib
import io
import json

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from rsnlib.data.readers import read_people
from rsnlib.errors import UserError
from rsnlib.metrics import coco_ap, coco_results, protocol, repair_gains
from rsnlib.metrics.bootstrap import resampled_ap
from rsnlib.metrics.coco import coco_ap_by_group, coco_matches


@pytest.fixture
def demo_val(demo_folder):
    """Four drawn people and the file of their annotations."""
    return read_people(demo_folder, "coco", "val2017"), demo_folder / "annotations/person_keypoints_val2017.json"


def jittered(people, pixels):
    random = np.random.default_rng(0)
    keypoints = people.keypoints + random.normal(0, pixels, people.keypoints.shape)
    scores = random.uniform(0.5, 1.5, people.visible.shape)
    return coco_results(people.image_ids, keypoints, scores, people.scores)


def by_pycocotools(results, annotations):
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(annotations))
        evaluation = COCOeval(truth, truth.loadRes(results), "keypoints")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation.stats.tolist()


def test_perfect_predictions_have_an_average_precision_of_one(demo_val):
    people, annotations = demo_val
    coco = protocol("coco")
    metrics = coco.accuracy(people, people.keypoints, np.ones((len(people), 17)), annotations)
    assert tuple(metrics) == coco.columns and metrics[coco.metric] == metrics["AR"] == 1
    assert all(value in (1, -1) for value in metrics.values())  # -1: no people of that size
    assert coco_ap([], annotations) == dict.fromkeys(coco.columns, 0)


def test_metrics_are_those_of_pycocotools_without_its_output(demo_val, capsys, tmp_path):
    people, annotations = demo_val
    results = jittered(people, 6)
    (tmp_path / "results.json").write_text(json.dumps(results))
    metrics = coco_ap(results, annotations)
    assert coco_ap(tmp_path / "results.json", annotations) == metrics
    assert capsys.readouterr().out == ""
    assert results == jittered(people, 6)  # pycocotools adds keys to its own
    assert list(metrics.values()) == by_pycocotools(results, annotations)
    assert metrics["AP"] < 1


@pytest.mark.shared
def test_missed_and_doubled_real_people_are_judged_as_by_pycocotools_in_every_way(shared):
    people = read_people(shared / "data/coco", "coco", "val2017")
    annotations = shared / "data/coco/annotations/person_keypoints_val2017.json"
    random = np.random.default_rng(0)
    rows = np.concatenate([np.flatnonzero(random.random(len(people)) < 0.8), random.integers(0, len(people), 40)])
    some, keypoints = people.take(rows), people.keypoints[rows] + random.normal(0, 4, (len(rows), 17, 2))
    scores = np.tile(random.uniform(0.5, 1, (len(rows), 1)), 17)
    results = coco_results(some.image_ids, keypoints, scores, some.scores, some.boxes)  # "box" changes nothing
    metrics = coco_ap(results, annotations)
    assert list(metrics.values()) == by_pycocotools(results, annotations)
    assert 0.2 < metrics["APM"] < metrics["APL"] < 0.8

    matches = coco_matches(results, annotations)
    every_picture_once = np.ones((1, len(matches[0].people)), int)
    assert resampled_ap(matches, every_picture_once) == pytest.approx([metrics["AP"]], abs=1e-12)

    covered = np.prod(np.ptp(keypoints, axis=1), axis=1)  # what pycocotools takes for an area
    of_people = (people.areas >= 96**2).astype(int)
    sizes = coco_ap_by_group(results, annotations, of_people, (covered >= 96**2).astype(int), 2)
    assert sizes == [metrics["APM"], metrics["APL"]]
    assert coco_ap_by_group(results, annotations, [0] * len(people), [0] * len(rows), 1) == [metrics["AP"]]

    gains = repair_gains(jittered(people, 2), people, annotations).set_index("error")["gain"]
    assert gains.idxmax() == "jitter" and gains["jitter"] > 0.05


def test_results_are_in_cocos_format_to_the_last_digit():
    random = np.random.default_rng(0)
    keypoints, scores, box_scores = random.random((200, 17, 2)), random.random((17, 200)).T, random.random(200)
    results = coco_results(np.arange(200), keypoints, scores, box_scores, random.random((200, 4)))
    json.dumps(results)  # no NumPy numbers
    for row, result in enumerate(results):
        assert (result["image_id"], result["category_id"], len(result["box"])) == (row, 1, 4)
        assert result["keypoints"] == [v for k in range(17) for v in (*keypoints[row, k], scores[row, k])]
        assert result["score"] == box_scores[row] * scores[row].copy().mean()


def test_files_that_cannot_be_read_and_an_image_that_the_annotations_lack_are_named(demo_val, tmp_path):
    people, annotations = demo_val
    results = jittered(people, 0)
    (tmp_path / "broken.json").write_text("{")
    for name in ("broken.json", "missing.json"):
        for files in ((tmp_path / name, annotations), (results, tmp_path / name)):
            with pytest.raises(UserError, match=name):
                coco_ap(*files)
    results[1]["image_id"] = 999
    with pytest.raises(UserError, match="val2017.json: has no image 999"):
        coco_ap(results, annotations)
