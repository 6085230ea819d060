"""notebooks/explore.ipynb without a browser: what it computes, its controls, its small runs."""

import shutil

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

from rsnlib.apps import explore, widgets
from rsnlib.config import load_params
from rsnlib.data.geometry import transform
from rsnlib.data.images import normalise
from rsnlib.errors import UserError
from rsnlib.files import read_json, write_json
from rsnlib.inference.predict import predict_store
from rsnlib.metrics import keypoint_accuracy
from rsnlib.models.network import resize
from rsnlib.report import charts, heatmaps
from rsnlib.report.cost import cost
from rsnlib.stages.layout import load_store


@pytest.fixture(autouse=True)
def other_people_each_time():
    yield
    explore.people.cache_clear()


def files(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


# ---- what is computed


def test_an_insight_has_what_the_network_predicts(project):
    weights, store = explore.runs("demo")["plain-0"], load_store("demo", "val")
    seen = explore.insight("demo", weights, 2)
    np.testing.assert_array_equal(seen.crop, store.window(2))
    keypoints, scores = predict_store(explore.network(weights), store, flip_test=False)
    np.testing.assert_allclose(seen.keypoints[-1, -1], transform(seen.matrix, keypoints[2]), atol=1e-3)
    np.testing.assert_allclose(seen.scores[-1, -1], scores[2], atol=1e-4)
    assert seen.heads.shape == (1, 4, 17, 16, 16) and seen.attention == {}


def test_attention_is_what_refines_the_heatmaps(project):
    weights = explore.runs("demo")["steps-prm-0"]
    network, seen = explore.network(weights), explore.insight("demo", weights, 0)
    assert list(seen.attention) == [(0, 3)]  # the last head
    channel, position = map(torch.from_numpy, seen.attention[0, 3])
    head = network.stages[0].heads[3]
    with torch.no_grad():
        finest = network.features(normalise(seen.crop[None]))[0][3]
        features = head.attention.features(resize(head.heatmaps(head.features(finest)), (16, 16)))[0]
    refined = features * (1 + channel[:, None, None] * position)
    np.testing.assert_allclose(seen.heads[0, 3], refined, atol=1e-3)


def test_the_worst_of_a_keypoint_come_first(project):
    weights = explore.runs("demo")["plain-0"]
    worst = explore.worst_first("demo", weights, 9)
    far = explore.distances("demo", weights)[:, 9]
    assert sorted(worst) == np.flatnonzero(~np.isnan(far)).tolist()
    assert far[worst].tolist() == sorted(far[worst], reverse=True)


def test_what_is_not_known_has_no_place_among_the_largest():
    assert explore.largest_first(np.array([0.0, 0.2, np.nan, 0.3, np.inf, 0.2])).tolist() == [3, 1, 5, 0]


def test_a_keypoint_that_nobody_has_is_named(project, monkeypatch):
    monkeypatch.setattr(explore, "distances", lambda *_: np.full((6, 17), np.nan))
    with pytest.raises(UserError, match="demo: nobody has a nose"):
        explore.worst_first("demo", explore.runs("demo")["plain-0"], 0)


def test_a_run_not_evaluated_yet_is_named(project):
    weights = explore.runs("demo")["plain-0"]
    explore.predictions_path(weights).unlink()
    with pytest.raises(UserError, match="predictions/demo/plain-0.json.*evaluate"):
        explore.distances("demo", weights)
    table = explore.compare("demo").set_index("run")["right keypoints (%)"]
    assert np.isnan(table["plain-0"]) and table["steps-prm-0"] >= 0


def test_a_small_run_is_new_each_time_and_leaves_the_pipelines_alone(project):
    before, said = files(project), []
    architecture = load_params().model("plain")
    names = [explore.try_model("demo", architecture, "plain", 1, 4, lambda *now: said.append(now)) for _ in range(2)]
    assert names == ["plain-try1", "plain-try2"]
    after = files(project)
    assert {path: after[path] for path in before} == before
    assert {path.relative_to(project).parts[:2] for path in after.keys() - before.keys()} == {("work", "explore")}
    assert list(explore.runs("demo")) == ["plain-0", "steps-prm-0", *names]
    shares, doing = zip(*said[: len(said) // 2])
    assert list(shares) == sorted(shares) and shares[-1] == 1 and any("loss" in what for what in doing)
    assert explore.compare("demo")["trained"].tolist()[2] == "people: 4, epochs: 1"


def test_a_run_that_is_stopped_leaves_nothing(project):
    def stop(share, _):
        if share > 0:
            raise KeyError("enough")

    before = files(project)
    with pytest.raises(KeyError, match="enough"):
        explore.try_model("demo", load_params().model("plain"), "plain", 1, 4, stop)
    assert files(project) == before


# ---- the controls


@pytest.fixture
def people(project):
    return widgets.People("demo")


def pictures(people):
    return [people.truth.value, *(view.value for view in people.views)]


def changed(before, after):
    return [old != new for old, new in zip(before, after)]


def test_controls_redraw_what_they_are_about(people):
    assert (people.run.value, people.beside.value, people.problem.value) == ("plain-0", "steps-prm-0", "")
    for control, value, redrawn in [
        (people.keypoint, 9, [False, True, True]),
        (people.head, "coarse", [False, True, True]),
        (people.place, 3, [True, True, True]),
        (people.run, "steps-prm-0", [False, True, False]),
    ]:
        before = pictures(people)
        control.value = value
        assert changed(before, pictures(people)) == redrawn
    assert "person 3" in people.about.value
    people.beside.value = widgets.NOTHING
    assert people.views[1].layout.display == "none" and people.problem.value == ""


def test_what_keeps_still_inside_keeps_still_outside(people):
    with people.keeping_still():
        before = pictures(people)
        with people.keeping_still():
            people.place.value = 2
        people.place.value = 3
        assert pictures(people) == before


def test_worst_first_goes_through_the_worst_of_the_keypoint(people):
    people.place.value, people.keypoint.value = 4, 9
    people.order.value = widgets.WORST_FIRST
    weights = explore.runs("demo")["plain-0"]
    assert people.place.value == 0 and people.person() == explore.worst_first("demo", weights, 9)[0]
    people.place.value = 1
    assert people.person() == explore.worst_first("demo", weights, 9)[1]
    people.keypoint.value = 0
    assert people.person() == explore.worst_first("demo", weights, 0)[1]


def test_what_goes_wrong_is_a_line_on_the_page_until_it_works_again(people, monkeypatch):
    with monkeypatch.context() as broken:
        broken.setattr(heatmaps, "insight", lambda *_: 1 / 0)
        people.keypoint.value = 8
        assert ">ZeroDivisionError: division by zero<" in people.problem.value
    people.keypoint.value = 7
    assert people.problem.value == ""

    explore.predictions_path(explore.runs("demo")["plain-0"]).unlink()
    explore.distances.cache_clear()
    people.order.value = widgets.WORST_FIRST
    assert "plain-0.json: no such file; the stage `evaluate` writes it" in people.problem.value


def test_without_any_trained_run_every_section_says_what_to_do(project):
    shutil.rmtree(project / "work" / "models")
    people = widgets.People("demo")
    comparison = widgets.Comparison("demo", people)
    small = widgets.SmallRun("demo", widgets.Designer(), people, comparison)
    for section in (people, comparison, small):
        assert "nothing is trained on demo yet: run `make`" in section.problem.value
        assert section.children[-1] is section.problem
    assert "coco" in widgets.People("coco").problem.value


def test_who_is_picked_from_a_comparison_appears_among_the_people(people):
    comparison = widgets.Comparison("demo", people)
    people.order.value = widgets.WORST_FIRST
    before = comparison.errors.value
    comparison.differing.value = comparison.differing.options[2][1]
    assert people.person() == comparison.differing.value and people.order.value == widgets.IN_ORDER
    assert (people.run.value, people.beside.value) == ("plain-0", "steps-prm-0")
    assert comparison.errors.value != before  # the ring
    before = comparison.errors.value
    comparison.near.value = 20
    assert comparison.errors.value != before and comparison.problem.value == ""


def test_two_runs_are_compared_on_the_people_whom_both_predicted(people, monkeypatch):
    file = explore.predictions_path(explore.runs("demo")["plain-0"])
    write_json(file, read_json(file)[:2])
    explore.distances.cache_clear()
    found = explore.distances("demo", explore.runs("demo")["steps-prm-0"])
    seen = []
    monkeypatch.setattr(charts, "two_runs", lambda shares, *_: seen.append(shares) or plt.figure())
    comparison = widgets.Comparison("demo", people)
    known = np.isfinite(explore.mean_distances("demo", explore.runs("demo")["plain-0"]))
    assert 0 < known.sum() < 6 and len(comparison.differing.options) == known.sum()
    np.testing.assert_array_equal(seen[-1][1], keypoint_accuracy(found[known], 0.05))

    comparison.differing.value = comparison.differing.options[0][1]
    comparison.first.value = "steps-prm-0"
    assert comparison.differing.value is None  # a new list, nobody is picked


def test_a_design_shows_its_cost_and_receptive_fields(project):
    designer = widgets.Designer()
    designer.start.value = "steps-prm"
    assert designer.model == load_params().model("steps-prm")
    before = designer.fields.value
    designer.set(branches=3, stages=2)
    assert (designer.model.branches, designer.model.stages) == (3, 2)
    parameters, multiply_adds = cost(designer.model.architecture)
    assert (
        f"{parameters / 1e6:.2f} M" in designer.costs.value and f"{multiply_adds / 1e9:.2f} G" in designer.costs.value
    )
    assert designer.fields.value != before and designer.problem.value == ""


def test_a_small_run_joins_the_table_and_the_runs_to_choose_from(people):
    comparison, designer = widgets.Comparison("demo", people), widgets.Designer()
    small = widgets.SmallRun("demo", designer, people, comparison)
    assert small.table.value.count("<td>as params.yaml says</td>") == 2
    designer.branches.value = 2
    small.model.value, small.epochs.value, small.people.value = widgets.DESIGNED, 1, 4
    chosen = people.run.value
    small.start.click()
    small.thread.join()
    assert small.problem.value == "" and (small.progress.value, small.doing.value) == (1, "done")
    assert "designed-try1" in small.table.value and "people: 4, epochs: 1" in small.table.value
    assert "designed-try1" in people.run.options and "designed-try1" in comparison.second.options
    assert people.run.value == chosen and not small.start.disabled and small.cancel.disabled
    assert explore.network(explore.runs("demo")["designed-try1"]).architecture.branches == 2


def test_a_small_run_can_be_cancelled(people, monkeypatch):
    small = widgets.SmallRun("demo", widgets.Designer(), people)
    monkeypatch.setattr(explore, "iterations", lambda *_: small.cancel.click() or 2)  # pressed as training starts
    small.start.click()
    small.thread.join()
    assert "cancelled" in small.doing.value and small.problem.value == "" and not small.start.disabled
    assert list(explore.runs("demo")) == ["plain-0", "steps-prm-0"]
