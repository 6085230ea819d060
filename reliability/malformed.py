# ruff: noqa: E501, tables of texts
"""Malformed files of every kind, each handled or refused with the project's own error that names the place.

Every input follows from the seed and its number, so that a finding can be repeated:
`Inputs(folder, seed).write(number)`.
"""

import io
import json
import os
import pickle
import random
import resource
import shutil
import signal
import struct
import traceback
import warnings
import zipfile
import zlib
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import safetensors.torch
import torch
from PIL import Image
from ruamel.yaml import YAML
from scipy.io import savemat

from reliability.soak import ROOT, started
from rsnlib.apps.submission import write_submission
from rsnlib.apps.videos import Video
from rsnlib.config import load_params
from rsnlib.data.images import read_picture
from rsnlib.data.readers import ground_truth, read_detections, read_people
from rsnlib.data.readers.detections import Detections
from rsnlib.data.readers.mpii import read_test_images
from rsnlib.data.skeletons import COCO, Skeleton
from rsnlib.data.store import CropStore, write_crop_store
from rsnlib.errors import UserError
from rsnlib.inference.predict import categories_of, skeleton_of
from rsnlib.metrics import coco_ap, coco_results, protocol
from rsnlib.models.attention import make_attention
from rsnlib.models.checkpoints import load_checkpoint, load_model, save_model
from rsnlib.models.zoo import create_model
from rsnlib.training.states import States

SECONDS = 60  # an input that takes longer hangs
MEMORY = 2**30  # bytes that an input may take
AT_ONCE = 200  # inputs per process

NUMBERS = [0, -1, 1, 2, 0.5, -0.0, 1e308, -1e308, 1e-320, float("nan"), float("inf"), -float("inf")]
NUMBERS += [2**31, 2**63, 10**400]
TEXTS = ["", "\x00", "a\x1b[31m\r\n", "\ud800", "../../../etc/passwd", "/etc/passwd", ".", "<script>", "a" * 5000, "5"]
TEXTS += ["é" * 300]
VALUES = [*NUMBERS, *TEXTS, None, True, False, [], {}, [[]], [None], {"": None}, [1, "2", None], {"id": 1}]
VALUES += [list(range(51))]
ANNOTATIONS = "set/annotations/person_keypoints_val.json"
MOUSE = Skeleton("mouse", ("nose", "ear", "tail"), (), ((0, 1),), (0,), (0.1, 0.1, 0.2))
PICTURE_KINDS = ["png", "jpg", "gif", "bmp", "tiff", "webp", "ppm"]


def nested(depth, kind=list):
    """Return JSON text of lists or objects in one another."""
    return "[" * depth + "]" * depth if kind is list else '{"a":' * depth + "1" + "}" * depth


def places(value, path=()):
    """Yield the path of every value inside `value`, itself first."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from places(inner, (*path, key))


def changed(value, chance):
    """Return a copy of a JSON value with one to three faults."""
    value = deepcopy(value)
    for _ in range(chance.randint(1, 3)):
        path = chance.choice(list(places(value)))
        if not path:
            if chance.random() < 0.1:
                return chance.choice(VALUES)
            continue
        *above, last = path
        parent = value
        for key in above:
            parent = parent[key]
        kind = chance.choice(["replace", "replace", "replace", "delete", "repeat", "wrap", "rename", "scale"])
        if kind == "delete":
            del parent[last]
        elif kind == "repeat" and isinstance(parent, list):
            parent.extend([parent[last]] * chance.choice([1, 2, 100]))
        elif kind == "wrap":
            parent[last] = chance.choice([[parent[last]], {"value": parent[last]}, str(parent[last])])
        elif kind == "rename" and isinstance(parent, dict):
            parent[chance.choice(["", "Id", "colour", "\x00", str(last) + " "])] = parent.pop(last)
        elif kind == "scale" and isinstance(parent[last], int | float):
            parent[last] *= chance.choice([-1, 0, 1e3, 1e9, 10**30, 0.1])
        else:
            parent[last] = deepcopy(chance.choice(VALUES))
    return value


def bytes_changed(data, chance):
    """Return a copy of bytes with one to three faults."""
    data = bytearray(data)
    for _ in range(chance.randint(1, 3)):
        place = chance.randrange(len(data) + 1)
        if chance.random() < 0.5:  # the header says what follows
            place = min(place, chance.randrange(256))
        kind = chance.choice(["cut", "flip", "flip", "insert", "delete", "number", "number", "swap", "zero", "header"])
        if kind == "cut":
            del data[place:]
        elif kind == "flip" and place < len(data):
            data[place] ^= 1 << chance.randrange(8)
        elif kind == "insert":
            data[place:place] = chance.randbytes(chance.choice([1, 4, 100]))
        elif kind == "delete":
            del data[place : place + chance.choice([1, 4, 100])]
        elif kind == "number":
            absurd = chance.choice([0, 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0x10000, 0xFFFFFFFFFFFF, 2**64 - 1])
            size = 8 if absurd >= 2**32 else 4
            data[place : place + size] = absurd.to_bytes(size, chance.choice(["little", "big"]))
        elif kind == "swap":
            data = data[place:] + data[:place]
        elif kind == "zero":
            data[place : place + 64] = bytes(len(data[place : place + 64]))
        elif kind == "header":
            headers = [b"PK\x03\x04", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0", b"<html>", b"\x80\x02", b""]
            data[:8] = chance.choice(headers)
    return bytes(data)


def as_json(value, chance):
    """Return the bytes of a faulty JSON, sometimes no JSON at all."""
    if chance.random() < 0.02:
        return nested(chance.choice([900, 5000, 200_000]), chance.choice([list, dict])).encode()
    data = json.dumps(changed(value, chance)).encode()
    return bytes_changed(data, chance) if chance.random() < 0.15 else data


def bomb_png(width, height, bits=1):
    """Return a PNG of one colour, small as a file however many pixels its header declares."""

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    squeeze, row = zlib.compressobj(6), bytes(1 + min((width * bits + 7) // 8, 10**6))
    rows = min(height, 10**8 // len(row))  # as many as a decoder that takes them should never ask for
    pixels = b"".join(squeeze.compress(row) for _ in range(rows)) + squeeze.flush()
    header = struct.pack(">IIBBBBB", width, height, bits, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def picture_bytes(kind, size=(60, 40)):
    """Return the bytes of a picture of noise of a kind, a file name's end."""
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return written(Image.fromarray(pixels).save, {"jpg": "jpeg"}.get(kind, kind))


def mat_bytes(values, **options):
    """Return the bytes of a MATLAB file."""
    return written(lambda file: savemat(file, values, **options))


def pth_bytes(value, **options):
    """Return the bytes of a file of torch.save."""
    return written(lambda file: torch.save(value, file, **options))


def written(save, *given):
    """Return the bytes that save(file, *given) writes."""
    file = io.BytesIO()
    save(file, *given)
    return file.getvalue()


def deflated(data, member=None, size=0):
    """Return a zip with its parts compressed; a part whose name ends with `member` becomes `size` zeros."""
    file = io.BytesIO()
    options = {"compression": zipfile.ZIP_DEFLATED, "compresslevel": 1}
    with zipfile.ZipFile(io.BytesIO(data)) as before, zipfile.ZipFile(file, "w", **options) as after:
        for info in before.infolist():
            bomb = member is not None and info.filename.endswith(member)
            with after.open(info.filename, "w", force_zip64=True) as part:
                for _ in range(size >> 20 if bomb else 0):
                    part.write(bytes(1 << 20))
                part.write(b"" if bomb else before.read(info.filename))
    return file.getvalue()


class Call:
    """A pickle that would run a command when unpickled."""

    def __reduce__(self):
        return os.system, ("touch executed",)


class Inputs:
    """The malformed inputs: `write(number)` writes one and returns its kind, a function that reads it, and the names of
    places of which an error must name one. Each follows from the seed and its number."""

    def __init__(self, folder, seed=0):
        self.folder, self.seed = Path(folder), seed
        self.kinds = {
            self.coco: 4, self.mpii: 3, self.lsp: 2, self.pictures: 3, self.own_pictures: 3, self.detections: 3,
            self.own_boxes: 2, self.params: 3, self.checkpoints: 3, self.models: 2, self.stores: 4,
            self.submissions: 2, self.mpii_release: 1, self.states: 1, self.videos: 0.3,
        }  # fmt: skip
        self._make_valid_ones()

    def _make_valid_ones(self):
        """Make the valid files that become malformed."""
        chance = random.Random(self.seed)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.png = picture_bytes("png")
        for name in ("images/val", "annotations", "annot", "images"):
            (self.folder / "set" / name).mkdir(parents=True, exist_ok=True)
        images = ["images/val/a.png", "images/val/b.png", "images/a.png", "images/im0001.jpg", "images/im0002.jpg"]
        for name in images:
            (self.folder / "set" / name).write_bytes(self.png)
        keypoints = [round(chance.uniform(5, 35), 1) if place % 3 < 2 else 2 for place in range(51)]
        person = {"category_id": 1, "bbox": [5, 5, 30, 30], "keypoints": keypoints, "num_keypoints": 17}
        person |= {"area": 500.0, "iscrowd": 0}
        self.coco_values = {
            "images": [{"id": i, "file_name": f"{n}.png", "height": 40, "width": 60} for i, n in enumerate("ab", 1)],
            "annotations": [person | {"id": row, "image_id": 1 + row % 2} for row in (1, 2, 3)],
            "categories": [{"id": 1, "name": "person", "keypoints": list(COCO.keypoints)}],
        }
        few = person | {"keypoints": [10, 20.5, 2, 30, 25, 1, 0, 0, 0], "num_keypoints": 2}
        others = [few | {"iscrowd": 1, "keypoints": [], "id": 4}, few | {"num_keypoints": 0, "bbox": None, "id": 5}]
        three = [few | {"id": row} for row in (1, 2, 3)] + others
        self.few_values = self.coco_values | {
            "annotations": [each | {"image_id": 1 + each["id"] % 2} for each in three],
            "categories": [{"id": 1, "name": "mouse", "keypoints": list(MOUSE.keypoints)}, {"id": 2, "name": "trap"}],
        }
        joints = [[round(chance.uniform(5, 35), 1) for _ in range(2)] for _ in range(16)]
        one = {"image": "a.png", "center": [20.0, 20.0], "scale": 0.15, "joints": joints, "joints_vis": [1] * 16}
        self.mpii_values = [one, deepcopy(one)]
        truth = {"pos_gt_src": np.stack([joints] * 2, axis=2), "jnt_missing": np.zeros((16, 2))}
        truth |= {"headboxes_src": np.arange(8.0).reshape(2, 2, 2)}
        (self.folder / "set/annot/gt_valid.mat").write_bytes(mat_bytes(truth))
        result = {"image_id": 1, "category_id": 1, "bbox": [5, 5, 30, 30], "keypoints": keypoints, "score": 0.9}
        self.result_values = [dict(result) for _ in range(3)]
        values = YAML(typ="safe").load(ROOT / "params.yaml")
        models = {"rsn18": {}, "rsn18-large": values["ablations"]["input-size"]["rsn18-large"]}
        few = {"model_lists": {"few": {"rsn18": {}}}, "ablations": {"size": models}}
        few |= {"datasets": {name: values["datasets"][name] for name in ("demo", "lsp")}}
        mouse = {"keypoints": ["nose", "tail"], "mirror": [], "limbs": [["nose", "tail"]], "upper_body": ["nose"]}
        few |= {
            "skeletons": {"mouse": mouse | {"sigmas": [0.1, 0.1]}},
            "run": values["run"] | {"models": {"rsn18": {}}},
        }
        self.params_values = json.loads(json.dumps(values | few))
        self.block = make_attention("prm", 4)
        state = self.block.state_dict()
        old = {"_use_new_zipfile_serialization": False}
        numbers = pth_bytes({"model": state}), pth_bytes({"state_dict": state, "meta": {}}), pth_bytes(state, **old)
        self.weights = {".pth": list(numbers), ".safetensors": [safetensors.torch.save(state)]}
        self.weights[".pth"] += [
            deflated(self.weights[".pth"][0], "data/0", 2 << 30),
            deflated(self.weights[".pth"][0], "data.pkl", 2 << 30),
            pth_bytes({"model": {name: tensor.to_sparse() for name, tensor in state.items()}}),
            pth_bytes({"model": {name: tensor.to("meta") for name, tensor in state.items()}}),
            pth_bytes({"model": {name: tensor.to(torch.complex64) for name, tensor in state.items()}}),
            pickle.dumps({"model": Call()}),
        ]
        tiny = create_model({"block": "bottleneck", "depths": [1, 1, 1, 1]}, 17, (64, 64))
        save_model(tiny, self.folder / "model.safetensors", {"skeleton": "coco", "categories": [1]})
        self.model = (self.folder / "model.safetensors").read_bytes()
        people = self._read("coco", self.coco_values)
        self.crop_stores = []
        for reach in (None, np.array([2.0, 2.0])):
            write_crop_store(self.folder / "store", people, (64, 64), (0, 0), reach)
            self.crop_stores.append([(self.folder / name).read_bytes() for name in ("store", "store.bin")])
        self.mats = [mat_bytes({"joints": np.random.default_rng(0).integers(0, 2, (3, 14, 2)).astype(kind)}, **how)
                     for kind in ("f8", "u1") for how in ({}, {"do_compression": True})]  # fmt: skip
        self.mat_bombs = [mat_bytes({"joints": np.zeros((3, 14, 7_000_000), np.uint8)}, do_compression=True)]
        self.mat_bombs += [mat_bytes({"other": np.zeros(2**28, np.uint8)}, do_compression=True) + self.mats[0][128:]]
        image = {"image": {"name": "a.jpg"}, "annorect": {"scale": 0.2, "objpos": {"x": 20.0, "y": 30.0}}}
        release = {"annolist": [image, image], "img_train": [0, 1], "single_person": [[1], [1]]}
        self.release = mat_bytes({"RELEASE": release})
        self.state = pth_bytes({"iteration": 3, "weights": torch.ones(1000)})
        self.big_pictures = [
            bomb_png(8000, 8000), bomb_png(12_000, 12_000), bomb_png(20_000, 20_000), bomb_png(5500, 11_900, 8),
            bomb_png(60_000, 60_000), bomb_png(2**31 - 1, 2**31 - 1), bomb_png(2**31 - 1, 1), bomb_png(0, 5),
        ]  # fmt: skip

    def _read(self, reader, values):
        self._file(ANNOTATIONS, json.dumps(values).encode())
        return read_people(self.folder / "set", reader, "val")

    def write(self, number):
        chance = random.Random(f"{self.seed} {number}")
        (kind,) = chance.choices(list(self.kinds), list(self.kinds.values()))
        self._restore()
        read, places = kind(chance)
        return kind.__name__.replace("_", " "), read, places

    def _restore(self):
        """Take the last input away and restore the pictures."""
        for name in ("images/val/a.png", "images/a.png", "images/im0001.jpg"):
            (self.folder / "set" / name).write_bytes(self.png)
        for path in self.folder.glob("input*"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    def _file(self, name, data):
        """Write a file, below the inputs' folder, and return its path."""
        path = self.folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data)
        return path

    def coco(self, chance):
        """Break annotations, read them and judge predictions that are the truth."""
        skeleton = chance.choice([COCO, MOUSE, replace(MOUSE, sigmas=None, normalise_by=(0, 1))])
        values = self.coco_values if skeleton == COCO else self.few_values
        path = self._file(ANNOTATIONS, as_json(values, chance))
        how = {"unusable": chance.choice(["stop", "leave out"]), "boxes": chance.choice(["annotated", "keypoints"])}
        how |= {"areas": chance.choice(["annotated", "annotated", "box 0.53"])}
        diagnosed = chance.random() < 0.1

        def read():
            people = read_people(self.folder / "set", "coco", "val", skeleton=skeleton, **how)
            judge, truth = protocol("coco", skeleton), ground_truth(self.folder / "set", "coco", "val", people)
            scores = np.ones(people.visible.shape)
            accuracy = judge.accuracy(people, people.keypoints, scores, truth)[judge.metric]
            if not accuracy * judge.per_cent > 100 - 1e-6:
                raise ValueError(f"the truth has an accuracy of {accuracy}")
            given = people.image_ids, people.keypoints, scores, people.scores
            results = coco_results(*given, categories=people.categories)
            if diagnosed:
                judge.diagnose(people, results, truth), judge.resample(people, results, truth)
            if how["unusable"] == "stop" and skeleton.sigmas:
                coco_ap(results, path, skeleton)

        return read, [path.name]

    def mpii(self, chance):
        path = self._file("set/annot/valid.json", as_json(self.mpii_values, chance))
        how = chance.choice(["stop", "leave out"])

        def read():
            people = read_people(self.folder / "set", "mpii", "valid", how)
            truth = ground_truth(self.folder / "set", "mpii", "valid", people)
            protocol("mpii").accuracy(people, people.keypoints, np.ones(people.visible.shape), truth)

        return read, [path.name, "gt_valid.mat"]

    def lsp(self, chance):
        bomb = chance.random() < 0.02
        data = chance.choice(self.mat_bombs) if bomb else bytes_changed(chance.choice(self.mats), chance)
        path = self._file("set/joints.mat", data)
        reader, split = chance.choice(["lsp", "lspet"]), chance.choice([[1, 2], [1, 1], [0, 2], [1, 10**9], "a", None])
        return lambda: read_people(self.folder / "set", reader, split), [path.name, "split"]

    def pictures(self, chance):
        """Break one image of a data set."""
        path = self._file("set/images/val/a.png", self._picture(chance))
        return lambda: self._read("coco", self.coco_values), [path.name]

    def _picture(self, chance):
        if chance.random() < 0.03:
            return chance.choice(self.big_pictures)
        return bytes_changed(picture_bytes(chance.choice(PICTURE_KINDS)), chance)

    def own_pictures(self, chance):
        path = self._file(f"input.{chance.choice(PICTURE_KINDS)}", self._picture(chance))
        return lambda: read_picture(path), [path.name]

    def videos(self, chance):
        path = self._file("input.mp4", bytes_changed(picture_bytes("gif"), chance))
        return lambda: list(Video(path)), [path.name]

    def detections(self, chance):
        path = self._file("input.json", as_json(self.result_values, chance))
        images = as_json(self.coco_values, chance) if chance.random() < 0.2 else json.dumps(self.coco_values).encode()
        listing = self._file(ANNOTATIONS, images)
        return lambda: read_detections(path, self.folder / "set", "val"), [path.name, listing.name, "a.png", "b.png"]

    def own_boxes(self, chance):
        values = chance.choice([self.result_values, self.coco_values, [{"file_name": "1.png", "bbox": [1, 1, 9, 9]}]])
        path = self._file("input.json", as_json(values, chance))

        def find():
            detections, size = Detections(path), (40, 60)
            detections.check({"1.png": size})
            return detections.find("1.png", size, chance.choice([None, 0]))

        return find, [path.name]

    def params(self, chance):
        text = json.dumps(changed(self.params_values, chance), indent=chance.choice([None, 1]))
        text = text.replace("NaN", ".nan").replace("-Infinity", "-.inf").replace("Infinity", ".inf")
        data = text.encode()
        if chance.random() < 0.3:
            data = self._yaml_changed(text, chance)
        elif chance.random() < 0.1:
            data = bytes_changed(data, chance)
        path = self._file("input.yaml", data)
        return lambda: load_params(path), [path.name, "params.yaml"]

    def _yaml_changed(self, text, chance):
        def laughs(first, again, levels=12, times=10):
            lines = [f"a0: &a0 {first}"]
            for level in range(1, levels):
                lines.append(f"a{level}: &a{level} " + again.format(", ".join([f"*a{level - 1}"] * times)))
            return "\n".join(lines)

        whole = [
            laughs("[ha, ha]", "[{}]"), laughs("{ha: 1}", "{{<<: [{}]}}"), "&a [*a]", "a: &a {b: *a}", "? [a, b]\n: 1",
            "? {a: b}\n: 1", "- a\n- b", "", "---\na: 1\n---\nb: 2", "run: !!python/object/apply:os.system [touch executed]",
            "!!binary abc", "a: *b", "\t- a", "a: 2001-01-01T00:00:00Z", "a: 0x" + "f" * 5000, "1_000:59:59: 1", "%YAML 9.9\n---\na: 1",
            nested(3000), "a: " + "[" * 500, "!!set {a, b}", "!!omap [a: 1]", "a: 1" * 5 + ":" * 100, "a: 9" + "9" * 6000, "\ufeff" * 3,
        ]  # fmt: skip
        if chance.random() < 0.3:
            return chance.choice(whole).encode()
        tokens = [place for place, character in enumerate(text) if character in ':,[{"']
        place = chance.choice(tokens or [0])
        odd = ["!!python/name:os.system ", "&a ", "*a ", "? ", "- ", "<<: ", "'", '"', "\x00", "!!int ", "|\n", "#"]
        odd = chance.choice([*odd, "!!float '.inf'"])
        return (text[:place] + odd + text[place + chance.randint(0, 3) :]).encode()

    def checkpoints(self, chance):
        suffix = chance.choice([".pth", ".pth", ".safetensors"])
        data = chance.choice(self.weights[suffix][:3]) if chance.random() < 0.9 else chance.choice(self.weights[suffix])
        if suffix == ".safetensors" and chance.random() < 0.5:
            data = header_changed(data, chance)
        elif chance.random() < 0.9:
            data = bytes_changed(data, chance)
        path = self._file(f"input{suffix}", data)
        return lambda: load_checkpoint(self.block, path), [path.name]

    def models(self, chance):
        change = bytes_changed if chance.random() < 0.3 else header_changed
        path = self._file("input.safetensors", change(self.model, chance))

        def read():
            model = load_model(path)
            return skeleton_of(model), categories_of(model)

        return read, [path.name, "weights"]

    def stores(self, chance):
        kind = chance.randrange(2)
        change = header_changed if chance.random() < 0.5 else tensors_changed
        data, windows = self.crop_stores[kind]
        if chance.random() < 0.3:
            windows = bytes_changed(windows, chance)
        else:
            data = change(data, chance)
        path = self._file("input.safetensors", data)
        self._file("input.bin", windows)

        def read():
            store = CropStore(path)
            rows = np.arange(len(store))
            if kind:
                store.crops(rows, np.tile(np.eye(2, 3), (len(rows), 1, 1)))
            return [store.window(row) for row in rows], store.people.take(rows)

        return read, [path.name]

    def submissions(self, chance):
        path = self._file("input.json", as_json(self.result_values, chance))
        return lambda: write_submission(path, "val2017", "RSN", self.folder / "input"), [path.name]

    def mpii_release(self, chance):
        path = self._file("input.mat", bytes_changed(self.release, chance))
        return lambda: read_test_images(path), [path.name]

    def states(self, chance):
        folder = self.folder / "states"
        shutil.rmtree(folder, ignore_errors=True)
        self._file("states/000000001.pt", self.state)
        data = chance.choice([self.state, self.weights[".pth"][-1], self.weights[".pth"][3]])
        self._file("states/000000002.pt", bytes_changed(data, chance))

        def read():
            with States(folder) as states:
                assert states.newest()["iteration"] == 3

        return read, ["000000002.pt"]


def header_and_rest(data):
    """Return the descriptions in a safetensors file's header, and the bytes after it."""
    end = 8 + int.from_bytes(data[:8], "little")
    return json.loads(data[8:end]), data[end:]


def header_changed(data, chance):
    """Return a safetensors file with a fault in its tensors' descriptions or in its metadata."""
    header, rest = header_and_rest(data)
    about = header.get("__metadata__")
    if about and chance.random() < 0.6:
        (key,) = about
        text = json.dumps(changed(json.loads(about[key]), chance))
        about[key] = text if chance.random() < 0.9 else chance.choice(["", "[]", "null", nested(5000)])
    else:
        header = changed(header, chance)
    text = json.dumps(header).encode()
    return chance.choice([len(text)] * 9 + [2**60]).to_bytes(8, "little") + text + rest


def tensors_changed(data, chance):
    """Return a safetensors file with impossible numbers in a small tensor."""
    header, rest = header_and_rest(data)
    name = chance.choice(["offsets", "image_rows", *(name for name in header if name != "__metadata__")])
    first, last = header[name]["data_offsets"]
    numbers = np.frombuffer(rest[first:last], {"I64": "<i8", "F64": "<f8", "BOOL": "?"}[header[name]["dtype"]]).copy()
    absurd = [-1, 2**62, -(2**63), 10**6, 3] if numbers.dtype.kind == "i" else [np.nan, np.inf, -1e308, 0]
    with warnings.catch_warnings(action="ignore"):
        numbers[chance.randrange(len(numbers))] = chance.choice(absurd)
    return data[: len(data) - len(rest)] + rest[:first] + numbers.tobytes() + rest[last:]


class TooLong(BaseException):
    """Raised in the midst of an input that takes longer than SECONDS."""


def judge(read, places):
    """Return (verdict, details) of one input: "handled", "refused", or the kind of failure."""

    def too_long(*_):
        raise TooLong

    signal.signal(signal.SIGALRM, too_long)
    signal.alarm(SECONDS)
    try:
        with warnings.catch_warnings(action="ignore"):
            read()
        return "handled", ""
    except UserError as error:
        named = any(place in str(error) for place in places)
        return ("refused", "") if named else ("names no place", str(error))
    except TooLong:
        return "hangs", traceback.format_exc(limit=-4)
    except Exception as error:
        last = traceback.extract_tb(error.__traceback__)
        where = next((frame for frame in reversed(last) if "rsnlib" in frame.filename), last[-1])
        return "traceback", f"{type(error).__name__}: {str(error)[:200]} ({Path(where.filename).name}:{where.lineno})"
    finally:
        signal.alarm(0)


def fuzz(folder, count, seed=0):
    """Read `count` malformed inputs, AT_ONCE per process: a data frame, one row per input, with columns number, kind,
    verdict, details and memory (bytes added to its process's peak)."""
    inputs, rows, first = Inputs(folder, seed), [], 0
    log = inputs.folder / "rows"
    while first < count:
        numbers = range(first, min(first + AT_ONCE, count))
        log.write_text("")
        process = started(_read_all, inputs, numbers, log)
        while process.is_alive():
            size = log.stat().st_size
            process.join(3 * SECONDS)
            if process.is_alive() and log.stat().st_size == size:  # hangs where no alarm can reach it
                process.kill()
        some = [json.loads(line) for line in log.read_text().splitlines()]
        rows += some
        first += len(some)
        if len(some) < len(numbers):
            details = f"status {process.exitcode}"
            rows.append({"number": first, "kind": "?", "verdict": "crashed", "details": details, "memory": 0})
            first += 1
    return pd.DataFrame(rows)


def _read_all(inputs, numbers, log):
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (16 * MEMORY, 16 * MEMORY))  # rather than take the machine down
    os.chdir(inputs.folder)
    for number in numbers:
        kind, read, places = inputs.write(number)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        verdict, details = judge(read, places)
        memory = 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
        if verdict in ("handled", "refused") and memory > MEMORY:
            verdict, details = "memory", f"{memory / MEMORY:.1f} GiB"
        if Path("executed").exists():
            verdict = "executed"
        row = {"number": number, "kind": kind, "verdict": verdict, "details": details[:1000], "memory": memory}
        with log.open("a") as file:
            file.write(json.dumps(row) + "\n")
