"""Training and prediction on a CUDA device, a GPU or that of test_simulated_cuda.py, beside the CPU's."""

import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from ruamel.yaml import YAML
from test_train import RECIPE, SHARED, small_network, sum_of_weights

from rsnlib.data.augment import reach
from rsnlib.data.images import read_image
from rsnlib.data.readers import read_people
from rsnlib.data.store import CropStore, write_crop_store
from rsnlib.fast import fuse
from rsnlib.inference.decode import DECODINGS, decode_heatmaps
from rsnlib.inference.predict import WAYS, look_inside, predict, predict_store
from rsnlib.stages.train import Run
from rsnlib.training import loop

simulated = sys.modules.get("simulated_cuda.plugin")
counts_copies = pytest.mark.skipif(simulated is None, reason="only the simulated device counts copies")
FEW = replace(RECIPE, length={"iterations": 4}, learning_rate=1e-4)


@pytest.fixture(scope="module")
def stores(demo_folder, demo_settings, tmp_path_factory):
    """The crop stores of the people to train on and to validate on."""
    folder, how = tmp_path_factory.mktemp("crops"), (demo_settings.input_size, demo_settings.margin)
    write_crop_store(folder / "val", read_people(demo_folder, "coco", "val2017"), *how)
    people, far = read_people(demo_folder, "coco", "train2017"), reach(demo_settings.augmentation)
    write_crop_store(folder / "train", people, *how, far)
    return CropStore(folder / "train"), CropStore(folder / "val")


@pytest.fixture(scope="module")
def train(stores, demo_settings):
    """A function: train the smallest network on the GPU, or on the CPU; its arguments override the settings above."""

    def train(recipe=FEW, shared=SHARED, on_gpu=True, model=None, **options):
        with pytest.MonkeyPatch.context() as patch:
            if not on_gpu:
                patch.setattr(torch.cuda, "is_available", lambda: False)
            model = model or small_network()
            model, curve = loop.train(model, stores[0], demo_settings, recipe, seed=0, train=shared, **options)
        assert {tensor.is_cuda for tensor in model.state_dict().values()} == {on_gpu}
        return model, curve

    return train


def losses(outcome):
    _, curve = outcome
    return [row["loss"] for row in curve]


@pytest.fixture(scope="module")
def on_gpu(train):
    return train(validate=sum_of_weights)


@pytest.fixture(scope="module")
def on_cpu(train):
    return train(on_gpu=False)


# ---- training


def test_a_training_in_float32_has_the_cpus_losses(on_gpu, on_cpu):
    assert losses(on_gpu)[0] == pytest.approx(losses(on_cpu)[0], rel=1e-5)
    assert losses(on_gpu) == pytest.approx(losses(on_cpu), rel=1e-3)


def first_heatmaps(train, **options):
    """Return the heatmaps (N, K, h, w) of each head in the first step of a training, coarse to fine, on the CPU."""
    model, seen = small_network(), []
    for head in model.stages[0].heads:
        head.register_forward_hook(lambda head, given, heatmaps: seen.append(heatmaps.detach().cpu()))
    train(replace(FEW, length={"iterations": 1}), model=model, **options)
    return seen


def test_a_training_in_float32_does_not_round_to_tf32(train):
    """TF32, ten bits of mantissa, is what torch allows in convolutions unless told otherwise."""
    for found, wanted in zip(first_heatmaps(train), first_heatmaps(train, on_gpu=False), strict=True):
        assert (found - wanted).abs().max() < 1e-4 * wanted.abs().max()


def test_a_training_in_bfloat16_has_the_losses_of_float32_roughly(train, on_gpu):
    rough = losses(train(replace(FEW, length={"iterations": 2}), replace(SHARED, precision="bfloat16")))
    assert rough == pytest.approx(losses(on_gpu)[:2], rel=0.05)
    assert rough != losses(on_gpu)[:2]


def test_a_training_that_recomputes_activations_has_the_same_losses(train, on_gpu):
    recomputed = losses(train(shared=replace(SHARED, activation_checkpointing=True)))
    assert recomputed == pytest.approx(losses(on_gpu), rel=1e-4)


def test_an_interrupted_training_goes_on_from_its_checkpoint(train, on_gpu, tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "SAVE_EVERY", 0)
    monkeypatch.setattr(loop, "SAVE_SHARE", float("inf"))

    def power_cut(row):
        if row["iteration"] == 3:
            raise KeyboardInterrupt

    options = {"validate": sum_of_weights, "state": tmp_path / "state"}
    with pytest.raises(KeyboardInterrupt):
        train(log=power_cut, **options)
    seen = []
    resumed, curve = train(log=seen.append, **options)
    assert seen == curve and losses((resumed, curve)) == pytest.approx(losses(on_gpu), rel=1e-5)
    for name, tensor in on_gpu[0].state_dict().items():
        torch.testing.assert_close(resumed.state_dict()[name], tensor, rtol=1e-3, atol=1e-4, msg=name)


def test_heads_are_bfloat16_in_a_training_in_bfloat16(train):
    """Resizing, which CUDA's autocast does in float32, would double what the coarse heads read and write."""
    heads = first_heatmaps(train, shared=replace(SHARED, precision="bfloat16"))
    assert {heatmaps.dtype for heatmaps in heads} == {torch.bfloat16}


@counts_copies
def test_after_the_first_step_only_the_batch_is_copied_to_the_gpu(train):
    copies = []
    train(log=lambda row: copies.append(simulated.copies_to_device()))
    assert np.diff(copies).tolist() == [3, 3, 3]  # crops, keypoints, visible


def test_checkpoints_of_a_gpu_are_not_for_a_cpu(project, monkeypatch):
    params = YAML().load(project / "params.yaml")
    params["train"]["precision"] = "float32"
    YAML().dump(params, project / "params.yaml")
    gpu = Run("demo", "plain", 0)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert Run("demo", "plain", 0).identity != gpu.identity


# ---- prediction


def same_poses(found, wanted):
    for here, there in zip(found, wanted):
        np.testing.assert_allclose(here, there, rtol=1e-4, atol=1e-3)


def test_a_store_gets_the_poses_that_the_cpu_finds(stores):
    model = small_network(attention="prm").eval()
    wanted = predict_store(model, stores[1], WAYS)
    same_poses(predict_store(model.cuda(), stores[1], WAYS), wanted)


@pytest.mark.parametrize("as_given", [fuse, lambda model: model], ids=["fused", "as it was trained"])
def test_a_picture_gets_the_poses_that_the_cpu_finds_and_the_network_stays_on_the_cpu(stores, monkeypatch, as_given):
    people = stores[1].people
    picture, model = read_image(people.images[0]), as_given(small_network(attention="prm").eval())
    given = picture, people.boxes[people.images == people.images[0]]
    poses, tensors = predict(model, *given), model.state_dict().values()
    assert not any(tensor.is_cuda for tensor in tensors)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    wanted = predict(model, *given)
    same_poses((poses.keypoints, poses.scores), (wanted.keypoints, wanted.scores))


def test_a_network_on_the_cpu_shows_its_attention_beside_a_gpu(stores):
    people, model = stores[1].people, small_network(attention="prm").eval()
    insight = look_inside(model, read_image(people.images[0]), people.boxes[0])
    assert insight.keypoints.shape == (1, 4, 17, 2) and insight.attention
    for channel, position in insight.attention.values():
        assert channel.shape == (17,) and position.shape == (17, 16, 16)


@pytest.mark.parametrize("decoding", DECODINGS)
def test_heatmaps_are_decoded_as_on_the_cpu(decoding):
    heatmaps = 255 * torch.rand(9, 17, 16, 12, generator=torch.Generator().manual_seed(0))
    where = np.full((9, 2), 50.0), np.full((9, 2), 64.0), (64, 48)
    found, wanted = (decode_heatmaps(each, *where, decoding=decoding) for each in (heatmaps.cuda(), heatmaps))
    for here, there in zip(found, wanted):
        np.testing.assert_allclose(here, there, rtol=1e-9)


@counts_copies
@pytest.mark.parametrize("decoding", DECODINGS)
def test_decoding_waits_for_the_gpu_once(decoding):
    before = simulated.copies_to_host()
    decode_heatmaps(torch.rand(9, 17, 16, 12).cuda(), np.ones((9, 2)), np.ones((9, 2)), (64, 48), decoding=decoding)
    assert simulated.copies_to_host() - before == 1


# ---- the device


def test_a_gpu_takes_no_tensor_of_the_cpu():
    assert (torch.ones(2).cuda() * torch.tensor(2.0)).tolist() == [2, 2]  # but numbers
    with pytest.raises(RuntimeError, match="same device"):
        torch.ones(2).cuda() + torch.ones(2)


def test_convolutions_are_in_float32_or_where_allowed_in_tf32(monkeypatch):
    images, weights = torch.randn(2, 4, 64, 16, 16, generator=torch.Generator().manual_seed(0)).unbind()
    exact = torch.conv2d(images.double(), weights.double())

    def error():
        return (torch.conv2d(images.cuda(), weights.cuda()).cpu() - exact).abs().max().item()

    assert error() < 1e-3
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    assert error() > 0.01
