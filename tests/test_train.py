"""The training loop on eight drawn people and the smallest network."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from copy import deepcopy
from dataclasses import replace

import numpy as np
import pytest
import torch
from ruamel.yaml import YAML

from rsnlib.config import Schedule, Train, project_root
from rsnlib.data.augment import reach
from rsnlib.data.images import normalise
from rsnlib.data.readers import read_people
from rsnlib.data.store import CropStore, write_crop_store
from rsnlib.errors import UserError
from rsnlib.fast.fused_norm import plain_torch
from rsnlib.models.checkpoints import load_model
from rsnlib.models.network import Network, Up, resize
from rsnlib.models.zoo import create_model
from rsnlib.stages import layout
from rsnlib.stages import prepare as prepare_stage
from rsnlib.stages import train as train_stage
from rsnlib.training import loop as training
from rsnlib.training.loop import iterations, learning_rate_factor, make_batch, make_optimizer, train

SCHEDULE = Schedule(
    batch_size=4, epochs=None, iterations=8, learning_rate=2e-3, warmup=2, warmup_factor=0.1, output_scale=256
)
SHARED = Train(epochs=None, weight_decay=1e-5, precision="float32", validations=2)


@pytest.fixture(scope="module")
def store(demo_folder, demo_settings, tmp_path_factory):
    path = tmp_path_factory.mktemp("crops") / "train"
    far = reach(demo_settings.augmentation)
    people = read_people(demo_folder, "coco", "train2017")
    write_crop_store(path, people, demo_settings.input_size, demo_settings.enlarge, far)
    return CropStore(path)


def small_network():
    torch.manual_seed(0)
    return create_model({"block": "bottleneck", "depths": [1, 1, 1, 1]}, 17, (64, 64))


@pytest.fixture
def run(store, demo_settings):
    """A function: train the smallest network; what it takes goes before the settings above."""

    def run(schedule=SCHEDULE, model=None, seed=0, shared=SHARED, **options):
        return train(model or small_network(), store, demo_settings, schedule, seed=seed, train=shared, **options)

    return run


@pytest.fixture
def save_always(monkeypatch):
    """Keep a state after every iteration."""
    monkeypatch.setattr(training, "SAVE_EVERY", 0)
    monkeypatch.setattr(training, "SAVE_SHARE", float("inf"))


def same_weights(model, other):
    return all(a.equal(b) for a, b in zip(model.state_dict().values(), other.state_dict().values(), strict=True))


# ---- the loop


def test_the_loss_falls(run):
    rows = []
    model, curve = run(replace(SCHEDULE, iterations=96), log=rows.append)
    losses = [row["loss"] for row in curve]
    assert np.mean(losses[-4:]) < 0.8 * np.mean(losses[:4])
    assert rows == curve
    assert [row["iteration"] for row in curve] == list(range(1, 97))
    assert curve[-1]["epoch"] == 96 * 4 / 8
    assert not model.training


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(run):
    first, again, other = (run(replace(SCHEDULE, iterations=3), seed=seed)[0] for seed in (0, 0, 1))
    assert same_weights(first, again)
    assert not same_weights(first, other)


def test_twenty_steps_have_the_losses_of_the_plain_form(run, monkeypatch):
    """Plain: the released code's order of operations, nothing in place, every bias trained, branches as they are. In
    float64: in float32 even two plain trainings whose weights start 1e-7 apart are nearly 1e-3 apart by then."""
    schedule = replace(SCHEDULE, batch_size=8, iterations=20, learning_rate=4e-4, warmup=2400, output_scale=1)
    monkeypatch.setattr(training, "normalise", lambda crops: normalise(crops).double())
    monkeypatch.setattr(training, "MULTIPLES", {("cpu", "float32"): 32})

    def losses():
        torch.manual_seed(0)
        _, curve = run(schedule, create_model("rsn18", 17, (64, 64)).double())
        return torch.tensor([row["loss"] for row in curve])

    fast = losses()

    def up(unit, down, coarser):
        x = unit.lateral.bn(unit.lateral.conv(down))
        if unit.coarser is not None:
            x = x + unit.coarser(resize(coarser, down.shape[-2:]))
        return torch.relu(x), None

    def features(model, images):
        x = model.pool(torch.relu(model.stem(images)))
        return [model.stages[0](x, [None] * 4)[0]]

    monkeypatch.setattr(Up, "forward", up)
    monkeypatch.setattr(Network, "features", features)
    monkeypatch.setattr(training, "widen", lambda model, _: deepcopy(model))
    monkeypatch.setattr(training, "narrow", lambda learner, _: learner)
    plain = losses()
    assert len(plain) == 20 and plain[0] != plain[-1]
    torch.testing.assert_close(fast, plain, rtol=1e-6, atol=0)


def test_an_interrupted_training_goes_on_to_the_same_weights(run, tmp_path, save_always):
    state = tmp_path / "state"

    def power_cut(row):
        if row["iteration"] == 5:
            raise KeyboardInterrupt

    def validate(model):
        return {"val_AP": sum(p.sum().item() for p in model.parameters())}

    with pytest.raises(KeyboardInterrupt):
        run(state=state, validate=validate, log=power_cut)
    rows = []
    resumed, curve = run(state=state, validate=validate, log=rows.append)
    uninterrupted, wanted = run(validate=validate)
    assert same_weights(resumed, uninterrupted)
    assert [row["iteration"] for row in rows] == list(range(1, 9))  # those before the cut are logged again
    assert curve == wanted


def test_a_finished_training_is_not_repeated(run, tmp_path, monkeypatch):
    state = tmp_path / "state"
    first, curve = run(state=state)
    monkeypatch.setattr(training, "make_batch", None)  # must not be called
    again, same_curve = run(state=state, model=create_model({"block": "bottleneck", "depths": [1] * 4}, 17, (64, 64)))
    assert same_weights(first, again) and curve == same_curve


def test_validation_happens_evenly_the_last_time_at_the_end(run):
    modes = []

    def validate(model):
        modes.append(model.training)
        return {"val_AP": 0.5}

    model, curve = run(validate=validate, shared=replace(SHARED, validations=4))
    assert [row["iteration"] for row in curve if "val_AP" in row] == [2, 4, 6, 8]
    assert modes == [False] * 4


def test_sigterm_saves_and_stops_between_two_points_of_the_curve(run, tmp_path, monkeypatch):
    monkeypatch.setattr(training, "LOGS", 2)  # points at iterations 4 and 8
    loss, state = training.heatmap_loss, tmp_path / "state"
    calls = iter(range(1, 9))

    def stop_at_the_sixth(*arguments):
        if next(calls) == 6:
            os.kill(os.getpid(), signal.SIGTERM)
        return loss(*arguments)

    monkeypatch.setattr(training, "heatmap_loss", stop_at_the_sixth)
    with pytest.raises(UserError, match="SIGTERM after iteration 6 of 8; the next run goes on"):
        run(state=state)
    monkeypatch.setattr(training, "heatmap_loss", loss)
    assert [path.name for path in state.glob("*.pt")] == ["000000006.pt"]
    (resumed, curve), (uninterrupted, wanted) = run(state=state), run()
    assert same_weights(resumed, uninterrupted) and curve == wanted


def test_sigterm_during_validation_saves_and_at_the_end_changes_nothing(run, tmp_path):
    state, sent = tmp_path / "state", iter([True, True])

    def validate(model):
        if next(sent, False):
            os.kill(os.getpid(), signal.SIGTERM)
        return {}

    with pytest.raises(UserError, match="SIGTERM after iteration 4 of 8; the next run goes on"):
        run(state=state, validate=validate)
    assert [path.name for path in state.glob("*.pt")] == ["000000004.pt"]
    finished, _ = run(state=state, validate=validate)
    assert next(sent, None) is None and same_weights(finished, run()[0])


def test_changed_code_or_data_begins_anew(project, tmp_path, monkeypatch):
    class Begun(Exception):
        pass

    def begin(*given, state, **options):
        begun.append(state)
        raise Begun

    begun = []
    monkeypatch.setattr(train_stage, "train_model", begin)
    package = shutil.copytree(layout.PACKAGE, tmp_path / "rsnlib")
    for changed in (None, None, "apps/readme.py", "models/blocks.py", "training/loop.py"):
        if changed:
            with open(package / changed, "a") as file:
                file.write("# changed\n")
        monkeypatch.setattr(train_stage, "PACKAGE", package)
        with pytest.raises(Begun):
            train_stage.train("demo", "plain", 0)
    first, again, other_code, blocks, loop = begun
    assert first == again == other_code and len({first, blocks, loop}) == 3


def test_a_damaged_state_falls_back_to_the_one_before(run, tmp_path, save_always, capsys):
    state = tmp_path / "state"
    first, _ = run(state=state)
    older, newest = sorted(state.glob("*.pt"))
    contents = bytearray(newest.read_bytes())
    contents[len(contents) // 2] ^= 1
    newest.write_bytes(contents)
    again, _ = run(state=state)
    assert f"{newest}: damaged" in capsys.readouterr().err
    assert same_weights(first, again)


def test_a_loss_that_is_not_finite_names_the_batch_and_keeps_the_state_before(
    run, store, tmp_path, monkeypatch, save_always
):
    loss = training.heatmap_loss
    calls = iter(range(1, 9))
    monkeypatch.setattr(training, "heatmap_loss", lambda *a: loss(*a) * (float("inf") if next(calls) == 6 else 1))
    with pytest.raises(
        UserError, match=r"not finite \(iteration 6, learning rate 0.00067\): lower .*batch: "
    ) as raised:
        run(state=tmp_path)
    people = store.people.ids[training._rows(6, len(store), 4, seed=0)]
    assert str(raised.value).endswith(", ".join(map(str, people)))
    assert [path.name for path in sorted(tmp_path.glob("*.pt"))] == ["000000004.pt", "000000005.pt"]


def test_too_little_memory_says_what_to_lower(run, monkeypatch):
    def out_of_memory(*arguments):
        raise torch.OutOfMemoryError

    monkeypatch.setattr(training, "heatmap_loss", out_of_memory)
    with pytest.raises(UserError, match=r"32 people at a time: lower train.device_batch .*activation_checkpointing"):
        run()


def test_a_picture_that_cannot_be_cut_stops_the_training(run, monkeypatch):
    def broken(*args):
        raise UserError("picture 7: broken")

    monkeypatch.setattr(training, "cut_crops", broken)
    with pytest.raises(UserError, match="picture 7"):
        run()


@pytest.mark.parametrize("count", [3, 5, 20])
def test_stopping_early_ends_the_preparing_thread(monkeypatch, count):
    monkeypatch.setattr(training, "make_batch", lambda number, *_: number)
    batches = training.prefetched(range(count), *[None] * 5)
    assert next(batches) == (0, 0)
    time.sleep(0.1)  # as many batches as fit are ready
    closing = threading.Thread(target=batches.close, daemon=True)
    closing.start()
    closing.join(timeout=3)
    assert not closing.is_alive()


def test_without_intermediate_supervision_the_last_finest_head_alone_learns(run):
    model = create_model({"block": "bottleneck", "depths": [1] * 4, "stages": 2}, 17, (64, 64))
    start = deepcopy(model)
    run(model=model, intermediate_supervision=False)
    learnt = [
        [not same_weights(*heads) for heads in zip(stage.heads, first.heads)]
        for stage, first in zip(model.stages, start.stages)
    ]
    assert learnt == [[False] * 4, [False, False, False, True]]
    assert not model.stem.conv.weight.equal(start.stem.conv.weight)


@pytest.mark.parametrize("options", [{}, {"intermediate_supervision": False}])
def test_mining_changes_what_is_learnt(run, options):
    schedule = replace(SCHEDULE, iterations=2)
    mined, everything = (run(schedule, hard_keypoints=count, **options) for count in (8, None))
    assert mined[1][0]["loss"] > everything[1][0]["loss"]  # the mean of the worst
    assert not same_weights(mined[0], everything[0])


# ---- how long and how fast


@pytest.mark.parametrize(
    ("changes", "epochs", "wanted"),
    [
        ({"epochs": 3.0, "iterations": None}, None, 75),
        ({"epochs": None, "iterations": 500}, None, 500),
        ({"epochs": None, "iterations": 500}, 2, 50),  # train.epochs goes first
        ({"epochs": 0.001, "iterations": None}, None, 1),
    ],
)
def test_length_in_epochs_or_iterations(changes, epochs, wanted):
    assert iterations(replace(SCHEDULE, batch_size=40, **changes), 1000, epochs) == wanted


@pytest.mark.shared
def test_the_learning_rate_is_that_of_the_released_code(shared):
    golden = json.loads((shared / "goldens/lr_schedule.json").read_text())["factor"]
    found = {iteration: learning_rate_factor(int(iteration), 96000, 2400, 0.1) for iteration in golden}
    assert found == pytest.approx(golden, abs=1e-9)


@pytest.mark.parametrize(("total", "warmup"), [(1, 0), (5, 50), (50, 50), (3, 1)])
def test_a_run_shorter_than_the_warm_up_has_a_learning_rate_too(total, warmup):
    factors = [learning_rate_factor(iteration, total, warmup, 0.1) for iteration in range(1, total + 1)]
    assert all(0 <= factor <= 1 for factor in factors)


def test_the_curve_shows_the_schedule(run):
    _, curve = run()
    wanted = [2e-3 * learning_rate_factor(iteration, 8, 2, 0.1) for iteration in range(1, 9)]
    assert [row["learning_rate"] for row in curve] == pytest.approx(wanted)
    assert wanted[1] == 2e-3 and wanted[-1] == 0


# ---- batches


def whole_batch(*arguments, **options):
    (batch,) = make_batch(*arguments, **options, pieces=[slice(None)])
    return batch


def test_everyone_is_seen_once_an_epoch_in_a_new_order(store, demo_settings, monkeypatch):
    seen, crops = [], store.crops
    monkeypatch.setattr(store, "crops", lambda rows, matrices: seen.extend(rows.tolist()) or crops(rows, matrices))
    for number in range(1, 9):
        whole_batch(number, store, demo_settings, size=3, seed=0)
    epochs = [seen[first : first + 8] for first in (0, 8, 16)]
    assert [sorted(epoch) for epoch in epochs] == [list(range(8))] * 3
    assert epochs[0] != epochs[1] != epochs[2] != list(range(8))


def test_a_batch_larger_than_the_data_takes_people_again(store, demo_settings):
    crops, keypoints, visible = whole_batch(1, store, demo_settings, size=20, seed=0)
    assert crops.shape == (20, 64, 64, 3) and crops.dtype == torch.uint8
    assert keypoints.shape == (20, 17, 2) and visible.shape == (20, 17)


def test_a_batch_depends_on_its_number_and_the_seed_alone(store, demo_settings):
    batch = whole_batch(2, store, demo_settings, size=4, seed=0)
    whole_batch(7, store, demo_settings, size=4, seed=0)
    np.random.seed(1)
    assert all(a.equal(b) for a, b in zip(batch, whole_batch(2, store, demo_settings, size=4, seed=0)))
    for number, seed in ((3, 0), (2, 1)):
        assert not batch[0].equal(whole_batch(number, store, demo_settings, size=4, seed=seed)[0])


def test_every_batch_draws_its_own_variations(monkeypatch):
    drawn = []
    monkeypatch.setattr(training, "cut_crops", lambda *given: [(np.array(given[3].random()),) * 3])
    for number, seed in ((1, 0), (2, 0), (1, 1)):
        drawn.append(whole_batch(number, range(8), None, 4, seed)[0].item())
    assert len(set(drawn)) == 3


def test_a_piece_of_a_batch_is_that_part_of_the_whole(store, demo_settings):
    whole = whole_batch(2, store, demo_settings, size=6, seed=0)
    for piece in make_batch(2, store, demo_settings, size=6, seed=0, pieces=[slice(4, 6)]):
        assert all(part.equal(tensor[4:6]) for part, tensor in zip(piece, whole, strict=True))


# ---- pieces, and several processes


def test_the_gradients_of_pieces_add_up_to_the_batchs(run, monkeypatch):
    monkeypatch.setattr(torch.nn.BatchNorm2d, "forward", lambda norm, x: x)  # the only thing that sees a batch
    once = replace(SCHEDULE, iterations=1)
    with plain_torch():
        (whole, curve), (pieces, same) = run(once), run(once, shared=replace(SHARED, device_batch=1))
    for a, b in zip(whole.parameters(), pieces.parameters(), strict=True):
        if a.grad is not None:
            torch.testing.assert_close(a.grad, b.grad, rtol=0, atol=1e-5 * a.grad.abs().max().item())
    assert curve[0]["loss"] == pytest.approx(same[0]["loss"], rel=1e-6)


def test_two_processes_train_to_the_weights_of_one(demo_folder, tmp_path, monkeypatch):
    values = YAML(typ="safe").load(project_root() / "params.yaml")
    root = project_root()
    values["datasets"]["demo"] |= {"input_size": [64, 64], "more_input_sizes": {}}
    schedule = {"batch_size": 4, "epochs": None, "iterations": 10, "warmup": 2}
    values["datasets"]["demo"]["schedule"] |= schedule
    values["models"]["tiny"] = {"block": "bottleneck", "depths": [1, 1, 1, 1]}
    values["run"] = {"datasets": ["demo"], "models": ["tiny"], "seeds": [0]}
    values["train"] |= {"precision": "float32", "device_batch": 2, "validations": 1}
    weights = []
    for processes in (1, 2):
        folder = tmp_path / str(processes)
        folder.mkdir()
        monkeypatch.chdir(folder)
        shutil.copytree(demo_folder, folder / "data/demo")
        YAML(typ="safe").dump(values, folder / "params.yaml")
        prepare_stage.prepare("demo")
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
        command += ["-m", "rsnlib", "train", "--dataset", "demo", "--model", "tiny"]
        environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(root)}
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        weights.append(load_model(layout.weights_path("demo", "tiny", 0)).state_dict())
    for (name, one), two in zip(weights[0].items(), weights[1].values(), strict=True):
        torch.testing.assert_close(one, two, rtol=0, atol=1e-5, msg=name)
    assert layout.load_curve("demo", "tiny", 0)["iteration"].tolist() == list(range(1, 11))


def test_pieces_are_as_even_as_can_be():
    pieces = training.my_pieces(16, 15)
    assert pieces == [slice(0, 8), slice(8, 16)] and training.my_pieces(10, 4)[-1] == slice(6, 10)


def test_one_person_at_a_time_is_refused_where_a_norm_has_one_value_a_person(run):
    model = create_model({"depths": [1, 1, 1, 1], "attention": "prm"}, 17, (64, 64))
    for compute in (contextlib.nullcontext, plain_torch):
        with compute(), pytest.raises(UserError, match=r"one person at a time .* raise train\.device_batch"):
            run(model=model, shared=replace(SHARED, device_batch=1))


def test_more_processes_than_pieces_are_refused(monkeypatch):
    monkeypatch.setattr(training.parallel, "world", lambda: 3)
    assert [piece.start for piece in training.my_pieces(10, 4)] == [0]
    with pytest.raises(UserError, match="of 10 people in pieces of 5 are 2 pieces, too few for 3 processes: lower"):
        training.my_pieces(10, 5)


# ---- the optimiser


def test_output_norms_move_output_scale_times_as_fast():
    model = small_network()
    optimizer = make_optimizer(model, SCHEDULE, 1e-5)
    others, outputs = optimizer.param_groups
    assert (others["range"], outputs["range"]) == (1, 256)
    assert len(outputs["params"]) == 4 * 2  # weight and bias of four heads
    grouped = sorted(id(parameter) for parameter in others["params"] + outputs["params"])
    assert grouped == sorted(id(parameter) for parameter in model.parameters())
    assert others["weight_decay"] == outputs["weight_decay"] == 1e-5


def test_the_released_recipe_changes_nothing():
    model = small_network()
    make_optimizer(model, replace(SCHEDULE, output_scale=1), 1e-5)
    assert same_weights(model, small_network())


def test_the_training_uses_each_groups_learning_rate(run):
    model, start = small_network(), small_network()
    make_optimizer(start, SCHEDULE, 0)  # only for its start values
    run(replace(SCHEDULE, iterations=2, warmup=0), model=model)  # the second has learning rate 0
    half = 2e-3 / 2  # of two iterations, after the first; Adam's first step is the learning rate
    moved = (model.stages[0].heads[3].output_norm.weight - start.stages[0].heads[3].output_norm.weight).abs()
    assert moved.max().item() == pytest.approx(half * 256, rel=0.01)
    assert (model.stem.bn.weight - start.stem.bn.weight).abs().max().item() == pytest.approx(half, rel=0.01)
