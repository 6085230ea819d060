"""Stage `train`: crop stores to trained weights and their curve."""

import contextlib
import platform
from dataclasses import asdict
from functools import lru_cache

import numpy as np
import pandas as pd
import torch
from dvclive import Live

from rsnlib.config import load_params, project_root, run_name
from rsnlib.device import choose_precision, default_device
from rsnlib.errors import UserError
from rsnlib.files import fingerprint
from rsnlib.inference.predict import predict_store
from rsnlib.metrics import accuracy, headline
from rsnlib.models.checkpoints import save_model
from rsnlib.models.zoo import create_model
from rsnlib.stages.layout import PACKAGE, _digests, crops_path, load_store, results_path, weights_path
from rsnlib.training import parallel
from rsnlib.training.loop import train as train_model

TRAINING_CODE = ("data", "fast", "models", "training")  # of PACKAGE


def train(dataset, model, seed):
    """Train one run, or go on with it where it was interrupted; returns its curve as a data frame. Under torchrun, all
    processes together (parallel.start first)."""
    params = load_params()
    settings, description = params.dataset(dataset, model), params.model(model)
    store, validation = load_store(dataset, "train", model), load_store(dataset, "val", model)
    skeleton = store.people.skeleton
    if params.skeleton(settings) not in (None, skeleton):
        again = f"dvc repro --force --single-item prepare@{dataset}"
        raise UserError(f"{crops_path(dataset, 'train')}: made for another skeleton; make it again: `{again}`")

    # everything that a run's weights depend on, and the code
    shared = asdict(params.train) | {"precision": choose_precision(default_device(), params.train.precision)}
    identity = [asdict(settings), asdict(description), shared, seed, store.fingerprint]
    mark = fingerprint(*identity, torch.__version__)
    figure = headline(settings.reader)

    def validate(network):
        keypoints, scores = predict_store(network, validation, flip_test=False, blur=settings.blur)
        return {f"val_{figure}": accuracy(settings, project_root(), validation.people, keypoints, scores)[figure]}

    torch.manual_seed(seed)
    network = create_model(description.architecture, len(skeleton), settings.input_size)
    folder = results_path(dataset, "train", run_name(model, seed))
    with contextlib.ExitStack() as stack:

        @lru_cache
        def live():
            """Begun with the first row, once this process has the run to itself: it takes earlier curves away."""
            options = {"save_dvc_exp": False, "dvcyaml": None, "report": None, "monitor_system": False}
            return stack.enter_context(Live(str(folder), **options))

        def log(row):
            live().step = row["iteration"]
            for name, value in row.items():
                if name != "iteration":
                    live().log_metric(name, value)

        network, curve = train_model(
            network,
            store,
            settings,
            settings.schedule,
            seed=seed,
            train=params.train,
            intermediate_supervision=description.intermediate_supervision,
            hard_keypoints=description.hard_keypoints,
            validate=validate,
            state=project_root() / "work" / "state" / fingerprint(mark, _digests(PACKAGE, TRAINING_CODE)),
            log=log,
        )
    about = {"model": model, "dataset": dataset, "skeleton": skeleton.description, "seed": seed, "params": mark}
    about |= {"enlarge": settings.enlarge, "blur": settings.blur, "machine": machine()}
    about["categories"] = np.unique(store.people.categories).tolist()
    if parallel.rank() == 0:
        save_model(network, weights_path(dataset, model, seed), about)
    return pd.DataFrame(curve)


def machine():
    """The hardware and software of this machine in a few words."""
    threads = torch.get_num_threads()
    cpu = f"{threads} CPU thread" + ("s" if threads > 1 else "")
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else cpu
    return f"{device}, torch {torch.__version__.split('+')[0]}, Python {platform.python_version()}"
