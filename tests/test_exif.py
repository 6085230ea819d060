"""Photos that their camera marked as rotated: read as the annotations saw them."""

import json

import numpy as np
import pytest
from PIL import ExifTags, Image

from rsnlib.data.images import check_images, read_image
from rsnlib.data.readers import read_people
from rsnlib.data.skeletons import COCO
from rsnlib.data.store import CropStore, write_crop_store
from rsnlib.errors import UserError
from rsnlib.inference.predict import predict_people
from rsnlib.models.zoo import create_model
from rsnlib.stages.prepare import describe


def photo(folder, orientation, size, seen=(40, 60)):
    """Write a data set of one person, annotated in a picture of `seen`, (height, width), in a photo of `size`, dark but
    for a bright upper left quarter, whose EXIF has the orientation; return the folder."""
    pixels = np.zeros((*size, 3), np.uint8)
    pixels[: size[0] // 2, : size[1] // 2] = 255
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    (folder / "photos").mkdir(parents=True)
    Image.fromarray(pixels).save(folder / "photos/a.png", exif=exif)
    person = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, seen[1], seen[0]], "area": 100.0, "iscrowd": 0}
    person |= {"keypoints": [5, 5, 2] * 17, "num_keypoints": 17}
    image = {"id": 1, "file_name": "a.png", "height": seen[0], "width": seen[1]}
    categories = [{"id": 1, "name": "person", "keypoints": list(COCO.keypoints)}]
    content = {"images": [image], "annotations": [person], "categories": categories}
    (folder / "people.json").write_text(json.dumps(content))
    return folder


def read(folder, exif="ignore"):
    return read_people(folder, "coco", {"annotations": "people.json", "images": "photos"}, exif=exif)


def bright(picture):
    """The quarter of a picture that is bright: rows, columns."""
    height, width = picture.shape[:2]
    return [place for place in ("tl", "tr", "bl", "br") if picture[
        (height // 4 if place[0] == "t" else 3 * height // 4), (width // 4 if place[1] == "l" else 3 * width // 4)
    ].min() > 200]  # fmt: skip


@pytest.mark.parametrize(
    ("orientation", "size", "exif", "quarter"),
    [
        (6, (60, 40), "ignore", "tr"),  # annotated turned: a quarter to the right
        (8, (60, 40), "ignore", "bl"),
        (6, (40, 60), "apply", "tl"),  # annotated as stored
        (3, (40, 60), "ignore", "tl"),  # either size fits: the key decides
        (3, (40, 60), "apply", "br"),
        (2, (40, 60), "apply", "tr"),
        (4, (40, 60), "apply", "bl"),
        (1, (40, 60), "apply", "tl"),
    ],
)
def test_a_photo_is_turned_where_its_annotations_are(tmp_path, orientation, size, exif, quarter):
    people = read(photo(tmp_path / "data", orientation, size), exif)
    picture = read_image(people.images[0], people.upright[0])
    assert picture.shape == (40, 60, 3) and bright(picture) == [quarter]
    write_crop_store(tmp_path / "val.safetensors", people, (64, 96), (0, 0))
    store = CropStore(tmp_path / "val.safetensors")
    assert bright(store.window(0)) == [quarter] and store.people.upright.tolist() == people.upright.tolist()
    write_crop_store(tmp_path / "train.safetensors", people, (64, 96), (0, 0), np.ones(2))
    assert bright(CropStore(tmp_path / "train.safetensors").window(0)) == [quarter]


def test_evaluation_cuts_people_from_the_turned_photo(tmp_path, monkeypatch):
    people, seen = read(photo(tmp_path, 6, (60, 40))), []
    monkeypatch.setattr("rsnlib.inference.predict.warp", lambda picture, _, size: seen.append(picture) or zeros(size))
    predict_people([create_model("res18", input_size=(64, 96)).eval()], people, (0, 0))
    assert [bright(picture) for picture in seen] == [["tr"]]


def zeros(size):
    return np.zeros((*size, 3), np.uint8)


def test_the_pictures_that_exif_concerns_are_listed_with_how_they_are_read(tmp_path):
    people = {"train": read(photo(tmp_path / "a", 3, (40, 60))), "val": read(photo(tmp_path / "b", 6, (60, 40)))}
    assert describe(people)["marked as rotated"].tolist() == [
        "a.png: EXIF orientation 3: as stored, by `exif: ignore`",
        "a.png: EXIF orientation 6: upright, by its annotation's size",
    ]
    assert read(photo(tmp_path / "c", 1, (40, 60))).exif == ()
    assert [how for _, how in read(photo(tmp_path / "d", 8, (40, 40), (40, 40)), "apply").exif] == [
        "EXIF orientation 8: upright, by `exif: apply`"
    ]


def test_a_size_that_fits_neither_way_names_exif(tmp_path):
    folder = photo(tmp_path, 6, (50, 40))
    reason = r"is 40 x 50 pixels \(or turned, as EXIF says, 50 x 40\), its annotation says 60 x 40"
    with pytest.raises(UserError, match=reason):
        read(folder)


def test_unreadable_exif_says_nothing(tmp_path, make_people):
    image = Image.new("RGB", (60, 40))
    image.save(tmp_path / "a.jpg", exif=b"Exif\0\0" + bytes(range(40)))
    people = make_people(np.zeros((40, 60, 3)), [0, 0, 60, 40], np.full((17, 2), 5), path=tmp_path / "a.jpg")
    found, faults = check_images(people)
    assert (faults, found.exif, found.upright.tolist()) == ({}, (), [False])
