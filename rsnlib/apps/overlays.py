"""Poses in pictures and videos: an overlay of each, skeletons drawn in, and one JSON of all poses."""

import contextlib
import itertools
import json
import sys
from pathlib import Path

import cv2
import numpy as np
from matplotlib.colors import to_rgb
from tqdm import tqdm

from rsnlib.apps.inputs import find_files, is_live, is_video, overlay_paths, sources
from rsnlib.apps.tracks import Tracks
from rsnlib.apps.videos import Video, whole_video
from rsnlib.data.batches import ahead
from rsnlib.data.images import read_image_size
from rsnlib.data.people import Unusable
from rsnlib.data.readers.detections import Detections
from rsnlib.device import cores, default_device, keep_memory
from rsnlib.errors import UserError, termination
from rsnlib.fast.folded import fuse
from rsnlib.files import whole_file, writing
from rsnlib.inference.boxes import check_boxes, find_people
from rsnlib.inference.predict import assumption, categories_of, mirrored_keypoints, predict_batches, see, skeleton_of
from rsnlib.metrics import coco_results
from rsnlib.report.drawing import SIDES, limb_side

# the lowest scores of boxes and keypoints that are drawn; 0.5 is a keypoint of which the network saw nothing
SURE_BOX = 0.5
SURE_KEYPOINT = 0.6
COLORS = {side: tuple(round(255 * part) for part in to_rgb(color)) for side, color in SIDES.items()}
OUTLINE = (40, 40, 40)
WHITE = (255, 255, 255)
FRACTION_BITS = 4  # OpenCV draws to 1/16 of a pixel
FARTHEST = 2**20  # pixels; beyond, OpenCV's integers overflow
JPEG_QUALITY = 95
THREADS = min(16, cores())  # that read pictures and cut people from them
CHECKED = 100  # pictures in which boxes are held against the pictures' sizes before anything is done


def predict_files(
    model, inputs, output, boxes=None, *, min_score=0, flip_test=True, decoding=None, every=1, overlays=True
):
    """Write an overlay of each picture and video, and poses.json, into the folder `output`; return the problems.

    model: as load_model gives it
    inputs: paths of pictures, videos, and folders of these (not of folders in them), numbers of cameras and addresses
        of streams; named twice, a file is done once
    output: a folder that does not exist or is empty, so that nothing is ever overwritten
    boxes: the path of a detector's results, as `predict` takes them; None: OpenCV's people detector
    min_score: boxes of a lower score are left out; flip_test, decoding: as for `predict`
    every: each so manieth frame of a video is taken; overlays: False: poses.json alone

    A problem is a message about one input or box; all others are done. Overlays have their input's name, as .jpg or
    .mp4. poses.json is in COCO's results format, with `file_name` (the path as given), `bbox` and, in videos, `frame`
    (from 0) and `track_id` (one number, from 1, for one person in all frames) of each person. `image_id` is the number
    in the picture's name if all have one, as in COCO; else pictures and frames are counted from 1. Ctrl-C ends the
    reading: what was read before is done and written.

    Pictures are read in threads while the network computes, for people of several pictures at a time. Poses are written
    person by person, about 0.9 MB per thousand: no video is too long for memory. Raises UserError for an unusable
    `output` or `boxes`.
    """
    output = Path(output)
    with writing(output):
        empty = not output.exists() or (output.is_dir() and not any(output.iterdir()))
    if not empty:
        raise UserError(f"{output}: exists already and is no empty folder; nothing in it is overwritten: name another")
    skeleton, categories = skeleton_of(model), categories_of(model)
    if flip_test:
        mirrored_keypoints(model)  # refuses an ambiguous skeleton before anything is written
    if note := assumption(model):
        print(f"note: {note}", file=sys.stderr)
    detections = None if boxes is None else Detections(boxes, categories, min_score)
    files, problems = find_files(inputs)
    if not files:
        return problems
    if detections and detections.by_picture and not any(map(detections.know, files)):
        raise UserError(f"{boxes}: none of its boxes is of any of these pictures; it tells them by file name or number")
    if detections:
        detections.check(_sizes(filter(detections.know, files)))
    keep_memory()
    model, given_up = fuse(model, default_device()), set()

    def look(source):
        """Return everything that the network sees of a Source, `Seen`."""
        picture, found = np.zeros((0, 0, 3), np.uint8), np.zeros((0, 5))
        try:
            picture = source.read()
            if detections:
                found, source.faults = detections.find(source.file, picture.shape[:2], source.frame)
            else:
                found = check_boxes(find_people(picture), picture)
        except UserError as error:
            source.problem = str(error)
        return see(model, picture, found, source)

    numbers = [file.stem for file in files if not is_video(file) and file.stem.isdecimal()]
    numbered = len(files) == len(set(map(int, numbers)))  # all are pictures named by different numbers
    count, paths = itertools.count(1), overlay_paths(files, output)
    with writing(output):
        output.mkdir(parents=True, exist_ok=True)
    with termination() as interrupted, whole_file(output / "poses.json", "w") as poses_json:
        seen = ahead(sources(files, every, interrupted, given_up), look, THREADS + 1, THREADS)
        batches = ahead(predict_batches(model, seen, flip_test, decoding), lambda batch: batch, 1)
        by_file = itertools.groupby(itertools.chain.from_iterable(batches), lambda found: found[0].about.file)
        separator = "[\n"
        for file, pictures in tqdm(by_file, total=len(files), unit="file"):
            kind = whole_video if is_video(file) else whole_picture
            tracks = Tracks(skeleton) if is_video(file) else None
            try:
                with kind(paths[file]) if overlays else contextlib.nullcontext() as add:
                    for seen, poses in _with_bar(file, pictures):
                        source = seen.about
                        problems += [*source.faults, *([source.problem] if source.problem else [])]
                        if source.problem:
                            continue
                        followed = tracks and tracks.follow(poses)
                        if overlays:
                            fps = source.video and source.video.fps
                            add(draw_poses(seen.picture, poses, skeleton, followed), fps)
                        image_id = int(file.stem) if numbered else next(count)
                        for person in _results(source, image_id, categories[0], poses, followed):
                            poses_json.write(separator + json.dumps(person))
                            separator = ",\n"
            except UserError as error:
                problems.append(str(error))
                given_up.add(file)
        poses_json.write("[]\n" if separator == "[\n" else "\n]\n")
    return problems


def _sizes(files):
    """Return {path: (height, width)} of the first of the files that can be read."""
    sizes = {}
    for file in itertools.islice(itertools.filterfalse(is_live, files), CHECKED):
        with contextlib.suppress(UserError, Unusable):
            sizes[file] = Video(file).size if is_video(file) else read_image_size(file)
    return sizes


def _with_bar(file, pictures):
    """Yield `pictures`, (Seen, Poses) each, of a file; of a video with a progress bar."""
    if not is_video(file):
        yield from pictures
        return
    first = next(pictures)
    video = first[0].about.video
    total = video and video.announced // video.every or None
    name = file if is_live(file) else file.name
    yield from tqdm(itertools.chain([first], pictures), desc=name, total=total, unit="frame", leave=False)


def draw_poses(picture, poses, skeleton, numbers=None):
    """Return a copy of an RGB picture with boxes and skeletons drawn in, left blue, right orange, with lines in
    proportion to the box; boxes and keypoints of low score are left out. numbers: (P,), written at the boxes"""
    drawn, options = picture.copy(), {"lineType": cv2.LINE_AA, "shift": FRACTION_BITS}
    for row in np.flatnonzero(poses.box_scores >= SURE_BOX):
        box, sure = poses.boxes[row], poses.scores[row] >= SURE_KEYPOINT
        width = max(1, round(max(box[2:]) / 120))
        corners = _drawable(box[:2]), _drawable(box[:2] + box[2:])
        cv2.rectangle(drawn, *corners, WHITE, max(1, width // 2), **options)
        points = [_drawable(point) for point in poses.keypoints[row]]
        limbs = [(a, b) for a, b in skeleton.limbs if sure[a] and sure[b]]
        for a, b in limbs:
            cv2.line(drawn, points[a], points[b], OUTLINE, width + 2, **options)
        for a, b in limbs:
            cv2.line(drawn, points[a], points[b], COLORS[limb_side(skeleton, a, b)], width, **options)
        for point in np.flatnonzero(sure):
            radius = round((1 + width) * 2**FRACTION_BITS)
            cv2.circle(drawn, points[point], radius, COLORS[skeleton.side(point)], cv2.FILLED, **options)
        if numbers is not None:
            size = 0.3 + 0.25 * width
            left, top = np.clip(box[:2], 0, FARTHEST).astype(int)
            place, font = (int(left + 2 * width), int(top + 2 * width + 22 * size)), cv2.FONT_HERSHEY_SIMPLEX
            for color, thickness in ((OUTLINE, width + 2), (WHITE, width)):
                cv2.putText(drawn, str(numbers[row]), place, font, size, color, thickness, cv2.LINE_AA)
    return drawn


def _drawable(point):
    """Return (x, y) in the fixed-point numbers that OpenCV draws with."""
    return tuple(int(value) for value in np.round(np.clip(point, -FARTHEST, FARTHEST) * 2**FRACTION_BITS))


@contextlib.contextmanager
def whole_picture(path):
    """Yield a function that writes an RGB picture (H, W, 3) to `path` as JPEG; of frames per second it has none."""

    def add(picture, fps=None):
        options = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]
        written, encoded = cv2.imencode(".jpg", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), options)
        if not written:
            raise UserError(f"{path}: its overlay cannot be written as JPEG")
        with whole_file(path) as file:
            file.write(encoded.tobytes())

    yield add


def _results(source, image_id, category, poses, numbers):
    """Yield one object of poses.json per person. numbers: (P,), the people's in a video, None in a picture"""
    ids, categories = ([number] * len(poses.boxes) for number in (image_id, category))
    people = coco_results(ids, poses.keypoints, poses.scores, poses.box_scores, categories=categories)
    name = source.file if is_live(source.file) else source.file.as_posix()
    for row, person in enumerate(people):
        person |= {"file_name": name, "bbox": poses.boxes[row].tolist()}
        if numbers is not None:
            person |= {"frame": source.frame, "track_id": numbers[row]}
        yield person
