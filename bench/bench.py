"""How fast everything is, beside the released code and beside what the hardware can do at most."""

import contextlib
import io
import json
import os
import platform
import re
import time
from copy import deepcopy
from dataclasses import asdict, dataclass
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
from released import ANNOTATIONS, PICTURES, Released
from tqdm import tqdm

from rsnlib.config import Architecture, load_params, project_root
from rsnlib.data.augment import reach
from rsnlib.data.images import normalise
from rsnlib.data.readers import annotations_path, read_people
from rsnlib.data.store import CropStore, write_crop_store
from rsnlib.data.targets import heatmap_targets
from rsnlib.demo.annotate import draw_people
from rsnlib.device import autocast, best_precision, keep_memory, one_thread
from rsnlib.errors import UserError
from rsnlib.fast import folded
from rsnlib.fast.folded import fuse
from rsnlib.fast.widths import MULTIPLES, widen
from rsnlib.files import read_json, write_json, write_results
from rsnlib.inference.decode import decode_heatmaps
from rsnlib.metrics import coco_ap, coco_results
from rsnlib.models.checkpoints import load_checkpoint
from rsnlib.models.zoo import ZOO, create_model
from rsnlib.report.cost import counted
from rsnlib.report.tables import write_table
from rsnlib.training.loop import make_batch, make_optimizer
from rsnlib.training.losses import heatmap_loss

INPUT = (256, 192)
KEYPOINTS = 17
DEEP = Architecture("residual_steps", (3, 4, 6, 3), stages=4)  # 4xRSN-50 as the released code builds it


@dataclass(frozen=True)
class Sizes:
    """How much is done.

    drawn: people drawn, for training data; batch: people in a training batch or forward, 32 as on a GPU of the
        released recipe; deep: in one of DEEP, as many (of 8, 16, 32) as 24 GiB hold, theirs too
    decoded: people at a time; scored: people evaluated, a tenth of them by pycocotools
    turns: how often each is timed, after once that does not count; calls: networks' calls each time
    matrix: rows of the matrices multiplied; copied: bytes
    """

    drawn: int
    batch: int
    deep: int
    decoded: int
    scored: int
    turns: int
    calls: int
    matrix: int
    copied: int


SIZES = {
    "cpu": Sizes(64, batch=32, deep=16, decoded=256, scored=50_000, turns=5, calls=1, matrix=2048, copied=2**28),
    "cuda": Sizes(64, batch=32, deep=32, decoded=1024, scored=50_000, turns=9, calls=10, matrix=8192, copied=2**31),
}


def bench(device, released=None, model="rsn18", folder=None, sizes=None):
    """Time everything and write it as bench.md, .csv, .tex and bench.json; returns the path of bench.md.

    device: "cpu" or "cuda"
    released: path of a checkout of the released code, to be timed in turns with ours; None: ours alone
    model: a name of `list_models`; beside the released code, one that it can build
    folder: where to; None: results/bench/<device>; sizes: None: SIZES of the device
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise UserError("torch sees no CUDA device here")
    if model not in ZOO:
        raise UserError(f"model {model!r} is unknown; known are {', '.join(ZOO)}")
    run = Bench(device, sizes or SIZES[device], Released(released) if released else None)
    with TemporaryDirectory() as drawn, tqdm(total=5, desc="bench", unit="part") as bar:
        for part in (
            lambda: run.data(Path(drawn, "people")),
            run.decoding,
            lambda: run.evaluation(Path(drawn, "people")),
            # last: afterwards all else is slower, theirs, too
            lambda: run.network(model, ZOO[model], run.sizes.batch),
            lambda: run.network("4xRSN-50, expansion 1", DEEP, run.sizes.deep, forward=False),
        ):
            part()
            bar.update()
    folder = Path(folder or project_root() / "results" / "bench" / device)
    write_table(run.table(), folder, "bench", run.caption())
    write_json(folder / "bench.json", run.about() | {"ceilings": run.ceilings, "rows": run.rows})
    return folder / "bench.md"


class Bench:
    """What is timed, row by row. device: "cpu" or "cuda"; sizes: Sizes; released: Released or None"""

    def __init__(self, device, sizes, released=None):
        self.device, self.sizes, self.released = torch.device(device), sizes, released
        keep_memory()  # as training and prediction do; theirs has the good of it, too
        self.settings = load_params().dataset("coco")
        self.random = np.random.default_rng(0)
        self.ceilings = self._ceilings()
        self.rows = []

    def seconds(self, *runs, calls=1):
        """How long each of `runs` takes, (runs, turns), called in turns."""
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
        """A row: people a second, the spread of the middle half of the turns, and the ratio to the released code.

        seconds, released: (turns,), of so many people
        more: GFLOP and MB for each person, memory in GiB; precision, for the ceiling
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
        """A person's crop and targets, on one core: ours from the crop store, theirs from the picture."""
        draw_people(folder, train=self.sizes.drawn, val=0)
        people = read_people(folder, "coco", "train2017")
        settings = self.settings
        path = folder / "train.safetensors"
        write_crop_store(path, people, INPUT, settings.enlarge, reach(settings.augmentation))
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
        """Forward for evaluation and training steps of one network, ours and theirs with the same weights."""
        theirs = self.released.network(architecture).to(self.device) if self.released else None
        model = create_model(asdict(architecture), KEYPOINTS, INPUT)
        if theirs:
            load_checkpoint(model, theirs.state_dict())
        model = model.to(self.device, memory_format=torch.channels_last)
        images = torch.from_numpy(self.random.standard_normal((people, 3, *INPUT), np.float32)).to(self.device)
        bgr, images = images.flip(1), images.contiguous(memory_format=torch.channels_last)
        if forward:
            self._forward(name, fuse(model.eval()), images, theirs, bgr)
        self._training(name, model, images, theirs, bgr)

    def _forward(self, name, model, images, theirs, bgr):
        people, precisions = len(images), self._precisions()
        pairs = [(deepcopy(model).to(dtype), images.to(dtype)) for dtype in (getattr(torch, p) for p in precisions)]
        runs = [torch.no_grad()(lambda pair=pair: pair[0](pair[1])) for pair in pairs]
        if theirs:
            theirs.eval()
            runs.append(torch.no_grad()(lambda: theirs(bgr)))
            _check(f"{name}, heatmaps", runs[precisions.index("float32")](), runs[-1]())
        seconds = self.seconds(*runs, calls=self.sizes.calls)
        for precision, run, own in zip(precisions, runs, seconds):
            what = f"forward, {name}, {precision}"
            self.add(what, people, own, *seconds[len(precisions) :], **self._cost(run, people, precision))

    def _training(self, name, model, images, theirs, bgr):
        people, schedule = len(images), self.settings.schedule
        targets = self._heatmaps(people).to(self.device)
        visible = torch.from_numpy(self.random.integers(0, 3, (people, KEYPOINTS))).to(self.device)
        precisions = self._precisions()
        multiples = {precision: MULTIPLES.get((self.device.type, precision), 1) for precision in precisions}
        models = {precision: widen(model.train(), multiples[precision]) for precision in precisions}
        models = {precision: each.to(memory_format=torch.channels_last) for precision, each in models.items()}
        optimizers = {p: make_optimizer(each, schedule, weight_decay=1e-5) for p, each in models.items()}

        def loss(precision):
            with autocast(self.device, precision):
                heads = models[precision].heads(images)
            return heatmap_loss(heads, targets, visible)

        runs = [lambda precision=precision: _step(optimizers[precision], loss(precision)) for precision in precisions]
        if theirs:
            their_optimizer = self.released.optimizer(theirs.train())
            valid = visible[..., None].float()
            # batch norms of few people multiply rounding
            _check(f"{name}, loss", loss("float32"), theirs(bgr, valid, targets)["total_loss"], tolerance=1e-2)
            runs.append(lambda: _step(their_optimizer, theirs(bgr, valid, targets)["total_loss"]))
        seconds = self.seconds(*runs, calls=self.sizes.calls)
        for precision, run, own in zip(precisions, runs, seconds):
            what = f"training step, {name}, {precision}"
            self.add(what, people, own, *seconds[len(precisions) :], **self._cost(run, people, precision))

    def _precisions(self):
        """The hardware's best, and float32."""
        return list(dict.fromkeys([best_precision(self.device), "float32"]))

    def _cost(self, run, people, precision):
        """What `run` costs, as `add` takes it; memory is that of what it makes."""
        before, folded.ONEDNN = folded.ONEDNN, False  # whose convolutions cannot be counted
        try:
            operations, moved, live = counted(run)
        finally:
            folded.ONEDNN = before
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
            run()
            live = torch.cuda.max_memory_allocated() - before
        each = {"GFLOP": operations / people / 1e9, "MB": moved / people / 1e6}
        return each | {"memory (GiB)": live / 2**30, "precision": precision}

    def decoding(self):
        """Heatmaps to keypoints: peaks of all widths in noise, a tenth of them noise alone."""
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
        """People scored, step by step: those drawn, again and again in new pictures, and predictions close to them."""
        people, few = self.sizes.scored, self.sizes.scored // 10
        drawn = read_json(annotations_path(folder, "coco", "train2017"))
        paths = {number: folder / f"{number}.json" for number in (people, few)}
        for number, path in paths.items():
            path.write_text(json.dumps(_repeated(drawn, number)))
        annotations = _repeated(drawn, people)["annotations"]
        keypoints = np.array([a["keypoints"] for a in annotations], float).reshape(people, KEYPOINTS, 3)[..., :2]
        keypoints += self.random.normal(0, 4, keypoints.shape)
        scores = self.random.random((people, KEYPOINTS))
        image_ids, made = np.array([a["image_id"] for a in annotations]), {}

        def make():
            made["results"] = coco_results(image_ids, keypoints, scores, np.ones(people))

        def theirs():
            with contextlib.redirect_stdout(io.StringIO()):
                truth = COCO(paths[few])
                evaluation = COCOeval(truth, truth.loadRes(made["few"]), "keypoints")
                evaluation.evaluate()
                evaluation.accumulate()
                evaluation.summarize()
            return evaluation.stats.tolist()

        make()
        made["few"] = deepcopy(made["results"][:few])
        if list(coco_ap(made["results"][:few], paths[few]).values()) != theirs():
            raise UserError("evaluation: pycocotools gives other figures")
        steps = {
            "results format": make,
            "JSON written": lambda: write_results(folder / "results.json", made["results"]),
            "judged": lambda: coco_ap(made["results"], paths[people]),
            "judged, of which annotations read": lambda: read_json(paths[people]),
        }
        seconds = dict(zip(steps, self.seconds(*steps.values())))
        for step, own in seconds.items():
            released = self.seconds(theirs)[0] * people / few if step == "judged" and self.released else None
            self.add(f"evaluation, {step}", people, own, released)
        everything = [seconds[step] for step in ("results format", "JSON written", "judged")]
        self.add("evaluation, all", people, np.sum(everything, axis=0))

    def table(self):
        columns = ("what", "people", "people/s", "spread (%)", "released people/s", "ratio", "GFLOP", "of matmul (%)")
        columns += ("MB", "of copy (%)", "memory (GiB)")
        return pd.DataFrame(self.rows, columns=columns).dropna(axis="columns", how="all")

    def caption(self):
        """What the table says of itself."""
        about, ceilings = self.about(), self.ceilings
        packages = ", ".join(f"{name} {number}" for name, number in about["packages"].items())
        products = " and ".join(f"{ceilings[name] / 1e12:.2f} TFLOP/s in {name}" for name in ceilings if name != "copy")
        live = "what the allocator held" if self.device.type == "cuda" else "the bytes of tensors that lived"
        sentences = [
            f"{about['hardware']}, {about['threads']} threads, Python {about['python']}, {packages}.",
            f"people: at a time; people/s: the median of {self.sizes.turns} turns; spread: their middle half over it.",
            "GFLOP and MB: for each person, counted, as if every step read and wrote by itself (decoding: the heatmaps",
            f"read once); beside them what was reached of a large matrix product ({products}) and of a large copy",
            f"({ceilings['copy'] / 1e9:.1f} GB/s). memory: {live} at most in a step, without weights and optimiser.",
        ]
        if self.released:
            sentences += [
                "released: the released code on the same input with the same weights, in turns with ours; ratio: how",
                "many times as fast ours is. It computes in float32, reads pictures where ours reads crop stores, and",
                "leaves judging to pycocotools (timed on a tenth of the people). Freed memory is kept for both.",
            ]
        return " ".join(sentences)

    def about(self):
        """The hardware and the software."""
        names = {"torch": "torch", "NumPy": "numpy", "OpenCV": "opencv-python-headless", "pycocotools": "pycocotools"}
        return {
            "hardware": _hardware(self.device),
            "threads": torch.get_num_threads(),
            "python": platform.python_version(),
            "packages": {name: version(package) for name, package in names.items()},
            "sizes": asdict(self.sizes),
        }

    def _ceilings(self):
        """Operations a second of a large matrix product in each precision, bytes a second of a large copy."""
        found, rows = {}, self.sizes.matrix
        before = torch.get_float32_matmul_precision()
        if self.device.type == "cuda":
            torch.set_float32_matmul_precision("high")  # TF32, as cuDNN's convolutions
        for precision in self._precisions():
            matrix = torch.ones(rows, rows, dtype=getattr(torch, precision), device=self.device)
            seconds = self.seconds(lambda matrix=matrix: matrix @ matrix, calls=self.sizes.calls)
            found[precision] = 2 * rows**3 / np.median(seconds)
        torch.set_float32_matmul_precision(before)
        source = torch.ones(self.sizes.copied, dtype=torch.uint8, device=self.device)
        target = torch.empty_like(source)
        seconds = self.seconds(lambda: target.copy_(source), calls=self.sizes.calls)
        return found | {"copy": 2 * self.sizes.copied / np.median(seconds)}

    def _heatmaps(self, people):
        """Target heatmaps (people, 5, K, h, w) of keypoints anywhere in the crop."""
        keypoints = self.random.uniform(0, [INPUT[1], INPUT[0]], (people, KEYPOINTS, 2))
        return heatmap_targets(keypoints, np.ones((people, KEYPOINTS)), INPUT, self.settings.kernels)

    def _wait(self):
        if self.device.type == "cuda":
            torch.cuda.synchronize()


def _step(optimizer, loss):
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()


def _check(what, ours, theirs, tolerance=1e-4):
    """Raise a UserError where our numbers are not the released code's; tolerance: in parts of the largest."""
    difference, largest = (ours - theirs).abs().max().item(), theirs.abs().max().item()
    if not difference <= tolerance * largest:
        raise UserError(
            f"{what}: the released code's are up to {difference:.2g} from ours (the largest is {largest:.2g})"
        )


def _repeated(content, people):
    """Annotations of so many people, those of `content` again and again in new pictures."""
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
    if device.type == "cuda":
        return torch.cuda.get_device_name()
    with contextlib.suppress(OSError):
        if found := re.search(r"model name\s*: (.+)", Path("/proc/cpuinfo").read_text()):
            return found[1]
    return platform.processor() or platform.machine()


@contextlib.contextmanager
def _one_core():
    """Everything that starts in it, on one core; theirs to choose where the system has no way to say so."""
    threads, cores = cv2.getNumThreads(), os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None
    cv2.setNumThreads(1)
    try:
        if cores:
            os.sched_setaffinity(0, {min(cores)})
        with one_thread():
            yield
    finally:
        cv2.setNumThreads(threads)
        if cores:
            os.sched_setaffinity(0, cores)
