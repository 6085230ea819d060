"""Every command in README.md and docs/ runs, or the page says why not; what the pages name is there."""

import ast
import json
import re
import shlex
import shutil
import sys
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

import cv2
import pytest
import torch
from checkout import ROOT, with_sections
from dvc.utils.hydra import apply_overrides
from PIL import Image

import rsnlib
from rsnlib.__main__ import main
from rsnlib.apps.readme import pages
from rsnlib.config import load_params

PAGES = pages(ROOT)
BLOCK = re.compile(r"^(?:<!-- ([^\n]+) -->\n)?```(\S*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
RUN_BY = re.compile(r"run by tests/(test_\w+\.py::test_\w+)")
SIZE = (64, 64)


class Block(NamedTuple):
    """A fenced block of a page; remark: the comment before it, "" without one."""

    remark: str
    language: str
    text: str


def blocks(page):
    """Return the blocks of a page that hold something to type, in their order."""
    found = [Block(*match.groups("")) for match in BLOCK.finditer(page.read_text())]
    return [block for block in found if block.language not in ("{toctree}", "{eval-rst}")]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_block_that_is_not_run_says_why(page):
    for block in blocks(page):
        assert block.language in ("sh", "python", "yaml"), block
        if block.remark:
            assert RUN_BY.fullmatch(block.remark) or block.remark.startswith("not run here: "), block


def test_the_tests_that_pages_name_are_there():
    named = {name for page in PAGES for name in re.findall(r"test_\w+\.py(?:::test_\w+)?", page.read_text())}
    assert len(named) > 20
    for name in named:
        file, _, test = name.partition("::")
        tree = ast.parse((ROOT / "tests" / file).read_text())
        assert not test or test in {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}, name


def test_the_reference_has_every_name_of_the_library():
    documented = re.findall(r"auto\w+:: rsnlib\.(\w+)$", (ROOT / "docs/api.md").read_text(), re.MULTILINE)
    assert sorted(documented) == rsnlib.__all__


def test_queued_overrides_take_effect(tmp_path):
    page = (ROOT / "docs/experiments.md").read_text()
    overrides = re.findall(r"--queue --name \w+ -S datasets\.demo\.recipe\.(\S+)=(\S+)", page)
    assert len(overrides) == 3
    for key, value in overrides:
        path = tmp_path / "params.yaml"
        shutil.copy(ROOT / "params.yaml", path)
        apply_overrides(path, [f"datasets.demo.recipe.{key}={value}"])
        recipe = asdict(load_params(path).dataset("demo").recipe)
        section, _, name = key.rpartition(".")
        assert (recipe[section] if section else recipe)[name] == float(value)


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text()) <= 9000


# ---- commands


@pytest.fixture(scope="session")
def released(tmp_path_factory):
    """An RSN-18 with random weights in the released code's format and in MMPose's: two paths."""
    folder = tmp_path_factory.mktemp("released")
    model = rsnlib.create_model("rsn18")
    for format in ("rsn", "mmpose"):
        rsnlib.save_checkpoint(model, folder / format, format)
    return folder / "rsn", folder / "mmpose"


@pytest.fixture
def desk(project, released, publish, mpii_folder, draw_dot):
    """A project with everything that the pages' commands take: pictures, boxes, weights, COCO and MPII in small."""
    ours, theirs = released
    shutil.copy(ours, "iter-96000.pth")
    publish(theirs.read_bytes())
    for name, keypoints in {"one": 17, "another": 17, "mpii": 16}.items():
        network = {"block": "residual_steps", "depths": [1, 1, 1, 1], "width": 0.25}
        rsnlib.save_model(rsnlib.create_model(network, keypoints, SIZE), f"{name}.safetensors")
    shutil.copy("work/models/demo/steps-prm-0.safetensors", "work/models/demo/rsn18-small-0.safetensors")

    shutil.copytree(ROOT / "weights", "weights")

    picture = Image.fromarray(draw_dot(300, 200, 90, 150))
    Path("folder").mkdir()
    for path in ("picture.jpg", "folder/another.jpg"):
        picture.save(path)
    writer = cv2.VideoWriter("clip.mp4", cv2.VideoWriter_fourcc(*"mp4v"), 10, (200, 300))
    for _ in range(3):
        writer.write(cv2.imread("picture.jpg"))
    writer.release()
    box = {"category_id": 1, "bbox": [30, 20, 120, 260], "score": 0.9}
    names = ("picture.jpg", "folder/another.jpg", "clip.mp4")
    Path("boxes.json").write_text(json.dumps([box | {"file_name": name} for name in names]))

    shutil.copytree("data/demo", "data/coco")
    shutil.copytree(mpii_folder, "data/mpii")
    shutil.copytree("data/coco/images/val2017", "data/coco/images/test2017")
    listing = json.loads(Path("data/coco/annotations/person_keypoints_val2017.json").read_text())
    found = [box | {"image_id": each["image_id"], "bbox": each["bbox"]} for each in listing.pop("annotations")]
    Path("data/coco/annotations/image_info_test-dev2017.json").write_text(json.dumps(listing))
    Path("detections.json").write_text(json.dumps(found))


def type_in(line, monkeypatch):
    """Run a line of a shell block, which must be a command of the library, in this process."""
    python, *arguments = shlex.split(line, comments=True)
    assert [python, *arguments[:2]] == ["python", "-m", "rsnlib"], f"{line}: say before the block who runs it"
    monkeypatch.setattr(sys, "argv", arguments[1:])
    main()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_command_of_a_page_runs(page, desk, monkeypatch):
    names = {"images": torch.zeros(1, 3, 256, 192)}
    for block in blocks(page):
        if block.remark:
            continue
        if block.language == "python":
            exec(block.text, names)
        elif block.language == "yaml":
            Path("example.yaml").write_text(with_sections(block.text))
            load_params("example.yaml")
        else:
            for line in block.text.replace("\\\n", "").splitlines():
                type_in(line, monkeypatch)
