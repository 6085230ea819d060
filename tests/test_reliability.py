"""What is never lost and what never gets in; tests/reliability.py does the same many times and writes the report."""

import ast
import contextlib
import json
import os
import re
import shutil
import signal
import struct
import sys
import zipfile
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import pytest
import safetensors.torch
import torch
from malformed import bomb_png, deflated, fuzz, mat_bytes, nested, pth_bytes
from nbformat.v4 import new_code_cell, new_notebook, new_output
from ruamel.yaml import YAML
from scenarios import Command, ended, hashes, wait_for
from soak import soak

from rsnlib.apps.pictures import read_picture
from rsnlib.apps.submission import check_submission
from rsnlib.config import load_params
from rsnlib.data.people import Unusable, image_inside, read_image_size
from rsnlib.data.readers import matlab
from rsnlib.data.readers.lsp import read_extended
from rsnlib.data.store import CropStore
from rsnlib.errors import UserError
from rsnlib.files import read_json
from rsnlib.models.checkpoints import load_checkpoint, load_model
from rsnlib.report import site
from rsnlib.report.tables import write_table
from rsnlib.training.states import States

ROOT = Path(__file__).resolve().parents[1]
LAUGHS = "a: &a [ha, ha]\n" + "\n".join(
    f"{name}: &{name} [{', '.join(9 * ['*' + before])}]" for before, name in zip("abcdefghi", "bcdefghij")
)


def test_a_training_killed_at_random_moments_ends_with_the_same_bytes(tmp_path):
    found = soak(tmp_path / "project", kills=20)  # raises where the weights differ
    assert found["kills"] == 20 and found["SIGKILL"] > 5 and found["SIGTERM"] > 1
    assert found["while a state was written"] > 1 and found["newest state damaged"] > 0


def test_a_training_that_waits_for_another_of_the_same_run_leaves_its_curves_alone(project):
    before = hashes(project, ("curves", "weights"))
    with contextlib.ExitStack() as stack:
        for folder in Path("work/state").iterdir():
            stack.enter_context(States(folder))
        second = Command(project, sys.executable, "-m", "rsnlib", "train", "--dataset", "demo", "--model", "plain",
                         PYTHONPATH=str(ROOT))  # fmt: skip
        wait_for(lambda: "another process trains this run; waiting for it" in second.said(), second, "waited")
        assert hashes(project, ("curves", "weights")) == before
    ended(second)
    assert hashes(project, ("curves", "weights")) == before


def test_malformed_files_are_handled_or_refused_by_name(tmp_path):
    rows = fuzz(tmp_path / "inputs", 400)
    wrong = rows[~rows["verdict"].isin(["handled", "refused"])]
    assert wrong.empty, wrong.to_string()
    assert set(rows["number"]) == set(range(400)) and rows["kind"].nunique() > 12
    assert (rows["verdict"] == "refused").mean() > 0.5


# ---- What the fuzzer found


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


def test_a_folder_is_no_parameters(tmp_path):
    with pytest.raises(UserError, match="Is a directory"):
        load_params(tmp_path)


def test_a_picture_of_absurd_size_is_refused_before_it_is_decoded(tmp_path):
    (tmp_path / "bomb.png").write_bytes(bomb_png(12_000, 12_000))
    with pytest.raises(UserError, match=r"bomb\.png: .*12000 x 12000 pixels are too many"):
        read_picture(tmp_path / "bomb.png")
    with pytest.raises(Unusable, match=r"bomb\.png: .*12000 x 12000 pixels are too many"):
        read_image_size(tmp_path / "bomb.png")


def test_weights_that_decompress_to_gigabytes_are_refused(tmp_path):
    (tmp_path / "a.pth").write_bytes(deflated(pth_bytes({"a": torch.ones(3)}), "data/0", 2**27))
    with pytest.raises(UserError, match=r"a\.pth: .*its parts are 134,\d+,\d+ bytes, more than the file"):
        load_checkpoint(torch.nn.Linear(2, 2), tmp_path / "a.pth")


@pytest.mark.parametrize("kind", ["sparse", "meta", "complex"])
def test_tensors_that_are_no_plain_numbers_are_named(tmp_path, kind):
    weight = {"sparse": torch.ones(2, 2).to_sparse(), "meta": torch.ones(2, 2, device="meta")}
    weight["complex"] = torch.ones(2, 2, dtype=torch.complex64)
    torch.save({"weight": weight[kind], "bias": torch.ones(2)}, tmp_path / "a.pth")
    with pytest.raises(UserError, match=rf"a\.pth .*weight is (stored as .*)?{kind}"):
        load_checkpoint(torch.nn.Linear(2, 2), tmp_path / "a.pth")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"keypoints": 10**9}, "keypoints: Input should be less than"),
        ({"keypoints": "17"}, "keypoints: Input should be a valid integer"),
        ({"input_size": "ab"}, "input_size: "),
        ({"architecture": {"depths": [10**9] * 4}}, r"architecture\.depths\.0: "),
        ({"architecture": {"depths": [50] * 4, "stages": 8}}, "1 tensors for 1600 blocks"),
        ([], "not a model saved by rsnlib"),
    ],
)
def test_weights_that_say_what_they_are_not_are_refused(tmp_path, changes, reason):
    about = {"architecture": {}, "keypoints": 17, "input_size": [64, 64]}
    about = about | changes if changes else changes
    metadata = {"rsnlib": json.dumps(about)}
    safetensors.torch.save_file({"a": torch.ones(1)}, tmp_path / "a.safetensors", metadata)
    with pytest.raises(UserError, match=rf"a\.safetensors.*{reason}"):
        load_model(tmp_path / "a.safetensors")


def test_a_matlab_file_that_decompresses_to_gigabytes_is_refused(tmp_path):
    bomb = mat_bytes({"joints": np.zeros((14, 3, 2_000_000), np.uint8)}, do_compression=True)
    (tmp_path / "joints.mat").write_bytes(bomb)
    assert len(bomb) < 10**6
    with pytest.raises(UserError, match=r"joints\.mat: .*more than 67,108,864 bytes when decompressed"):
        read_extended(tmp_path / "joints.mat", tmp_path, [1, 2])


def test_a_submission_that_decompresses_to_gigabytes_is_refused(tmp_path):
    path = tmp_path / "person_keypoints_val2017_RSN_results.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(f"{path.stem}.json", b" " * 10**7)
    with pytest.raises(UserError, match=r"RSN_results\.zip: .*10,000,000 bytes in"):
        check_submission(path)


@pytest.mark.parametrize(
    ("name", "value"), [("offsets", -1), ("offsets", 2**40), ("image_rows", 7), ("image_rows", 2**62)]
)
def test_a_crop_store_that_points_elsewhere_is_refused(project, name, value):
    path = project / "work/crops/demo/val.safetensors"
    data = bytearray(path.read_bytes())
    length = struct.unpack("<Q", data[:8])[0]
    place = 8 + length + json.loads(data[8 : 8 + length])[name]["data_offsets"][0] + 8
    data[place : place + 8] = struct.pack("<q", value)
    path.unlink()  # it is a link to that of every test
    path.write_bytes(data)
    with pytest.raises(UserError, match=r"val\.safetensors: not a crop store .*run the stage `prepare` again"):
        CropStore(path)


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


@pytest.mark.parametrize("name", ["../a.jpg", "a/../../b.jpg", "/etc/passwd", "", ".."])
def test_an_image_name_does_not_lead_out_of_its_folder(tmp_path, name):
    with pytest.raises(Unusable, match="leads out of the images folder|not a file name"):
        image_inside(tmp_path, name)


@pytest.mark.parametrize("name", ["a;b", "$(touch executed)", "`id`", "a b", "a'b", 'a"b', "..", "../a", "a\nb", "-rf"])
@pytest.mark.parametrize("section", ["models", "datasets"])
def test_a_name_that_a_shell_could_misread_is_refused(tmp_path, section, name):
    values = json.loads(json.dumps(YAML(typ="safe").load(ROOT / "params.yaml")))
    values[section][name] = next(iter(values[section].values()))
    YAML(typ="safe").dump(values, tmp_path / "params.yaml")
    with pytest.raises(UserError, match=rf"params\.yaml: {section}\.{re.escape(name)}"):
        load_params(tmp_path / "params.yaml")


def test_text_from_data_is_no_markup_in_the_site(tmp_path, monkeypatch):
    """An id, a reason and a file name that are shown as a table, and a keypoint's name in a table of results."""
    shutil.copy(ROOT / "params.yaml", tmp_path)
    monkeypatch.chdir(tmp_path)
    script = "<script>alert(1)</script>"
    shown = pd.DataFrame({"why": [f"7: image {script}.jpg: no such file"]})
    data = {"text/html": shown._repr_html_(), "text/plain": repr(shown)}
    notebook = new_notebook(cells=[new_code_cell("shown", outputs=[new_output("execute_result", data)])])
    path = site.notebooks_folder() / "demo" / "prepare.ipynb"
    path.parent.mkdir(parents=True)
    nbformat.write(notebook, path)
    tables = tmp_path / "results/demo/tables"
    tables.mkdir(parents=True)
    write_table(pd.DataFrame({script: ["<img src=x onerror=alert(1)>"]}), tables, "results", script)
    page = site.write_site().read_text()
    assert "&lt;script&gt;alert(1)" in page
    assert script not in page and "<img src=x" not in page


def crash(*_, **__):
    os.kill(os.getpid(), signal.SIGSEGV)


def take_all_memory(*_, **__):
    return bytes(2**33)


@pytest.mark.parametrize(("harm", "reason"), [(crash, "crashes"), (take_all_memory, "MemoryError")])
def test_a_matlab_file_that_harms_its_reader_is_refused(tmp_path, monkeypatch, harm, reason):
    (tmp_path / "joints.mat").write_bytes(mat_bytes({"joints": np.zeros((14, 3, 1))}))
    monkeypatch.setattr(matlab, "loadmat", harm)
    with pytest.raises(UserError, match=rf"joints.mat: not readable as a MATLAB file \(.*{reason}"):
        read_extended(tmp_path / "joints.mat", tmp_path, [1, 1])
