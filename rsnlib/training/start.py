"""Starting from weights: what fits is taken, keypoints by their names; and parts of a network that do not learn."""

import re
from difflib import get_close_matches

import torch

from rsnlib.errors import UserError

BY_KEYPOINT = re.compile(r"\.heads\.\d\.(heatmaps|attention)\.")  # tensors with one channel per keypoint


@torch.no_grad()
def take_weights(network, weights, keypoints, known=None):
    """Give `network` the tensors of another one that have its names and shapes, the others stay; return what was taken.

    In heads for other keypoints, the channels of keypoints that both networks name are taken.

    weights: {name: tensor} of the other; known: names of its keypoints, None for "the same, if they are as many"
    keypoints: names of the network's own
    -> {"taken": number of tensors, "tensors": number in the network, "keypoints": names in both, None where
    they are the same, "left": modules of which nothing was taken}

    Raises UserError where nothing fits.
    """
    other_keypoints = known is not None and tuple(known) != tuple(keypoints)
    shared = [name for name in keypoints if name in known] if other_keypoints else None
    taken, left = [], []
    for name, values in network.state_dict().items():
        if not values.is_floating_point():  # numbers of batches
            continue
        theirs, here, there = weights.get(name, torch.zeros(0)), ..., ...
        if other_keypoints and BY_KEYPOINT.search(name):
            axes = [
                axis
                for axis in range(1 if ".heatmaps." in name else 2)
                if values.shape[axis : axis + 1] == (len(keypoints),) and theirs.shape[axis : axis + 1] == (len(known),)
            ]
            if axes:
                here = _places(values.shape, axes, [keypoints.index(each) for each in shared])
                there = _places(theirs.shape, axes, [known.index(each) for each in shared])
        if values[here].shape == theirs[there].shape and values[here].numel():
            values[here] = theirs[there].to(values)
            taken.append(name)
        else:
            left.append(name)
    if not taken:
        some = ", ".join(list(weights)[:2])
        raise UserError(f"none of its {len(weights)} tensors ({some}, ...) fits the network by name and shape")
    counts = {"taken": len(taken), "tensors": len(taken + left)}
    return counts | {"keypoints": shared, "left": _modules(left, taken)}


def _places(shape, axes, chosen):
    """Return the index of the chosen channels along some axes of a tensor, and of everything along the others."""
    ranges = [chosen if axis in axes else range(size) for axis, size in enumerate(shape)]
    return torch.meshgrid([torch.tensor(list(each), dtype=torch.long) for each in ranges], indexing="ij")


def _modules(left, taken):
    """Return the outermost modules that hold tensors `left` and none `taken`, by their names."""
    found = {}
    for name in left:
        parts = name.split(".")
        prefixes = (".".join(parts[: depth + 1]) for depth in range(len(parts)))
        found[next(p for p in prefixes if not any(f"{other}.".startswith(f"{p}.") for other in taken))] = None
    return list(found)


def describe(start, skeleton):
    """Return in a sentence what a network for `skeleton` took: the report of `take_weights`, with the "source"."""
    text = f"Starts from {start['source']}: {start['taken']} of {start['tensors']} tensors taken"
    if (shared := start["keypoints"]) is not None:
        text += f", in heads the channels of {len(shared)} of {len(skeleton)} keypoints"
        text += f" ({', '.join(shared)})" if shared else ""
    return text + (f"; begun anew: {', '.join(start['left'])}." if start["left"] else ".")


def parts(network, names):
    """Return modules of a network by their names ("stem", "stages.0.down"). Raises UserError for an unknown name, with
    the nearest, and where nothing is left outside them that learns."""
    modules = dict(network.named_modules())
    for name in names:
        if name not in modules or not name:
            near = get_close_matches(name, filter(None, modules), n=5, cutoff=0.5) or list(network._modules)
            raise UserError(f"frozen: the network has no part {name!r}; near are {', '.join(near)}")
    chosen = [modules[name] for name in names]
    inside = {parameter for module in chosen for parameter in module.parameters()}
    if inside and not set(network.parameters()) - inside:
        raise UserError(f"frozen: {', '.join(names)} are all of the network: nothing would learn")
    return chosen
