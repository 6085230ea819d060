"""Operations, memory traffic and peak memory of a computation with tensors."""

import weakref
from unittest.mock import patch

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from rsnlib.fast import folded
from rsnlib.fast.fused_norm import FusedBatchNorm


def counted(run):
    """Count operations, bytes moved and peak bytes allocated while `run()` executes: operations (a multiply-add is two)
    of matrix products and convolutions; bytes that the steps read and write, each step by itself; the most bytes alive
    at once of those allocated here. Batch norms and convolutions are torch's own, whose steps are visible."""
    operations, traffic = FlopCounterMode(display=False), Traffic()
    plain_norms = patch.object(FusedBatchNorm, "kernels", lambda *_: None)
    plain_sums = patch.multiple(folded, ONEDNN=False, CUDNN=False)
    with plain_norms, plain_sums, operations, traffic:
        run()
    return operations.get_total_flops(), traffic.bytes, traffic.peak


class Traffic(TorchDispatchMode):
    """Counter for `counted`: `bytes` read and written, and `peak`, the most bytes alive at once."""

    def __init__(self):
        super().__init__()
        self.bytes = self.live = self.peak = 0

    def __torch_dispatch__(self, operation, types, arguments=(), options=None):
        results = operation(*arguments, **(options or {}))
        aliases = [value.alias_info for value in operation._schema.returns]
        is_view = any(alias and not alias.is_write for alias in aliases)
        made = _tensors(results)
        if operation._schema.is_mutable or (made and not is_view):
            self.bytes += sum(tensor.nbytes for tensor in _tensors(arguments, options, results))
        if not any(aliases):
            for tensor in made:
                self._follow(tensor.untyped_storage())
        return results

    def _follow(self, storage):
        """Count a new storage for as long as it lives."""
        self.live += storage.nbytes()
        self.peak = max(self.peak, self.live)
        weakref.finalize(storage, self._forget, storage.nbytes())

    def _forget(self, size):
        self.live -= size


def _tensors(*values):
    """Return the tensors in nested lists and dicts."""
    return [value for value in tree_leaves(values) if isinstance(value, torch.Tensor)]
