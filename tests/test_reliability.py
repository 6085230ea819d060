"""Nothing is lost and nothing gets in: the trials of reliability/ in small, and examples of their findings."""

import ast
import contextlib
import json
import os
import re
import signal
import struct
import sys
import time
from functools import reduce
from operator import getitem
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import pytest
import safetensors.torch
import torch
from checkout import ROOT, Command, InTerminal, ended, wait_for
from nbformat.v4 import new_code_cell, new_notebook, new_output
from ruamel.yaml import YAML

from reliability.malformed import bomb_png, deflated, fuzz, mat_bytes, nested, pth_bytes
from reliability.scenarios import hashes
from reliability.soak import soak
from rsnlib.config import load_params
from rsnlib.data.images import read_image_size, read_picture
from rsnlib.data.people import Unusable
from rsnlib.data.readers.lsp import read_extended
from rsnlib.data.store import CropStore
from rsnlib.errors import UserError
from rsnlib.files import read_json
from rsnlib.models.checkpoints import load_checkpoint, load_model, save_model
from rsnlib.models.zoo import create_model
from rsnlib.report.tables import write_table
from rsnlib.stages import site
from rsnlib.stages.layout import notebooks_path
from rsnlib.training.states import States

LAUGHS = "a: &a [ha, ha]\n" + "\n".join(
    f"{name}: &{name} [{', '.join(9 * ['*' + before])}]" for before, name in zip("abcdefghi", "bcdefghij")
)


def test_a_training_killed_at_random_moments_ends_with_the_same_bytes(tmp_path):
    found = soak(tmp_path / "project", kills=20)  # raises if the weights differ
    assert found["kills"] == 20 and found["by SIGKILL"] > 5 and found["by SIGTERM"] > 1
    assert found["while a checkpoint was written"] > 1 and found["newest checkpoint damaged"] > 0


def test_a_training_that_waits_for_another_of_the_same_run_leaves_its_curves_alone(project):
    before = hashes(project, ("curves", "weights"))
    train = [sys.executable, "-m", "rsnlib", "train", "--dataset", "demo", "--model", "plain"]
    with contextlib.ExitStack() as stack:
        for folder in Path("work/state").iterdir():
            stack.enter_context(States(folder))
        second = Command(project, *train, PYTHONPATH=str(ROOT))
        wait_for(lambda: "another process trains this run; waiting for it" in second.said(), second, "waited")
        assert hashes(project, ("curves", "weights")) == before
    ended(second)
    assert hashes(project, ("curves", "weights")) == before


@pytest.mark.parametrize("seconds", [0, 1.5])  # before there is a kernel, and while it starts or computes
def test_ctrl_c_in_a_stage_ends_in_one_line(project, seconds):
    stage = [sys.executable, "-m", "rsnlib", "notebook", "tables", "--dataset", "demo"]
    command = InTerminal(project, *stage, PYTHONPATH=str(ROOT))
    wait_for(lambda: re.search(r"stage \d+ of \d+", command.said()), command, "began")
    time.sleep(seconds)
    command.press_ctrl_c()
    said = re.split(r"stage \d+ of \d+", ended(command, 1))[1].split()
    assert " ".join(said) == "^C stopped; `make` or `dvc repro` goes on from here"


def test_a_crop_store_is_compared_with_its_windows(project):
    before, windows = hashes(project, ("crops",)), project / "work/crops/demo/val.bin"
    contents = windows.read_bytes()
    windows.unlink()  # a link to the file of every test
    windows.write_bytes(contents[:-1])
    assert hashes(project, ("crops",)) != before


def test_malformed_files_are_handled_or_refused_by_name(tmp_path):
    rows = fuzz(tmp_path / "inputs", 400)
    wrong = rows[~rows["verdict"].isin(["handled", "refused"])]
    assert wrong.empty, wrong.to_string()
    assert set(rows["number"]) == set(range(400)) and rows["kind"].nunique() > 12
    assert (rows["verdict"] == "refused").mean() > 0.5


# ---- Findings of the fuzzer


def test_json_nested_without_end_is_refused(tmp_path):
    (tmp_path / "a.json").write_text(nested(200_000))
    with pytest.raises(UserError, match=r"a\.json: not readable as JSON"):
        read_json(tmp_path / "a.json")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (LAUGHS, "aliases written out"),
        (LAUGHS.replace("[ha, ha]", "{ha: 1}").replace("[*", "{<<: [*").replace("]", "]}"), "aliases written out"),
        ("&a [*a]", "aliases written out"),
        ("? [a, b]\n: 1", "not plain settings"),
        ("[" * 3000, "not valid YAML"),
        ("run: !!python/object/apply:os.system [true]", "could not determine a constructor"),
    ],
    ids=["laughs", "merges", "itself", "a list as a key", "nested", "code"],
)
def test_yaml_that_is_no_parameters_is_refused(tmp_path, text, reason):
    (tmp_path / "params.yaml").write_text(text)
    with pytest.raises(UserError, match=rf"params\.yaml: (?s:.*){reason}"):
        load_params(tmp_path / "params.yaml")
    with pytest.raises(UserError, match="Is a directory"):
        load_params(tmp_path)


def test_a_picture_of_absurd_size_is_refused_before_it_is_decoded(tmp_path):
    (tmp_path / "bomb.png").write_bytes(bomb_png(12_000, 12_000))
    with pytest.raises(UserError, match=r"bomb\.png: .*12000 x 12000 pixels are too many"):
        read_picture(tmp_path / "bomb.png")
    with pytest.raises(Unusable, match=r"bomb\.png: .*12000 x 12000 pixels are too many"):
        read_image_size(tmp_path / "bomb.png")


def test_files_that_decompress_to_gigabytes_are_refused(tmp_path):
    (tmp_path / "a.pth").write_bytes(deflated(pth_bytes({"a": torch.ones(3)}), "data/0", 2**27))
    with pytest.raises(UserError, match=r"a\.pth: .*its parts are 134,\d+,\d+ bytes, more than the file"):
        load_checkpoint(torch.nn.Linear(2, 2), tmp_path / "a.pth")
    bomb = mat_bytes({"joints": np.zeros((14, 3, 2_000_000), np.uint8)}, do_compression=True)
    (tmp_path / "joints.mat").write_bytes(bomb)
    assert len(bomb) < 10**6
    with pytest.raises(UserError, match=r"joints\.mat: .*more than 67,108,864 bytes when decompressed"):
        read_extended(tmp_path / "joints.mat", tmp_path, [1, 2])


@pytest.mark.parametrize(
    "weight",
    [torch.ones(2, 2).to_sparse(), torch.ones(2, 2, device="meta"), torch.ones(2, 2, dtype=torch.complex64)],
    ids=["sparse", "meta", "complex"],
)
def test_tensors_that_are_no_plain_numbers_are_named(tmp_path, weight):
    state = {"weight": weight, "bias": torch.ones(2)}
    torch.save(state, tmp_path / "a.pth")
    for given in (tmp_path / "a.pth", state):
        with pytest.raises(UserError, match="weight is not stored as plain real numbers"):
            load_checkpoint(torch.nn.Linear(2, 2), given)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"keypoints": 10**9}, "keypoints: must be a whole number from 1 to 1000"),
        ({"input_size": "ab"}, "input_size: "),
        ({"architecture": {"depths": [10**9] * 4}}, r"architecture\.depths\.0: "),
        ({"architecture": {"depths": [50] * 4, "stages": 8}}, r"\d+ tensors for 1600 blocks"),
        ([], "not a model saved by rsnlib"),
    ],
)
def test_weights_that_say_what_they_are_not_are_refused(tmp_path, changes, reason):
    save_model(create_model({"block": "bottleneck"}, 17, (64, 64)), tmp_path / "a.safetensors")
    with safetensors.safe_open(tmp_path / "a.safetensors", "pt") as file:
        about = json.loads(file.metadata()["rsnlib"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}
    metadata = {"rsnlib": json.dumps(about | changes if changes else changes)}
    safetensors.torch.save_file(tensors, tmp_path / "a.safetensors", metadata)
    with pytest.raises(UserError, match=rf"a\.safetensors.*{reason}"):
        load_model(tmp_path / "a.safetensors")


@pytest.mark.parametrize(("name", "value"), [("offsets", -1), ("offsets", 2**40), ("image_rows", 7)])
def test_a_crop_store_that_points_elsewhere_is_refused(project, name, value):
    path = project / "work/crops/demo/val.safetensors"
    data = bytearray(path.read_bytes())
    length = struct.unpack("<Q", data[:8])[0]
    place = 8 + length + json.loads(data[8 : 8 + length])[name]["data_offsets"][0] + 8
    data[place : place + 8] = struct.pack("<q", value)
    path.unlink()  # a link to the file of every test
    path.write_bytes(data)
    with pytest.raises(UserError, match=r"val\.safetensors: not a crop store .*run the stage `prepare` again"):
        CropStore(path)


def crash(*_, **__):
    os.kill(os.getpid(), signal.SIGSEGV)


def take_all_memory(*_, **__):
    return bytes(2**33)


@pytest.mark.parametrize(("harm", "reason"), [(crash, "crashes"), (take_all_memory, "MemoryError")])
def test_a_matlab_file_that_harms_its_reader_is_refused(tmp_path, monkeypatch, harm, reason):
    (tmp_path / "joints.mat").write_bytes(mat_bytes({"joints": np.zeros((14, 3, 1))}))
    monkeypatch.setattr("scipy.io.loadmat", harm)
    with pytest.raises(UserError, match=rf"joints.mat: not readable as a MATLAB file \(.*{reason}"):
        read_extended(tmp_path / "joints.mat", tmp_path, [1, 1])


# ---- No one's code but ours runs


def test_nothing_in_the_library_executes_text_or_unpickles_more_than_tensors():
    for path in (ROOT / "rsnlib").rglob("*.py"):
        for call in ast.walk(ast.parse(path.read_text())):
            if not isinstance(call, ast.Call):
                continue
            name, given = ast.unparse(call.func), {each.arg: ast.unparse(each.value) for each in call.keywords}
            assert name not in ("eval", "exec", "os.system", "os.popen", "pickle.load", "pickle.loads"), path
            assert given.get("shell", "False") == "False" and given.get("allow_pickle", "False") == "False", path
            assert name != "torch.load" or given.get("weights_only") == "True", path
            assert name != "YAML" or given.get("typ", "'rt'") in ("'safe'", "'rt'"), path  # neither makes objects


@pytest.mark.parametrize("name", ["$(touch executed)", "..", "a\nb", "-rf"])
def test_a_name_that_a_shell_could_misread_is_refused(tmp_path, name):
    committed = YAML(typ="safe").load(ROOT / "params.yaml")
    for place in ("datasets", "run.models", "ablations.branches"):
        values = json.loads(json.dumps(committed))
        named = reduce(getitem, place.split("."), values)
        named[name] = next(iter(named.values()))
        YAML(typ="safe").dump(values, tmp_path / "params.yaml")
        with pytest.raises(UserError, match=rf"params\.yaml: {place}\.{re.escape(name)}"):
            load_params(tmp_path / "params.yaml")


def test_text_from_data_is_no_markup_in_the_site(tmp_path, monkeypatch):
    """An id, a reason and a file name that are shown as a table, and a keypoint's name in a table of results."""
    for name in ("params.yaml", "dvc.yaml"):
        (tmp_path / name).symlink_to(ROOT / name)
    monkeypatch.chdir(tmp_path)
    script = "<script>alert(1)</script>"
    shown = pd.DataFrame({"why": [f"7: image {script}.jpg: no such file"]})
    data = {"text/html": shown._repr_html_(), "text/plain": repr(shown)}
    cells = [new_code_cell("shown", outputs=[new_output("execute_result", data)])]
    notebook = new_notebook(cells=cells, metadata={"rsnlib": {"stage": "prepare@demo", "parameters": ""}})
    path = notebooks_path("demo", "prepare.ipynb")
    path.parent.mkdir(parents=True)
    nbformat.write(notebook, path)
    tables = tmp_path / "results/demo/tables"
    tables.mkdir(parents=True)
    write_table(pd.DataFrame({script: ["<img src=x onerror=alert(1)>"]}), tables, "results", script)
    page = site.write_site().read_text()
    assert "&lt;script&gt;alert(1)" in page
    assert script not in page and "<img src=x" not in page
