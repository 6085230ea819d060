"""Videos, cameras and streams read, videos written, frame by frame."""

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
    """Some frames of a video file, of a camera or of a stream: iterate for (number, RGB uint8 (H, W, 3), upright).

    source: a path, the number of a camera as text, or an address ("rtsp://..."); every: take each so manieth frame
    fps: of those taken, per second; announced: the number of frames by the file's own account, 0 without one
    size: height and width; count: the number of frames read so far. Raises UserError for what is not readable.
    """

    def __init__(self, source, every=1):
        self.count, self.every = 0, every
        camera = isinstance(source, str) and source.isdecimal()
        given = (int(source), cv2.CAP_ANY) if camera else (str(source), cv2.CAP_FFMPEG)
        self.capture = cv2.VideoCapture(*given)
        if not self.capture.isOpened():
            raise UserError(f"{source}: " + ("no camera of this number opens" if camera else "not readable as a video"))
        self.fps = (self.capture.get(cv2.CAP_PROP_FPS) or 25.0) / every
        self.announced = max(0, int(self.capture.get(cv2.CAP_PROP_FRAME_COUNT)))
        self.size = tuple(int(self.capture.get(side)) for side in (cv2.CAP_PROP_FRAME_HEIGHT, cv2.CAP_PROP_FRAME_WIDTH))

    def __iter__(self):
        while self.capture.grab():
            if self.count % self.every == 0:
                found, frame = self.capture.retrieve()
                if not found:
                    return
                yield self.count, cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)
            self.count += 1

    @property
    def broke_off(self):
        """True if more than one announced frame was missing; a file that is whole may announce one too many."""
        return self.count < max(1, self.announced - 1)


@contextlib.contextmanager
def whole_video(path):
    """Yield a function that adds an RGB frame (H, W, 3) to the video `path` of some frames per second, which appears
    only when complete."""
    with writing(path), tempfile.TemporaryDirectory(dir=path.parent, prefix=".") as folder:
        unfinished, writer, count = str(Path(folder, path.name)), cv2.VideoWriter(), 0

        def add(frame, fps):
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
