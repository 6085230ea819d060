"""Weights by name: downloaded once, checked, kept; and one message for each thing that can go wrong."""

import errno
import os
import sys

import numpy as np
import pandas as pd
import pytest
import torch

import rsnlib
from rsnlib.__main__ import main
from rsnlib.apps.weights import find_weights
from rsnlib.errors import UserError
from rsnlib.inference.predict import crop_settings, cut_boxes, decoding_of
from rsnlib.models.published import PUBLISHED, published_file
from rsnlib.models.zoo import create_model, list_models
from rsnlib.stages.networks import published_weights

NAME = "mmpose/rsn18"


def test_published_weights_are_downloaded_once_and_kept_where_torch_hub_keeps_its_files(publish, server):
    path = publish(b"weights")
    assert published_file(NAME) == path == find_weights(NAME) and path.read_bytes() == b"weights"
    assert server.asked == [f"/{path.name}"] and os.listdir(path.parent) == [path.name]


def test_a_published_network_by_name_is_mmposes_and_reads_poses_as_mmpose_does(publish, tmp_path, draw_dot):
    torch.manual_seed(0)
    network = create_model("rsn18").eval()
    rsnlib.save_checkpoint(network, tmp_path / "ours.pth", "mmpose")
    state = torch.load(tmp_path / "ours.pth")["state_dict"]
    meta = {"dataset_meta": {"dataset_name": "coco", "sigmas": np.ones(17, np.float32)}, "epoch": 210}
    torch.save({"meta": meta, "state_dict": state}, tmp_path / "their.pth", _use_new_zipfile_serialization=False)
    publish((tmp_path / "their.pth").read_bytes())

    model = rsnlib.load_model(NAME)
    assert model.about["model"] == PUBLISHED[NAME].network and model.input_size == (256, 192)
    assert (crop_settings(model), decoding_of(model)) == (([0.25, 0.25], 5), "axes")
    box = [[30, 20, 60, 120]]
    _, center, scale = cut_boxes(model, draw_dot(200, 160, 60, 80), np.array(box))
    np.testing.assert_allclose([*center[0], *scale[0]], [60, 80, 1.25 * 120 * 192 / 256, 1.25 * 120])
    weights = model.state_dict()
    convolutions = {name: tensor for name, tensor in network.state_dict().items() if name.endswith("conv.weight")}
    assert len(convolutions) > 50 and all(weights[name].equal(tensor) for name, tensor in convolutions.items())


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("missing", "cannot be downloaded .HTTP Error 404: Not Found.; without a network, put"),
        ("silent", "cannot be downloaded .*timed out.; without a network, put"),
        ("cut", "arrived cut short, or is another file now"),
        ("other", "its SHA-256 does not begin with 01234567.* try again, or put"),
        ("full", "checkpoints/rsn18-.*pth: cannot be written .No space left on device"),
    ],
)
def test_a_download_that_fails_says_why_and_leaves_nothing(publish, server, monkeypatch, fault, message):
    path = publish(b"weights" * 5000, digest="01234567" if fault == "other" else None)
    if fault == "missing":
        server.files.clear()
    if fault == "silent":
        server.delay = 0.5
        monkeypatch.setattr("rsnlib.models.published.PATIENCE", 0.1)
    if fault == "cut":
        server.cut = 12345
    if fault == "full":

        def no_room(*_):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr(torch.hub, "download_url_to_file", no_room)
    with pytest.raises(UserError, match=message) as raised:
        published_file(NAME)
    assert "\n" not in str(raised.value) and str(path.parent) in str(raised.value) and path.name in str(raised.value)
    assert os.listdir(path.parent) == []


def test_a_half_file_is_not_taken_for_the_weights_and_not_deleted(publish, server):
    path = publish(b"weights")
    path.parent.mkdir(parents=True)
    path.write_bytes(b"wei")
    with pytest.raises(UserError, match=f"{path}: cut short or not the file of {NAME} .3 bytes.*: delete it"):
        published_file(NAME)
    assert path.read_bytes() == b"wei" and server.asked == []


@pytest.mark.parametrize(
    "command",
    [
        ["predict", NAME, "picture.jpg", "-o", "out"],
        ["evaluate", NAME, "--dataset", "demo"],
        ["export", NAME, "out.onnx"],
        ["convert", NAME, "out.safetensors"],
    ],
    ids=lambda command: command[0],
)
def test_without_a_network_every_command_names_the_file_and_the_folder_for_it(
    publish, server, project, monkeypatch, command
):
    path = publish()
    server.socket.close()
    monkeypatch.setattr(sys, "argv", ["rsnlib", *command])
    with pytest.raises(SystemExit, match=f"error: {NAME}: http://127.0.0.1:.*pth cannot be downloaded") as raised:
        main()
    said = str(raised.value)
    assert f"put the file by hand into {path.parent} as {path.name}" in said and "\n" not in said
    path.write_bytes(b"weights")
    assert find_weights(NAME) == path


def test_a_name_is_a_path_first_and_an_unknown_one_gets_its_nearest(project, monkeypatch):
    (project / "mmpose").mkdir()
    (project / NAME).write_bytes(b"a user's")
    assert find_weights(NAME).read_bytes() == b"a user's"
    with pytest.raises(UserError, match="mmpose/rsn81: no such file, .* the nearest are mmpose/rsn18"):
        find_weights("mmpose/rsn81")
    with pytest.raises(UserError, match="mmpose/4mspn50: .*mmpose/4xmspn50"):
        find_weights("mmpose/4mspn50")
    with pytest.raises(UserError, match="x.pth: no such file.*`python -m rsnlib weights` lists"):
        find_weights("x.pth")
    monkeypatch.chdir("/")  # outside of any project
    with pytest.raises(UserError, match="demo/plain-0: no such file"):
        find_weights("demo/plain-0")


def test_the_list_has_the_projects_weights_newest_first_and_then_the_published_ones(project, publish, capsys):
    publish()
    run = project / "work/models/demo/plain-0.safetensors"
    (project / "weights").mkdir()
    os.link(run, project / "weights/small.safetensors")
    (project / "work/models/demo/broken.safetensors").write_bytes(b"no weights")
    os.utime(project / "work/models/demo/broken.safetensors", (1, 1))
    table = rsnlib.list_weights().set_index("name")
    own = ["demo/steps-prm-0", "demo/plain-0", "demo/broken", "rsnlib/small"]  # steps-prm was trained last
    assert list(table.index) == own + list(PUBLISHED)
    assert table.loc["demo/plain-0", ["network", "keypoints", "input", "data"]].tolist() == [
        "plain",
        17,
        "64x64",
        "demo",
    ]
    assert 0 <= table.loc["demo/plain-0", "AP"] <= 100 and table.loc["rsnlib/small", "file"].endswith(
        "small.safetensors"
    )
    assert table.loc["mmpose/4xmspn50", ["AP", "AR", "licence"]].tolist() == [76.5, 82.6, "Apache-2.0"]
    assert rsnlib.load_model("rsnlib/small").about == rsnlib.load_model("demo/plain-0").about
    assert table.loc[NAME, "file"] == PUBLISHED[NAME].url
    published_file(NAME)
    assert rsnlib.list_weights().set_index("name").loc[NAME, "file"] == str(PUBLISHED[NAME].path)


@pytest.mark.shared
def test_what_was_published_is_what_was_given(shared):
    given = pd.read_csv(shared / "paper/published_weights.csv", index_col="name")
    ours = published_weights().set_index("name").rename(columns={"network": "model", "licence": "license"})
    pd.testing.assert_frame_equal(
        ours.drop(columns="data"), given[["model", "keypoints", "input", "AP", "AR", "license"]]
    )
    assert {name: each.url for name, each in PUBLISHED.items()} == given["url"].to_dict()
    assert {name: each.digest for name, each in PUBLISHED.items()} == given["sha256_prefix"].to_dict()
    assert set(given["model"]) <= set(list_models())
