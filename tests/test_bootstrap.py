"""How certain figures are: resampled pictures against pycocotools and pck on so many copies; intervals, differences."""

import json
from dataclasses import replace

import numpy as np
import pytest
from scipy.io import savemat

from rsnlib.data.readers import read_people
from rsnlib.data.skeletons import LSP, MPII
from rsnlib.metrics import coco, coco_ap, coco_results, pck, resampled_headline
from rsnlib.metrics.bootstrap import interval, mean_and_interval, paired_difference, resample
from rsnlib.metrics.coco import coco_matches, resampled_ap
from rsnlib.metrics.pck import resampled_share, torso_distances

# ---- average precision


def copied(truth, results, counts, path):
    """The results, and the path of the annotations, where picture i is there counts[i] times under ids of its own."""
    images, annotations, predictions = [], [], []
    for image, count in zip(sorted(truth["images"], key=lambda image: image["id"]), counts):
        for _ in range(count):
            own = {"image_id": len(images) + 1}
            images.append(image | {"id": own["image_id"]})
            for annotation in truth["annotations"]:
                if annotation["image_id"] == image["id"]:
                    annotations.append(annotation | own | {"id": len(annotations) + 1})
            predictions += [result | own for result in results if result["image_id"] == image["id"]]
    path.write_text(json.dumps(truth | {"images": images, "annotations": annotations}))
    return predictions, path


@pytest.fixture
def crowded(demo_folder, tmp_path):
    """Twelve pictures of drawn people, one with a crowd, one with a person without keypoints, one without anybody, one
    without a prediction, some with several of one person, as a detector's boxes give: annotations, results and the path
    of the annotations."""
    people = read_people(demo_folder, "coco", "val2017")
    truth = json.loads((demo_folder / "annotations/person_keypoints_val2017.json").read_text())
    results = coco_results(people.image_ids, people.keypoints, np.ones((4, 17)), people.scores)
    results, path = copied(truth, results, [4, 4, 4], tmp_path / "crowded.json")
    truth = json.loads(path.read_text())
    somebody = {annotation["image_id"]: annotation for annotation in truth["annotations"]}
    somebody[5]["iscrowd"] = 1
    somebody[6]["num_keypoints"] = 0
    truth["annotations"] = [annotation for annotation in truth["annotations"] if annotation["image_id"] != 7]
    results = [result for result in results if result["image_id"] != 8] + 30 * [results[9]] + 2 * [results[0]]
    random = np.random.default_rng(0)
    for row, result in enumerate(results):
        points = np.array(result["keypoints"]).reshape(17, 3)
        points[:, :2] += random.normal(0, random.uniform(1, 8), (17, 2))
        results[row] = result | {"keypoints": points.flatten().tolist(), "score": random.uniform()}
    path.write_text(json.dumps(truth))
    return truth, results, path


def test_a_resampled_picture_counts_as_so_many_copies_do_for_pycocotools(crowded, tmp_path):
    truth, results, path = crowded
    draws = np.random.default_rng(1).multinomial(12, np.full(12, 1 / 12), 20)
    figures = resampled_ap(coco_matches(results, path), draws)
    slow = [coco_ap(*copied(truth, results, counts, tmp_path / "copies.json"))["AP"] for counts in draws]
    assert figures == pytest.approx(slow, abs=1e-12)
    assert len(set(figures.round(3))) > 10


def test_of_several_categories_it_is_the_mean(crowded, tmp_path):
    truth, results, path = crowded
    truth["categories"].append(truth["categories"][0] | {"id": 2, "name": "another"})
    for place, entry in enumerate([*truth["annotations"], *results]):
        entry["category_id"] = 1 + place % 2
    path.write_text(json.dumps(truth))
    draws = np.random.default_rng(1).multinomial(12, np.full(12, 1 / 12), 5)
    slow = [coco_ap(*copied(truth, results, counts, tmp_path / "copies.json"))["AP"] for counts in draws]
    assert resampled_ap(coco_matches(results, path), draws) == pytest.approx(slow, abs=1e-12)


@pytest.mark.shared
@pytest.mark.parametrize("doubled", [False, True])
def test_every_real_picture_once_is_the_average_precision_itself(shared, doubled):
    people = read_people(shared / "data/coco", "coco", "val2017")
    annotations = shared / "data/coco/annotations/person_keypoints_val2017.json"
    rows = np.random.default_rng(0).choice(len(people), 300) if doubled else np.arange(len(people))
    people, random = people.take(rows), np.random.default_rng(1)
    noise = random.normal(0, 1, people.keypoints.shape) * random.uniform(1, 15, (len(people), 1, 1))
    scores = random.uniform(0.5, 1.5, people.visible.shape)
    results = coco_results(people.image_ids, people.keypoints + noise, scores, people.scores)
    matches = coco_matches(results, annotations)
    (figure,) = resampled_ap(matches, np.ones((1, len(matches[0].people)), int))
    assert figure == pytest.approx(coco_ap(results, annotations)["AP"], abs=1e-12)
    assert 0.1 < figure < 0.9


def test_draws_are_computed_in_pieces_that_fit_into_memory(crowded, monkeypatch):
    matches, counts = coco_matches(crowded[1], crowded[2]), resample(12)
    at_once = resampled_ap(matches, counts)
    monkeypatch.setattr(coco, "PIECE", 7 * len(matches[0].pictures))
    np.testing.assert_array_equal(resampled_ap(matches, counts), at_once)


def test_without_predictions_everybody_is_missed_and_without_people_there_is_no_figure(crowded):
    nothing = resampled_ap(coco_matches([], crowded[2]), resample(12))
    assert (nothing == 0).all()
    nobody = np.zeros((1, 12), int)
    nobody[:, 6] = 12  # the picture without people
    assert np.isnan(resampled_ap(coco_matches(crowded[1], crowded[2]), nobody)).all()


# ---- shares of correct keypoints


def lsp_pair(make_people, pictures):
    """People of LSP in these pictures, and predictions of which about two thirds are right."""
    random = np.random.default_rng(0)
    keypoints = random.uniform(0, 100, (len(pictures), 14, 2))
    visible = random.integers(0, 2, (len(pictures), 14))
    visible[:, [LSP.keypoints.index("left_shoulder"), LSP.keypoints.index("right_hip")]] = 1  # who counts
    people = make_people(np.zeros((99, 99, 3)), [[0, 0, 99, 99]] * len(pictures), (0, 0))
    people = replace(people, skeleton=LSP, keypoints=keypoints, visible=visible, image_ids=np.array(pictures))
    return people, keypoints + random.choice([0, 0, 900], keypoints.shape)


def test_a_resampled_picture_counts_as_so_many_copies_of_its_people_do_for_pck(make_people, committed):
    people, predicted = lsp_pair(make_people, [7, 3, 7, 9, 3, 5, 5, 1, 8, 2])
    results = coco_results(people.image_ids, predicted, np.ones((10, 14)), people.scores)
    figures = resampled_headline(committed.dataset("lspet"), "/", people, results)
    for counts, figure in list(zip(resample(7), figures))[:20]:
        rows = np.repeat(np.arange(10), counts[np.searchsorted([1, 2, 3, 5, 7, 8, 9], people.image_ids)])
        assert figure == pytest.approx(pck(predicted[rows], people.take(rows))["Mean"])
    assert len(set(figures)) > 100


def test_people_of_one_picture_stay_together(make_people):
    people, predicted = lsp_pair(make_people, [4] * 30)
    distance, counted = torso_distances(predicted, people)
    figures = resampled_share(distance <= 0.2, counted, np.zeros(30, int), resample(1))
    assert figures == pytest.approx([pck(predicted, people)["Mean"]] * 1000)


def test_mpiis_people_are_resampled_with_their_own_pictures(committed, make_people, tmp_path):
    settings = replace(committed.dataset("mpii"), root=str(tmp_path))
    positions = np.random.default_rng(0).uniform(1, 99, (4, 16, 2))
    (tmp_path / "annot").mkdir()
    boxes = np.zeros((2, 2, 4))
    boxes[1] = 10
    truth = {"pos_gt_src": positions.transpose(1, 2, 0), "jnt_missing": np.zeros((16, 4)), "headboxes_src": boxes}
    savemat(tmp_path / "annot/gt_valid.mat", truth)
    people = make_people(np.zeros((99, 99, 3)), [[0, 0, 99, 99]] * 4, (0, 0))
    people = replace(people, skeleton=MPII, image_ids=np.array([1, 1, 1, 2]))
    people = people.take([3, 0, 2, 1])  # as a store may have them
    predicted = positions - 1
    predicted[3] += 500  # the only person of picture 2 is wrong
    results = coco_results(people.image_ids, predicted[[3, 0, 2, 1]], np.ones((4, 16)), people.scores)
    figures = resampled_headline(settings, "/", people, results)
    assert figures == pytest.approx([100 * 3 * one / (3 * one + two) for one, two in resample(2)])


# ---- intervals and differences


def test_draws_are_with_replacement_and_always_the_same():
    counts = resample(50)
    assert counts.shape == (1000, 50) and (counts.sum(axis=1) == 50).all()
    assert (counts == 0).mean() == pytest.approx((1 - 1 / 50) ** 50, abs=0.01)
    np.testing.assert_array_equal(counts, resample(50))


def test_of_one_seed_the_interval_leaves_out_the_outer_twentieth_of_the_draws():
    draws = np.random.default_rng(0).permutation(np.arange(1001.0))
    assert mean_and_interval(np.array([500.0]), draws[None]) == pytest.approx((500, 25, 975))


def test_a_draw_with_nobody_to_count_is_left_out_of_the_interval():
    assert interval(np.array([np.nan, *range(1001)])) == pytest.approx((25, 975))


def test_of_several_seeds_the_interval_is_over_the_seeds():
    draws = np.zeros((3, 1000))  # the people do not matter
    mean, low, high = mean_and_interval(np.array([60.0, 62.0, 64.0]), draws)
    half = 4.302653 * 2 / np.sqrt(3)  # the table of Student's t, two degrees of freedom; deviation 2
    assert (mean, low, high) == pytest.approx((62, 62 - half, 62 + half))


def headline_draws(committed, people, predicted):
    results = coco_results(people.image_ids, predicted, np.ones((len(people), 14)), people.scores)
    settings = committed.dataset("lspet")
    return pck(predicted, people)["Mean"], resampled_headline(settings, "/", people, results)


def test_a_run_does_not_differ_from_itself(make_people, committed):
    figure, draws = headline_draws(committed, *lsp_pair(make_people, range(60)))
    assert paired_difference([figure], draws[None], [figure], draws[None]) == (0, 0, 0)
    assert interval(draws)[0] < figure < interval(draws)[1]


def test_a_small_difference_that_all_people_share_is_seen_only_in_pairs(make_people, committed):
    people, predicted = lsp_pair(make_people, range(200))
    better = predicted.copy()
    better[::2, 3] = people.keypoints[::2, 3]  # one joint of every other person
    (worse_figure, worse), (figure, draws) = (headline_draws(committed, people, p) for p in (predicted, better))
    difference, low, high = paired_difference([figure], draws[None], [worse_figure], worse[None])
    assert difference == pytest.approx(figure - worse_figure) and 0 < low < difference < high
    unpaired = interval(np.random.default_rng(0).permutation(draws) - worse)
    assert unpaired[0] < 0 and unpaired[1] - unpaired[0] > 2 * (high - low)


def test_a_difference_of_several_seeds_is_of_their_means():
    draws = np.arange(1001.0)
    seeds = np.stack([draws - 30, draws + 50])
    assert paired_difference([10, 30], seeds, [5], draws[None]) == (15, 10, 10)
