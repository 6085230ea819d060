"""The training loop, top to bottom: batches, optimiser, schedule, validation, and a state to go on from."""

import contextlib
import queue
import threading
import time

import numpy as np
import torch
from tqdm import tqdm

from rsnlib.data.augment import augment
from rsnlib.data.geometry import compose, invert
from rsnlib.data.images import normalise
from rsnlib.data.targets import heatmap_targets
from rsnlib.device import autocast, choose_precision, default_device, keep_memory
from rsnlib.errors import UserError
from rsnlib.fast.widths import MULTIPLES, narrow, widen
from rsnlib.models.blocks import kept_statistics
from rsnlib.training import parallel
from rsnlib.training.losses import HARD_KEYPOINTS, finest_loss, heatmap_loss
from rsnlib.training.states import States, termination

LOGS = 200  # points of a training curve
SAVE_EVERY = 60  # seconds
SAVE_SHARE = 0.05  # of the time, at most
PREFETCH = 4  # batches


def train(model, store, settings, schedule, *, state=None, **options):
    """Train `model` on the crops of `store`, on the GPU where there is one; returns it and the training curve.

    store: the CropStore of the training people
    settings: config.Dataset (kernels, augmentation); schedule: config.Schedule
    state: folder of the run's resumable states; where there is one, training goes on from it
    options: those of `loop`

    The same seed gives the same weights on the same machine, interrupted or not. SIGTERM saves the state and stops. A
    batch is computed in pieces of train.device_batch people, whose gradients add up; under torchrun the processes share
    the pieces, to the same weights (parallel.start first). The first process validates, logs and keeps the states.
    """
    keep_memory()
    with contextlib.ExitStack() as stack:
        states = stack.enter_context(States(state)) if state and parallel.rank() == 0 else None
        terminated = stack.enter_context(termination())
        try:
            return loop(model, store, settings, schedule, states=states, terminated=terminated, **options)
        except torch.OutOfMemoryError:
            raise UserError(
                f"the device has too little memory for {options['train'].device_batch} people at a time: lower "
                "train.device_batch in params.yaml, or set train.activation_checkpointing to true"
            ) from None
        except ValueError as error:
            if "more than 1 value per channel" not in str(error):
                raise
            raise UserError(
                "one person at a time is too few for this network, some of whose batch norms have one value a person: "
                "raise train.device_batch in params.yaml, or the schedule's batch_size"
            ) from None


def loop(
    model,
    store,
    settings,
    schedule,
    *,
    seed,
    train,
    intermediate_supervision=True,
    hard_keypoints=HARD_KEYPOINTS,
    validate=None,
    log=None,
    states,
    terminated,
):
    """What `train` does.

    train: config.Train
    intermediate_supervision: whether every head learns, or the last stage's finest alone; hard_keypoints: as in
        rsnlib.losses
    validate: model -> {figure: number}, called `train.validations` times, evenly, the last time at the end
    log: called with each new row of the curve, a dict; on resuming, with the earlier rows first
    states: States, or None; terminated: an event that asks the loop to save its state and stop
    """
    device = default_device()
    precision = choose_precision(device, train.precision)
    torch.manual_seed(seed)
    model = model.to(device).eval()
    learner = widen(model, MULTIPLES.get((device.type, precision), 1)).to(memory_format=torch.channels_last).train()
    learner.recompute(train.activation_checkpointing)
    total = iterations(schedule, len(store), train.epochs)
    validations = {round(total * (i + 1) / train.validations) for i in range(train.validations)} if validate else set()
    optimizer = make_optimizer(learner, schedule, train.weight_decay)
    done, curve, losses = 0, [], []
    if before := parallel.from_first(states.newest() if states else None):
        learner.load_state_dict(before["learner"])
        optimizer.load_state_dict(before["optimizer"])
        done, curve = before["iteration"], before["curve"]
        losses = list(before["losses"].to(device) * (parallel.rank() == 0))  # they are sums over all processes

    def save(iteration):
        """Nothing random is in a state: a batch depends on its number alone."""
        weights = {"learner": learner.state_dict(), "optimizer": optimizer.state_dict()}
        pending = torch.stack(losses) if losses else torch.zeros(0)
        states.save(iteration, weights | {"iteration": iteration, "curve": curve, "losses": pending})

    first_process = parallel.rank() == 0
    log = log if first_process else None
    for row in curve:
        if log:
            log(row)

    saved, pause = time.monotonic(), SAVE_EVERY
    size = schedule.batch_size
    pieces = my_pieces(size, train.device_batch)
    bar = tqdm(
        total=total * size,
        initial=done * size,
        unit="person",
        mininterval=2,
        smoothing=0.05,
        desc="train",
        disable=not first_process,
    )
    batches = prefetched(range(done + 1, total + 1), store, settings, size, seed, pieces)
    for iteration, batch in batches:
        factor = learning_rate_factor(iteration, total, schedule.warmup, schedule.warmup_factor)
        for group in optimizer.param_groups:
            group["lr"] = schedule.learning_rate * factor * group["range"]
        optimizer.zero_grad(set_to_none=True)
        losses.append(torch.zeros((), device=device))
        for piece, people in zip(pieces, batch, strict=True):
            crops, keypoints, visible = (tensor.to(device, non_blocking=True) for tensor in people)
            images = normalise(crops)
            targets = heatmap_targets(keypoints, visible, store.input_size, settings.kernels)
            # statistics of the first piece are kept, as those of the first GPU in the released code
            kept = contextlib.nullcontext() if piece.start == 0 else kept_statistics(learner)
            with autocast(device, precision), kept:
                heatmaps = learner.heads(images) if intermediate_supervision else learner(images)
            if intermediate_supervision:
                loss = heatmap_loss(heatmaps, targets, visible, hard_keypoints)
            else:
                loss = finest_loss(heatmaps, targets[:, -1], visible, hard_keypoints).mean()
            loss = loss * (len(crops) / size)
            loss.backward()
            losses[-1] += loss.detach()
        parallel.add_gradients(learner)
        optimizer.step()
        bar.update(size)

        log_now = iteration % max(1, total // LOGS) == 0 or iteration in validations or iteration == total
        stop = parallel.anywhere(terminated.is_set())
        if log_now or stop:
            losses = list(parallel.total(torch.stack(losses)))
            check_finite(losses, iteration, schedule, store, seed, factor)
        if log_now:
            row = {
                "iteration": iteration,
                "epoch": iteration * size / len(store),
                "loss": torch.stack(losses).mean().item(),
                "learning_rate": schedule.learning_rate * factor,
            }
            losses = []
            if iteration in validations and first_process:
                row |= validate(narrow(learner, model))
            bar.set_postfix(loss=f"{row['loss']:.1f}", refresh=False)
            curve.append(row)
            if log:
                log(row)
            stop = parallel.anywhere(terminated.is_set())  # validation takes its time
        if states and iteration < total and (stop or log_now and time.monotonic() - saved > pause):
            start = time.monotonic()
            save(iteration)
            saved = time.monotonic()
            pause = max(SAVE_EVERY, (saved - start) / SAVE_SHARE)
        if stop and iteration < total:
            raise UserError(
                f"stopped by SIGTERM after iteration {iteration} of {total}; the next run goes on from there"
            )
    bar.close()
    parallel.share_statistics(learner)
    if states and done < total:
        save(total)
    return narrow(learner, model), curve


def my_pieces(size, at_once):
    """The pieces of a batch that this process computes: slices of at most `at_once` people, all as large or one larger
    than others, every process as many or one fewer than others."""
    number = -(-size // at_once)
    pieces = [slice(size * piece // number, size * (piece + 1) // number) for piece in range(number)]
    if len(pieces) < parallel.world():
        raise UserError(
            f"batches of {size} people in pieces of {at_once} are {len(pieces)} pieces, too few for {parallel.world()} "
            "processes: lower train.device_batch in params.yaml, or start fewer"
        )
    return pieces[parallel.rank() :: parallel.world()]


def check_finite(losses, iteration, schedule, store, seed, factor):
    """Raise a UserError for the first of the losses up to `iteration` that is not a finite number."""
    wrong = (~torch.stack(losses).isfinite()).nonzero()
    if len(wrong):
        number = iteration - len(losses) + 1 + wrong[0].item()
        people = ", ".join(str(store.people.ids[row]) for row in _rows(number, len(store), schedule.batch_size, seed))
        raise UserError(
            f"the loss is not finite (iteration {number}, learning rate {schedule.learning_rate * factor:.2g}): lower "
            f"the schedule's learning_rate in params.yaml, or look at the people of that batch: {people}"
        )


def iterations(schedule, people, epochs=None):
    """How many batches a schedule is; epochs, where given, goes before the schedule's own length."""
    epochs = schedule.epochs if epochs is None else epochs
    return max(1, round(epochs * people / schedule.batch_size)) if epochs else schedule.iterations


def learning_rate_factor(iteration, total, warmup, warmup_factor):
    """The learning rate over its peak (released RSN, make_lr_scheduler): up linearly, then down linearly to zero."""
    if iteration < warmup:
        return warmup_factor + (1 - warmup_factor) * iteration / warmup
    return (total - iteration) / max(1, total - warmup)


def make_optimizer(model, schedule, weight_decay):
    """Adam as the released code has it; where schedule.output_scale is above 1, with quicker outputs.

    Heatmaps peak at 255, a batch norm starts at 1, and Adam moves a weight by about the learning rate a step: the last
    batch norms need thousands of steps to reach the targets' range. With an output_scale of s they move s times as fast
    as if the network gave heatmaps of s times what they say; 1 is the released recipe. They still start at 1: started
    in the targets' range, what is noise at first costs so much that they shrink to nothing and the rest learns little.
    """
    outputs = [parameter for norm in model.output_norms() for parameter in norm.parameters()]
    learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
    others = [parameter for parameter in learning if not any(parameter is output for output in outputs)]
    groups = [{"params": others, "range": 1}, {"params": outputs, "range": schedule.output_scale}]
    return torch.optim.Adam(groups, lr=schedule.learning_rate, weight_decay=weight_decay, fused=True)


def prefetched(numbers, store, settings, size, seed, pieces):
    """(iteration, batch) for each number, prepared in a thread while the network computes."""
    batches = queue.Queue(PREFETCH)
    stop = threading.Event()

    def put(item):
        """False where the loop no longer wants it."""
        while not stop.is_set():
            try:
                batches.put(item, timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def produce():
        try:
            for number in numbers:
                if not put((number, make_batch(number, store, settings, size, seed, pieces))):
                    return
            put(None)
        except BaseException as error:  # handed to the loop, which raises it
            put(error)

    thread = threading.Thread(target=produce, daemon=True)
    thread.start()
    try:
        while (item := batches.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        stop.set()
        thread.join()


def make_batch(number, store, settings, size, seed, pieces):
    """Pieces, slices, of batch `number` (from 1) of a run, each crops (N, H, W, 3) uint8, keypoints (N, K, 2) in them,
    visible (N, K). They depend on nothing but the arguments, so a resumed run sees the same people in the same
    variations.
    """
    rows = _rows(number, len(store), size, seed)
    cut = cut_crops(rows, store, settings, np.random.default_rng([seed, 1, number]), pieces)
    return [(torch.from_numpy(each[0]), torch.from_numpy(each[1]).float(), torch.from_numpy(each[2])) for each in cut]


def cut_crops(rows, store, settings, random, pieces=(slice(None),)):
    """Training crops of the people in `rows` of a store, a piece at a time: (N, H, W, 3) uint8, their keypoints and
    flags, arrays. A piece is the same whichever others are cut."""
    matrices, keypoints, visible = augment(store.people.take(rows), settings.augmentation, store.input_size, random)
    matrices = compose(matrices, invert(store.matrices[rows]))  # from window pixels

    return [(store.crops(rows[piece], matrices[piece]), keypoints[piece], visible[piece]) for piece in pieces]


def _rows(number, people, size, seed):
    """The people of a batch: batches cut an endless row of shuffled epochs into equal pieces."""
    places = np.arange((number - 1) * size, number * size)
    rows = np.empty(size, int)
    for epoch in np.unique(places // people):
        here = places // people == epoch
        rows[here] = np.random.default_rng([seed, 0, epoch]).permutation(people)[places[here] % people]
    return rows
