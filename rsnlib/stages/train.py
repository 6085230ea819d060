"""Stage `train`: crop stores to trained weights, their curve, and run.json."""

import contextlib
from dataclasses import asdict, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from dvclive import Live

import rsnlib
from rsnlib.config import load_params
from rsnlib.data.readers import ground_truth
from rsnlib.device import choose_precision, default_device
from rsnlib.errors import UserError
from rsnlib.files import fingerprint, write_json
from rsnlib.inference.predict import predict_store
from rsnlib.metrics import protocol
from rsnlib.models.checkpoints import save_model
from rsnlib.models.zoo import create_model
from rsnlib.report.cost import cost
from rsnlib.stages.layout import data_path, state_path, tensorboard_path, training_path, weights_path
from rsnlib.stages.provenance import code_fingerprint, digests, machine
from rsnlib.stages.stores import load_store
from rsnlib.training import loop, parallel

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
    params = load_params()
    settings, description = params.dataset(dataset, model), params.model(model)
    store, validation = load_store(dataset, "train", model), load_store(dataset, "val", model)
    if description.training.kernels != "own":
        settings = replace(settings, kernels=description.training.kernels)
    skeleton = store.people.skeleton
    writer = summary_writer() if params.train.tensorboard else None
    learns_by = {name: value for name, value in asdict(params.train).items() if name != "tensorboard"}

    mark = fingerprint(
        settings.input_size,
        settings.kernels,
        asdict(settings.augmentation),
        asdict(settings.recipe),
        asdict(description),
        learns_by | {"precision": choose_precision(default_device(), params.train.precision)},
        seed,
        store.fingerprint,
        torch.__version__,
    )
    judge = protocol(*params.judged_by(dataset))
    truth = ground_truth(data_path(dataset), settings.reader, settings.splits["val"], validation.people)

    def validate(network):
        (keypoints,), (scores,) = predict_store(network, validation, [(False, "quarter")])
        metrics = judge.accuracy(validation.people, keypoints, scores, truth)
        return {f"val_{judge.metric}": metrics[judge.metric]}

    torch.manual_seed(seed)
    network = create_model(description.architecture, len(skeleton), settings.input_size)
    parameters, multiply_adds = cost(description.architecture, len(skeleton), settings.input_size)
    with contextlib.ExitStack() as stack:

        @lru_cache
        def live():
            """Return the log, begun with the first row, once this process has the run to itself: it clears earlier
            curves."""
            options = {"save_dvc_exp": False, "dvcyaml": None, "report": None, "monitor_system": False}
            return stack.enter_context(Live(str(training_path(dataset, model, seed)), **options))

        @lru_cache
        def board():
            return stack.enter_context(writer(tensorboard_path(dataset, model, seed), purge_step=0))

        def log(row):
            live().step = row["iteration"]
            for name, value in row.items():
                if name != "iteration":
                    live().log_metric(name, value)
                    if writer:
                        board().add_scalar(name, value, row["iteration"])

        network, curve = loop.train(
            network,
            store,
            settings,
            settings.recipe,
            seed=seed,
            train=params.train,
            intermediate_supervision=description.training.intermediate_supervision,
            hard_keypoints=description.training.mined_keypoints,
            validate=validate,
            validated_by=fingerprint(digests(PACKAGE, JUDGING_CODE), skeleton.sigmas),
            state=state_path(fingerprint(mark, digests(PACKAGE, WEIGHTS_CODE))),
            log=log,
        )
    if parallel.rank() == 0:
        about = {"model": model, "dataset": dataset, "skeleton": skeleton.description, "seed": seed, "params": mark}
        about |= {"margin": settings.margin, "machine": machine()}
        about["categories"] = np.unique(store.people.categories).tolist()
        save_model(network, weights_path(dataset, model, seed), about)
        report = {
            "model": model,
            "dataset": dataset,
            "seed": seed,
            "skeleton": skeleton.name,
            "input": "x".join(map(str, settings.input_size)),
            "parameters": parameters,
            "multiply_adds": multiply_adds,
            "people": {"train": len(store), "val": len(validation)},
            "iterations": loop.iterations(settings.recipe, len(store)),
            "batch_size": settings.recipe.batch_size,
            "machine": machine(),
            "fingerprints": {
                "parameters": mark,
                "data": fingerprint(store.fingerprint, validation.fingerprint),
                "code": code_fingerprint("prepare", "train"),
            },
        }
        write_json(training_path(dataset, model, seed, "run.json"), report)
    return pd.DataFrame(curve)


def summary_writer():
    """Return torch's class of TensorBoard's logs; a UserError says how to get the package that it needs."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        message = "params.yaml: train.tensorboard needs a package: `pip install tensorboard`, or set it to false"
        raise UserError(message) from None
    return SummaryWriter
