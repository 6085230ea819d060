"""notebooks/explore.ipynb without a browser: its computations, its controls, its small runs."""

import shutil
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from checkout import ROOT

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
from rsnlib.stages.layout import metrics_path
from rsnlib.stages.stores import load_store


@pytest.fixture
def runs(project):
    """The weights of the project's runs by their names."""
    yield explore.weights_by_run("demo")
    explore._validation_people.cache_clear()  # the next test has other people


def files(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


# ---- computations


def test_an_insight_has_what_the_network_predicts(runs):
    store = load_store("demo", "val")
    seen = explore.insight("demo", runs["plain-0"], 2)
    np.testing.assert_array_equal(seen.crop, store.window(2))
    (keypoints,), (scores,) = predict_store(explore.network(runs["plain-0"]), store, [(False, "quarter")])
    np.testing.assert_allclose(seen.keypoints[-1, -1], transform(seen.matrix, keypoints[2]), atol=1e-3)
    np.testing.assert_allclose(seen.scores[-1, -1], scores[2], atol=1e-4)
    assert seen.heads.shape == (1, 4, 17, 16, 16) and seen.attention == {}


def test_attention_is_what_refines_the_heatmaps(runs):
    network, seen = explore.network(runs["steps-prm-0"]), explore.insight("demo", runs["steps-prm-0"], 0)
    assert list(seen.attention) == [(0, 3)]  # the last head
    channel, position = map(torch.from_numpy, seen.attention[0, 3])
    head = network.stages[0].heads[3]
    with torch.no_grad():
        finest = network.features(normalise(seen.crop[None]))[0][3]
        features = head.attention.features(resize(head.heatmaps(head.features(finest)), (16, 16)))[0]
    refined = features * (1 + channel[:, None, None] * position)
    np.testing.assert_allclose(seen.heads[0, 3], refined, atol=1e-3)


def test_the_worst_of_a_keypoint_come_first(runs, monkeypatch):
    worst = explore.worst_first("demo", runs["plain-0"], 9)
    far = explore.distances("demo", runs["plain-0"])[:, 9]
    assert sorted(worst) == np.flatnonzero(~np.isnan(far)).tolist()
    assert far[worst].tolist() == sorted(far[worst], reverse=True)
    assert explore.largest_first(np.array([0.0, 0.2, np.nan, 0.3, np.inf, 0.2])).tolist() == [3, 1, 5, 0]
    monkeypatch.setattr(explore, "distances", lambda *_: np.full((6, 17), np.nan))
    with pytest.raises(UserError, match="demo: nobody has a nose"):
        explore.worst_first("demo", runs["plain-0"], 0)


def test_a_run_not_evaluated_yet_is_named(runs):
    explore.predictions_path(runs["plain-0"]).unlink()
    with pytest.raises(UserError, match="predictions/demo/plain-0.json.*evaluate"):
        explore.distances("demo", runs["plain-0"])
    table = explore.compare("demo").set_index("run")["right keypoints (%)"]
    assert np.isnan(table["plain-0"]) and table["steps-prm-0"] >= 0


def test_a_small_run_is_new_each_time_and_leaves_the_pipelines_alone(runs, project):
    before, said = files(project), []
    run = "demo", load_params().model("plain"), "plain", 1, 4, lambda *now: said.append(now)
    names = [explore.train_briefly(*run) for _ in range(2)]
    assert names == ["plain-try1", "plain-try2"]
    after = files(project)
    assert {path: after[path] for path in before} == before
    assert {path.relative_to(project).parts[:2] for path in after.keys() - before.keys()} == {("work", "explore")}
    assert list(explore.weights_by_run("demo")) == ["plain-0", "steps-prm-0", *names]
    shares, doing = zip(*said[: len(said) // 2])
    assert list(shares) == sorted(shares) and shares[-1] == 1 and any("loss" in what for what in doing)
    assert explore.compare("demo")["trained"].tolist()[2] == "people: 4, epochs: 1"


def test_a_run_that_is_stopped_leaves_nothing(runs, project):
    def stop(share, _):
        if share > 0:
            raise KeyError("enough")

    before = files(project)
    with pytest.raises(KeyError, match="enough"):
        explore.train_briefly("demo", load_params().model("plain"), "plain", 1, 4, stop)
    assert files(project) == before


def test_two_runs_differ_by_their_keypoints_with_an_interval_over_pictures():
    far, near = np.full((40, 2), 0.3), np.full((40, 2), 0.01)
    first, second = far.copy(), near.copy()
    first[:20, 0] = second[:20, 0] = np.nan  # 20 people without the first keypoint, all of which the second run gains
    second[::2, 1] = 0.3  # of the second keypoint it gains every other
    every, one, other = explore.keypoint_differences(np.stack([first, second]), np.arange(40), 0.05)
    assert every[0] == pytest.approx(100 * 40 / 60) and one.tolist() == [100, 100, 100]
    assert other[0] == 50 and 25 < other[1] < 45 and 55 < other[2] < 75
    nobody = explore.keypoint_differences(np.full((2, 3, 1), np.nan), np.arange(3), 0.05)
    assert np.isnan(nobody).all()


def test_two_runs_differ_by_the_metric_as_their_draws_do(runs):
    metric, value, low, high = explore.metric_difference("demo", runs["plain-0"], runs["steps-prm-0"])
    scores = {run: read_json(metrics_path("demo", *run.split("-0")[:1], 0))["AP"] for run in runs}
    assert metric == "AP" and value == pytest.approx(100 * (scores["steps-prm-0"] - scores["plain-0"]))
    assert low <= value <= high
    assert explore.metric_difference("demo", runs["plain-0"], Path("plain-try1.safetensors")) is None


# ---- the controls


@pytest.fixture
def view(runs):
    """The section that shows one person."""
    return widgets.PersonView("demo")


def test_controls_redraw_what_they_are_about(view, runs):
    def figures():
        return [view.truth.value, *(each.value for each in view.views)]

    assert (view.run.label, view.beside.label, view.problem.value) == ("plain-0", "steps-prm-0", "")
    for control, value, redrawn in [
        (view.keypoint, 9, [False, True, True]),
        (view.head, "coarse", [False, True, True]),
        (view.place, 3, [True, True, True]),
        (view.run, runs["steps-prm-0"], [False, True, False]),
    ]:
        before = figures()
        control.value = value
        assert [old != new for old, new in zip(before, figures())] == redrawn
    assert "person 3" in view.about.value
    view.beside.value = widgets.NOTHING
    assert view.views[1].layout.display == "none" and view.problem.value == ""


def test_worst_first_goes_through_the_worst_of_the_keypoint(view, runs):
    view.place.value, view.keypoint.value = 4, 9
    view.order.value = widgets.WORST_FIRST
    assert view.place.value == 0
    for keypoint, place in [(9, 0), (9, 1), (0, 1)]:
        view.keypoint.value, view.place.value = keypoint, place
        assert view.person() == explore.worst_first("demo", runs["plain-0"], keypoint)[place]


def test_what_goes_wrong_is_a_line_on_the_page_until_it_works_again(view, runs, monkeypatch):
    with monkeypatch.context() as broken:
        broken.setattr(heatmaps, "insight", lambda *_: 1 / 0)
        view.keypoint.value = 8
        assert ">ZeroDivisionError: division by zero<" in view.problem.value
    view.keypoint.value = 7
    assert view.problem.value == ""

    explore.predictions_path(runs["plain-0"]).unlink()
    explore.distances.cache_clear()
    view.order.value = widgets.WORST_FIRST
    assert "plain-0.json: no such file; the stage `evaluate` writes it" in view.problem.value


def test_without_any_trained_run_every_section_says_what_to_do(runs, project):
    shutil.rmtree(project / "work" / "models")
    view = widgets.PersonView("demo")
    comparison = widgets.Comparison("demo", view)
    small = widgets.SmallRun("demo", widgets.Designer(), view, comparison)
    for section in (view, comparison, small):
        assert "nothing is trained on demo yet: run `make`" in section.problem.value
        assert section.children[-1] is section.problem


def test_a_clone_where_nothing_was_made_yet_opens_on_the_weights_that_come_along(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "weights").mkdir()
    names = ["lspet-rsn18-256x192", "lspet-rsn18", "rsn18-prm-drawn"]
    for path in ("params.yaml", "dvc.yaml", *(f"weights/{name}.safetensors" for name in names)):
        (tmp_path / path).symlink_to(ROOT / path)
    assert list(widgets.PersonView("demo").run.options) == ["rsnlib/rsn18-prm-drawn"]  # as many keypoints as demo
    (tmp_path / "weights/rsn18-prm-drawn.safetensors").unlink()
    view = widgets.PersonView("demo")
    assert list(view.run.options) == ["rsnlib/lspet-rsn18-256x192", "rsnlib/lspet-rsn18"]
    assert view.order.disabled and view.problem.value == ""
    before = view.views[0].value
    view.place.value, view.keypoint.value = 3, 9
    assert view.views[0].value != before and "of 14 keypoints labelled" in view.about.value and view.problem.value == ""
    assert "nothing is trained on demo yet" in widgets.Comparison("demo", view).problem.value


def test_who_is_picked_from_a_comparison_appears_among_the_people(view):
    comparison = widgets.Comparison("demo", view)
    view.order.value = widgets.WORST_FIRST
    before = comparison.errors.value
    comparison.differing.value = comparison.differing.options[2][1]
    assert view.person() == comparison.differing.value and view.order.value == widgets.IN_ORDER
    assert (view.run.label, view.beside.label) == ("plain-0", "steps-prm-0")
    assert comparison.errors.value != before  # the ring
    before = comparison.errors.value
    comparison.near.value = 20
    assert comparison.errors.value != before and comparison.problem.value == ""


def test_two_runs_are_compared_on_the_people_whom_both_predicted(view, runs, monkeypatch):
    file = explore.predictions_path(runs["plain-0"])
    write_json(file, read_json(file)[:2])
    explore.distances.cache_clear()
    found, seen = explore.distances("demo", runs["steps-prm-0"]), []
    monkeypatch.setattr(charts, "two_runs", lambda shares, *_: seen.append(shares) or plt.figure())
    comparison = widgets.Comparison("demo", view)
    known = np.isfinite(explore.mean_distances("demo", runs["plain-0"]))
    assert 0 < known.sum() < 6 and len(comparison.differing.options) == known.sum()
    np.testing.assert_array_equal(seen[-1][1], keypoint_accuracy(found[known], 0.05))

    assert comparison.says.value.startswith(
        "steps-prm-0 less plain-0, in points with the 95 % interval over people: AP "
    )
    comparison.differing.value = comparison.differing.options[0][1]
    comparison.first.value = runs["steps-prm-0"]
    assert comparison.differing.value is None  # a new list, nobody is picked


def test_a_design_shows_its_cost_and_receptive_fields(project):
    designer = widgets.Designer()
    designer.start.value = "steps-prm"
    assert designer.model == load_params().model("steps-prm")
    before = designer.fields.value
    designer.set(branches=3, stages=2)
    design = designer.model.architecture
    assert (design.branches, design.stages) == (3, 2)
    parameters, multiply_adds = cost(design)
    assert f"{parameters / 1e6:.2f} M" in designer.costs.value
    assert f"{multiply_adds / 1e9:.2f} G" in designer.costs.value
    assert designer.fields.value != before and designer.problem.value == ""


def test_a_small_run_joins_the_table_and_the_runs_to_choose_from(view):
    comparison, designer = widgets.Comparison("demo", view), widgets.Designer()
    small = widgets.SmallRun("demo", designer, view, comparison)
    assert small.table.value.count("<td>as params.yaml says</td>") == 2
    designer.branches.value = 2
    small.model.value, small.epochs.value, small.people.value = widgets.DESIGNED, 1, 4
    chosen = view.run.value
    small.start.click()
    small.thread.join()
    assert small.problem.value == "" and (small.progress.value, small.doing.value) == (1, "done")
    assert "designed-try1" in small.table.value and "people: 4, epochs: 1" in small.table.value
    assert "designed-try1" in view.run.options and "designed-try1" in comparison.second.options
    assert view.run.value == chosen and not small.start.disabled and small.cancel.disabled
    assert explore.network(explore.weights_by_run("demo")["designed-try1"]).architecture.branches == 2


def test_a_small_run_can_be_cancelled(view, runs, monkeypatch):
    small = widgets.SmallRun("demo", widgets.Designer(), view)
    monkeypatch.setattr(explore, "iterations", lambda *_: small.cancel.click() or 2)  # pressed as training starts
    small.start.click()
    small.thread.join()
    assert "cancelled" in small.doing.value and small.problem.value == "" and not small.start.disabled
    assert explore.weights_by_run("demo") == runs
