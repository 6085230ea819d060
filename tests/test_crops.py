"""Crops: where they come from in the picture, and the crop store as a file."""

import io
import json
import subprocess
import sys
import textwrap
from dataclasses import replace

import cv2
import numpy as np
import pytest
import safetensors
from PIL import Image
from safetensors.numpy import save_file

from rsnlib.data import store as stores
from rsnlib.data.geometry import compose, crop_matrix, evaluation_region, invert, transform
from rsnlib.data.images import normalise, quick_warp, read_image, warp
from rsnlib.data.store import CropStore, write_crop_store
from rsnlib.errors import UserError

SIZE = (64, 48)
ENLARGE = (0.09, 0.135)


@pytest.fixture
def stored(tmp_path, make_people):
    """A function: write a picture and the crop store of people in it, and open that."""

    def store(picture, boxes, keypoints=(0, 0), reach=None, name="store.safetensors"):
        path = tmp_path / f"{name}.png"
        Image.fromarray(picture).save(path)
        write_crop_store(tmp_path / name, make_people(picture, boxes, keypoints, path=path), SIZE, ENLARGE, reach)
        return CropStore(tmp_path / name)

    return store


def noise(seed, height=90, width=120):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


# ---- regions and matrices


@pytest.mark.parametrize(
    ("box", "scale"),
    [([10, 20, 30, 100], (78, 104)), ([10, 20, 90, 30], (93.6, 124.8))],  # too narrow, too wide for 3:4
)
def test_a_box_is_enlarged_then_given_the_crops_aspect(box, scale):
    center, found = evaluation_region([box], (256, 192), (0.04, 0.04))
    np.testing.assert_allclose(center, [[box[0] + box[2] / 2, box[1] + box[3] / 2]])
    np.testing.assert_allclose(found, [scale])


def test_the_matrix_takes_the_regions_corners_to_the_crops():
    matrix = crop_matrix([[50, 60]], [[24, 32]], 0, (256, 192))
    np.testing.assert_allclose(transform(matrix, np.array([[[38, 44], [62, 76]]])), [[[0, 0], [192, 256]]])


def test_rotation_is_clockwise_in_the_picture():
    matrix = crop_matrix([[50, 60]], [[24, 32]], 90, (64, 48))
    np.testing.assert_allclose(transform(matrix, np.array([[[50, 60], [51, 60]]])), [[[24, 32], [24, 30]]])


def test_matrices_compose_and_invert():
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=(2, 5, 2, 3))
    points = rng.normal(size=(5, 4, 2))
    np.testing.assert_allclose(transform(compose(second, first), points), transform(second, transform(first, points)))
    np.testing.assert_allclose(transform(invert(first), transform(first, points)), points)


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
        center, scale = evaluation_region([boxes[row["annotation_id"]]], (256, 192), ENLARGE)
        np.testing.assert_allclose(center[0], row["center"], atol=1e-3)
        np.testing.assert_allclose(scale[0], np.array(row["scale"]) * 200, atol=1e-3)
        picture = read_image(shared / f"data/coco/images/val2017/{row['image_id']:012d}.jpg")
        matrix = crop_matrix(center, scale, 0, (256, 192))
        exact, quick = warp([picture], matrix, (256, 192))[0].numpy(), quick_warp(picture, matrix[0], (256, 192))
        assert (np.abs(exact[..., ::-1].astype(int) - wanted) <= 1).mean() > 0.99  # released: BGR
        assert np.abs(quick[..., ::-1].astype(int) - wanted).mean() < 0.5  # grey levels


def test_the_warp_without_change_gives_the_picture():
    picture = noise(0, *SIZE)
    np.testing.assert_array_equal(warp([picture], np.eye(2, 3)[None], SIZE)[0], picture)


def test_pictures_of_different_sizes_are_warped_together_as_alone():
    pictures = [noise(0, 40, 70), noise(1, 90, 30)]
    matrices = crop_matrix([[20, 20], [15, 45]], [[30, 40], [30, 40]], [10, -30], SIZE)
    together = warp(pictures, matrices, SIZE)
    for row in range(2):
        alone = warp(pictures[row : row + 1], matrices[row : row + 1], SIZE)[0]
        np.testing.assert_allclose(together[row].int(), alone.int(), atol=1)


def test_a_crop_of_a_part_is_that_of_the_whole_picture_to_the_last_bit(monkeypatch):
    random = np.random.default_rng(0)
    sizes = random.integers(1, 700, (300, 2))
    pictures = [random.integers(0, 256, (*size, 3), dtype=np.uint8) for size in sizes]
    center, scale = random.uniform(-0.2, 1.2, (300, 2)) * sizes[:, ::-1], random.uniform(1, 900, (300, 1)) * [3, 4]
    matrices = crop_matrix(center, scale, random.uniform(-180, 180, 300), SIZE)
    of_parts = [warp(pictures[row : row + 3], matrices[row : row + 3], SIZE).numpy() for row in range(0, 300, 3)]
    monkeypatch.setattr("rsnlib.data.images._seen", lambda back, *_: [(slice(None), slice(None))] * len(back))
    of_wholes = [warp(pictures[row : row + 3], matrices[row : row + 3], SIZE).numpy() for row in range(0, 300, 3)]
    np.testing.assert_array_equal(of_parts, of_wholes)


def test_a_small_crop_of_a_large_picture_takes_little_memory():
    code = """
        import resource, numpy
        from rsnlib.data.geometry import crop_matrix
        from rsnlib.data.images import warp
        picture = numpy.ones((8000, 8000, 3), numpy.uint8)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        crop = warp([picture], crop_matrix([[4000, 4000]], [[300, 400]], 0, (64, 48)), (64, 48))
        assert crop.eq(1).all()
        print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=True)
    assert float(done.stdout) < 100  # MiB; the whole picture would take 730


def test_what_lies_outside_the_picture_is_black():
    crop = warp([np.full((40, 40, 3), 200, np.uint8)], crop_matrix([[0, 20]], [[24, 32]], 0, SIZE), SIZE)[0].numpy()
    assert (crop[:, :22] == 0).all() and (crop[:, 26:] == 200).all()


def test_pixels_are_normalised_with_imagenets_numbers():
    images = normalise(np.full((1, 2, 2, 3), 255, np.uint8))
    assert images.shape == (1, 3, 2, 2)
    np.testing.assert_allclose(images[0, :, 0, 0], [(1 - 0.485) / 0.229, (1 - 0.456) / 0.224, (1 - 0.406) / 0.225])


def test_a_picture_is_read_as_rgb_in_the_orientation_it_is_stored_in(tmp_path):
    red = np.zeros((20, 40, 3), np.uint8)
    red[..., 0] = 255
    turned = Image.Exif()
    turned[0x0112] = 6  # a camera held upright
    Image.fromarray(red).save(tmp_path / "red.jpg", exif=turned)
    picture = read_image(tmp_path / "red.jpg")
    assert picture.shape == (20, 40, 3)
    assert (picture[..., 0] > 250).all() and (picture[..., 1:] < 5).all()


def test_an_unreadable_picture_is_named(tmp_path):
    (tmp_path / "text.jpg").write_text("no picture")
    with pytest.raises(UserError, match="text.jpg: not readable"):
        read_image(tmp_path / "text.jpg")
    with pytest.raises(UserError, match="none.jpg: no such file"):
        read_image(tmp_path / "none.jpg")


# ---- the store


def test_an_evaluation_window_is_the_crop_itself(stored):
    picture = noise(2)
    store = stored(picture, [[30, 20, 40, 50], [-10, 60, 30, 50]])
    for row in range(2):
        matrix = crop_matrix(store.center[row : row + 1], store.scale[row : row + 1], 0, SIZE)
        np.testing.assert_array_equal(store.window(row), warp([picture], matrix, SIZE)[0])
        np.testing.assert_array_equal(store.matrices[row], matrix[0])


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
    store = stored(draw_dot(300, 330, *dot), [box], dot, reach=np.array([2.0, 2.0]))
    found = find_dot(store.window(0))
    np.testing.assert_allclose(found, transform(store.matrices, store.people.keypoints)[0, 0], atol=0.25)


def test_a_window_reaches_as_far_as_augmentation_but_keeps_no_more_detail_than_needed(stored):
    small = stored(noise(3, 300, 300), [[140, 130, 30, 40]], (150, 150), reach=np.array([2.0, 2.0]), name="small")
    corner = transform(invert(small.matrices), np.array([[[0, 0]]]))[0, 0]
    assert corner == pytest.approx([155 - 50, 150 - 50])  # a crop of 60 x 80 around the centre, rotated anyhow
    assert small.window(0).shape == (100, 100, 3)
    large = stored(noise(3, 300, 300), [[0, 0, 300, 300]], (150, 150), reach=np.array([2.0, 2.0]), name="large")
    assert large.window(0).shape == (60, 60, 3)  # 1.25 times 64 pixels for the 400 of the box made 3:4


@pytest.mark.parametrize("size", [(300, 330), (64, 32), (5, 7), (33, 65)])
def test_a_crop_is_that_of_the_whole_window(stored, size):
    store = stored(noise(3, *size), [[0, 0, size[1], size[0]]], (3, 3), reach=np.array([2.0, 2.0]))
    random, window = np.random.default_rng(0), store.window(0)
    assert window.shape[:2] == tuple(store.sizes[0])
    for _ in range(50):
        center, scale = random.uniform(-0.2, 1.2, (1, 2)) * window.shape[1::-1], random.uniform(0.1, 1, (1, 2)) * 200
        (matrix,) = crop_matrix(center, scale, random.uniform(-90, 90), store.input_size)
        of_window = quick_warp(window, matrix, store.input_size).astype(int)
        different = (store.crops([0], matrix[None])[0] != of_window).any(axis=2)
        assert different.mean() < 1e-3  # where 1/32 of a pixel is rounded


def test_no_more_is_decoded_than_a_crop_sees(stored, monkeypatch):
    store, decode, shapes = stored(noise(3, 320, 320), [[0, 0, 320, 320]], reach=np.array([3.0, 3.0])), cv2.imdecode, []

    def observed(*given):
        picture = decode(*given)
        shapes.append(picture.shape)
        return picture

    monkeypatch.setattr(cv2, "imdecode", observed)
    (matrix,) = crop_matrix(np.array([[48.0, 40.0]]), np.array([[15.0, 20.0]]), 0, store.input_size)
    store.crops([0], matrix[None])
    assert shapes == [(32, 32, 3)]  # 20 pixels and a margin, in tiles of 8 x 32


def test_keypoints_outside_the_box_are_in_the_window(stored):
    store = stored(noise(3, 300, 300), [[140, 130, 20, 30]], (20, 290), reach=np.array([1.0, 1.0]))
    (x, y), (height, width) = transform(store.matrices, store.people.keypoints)[0, 0], store.window(0).shape[:2]
    assert 0 <= x < width and 0 <= y < height


def test_the_people_are_as_they_were_read_picture_by_picture(tmp_path, make_people):
    picture = noise(4)
    for name in "ab":
        Image.fromarray(picture).save(tmp_path / f"{name}.png")
    people = make_people(picture, [[10 * i, 5, 20, 30] for i in range(4)], np.arange(34).reshape(17, 2), visible=1)
    people = replace(people, images=np.array([str(tmp_path / f"{name}.png") for name in "baba"]))
    write_crop_store(tmp_path / "store", people, SIZE, ENLARGE)
    store = CropStore(tmp_path / "store")
    assert store.people.ids.tolist() == [2, 4, 1, 3]
    assert store.input_size == SIZE and len(store) == 4
    for name in ("ids", "image_ids", "images", "image_sizes", "boxes", "keypoints", "visible", "areas", "scores"):
        np.testing.assert_array_equal(getattr(store.people, name), getattr(people, name)[[1, 3, 0, 2]])


@pytest.mark.parametrize("reach", [None, np.array([2.0, 2.0])], ids=["evaluation", "training"])
def test_the_same_people_make_the_same_bytes(stored, tmp_path, reach):
    stores = [stored(noise(5), [[30, 20, 40, 50]], (40, 40), reach)]
    content = (tmp_path / "store.safetensors").read_bytes()
    stores.append(stored(noise(5), [[30, 20, 40, 50]], (40, 40), reach))
    assert (tmp_path / "store.safetensors").read_bytes() == content
    assert stores[0].fingerprint == stores[1].fingerprint


def test_the_fingerprint_changes_with_people_and_pixels(stored):
    box = [30, 20, 40, 50]
    stores = [stored(noise(5), [box]), stored(noise(6), [box])]
    stores += [stored(noise(5), [box], (1, 0)), stored(noise(5), [[30, 20, 40, 51]])]
    assert len({store.fingerprint for store in stores}) == len(stores)


def test_the_fingerprint_changes_with_pixels_that_need_as_many_bytes(stored):
    grey = np.full((90, 120, 3), 100, np.uint8)
    assert stored(grey, [[30, 20, 40, 50]]).fingerprint != stored(grey + 1, [[30, 20, 40, 50]]).fingerprint


@pytest.mark.parametrize("damage", ["missing", "folder", "empty", "text", "cut", "other"])
def test_a_store_that_cannot_be_opened_is_named(stored, tmp_path, damage):
    stored(noise(5), [[30, 20, 40, 50]])
    path = tmp_path / "store.safetensors"
    content = path.read_bytes()
    path.unlink()
    if damage == "folder":
        path.mkdir()
    elif damage != "missing":
        other = b"\x02\0\0\0\0\0\0\0{}"  # a safetensors file, of nothing
        path.write_bytes({"empty": b"", "text": b"crops, " * 99, "cut": content[:-99], "other": other}[damage])
    with pytest.raises(UserError, match="store.safetensors: .*prepare"):
        CropStore(path)


def test_a_window_that_cannot_be_decoded_is_named(stored, tmp_path):
    stored(noise(5), [[30, 20, 40, 50]])
    path = tmp_path / "store.safetensors"
    path.write_bytes(path.read_bytes().replace(b"PNG", b"XXX"))
    with pytest.raises(UserError, match="store.safetensors"):
        CropStore(path).window(0)


@pytest.mark.parametrize("marker", [b"\xff\xd3", b"\xff\xda", b"\xff\xc0"])
def test_a_window_without_its_markers_is_named(stored, tmp_path, marker):
    stored(noise(5), [[30, 20, 40, 50]], reach=np.array([2.0, 2.0]))
    path = tmp_path / "store.safetensors"
    path.write_bytes(path.read_bytes().replace(marker, b"\0\0"))
    with pytest.raises(UserError, match="store.safetensors: the window of person 1 is damaged"):
        CropStore(path).crops([0], np.eye(2, 3)[None])


def test_an_interrupted_writer_leaves_the_old_store_and_nothing_else(tmp_path, make_people, monkeypatch):
    picture = noise(5)
    Image.fromarray(picture).save(tmp_path / "a.png")
    people = make_people(picture, [[10, 5, 20, 30], [30, 5, 20, 30]], (0, 0), path=tmp_path / "a.png")
    path = tmp_path / "stores" / "train"
    write_crop_store(path, people.take([0]), SIZE, ENLARGE)
    old = path.read_bytes()
    pictures = [str(tmp_path / name) for name in ("a.png", "b.png")]  # there is no b.png
    people = replace(people, images=np.array(pictures))
    with pytest.raises(UserError, match="b.png: no such file"):
        write_crop_store(path, people, SIZE, ENLARGE)
    assert list(path.parent.iterdir()) == [path]
    assert path.read_bytes() == old


def test_a_full_disk_is_named_and_leaves_no_store(stored, monkeypatch, tmp_path):
    monkeypatch.setattr(stores.tempfile, "TemporaryFile", lambda dir: io.FileIO("/dev/full", "wb"))
    with pytest.raises(UserError, match="store.safetensors: cannot be written .No space left on device"):
        stored(noise(0), [[20, 20, 40, 50]])
    assert [path.name for path in tmp_path.iterdir()] == ["store.safetensors.png"]


@pytest.mark.parametrize("size", [[64, 2**31], [0, 48], [64, 48.0], [64]])
def test_a_store_of_crops_of_an_impossible_size_is_refused(stored, size):
    path = stored(noise(0), [[20, 20, 40, 50]]).path
    with safetensors.safe_open(path, "np") as file:
        about = json.loads(file.metadata()["crops"]) | {"input_size": size}
        arrays = {name: file.get_tensor(name) for name in file.keys()}
    save_file(arrays, path, {"crops": json.dumps(about)})
    with pytest.raises(
        UserError, match="store.safetensors: not a crop store .the crops' height and width are said to be"
    ):
        CropStore(path)
