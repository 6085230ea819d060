"""CUDA graphs: the thousands of kernels of a step as one launch, so that a GPU does not wait for Python."""

import torch

GRAPHS = torch.backends.cuda.is_built()


def graphed(function, device):
    """Return `function` of tensors, and of other arguments by name, launched as CUDA graphs on `device`: the first call
    of a kind (shapes, dtypes, other arguments) runs as it is, the second records a graph, which all later ones replay.

    `function` may change tensors only in place, must find the tensors that it reads where they were, and must not wait
    for the device. The returned tensor is overwritten by the next call. On other devices nothing changes.
    """
    if device.type != "cuda" or not GRAPHS:
        return function
    graphs = {}

    def run(*tensors, **others):
        kind = *((tensor.shape, tensor.dtype, tensor.stride()) for tensor in tensors), *others.items()
        if kind not in graphs:  # kernels are chosen and compiled, in a stream of its own as later in the recording
            graphs[kind] = None
            stream = torch.cuda.Stream()
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                result = function(*tensors, **others)
            torch.cuda.current_stream().wait_stream(stream)
            return result
        if graphs[kind] is None:
            graphs[kind] = _record(function, tensors, others)
        graph, places, result = graphs[kind]
        for place, tensor in zip(places, tensors):
            place.copy_(tensor, non_blocking=True)
        graph.replay()
        return result

    return run


def _record(function, tensors, others):
    """Return a graph of one call, the tensors that it reads and the one that it writes."""
    places, graph = [tensor.clone() for tensor in tensors], torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):  # other threads prepare batches meanwhile
        result = function(*places, **others)
    return graph, places, result
