"""Bootstrap: resampled pictures against pycocotools on so many copies; intervals and paired differences."""

import json

import numpy as np
import pytest

from rsnlib.data.readers import read_people
from rsnlib.metrics import coco_ap, coco_results, protocol
from rsnlib.metrics.bootstrap import (
    interval,
    mean_and_interval,
    paired_difference,
    resample,
    resampled_ap,
    resampled_share,
)
from rsnlib.metrics.coco import coco_matches

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


@pytest.mark.parametrize("categories", [1, 3], ids=["people", "the mean of two categories with somebody to find"])
def test_a_resampled_picture_counts_as_so_many_copies_do_for_pycocotools(crowded, categories, tmp_path):
    truth, results, path = crowded
    truth["categories"] = [truth["categories"][0] | {"id": number} for number in range(1, categories + 1)]
    for place, entry in enumerate([*truth["annotations"], *results]):
        entry["category_id"] = 1 + place % min(2, categories)
    path.write_text(json.dumps(truth))
    draws = np.random.default_rng(1).multinomial(12, np.full(12, 1 / 12), 15)
    precisions = resampled_ap(coco_matches(results, path), draws)
    slow = [coco_ap(*copied(truth, results, counts, tmp_path / "copies.json"))["AP"] for counts in draws]
    assert precisions == pytest.approx(slow, abs=1e-12)
    assert len(set(precisions.round(3))) > 10


def test_without_predictions_every_draw_is_zero_and_without_people_it_is_missing(crowded, demo_folder):
    people = read_people(demo_folder, "coco", "val2017")
    assert (protocol("coco").resample(people, [], crowded[2]) == np.zeros(1000)).all()
    nobody = np.zeros((1, 12), int)
    nobody[:, 6] = 12  # the picture without people
    assert np.isnan(resampled_ap(coco_matches(crowded[1], crowded[2]), nobody)).all()


# ---- intervals and differences


def test_draws_are_with_replacement_and_always_the_same():
    counts = resample(50)
    assert counts.shape == (1000, 50) and (counts.sum(axis=1) == 50).all()
    assert (counts == 0).mean() == pytest.approx((1 - 1 / 50) ** 50, abs=0.01)
    np.testing.assert_array_equal(counts, resample(50))


def test_the_interval_is_over_the_people_of_one_seed_or_over_several_seeds():
    draws = np.random.default_rng(0).permutation([np.nan, *range(1001)])  # NaN: nobody to count
    assert mean_and_interval(np.array([500.0]), draws[None]) == pytest.approx((500, 25, 975))
    half = 4.302653 * 2 / np.sqrt(3)  # the table of Student's t, two degrees of freedom; deviation 2
    several = mean_and_interval(np.array([60.0, 62.0, 64.0]), np.zeros((3, 1000)))
    assert several == pytest.approx((62, 62 - half, 62 + half))


def share_and_draws(right):
    """The per cent of right keypoints, (P, 1) of people in pictures of their own, and its draws as of one seed."""
    people = len(right)
    draws = resampled_share(right, np.ones_like(right), np.arange(people), resample(people))
    return [100 * right.mean()], draws[None]


def test_a_small_difference_that_all_people_share_is_seen_only_in_pairs():
    right = np.random.default_rng(0).random((200, 1)) < 0.5
    better = right.copy()
    better[np.flatnonzero(~right)[:12]] = True
    worse, best = share_and_draws(right), share_and_draws(better)
    assert paired_difference(*worse, *worse) == (0, 0, 0)
    low, high = interval(worse[1])
    assert low < worse[0][0] < high
    difference, low, high = paired_difference(*best, *worse)
    assert difference == pytest.approx(6) and 0 < low < difference < high
    unpaired = interval(np.random.default_rng(0).permutation(best[1][0]) - worse[1][0])
    assert unpaired[0] < 0 and unpaired[1] - unpaired[0] > 2 * (high - low)


def test_a_difference_of_several_seeds_is_of_their_means():
    draws = np.arange(1001.0)
    seeds = np.stack([draws - 30, draws + 50])
    assert paired_difference([10, 30], seeds, [5], draws[None]) == (15, 10, 10)
