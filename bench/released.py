"""The released RSN code, imported from a checkout and run beside ours; nothing in the checkout is changed."""

import contextlib
import importlib
import os
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import torch

from rsnlib.errors import UserError
from rsnlib.models.network import WIDTHS

SOURCE = "https://github.com/caiyuanhao1998/RSN"
EXPERIMENT = Path("exps", "RSN18.coco")
MODULES = ("config", "network", "test", "lib", "dataset", "cvpack")  # its own, under names that other code may use
STAND_INS = ("coloredlogs", "torchvision", "torchvision.transforms")  # imported, but never called from here
PICTURES = Path("images", "train2014")  # below the data set's folder
ANNOTATIONS = "annotations.json"


class Released:
    """The modules of a checkout of the released code, at `path`. Raises UserError for another folder or a missing
    package."""

    def __init__(self, path):
        root = Path(path).resolve()
        if not (root / EXPERIMENT / "network.py").is_file():
            raise UserError(
                f"{path}: no checkout of the released RSN code ({EXPERIMENT}/network.py): git clone {SOURCE}"
            )
        try:
            with _importing_from(root):
                self.config = importlib.import_module("config").cfg
                self.networks = importlib.import_module("network")
                self.test = importlib.import_module("test")
                self.solver = importlib.import_module("lib.utils.solver")
                self.attribute = importlib.import_module("dataset.attribute")
                self.coco = importlib.import_module("dataset.COCO.coco")
        except ModuleNotFoundError as error:
            raise UserError(f"{path}: the released code needs {error.name}: pip install {error.name}") from None

    def network(self, architecture):
        """Return its untrained network with the depths and stages of one of our architectures.

        The network takes images (N, 3, H, W), BGR, and gives heatmaps; with visible (N, K, 1) and targets
        (N, 5, K, h, w) it gives {"total_loss": a scalar}.
        """
        depths = dict(zip(WIDTHS, architecture.depths))
        levels = self.networks.ResNet_downsample_module
        make = levels._make_layer  # asked for RSN-18's depths, whatever the configuration
        levels._make_layer = lambda module, block, planes, _, **how: make(module, block, planes, depths[planes], **how)
        self.config.MODEL.STAGE_NUM = architecture.stages
        try:
            return self.networks.RSN(self.config)
        finally:
            levels._make_layer = make

    def optimizer(self, network):
        """Return the released optimiser of a network, as for one GPU."""
        return self.solver.make_optimizer(self.config, network, num_gpu=1)

    def decode(self, heatmaps, center, scale):
        """Decode heatmaps as our `decode_heatmaps` does for COCO: keypoints (N, K, 2) and scores (N, K, 1)."""
        cells = self.config.TEST
        heatmaps = heatmaps.cpu().numpy()
        return self.test.get_results(heatmaps, center, scale / 200, cells.GAUSSIAN_KERNEL, cells.SHIFT_RATIOS)

    def people(self, folder):
        """Return its training data set: image (3, H, W), visible (K, 1) and targets (5, K, h, w) per person.

        folder: has ANNOTATIONS and, in PICTURES, the pictures
        """
        attributes = self.attribute.load_dataset("COCO")
        people = self.coco.COCODataset.__new__(self.coco.COCODataset)  # its own start reads COCO 2014 in the checkout
        super(self.coco.COCODataset, people).__init__(attributes, "train", self._transform())
        people.cur_dir, people.train_gt_path = str(folder), str(Path(folder) / ANNOTATIONS)
        people._exception_ids = []
        with contextlib.redirect_stdout(None):
            people.data = people._get_data()
        people.data_num = len(people.data)
        return people

    def _transform(self):
        """Return the operations of torchvision's ToTensor and Normalize, which its loader hands to the data set."""
        mean, deviation = (torch.tensor(v)[:, None, None] for v in (self.config.INPUT.MEANS, self.config.INPUT.STDS))

        def transform(image):
            image = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1))).float().div(255)
            return image.sub_(mean).div_(deviation)

        return transform


@contextlib.contextmanager
def _importing_from(root):
    """Let the checkout's modules be imported without writing into it, and undo that afterwards."""
    before = {name: module for name, module in sys.modules.items() if name.split(".")[0] in MODULES}
    path, writes = list(sys.path), sys.dont_write_bytecode
    for name in before:
        del sys.modules[name]
    stand_ins = [name for name in STAND_INS if name not in sys.modules]
    sys.modules.update({name: ModuleType(name) for name in stand_ins})
    sys.path[:0] = [str(root / EXPERIMENT), str(root)]
    sys.dont_write_bytecode = True
    os.environ.setdefault("RSN_HOME", str(root))  # what its configuration asks for
    try:
        yield
    finally:
        sys.path[:], sys.dont_write_bytecode = path, writes
        for name in [name for name in sys.modules if name.split(".")[0] in MODULES or name in stand_ins]:
            del sys.modules[name]
        sys.modules.update(before)
