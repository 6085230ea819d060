"""Work in threads while a network computes; training batches: the people of each, their augmented crops."""

from collections import deque
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch

from rsnlib.data.augment import augment
from rsnlib.data.geometry import compose, invert

PREFETCH = 4  # batches


def ahead(items, function, size, threads=1):
    """Yield `function` of each of `items` in order, computed in `threads` threads up to `size` items before they are
    asked for. The items are taken from their iterator in one more thread."""
    items, end, waiting = iter(items), object(), deque()

    def work(taken):
        item = taken.result()
        return end if item is end else function(item)

    source, workers = ThreadPoolExecutor(1), ThreadPoolExecutor(threads)
    try:
        while True:
            while len(waiting) < size:
                waiting.append(workers.submit(work, source.submit(next, items, end)))
            result = waiting.popleft().result()
            if result is end:
                return
            yield result
    finally:
        source.shutdown(cancel_futures=True)
        workers.shutdown(cancel_futures=True)


def prefetched(numbers, store, settings, size, seed, pieces, device):
    """Yield (number, batch) for each of `numbers`, prepared in a thread while the network computes; a batch for a GPU
    is in pinned memory, copied without waiting."""

    def prepare(number):
        batch = make_batch(number, store, settings, size, seed, pieces)
        if device.type == "cuda":
            batch = [[tensor if tensor.is_cuda else tensor.pin_memory() for tensor in piece] for piece in batch]
        return number, batch

    return ahead(numbers, prepare, PREFETCH)


def make_batch(number, store, settings, size, seed, pieces):
    """Return the pieces (slices) of batch `number` (from 1) of a run, each crops (N, H, W, 3) uint8, keypoints
    (N, K, 2) in crop pixels, visible (N, K).

    They depend on the arguments alone, so a resumed run sees the same people in the same variations.
    """
    rows = batch_rows(number, len(store), size, seed)
    cut = cut_crops(rows, store, settings, np.random.default_rng([seed, 1, number]), pieces)
    return [
        (torch.as_tensor(crops), torch.from_numpy(keypoints).float(), torch.from_numpy(visible))
        for crops, keypoints, visible in cut
    ]


def cut_crops(rows, store, settings, random, pieces=(slice(None),)):
    """Return augmented crops of the people in `rows` of a store, per piece: (N, H, W, 3) uint8, as `store.crops` makes
    them, their keypoints (N, K, 2) and flags (N, K), arrays. A piece does not depend on which others are cut."""
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
