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
from rsnlib.inference.predict import (
    WAYS,
    assumption,
    crop_settings,
    mirrored_keypoints,
    predict,
    predict_heatmaps,
    predict_store,
)
from rsnlib.models.zoo import create_model

SIZE = (128, 96)


class SeesBrightness(torch.nn.Module):
    """Every keypoint is where the crop is brightest."""

    def __init__(self, keypoints=17):
        super().__init__()
        self.gains = torch.nn.Parameter(torch.ones(keypoints), requires_grad=False)
        self.keypoints, self.input_size = keypoints, SIZE

    def forward(self, images):
        brightness = avg_pool2d(images.mean(dim=1, keepdim=True), 4)
        return (brightness - brightness.amin()) * self.gains[:, None, None]


class SeesTheRightBetter(SeesBrightness):
    """The further right in the crop, the brighter: the mirrored crop's heatmaps are others."""

    def forward(self, images):
        heatmaps = super().forward(images)
        return heatmaps * torch.linspace(0, 1, heatmaps.shape[3])


class SeesLeftHand(SeesBrightness):
    """Left wrists at column 3 of the heatmaps, right ones at column 20, whatever the picture."""

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


def test_without_boxes_the_whole_picture_is_one_down_to_a_pixel(draw_dot):
    poses = predict(SeesBrightness(), draw_dot(120, 90, 40, 60))
    assert poses.boxes.tolist() == [[0, 0, 90, 120]]
    np.testing.assert_allclose(poses.keypoints[0], np.tile([40, 60], (17, 1)), atol=6)
    poses = predict(SeesBrightness(), np.full((1, 1, 3), 200, np.uint8))
    assert poses.boxes.tolist() == [[0, 0, 1, 1]] and np.isfinite(poses.keypoints).all()


def test_boxes_may_have_scores_reach_out_of_the_picture_and_be_none(draw_dot):
    poses = predict(SeesBrightness(), draw_dot(60, 60, 50, 30), [[30, 0, 60, 60, 0.25]])
    assert poses.boxes.tolist() == [[30, 0, 60, 60]] and poses.box_scores.tolist() == [0.25]
    np.testing.assert_allclose(poses.keypoints[0], np.tile([50, 30], (17, 1)), atol=4)
    np.testing.assert_allclose(poses.score, 0.25 * poses.scores.mean(axis=1))
    poses = predict(SeesBrightness(), draw_dot(200, 240, *DOT), [])
    assert poses.keypoints.shape == (0, 17, 2) and poses.scores.shape == (0, 17)
    assert poses.boxes.shape == (0, 4) and poses.box_scores.shape == poses.score.shape == (0,)


def test_the_flip_test_averages_with_the_mirrored_crop():
    crops = np.zeros((2, *SIZE, 3), np.uint8)
    left, right = (COCO.keypoints.index(f"{side}_wrist") for side in ("left", "right"))
    (plain,) = predict_heatmaps(SeesLeftHand(), crops)
    also_plain, flipped = predict_heatmaps(SeesLeftHand(), crops, COCO.mirrored)
    assert plain.equal(also_plain)
    assert plain[0, left, 10, 3] == 200 and plain[0, right, 10, 20] == 100
    # in the mirrored crop the right wrist at column 20 is the left one at 23 - 20
    assert flipped[0, left, 10, 3] == flipped[0, right, 10, 20] == (200 + 100) / 2
    assert flipped.sum() == plain.sum()


@pytest.fixture
def store(draw_dot, make_people, tmp_path):
    """The evaluation crop store of 36 people around a dot."""
    picture = draw_dot(200, 240, *DOT)
    Image.fromarray(picture).save(tmp_path / "picture.png")
    people = make_people(picture, BOXES * 12, (0, 0), path=tmp_path / "picture.png")
    write_crop_store(tmp_path / "store", people, SIZE, (0.09, 0.135))
    return CropStore(tmp_path / "store")


def test_a_store_is_predicted_as_its_pictures_are_in_any_number(draw_dot, store):
    keypoints, scores = predict_store(SeesBrightness(), store, [(False, "quarter"), (True, "quarter")])
    for way, flip_test in enumerate((False, True)):
        wanted = predict(SeesBrightness(), draw_dot(200, 240, *DOT), BOXES, flip_test)
        np.testing.assert_allclose(keypoints[way], np.tile(wanted.keypoints, (12, 1, 1)))
        np.testing.assert_allclose(scores[way], np.tile(wanted.scores, (12, 1)))


def test_all_ways_are_those_of_one_at_a_time_from_one_pass(store):
    model, passes = SeesTheRightBetter(), []
    hook = model.register_forward_hook(lambda _, images, heatmaps: passes.append(len(heatmaps)))
    keypoints, scores = predict_store(model, store, WAYS, blur=7)
    assert passes == [64, 8]  # batches of 32 and 4, with their mirror images
    predict_store(model, store, [(False, "quarter")])
    assert passes[2:] == [32, 4]  # nothing is mirrored
    hook.remove()
    assert keypoints.shape == (4, 36, 17, 2) and scores.shape == (4, 36, 17)
    found = np.column_stack([keypoints[:, 0, 0], scores[:, 0, 0]])
    assert len(np.unique(found.round(3), axis=0)) == 4
    for row, way in enumerate(WAYS):
        alone = predict_store(model, store, [way], blur=7)
        np.testing.assert_array_equal(keypoints[row], alone[0][0])
        np.testing.assert_array_equal(scores[row], alone[1][0])


def test_a_network_predicts_fused_and_nearly_in_bfloat16_what_it_predicts_as_it_is(draw_dot):
    torch.manual_seed(0)
    model = create_model({"depths": [1, 1, 1, 1]}, 17, SIZE).eval()
    crops = np.stack([draw_dot(*SIZE, 30 + 10 * person, 40) for person in range(3)])
    plain, fused, half = (
        predict_heatmaps(each, crops, COCO.mirrored)[1] for each in (model, fuse(model), fuse(model).to(torch.bfloat16))
    )
    assert plain.dtype == fused.dtype == half.dtype == torch.float32
    peak = plain.abs().max()
    assert (fused - plain).abs().max() < 1e-5 * peak
    assert 0 < (half - plain).abs().max() < 0.05 * peak


@pytest.mark.parametrize("prepare", [lambda model: model, fuse], ids=["plain", "fused"])
def test_the_callers_network_stays_as_and_where_it_is(draw_dot, monkeypatch, prepare):
    model = prepare(create_model({"depths": [1, 1, 1, 1]}, 17, SIZE))
    before, training = copy.deepcopy(model.state_dict()), model.training
    moved = []
    monkeypatch.setattr(torch.nn.Module, "to", lambda self, *_, **__: moved.append(self) or self)
    monkeypatch.setattr("rsnlib.inference.predict.default_device", lambda: torch.device("meta"))
    predict(model, draw_dot(200, 240, *DOT), BOXES)
    assert len(moved) and all(each is not model for each in moved)
    assert model.training == training and all(tensor.equal(before[name]) for name, tensor in model.state_dict().items())


def test_margin_and_blur_are_those_of_the_training_or_of_the_skeletons_data_set():
    coco, mpii = SeesBrightness(), SeesBrightness(16)
    assert crop_settings(coco) == ((0.09, 0.135), 5) and crop_settings(mpii) == ((0.25, 0.25), 9)
    mpii.about = {"skeleton": "mpii", "margin": (0.1, 0.2), "blur": 7}
    assert crop_settings(mpii) == ((0.1, 0.2), 7)
    mpii.about = {"skeleton": {"name": "mpii"}}  # as another's file describes it
    assert crop_settings(mpii) == ((0.25, 0.25), 9)
    mpii.about = {"skeleton": {"name": "another of 16"}, "enlarge": (0.3, 0.3)}  # as files before this key were
    assert crop_settings(mpii) == ((0.3, 0.3), 5)


def test_poses_are_decoded_as_the_network_says(draw_dot):
    model, picture = SeesBrightness(), draw_dot(200, 240, *DOT)
    plain = predict(model, picture, BOXES)
    model.about = {"decoding": "axes"}
    moved = np.abs(predict(model, picture, BOXES).keypoints - plain.keypoints)
    assert 0 < moved.max() < 0.5 * BOXES[0][2] / 12  # less than half a cell


def test_a_flip_test_of_weights_that_may_be_of_several_skeletons_is_refused_until_one_is_named(draw_dot):
    model, picture = SeesBrightness(14), draw_dot(200, 240, *DOT)
    assert assumption(model).endswith("taken for those of lsp (others of as many: crowdpose, aic)")
    with pytest.raises(UserError, match="lsp, crowdpose, aic have 14 keypoints; say which"):
        predict(model, picture, BOXES)
    assert len(predict(model, picture, BOXES, flip_test=False).keypoints) == len(BOXES)
    model.about = {"skeleton": "crowdpose"}
    assert len(predict(model, picture, BOXES).keypoints) == len(BOXES) and assumption(model) is None
    model.about = {"skeleton": "coco"}
    with pytest.raises(UserError, match="coco has 17 keypoints, the network 14"):
        predict(model, picture, BOXES)


def test_seventeen_keypoints_without_a_word_are_cocos_and_that_is_said():
    assert mirrored_keypoints(SeesBrightness(17)) == COCO.mirrored
    assert "taken for those of coco (others of as many: ap10k)" in assumption(SeesBrightness(17))


def test_what_is_no_picture_and_a_network_of_no_known_skeleton_are_refused():
    with pytest.raises(UserError, match="5 keypoints|skeleton"):
        predict(SeesBrightness(5), np.zeros((20, 20, 3), np.uint8))
    for image in (np.zeros((20, 20, 3), np.float32), np.zeros((0, 20, 3), np.uint8), None, "nowhere.jpg"):
        with pytest.raises(UserError, match="image: must be|nowhere.jpg: no such file"):
            predict(SeesBrightness(), image)


@pytest.mark.parametrize(
    ("boxes", "reason"),
    [
        ([[0, 0, 20, 20], [0, 0, 10, 0]], "row 1: box has no area"),
        ([[0, 0, np.nan, 10]], "row 0: box: nan is not a finite number"),
        ([[20, 0, 5, 5]], r"row 0: box lies wholly outside its image \(20 x 20 pixels\)"),
        ([[0, 0, 20, 20], [0, 0, 10]], "each must be four numbers"),
        ([{"bbox": [0, 0, 1, 1]}], "each must be four numbers"),
        (np.ones((2, 6)), "each must be four numbers"),
    ],
)
def test_boxes_that_are_none_are_refused(boxes, reason):
    with pytest.raises(UserError, match=f"boxes: {reason}"):
        predict(SeesBrightness(), np.zeros((20, 20, 3), np.uint8), boxes)
