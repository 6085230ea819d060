"""Weights: our own files, and those of other people's code."""

import json
import pickle
import re
from dataclasses import asdict
from pathlib import Path

import safetensors
import safetensors.torch
import torch

from rsnlib.config import Architecture, parse
from rsnlib.models.network import Network
from rsnlib.runtime import UserError, whole_file

# Our names -> those of the released RSN and MSPN code, rule after rule. Both count levels and up units from 1.
RELEASED_NAMES = (
    (r"^stem\.", lambda m: "top.conv."),
    (r"^stages\.(\d+)\.", lambda m: f"stage{m[1]}."),
    (r"\.down\.(\d)\.", lambda m: f".downsample.layer{int(m[1]) + 1}."),
    (r"\.reduce\.", lambda m: ".conv_bn_relu1."),
    (r"\.middle\.steps\.(\d)\.(\d)\.", lambda m: f".conv_bn_relu2_{int(m[1]) + 1}_{int(m[2]) + 1}."),
    (r"\.middle\.(?=conv\.|bn\.)", lambda m: ".conv_bn_relu2."),
    (r"\.expand\.", lambda m: ".conv_bn_relu3."),
    (r"\.shortcut\.", lambda m: ".downsample."),
    (r"\.(?:up|heads)\.(\d)\.", lambda m: f".upsample.up{int(m[1]) + 1}."),
    (r"\.lateral\.", lambda m: ".u_skip."),
    (r"\.coarser\.", lambda m: ".up_conv."),
    (r"\.skip_down\.", lambda m: ".skip1."),
    (r"\.skip_up\.", lambda m: ".skip2."),
    (r"\.cross\.", lambda m: ".upsample.up4.cross_conv."),
    (r"(up\d)\.features\.", lambda m: f"{m[1]}.res_conv1."),
    (r"(up\d)\.heatmaps\.", lambda m: f"{m[1]}.res_conv2."),
    # the released PRM, which its networks never call
    (r"\.attention\.features\.", lambda m: ".prm.conv_bn_relu_prm_1."),
    (r"\.attention\.channel\.(\d)\.", lambda m: f".prm.conv_bn_relu_prm_2_{m[1]}."),
    (r"\.attention\.position\.(\d)\.", lambda m: f".prm.conv_bn_relu_prm_3_{int(m[1]) + 1}."),
)


def released_name(name):
    """The name that the released RSN and MSPN code has for our tensor `name`."""
    for pattern, replacement in RELEASED_NAMES:
        name = re.sub(pattern, replacement, name)
    return name


def load_checkpoint(model, path_or_state_dict):
    """Fill `model` with the weights of a file (or state dict) of ours or of the released RSN or MSPN code; the names
    inside tell which. Released networks take BGR: their first convolution is turned to RGB. Returns the model.

    Raises UserError where the file cannot be read, would execute code, or has a tensor too many, too few or of
    another shape.
    """
    if isinstance(path_or_state_dict, (str, Path)):
        where = str(path_or_state_dict)
        state = read_state_dict(path_or_state_dict)
    else:
        where, state = "state dict", path_or_state_dict
    ours = model.state_dict()
    if any(name.startswith("top.") for name in state):
        released = {released_name(name): name for name in ours}
        state = {released.get(name, name): tensor for name, tensor in state.items()}
        if "stem.conv.weight" in state:
            state["stem.conv.weight"] = state["stem.conv.weight"].flip(1)
    problems = [f"{name} is missing" for name in ours if name not in state]
    problems += [f"{name} does not belong to this network" for name in state if name not in ours]
    problems += [
        f"{name} has shape {tuple(state[name].shape)}, not {tuple(tensor.shape)}"
        for name, tensor in ours.items()
        if name in state and state[name].shape != tensor.shape
    ]
    if problems:
        more = f" and {len(problems) - 5} more" if len(problems) > 5 else ""
        raise UserError(f"{where} does not fit the network: {'; '.join(problems[:5])}{more}")
    model.load_state_dict(state)
    return model


def read_state_dict(path):
    """The tensors by name in a safetensors or torch file. Nothing in the file is executed."""
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    try:
        if path.suffix == ".safetensors":
            return safetensors.torch.load_file(path)
        contents = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UserError(
            f"{path}: not loaded, because it is no plain file of weights (it holds objects or code, or is damaged): "
            f"{str(error).splitlines()[0]}"
        ) from None
    except Exception as error:  # the readers raise whatever the damage leads to
        raise UserError(f"{path}: not readable as weights ({type(error).__name__}: {error})") from None
    for key in ("state_dict", "model"):
        if isinstance(contents, dict) and isinstance(contents.get(key), dict):
            contents = contents[key]
    if not isinstance(contents, dict) or not all(isinstance(value, torch.Tensor) for value in contents.values()):
        raise UserError(f"{path}: holds no state dict (tensors by name)")
    return contents


def save_model(model, path, about=None):
    """Write weights and what they are as safetensors, whole or not at all: architecture, keypoints, input size and what
    `about` adds (JSON values)."""
    description = {
        "architecture": asdict(model.architecture),
        "keypoints": model.keypoints,
        "input_size": model.input_size,
        **(about or {}),
    }
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    with whole_file(path) as file:
        file.write(safetensors.torch.save(state, metadata={"rsnlib": json.dumps(description, sort_keys=True)}))


def load_model(path):
    """The network of a file written by `save_model`, ready to predict; what was saved about it is in `model.about`."""
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    try:
        with safetensors.safe_open(path, "pt") as file:
            about = json.loads((file.metadata() or {})["rsnlib"])
        model = Network(parse(Architecture, about["architecture"], path), about["keypoints"], about["input_size"])
    except (safetensors.SafetensorError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path}: not a model saved by rsnlib ({type(error).__name__}: {error})") from None
    load_checkpoint(model, path)
    model.about = about
    return model.eval()
