"""Weights published by others, by name: downloaded once, checked against the digest in their file's name, kept."""

import hashlib
import re
import socket
import sys
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from urllib.error import HTTPError, URLError

import torch

from rsnlib.errors import UserError
from rsnlib.files import writing

PATIENCE = 60  # seconds without an answer after which a download is given up


@dataclass(frozen=True)
class Published:
    """A file of weights, with the first eight digits of its SHA-256 in its name."""

    network: str  # of zoo.list_models()
    url: str
    keypoints: int = 17
    licence: str = "Apache-2.0"

    @property
    def digest(self):
        """First eight digits of the file's SHA-256."""
        return re.search(r"-([0-9a-f]{8})_", self.url)[1]

    @property
    def path(self):
        """Path at which torch.hub keeps the file, and so MMPose."""
        return Path(torch.hub.get_dir(), "checkpoints", self.url.rpartition("/")[2])


MMPOSE = "https://download.openmmlab.com/mmpose/"
MMPOSE_RSN = MMPOSE + "v1/body_2d_keypoint/topdown_heatmap/coco/td-hm_{}_8xb32-210e_coco-256x192-{}_20221013.pth"
MMPOSE_MSPN = MMPOSE + "top_down/mspn/{}_coco_256x192-{}_20201123.pth"
PUBLISHED = {  # MMPose, configs/body_2d_keypoint/topdown_heatmap/coco, rsn_coco.md and mspn_coco.md
    "mmpose/rsn18": Published("rsn18", MMPOSE_RSN.format("rsn18", "9049ed09")),
    "mmpose/rsn50": Published("rsn50-mmpose", MMPOSE_RSN.format("rsn50", "c35901d5")),
    "mmpose/2xrsn50": Published("2xrsn50-mmpose", MMPOSE_RSN.format("2xrsn50", "9ede341e")),
    "mmpose/3xrsn50": Published("3xrsn50-mmpose", MMPOSE_RSN.format("3xrsn50", "c3e3c4fe")),
    "mmpose/mspn50": Published("mspn50", MMPOSE_MSPN.format("mspn50", "8fbfb5d0")),
    "mmpose/2xmspn50": Published("2xmspn50", MMPOSE_MSPN.format("2xmspn50", "c8765a5c")),
    "mmpose/3xmspn50": Published("3xmspn50", MMPOSE_MSPN.format("3xmspn50", "e348f18e")),
    "mmpose/4xmspn50": Published("4xmspn50", MMPOSE_MSPN.format("4xmspn50", "7b837afb")),
}


def published_file(name):
    """Return the path of the weights that PUBLISHED has under `name`, downloaded if they are not there yet.

    The digest is checked each time, about a second per 2 GB. Raises UserError where the file is damaged, cannot be
    downloaded or cannot be written; nothing is left of a download that fails.
    """
    published = PUBLISHED[name]
    path = published.path
    if not path.is_file():
        _download(name, published)
        return path
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from None
    if not digest.startswith(published.digest):
        raise UserError(
            f"{path}: cut short or not the file of {name} ({path.stat().st_size:,} bytes, SHA-256 {digest[:8]}..., "
            f"not {published.digest}...): delete it, and it is downloaded again"
        )
    return path


def _download(name, published):
    """Put a published file where torch.hub keeps it, whole or not at all; a bar on stderr shows the progress."""
    path, waits = published.path, socket.getdefaulttimeout()
    by_hand = f"put the file by hand into {path.parent} as {path.name}"
    print(f"{name}: {published.url} -> {path}", file=sys.stderr)
    socket.setdefaulttimeout(PATIENCE)  # torch.hub itself would wait for ever
    try:
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                torch.hub.download_url_to_file(published.url, str(path), published.digest)
            except (URLError, HTTPException, ConnectionError, TimeoutError) as error:
                reason = error if isinstance(error, HTTPError) else getattr(error, "reason", error)
                raise UserError(
                    f"{name}: {published.url} cannot be downloaded ({reason}); without a network, {by_hand}"
                ) from None
            except RuntimeError:  # the digest
                raise UserError(
                    f"{name}: {published.url} arrived cut short, or is another file now (its SHA-256 does not begin "
                    f"with {published.digest}), and was not kept: try again, or {by_hand}"
                ) from None
    finally:
        socket.setdefaulttimeout(waits)
