"""The first run on a GPU, in a few minutes: right? repeatable? how fast?

    python -m bench.first_run [--released CHECKOUT] [-o FOLDER]

It needs no data and no network, and pycocotools, tabulate and jinja2 beside the packages that docs/experiments.md lists
for a machine that only trains. Every part is by itself: of one that fails the error is printed, and the next begins.
Everything printed also goes to first_run.txt, the bench's tables beside it. On a machine without a GPU it rehearses all
of this on the CPU.
"""

import argparse
import copy
import sys
import time
import traceback
from dataclasses import replace
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from torch import nn

from bench.bench import INPUT, KEYPOINTS, SIZES, bench
from rsnlib.config import load_params
from rsnlib.data.augment import reach
from rsnlib.data.images import normalise
from rsnlib.data.readers import read_people
from rsnlib.data.resident import resident
from rsnlib.data.store import CropStore, write_crop_store
from rsnlib.data.targets import heatmap_targets
from rsnlib.demo.annotate import draw_people
from rsnlib.device import autocast, choose_precision, default_device
from rsnlib.fast import faster, slower
from rsnlib.fast.fused_norm import FusedBatchNorm
from rsnlib.inference.predict import predict_store
from rsnlib.models.zoo import create_model
from rsnlib.training.loop import train
from rsnlib.training.losses import heatmap_loss

SHORT = 400  # iterations of the training on drawn people
DRAWN = 1000  # people


def main():
    """Run every part."""
    parser = argparse.ArgumentParser(prog="python -m bench.first_run", description=__doc__.splitlines()[0])
    parser.add_argument("--released", metavar="FOLDER", help="a checkout of the released RSN code, to compare with")
    parser.add_argument("-o", "--output", default="results/bench/first_run", metavar="FOLDER")
    given = parser.parse_args()
    first_run(given.output, given.released)


def first_run(output, released=None, input_size=INPUT, model="rsn18", sizes=None, drawn=DRAWN, short=SHORT):
    """Run every part; write first_run.txt and the bench's tables into the folder `output`. Returns the text.

    sizes: of the bench, None: its own; drawn, short: people and iterations of a training on drawn people
    """
    device, folder, lines = default_device(), Path(output), []
    folder.mkdir(parents=True, exist_ok=True)

    def say(text):
        print(text, flush=True)
        lines.append(text)
        (folder / "first_run.txt").write_text("\n".join(lines) + "\n")

    name = torch.cuda.get_device_name() if device.type == "cuda" else "the CPU: a rehearsal"
    say(f"torch {torch.__version__}, Python {sys.version.split()[0]}, on {name}")
    sizes = sizes or replace(SIZES[device.type], turns=5, calls=3, scored=2000)
    parts = {
        "numbers beside the CPU's in float32": lambda: beside_the_cpu(device, model, input_size, say),
        "fused batch norms beside torch's, in training": lambda: norms(device, say),
        "a training on drawn people, twice from one seed": lambda: twice(model, input_size, drawn, short, say),
        "bench": lambda: say(bench(device.type, released, model, folder, sizes).read_text()),
    }
    for title, part in parts.items():
        start = time.perf_counter()
        say(f"\n{title}")
        try:
            part()
        except Exception:  # anything may go wrong on a new machine
            say(traceback.format_exc())
        say(f"({time.perf_counter() - start:.0f} s)")
    return "\n".join(lines)


def beside_the_cpu(device, name, input_size, say):
    """Say how far heads, loss and gradients are from the CPU's, as norms, for batch norms as in evaluation: as in
    training, an untrained network turns any rounding into another gradient."""
    random = np.random.default_rng(0)
    crops = torch.from_numpy(random.integers(0, 256, (4, *input_size, 3), np.uint8))
    keypoints = torch.from_numpy(random.uniform(0, input_size[::-1], (4, KEYPOINTS, 2))).float()
    visible = torch.from_numpy(random.integers(0, 3, (4, KEYPOINTS)))
    torch.manual_seed(0)
    model, right = create_model(name, KEYPOINTS, input_size), None
    for at, precision in ((torch.device("cpu"), "float32"), (device, "float32"), (device, "bfloat16")):
        learner = faster(copy.deepcopy(model).to(at), at, precision).eval()
        images, targets = normalise(crops.to(at)), heatmap_targets(keypoints.to(at), visible.to(at), input_size)
        with autocast(at, precision):
            heads = learner.heads(images)
        loss = heatmap_loss(heads, targets, visible.to(at))
        loss.backward()
        for parameter in learner.parameters():
            parameter.data = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        gradients = slower(learner, copy.deepcopy(model)).state_dict()
        flat = torch.cat([values.flatten() for key, values in gradients.items() if key.endswith("weight")])
        found = [tensor.detach().double().cpu() for tensor in (heads, loss, flat)]
        right = right or found
        apart = [((ours - exact).norm() / exact.norm()).item() for ours, exact in zip(found, right)]
        say(f"{at.type} {precision}: heads {apart[0]:.1e}, loss {apart[1]:.1e}, gradients {apart[2]:.1e} apart")


def norms(device, say):
    """Say how far output, gradients and running statistics of FusedBatchNorm are from those of torch's batch norm in
    float64: the largest relative distance over numbers of channels and modes."""
    for dtype in (torch.float32, torch.bfloat16):
        apart = {}
        for channels, (relu, added) in product((17, 26, 64), ((False, False), (True, False), (True, True))):
            torch.manual_seed(channels)
            x, addend, weights = (torch.randn(8, channels, 31, 17, device=device).to(dtype) for _ in range(3))
            outcomes = []
            for norm, kind in ((FusedBatchNorm(channels), dtype), (nn.BatchNorm2d(channels), torch.float64)):
                norm = norm.to(device, torch.float32 if kind == dtype else kind).train()
                given = [each.to(kind, memory_format=torch.channels_last).requires_grad_() for each in (x, addend)]
                if isinstance(norm, FusedBatchNorm):
                    y = norm(given[0], given[1] if added else None, relu)
                else:
                    y = norm(given[0]) + (given[1] if added else 0)
                    y = y.relu() if relu else y
                (y * weights.to(kind)).sum().backward()
                gradients = given[0].grad, norm.weight.grad, norm.bias.grad
                outcomes.append([y, *gradients, norm.running_mean, norm.running_var])
            for what, ours, exact in zip(("output", "x", "weight", "bias", "mean", "variance"), *outcomes):
                distance = (ours.double() - exact).norm() / exact.norm()
                apart[what] = max(apart.get(what, 0), distance.item())
        say(f"{dtype}: " + ", ".join(f"{what} {distance:.1e}" for what, distance in apart.items()))


def twice(name, input_size, drawn, short, say):
    """Train on drawn people twice from one seed; say the accuracy, the speed and whether the weights are the same."""
    params, device = load_params(), default_device()
    settings = replace(params.dataset("demo"), input_size=input_size)
    recipe = replace(settings.recipe, batch_size=min(32, drawn), length={"iterations": short})
    shared, stores = replace(params.train, validations=1), {}
    with TemporaryDirectory() as folder:
        draw_people(Path(folder, "drawn"), train=drawn, val=max(1, drawn // 5))
        for split, far in (("train2017", reach(settings.augmentation)), ("val2017", None)):
            people, path = read_people(Path(folder, "drawn"), "coco", split), Path(folder, f"{split}.safetensors")
            write_crop_store(path, people, input_size, settings.margin, far)
            stores[split] = CropStore(path)
        say(f"{type(resident(stores['train2017'], device)).__name__}, {choose_precision(device, shared.precision)}")
        weights = []
        for _ in range(2):
            torch.manual_seed(0)
            start = time.perf_counter()
            model, curve = train(
                create_model(name, KEYPOINTS, input_size), stores["train2017"], settings, recipe, seed=0, train=shared
            )
            people = recipe.batch_size * short / (time.perf_counter() - start)
            (keypoints,), _ = predict_store(model, stores["val2017"])
            true = stores["val2017"].people
            near = np.linalg.norm(keypoints - true.keypoints, axis=2) < 0.05 * true.boxes[:, 2:].max(1)[:, None]
            say(
                f"loss {curve[0]['loss']:.1f} to {curve[-1]['loss']:.1f}, {near[true.visible > 0].mean():.1%} of the "
                f"keypoints within 5 % of the box, {people:.0f} people/s, starting counted"
            )
            weights.append(torch.cat([parameter.detach().flatten() for parameter in model.parameters()]))
        say(f"the same weights: {weights[0].equal(weights[1])}")


if __name__ == "__main__":
    main()
