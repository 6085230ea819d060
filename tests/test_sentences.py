"""The sentences under figures say what the numbers are."""

import numpy as np
import pandas as pd
import pytest

from rsnlib.data.skeletons import COCO
from rsnlib.metrics import protocol
from rsnlib.report import sentences

AP = protocol("coco")


def test_people_are_measured_against_the_crop(make_people):
    boxes = [[0, 0, 10, height] for height in (40, 100, 200)]
    people = {
        "train": make_people(np.zeros((9, 9, 3)), boxes, (0, 0)),
        "val": make_people(np.zeros((9, 9, 3)), [[0, 0, 5, 60]], (0, 0)),
    }
    said = sentences.box_sizes(people, 64)
    assert "100 pixels in train, 60 pixels in val; 50 % of all people are lower than the crop, 64 pixels" in said


def test_the_most_hidden_keypoint_is_named():
    table = pd.DataFrame({"keypoint": ["nose", "left_eye"], "labelled": [10, 10], "hidden": [1, 4]})
    assert sentences.visibility(table) == (
        "Of 20 labelled keypoints 25 % are hidden, most often the left eye (40 %), most rarely the nose (10 %)."
    )
    assert sentences.visibility(table.assign(hidden=0)) == "Of 20 labelled keypoints 0 % are hidden."


def test_keypoints_inside_a_crop_are_counted_by_width_and_height():
    keypoints = np.array([[[0, 0], [47, 63], [48, 10], [10, 64]]])  # a crop 64 high, 48 wide
    assert sentences.inside(keypoints, np.full((1, 4), 2), (64, 48)).startswith("2 of the 4 ")
    assert sentences.inside(keypoints, np.array([[2, 0, 1, 0]]), (64, 48)).startswith("1 of the 2 ")


def test_a_training_that_ended_below_its_best_says_so():
    columns = {"model": "rsn18", "seed": 0, "epoch": [1, 2, 3], "loss": [900.0, 400, 300]}
    curves = pd.DataFrame(columns | {"val_AP": [np.nan, 0.5, 0.4]})
    assert sentences.training(curves, AP) == "rsn18-0: loss from 900 to 300, AP in the end 40.0 %, 50.0 at epoch 2."
    assert sentences.training(curves.assign(val_AP=[np.nan, 0.3, 0.4]), AP).endswith(
        "AP in the end 40.0 %, its highest."
    )


def test_a_metric_stands_with_its_interval():
    said = sentences.accuracy({"AP": 0.5}, np.linspace(0.4, 0.6, 1001), AP)
    assert said.startswith("AP is 50.0 % [40.5, 59.5]")


def test_ways_of_evaluating_are_gains_over_the_first():
    table = pd.DataFrame({"flip test": ["no", "yes"], "decoding": "quarter", "AP gain": [0.0, 1.2]})
    assert sentences.ways(table, AP).endswith("quarter with the flip test brings +1.2.")


@pytest.fixture
def errors():
    table = pd.DataFrame({"keypoint": ["nose", "left_eye"], "judged": [30, 10]})
    return table.assign(good=[0.9, 0.1], jitter=[0.1, 0.0], miss=[0.0, 0.9])


def test_errors_are_weighed_by_the_keypoints_judged(errors):
    said = sentences.errors({"rsn18-0": errors})
    assert said == (
        "rsn18-0: 70 % of the keypoints are good; the most frequent error is miss, 22 %, most at the left eye, 90 %."
    )
    several = sentences.errors({"rsn18-0": errors, "res18-0": errors.assign(judged=0, good=np.nan)})
    assert several.splitlines()[2] == "- res18-0: nobody was found"


def test_the_most_rewarding_repair_and_the_hardest_people_are_named():
    gains = pd.DataFrame({"error": ["jitter", "miss"], "gain": [0.1, 0.02]})
    assert sentences.gains({"a": gains}, AP) == "a would gain most from repairing jitter: +10.0 points of AP."
    rows = [("everyone", "all", 99, 0.99), ("size", "medium", 50, 0.2), ("size", "large", 49, 0.7)]
    rows += [("hidden", "none", 70, np.nan), ("pixels", "32 to 48", 29, 0.9)]
    groups = pd.DataFrame(rows, columns=["by", "group", "people", "AP"])
    said = sentences.groups({"a": groups}, AP)
    assert said == "a: AP is 70.0 % (COCO's size: large) at best, 20.0 % (COCO's size: medium) at worst."
    assert sentences.groups({"a": groups[:1]}, AP) == "No group has 30 people."


def test_the_keypoint_on_which_models_differ_most_is_named():
    rows = [("a", "nose", 90), ("b", "nose", 88), ("a", "left_eye", 10), ("b", "left_eye", 40)]
    table = pd.DataFrame(rows, columns=["model", "keypoint", "accuracy"])
    said = sentences.keypoints(table)
    assert said.startswith("The nose is right most often (89 %), the left eye most rarely (25 %)")
    assert said.endswith("These differ most on the left eye: b 40 %, a 10 %.")
    assert sentences.keypoints(table[::2]) == "The nose is right most often (90 %), the left eye most rarely (10 %)."


def test_the_most_accurate_of_each_source_comes_with_input_and_cost():
    columns = ["source", "model", "input", "accuracy", "multiply_adds"]
    rows = [("paper", "x", "1x1", 70, 2.0), ("paper", "y", "2x2", 75, 4.0), ("ours", "z", "1x1", 60, 1.0)]
    said = sentences.most_accurate(pd.DataFrame(rows, columns=columns), "AP")
    assert said.splitlines()[1:] == ["", "- ours: z at 1x1, 60.0 % AP for 1 G", "- paper: y at 2x2, 75.0 % AP for 4 G"]


def test_heatmaps_are_told_by_peaks_and_cells():
    heatmaps = np.zeros((4, 3, 3))
    heatmaps[0, :2], heatmaps[3, 1, 1] = 100, 200
    said = sentences.heads("nose", heatmaps)
    assert "a peak of 100 (cells above half of it: 6)" in said and "to 200 (cells above half of it: 1)" in said
    peaks = np.zeros((17, 2, 2))
    peaks[:, 0, 0] = np.arange(17, 0, -1)
    assert sentences.surest(peaks, COCO).startswith("The nose has the highest peak, 17, the right ankle the lowest, 1;")


def test_the_cells_that_a_last_branch_looks_at_are_counted():
    fields = {"residual steps\n2 branches": (np.array([np.ones((3, 3)), np.eye(3)]), [[3], [5]])}
    assert sentences.sight(fields).endswith(": 3 in residual steps.")


def test_attention_is_told_with_its_keypoint_and_factors():
    channel, position = np.full(17, 0.5), np.full((17, 2, 2), 0.5)
    channel[9] = 1
    said = sentences.attention(channel, position, COCO)
    assert "between 0.50 and 1.00 (left wrist)" in said and "multiplied by 1.25 to 1.50" in said


def test_the_first_and_last_heads_errors_are_shares_of_an_empty_heatmaps():
    said = sentences.errors_by_head(np.array([[0.5, 0.4, 0.3, 0.25]]))
    assert said == "Of the error of an empty heatmap 50 % is left at the first head, 25 % at the last."


def test_two_runs_are_told_apart_where_an_interval_leaves_out_zero():
    differences = np.tile([1.0, -1, 3], (18, 1))
    differences[10], differences[17] = [-5, -9, -1], np.nan
    said = sentences.difference(("a", "b"), ("AP", 2.0, 0.5, 3.5), differences, 0.05, COCO)
    assert said == (
        "b less a, in points with the 95 % interval over people: AP +2.0 [0.5, 3.5]; keypoints within 5 % of the box's "
        "longer side +1.0 [-1.0, 3.0]; different for left wrist -5.0 [-9.0, -1.0]."
    )
    assert sentences.difference(("a", "b"), None, differences[:5], 0.05, COCO).endswith("shown to be different.")
