"""Crops: their place in the picture, their pixels, and the crop store in its two files."""

import io
import json
import os
import subprocess
import sys
import textwrap
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save

from rsnlib.data.geometry import compose, crop_matrix, evaluation_region, invert, transform
from rsnlib.data.images import normalise, quick_warp, read_image, warp
from rsnlib.data.store import CropStore, write_crop_store
from rsnlib.errors import UserError

SIZE = (64, 48)
MARGIN = (0.09, 0.135)
REACH = np.array([2.0, 2.0])


@pytest.fixture
def stored(tmp_path, make_people):
    """A function: write a picture and the crop store of people in it, and open that."""

    def store(picture, boxes, keypoints=(0, 0), reach=None, name="store.safetensors"):
        path = tmp_path / f"{name}.png"
        Image.fromarray(picture).save(path)
        write_crop_store(tmp_path / name, make_people(picture, boxes, keypoints, path=path), SIZE, MARGIN, reach)
        return CropStore(tmp_path / name)

    return store


def noise(seed, height=90, width=120):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


# ---- regions and matrices


def test_a_box_is_enlarged_then_given_the_crops_aspect():
    narrow, wide = [10, 20, 30, 100], [10, 20, 90, 30]
    center, scale = evaluation_region([narrow, wide], (256, 192), (0.04, 0.04))
    np.testing.assert_allclose(center, [[25, 70], [55, 35]])
    np.testing.assert_allclose(scale, [[78, 104], [93.6, 124.8]])


def test_the_matrix_takes_the_regions_corners_to_the_crops_and_turns_clockwise():
    upright = crop_matrix([[50, 60]], [[24, 32]], 0, (256, 192))
    np.testing.assert_allclose(transform(upright, np.array([[[38, 44], [62, 76]]])), [[[0, 0], [192, 256]]])
    turned = crop_matrix([[50, 60]], [[24, 32]], 90, (64, 48))
    points = np.array([[[50, 60], [51, 60]]])
    np.testing.assert_allclose(transform(turned, points), [[[24, 32], [24, 30]]])
    np.testing.assert_allclose(
        transform(compose(upright, turned), points), transform(upright, transform(turned, points))
    )
    np.testing.assert_allclose(transform(invert(turned), transform(turned, points)), points)


@pytest.mark.shared
def test_matrices_are_those_of_the_released_code(shared):
    golden = np.load(shared / "goldens/affine.npz")
    for size, rows in (((256, 192), slice(0, None, 2)), ((256, 256), slice(1, None, 2))):
        center, scale, rotation, wanted = (golden[k][rows] for k in ("center", "scale", "rotation", "matrix"))
        found = crop_matrix(center, scale * 200, rotation, size)
        np.testing.assert_allclose(found, wanted, atol=1e-5 * np.abs(wanted).max())  # released: float32


# ---- pixels


@pytest.mark.shared
def test_crops_are_those_of_the_released_code(shared):
    images = np.load(shared / "goldens/crops.npz")["images"]
    annotations = json.loads((shared / "data/coco/annotations/person_keypoints_val2017.json").read_text())
    boxes = {annotation["id"]: annotation["bbox"] for annotation in annotations["annotations"]}
    rows = json.loads((shared / "goldens/crops.json").read_text())["rows"]
    for row, wanted in zip(rows, images, strict=True):
        center, scale = evaluation_region([boxes[row["annotation_id"]]], (256, 192), MARGIN)
        np.testing.assert_allclose(center[0], row["center"], atol=1e-3)
        np.testing.assert_allclose(scale[0], np.array(row["scale"]) * 200, atol=1e-3)
        picture = read_image(shared / f"data/coco/images/val2017/{row['image_id']:012d}.jpg")
        (matrix,) = crop_matrix(center, scale, 0, (256, 192))
        exact, quick = warp(picture, matrix, (256, 192)), quick_warp(picture, matrix, (256, 192))
        assert (np.abs(exact[..., ::-1].astype(int) - wanted) <= 1).mean() > 0.99  # released: BGR
        assert np.abs(quick[..., ::-1].astype(int) - wanted).mean() < 0.5  # grey levels


def test_the_warp_without_change_gives_the_picture_and_black_outside():
    np.testing.assert_array_equal(warp(noise(0, *SIZE), np.eye(2, 3), SIZE), noise(0, *SIZE))
    crop = warp(np.full((40, 40, 3), 200, np.uint8), crop_matrix([[0, 20]], [[24, 32]], 0, SIZE)[0], SIZE)
    assert (crop[:, :22] == 0).all() and (crop[:, 26:] == 200).all()


def test_a_crop_of_a_part_is_that_of_the_whole_picture_to_the_last_bit(monkeypatch):
    random = np.random.default_rng(0)
    pictures = [random.integers(0, 256, (*size, 3), dtype=np.uint8) for size in random.integers(1, 700, (300, 2))]
    sizes = np.array([picture.shape[1::-1] for picture in pictures])
    center, scale = random.uniform(-0.2, 1.2, (300, 2)) * sizes, random.uniform(1, 900, (300, 1)) * [3, 4]
    matrices = crop_matrix(center, scale, random.uniform(-180, 180, 300), SIZE)
    of_parts = [warp(*each, SIZE) for each in zip(pictures, matrices)]
    monkeypatch.setattr("rsnlib.data.images._seen", lambda *_: (slice(None), slice(None)))
    np.testing.assert_array_equal(of_parts, [warp(*each, SIZE) for each in zip(pictures, matrices)])


def test_a_small_crop_of_a_large_picture_takes_little_memory():
    code = """
        import resource, numpy
        from rsnlib.data.geometry import crop_matrix
        from rsnlib.data.images import warp
        picture = numpy.ones((8000, 8000, 3), numpy.uint8)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        crop = warp(picture, crop_matrix([[4000, 4000]], [[300, 400]], 0, (64, 48))[0], (64, 48))
        assert (crop == 1).all()
        print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=True)
    assert float(done.stdout) < 100  # MiB; the whole picture would take 730


def test_pixels_are_normalised_with_imagenets_numbers():
    images = normalise(np.full((1, 2, 2, 3), 255, np.uint8))
    assert images.shape == (1, 3, 2, 2)
    np.testing.assert_allclose(images[0, :, 0, 0], [(1 - 0.485) / 0.229, (1 - 0.456) / 0.224, (1 - 0.406) / 0.225])


def test_an_image_is_read_as_rgb_in_the_orientation_in_which_it_is_stored_or_named(tmp_path):
    red = np.zeros((20, 40, 3), np.uint8)
    red[..., 0] = 255
    turned = Image.Exif()
    turned[0x0112] = 6  # a camera held upright
    Image.fromarray(red).save(tmp_path / "red.jpg", exif=turned)
    image = read_image(tmp_path / "red.jpg")
    assert image.shape == (20, 40, 3)
    assert (image[..., 0] > 250).all() and (image[..., 1:] < 5).all()
    (tmp_path / "text.jpg").write_text("no picture")
    for message in ("text.jpg: not readable", "none.jpg: no such file"):
        with pytest.raises(UserError, match=message):
            read_image(tmp_path / message.partition(":")[0])


# ---- the store


def test_an_evaluation_window_is_the_crop_itself(stored):
    picture = noise(2)
    store = stored(picture, [[30, 20, 40, 50], [-10, 60, 30, 50]])
    matrices = crop_matrix(store.center, store.scale, 0, SIZE)
    np.testing.assert_array_equal(store.matrices, matrices)
    for row in range(2):
        np.testing.assert_array_equal(store.window(row), warp(picture, matrices[row], SIZE))


@pytest.mark.parametrize(
    "box",
    [
        [150, 100, 40, 50],  # smaller than a crop: kept as it is
        [90, 40, 150, 200],  # larger: reduced
        [-40, 90, 250, 90],  # partly outside the picture
    ],
)
def test_the_windows_matrix_puts_keypoints_on_the_same_pixels(stored, draw_dot, find_dot, box):
    dot = np.array([161.0, 120.0])
    store = stored(draw_dot(300, 330, *dot), [box], dot, REACH)
    place = transform(store.matrices, store.people.keypoints)[0, 0]
    np.testing.assert_allclose(find_dot(store.window(0)), place, atol=0.25)
    (matrix,) = compose(crop_matrix([dot + 5], [[60, 80]], 30, SIZE), invert(store.matrices))
    (crop,) = store.crops([0], matrix[None])
    np.testing.assert_allclose(find_dot(crop), transform(matrix[None], place[None, None])[0, 0], atol=0.25)


def test_a_window_reaches_as_far_as_augmentation_but_keeps_no_more_detail_than_needed(stored):
    small = stored(noise(3, 300, 300), [[140, 130, 30, 40]], (150, 150), REACH, "small")
    corner = transform(invert(small.matrices), np.array([[[0, 0]]]))[0, 0]
    assert corner == pytest.approx([155 - 50, 150 - 50])  # a crop of 60 x 80 around the centre, rotated anyhow
    assert small.window(0).shape == (100, 100, 3)
    large = stored(noise(3, 300, 300), [[0, 0, 300, 300]], (150, 150), REACH, "large")
    assert large.window(0).shape == (60, 60, 3)  # 1.25 times 64 pixels for the 400 of the box made 3:4
    stretched = stored(noise(3, 300, 300), [[140, 130, 20, 30]], (20, 290), np.array([1.0, 1.0]))
    place = transform(stretched.matrices, stretched.people.keypoints)[0, 0]
    assert (place >= 0).all() and (place < stretched.window(0).shape[1::-1]).all()  # a keypoint outside the box


def test_the_people_are_as_they_were_read_picture_by_picture(tmp_path, make_people):
    picture = noise(4)
    for name in "ab":
        Image.fromarray(picture).save(tmp_path / f"{name}.png")
    people = make_people(picture, [[10 * i, 5, 20, 30] for i in range(4)], np.arange(34).reshape(17, 2), visible=1)
    people = replace(people, images=np.array([str(tmp_path / f"{name}.png") for name in "baba"]))
    write_crop_store(tmp_path / "store", people, SIZE, MARGIN)
    store = CropStore(tmp_path / "store")
    assert store.people.ids.tolist() == [2, 4, 1, 3]
    assert store.input_size == SIZE and len(store) == 4
    for name, array in people.take([1, 3, 0, 2]).arrays.items():
        np.testing.assert_array_equal(getattr(store.people, name), array)


@pytest.mark.parametrize("reach", [None, REACH], ids=["evaluation", "training"])
def test_the_same_people_make_the_same_bytes_and_others_another_fingerprint(stored, tmp_path, reach):
    box, grey = [30, 20, 40, 50], np.full((90, 120, 3), 100, np.uint8)
    others = [stored(grey + 1, [box], (40, 40), reach)]  # pixels that need as many bytes
    others += [stored(grey, [box], (41, 40), reach), stored(grey, [[30, 20, 40, 51]], (40, 40), reach)]
    written = []
    for _ in range(2):
        others.append(stored(grey, [box], (40, 40), reach))
        written.append([(tmp_path / f"store.{suffix}").read_bytes() for suffix in ("safetensors", "bin")])
    assert written[0] == written[1]
    assert len({store.fingerprint for store in others}) == 4


@pytest.mark.parametrize("suffix", ["safetensors", "bin"])
def test_a_store_that_cannot_be_opened_or_was_changed_is_named(stored, tmp_path, suffix):
    stored(noise(5), [[30, 20, 40, 50]])
    path = tmp_path / f"store.{suffix}"
    content, nothing = path.read_bytes(), save({}, {"crops": '"text"'})
    changed = [content.replace(b"coco", b"mpii"), content[:-9] + bytes(9)] if suffix == "safetensors" else []
    for damaged in (b"", b"crops, " * 99, content[:-99], nothing, *changed):
        path.write_bytes(damaged)
        with pytest.raises(UserError, match="store.safetensors: .*prepare"):
            CropStore(tmp_path / "store.safetensors")
    for damage in (path.unlink, path.mkdir):
        damage()
        with pytest.raises(UserError, match="store.safetensors: .*prepare"):
            CropStore(tmp_path / "store.safetensors")


@pytest.mark.parametrize("reach", [None, REACH], ids=["evaluation", "training"])
def test_a_window_with_one_wrong_byte_is_named_with_its_person(stored, tmp_path, reach):
    store = stored(noise(5), [[30, 20, 40, 50], [10, 20, 40, 50]], (30, 30), reach)
    content = bytearray((tmp_path / "store.bin").read_bytes())
    content[-99] ^= 1
    (tmp_path / "store.bin").write_bytes(content)
    store = CropStore(store.path)
    store.window(0)
    damaged = "store.safetensors: the window of person 2 is damaged; run the stage `prepare` again"
    with pytest.raises(UserError, match=damaged):
        store.window(1)
    with pytest.raises(UserError, match=damaged):
        store.crops([0, 1], np.tile(np.eye(2, 3), (2, 1, 1)))


def test_an_interrupted_writer_leaves_the_old_store_and_nothing_else(tmp_path, make_people):
    picture = noise(5)
    Image.fromarray(picture).save(tmp_path / "a.png")
    people = make_people(picture, [[10, 5, 20, 30], [30, 5, 20, 30]], (0, 0), path=tmp_path / "a.png")
    path = tmp_path / "stores" / "train.safetensors"
    write_crop_store(path, people.take([0]), SIZE, MARGIN)
    old = {file: file.read_bytes() for file in path.parent.iterdir()}
    people = replace(people, images=np.array([str(tmp_path / name) for name in ("a.png", "b.png")]))  # no b.png
    with pytest.raises(UserError, match="b.png: no such file"):
        write_crop_store(path, people, SIZE, MARGIN)
    assert {file: file.read_bytes() for file in path.parent.iterdir()} == old


def test_a_full_disk_is_named_and_leaves_no_store(stored, monkeypatch, tmp_path):
    monkeypatch.setattr(os, "fdopen", lambda *_: io.FileIO("/dev/full", "wb"))
    with pytest.raises(UserError, match="store.bin: cannot be written .No space left on device"):
        stored(noise(0), [[20, 20, 40, 50]])
    assert [path.name for path in tmp_path.iterdir()] == ["store.safetensors.png"]
