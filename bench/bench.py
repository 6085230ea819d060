"""Speed of every step from a stored person to a score, beside the released code and the limits of the hardware."""

import contextlib
import json
import os
import platform
import re
import time
from copy import deepcopy
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory

import cv2
import numpy as np
import pandas as pd
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from tqdm import tqdm

from bench.counting import counted
from bench.released import ANNOTATIONS, PICTURES, Released
from rsnlib.config import load_params, project_root
from rsnlib.data.augment import reach
from rsnlib.data.batches import make_batch
from rsnlib.data.images import normalise
from rsnlib.data.readers import annotations_path, read_people
from rsnlib.data.store import CropStore, write_crop_store
from rsnlib.data.targets import heatmap_targets
from rsnlib.demo.annotate import draw_people
from rsnlib.device import autocast, choose_precision, default_device, keep_memory
from rsnlib.errors import UserError
from rsnlib.fast import faster, fuse, graphed
from rsnlib.files import read_json, write_json, write_results
from rsnlib.inference.decode import decode_heatmaps
from rsnlib.metrics import coco_ap, coco_results
from rsnlib.models.checkpoints import load_checkpoint
from rsnlib.models.zoo import ZOO, Architecture, create_model
from rsnlib.report.tables import write_table
from rsnlib.training.loop import make_optimizer, train
from rsnlib.training.losses import heatmap_loss

INPUT = (256, 192)
KEYPOINTS = 17
PLAIN = ", without rsnlib.fast"  # behind the precision, in a row's name
DEEP = Architecture("residual_steps", (3, 4, 6, 3), stages=4)  # 4xRSN-50 as the released code builds it
BINDS = hasattr(os, "sched_setaffinity")  # a process to a core
PACKAGES = {"torch": "torch", "NumPy": "numpy", "OpenCV": "opencv-python-headless", "pycocotools": "pycocotools"}


@dataclass(frozen=True)
class Sizes:
    """Amounts of work."""

    drawn: int  # people, for training data
    batch: int  # people in a training batch, 32 as on a GPU of the released recipe
    deep: int  # people in a batch of DEEP, the most of 8, 16 and 32 that fit 24 GiB in both codes
    forward: int  # people in a forward pass, as in evaluation
    decoded: int  # people at a time
    scored: int  # people, of whom pycocotools scores a tenth
    turns: int  # measurements of each step, after one that does not count
    calls: int  # of a network per measurement
    iterations: tuple  # of two trainings, a shorter and a longer one
    matrix: int  # rows of the matrices multiplied
    copied: int  # bytes


CPU, GPU = {"matrix": 2048, "copied": 2**28}, {"matrix": 8192, "copied": 2**31}
SIZES = {
    "cpu": Sizes(64, 32, 16, forward=32, decoded=256, scored=50_000, turns=5, calls=1, iterations=(1, 3), **CPU),
    "cuda": Sizes(64, 32, 32, forward=256, decoded=1024, scored=50_000, turns=9, calls=10, iterations=(50, 150), **GPU),
}


def bench(device=None, released=None, model="rsn18", output=None, sizes=None):
    """Time every step and write bench.md, .csv, .tex and bench.json; return the path of bench.md.

    device: "cpu" or "cuda"; None: the GPU if there is one
    released: path of a checkout of the released code, to be timed in turns with ours; None: ours alone
    model: a name of `list_models`; beside the released code, one that it can build
    output: the folder, None: results/bench/<device>; sizes: None: SIZES of the device
    """
    device = device or default_device().type
    if device == "cuda" and not torch.cuda.is_available():
        raise UserError("torch sees no CUDA device here")
    if model not in ZOO:
        raise UserError(f"model {model!r} is unknown; known are {', '.join(ZOO)}")
    run = Bench(device, sizes or SIZES[device], Released(released) if released else None)
    with TemporaryDirectory() as drawn:
        folder = Path(drawn, "people")
        parts = [
            (run.data, folder),
            (run.decoding,),
            (run.evaluation, folder),
            # last: afterwards all else is slower, the released code, too
            (run.network, model, ZOO[model], run.sizes.batch),
            (run.network, "4xRSN-50, expansion 1", DEEP, run.sizes.deep, False),
            (run.training, model, folder),
        ]
        to = Path(output or project_root() / "results" / "bench" / device)
        for part, *given in tqdm(parts, desc="bench", unit="part"):
            part(*given)
            write_table(run.table(), to, "bench", run.caption())  # what is measured stays, whatever comes
            write_json(to / "bench.json", run.about() | {"ceilings": run.ceilings, "rows": run.rows})
    return to / "bench.md"


class Bench:
    """Rows of measurements. device: "cpu" or "cuda"; sizes: Sizes; released: Released or None"""

    def __init__(self, device, sizes, released=None):
        self.device, self.sizes, self.released = torch.device(device), sizes, released
        keep_memory()  # as training and prediction do; the released code gains by it, too
        self.settings = load_params().dataset("coco")
        self.random = np.random.default_rng(0)
        self.precisions = list(dict.fromkeys([choose_precision(self.device, "auto"), "float32"]))
        self.ceilings = self._ceilings()
        self.rows = []

    def seconds(self, *runs, calls=1):
        """Return the seconds that each of `runs` takes, (runs, turns), called in turns."""
        found = np.zeros((len(runs), self.sizes.turns + 1))
        for turn in range(found.shape[1]):
            for row, run in enumerate(runs):
                self._wait()
                start = time.perf_counter()
                for _ in range(calls):
                    run()
                self._wait()
                found[row, turn] = (time.perf_counter() - start) / calls
        return found[:, 1:]

    def add(self, what, people, seconds, released=None, **more):
        """Add a row: people per second, the spread of the middle half of the turns, the ratio to the released code.

        seconds, released: (turns,), of so many people
        more: GFLOP and MB per person, memory in GiB; precision, for the ceiling
        """
        middle, (low, high) = np.median(seconds), np.quantile(seconds, [0.25, 0.75])
        row = {"what": what, "people": people, "people/s": people / middle, "spread (%)": 100 * (high - low) / middle}
        row["seconds"] = seconds.tolist()
        if released is not None:
            row["released people/s"] = people / np.median(released)
            row["ratio"] = np.median(released) / middle
            row["released seconds"] = released.tolist()
        if "GFLOP" in more:
            row["of matmul (%)"] = 1e11 * more["GFLOP"] * row["people/s"] / self.ceilings[more["precision"]]
        if "MB" in more:
            row["of copy (%)"] = 1e8 * more["MB"] * row["people/s"] / self.ceilings["copy"]
        self.rows.append(row | more)

    def data(self, folder):
        """Time a batch's crops and targets on one core: ours from the crop store, the released code's from pictures."""
        draw_people(folder, train=self.sizes.drawn, val=0)
        people, settings = read_people(folder, "coco", "train2017"), self.settings
        path = folder / "train.safetensors"
        write_crop_store(path, people, INPUT, settings.margin, reach(settings.augmentation))
        store, numbers, size = CropStore(path), count(1), min(self.sizes.batch, self.sizes.drawn)

        def ours():
            (batch,) = make_batch(next(numbers), store, settings, size, 0, [slice(None)])
            crops, keypoints, visible = (tensor.to(self.device) for tensor in batch)
            normalise(crops)
            heatmap_targets(keypoints, visible, INPUT, settings.kernels)

        runs = [ours]
        if self.released:
            (folder / PICTURES).parent.mkdir(parents=True, exist_ok=True)
            (folder / PICTURES).symlink_to(folder / "images" / "train2017")
            (folder / ANNOTATIONS).symlink_to(annotations_path(folder, "coco", "train2017"))
            dataset, starts = self.released.people(folder), count(0, size)

            def theirs():
                first = next(starts)
                rows = [dataset[row % len(dataset)] for row in range(first, first + size)]
                [torch.stack(column).to(self.device) for column in zip(*rows)]

            runs.append(theirs)
        with _one_core():
            self.add("data, one core", size, *self.seconds(*runs, calls=4))

    def network(self, name, architecture, people, forward=True):
        """Time forward passes and training steps of one network, ours and the released one with the same weights."""
        theirs = self.released.network(architecture).to(self.device) if self.released else None
        model = create_model(asdict(architecture), KEYPOINTS, INPUT)
        if theirs:
            load_checkpoint(model, theirs.state_dict())
        model = model.to(self.device, memory_format=torch.channels_last)
        if forward:
            self._forward(name, model.eval(), self._images(self.sizes.forward), theirs)
        self._training(name, model, self._images(people), theirs, plain=forward)

    def _images(self, people):
        images = torch.from_numpy(self.random.standard_normal((people, 3, *INPUT), np.float32)).to(self.device)
        return images.contiguous(memory_format=torch.channels_last)

    def _forward(self, name, model, images, theirs):
        def ours(precision):
            network = fuse(model).to(getattr(torch, precision))
            given = images.to(getattr(torch, precision))
            return torch.no_grad()(lambda: network(given))

        runs, released = {precision: ours(precision) for precision in self.precisions}, []
        if theirs:
            theirs.eval()
            bgr, few = images.flip(1).contiguous(), images[:2].double()
            released = [torch.no_grad()(lambda: theirs(bgr))]
            with torch.no_grad():  # exactly: rounding of a GPU's quickest convolutions is 1e-4 of the peak
                _check(
                    f"{name}, heatmaps",
                    fuse(deepcopy(model).double())(few),
                    deepcopy(theirs).double()(few.flip(1)),
                    1e-8,
                )
        self._compare(f"forward, {name}", len(images), runs, released)

    def _training(self, name, model, images, theirs, plain):
        """Time training steps; plain: also those of the network as it is, without rsnlib.fast."""
        people, recipe, bgr = len(images), self.settings.recipe, images.flip(1).contiguous()
        targets = self._heatmaps(people).to(self.device)
        visible = torch.from_numpy(self.random.integers(0, 3, (people, KEYPOINTS))).to(self.device)
        learners = {precision: faster(model, self.device, precision) for precision in self.precisions}
        if plain:
            learners |= {f"{precision}{PLAIN}": deepcopy(model).train() for precision in self.precisions}
        optimizers = {key: make_optimizer(learner, recipe, weight_decay=1e-5) for key, learner in learners.items()}

        def loss(key):
            with autocast(self.device, key.removesuffix(PLAIN)):
                heads = learners[key].heads(images)
            return heatmap_loss(heads, targets, visible)

        def step(key, captured=True):
            learn = graphed if captured and not key.endswith(PLAIN) else lambda function, _: function
            learn = learn(lambda: loss(key).backward(), self.device)

            def run():
                optimizers[key].zero_grad(set_to_none=self.device.type != "cuda")
                learn()
                optimizers[key].step()

            return run

        runs, released = {key: step(key) for key in learners}, []
        if theirs:
            their_optimizer, valid = self.released.optimizer(theirs.train()), visible[..., None].float()
            # batch norms of few people multiply rounding
            _check(f"{name}, loss", loss("float32"), theirs(bgr, valid, targets)["total_loss"], tolerance=1e-2)

            def their_step():
                their_optimizer.zero_grad()
                theirs(bgr, valid, targets)["total_loss"].backward()
                their_optimizer.step()

            released = [their_step]
        counted = {key: step(key, captured=False) for key in learners}  # a graph's replay dispatches no operation
        self._compare(f"training step, {name}", people, runs, released, counted)

    def training(self, name, folder):
        """Time the training loop, from the crop store to new weights: the longer of two trainings less the shorter."""
        store, (few, many), size = CropStore(folder / "train.safetensors"), self.sizes.iterations, self.sizes.batch
        found = []
        for _ in range(min(3, self.sizes.turns)):
            times = []
            for number in (few, many):
                recipe = replace(self.settings.recipe, batch_size=size, length={"iterations": number})
                model, start = create_model(name, KEYPOINTS, INPUT), time.perf_counter()
                train(model, store, self.settings, recipe, seed=0, train=load_params().train)
                times.append(time.perf_counter() - start)
            found.append((times[1] - times[0]) / (many - few))
        self.add(f"training with its data, {name}, {self.precisions[0]}", size, np.array(found))

    def _compare(self, what, people, runs, released, counted=None):
        """Add a row per run.

        runs: {precision: function}; released: [the released code's function], or []; counted: as runs, those whose
            operations are counted, where these differ
        """
        released = [_with_torchs_defaults(run) for run in released]
        seconds = self.seconds(*runs.values(), *released, calls=self.sizes.calls)
        for (key, run), own in zip((counted or runs).items(), seconds):
            cost = self._cost(run, people, key.removesuffix(PLAIN))
            self.add(f"{what}, {key}", people, own, *seconds[len(runs) :], **cost)

    def _cost(self, run, people, precision):
        """Return the cost of `run` as `add` takes it, with the memory of the tensors that it makes."""
        operations, moved, live = counted(run)
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
            run()
            live = torch.cuda.max_memory_allocated() - before
        each = {"GFLOP": operations / people / 1e9, "MB": moved / people / 1e6}
        return each | {"memory (GiB)": live / 2**30, "precision": precision}

    def decoding(self):
        """Time heatmaps to keypoints: peaks of all widths in noise, a tenth of them noise alone."""
        people = self.sizes.decoded
        kernels = self.random.integers(0, 5, people)
        heatmaps = self._heatmaps(people)[np.arange(people), kernels]
        heatmaps *= torch.from_numpy(self.random.random((people, KEYPOINTS, 1, 1)) > 0.1)
        heatmaps += torch.from_numpy(self.random.standard_normal(heatmaps.shape, np.float32))
        heatmaps = heatmaps.to(self.device)
        as_predicted = heatmaps.contiguous(memory_format=torch.channels_last)
        center, scale = self.random.uniform(100, 500, (people, 2)), self.random.uniform(50, 400, (people, 2))
        runs = [lambda: decode_heatmaps(as_predicted, center, scale, INPUT)]
        if self.released:
            runs.append(lambda: self.released.decode(heatmaps, center, scale))
            for what, own, other in zip(("keypoints", "scores"), runs[0](), runs[1]()):
                _check(f"decoding, {what}", *map(torch.from_numpy, (own, other.reshape(own.shape))))
        self.add("decoding", people, *self.seconds(*runs), MB=heatmaps[0].nbytes / 1e6)

    def evaluation(self, folder):
        """Time scoring: the people drawn, repeated in new pictures, and predictions close to them."""
        people, few = self.sizes.scored, self.sizes.scored // 10
        drawn = read_json(annotations_path(folder, "coco", "train2017"))
        paths = {number: folder / f"{number}.json" for number in (people, few)}
        for number, path in paths.items():
            path.write_text(json.dumps(_repeated(drawn, number)))
        annotations = pd.DataFrame(read_json(paths[people])["annotations"])
        keypoints = np.array(annotations["keypoints"].tolist(), float).reshape(people, KEYPOINTS, 3)[..., :2]
        keypoints += self.random.normal(0, 4, keypoints.shape)
        given = annotations["image_id"].to_numpy(), keypoints, self.random.random((people, KEYPOINTS)), np.ones(people)
        results = coco_results(*given)
        some = deepcopy(results[:few])  # pycocotools adds to them

        def everything():
            write_results(folder / "results.json", coco_results(*given))
            coco_ap(results, paths[people])

        def theirs():
            with contextlib.redirect_stdout(None):
                truth = COCO(paths[few])
                evaluation = COCOeval(truth, truth.loadRes(some), "keypoints")
                evaluation.evaluate()
                evaluation.accumulate()
                evaluation.summarize()
            return evaluation.stats.tolist()

        if list(coco_ap(results[:few], paths[few]).values()) != theirs():
            raise UserError("evaluation: pycocotools gives other metrics")
        judged, whole = self.seconds(lambda: coco_ap(results, paths[people]), everything)
        released = self.seconds(theirs)[0] * people / few if self.released else None
        self.add("evaluation, judged", people, judged, released)
        self.add("evaluation, results written and judged", people, whole)

    def table(self):
        """Return the rows as a data frame, without empty columns."""
        columns = ("what", "people", "people/s", "spread (%)", "released people/s", "ratio", "GFLOP", "of matmul (%)")
        columns += ("MB", "of copy (%)", "memory (GiB)")
        return pd.DataFrame(self.rows, columns=columns).dropna(axis="columns", how="all")

    def caption(self):
        """Describe hardware, software and columns in a paragraph."""
        about, ceilings = self.about(), self.ceilings
        packages = ", ".join(f"{name} {number}" for name, number in about["packages"].items())
        products = " and ".join(f"{ceilings[name] / 1e12:.2f} TFLOP/s in {name}" for name in ceilings if name != "copy")
        live = "the allocator's bytes" if self.device.type == "cuda" else "the bytes of living tensors"
        text = (
            f"{about['hardware']}, {about['threads']} threads, Python {about['python']}, {packages}. people: at a "
            f"time; people/s: the median of {self.sizes.turns} turns; spread: their middle half over the median. GFLOP "
            "and MB: per person, counted, as if every operation read and wrote by itself (decoding: the heatmaps read "
            f"once); beside them the share reached of a large matrix product ({products}) and of a large copy "
            f"({ceilings['copy'] / 1e9:.1f} GB/s). memory: {live}, the most in a step, without weights and optimiser."
        )
        if self.released:
            text += (
                " released: the released code on the same input with the same weights, in turns with ours; ratio: our "
                "speed over its. It computes in float32 (on a GPU in TF32, as torch does by "
                "itself), reads pictures where ours reads crop stores, and leaves "
                "judging to pycocotools (timed on a tenth of the people). Freed memory is kept for both."
            )
        return text

    def about(self):
        """Return the hardware and the software as JSON values."""
        return {
            "hardware": _hardware(self.device),
            "threads": torch.get_num_threads(),
            "python": platform.python_version(),
            "packages": {name: version(package) for name, package in PACKAGES.items()},
            "sizes": asdict(self.sizes),
        }

    def _ceilings(self):
        """Return operations per second of a large matrix product by precision, and bytes per second of a large copy."""
        found, rows = {}, self.sizes.matrix
        before = torch.get_float32_matmul_precision()
        if self.device.type == "cuda":
            torch.set_float32_matmul_precision("high")  # TF32, as cuDNN's convolutions
        for precision in self.precisions:
            matrix = torch.ones(rows, rows, dtype=getattr(torch, precision), device=self.device)
            seconds = self.seconds(lambda matrix=matrix: matrix @ matrix, calls=self.sizes.calls)
            found[precision] = 2 * rows**3 / np.median(seconds)
        torch.set_float32_matmul_precision(before)
        source = torch.ones(self.sizes.copied, dtype=torch.uint8, device=self.device)
        target = torch.empty_like(source)
        seconds = self.seconds(lambda: target.copy_(source), calls=self.sizes.calls)
        return found | {"copy": 2 * self.sizes.copied / np.median(seconds)}

    def _heatmaps(self, people):
        """Return target heatmaps (people, 5, K, h, w) of keypoints anywhere in the crop."""
        keypoints = self.random.uniform(0, [INPUT[1], INPUT[0]], (people, KEYPOINTS, 2))
        return heatmap_targets(keypoints, np.ones((people, KEYPOINTS)), INPUT, self.settings.kernels)

    def _wait(self):
        if self.device.type == "cuda":
            torch.cuda.synchronize()


def _with_torchs_defaults(run):
    """Return `run` with TF32 in convolutions, which torch would use and rsnlib turns off."""

    def quicker():
        torch.backends.cudnn.allow_tf32 = True
        try:
            return run()
        finally:
            torch.backends.cudnn.allow_tf32 = False

    return quicker


def _check(what, ours, theirs, tolerance=1e-4):
    """Raise a UserError if our numbers differ from the released code's by more than `tolerance` of the largest."""
    difference, largest = (ours - theirs).abs().max().item(), theirs.abs().max().item()
    if not difference <= tolerance * largest:
        raise UserError(
            f"{what}: the released code's are up to {difference:.2g} from ours (the largest is {largest:.2g})"
        )


def _repeated(content, people):
    """Return annotations of so many people: those of `content`, repeated in new pictures."""
    drawn, images = content["annotations"], content["images"]
    span = 1 + max(image["id"] for image in images)
    annotations = []
    for number in range(people):
        turn, row = divmod(number, len(drawn))
        annotations.append(drawn[row] | {"id": number + 1, "image_id": drawn[row]["image_id"] + turn * span})
    repeats = range(1 + people // len(drawn))
    images = [image | {"id": image["id"] + turn * span} for turn in repeats for image in images]
    return content | {"images": images, "annotations": annotations}


def _hardware(device):
    """Return the name of the GPU or of the processor."""
    if device.type == "cuda":
        return torch.cuda.get_device_name()
    with contextlib.suppress(OSError):
        if found := re.search(r"model name\s*: (.+)", Path("/proc/cpuinfo").read_text()):
            return found[1]
    return platform.processor() or platform.machine()


@contextlib.contextmanager
def _one_core():
    """Start everything inside on one core, or on one thread if the system cannot bind a process to a core."""
    threads, cores = (torch.get_num_threads(), cv2.getNumThreads()), os.sched_getaffinity(0) if BINDS else None
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    try:
        if BINDS:
            os.sched_setaffinity(0, {min(cores)})
        yield
    finally:
        torch.set_num_threads(threads[0])
        cv2.setNumThreads(threads[1])
        if BINDS:
            os.sched_setaffinity(0, cores)
