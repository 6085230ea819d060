"""Videos read and written frame by frame, one frame in memory at a time."""

import contextlib
import os
import tempfile
from pathlib import Path

import cv2

from rsnlib.errors import UserError
from rsnlib.files import writing

# `Video` says what is wrong with a file: FFmpeg and OpenCV need not print their details
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_ERROR)

CODEC = cv2.VideoWriter_fourcc(*"mp4v")


class Video:
    """The frames of a video file: iterate for RGB uint8 (H, W, 3), upright. Raises UserError for an unreadable file.

    fps: frames per second; announced: the number of frames by the file's own account, 0 for a file without one
    count: the number of frames read so far
    """

    def __init__(self, path):
        self.count = 0
        self.capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
        if not self.capture.isOpened():
            raise UserError(f"{path}: not readable as a video")
        self.fps = self.capture.get(cv2.CAP_PROP_FPS) or 25.0
        self.announced = max(0, int(self.capture.get(cv2.CAP_PROP_FRAME_COUNT)))

    def __iter__(self):
        while True:
            found, frame = self.capture.read()
            if not found:
                return
            self.count += 1
            yield cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)

    @property
    def broke_off(self):
        """True if more than one announced frame was missing; a file that is whole may announce one too many."""
        return self.count < max(1, self.announced - 1)


@contextlib.contextmanager
def whole_video(path, fps):
    """Yield a function that adds an RGB frame (H, W, 3) to the video `path`, which appears only when complete."""
    with writing(path), tempfile.TemporaryDirectory(dir=path.parent, prefix=".") as folder:
        unfinished, writer, count = str(Path(folder, path.name)), cv2.VideoWriter(), 0

        def add(frame):
            nonlocal count
            count += 1
            size = frame.shape[1::-1]
            if not writer.isOpened() and not writer.open(unfinished, cv2.CAP_FFMPEG, CODEC, fps, size):
                shown = "{} x {} pixels".format(*size)
                raise UserError(f"{path}: a video of {shown} at {fps:g} frames per second cannot be written")
            writer.write(cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))

        try:
            yield add
        finally:
            writer.release()
        if count:
            if cv2.VideoCapture(unfinished, cv2.CAP_FFMPEG).get(cv2.CAP_PROP_FRAME_COUNT) < count:
                raise UserError(f"{path}: cannot be written whole; is there no room left?")  # OpenCV does not say
            os.replace(unfinished, path)
