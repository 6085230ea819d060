"""Fixtures for every test."""

import contextlib
import hashlib
import json
import os
import shutil
import threading
import time
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # pytest -n runs one process per core
os.environ.setdefault("MPLBACKEND", "Agg")

import numpy as np
import pytest
import torch
from checkout import ROOT
from PIL import Image
from ruamel.yaml import YAML
from scipy.io import savemat

from rsnlib.config import load_params
from rsnlib.data.people import People
from rsnlib.data.skeletons import COCO
from rsnlib.demo.annotate import draw_people
from rsnlib.models.published import PUBLISHED, Published
from rsnlib.stages.evaluate import evaluate
from rsnlib.stages.layout import runs
from rsnlib.stages.prepare import prepare
from rsnlib.stages.train import train


@pytest.fixture(scope="session")
def shared():
    """The folder of goldens and real data beside the repository (`RSN_SHARED` overrides)."""
    folder = Path(os.environ.get("RSN_SHARED", ROOT.parent / "shared"))
    if not folder.is_dir():
        missing = f"{folder} is missing: real data and goldens belong there"
        if os.environ.get("CI") == "true":
            pytest.fail(missing)
        pytest.skip(missing)
    return folder


@pytest.fixture(scope="session")
def demo_folder(tmp_path_factory):
    """Eight drawn people to train on, four to validate on, in COCO's layout."""
    folder = tmp_path_factory.mktemp("drawn") / "demo"
    draw_people(folder, train=8, val=4, seed=1)
    return folder


@pytest.fixture(scope="session")
def committed():
    """The committed parameters."""
    return load_params(ROOT / "params.yaml")


@pytest.fixture(scope="session")
def demo_settings(committed):
    """The committed settings of the demo data, for crops of 64 x 64."""
    return replace(committed.dataset("demo"), input_size=(64, 64))


@pytest.fixture
def mpii_folder(tmp_path):
    """MPII's test set in small: two people to judge in a.jpg and two in c.jpg, where there is someone else; nobody in
    b.jpg; and MPII's own annotations of these, between images to train on. annot/test.json lists c.jpg first."""
    folder = tmp_path / "mpii"
    for name in ("a", "b", "c"):
        (folder / "images").mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(ord(name)).integers(0, 256, (90, 120, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"images/{name}.jpg")
    judged = {"c.jpg": [[20, 40], [90, 45]], "a.jpg": [[30, 30], [70, 60]]}
    people = [{"image": name, "center": center, "scale": 0.2} for name, centers in judged.items() for center in centers]
    (folder / "annot").mkdir()
    (folder / "annot/test.json").write_text(json.dumps(people))

    empty = np.zeros((0, 0))  # as MATLAB has it where there is nothing

    def image(name, *centers):
        rects = np.empty((1, len(centers)), [("scale", object), ("objpos", object)])
        for column, center in enumerate(centers):
            place = empty if center is None else {"x": np.uint8(center[0]), "y": np.uint8(center[1])}
            rects[0, column] = (0.2, place)
        return {"name": name}, rects if centers else empty

    rows = [
        (image("train.jpg", [1, 1]), 1, [1]),
        (image("a.jpg", *judged["a.jpg"]), 0, [1, 2]),
        (image("b.jpg"), 0, []),
        (image("train2.jpg"), 1, []),
        (image("c.jpg", None, judged["c.jpg"][1], [60, 60], judged["c.jpg"][0]), 0, [2, 4]),
    ]
    annolist = np.empty((1, len(rows)), [("image", object), ("annorect", object)])
    single_person = np.empty((len(rows), 1), object)
    for row, (annotation, _, single) in enumerate(rows):
        annolist[0, row] = annotation
        single_person[row, 0] = np.array(single, np.uint8)[:, None]
    release = {"annolist": annolist, "img_train": np.array([[train for _, train, _ in rows]], np.uint8)}
    savemat(folder / "annot/mpii_human_pose_v1_u12_1.mat", {"RELEASE": release | {"single_person": single_person}})
    return folder


@pytest.fixture(scope="session")
def trained_project(tmp_path_factory):
    """A project folder with a few drawn people and two runs on them, the smallest there are, trained and evaluated."""
    project = tmp_path_factory.mktemp("trained")
    draw_people(project / "data" / "demo", train=12, val=6)
    params = YAML(typ="safe").load(ROOT / "params.yaml")
    shape = {"depths": [1, 1, 1, 1]}
    params["run"]["models"] = {
        "plain": shape | {"network": "res18"},
        "steps-prm": shape | {"network": "rsn18", "attention": "prm"},
    }
    params["datasets"]["demo"] |= {"input_size": [64, 64], "more_input_sizes": {}}
    params["datasets"]["demo"]["recipe"] |= {"batch_size": 4, "length": {"epochs": 1}}
    params["train"]["validations"] = 1
    YAML().dump(params, project / "params.yaml")
    for name in ("dvc.yaml", "notebooks", "rsnlib"):
        (project / name).symlink_to(ROOT / name)
    with contextlib.chdir(project):
        prepare("demo")
        for model, seed in runs("demo"):
            train("demo", model, seed)
            evaluate("demo", model, seed)
    return project


@pytest.fixture
def project(trained_project, tmp_path, monkeypatch):
    """A fresh copy of `trained_project`, as the current folder."""
    shutil.copytree(trained_project, tmp_path / "project", symlinks=True, copy_function=os.link)
    monkeypatch.chdir(tmp_path / "project")
    return tmp_path / "project"


@pytest.fixture(scope="session")
def make_people():
    """A function that makes COCO people in one picture, its arguments broadcast to one row per person."""

    def make(picture, boxes, keypoints, visible=2, path="picture.png"):
        boxes = np.array(boxes, float).reshape(-1, 4)
        count = len(boxes)
        return People(
            skeleton=COCO,
            ids=np.arange(1, count + 1),
            image_ids=np.ones(count, int),
            images=np.array([str(path)] * count),
            image_sizes=np.tile(picture.shape[:2], (count, 1)),
            boxes=boxes,
            keypoints=np.broadcast_to(np.asarray(keypoints, float), (count, len(COCO), 2)).copy(),
            visible=np.broadcast_to(visible, (count, len(COCO))).copy(),
            areas=boxes[:, 2] * boxes[:, 3],
            scores=np.ones(count),
            categories=np.ones(count, int),
            upright=np.zeros(count, bool),
        )

    return make


@pytest.fixture(scope="session")
def draw_dot():
    """A function: a black picture (height, width, 3) with a soft white dot around (x, y)."""

    def draw(height, width, x, y, sigma=3.0):
        rows, columns = np.mgrid[:height, :width]
        dot = np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * sigma**2))
        return np.repeat((255 * dot).round().astype(np.uint8)[..., None], 3, axis=2)

    return draw


@pytest.fixture(scope="session")
def find_dot():
    """A function: the centre (x, y) of the only bright thing in an image."""

    def find(image):
        light = np.asarray(image, float).mean(axis=2)
        light[light < 50] = 0  # JPEG's noise
        rows, columns = np.mgrid[: light.shape[0], : light.shape[1]]
        return np.array([(light * columns).sum(), (light * rows).sum()]) / light.sum()

    return find


@pytest.fixture
def server():
    """A server on loopback: `files`, {path: bytes}, `cut`, bytes that it leaves out at the end, `delay`, seconds before
    it answers, and `asked`, the paths asked for."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.server.asked.append(self.path)
            time.sleep(self.server.delay)
            contents = self.server.files.get(self.path)
            self.send_response(200 if contents else 404)
            self.send_header("Content-Length", str(len(contents or b"")))
            self.end_headers()
            self.wfile.write((contents or b"")[: len(contents or b"") - self.server.cut])

        def log_message(self, *_): ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.files, server.asked, server.cut, server.delay = {}, [], 0, 0
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def publish(server, tmp_path, monkeypatch):
    """A function: put `contents` on the server as the weights "mmpose/rsn18", under their digest or a given one;
    returns the path at which torch.hub, its cache a new folder, keeps them."""
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path / "hub"))

    def publish(contents=b"weights", digest=None):
        file = f"rsn18-{digest or hashlib.sha256(contents).hexdigest()[:8]}_20221013.pth"
        server.files[f"/{file}"] = contents
        url = f"http://127.0.0.1:{server.server_port}/{file}"
        monkeypatch.setitem(PUBLISHED, "mmpose/rsn18", Published("rsn18", url))
        return tmp_path / "hub/checkpoints" / file

    return publish
