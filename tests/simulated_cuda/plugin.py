"""The device for this process, from the import of this module on, which must come before the first import of torch."""

import ctypes
import sys

from simulated_cuda.build import library

assert "torch" not in sys.modules, "torch looks for devices once, when it starts"
DEVICE = ctypes.CDLL(str(library()))

import torch  # noqa: E402

ANSWERS = {  # of functions of torch.cuda, which know that torch was built without CUDA
    "_lazy_init": None,
    "is_available": True,
    "is_bf16_supported": True,
    "get_device_name": "a simulated GPU",
    "synchronize": None,
    "mem_get_info": (0, 0),  # no room for the windows of a crop store
}


def copies_to_device():
    """Return how many tensors were copied from the CPU to the device so far."""
    return DEVICE.simulated_copies_to_device()


def copies_to_host():
    """Return how many tensors and numbers were copied from the device to the CPU so far."""
    return DEVICE.simulated_copies_to_host()


def clone(storage):
    """Return a copy of a storage, as torch.UntypedStorage.clone, which knows no device but those it is built for."""
    return torch.empty(len(storage), dtype=torch.uint8, device=storage.device).untyped_storage().copy_(storage)


for name, answer in ANSWERS.items():
    setattr(torch.cuda, name, lambda *_, answer=answer, **__: answer)
torch.UntypedStorage.clone = clone
