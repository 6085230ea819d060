"""A picture and boxes to poses, with a network whose heatmaps are known."""

import copy

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn.functional import avg_pool2d

from rsnlib.data.skeletons import COCO
from rsnlib.data.store import CropStore, write_crop_store
from rsnlib.errors import UserError
from rsnlib.fast.folded import fuse
from rsnlib.inference.predict import WAYS, predict, predict_heatmaps, predict_store, predict_store_in_ways
from rsnlib.models.zoo import create_model

SIZE = (128, 96)


class SeesBrightness(torch.nn.Module):
    """Every keypoint is where the crop is brightest; keypoint k's heatmap is `gains[k]` times as high."""

    def __init__(self, gains=(1.0,) * 17):
        super().__init__()
        self.gains = torch.nn.Parameter(torch.tensor(gains), requires_grad=False)
        self.keypoints, self.input_size = len(gains), SIZE

    def forward(self, images):
        brightness = avg_pool2d(images.mean(dim=1, keepdim=True), 4)
        return (brightness - brightness.amin()) * self.gains[:, None, None]


class SeesTheRightBetter(SeesBrightness):
    """The further right in the crop, the brighter: the mirrored crop's heatmaps are others."""

    def forward(self, images):
        heatmaps = super().forward(images)
        return heatmaps * torch.linspace(0, 1, heatmaps.shape[3])


class SeesLeftHand(torch.nn.Module):
    """Left wrists at column 3 of the heatmaps, right ones at column 20, whatever the picture."""

    def __init__(self):
        super().__init__()
        self.any = torch.nn.Parameter(torch.zeros(1))
        self.keypoints, self.input_size = 17, SIZE

    def forward(self, images):
        heatmaps = torch.zeros(len(images), 17, 32, 24)
        heatmaps[:, COCO.keypoints.index("left_wrist"), 10, 3] = 200.0
        heatmaps[:, COCO.keypoints.index("right_wrist"), 10, 20] = 100.0
        return heatmaps


DOT = np.array([130.0, 90.0])
BOXES = [[100, 60, 60, 80], [90, 20, 100, 150], [110, 70, 25, 45]]


@pytest.mark.parametrize("flip_test", [False, True])
def test_keypoints_are_where_the_network_sees_them(draw_dot, flip_test):
    poses = predict(SeesBrightness(), draw_dot(200, 240, *DOT), BOXES, flip_test)
    assert poses.keypoints.shape == (3, 17, 2) and poses.scores.shape == (3, 17) and poses.score.shape == (3,)
    np.testing.assert_array_equal(poses.boxes, BOXES)
    for keypoints, box in zip(poses.keypoints, poses.boxes):
        cell = max(box[2] * 1.09 / 24, box[3] * 1.135 / 32)  # in picture pixels
        np.testing.assert_allclose(keypoints, np.tile(DOT, (17, 1)), atol=1.25 * cell)
    np.testing.assert_allclose(poses.score, poses.scores.mean(axis=1))


def test_a_path_is_read_as_the_array_it_holds(draw_dot, tmp_path):
    picture = draw_dot(200, 240, *DOT)
    Image.fromarray(picture).save(tmp_path / "picture.png")
    model = SeesBrightness()
    wanted = predict(model, picture, BOXES).keypoints
    np.testing.assert_array_equal(predict(model, tmp_path / "picture.png", BOXES).keypoints, wanted)
    np.testing.assert_array_equal(predict(model, str(tmp_path / "picture.png"), BOXES).keypoints, wanted)


def test_without_boxes_the_whole_picture_is_one(draw_dot):
    poses = predict(SeesBrightness(), draw_dot(120, 90, 40, 60))
    assert poses.boxes.tolist() == [[0, 0, 90, 120]]
    np.testing.assert_allclose(poses.keypoints[0], np.tile([40, 60], (17, 1)), atol=6)


def test_a_persons_score_is_the_boxs_times_the_keypoints_mean(draw_dot):
    poses = predict(SeesBrightness(), draw_dot(200, 240, *DOT), [[100, 60, 60, 80, 0.25]])
    np.testing.assert_array_equal(poses.box_scores, [0.25])
    np.testing.assert_allclose(poses.score, 0.25 * poses.scores.mean(axis=1))


def test_more_boxes_than_a_batch_give_as_many_poses(draw_dot):
    picture = draw_dot(200, 240, *DOT)
    poses = predict(SeesBrightness(), picture, BOXES * 12)
    few = predict(SeesBrightness(), picture, BOXES)
    np.testing.assert_allclose(poses.keypoints, np.tile(few.keypoints, (12, 1, 1)))


def test_no_boxes_give_no_poses(draw_dot):
    poses = predict(SeesBrightness(), draw_dot(200, 240, *DOT), [])
    assert poses.keypoints.shape == (0, 17, 2) and poses.scores.shape == (0, 17)
    assert poses.boxes.shape == (0, 4) and poses.box_scores.shape == poses.score.shape == (0,)


def test_the_flip_test_averages_with_the_mirrored_crop():
    crops = np.zeros((2, *SIZE, 3), np.uint8)
    left, right = (COCO.keypoints.index(f"{side}_wrist") for side in ("left", "right"))
    plain = predict_heatmaps(SeesLeftHand(), crops)
    flipped = predict_heatmaps(SeesLeftHand(), crops, COCO.mirrored)
    assert plain[0, left, 10, 3] == 200 and plain[0, right, 10, 20] == 100
    # in the mirrored crop the right wrist at column 20 is the left one at 23 - 20
    assert flipped[0, left, 10, 3] == flipped[0, right, 10, 20] == (200 + 100) / 2
    assert flipped.sum() == plain.sum()


def test_a_crop_and_its_mirror_image_have_mirrored_heatmaps(draw_dot):
    random = np.random.default_rng(0)
    crops = random.integers(0, 256, (1, *SIZE, 3), dtype=np.uint8)
    model = SeesBrightness(tuple(random.uniform(0.5, 2, 17)))
    heatmaps = predict_heatmaps(model, crops, COCO.mirrored)
    mirrored = predict_heatmaps(model, np.ascontiguousarray(crops[:, :, ::-1]), COCO.mirrored)
    torch.testing.assert_close(mirrored.flip(3)[:, COCO.mirrored], heatmaps)


@pytest.mark.parametrize("flip_test", [False, True])
def test_a_store_is_predicted_as_its_pictures_are(draw_dot, make_people, tmp_path, flip_test):
    picture = draw_dot(200, 240, *DOT)
    Image.fromarray(picture).save(tmp_path / "picture.png")
    people = make_people(picture, BOXES * 12, (0, 0), path=tmp_path / "picture.png")
    write_crop_store(tmp_path / "store", people, SIZE, (0.09, 0.135))
    keypoints, scores = predict_store(SeesBrightness(), CropStore(tmp_path / "store"), flip_test)
    wanted = predict(SeesBrightness(), picture, BOXES * 12, flip_test)
    np.testing.assert_allclose(keypoints, wanted.keypoints)
    np.testing.assert_allclose(scores, wanted.scores)


def test_all_ways_are_those_of_one_at_a_time_from_one_pass(draw_dot, make_people, tmp_path):
    picture = draw_dot(200, 240, *DOT)
    Image.fromarray(picture).save(tmp_path / "picture.png")
    people = make_people(picture, BOXES * 12, (0, 0), path=tmp_path / "picture.png")
    write_crop_store(tmp_path / "store", people, SIZE, (0.09, 0.135))
    store, model, passes = CropStore(tmp_path / "store"), SeesTheRightBetter(), []
    hook = model.register_forward_hook(lambda _, images, heatmaps: passes.append(len(heatmaps)))
    keypoints, scores = predict_store_in_ways(model, store, WAYS, blur=7)
    assert passes == [64, 8]  # batches of 32 and 4, with their mirror images
    hook.remove()
    assert keypoints.shape == (4, 36, 17, 2) and scores.shape == (4, 36, 17)
    found = np.column_stack([keypoints[:, 0, 0], scores[:, 0, 0]])
    assert len(np.unique(found.round(3), axis=0)) == 4
    for way, (flip_test, decoding) in enumerate(WAYS):
        alone = predict_store(model, store, flip_test, 7, decoding)
        np.testing.assert_array_equal(keypoints[way], alone[0])
        np.testing.assert_array_equal(scores[way], alone[1])


def test_a_network_predicts_fused_and_nearly_in_bfloat16_what_it_predicts_as_it_is(draw_dot):
    torch.manual_seed(0)
    model = create_model({"depths": [1, 1, 1, 1]}, 17, SIZE).eval()
    crops = np.stack([draw_dot(*SIZE, 30 + 10 * person, 40) for person in range(3)])
    plain, fused, half = (
        predict_heatmaps(each, crops, COCO.mirrored) for each in (model, fuse(model), fuse(model).to(torch.bfloat16))
    )
    assert plain.dtype == fused.dtype == half.dtype == torch.float32
    peak = plain.abs().max()
    assert (fused - plain).abs().max() < 1e-5 * peak
    assert 0 < (half - plain).abs().max() < 0.05 * peak


def test_the_callers_network_stays_as_it_is(draw_dot):
    model = create_model({"depths": [1, 1, 1, 1]}, 17, SIZE)
    before = copy.deepcopy(model.state_dict())
    predict(model, draw_dot(200, 240, *DOT), BOXES)
    assert model.training and all(tensor.equal(before[name]) for name, tensor in model.state_dict().items())


def test_without_a_flip_test_nothing_is_mirrored(make_people, draw_dot, tmp_path):
    picture = draw_dot(200, 240, *DOT)
    Image.fromarray(picture).save(tmp_path / "picture.png")
    people = make_people(picture, BOXES, (0, 0), path=tmp_path / "picture.png")
    write_crop_store(tmp_path / "store", people, SIZE, (0.09, 0.135))
    model, passes = SeesBrightness(), []
    model.register_forward_hook(lambda _, images, heatmaps: passes.append(len(heatmaps)))
    predict_store(model, CropStore(tmp_path / "store"), flip_test=False)
    assert passes == [3]


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((20, 20, 3), np.float32),
        np.zeros((2, 20, 20, 3), np.uint8),
        np.zeros((0, 20, 3), np.uint8),
        None,
        "nowhere.jpg",
    ],
    ids=["float", "batch", "empty", "none", "path"],
)
def test_what_is_no_picture_is_refused(image):
    with pytest.raises(UserError, match="image: must be|nowhere.jpg: no such file"):
        predict(SeesBrightness(), image)


@pytest.mark.parametrize(
    ("box", "reason"),
    [
        ([0, 0, 10, 0], "row 1: box has no area"),
        ([0, 0, -5, 10], "row 1: box has no area"),
        ([0, 0, np.nan, 10], "row 1: box: nan is not a finite number"),
        ([0, 0, np.inf, 10], "row 1: box: inf is not a finite number"),
        ([0, 0, 10], "each must be four numbers"),
        (["a", 0, 1, 1], "each must be four numbers"),
        ({"bbox": [0, 0, 1, 1]}, "each must be four numbers"),
    ],
)
def test_what_is_no_box_is_refused(box, reason):
    with pytest.raises(UserError, match=f"boxes: {reason}"):
        predict(SeesBrightness(), np.zeros((20, 20, 3), np.uint8), [[0, 0, 20, 20], box])


@pytest.mark.parametrize("boxes", [5, [1, 2, 3], np.ones((1, 1, 4)), np.ones((2, 6))])
def test_boxes_of_another_shape_are_refused(boxes):
    with pytest.raises(UserError, match="boxes: each must be four numbers"):
        predict(SeesBrightness(), np.zeros((20, 20, 3), np.uint8), boxes)


@pytest.mark.parametrize("box", [[20, 0, 5, 5], [0, 20, 5, 5], [-5, 0, 5, 5], [0, -9, 5, 5]])
def test_a_box_outside_the_picture_is_refused(box):
    with pytest.raises(UserError, match=r"row 1: box lies wholly outside its image \(20 x 20 pixels\)"):
        predict(SeesBrightness(), np.zeros((20, 20, 3), np.uint8), [[0, 0, 20, 20], box])


def test_a_box_may_reach_out_of_the_picture(draw_dot):
    poses = predict(SeesBrightness(), draw_dot(60, 60, 50, 30), [[30, 0, 60, 60]])
    assert poses.boxes.tolist() == [[30, 0, 60, 60]]
    np.testing.assert_allclose(poses.keypoints[0], np.tile([50, 30], (17, 1)), atol=4)


def test_a_picture_of_one_pixel_has_poses():
    poses = predict(SeesBrightness(), np.full((1, 1, 3), 200, np.uint8))
    assert poses.boxes.tolist() == [[0, 0, 1, 1]] and np.isfinite(poses.keypoints).all()


def test_a_network_of_no_known_skeleton_is_refused():
    with pytest.raises(UserError, match="5 keypoints|skeleton"):
        predict(SeesBrightness((1.0,) * 5), np.zeros((20, 20, 3), np.uint8))
