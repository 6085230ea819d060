"""The windows of a training store in a GPU's memory: decoded once, every crop cut there."""

import io
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from tqdm.auto import tqdm

from rsnlib.data.geometry import invert
from rsnlib.device import cores

SHARE = 0.6  # of a GPU's memory, at most
AT_A_TIME = 1024  # windows


def resident(store, device):
    """Return a training CropStore as a ResidentStore where `device` is a GPU with memory for all its windows, else the
    store itself."""
    if device.type != "cuda":
        return store
    sizes = window_sizes(store)
    # not the free memory: whatever else runs there, the same seed sees the same pixels
    _, memory = torch.cuda.mem_get_info(device)
    return ResidentStore(store, sizes, device) if 3 * sizes.prod(axis=1).sum() <= SHARE * memory else store


class ResidentStore:
    """A training CropStore whose windows lie in a GPU's memory. COCO's take about 50 GB at 256x192.

    people, matrices, input_size, fingerprint: the store's; sizes: (P, 2), width and height of the windows
    """

    def __init__(self, store, sizes, device):
        self.people, self.matrices, self.input_size = store.people, store.matrices, store.input_size
        self.fingerprint, ends = store.fingerprint, np.cumsum(sizes.prod(axis=1))
        self.pixels = torch.empty(int(ends[-1]), 3, dtype=torch.uint8, device=device)
        self.device = device = self.pixels.device  # with its number: in a new thread "cuda" is the first GPU
        self.corners = torch.tensor([[[0, 0], [1, 0]], [[0, 1], [1, 1]]], device=device)  # [down][right]: x, y
        self.sizes = torch.from_numpy(sizes).to(device)
        self.starts = torch.from_numpy(np.r_[0, ends[:-1]]).to(device)
        with ThreadPoolExecutor(cores()) as pool:
            for first in tqdm(range(0, len(store), AT_A_TIME), desc="windows to the GPU", leave=False):
                rows = range(first, min(first + AT_A_TIME, len(store)))
                windows = [window.reshape(-1, 3) for window in pool.map(store.window, rows)]
                self.pixels[ends[rows[0]] - len(windows[0]) : ends[rows[-1]]] = torch.from_numpy(
                    np.concatenate(windows)
                )

    def __len__(self):
        return len(self.people)

    def crops(self, rows, matrices):
        """Return crops (N, H, W, 3) uint8, on the GPU, of the people in `rows`: bilinear, black outside the window. A
        grey level here and there differs from CropStore.crops, where OpenCV interpolates at 1/32 of a pixel.

        matrices: (N, 2, 3), window pixels to crop pixels
        """
        height, width = self.input_size
        rows = torch.as_tensor(rows).to(self.device, non_blocking=True)
        back = torch.from_numpy(invert(matrices)).float().to(self.device, non_blocking=True)
        y = torch.arange(height, device=self.device)[:, None, None]
        x = torch.arange(width, device=self.device)[:, None]
        place = x * back[:, None, None, :, 0] + y * back[:, None, None, :, 1] + back[:, None, None, :, 2]
        first = place.floor()
        part, first = place - first, first.long()  # (N, H, W, 2), x and y
        sizes, starts = self.sizes[rows][:, None, None], self.starts[rows][:, None, None]
        crops = torch.zeros(*place.shape[:3], 3, device=self.device)
        for right in (0, 1):
            for down in (0, 1):
                corner = first + self.corners[down][right]
                weight = (part if right else 1 - part)[..., 0] * (part if down else 1 - part)[..., 1]
                inside = ((corner >= 0) & (corner < sizes)).all(dim=-1)
                index = starts + corner[..., 1] * sizes[..., 0] + corner[..., 0]
                pixels = self.pixels[torch.where(inside, index, 0)]
                crops += (weight * inside)[..., None] * pixels
        return crops.round().to(torch.uint8)


def window_sizes(store):
    """Return width and height of every window of a store (P, 2), from the headers of the encoded windows."""
    sizes = []
    for row, (first, end) in enumerate(zip(store.offsets[:-1], store.offsets[1:])):
        try:
            sizes.append(Image.open(io.BytesIO(store.windows[first:end])).size)
        except UnidentifiedImageError:
            store.window(row)  # raises a UserError with the name of the person
            raise
    return np.array(sizes, np.int64)
