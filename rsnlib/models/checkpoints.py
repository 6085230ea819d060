"""Weights in files: ours, those of the released RSN and MSPN code, and MMPose's."""

import json
import pickle
import re
from dataclasses import asdict
from pathlib import Path

import safetensors
import safetensors.torch
import torch

from rsnlib.errors import UserError
from rsnlib.files import check_zip, whole_file
from rsnlib.models.network import Network
from rsnlib.models.zoo import create_model, parse_architecture

# Our names, those of the released RSN and MSPN code, and MMPose's where they differ; applied row after row. Theirs
# count from 1. The released PRM, which its networks never call, may also be a file of its own.
NAMES = (
    (
        r"^stages\.(\d+)\.heads\.(\d)\.",
        lambda m: f"stage{m[1]}.upsample.up{int(m[2]) + 1}.",
        lambda m: f"head.predict_layers.{4 * int(m[1]) + int(m[2])}.",
    ),
    (r"^stages\.(\d+)\.", r"stage\1.", r"backbone.multi_stage_rsn.\1."),
    (r"^stem\.", "top.conv.", "backbone.top.top.0."),
    (r"(^|\.attention\.)features\.", r"\1conv_bn_relu_prm_1."),
    (
        r"(^|\.attention\.)channel\.(\d)\.(conv|bn)\.",
        r"\1conv_bn_relu_prm_2_\2.\3.",
        lambda m: f"{m[1]}middle_path.{3 * int(m[2]) - (3 if m[3] == 'conv' else 2)}.",
    ),
    (r"(^|\.attention\.)position\.0\.", r"\1conv_bn_relu_prm_3_1.", r"\1bottom_path.0."),
    (r"(^|\.attention\.)position\.1\.", r"\1conv_bn_relu_prm_3_2.", r"\1bottom_path.1.depthwise_conv."),
    (r"(^|\.attention\.)position\.2\.", r"\1conv_bn_relu_prm_3_3.", r"\1bottom_path.1.pointwise_conv."),
    (r"\.attention\.", ".prm."),
    (r"\.features\.", ".res_conv1.", ".conv_layers.0."),
    (r"\.heatmaps\.", ".res_conv2.", ".conv_layers.1."),
    (r"\.down\.(\d)\.", lambda m: f".downsample.layer{int(m[1]) + 1}."),
    (r"\.reduce\.", ".conv_bn_relu1."),
    (r"\.middle\.steps\.(\d)\.(\d)\.", lambda m: f".conv_bn_relu2_{int(m[1]) + 1}_{int(m[2]) + 1}."),
    (r"\.middle\.(?=conv\.|bn\.)", ".conv_bn_relu2."),
    (r"\.expand\.", ".conv_bn_relu3.", ".conv_bn3."),
    (r"\.shortcut\.", ".downsample."),
    (r"\.up\.(\d)\.", lambda m: f".upsample.up{int(m[1]) + 1}."),
    (r"\.lateral\.", ".u_skip.", ".in_skip."),
    (r"\.coarser\.", ".up_conv."),
    (r"\.skip_down\.", ".skip1.", ".out_skip1."),
    (r"\.skip_up\.", ".skip2.", ".out_skip2."),
    (r"\.cross\.", ".upsample.up4.cross_conv."),
)
MMPOSE_MSPN = (  # before NAMES, for networks of bottleneck blocks
    (r"^stages\.(\d+)\.(?!heads)", r"backbone.multi_stage_mspn.\1."),
    (r"\.reduce\.(conv|bn)\.", r".\g<1>1."),
    (r"\.middle\.(conv|bn)\.", r".\g<1>2."),
    (r"\.expand\.(conv|bn)\.", r".\g<1>3."),
)
BEFORE_NORM = re.compile(r"\.conv(\d?)\.bias$")  # MMPose has no such bias; PRM's linear layers have one


def load_checkpoint(model, path_or_state_dict):
    """Fill `model` with the weights of a file (or state dict) and return it.

    The names inside tell whose the file is: ours, the released RSN or MSPN code's, or MMPose's. Released networks take
    BGR: their first convolution is turned to RGB. MMPose's convolutions have no bias: it becomes zero.

    Raises UserError where the file cannot be read, would execute code, or has a tensor too many, too few or of
    another shape; the message calls the tensors what the file calls them.
    """
    if isinstance(path_or_state_dict, (str, Path)):
        where, contents = path_or_state_dict, _read(Path(path_or_state_dict))
    else:
        where, contents = "state dict", path_or_state_dict
    if not (state := _unwrap(contents)):
        raise UserError(f"{where}: holds no state dict (tensors by name)")
    ours = model.state_dict()
    if any(name.startswith(("top.", "stage0.", "conv_bn_relu_prm_")) for name in state):
        form = "rsn"
    else:
        form = "mmpose" if any(name.startswith(("backbone.", "head.")) for name in state) else "rsnlib"
    names, shapes = foreign_names(model, form)
    if form == "mmpose":
        state = {name: torch.zeros(shape) for name, shape in shapes.items() if BEFORE_NORM.search(name)} | state

    problems = [f"{name} is missing" for name in shapes if name not in state]
    for name, tensor in state.items():
        if name not in shapes:
            problems.append(f"{name} does not belong to this network")
        elif tensor.shape != shapes[name]:
            problems.append(f"{name} has shape {tuple(tensor.shape)}, not {tuple(shapes[name])}")
        elif tensor.layout != torch.strided or tensor.is_meta or tensor.is_quantized or tensor.is_complex():
            stored = f"{tensor.layout}, {tensor.dtype}, {tensor.device}"
            problems.append(f"{name} is stored as {stored}, not as plain real numbers")
    if problems:
        more = f" and {len(problems) - 5} more" if len(problems) > 5 else ""
        raise UserError(f"{where} ({form} names) does not fit the network: {'; '.join(problems[:5])}{more}")
    weights = {name: state[names[name]].reshape(tensor.shape) for name, tensor in ours.items()}
    if form == "rsn" and "stem.conv.weight" in weights:
        weights["stem.conv.weight"] = weights["stem.conv.weight"].flip(1)
    if any(tensor.is_meta for tensor in ours.values()):
        model.to_empty(device="cpu")
    model.load_state_dict(weights)
    return model


def save_checkpoint(model, path, format):
    """Write `model` as a file that other people's code loads, whole or not at all.

    format: "rsn", the released RSN or (bottleneck blocks) MSPN code, where depths, expansion and widths are numbers in
        the code of an experiment; or "mmpose", MMPose 1.x, as far as its configurations go

    Raises UserError where the other code has no such network.
    """
    if format not in ("rsn", "mmpose"):
        raise UserError(f"format {format!r} is unknown; known are rsn, mmpose")
    if reason := _beyond(format, model.architecture):
        raise UserError(f"{path}: not written, because the format {format!r} has no network with {reason}")
    state = {name: tensor.detach().cpu().clone() for name, tensor in model.state_dict().items()}
    if format == "rsn":
        state["stem.conv.weight"] = state["stem.conv.weight"].flip(1)
    names, shapes = foreign_names(model, format)
    named = {theirs: state[name].reshape(shapes[theirs]) for name, theirs in names.items()}
    if format == "mmpose":
        for bias in filter(BEFORE_NORM.search, list(named)):
            named[BEFORE_NORM.sub(r".bn\1.running_mean", bias)] -= named.pop(bias)
    with whole_file(path) as file:
        torch.save({"model": named} if format == "rsn" else {"meta": {}, "state_dict": named}, file)


def _beyond(format, a):
    """Return in words what an architecture has that no network of the other code has, or None."""
    steps = a.block == "residual_steps"
    found = {
        "stages that do not see one another's features (cross_stage: false)": a.stages > 1 and not a.cross_stage,
        "Res2Net blocks": a.block == "res2net",
        f"width {a.width}": a.width != 1,
    }
    if format == "rsn":
        found |= {
            f"attention {a.attention!r}: the released networks never call any": a.attention,
            f"{a.branches} branches: its block is written out for four": steps and a.branches != 4,
        }
    else:
        refined = a.attention is not None and (a.attention, a.attention_at) != ("prm-mmpose", "every")
        wide = steps and (a.expansion, a.width_of) != (1, "input")
        found |= {
            f"attention {a.attention!r} at {a.attention_at!r}: it knows 'prm-mmpose' at 'every' head alone": refined,
            f"expansion {a.expansion} and width_of {a.width_of!r}: it knows 1 and 'input' alone": wide,
            f"bottlenecks of expansion {a.expansion}: it knows 4 alone": a.block == "bottleneck" and a.expansion != 4,
        }
    return next((words for words, there in found.items() if there), None)


def foreign_names(model, form):
    """Return {our name: name in a file} of every tensor of `model`, for files of form "rsnlib", "rsn" or "mmpose", and
    {name in the file: shape there}, which differs where MMPose's PRM has linear layers for 1x1 convolutions."""
    rules = NAMES if form != "rsnlib" else ()
    if form == "mmpose" and isinstance(model, Network) and model.architecture.block == "bottleneck":
        rules = MMPOSE_MSPN + NAMES
    names, shapes = {}, {}
    for ours, tensor in model.state_dict().items():
        theirs = ours
        for pattern, *replacements in rules:
            theirs = re.sub(pattern, replacements[0 if form == "rsn" else -1], theirs)
        names[ours] = theirs
        shapes[theirs] = tensor.shape[:2] if ".middle_path." in theirs else tensor.shape
    return names, shapes


def _read(path):
    """Return the contents of a safetensors or torch file, executing nothing in it."""
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
        return torch.load(path, map_location="cpu", weights_only=True)
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


def _unwrap(contents):
    """Return the state dict in the contents of a file, without DataParallel's prefix; empty where there is none.

    A moving average of the weights is preferred: it is under "ema_state_dict", but in files of mmengine's runner,
    which swaps the two when it saves, under "state_dict".
    """
    if not isinstance(contents, dict):
        return {}
    by_mmengine = isinstance(contents.get("meta"), dict) and "mmengine_version" in contents["meta"]
    keys = ("state_dict", "model") if by_mmengine else ("ema_state_dict", "state_dict", "model")
    inside = next((contents[key] for key in keys if isinstance(contents.get(key), dict)), contents)
    state = {}
    for name, tensor in inside.items():
        if name == "steps":  # how many updates a moving average has had
            continue
        if not isinstance(name, str) or not isinstance(tensor, torch.Tensor):
            return {}
        name = name.removeprefix("module.")
        state[re.sub(r"^keypoint_head\.", "head.", name)] = tensor  # as MMPose 0.x called it
    return state


def save_model(model, path, about=None):
    """Write a network as safetensors, whole or not at all: its weights, and as JSON its architecture, keypoints and
    input size and the entries of `about`."""
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
    """Return the network of a file written by `save_model`, ready to predict; `model.about` is the file's JSON. Raises
    UserError where the file is missing, damaged, or not written by `save_model`."""
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    try:
        with safetensors.safe_open(path, "pt") as file:
            about, tensors = json.loads((file.metadata() or {})["rsnlib"]), len(file.keys())
        architecture = parse_architecture(about["architecture"], "architecture.")
        if (blocks := architecture.stages * sum(architecture.depths)) > tensors:
            raise ValueError(f"{tensors} tensors for {blocks} blocks")
        with torch.device("meta"):  # no memory before the tensors of the file are known to fit
            model = create_model(architecture, about["keypoints"], about["input_size"])
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    except (safetensors.SafetensorError, OSError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: not a model saved by rsnlib ({type(error).__name__}: {error})") from None
    load_checkpoint(model, path)
    model.about = about
    return model.eval()
