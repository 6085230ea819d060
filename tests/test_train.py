"""The training loop on eight drawn people and the smallest network."""

import json
import os
import re
import shutil
import signal
import socket
import sys
import threading
import time
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from unittest.mock import MagicMock, Mock, call

import checkout
import numpy as np
import pytest
import torch
from checkout import ROOT
from ruamel.yaml import YAML

from rsnlib import fast
from rsnlib.__main__ import main
from rsnlib.config import Recipe, Train
from rsnlib.data import batches
from rsnlib.data.augment import reach
from rsnlib.data.batches import make_batch
from rsnlib.data.images import normalise
from rsnlib.data.readers import read_people
from rsnlib.data.store import CropStore, write_crop_store
from rsnlib.errors import Stopped, UserError
from rsnlib.inference import predict
from rsnlib.models.checkpoints import load_model
from rsnlib.models.zoo import create_model
from rsnlib.stages import train as train_stage
from rsnlib.stages.layout import weights_path
from rsnlib.stages.results import load_curve
from rsnlib.training import loop as training
from rsnlib.training.loop import iterations, learning_rate_factor, make_optimizer, output_norms, train

RECIPE = Recipe(
    batch_size=4, length={"iterations": 8}, learning_rate=2e-3, warmup=2, warmup_factor=0.1, output_scale=256
)
SHARED = Train(weight_decay=1e-5, precision="float32", validations=2, device_batch=32, activation_checkpointing=False)


@pytest.fixture(scope="module")
def store(demo_folder, demo_settings, tmp_path_factory):
    path = tmp_path_factory.mktemp("crops") / "train"
    far = reach(demo_settings.augmentation)
    people = read_people(demo_folder, "coco", "train2017")
    write_crop_store(path, people, demo_settings.input_size, demo_settings.margin, far)
    return CropStore(path)


def small_network(**fields):
    torch.manual_seed(0)
    return create_model({"block": "bottleneck", "depths": [1, 1, 1, 1], **fields}, 17, (64, 64))


@pytest.fixture(scope="module")
def run(store, demo_settings):
    """A function: train the smallest network; its arguments override the settings above."""

    def run(recipe=RECIPE, model=None, seed=0, shared=SHARED, **options):
        return train(model or small_network(), store, demo_settings, recipe, seed=seed, train=shared, **options)

    return run


def sum_of_weights(model):
    assert not model.training
    return {"val_AP": sum(parameter.sum().item() for parameter in model.parameters())}


@pytest.fixture(scope="module")
def uninterrupted(run):
    """The model and the curve of a training with the settings above."""
    return run(validate=sum_of_weights)


@pytest.fixture
def save_always(monkeypatch):
    """Save a checkpoint after every iteration."""
    monkeypatch.setattr(training, "SAVE_EVERY", 0)
    monkeypatch.setattr(training, "SAVE_SHARE", float("inf"))


def same_weights(model, other):
    return all(a.equal(b) for a, b in zip(model.state_dict().values(), other.state_dict().values(), strict=True))


# ---- the loop


def test_the_loss_falls(run):
    _, curve = run(replace(RECIPE, length={"iterations": 96}))
    losses = [row["loss"] for row in curve]
    assert np.mean(losses[-4:]) < 0.8 * np.mean(losses[:4])


def test_the_curve_shows_the_schedule_and_validations_at_even_distances(run, uninterrupted):
    model, curve = uninterrupted
    assert not model.training
    assert [row["iteration"] for row in curve] == list(range(1, 9))
    assert [row["iteration"] for row in curve if "val_AP" in row] == [4, 8]
    assert curve[-1]["epoch"] == 8 * 4 / 8
    wanted = [2e-3 * learning_rate_factor(iteration, 8, 2, 0.1) for iteration in range(1, 9)]
    assert [row["learning_rate"] for row in curve] == pytest.approx(wanted)
    assert wanted[1] == 2e-3 and wanted[-1] == 0


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(run, uninterrupted):
    first, again, other = uninterrupted[0], run(seed=0)[0], run(seed=1)[0]
    assert same_weights(first, again)
    assert not same_weights(first, other)


def test_without_what_makes_it_faster_training_and_prediction_give_the_same_numbers(run, demo_folder, monkeypatch):
    """In float64: in float32 even two plain trainings whose weights start 1e-7 apart are nearly 1e-3 apart after 20
    steps. Without weight decay, which moves even biases without a gradient. Branches are widened as on a GPU."""
    recipe = replace(RECIPE, batch_size=8, length={"iterations": 20}, learning_rate=4e-4, warmup=2400, output_scale=1)
    people = read_people(demo_folder, "coco", "val2017")
    monkeypatch.setattr(training, "normalise", lambda crops: normalise(crops).double())
    monkeypatch.setattr(fast, "MULTIPLES", {("cpu", "float32"): 32})

    def outcome():
        torch.manual_seed(0)
        model = create_model("rsn18", 17, (64, 64)).double()
        model, curve = run(recipe, model, shared=replace(SHARED, weight_decay=0.0))
        return np.array([row["loss"] for row in curve]), *predict.predict_people([model], people, (0.1, 0.1))

    losses, keypoints, scores = outcome()
    monkeypatch.setattr(training, "faster", lambda model, *_: model)
    monkeypatch.setattr(training, "slower", lambda learner, _: learner)
    monkeypatch.setattr(predict, "fuse", lambda model, device: model)
    plain_losses, plain_keypoints, plain_scores = outcome()
    assert len(losses) == 20 and losses[0] != losses[-1]
    np.testing.assert_allclose(losses, plain_losses, rtol=1e-6)
    np.testing.assert_allclose(keypoints, plain_keypoints, atol=1e-3)
    np.testing.assert_allclose(scores, plain_scores, atol=1e-6)


def test_an_interrupted_training_goes_on_to_the_same_weights_and_is_not_repeated(
    run, uninterrupted, tmp_path, save_always, monkeypatch
):
    def power_cut(row):
        if row["iteration"] == 5:
            raise KeyboardInterrupt

    rows, options = [], {"state": tmp_path / "state", "validate": sum_of_weights}
    with pytest.raises(KeyboardInterrupt):
        run(log=power_cut, **options)
    resumed, curve = run(log=rows.append, **options)
    assert same_weights(resumed, uninterrupted[0])
    assert rows == curve == uninterrupted[1]  # the rows before the cut are logged again
    monkeypatch.setattr(batches, "make_batch", None)  # must not be called
    again, same_curve = run(**options)
    assert same_weights(resumed, again) and curve == same_curve


@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_and_sigterm_save_and_stop_between_points_of_the_curve(kind, run, uninterrupted, tmp_path, monkeypatch):
    monkeypatch.setattr(training, "LOGS", 2)  # points at iterations 4 and 8
    loss, calls = training.heatmap_loss, iter(range(1, 13))

    def stop_at_the_sixth(*arguments):
        if next(calls) == 6:
            os.kill(os.getpid(), kind)
        return loss(*arguments)

    monkeypatch.setattr(training, "heatmap_loss", stop_at_the_sixth)
    with pytest.raises(Stopped, match="stopped after iteration 6 of 8; .* goes on"):
        run(state=tmp_path)
    assert [path.name for path in tmp_path.glob("*.pt")] == ["000000006.pt"]
    resumed, curve = run(state=tmp_path)
    losses = [row["loss"] for row in uninterrupted[1]]
    assert same_weights(resumed, uninterrupted[0])
    assert [row["loss"] for row in curve] == pytest.approx([np.mean(losses[:4]), np.mean(losses[4:])])


def test_sigterm_during_validation_saves_and_at_the_end_changes_nothing(run, uninterrupted, tmp_path):
    sent = iter([True, True])

    def validate(model):
        if next(sent, False):
            os.kill(os.getpid(), signal.SIGTERM)
        return {}

    with pytest.raises(Stopped, match="stopped after iteration 4 of 8; .* goes on"):
        run(state=tmp_path, validate=validate)
    assert [path.name for path in tmp_path.glob("*.pt")] == ["000000004.pt"]
    finished, _ = run(state=tmp_path, validate=validate)
    assert next(sent, None) is None and same_weights(finished, uninterrupted[0])


def test_changed_code_or_data_begins_anew(project, tmp_path, monkeypatch):
    begun = Mock(side_effect=KeyboardInterrupt)
    monkeypatch.setattr(train_stage.loop, "train", begun)
    package = shutil.copytree(train_stage.PACKAGE, tmp_path / "rsnlib")
    monkeypatch.setattr(train_stage, "PACKAGE", package)
    for changed in (None, None, "apps/readme.py", "models/blocks.py", "training/loop.py"):
        if changed:
            (package / changed).write_text("# changed\n")
        with pytest.raises(KeyboardInterrupt):
            train_stage.train("demo", "plain", 0)
    first, again, other_code, blocks, loop = [call.kwargs["state"] for call in begun.call_args_list]
    assert first == again == other_code and len({first, blocks, loop}) == 3


def test_curves_go_to_tensorboard_too_without_training_anew(project, monkeypatch):
    text, states = Path("params.yaml").read_text(), set(Path("work/state").iterdir())
    Path("params.yaml").unlink()  # a link to the file of every test
    Path("params.yaml").write_text(text.replace("tensorboard: false", "tensorboard: true"))
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(UserError, match=r"train\.tensorboard needs a package: `pip install tensorboard`"):
        train_stage.train("demo", "plain", 0)
    board = MagicMock()
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", board)
    curve = train_stage.train("demo", "plain", 0)
    written = board.SummaryWriter().__enter__().add_scalar.call_args_list
    losses = [call("loss", row.loss, row.iteration) for row in curve.itertuples()]
    assert losses and [each for each in written if each.args[0] == "loss"] == losses
    assert set(Path("work/state").iterdir()) == states


def test_a_loss_that_is_not_finite_names_the_batch_and_keeps_the_state_before(
    run, store, tmp_path, monkeypatch, save_always
):
    loss = training.heatmap_loss
    calls = iter(range(1, 9))
    monkeypatch.setattr(training, "heatmap_loss", lambda *a: loss(*a) * (float("inf") if next(calls) == 6 else 1))
    message = r"not finite \(iteration 6, learning rate 0.00067\): lower .*batch: "
    with pytest.raises(UserError, match=message) as raised:
        run(state=tmp_path)
    people = store.people.ids[batches.batch_rows(6, len(store), 4, seed=0)]
    assert str(raised.value).endswith(", ".join(map(str, people)))
    assert [path.name for path in sorted(tmp_path.glob("*.pt"))] == ["000000004.pt", "000000005.pt"]


@pytest.mark.parametrize(
    ("module", "name", "error", "message"),
    [
        (
            training,
            "heatmap_loss",
            torch.OutOfMemoryError,
            "32 people at a time: lower train.device_batch .*checkpoint",
        ),
        (batches, "cut_crops", UserError("picture 7: broken"), "picture 7"),
    ],
)
def test_an_error_of_the_device_or_a_picture_stops_the_training(run, monkeypatch, module, name, error, message):
    monkeypatch.setattr(module, name, Mock(side_effect=error))
    with pytest.raises(UserError, match=message):
        run()


def test_one_person_at_a_time_is_refused_where_a_norm_has_one_value_per_person(run):
    with pytest.raises(UserError, match=r"one person at a time .* raise train\.device_batch"):
        run(model=small_network(attention="prm"), shared=replace(SHARED, device_batch=1))


def test_stopping_early_ends_the_preparing_thread(monkeypatch):
    monkeypatch.setattr(batches, "make_batch", lambda number, *_: number)
    prepared = batches.prefetched(range(20), *[None] * 5, torch.device("cpu"))
    assert next(prepared) == (0, 0)
    time.sleep(0.1)  # as many batches as fit are ready
    closing = threading.Thread(target=prepared.close, daemon=True)
    closing.start()
    closing.join(timeout=3)
    assert not closing.is_alive()


def test_without_intermediate_supervision_the_last_finest_head_alone_learns(run):
    model = small_network(stages=2)
    start = deepcopy(model)
    run(model=model, intermediate_supervision=False)
    learnt = [
        [not same_weights(*heads) for heads in zip(stage.heads, first.heads)]
        for stage, first in zip(model.cpu().stages, start.stages)
    ]
    assert learnt == [[False] * 4, [False, False, False, True]]
    assert not model.stem.conv.weight.equal(start.stem.conv.weight)


@pytest.mark.parametrize("options", [{}, {"intermediate_supervision": False}])
def test_mining_changes_what_is_learnt(run, options):
    recipe = replace(RECIPE, length={"iterations": 2})
    mined, everything = (run(recipe, hard_keypoints=count, **options) for count in (8, None))
    assert mined[1][0]["loss"] > everything[1][0]["loss"]  # the mean of the worst
    assert not same_weights(mined[0], everything[0])


# ---- how long and how fast


def test_length_in_epochs_or_iterations():
    for length, wanted in (({"epochs": 3}, 75), ({"iterations": 500}, 500), ({"epochs": 0.001}, 1)):
        assert iterations(replace(RECIPE, batch_size=40, length=length), 1000) == wanted


@pytest.mark.shared
def test_the_learning_rate_is_that_of_the_released_code(shared):
    golden = json.loads((shared / "goldens/lr_schedule.json").read_text())["factor"]
    found = {iteration: learning_rate_factor(int(iteration), 96000, 2400, 0.1) for iteration in golden}
    assert found == pytest.approx(golden, abs=1e-9)


def test_a_training_shorter_than_its_warm_up_has_learning_rates_too():
    assert 0 <= learning_rate_factor(5, 5, 50, 0.1) <= 1


# ---- batches


def whole_batch(*arguments, **options):
    (batch,) = make_batch(*arguments, **options, pieces=[slice(None)])
    return batch


def test_everyone_is_seen_once_per_epoch_in_a_new_order():
    seen = np.concatenate([batches.batch_rows(number, 8, 3, seed=0) for number in range(1, 9)])
    epochs = seen.reshape(3, 8).tolist()
    assert [sorted(epoch) for epoch in epochs] == [list(range(8))] * 3
    assert epochs[0] != epochs[1] != epochs[2] != list(range(8))
    assert batches.batch_rows(1, 8, 24, seed=0).tolist() == seen.tolist()  # a batch larger than the data


def test_a_batch_depends_on_its_number_and_the_seed_alone(store, demo_settings):
    batch = whole_batch(2, store, demo_settings, size=4, seed=0)
    whole_batch(7, store, demo_settings, size=4, seed=0)
    np.random.seed(1)
    assert all(a.equal(b) for a, b in zip(batch, whole_batch(2, store, demo_settings, size=4, seed=0)))
    for number, seed in ((3, 0), (2, 1)):
        assert not batch[0].equal(whole_batch(number, store, demo_settings, size=4, seed=seed)[0])
    (piece,) = make_batch(2, store, demo_settings, size=4, seed=0, pieces=[slice(2, 4)])
    assert all(part.equal(tensor[2:4]) for part, tensor in zip(piece, batch, strict=True))


def test_every_batch_draws_its_own_variations(monkeypatch):
    monkeypatch.setattr(batches, "cut_crops", lambda *given: [(np.array(given[3].random()),) * 3])
    drawn = {whole_batch(number, range(8), None, 4, seed)[0].item() for number, seed in ((1, 0), (2, 0), (1, 1))}
    assert len(drawn) == 3


# ---- pieces, and several processes


def test_the_gradients_of_pieces_add_up_to_the_batchs(run, monkeypatch):
    monkeypatch.setattr(torch.nn.BatchNorm2d, "forward", lambda norm, x: x)  # the only thing that sees a batch
    monkeypatch.setattr(training, "normalise", lambda crops: normalise(crops).double())
    monkeypatch.setattr(training, "faster", lambda model, *_: model)
    monkeypatch.setattr(training, "slower", lambda learner, _: learner)
    once = replace(RECIPE, length={"iterations": 1})
    (whole, curve), (pieces, same) = (
        run(once, small_network().double(), shared=replace(SHARED, device_batch=people)) for people in (4, 1)
    )
    for a, b in zip(whole.parameters(), pieces.parameters()):
        if a.grad is not None:
            torch.testing.assert_close(a.grad, b.grad, rtol=0, atol=1e-5 * a.grad.abs().max().item())
    assert whole.stem.conv.weight.grad is not None and curve[0]["loss"] == pytest.approx(same[0]["loss"], rel=1e-6)


@pytest.fixture
def in_pieces(project):
    """The project with ten iterations of two pieces each; the project's folder."""
    values = YAML(typ="safe").load(project / "params.yaml")
    values["datasets"]["demo"]["recipe"] |= {"length": {"iterations": 10}, "warmup": 2}
    values["train"] |= {"precision": "float32", "device_batch": 2}
    (project / "params.yaml").unlink()  # a link to the file of the other tests
    YAML(typ="safe").dump(values, project / "params.yaml")
    shutil.rmtree("work/state")
    return project


TRAIN = ("train", "--dataset=demo", "--model=plain")


def torchrun(project, *command):
    """Start a command of torchrun, without waiting for its end."""
    return checkout.Command(project, sys.executable, "-m", "torch.distributed.run", *command, PYTHONPATH=ROOT)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.mark.parametrize("machines", [1, 2])
def test_two_processes_train_to_the_weights_of_one(in_pieces, machines):
    """On one machine, and on two that meet at an address, here both this one."""
    train_stage.train("demo", "plain", 0)
    one = load_model(weights_path("demo", "plain", 0)).state_dict()
    shutil.rmtree("work/state")
    weights_path("demo", "plain", 0).unlink()
    meeting = ["--rdzv-backend=c10d", f"--rdzv-endpoint=127.0.0.1:{free_port()}", f"--nnodes={machines}"]
    options = [*meeting, f"--nproc-per-node={2 // machines}", "-m", "rsnlib", *TRAIN]
    for command in [torchrun(in_pieces, *options) for _ in range(machines)]:
        checkout.ended(command)
    two = load_model(weights_path("demo", "plain", 0)).state_dict()
    for name, values in one.items():
        torch.testing.assert_close(values, two[name], rtol=0, atol=1e-5, msg=name)
    assert load_curve("demo", "plain", 0)["iteration"].tolist() == list(range(1, 11))


FAILING = """
import os, time
from rsnlib.__main__ import main
from rsnlib.errors import UserError
from rsnlib.training import loop

def fail(*_):
    raise UserError(f"failed at {time.time()}")

if os.environ["RANK"] == "1":
    loop.heatmap_loss = fail
main()
"""


def test_a_process_that_fails_ends_the_others_within_seconds_and_torchrun_ends_with_its_error(in_pieces):
    Path("failing.py").write_text(FAILING)
    command = torchrun(in_pieces, "--standalone", "--nproc-per-node=2", "failing.py", *TRAIN)
    assert command.wait(checkout.PATIENCE) == 1
    ended, said = time.time(), command.said()
    assert re.search("^error: process 0 lost the others .*; the one that failed says why$", said, re.MULTILINE)
    cause = re.search(r"UserError: failed at (\S+)", said.partition("Root Cause")[2])
    assert ended - float(cause[1]) < 20


def test_pieces_are_even_and_shared_by_the_processes(monkeypatch):
    assert training.my_pieces(16, 15) == [slice(0, 8), slice(8, 16)]
    assert training.my_pieces(10, 4) == [slice(0, 3), slice(3, 6), slice(6, 10)]
    monkeypatch.setattr(training.parallel, "world", lambda: 3)
    assert training.my_pieces(10, 4) == [slice(0, 3)]
    with pytest.raises(UserError, match="of 10 people in pieces of 5 are 2 pieces, too few for 3 processes: lower"):
        training.my_pieces(10, 5)


# ---- the optimiser


def test_output_norms_move_output_scale_times_as_fast():
    model = small_network(stages=2, attention="prm")
    optimizer = make_optimizer(model, RECIPE, 1e-5)
    others, outputs = optimizer.param_groups
    assert (others["range"], outputs["range"]) == (1, 256)
    assert len(outputs["params"]) == 8 * 2  # weight and bias of eight heads
    grouped = sorted(id(parameter) for parameter in others["params"] + outputs["params"])
    assert grouped == sorted(id(parameter) for parameter in model.parameters())
    assert others["weight_decay"] == outputs["weight_decay"] == 1e-5
    last, finest = model.stages[1].heads[2:]
    assert output_norms(model)[6:] == [last.heatmaps.bn, finest.attention.features.bn]  # a PRM sets the range itself


def test_the_training_uses_each_groups_learning_rate(run):
    model, start = small_network(), small_network()
    run(replace(RECIPE, length={"iterations": 2}, warmup=0), model=model)  # the second has learning rate 0
    half = 2e-3 / 2  # of two iterations, after the first; Adam's first step is the learning rate
    moved = (output_norms(model.cpu())[3].weight - output_norms(start)[3].weight).abs()
    assert moved.max().item() == pytest.approx(half * 256, rel=0.01)
    assert (model.stem.bn.weight - start.stem.bn.weight).abs().max().item() == pytest.approx(half, rel=0.01)


def test_a_training_stops_after_its_minutes_and_the_same_command_goes_on(project, monkeypatch):
    params = YAML(typ="safe").load(Path("params.yaml"))
    params["datasets"]["demo"]["recipe"]["length"] = {"iterations": 100_000}
    Path("params.yaml").unlink()
    YAML().dump(params, Path("params.yaml"))
    timer, reached = threading.Timer, []
    monkeypatch.setattr("threading.Timer", lambda seconds, *call: timer(seconds / 60, *call))  # a minute takes a second
    monkeypatch.setattr("sys.argv", ["rsnlib", "train", "--dataset=demo", "--model=plain", "--minutes=2"])
    for _ in range(2):
        with pytest.raises(SystemExit) as stopped:
            main()
        reached.append(int(re.fullmatch(r"stopped after iteration (\d+) of 100000; .*", stopped.value.code)[1]))
    assert 0 < reached[0] < reached[1]


# ---- what the page of a training shows


def test_a_batch_is_looked_at_with_the_target_of_every_head(project, monkeypatch):
    run = train_stage.Run("demo", "plain", 0)
    run.description = replace(run.description, architecture=replace(run.description.architecture, stages=2))
    crops, keypoints, visible, targets = run.batch(1, people=3)
    assert crops.shape == (3, 64, 64, 3) and targets.shape == (3, 2, 4, 17, 16, 16)
    # kernels 15, 11, 9, 7 in the first stage, then 11, 9, 7, 5
    cells = (targets > 127).sum(dim=(0, 3, 4, 5)).flatten().tolist()
    assert cells[0] > cells[1] >= cells[2] > cells[3] and cells[4:7] == cells[1:4] and cells[7] < cells[6]

    unlabelled = (visible == 0)[:, None, None, :, None, None]
    monkeypatch.setattr(train_stage, "load_model", lambda _: Mock(heads=lambda _: targets / 2 + 9 * unlabelled))
    np.testing.assert_allclose(run.errors_by_head(crops, visible, targets), np.full((2, 4), 0.25), rtol=1e-5)
