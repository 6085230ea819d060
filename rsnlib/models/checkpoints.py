"""Weights: our own files, and those of other people's code."""

import json
import pickle
import re
from dataclasses import asdict, fields
from pathlib import Path
from typing import Annotated

import safetensors
import safetensors.torch
import torch
from pydantic import Field
from pydantic.dataclasses import dataclass

from rsnlib.config import Architecture, Size, parse, strict
from rsnlib.errors import UserError
from rsnlib.files import check_zip, whole_file
from rsnlib.models.network import Network


@dataclass(config=strict)
class Saved:
    """What of a network `load_model` builds it from."""

    architecture: Architecture
    keypoints: Annotated[int, Field(ge=1, le=1000)]
    input_size: Size


# Our names -> other people's, rule after rule. They count levels, up units, branches and steps from 1.
SHARED_NAMES = (
    (r"\.down\.(\d)\.", lambda m: f".downsample.layer{int(m[1]) + 1}."),
    (r"\.up\.(\d)\.", lambda m: f".upsample.up{int(m[1]) + 1}."),
    (r"\.reduce\.", lambda m: ".conv_bn_relu1."),
    (r"\.middle\.steps\.(\d)\.(\d)\.", lambda m: f".conv_bn_relu2_{int(m[1]) + 1}_{int(m[2]) + 1}."),
    (r"\.shortcut\.", lambda m: ".downsample."),
    (r"\.coarser\.", lambda m: ".up_conv."),
    (r"\.cross\.", lambda m: ".upsample.up4.cross_conv."),
)
RELEASED_NAMES = (  # released RSN and MSPN
    *SHARED_NAMES,
    (r"^stem\.", lambda m: "top.conv."),
    (r"^stages\.(\d+)\.", lambda m: f"stage{m[1]}."),
    (r"\.middle\.(?=conv\.|bn\.)", lambda m: ".conv_bn_relu2."),
    (r"\.expand\.", lambda m: ".conv_bn_relu3."),
    (r"\.lateral\.", lambda m: ".u_skip."),
    (r"\.skip_down\.", lambda m: ".skip1."),
    (r"\.skip_up\.", lambda m: ".skip2."),
    (r"\.heads\.(\d)\.", lambda m: f".upsample.up{int(m[1]) + 1}."),
    # the released PRM, which its networks never call: alone, or where they would have it
    (r"\.attention\.", lambda m: ".prm."),
    (r"(^|\.prm\.)features\.", lambda m: f"{m[1]}conv_bn_relu_prm_1."),
    (r"(^|\.prm\.)channel\.(\d)\.", lambda m: f"{m[1]}conv_bn_relu_prm_2_{m[2]}."),
    (r"(^|\.prm\.)position\.(\d)\.", lambda m: f"{m[1]}conv_bn_relu_prm_3_{int(m[2]) + 1}."),
    (r"\.features\.", lambda m: ".res_conv1."),
    (r"\.heatmaps\.", lambda m: ".res_conv2."),
)
MMPOSE_HEADS = (
    (r"^stages\.(\d+)\.heads\.(\d)\.", lambda m: f"head.predict_layers.{4 * int(m[1]) + int(m[2])}."),
    (r"\.attention\.", lambda m: ".prm."),
    (r"\.prm\.features\.", lambda m: ".prm.conv_bn_relu_prm_1."),
    (r"\.prm\.channel\.(\d)\.conv\.", lambda m: f".prm.middle_path.{3 * int(m[1]) - 3}."),
    (r"\.prm\.channel\.(\d)\.bn\.", lambda m: f".prm.middle_path.{3 * int(m[1]) - 2}."),
    (r"\.prm\.position\.0\.", lambda m: ".prm.bottom_path.0."),
    (r"\.prm\.position\.1\.", lambda m: ".prm.bottom_path.1.depthwise_conv."),
    (r"\.prm\.position\.2\.", lambda m: ".prm.bottom_path.1.pointwise_conv."),
    (r"\.features\.", lambda m: ".conv_layers.0."),
    (r"\.heatmaps\.", lambda m: ".conv_layers.1."),
)
MMPOSE_RSN = (
    *MMPOSE_HEADS,
    *SHARED_NAMES,
    (r"^stem\.", lambda m: "backbone.top.top.0."),
    (r"^stages\.", lambda m: "backbone.multi_stage_rsn."),
    (r"\.expand\.", lambda m: ".conv_bn3."),
    (r"\.lateral\.", lambda m: ".in_skip."),
    (r"\.skip_down\.", lambda m: ".out_skip1."),
    (r"\.skip_up\.", lambda m: ".out_skip2."),
)
MMPOSE_MSPN = (
    (r"\.reduce\.(conv|bn)\.", lambda m: f".{m[1]}1."),
    (r"\.middle\.(conv|bn)\.", lambda m: f".{m[1]}2."),
    (r"\.expand\.(conv|bn)\.", lambda m: f".{m[1]}3."),
    (r"^stages\.(\d+)\.(?!heads)", lambda m: f"backbone.multi_stage_mspn.{m[1]}."),
    *MMPOSE_RSN,
)


def load_checkpoint(model, path_or_state_dict):
    """Fill `model` with the weights of a file (or state dict) of ours, of the released RSN or MSPN code, or of MMPose;
    the names inside tell which. Released networks take BGR: their first convolution is turned to RGB. MMPose's
    convolutions have no bias: it becomes zero. Returns the model.

    Raises UserError where the file cannot be read, would execute code, or has a tensor too many, too few or of
    another shape; it calls the tensors what the file calls them.
    """
    if isinstance(path_or_state_dict, (str, Path)):
        where, state = str(path_or_state_dict), read_state_dict(path_or_state_dict)
    else:
        where, state = "state dict", _unwrap(path_or_state_dict)
    if state is None:
        raise UserError(f"{where}: holds no state dict (tensors by name)")
    ours = model.state_dict()
    form = _recognise(state)
    names = {name: _foreign_name(name, form, model) for name in ours}
    wanted = {names[name]: _foreign_shape(names[name], tensor.shape) for name, tensor in ours.items()}
    optional = {name for name in wanted if form == "mmpose" and _folded_bias(name)}

    problems = [f"{name} is missing" for name in wanted if name not in state and name not in optional]
    problems += [f"{name} does not belong to this network" for name in state if name not in wanted]
    problems += [
        f"{name} has shape {tuple(state[name].shape)}, not {tuple(shape)}"
        for name, shape in wanted.items()
        if name in state and state[name].shape != shape
    ]
    problems += [f"{name} is {what}" for name in wanted if name in state and (what := _no_plain_numbers(state[name]))]
    if problems:
        more = f" and {len(problems) - 5} more" if len(problems) > 5 else ""
        raise UserError(f"{where} ({form} names) does not fit the network: {'; '.join(problems[:5])}{more}")
    weights = {
        name: state[names[name]].reshape(tensor.shape) if names[name] in state else torch.zeros(tensor.shape)
        for name, tensor in ours.items()
    }
    if form == "rsn" and "stem.conv.weight" in weights:
        weights["stem.conv.weight"] = weights["stem.conv.weight"].flip(1)
    if any(tensor.is_meta for tensor in ours.values()):
        model.to_empty(device="cpu")
    model.load_state_dict(weights)
    return model


def _no_plain_numbers(tensor):
    """What keeps a tensor from being weights, in words, or None."""
    if tensor.layout != torch.strided or tensor.is_meta or tensor.is_quantized:
        return f"stored as {'meta' if tensor.is_meta else tensor.layout}, not as plain numbers"
    return "complex" if tensor.is_complex() else None


def save_checkpoint(model, path, format):
    """Write `model` as a file that other people's code loads, whole or not at all.

    format: "rsn", the released RSN or (bottleneck blocks) MSPN code, where depths, expansion and widths are numbers in
        the code of an experiment; or "mmpose", MMPose 1.x, with what its configurations can say

    Raises UserError where that code has no such network.
    """
    checks = {"rsn": _beyond_released, "mmpose": _beyond_mmpose}
    if format not in checks:
        raise UserError(f"format {format!r} is unknown; known are {', '.join(checks)}")
    if reason := checks[format](model.architecture):
        raise UserError(f"{path}: not written, because the format {format!r} has no network with {reason}")
    state = {name: tensor.detach().cpu().clone() for name, tensor in model.state_dict().items()}
    if format == "rsn":
        state["stem.conv.weight"] = state["stem.conv.weight"].flip(1)
    named = {_foreign_name(name, format, model): tensor for name, tensor in state.items()}
    if format == "mmpose":
        for bias in [name for name in named if _folded_bias(name)]:
            named[_norm_of(bias) + ".running_mean"] -= named.pop(bias)
    named = {name: tensor.reshape(_foreign_shape(name, tensor.shape)) for name, tensor in named.items()}
    with whole_file(path) as file:
        torch.save({"model": named} if format == "rsn" else {"meta": {}, "state_dict": named}, file)


def _recognise(state):
    """Whose names these are: "rsn" (released RSN or MSPN), "mmpose", or else "rsnlib", ours."""
    if any(name.startswith(("top.", "stage0.", "conv_bn_relu_prm_")) for name in state):
        return "rsn"
    return "mmpose" if any(name.startswith(("backbone.", "head.")) for name in state) else "rsnlib"


def _foreign_name(name, form, model):
    """What our tensor `name` of `model` is called in files of `form`."""
    if form == "rsn":
        return released_name(name)
    if form == "mmpose":
        mspn = isinstance(model, Network) and model.architecture.block == "bottleneck"
        return _rename(name, MMPOSE_MSPN if mspn else MMPOSE_RSN)
    return name


def released_name(name):
    """What the released RSN and MSPN code calls our tensor `name`."""
    return _rename(name, RELEASED_NAMES)


def _rename(name, rules):
    for pattern, replacement in rules:
        name = re.sub(pattern, replacement, name)
    return name


def _foreign_shape(name, shape):
    """The shape of a tensor in a file that calls it `name`: MMPose's PRM has linear layers for 1x1 convolutions."""
    return shape[:2] if ".middle_path." in name and len(shape) == 4 else shape


def _folded_bias(name):
    """Whether MMPose leaves this bias out: it does before a batch norm, but not in PRM's linear layers."""
    return re.search(r"\.conv\d?\.bias$", name) is not None


def _norm_of(bias):
    """The batch norm behind the convolution that has this bias, by MMPose's names."""
    return re.sub(r"conv(\d?)\.bias$", r"bn\1", bias)


def _beyond_released(a):
    """What of an architecture the released RSN and MSPN code cannot express, or None."""
    if not (a.cross_stage or a.stages == 1):
        return "stages that do not see one another's features (cross_stage: false)"
    if a.attention is not None:
        return f"attention {a.attention!r}: the released networks never call any"
    if a.block == "res2net":
        return "Res2Net blocks"
    if a.block == "residual_steps" and a.branches != 4:
        return f"{a.branches} branches: its block is written out for four"
    return None


def _beyond_mmpose(a):
    """What of an architecture MMPose's RSN, MSPN and MSPNHead cannot express, or None."""
    if not (a.cross_stage or a.stages == 1):
        return "stages that do not see one another's features (cross_stage: false)"
    if a.attention not in (None, "prm-mmpose") or (a.attention and a.attention_at != "every"):
        return f"attention {a.attention!r} at {a.attention_at!r}: it knows 'prm-mmpose' at 'every' head alone"
    if a.block == "res2net":
        return "Res2Net blocks"
    if a.block == "residual_steps" and (a.expansion, a.width_of) != (1, "input"):
        return f"expansion {a.expansion} and width_of {a.width_of!r}: it knows 1 and 'input' alone"
    if a.block == "bottleneck" and a.expansion != 4:
        return f"bottlenecks of expansion {a.expansion}: it knows 4 alone"
    return None


def read_state_dict(path):
    """The tensors by name in a safetensors or torch file. Nothing in the file is executed."""
    path = Path(path)
    try:
        with path.open("rb") as file:
            start = file.read(512)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from None
    if start.lstrip().startswith((b"<", b"version https://git-lfs")):
        raise UserError(f"{path}: is text, not weights (a web page, or the pointer to a file): download it again")
    try:
        if path.suffix == ".safetensors":
            return safetensors.torch.load_file(path)
        check_zip(path)
        contents = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        asked = re.search(r"GLOBAL (\S+)", str(error))
        what = f"it asks for {asked[1]}" if asked else "it is no plain pickle of tensors"
        raise UserError(
            f"{path}: not loaded: {what}, which could execute code. If you trust its source, save its state dict alone "
            "into a file of its own"
        ) from None
    except Exception as error:  # the readers raise whatever the damage leads to
        reason = str(error).splitlines()[0] if str(error) else "ends early"
        raise UserError(
            f"{path}: damaged or cut short ({path.stat().st_size:,} bytes; {type(error).__name__}: {reason}): "
            "download or copy it again"
        ) from None
    state = _unwrap(contents)
    if state is None:
        raise UserError(f"{path}: holds no state dict (tensors by name)")
    return state


def _unwrap(contents):
    """The state dict inside what a file holds, without the prefix of DataParallel; None where there is none.

    Where there is a moving average of the weights, that is it: under "ema_state_dict", but in files of mmengine's
    runner, which swaps the two when it saves, under "state_dict".
    """
    if not isinstance(contents, dict):
        return None
    by_mmengine = isinstance(contents.get("meta"), dict) and "mmengine_version" in contents["meta"]
    for key in ("state_dict", "model") if by_mmengine else ("ema_state_dict", "state_dict", "model"):
        if isinstance(contents.get(key), dict):
            contents = contents[key]
            break
    state = {}
    for name, tensor in contents.items():
        if name == "steps":  # how many updates a moving average has had
            continue
        if not isinstance(name, str) or not isinstance(tensor, torch.Tensor):
            return None
        name = name.removeprefix("module.")
        state[re.sub(r"^keypoint_head\.", "head.", name)] = tensor  # as MMPose 0.x called it
    return state or None


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
            about, tensors = json.loads((file.metadata() or {})["rsnlib"]), len(file.keys())
        saved = parse(Saved, {field.name: about[field.name] for field in fields(Saved)}, path)
        if (blocks := saved.architecture.stages * sum(saved.architecture.depths)) > tensors:
            raise ValueError(f"{tensors} tensors for {blocks} blocks")
    except (safetensors.SafetensorError, OSError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: not a model saved by rsnlib ({type(error).__name__}: {error})") from None
    with torch.device("meta"):  # no memory before the tensors of the file are known to fit
        model = Network(saved.architecture, saved.keypoints, saved.input_size)
    load_checkpoint(model, path)
    model.about = about
    return model.eval()
