"""A CUDA device for machines without a GPU: `PYTHONPATH=tests pytest -p simulated_cuda.plugin tests/test_train.py`."""
