"""Training batches: the people of each, their augmented crops, prepared in a thread while the network computes."""

from collections import deque
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch

from rsnlib.data.augment import augment
from rsnlib.data.geometry import compose, invert

PREFETCH = 4  # batches


def prefetched(numbers, store, settings, size, seed, pieces):
    """Yield (number, batch) for each of `numbers`, prepared in a thread while the network computes."""
    thread, ahead = ThreadPoolExecutor(1), deque()
    try:
        for number in numbers:
            ahead.append((number, thread.submit(make_batch, number, store, settings, size, seed, pieces)))
            if len(ahead) > PREFETCH:
                first, batch = ahead.popleft()
                yield first, batch.result()
        for number, batch in ahead:
            yield number, batch.result()
    finally:
        thread.shutdown(cancel_futures=True)


def make_batch(number, store, settings, size, seed, pieces):
    """Return the pieces (slices) of batch `number` (from 1) of a run, each crops (N, H, W, 3) uint8, keypoints
    (N, K, 2) in crop pixels, visible (N, K).

    They depend on the arguments alone, so a resumed run sees the same people in the same variations.
    """
    rows = batch_rows(number, len(store), size, seed)
    cut = cut_crops(rows, store, settings, np.random.default_rng([seed, 1, number]), pieces)
    return [
        (torch.from_numpy(crops), torch.from_numpy(keypoints).float(), torch.from_numpy(visible))
        for crops, keypoints, visible in cut
    ]


def cut_crops(rows, store, settings, random, pieces=(slice(None),)):
    """Return augmented crops of the people in `rows` of a store, per piece: (N, H, W, 3) uint8, their keypoints
    (N, K, 2) and flags (N, K), arrays. A piece does not depend on which others are cut."""
    matrices, keypoints, visible = augment(store.people.take(rows), settings.augmentation, store.input_size, random)
    matrices = compose(matrices, invert(store.matrices[rows]))  # from window pixels
    return [(store.crops(rows[piece], matrices[piece]), keypoints[piece], visible[piece]) for piece in pieces]


def batch_rows(number, people, size, seed):
    """Return the rows of the people in a batch: batches cut an endless sequence of shuffled epochs into equal parts."""
    places = np.arange((number - 1) * size, number * size)
    rows = np.empty(size, int)
    for epoch in np.unique(places // people):
        here = places // people == epoch
        rows[here] = np.random.default_rng([seed, 0, epoch]).permutation(people)[places[here] % people]
    return rows
