"""Several processes that train one network (torchrun), or one alone: every function here is harmless in one."""

import os
from datetime import timedelta

import torch
import torch.distributed as dist

PATIENCE = timedelta(hours=6)  # the others wait while the first validates


def start():
    """Join the processes that torchrun started, if it did; each takes the GPU of its number."""
    if "WORLD_SIZE" in os.environ and not dist.is_initialized():
        if torch.cuda.is_available():
            torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo", timeout=PATIENCE)


def rank():
    """The number of this process, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def world():
    """How many processes there are."""
    return dist.get_world_size() if dist.is_initialized() else 1


def from_first(value):
    """What the first process has, in all of them."""
    if world() == 1:
        return value
    box = [value]
    dist.broadcast_object_list(box, src=0)
    return box[0]


def total(tensor):
    """The sum over all processes, in each."""
    if world() > 1:
        dist.all_reduce(tensor)
    return tensor


def anywhere(flag):
    """Whether a flag is set in any process."""
    return bool(total(torch.tensor(int(flag))))


def add_gradients(model):
    """Let every process have the sum of all gradients, in one message."""
    if world() > 1:
        gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
        sums = total(torch.cat([gradient.flatten() for gradient in gradients]))
        for gradient, part in zip(gradients, sums.split([gradient.numel() for gradient in gradients]), strict=True):
            gradient.copy_(part.view_as(gradient))


def share_statistics(model):
    """Let every process have the first one's running statistics."""
    if world() > 1:
        for buffer in model.buffers():
            dist.broadcast(buffer, src=0)
