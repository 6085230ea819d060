"""Cores shared with other processes."""

import pytest
import torch

from rsnlib import device
from rsnlib.device import SharedCores


@pytest.fixture
def machine(monkeypatch):
    """Seconds on the clocks of a machine on which torch may use two threads: `wall`, this process's `own`, `idle`."""
    clocks = {"wall": 0.0, "own": 0.0, "idle": 100.0}
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(device.time, "monotonic", lambda: clocks["wall"])
    monkeypatch.setattr(device.time, "process_time", lambda: clocks["own"])
    monkeypatch.setattr(device, "_idle_seconds", lambda: clocks["idle"])
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield clocks
    torch.set_num_threads(before)


def adjusted(machine, cores, own, idle):
    """Return the number of threads after ten seconds with these averages of busy and idle cores."""
    machine["wall"] += 10
    machine["own"] += 10 * own
    machine["idle"] += 10 * idle
    cores.adjust()
    return torch.get_num_threads()


def test_torch_leaves_a_core_to_a_busy_process_and_takes_it_back(machine):
    cores = SharedCores()
    assert adjusted(machine, cores, own=1.5, idle=0) == 1  # the other process has half a core
    assert adjusted(machine, cores, own=1, idle=0) == 1  # now a whole one
    assert adjusted(machine, cores, own=1, idle=0.7) == 1  # a third
    assert adjusted(machine, cores, own=1, idle=0.95) == 2


@pytest.mark.parametrize(("own", "idle"), [(2, 0), (1.2, 0.8), (1.7, 0)], ids=["quiet", "waiting", "a third is taken"])
def test_torch_keeps_its_threads_beside_little_else(machine, own, idle):
    assert adjusted(machine, SharedCores(), own, idle) == 2


def test_the_number_of_threads_that_a_user_has_set_stays(machine, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    assert adjusted(machine, SharedCores(), own=1, idle=0) == 2
