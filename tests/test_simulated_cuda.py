"""Code for GPUs on machines without one: tests/on_cuda.py on a simulated CUDA device, or on the GPU if there is one."""

import sys

import pytest
import torch
from checkout import ROOT, run
from simulated_cuda.build import Unavailable, library


def test_training_and_prediction_work_on_a_cuda_device():
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/on_cuda.py"]
    if not torch.cuda.is_available():
        command += ["-p", "simulated_cuda.plugin"]
        try:
            library()
        except Unavailable as reason:
            pytest.skip(f"no simulated CUDA device: {reason}")
    run(ROOT, *command, PYTHONPATH="tests")
