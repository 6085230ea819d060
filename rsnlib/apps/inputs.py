"""Pictures, videos, cameras and streams to predict in: found by their names, then read one after another."""

import itertools
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np

from rsnlib.apps.videos import Video
from rsnlib.data.images import read_picture
from rsnlib.errors import UserError

PICTURES = (".avif", ".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
UNREAD = (".heic", ".heif")
VIDEOS = (".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm")
NAMES = ", ".join(PICTURES + VIDEOS)


def find_files(inputs):
    """Return the pictures and videos (paths), cameras and streams (str) that `inputs` name, each once, and the problems
    (messages) of the rest.

    A number without a file of this name is a camera; "://" is in the address of a stream. In a folder, hidden files and
    those not named as pictures or videos are passed over.
    """
    files, problems = {}, []
    for given in map(str, inputs):
        path = Path(given)
        if "://" in given or (given.isdecimal() and not path.exists()):
            files[given] = given
            continue
        found = [path]
        try:
            if path.is_dir():
                named = [file for file in sorted(path.iterdir()) if file.suffix.lower() in PICTURES + UNREAD + VIDEOS]
                found = [file for file in named if not file.name.startswith(".") and not file.is_dir()]
        except OSError as error:
            problems.append(f"{path}: not readable ({error.strerror})")
            continue
        if not found:
            problems.append(f"{path}: a folder without pictures or videos ({NAMES}); folders in it are not searched")
        for file in found:
            if not file.exists():
                problems.append(f"{file}: no such file or folder")
            elif file.suffix.lower() in UNREAD:
                problems.append(f"{file}: pictures of this kind are not read; save it as JPEG or PNG")
            elif file.suffix.lower() not in PICTURES + VIDEOS:
                problems.append(f"{file}: neither a picture nor a video by its name ({NAMES})")
            else:
                files.setdefault(os.path.abspath(file), file)
    return list(files.values()), problems


def is_live(file):
    """Return True for a camera or a stream."""
    return isinstance(file, str)


def is_video(file):
    """Return True for everything that has frames: a video, a camera or a stream."""
    return is_live(file) or file.suffix.lower() in VIDEOS


def overlay_paths(files, output):
    """Return {file: the path of its overlay}: its name as .jpg or .mp4 in the folder `output`, followed by -2, -3, ...
    if an earlier file has taken the name."""
    paths, taken = {}, set()  # names in small letters, which some file systems do not tell from large ones
    for file in files:
        suffix, stem = ".mp4" if is_video(file) else ".jpg", _stem(file)
        names = itertools.chain([stem], (f"{stem}-{number}" for number in itertools.count(2)))
        name = next(name + suffix for name in names if (name + suffix).lower() not in taken)
        taken.add(name.lower())
        paths[file] = output / name
    return paths


def _stem(file):
    if not is_live(file):
        return file.stem
    return f"camera-{file}" if file.isdecimal() else Path(urlsplit(file).path).stem or "stream"


@dataclass
class Source:
    """One picture, or one frame of a video, on its way through the network."""

    file: Path | str
    video: Video | None = None
    frame: int | None = None
    picture: np.ndarray | None = None  # the frame, (H, W, 3)
    faults: Iterable[str] = ()  # messages about boxes that are left out
    problem: str | None = None  # what stands against the picture or, without a picture, against the rest of the file

    def read(self):
        """Return the picture, RGB uint8 (H, W, 3). Raises UserError."""
        if self.problem:
            raise UserError(self.problem)
        return read_picture(self.file) if self.picture is None else self.picture


def sources(files, every, interrupted, given_up):
    """Yield a Source for each picture and for each so manieth frame of the others among `files`.

    interrupted: an event that ends the reading; given_up: files whose further frames are not read, a set
    """
    for file in files:
        try:
            if is_video(file):
                video = Video(file, every)
                for frame, picture in video:
                    if interrupted.is_set() or file in given_up:
                        break
                    yield Source(file, video, frame, picture)
                else:
                    if video.broke_off:
                        shown = f"{video.count} of {video.announced} frames are readable, and done"
                        raise UserError(f"{file}: breaks off: {shown}")
            elif not interrupted.is_set():
                yield Source(file)
            if interrupted.is_set() and not is_live(file):
                raise UserError(f"{file}: interrupted; what was read before is done")
        except UserError as error:
            yield Source(file, problem=str(error))
        if interrupted.is_set():
            return
