"""The training loop, top to bottom: batches, optimiser, schedule, validation, and checkpoints to resume from."""

import contextlib
import sys
import time

import torch
from tqdm import tqdm

from rsnlib.data.batches import batch_rows, prefetched
from rsnlib.data.images import normalise
from rsnlib.data.resident import resident
from rsnlib.data.targets import heatmap_targets
from rsnlib.device import SharedCores, autocast, choose_precision, default_device, keep_memory
from rsnlib.errors import Stopped, UserError, termination
from rsnlib.fast import faster, graphed, slower
from rsnlib.models.attention import PRM
from rsnlib.models.blocks import frozen_statistics
from rsnlib.training import parallel
from rsnlib.training.losses import HARD_KEYPOINTS, finest_loss, heatmap_loss
from rsnlib.training.start import parts
from rsnlib.training.states import States

LOGS = 200  # points of a training curve
SAVE_EVERY = 60  # seconds
SAVE_SHARE = 0.05  # of the time, at most
CURVE = ("iteration", "epoch", "loss", "learning_rate")  # of a row; the others are validation metrics


def train(
    model,
    store,
    settings,
    recipe,
    *,
    seed,
    train,
    intermediate_supervision=True,
    hard_keypoints=HARD_KEYPOINTS,
    frozen=(),
    validate=None,
    validated_by=None,
    log=None,
    state=None,
    name="train",
):
    """Train `model` on the crops of `store`, on the GPU if there is one; return it and the training curve, a list of
    dicts.

    store: the CropStore of the training people
    settings: config.Dataset (kernels, augmentation); recipe: config.Recipe; train: config.Train
    intermediate_supervision: every head learns; False: the last stage's finest head alone
    hard_keypoints: as for `heatmap_loss`
    frozen: names of modules that stay as they are, running statistics of their batch norms included
    validate: model -> {metric: number}, called `train.validations` times, evenly, the last time at the end
    validated_by: fingerprint of what `validate` measures with; a resumed training drops validations by another, and
        measures the last one anew if the training is finished
    log: called with each new row of the curve; on resuming, with the earlier rows first
    state: folder of the run's checkpoints; if it holds any, training resumes from the newest
    name: of the progress bar

    The same seed gives the same weights on the same machine, interrupted or not. Ctrl-C and SIGTERM save a
    checkpoint and raise Stopped.
    A batch is computed in pieces of train.device_batch people, whose gradients add up; under torchrun the processes
    share the pieces, to the same weights (parallel.start first). The first process validates, logs and saves; it alone
    has the running statistics.
    """
    keep_memory()
    device, first_process = default_device(), parallel.rank() == 0
    with (
        explained_errors(train),
        States(state) if state and first_process else contextlib.nullcontext() as states,
        termination() as terminated,
        contextlib.ExitStack() as stack,
    ):
        precision = choose_precision(device, train.precision)
        model = model.to(device)
        learner = faster(model, device, precision, train.activation_checkpointing)
        still = parts(learner, frozen)
        for part in still:
            part.requires_grad_(False)
        set_learning(learner, still)
        optimizer = make_optimizer(learner, recipe, train.weight_decay)
        size, total = recipe.batch_size, iterations(recipe, len(store))
        evenly = {round(total * (i + 1) / train.validations) for i in range(train.validations)}
        validations = evenly if validate else set()
        pieces = my_pieces(size, train.device_batch)
        done, curve, losses = 0, [], []
        if before := parallel.from_first(states.newest() if states else None):
            learner.load_state_dict(before["learner"])
            optimizer.load_state_dict(before["optimizer"])
            done, curve = before["iteration"], before["curve"]
            losses = list(before["losses"].to(device) * first_process)  # the sums over all processes
            if before["validated_by"] != validated_by:
                curve = [{name: row[name] for name in CURVE} for row in curve]
                if done == total and validate and first_process:
                    curve[-1] |= validate(slower(learner, model).eval())

        def learn(crops, keypoints, visible, share, first):
            """Add the gradients of a piece, `share` of its batch, and return its part of the loss."""
            images = normalise(crops)
            targets = heatmap_targets(keypoints, visible, store.input_size, settings.kernels)
            # only the first piece updates the running statistics; the released code keeps those of its first GPU
            unchanged = contextlib.nullcontext() if first else frozen_statistics(learner)
            with autocast(device, precision), unchanged:
                heatmaps = learner.heads(images) if intermediate_supervision else learner(images)
            if intermediate_supervision:
                loss = heatmap_loss(heatmaps, targets, visible, hard_keypoints)
            else:
                loss = finest_loss(heatmaps, targets[:, -1], visible, hard_keypoints).mean()
            loss = loss * share
            loss.backward()
            return loss.detach()

        learn, windows = graphed(learn, device), resident(store, device)
        log = log if log and first_process else lambda row: None
        for row in curve:
            log(row)
        saved, pause = time.monotonic(), SAVE_EVERY
        progress = {"total": total * size, "initial": done * size, "unit": "person", "disable": not first_process}
        bar = stack.enter_context(tqdm(desc=name, mininterval=2, smoothing=0.05, **progress))
        cores = SharedCores()
        for iteration, batch in prefetched(range(done + 1, total + 1), windows, settings, size, seed, pieces, device):
            factor = learning_rate_factor(iteration, total, recipe.warmup, recipe.warmup_factor)
            for group in optimizer.param_groups:
                group["lr"] = recipe.learning_rate * factor * group["range"]
            optimizer.zero_grad(set_to_none=device.type != "cuda")  # a CUDA graph adds to tensors that stay
            losses.append(torch.zeros((), device=device))
            for piece, people in zip(pieces, batch):
                people = [tensor.to(device, non_blocking=True) for tensor in people]
                losses[-1] += learn(*people, share=len(people[0]) / size, first=piece.start == 0)
            parallel.add_gradients(learner)
            optimizer.step()
            bar.update(size)
            if threads := cores.adjust():
                bar.write(f"other processes compute, too: going on with {threads} of {cores.most} threads", sys.stderr)

            log_now = iteration % max(1, total // LOGS) == 0 or iteration in validations or iteration == total
            stop = parallel.anywhere(terminated.is_set())
            if log_now or stop:
                losses = list(parallel.total(torch.stack(losses)))
                check_finite(losses, iteration, recipe, store, seed, factor)
            if log_now:
                row = {
                    "iteration": iteration,
                    "epoch": iteration * size / len(store),
                    "loss": torch.stack(losses).mean().item(),
                    "learning_rate": recipe.learning_rate * factor,
                }
                losses = []
                if iteration in validations and first_process:
                    row |= validate(slower(learner, model).eval())
                    set_learning(learner, still)
                bar.set_postfix(loss=f"{row['loss']:.1f}", refresh=False)
                curve.append(row)
                log(row)
                stop = parallel.anywhere(terminated.is_set())  # validation takes its time
            if states and (stop or iteration == total or (log_now and time.monotonic() - saved > pause)):
                start = time.monotonic()  # nothing random is saved: a batch depends on its number alone
                weights = {"learner": learner.state_dict(), "optimizer": optimizer.state_dict()}
                pending = torch.stack(losses) if losses else torch.zeros(0)
                rest = {"iteration": iteration, "curve": curve, "losses": pending, "validated_by": validated_by}
                states.save(iteration, weights | rest)
                saved = time.monotonic()
                pause = max(SAVE_EVERY, (saved - start) / SAVE_SHARE)
            if stop and iteration < total:
                where = f"stopped after iteration {iteration} of {total}"
                raise Stopped(f"{where}; `make`, `dvc repro` or the same command goes on from there")
        return slower(learner, model).eval(), curve


def set_learning(model, still):
    """Set `model` to training, but the modules `still` in it to evaluation, which leaves their batch norms alone."""
    model.train()
    for part in still:
        part.eval()


@contextlib.contextmanager
def explained_errors(train):
    """Turn torch's errors about too little memory and too small a batch into UserErrors that say what to change."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise UserError(
            f"the device has too little memory for {train.device_batch} people at a time: lower train.device_batch in "
            "params.yaml, or set train.activation_checkpointing to true"
        ) from None
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):
            raise
        raise UserError(
            "one person at a time is too few for this network, some of whose batch norms have one value per person: "
            "raise train.device_batch in params.yaml, or the recipe's batch_size"
        ) from None


def my_pieces(size, at_once):
    """Return the pieces of a batch of `size` people that this process computes: slices of at most `at_once` people,
    whose sizes differ by at most one, as do the numbers of pieces per process."""
    number = -(-size // at_once)
    pieces = [slice(size * piece // number, size * (piece + 1) // number) for piece in range(number)]
    if len(pieces) < parallel.world():
        raise UserError(
            f"batches of {size} people in pieces of {at_once} are {len(pieces)} pieces, too few for {parallel.world()} "
            "processes: lower train.device_batch in params.yaml, or start fewer"
        )
    return pieces[parallel.rank() :: parallel.world()]


def check_finite(losses, iteration, recipe, store, seed, factor):
    """Raise a UserError for the first of the losses up to `iteration` that is not a finite number; it names the
    people of that batch."""
    wrong = (~torch.stack(losses).isfinite()).nonzero()
    if len(wrong):
        number = iteration - len(losses) + 1 + wrong[0].item()
        rows = batch_rows(number, len(store), recipe.batch_size, seed)
        raise UserError(
            f"the loss is not finite (iteration {number}, learning rate {recipe.learning_rate * factor:.2g}): lower "
            "the recipe's learning_rate in params.yaml, or look at the people of that batch: "
            + ", ".join(str(store.people.ids[row]) for row in rows)
        )


def iterations(recipe, people):
    """Return how many batches a config.Recipe has for a number of people."""
    epochs = recipe.length.get("epochs")
    return max(1, round(epochs * people / recipe.batch_size)) if epochs else int(recipe.length["iterations"])


def learning_rate_factor(iteration, total, warmup, warmup_factor):
    """Return the learning rate over its peak (released RSN, make_lr_scheduler): linearly up, then linearly to zero."""
    if iteration < warmup:
        return warmup_factor + (1 - warmup_factor) * iteration / warmup
    return (total - iteration) / max(1, total - warmup)


def make_optimizer(model, recipe, weight_decay):
    """Return the released code's Adam; with recipe.output_scale above 1, the outputs learn faster.

    Heatmaps peak at 255, a batch norm starts at 1, and Adam moves a weight by about the learning rate per step: the
    last batch norms need thousands of steps to reach the targets' range. With an output_scale of s they move s times
    as fast; 1 is the released code. Starting them at the targets' scale does not work: the loss of the noisy first
    outputs drives them to zero.
    """
    learnt = [parameter for parameter in model.parameters() if parameter.requires_grad]
    norms = {parameter for norm in output_norms(model) for parameter in norm.parameters()}
    outputs = [parameter for parameter in learnt if parameter in norms]
    others = [parameter for parameter in learnt if parameter not in norms]
    groups = [{"params": others, "range": 1}, {"params": outputs, "range": recipe.output_scale}]
    return torch.optim.Adam(groups, lr=recipe.learning_rate, weight_decay=weight_decay, fused=True)


def output_norms(model):
    """Return the batch norm of every head that sets the range of its heatmaps: PRM's, which convolves them anew, or
    the head's own."""
    heads = [head for stage in model.stages for head in stage.heads]
    return [head.attention.features.bn if isinstance(head.attention, PRM) else head.heatmaps.bn for head in heads]
