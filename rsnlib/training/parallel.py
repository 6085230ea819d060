"""Data-parallel training under torchrun; with one process every function is a no-op."""

import contextlib
import os
import time
from datetime import timedelta

import torch
import torch.distributed as dist

from rsnlib.errors import UserError

PATIENCE = timedelta(hours=6)  # the others wait while the first validates


def start():
    """Join the processes that torchrun started, if any; each takes the GPU of its number."""
    if "WORLD_SIZE" in os.environ and not dist.is_initialized():
        if torch.cuda.is_available():
            torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo", timeout=PATIENCE)


@contextlib.contextmanager
def _connected():
    """Turn the failure of a collective, mostly because another process has ended, into a UserError."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        time.sleep(2)  # torchrun takes the process that ends first for the cause
        reason = str(error).split(". ")[0]
        raise UserError(f"process {rank()} lost the others ({reason}); the one that failed says why") from error


def rank():
    """Return the number of this process, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def world():
    """Return the number of processes."""
    return dist.get_world_size() if dist.is_initialized() else 1


def from_first(value):
    """Return the first process's `value` in every process."""
    if world() == 1:
        return value
    box = [value]
    with _connected():
        dist.broadcast_object_list(box, src=0)
    return box[0]


def total(tensor):
    """Return the sum of `tensor` over all processes."""
    if world() > 1:
        with _connected():
            dist.all_reduce(tensor)
    return tensor


def anywhere(flag):
    """Return True if `flag` is set in any process."""
    return bool(total(torch.tensor(int(flag))))


def add_gradients(model):
    """Add up the gradients of all processes, in one message."""
    if world() > 1:
        gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
        sums = total(torch.cat([gradient.flatten() for gradient in gradients]))
        for gradient, part in zip(gradients, sums.split([gradient.numel() for gradient in gradients])):
            gradient.copy_(part.view_as(gradient))
