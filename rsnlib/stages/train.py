"""Stage `train`: crop stores to trained weights, their curve, and run.json."""

import contextlib
import sys
from dataclasses import asdict, replace
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch

import rsnlib
from rsnlib.config import load_params
from rsnlib.data.batches import make_batch
from rsnlib.data.images import normalise
from rsnlib.data.readers import ground_truth
from rsnlib.data.targets import heatmap_targets
from rsnlib.device import choose_precision, default_device
from rsnlib.errors import UserError
from rsnlib.files import fingerprint, project_root, write_json
from rsnlib.inference.predict import predict_store, skeleton_of
from rsnlib.metrics import protocol
from rsnlib.models.checkpoints import load_model, read_weights, save_model
from rsnlib.models.published import PUBLISHED, published_file
from rsnlib.models.zoo import create_model
from rsnlib.report.cost import cost
from rsnlib.stages.layout import data_path, run_name, state_path, tensorboard_path, training_path, weights_path
from rsnlib.stages.provenance import code_fingerprint, digests, machine, stage_name, timed
from rsnlib.stages.starts import digest
from rsnlib.stages.stores import load_store
from rsnlib.training import loop, parallel
from rsnlib.training.start import describe, take_weights

# code that trained weights depend on: a training is resumed only by the same
LEARNT_FROM = ("augment", "batches", "geometry", "images", "people", "store", "targets")
JUDGING_CODE = ("inference", "metrics")  # and that validation metrics depend on
WEIGHTS_CODE = ("device.py", "fast", "models", "training", *(f"data/{name}.py" for name in LEARNT_FROM))
PACKAGE = Path(rsnlib.__file__).parent


def train(dataset, model, seed):
    """Train one run, or resume it where it was interrupted; returns its curve as a data frame. Under torchrun, all
    processes together (parallel.start first).

    The validation accuracy on the way is measured without flip test and with COCO's blur, whatever `evaluate` does.
    """
    run = Run(dataset, model, seed)
    run.judge.check()
    first_process = parallel.rank() == 0
    writer = summary_writer() if run.shared.tensorboard else None
    curves = curve_log(training_path(dataset, model, seed)) if first_process else None
    network, taken = run.begin()
    if taken and first_process:
        print(describe(taken, run.skeleton))
    with contextlib.ExitStack() as stack:

        @lru_cache
        def live():
            """Return the log, begun with the first row, once this process has the run to itself: it clears earlier
            curves."""
            return stack.enter_context(curves())

        @lru_cache
        def board():
            return stack.enter_context(writer(tensorboard_path(dataset, model, seed), purge_step=0))

        def log(row):
            if curves:
                live().step = row["iteration"]
            for name, value in row.items():
                if name != "iteration":
                    if curves:
                        live().log_metric(name, value)
                    if writer:
                        board().add_scalar(name, value, row["iteration"])

        if first_process:
            resumed = any(state_path(run.identity).glob("*.pt"))
            stage = stage_name("train", {"dataset": dataset, "model": model, "seed": seed})
            stack.enter_context(timed(stage, run.identity, resumed))
        network, curve = run.train(network, log)
    if first_process:
        save_model(network, weights_path(dataset, model, seed), run.about())
        write_json(training_path(dataset, model, seed, "run.json"), run.report() | {"start": taken})
    return pd.DataFrame(curve)


class Run:
    """One training by params.yaml: what it is made from, and the marks by which its results are known.

    mark: fingerprint of parameters, data and the weights to start from; identity: of these and the code
    """

    def __init__(self, dataset, model, seed):
        params = load_params()
        self.dataset, self.model, self.seed = self.name = dataset, model, seed
        self.shared = params.train
        self.description = params.model(model)
        settings = params.dataset(dataset, model)
        if self.description.training.kernels != "own":
            settings = replace(settings, kernels=self.description.training.kernels)
        self.settings, self.judge = settings, protocol(*params.judged_by(dataset))
        self.store, self.validation = load_store(dataset, "train", model), load_store(dataset, "val", model)
        self.skeleton = self.store.people.skeleton
        val = settings.splits["val"]
        self.truth = ground_truth(data_path(dataset), settings.reader, val, self.validation.people)
        init = self.description.training.init
        by_run = init is not None and params.trains(init)
        self.first = Run(dataset, init, seed) if by_run else None  # the run to start from
        learns_by = {name: value for name, value in asdict(self.shared).items() if name != "tensorboard"}
        self.mark = fingerprint(
            settings.input_size,
            settings.kernels,
            asdict(settings.augmentation),
            asdict(settings.recipe),
            asdict(self.description),
            learns_by | {"precision": choose_precision(default_device(), self.shared.precision)},
            seed,
            self.store.fingerprint,
            self.first.identity if self.first else init and digest(init),
            torch.__version__,
        )
        # checkpoints of a CPU and of a GPU, whose networks may be wider, are not each other's
        self.identity = fingerprint(self.mark, default_device().type, digests(PACKAGE, WEIGHTS_CODE))

    def begin(self):
        """Return the network before its training and, if it starts from weights, what it took of them: the report of
        `take_weights`, and their "source"."""
        architecture, init = self.description.architecture, self.description.training.init
        torch.manual_seed(self.seed)
        network = create_model(architecture, len(self.skeleton), self.settings.input_size)
        if init is None:
            return network, None
        weights, known = self.first.trained() if self.first else read_start(init)
        weights = parallel.from_first(weights)  # after a training, the others lack running statistics
        try:
            taken = take_weights(network, weights, self.skeleton.keypoints, known)
        except UserError as error:
            raise UserError(f"{init} (`init` of {self.model} in params.yaml): {error}") from None
        return network, {"source": init, **taken}

    def trained(self):
        """Return the weights after the training and the names of their keypoints: from the file of the weights, from
        the checkpoints, or trained now."""
        path = weights_path(*self.name)
        if not path.is_file() or (network := load_model(path)).about.get("training") != self.identity:
            if parallel.rank() == 0:
                print(f"{run_name(self.model, self.seed)} on {self.dataset} comes first", file=sys.stderr, flush=True)
            network, _ = self.train(self.begin()[0])
        return network.cpu().state_dict(), self.skeleton.keypoints

    def train(self, network, log=None):
        """Train a network of `begin`, or resume where its training was interrupted; return it and its curve."""
        how = self.description.training
        return loop.train(
            network,
            self.store,
            self.settings,
            self.settings.recipe,
            seed=self.seed,
            train=self.shared,
            intermediate_supervision=how.intermediate_supervision,
            hard_keypoints=how.mined_keypoints,
            frozen=how.frozen,
            validate=self.validate,
            validated_by=fingerprint(digests(PACKAGE, JUDGING_CODE), self.skeleton.sigmas),
            state=state_path(self.identity),
            log=log,
            name=run_name(self.model, self.seed),
        )

    def validate(self, network):
        """Return the accuracy on the validation people, {metric: number}."""
        (keypoints,), (scores,) = predict_store(network, self.validation, [(False, "quarter")])
        metrics = self.judge.accuracy(self.validation.people, keypoints, scores, self.truth)
        return {f"val_{self.judge.metric}": metrics[self.judge.metric]}

    def batch(self, number, people=8):
        """Return the first people of a batch as heads learn from them: crops (N, H, W, 3), keypoints (N, K, 2), visible
        (N, K) and the target of every head, (N, stages, 4, K, h, w)."""
        size = self.settings.recipe.batch_size
        (cut,) = make_batch(number, self.store, self.settings, size, self.seed, [slice(people)])
        targets = heatmap_targets(*cut[1:], self.store.input_size, self.settings.kernels)
        last = self.description.architecture.stages - 1
        return *cut, torch.stack([targets[:, :4]] * last + [targets[:, 1:]], dim=1)

    def errors_by_head(self, crops, visible, targets):
        """Return the squared error of each head of the trained network over that of an empty heatmap, (stages, 4), on
        the labelled keypoints of people of `batch`."""
        with torch.no_grad():
            heads = load_model(weights_path(*self.name)).heads(normalise(crops))
        labelled = (visible > 0)[:, None, None, :, None, None]
        errors, empty = ((((each - targets) * labelled).square().sum(dim=(0, 3, 4, 5))) for each in (heads, 0))
        return (errors / empty).numpy()

    def about(self):
        """Return what the file of the weights says of them."""
        return {
            "model": self.model,
            "dataset": self.dataset,
            "skeleton": self.skeleton.description,
            "seed": self.seed,
            "params": self.mark,
            "training": self.identity,
            "margin": self.settings.margin,
            "categories": np.unique(self.store.people.categories).tolist(),
        }

    def report(self):
        """Return what tables want to know of the training."""
        size = self.settings.input_size
        parameters, multiply_adds = cost(self.description.architecture, len(self.skeleton), size)
        return {
            "model": self.model,
            "dataset": self.dataset,
            "seed": self.seed,
            "skeleton": self.skeleton.name,
            "input": "x".join(map(str, size)),
            "parameters": parameters,
            "multiply_adds": multiply_adds,
            "people": {"train": len(self.store), "val": len(self.validation)},
            "iterations": loop.iterations(self.settings.recipe, len(self.store)),
            "batch_size": self.settings.recipe.batch_size,
            "machine": machine(),
            "fingerprints": {
                "parameters": self.mark,
                "data": fingerprint(self.store.fingerprint, self.validation.fingerprint),
                "code": code_fingerprint("prepare", "train"),
            },
        }


def curve_log(folder):
    """Return a function that begins dvclive's log of a training curve in `folder`. Where the package is missing, as on
    a machine that only trains, print what is not written, and return None."""
    try:
        from dvclive import Live
    except ImportError:
        print(
            f"{folder}: no curves are written, which figures read and DVC expects, as dvclive is missing; after `pip "
            "install dvclive` the same command writes them and does not train anew",
            file=sys.stderr,
            flush=True,
        )
        return None
    return partial(Live, str(folder), save_dvc_exp=False, dvcyaml=None, report=None, monitor_system=False)


def summary_writer():
    """Return torch's class of TensorBoard's logs; a UserError says how to get the package that it needs."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        message = "params.yaml: train.tensorboard needs a package: `pip install tensorboard`, or set it to false"
        raise UserError(message) from None
    return SummaryWriter


def read_start(init):
    """Return the weights of a file below the project or, by their name, published ones: {name: tensor}, and the names
    of their keypoints, None where nothing is known of these. A file may hold a part of a network."""
    path = published_file(init) if init in PUBLISHED else project_root() / init
    try:
        network = load_model(path)
    except UserError:
        return read_weights(path), None
    try:
        return network.state_dict(), skeleton_of(network).keypoints
    except UserError:
        return network.state_dict(), None
