"""Weights in files: ours, those of the released RSN and MSPN code, and MMPose's."""

import json
from dataclasses import asdict
from pathlib import Path

import safetensors
import safetensors.torch
import torch

from rsnlib.errors import UserError
from rsnlib.files import whole_file
from rsnlib.models.foreign import BEFORE_NORM, find_state, fit, foreign_names, is_plain, recognise
from rsnlib.models.torch_files import read_torch_file
from rsnlib.models.zoo import create_model, describe, parse_architecture

ABOUT = "rsnlib"  # the entry of a file with our description of the model, as JSON


def load_checkpoint(model, path_or_state_dict):
    """Fill `model` with the weights of a file (or state dict) and return it.

    The names inside tell whose the file is: ours, the released RSN or MSPN code's, or MMPose's. Nothing in a file is
    executed. Raises UserError where the file cannot be read, or has a tensor too many, too few or of another shape; the
    message calls the tensors what the file calls them.
    """
    where, contents, _ = _open(path_or_state_dict)
    form, state = find_state(contents, where)
    weights, problems = fit(model, form, state)
    if problems:
        raise UserError(f"{where} ({form} names) does not fit the network: {_some(problems)}")
    return _fill(model, weights)


def read_weights(path_or_state_dict):
    """Return the state dict of a file (or state dict) of anyone's by our names, for RGB: {name: tensor}. Tensors that
    no network has are left out. Raises UserError as `load_checkpoint` does for what cannot be read."""
    where, contents, _ = _open(path_or_state_dict)
    form, state = find_state(contents, where)
    if form == "rsnlib":
        return {name: tensor for name, tensor in state.items() if is_plain(tensor)}
    return fit(_empty(where, recognise(form, state, contents), state), form, state)[0]


def load_model(path):
    """Return the network of a file of ours or of anyone's, ready to predict.

    `model.about` is what the file says of it: for ours, all that `save_model` was told; for others', "source" (whose
    names it has), "model" (the network's name or, if it has none, its structure) and "assumed": names and shapes tell
    the network, but not its input size. Raises UserError where the file is missing, damaged, or of no such network.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    _, contents, text = _open(path)
    form, state = find_state(contents, path)
    try:
        about = recognise(form, state, contents) if text is None else json.loads(text)
        model = _empty(path, about, state)
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: not a model saved by rsnlib ({type(error).__name__}: {error})") from None
    which = describe(model.architecture)
    about.setdefault("model", which)
    weights, problems = fit(model, form, state)
    if problems:
        nearest = f"the network nearest to it is {which} with {model.keypoints} keypoints"
        raise UserError(f"{path} ({form} names): {nearest}, which it does not fit: {_some(problems)}")
    _fill(model, weights)
    model.about = about
    return model.eval()


def _empty(path, about, state):
    """Return the network that `about` describes, without memory for its weights: they are to be known to fit, first."""
    try:
        architecture = parse_architecture(about["architecture"], "architecture.")
        if (blocks := architecture.stages * sum(architecture.depths)) > len(state):
            raise UserError(f"{len(state)} tensors for {blocks} blocks")
        with torch.device("meta"):
            return create_model(architecture, about["keypoints"], about["input_size"])
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


def save_model(model, path, about=None):
    """Write a network as safetensors, whole or not at all: its weights, and as JSON its architecture, keypoints and
    input size and the entries of `about`."""
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    with whole_file(path) as file:
        file.write(safetensors.torch.save(state, metadata={ABOUT: _description(model, about or {})}))


def save_checkpoint(model, path, format):
    """Write `model` as a file that other people's code loads, whole or not at all. An entry that other code passes over
    keeps what `save_model` would, `model.about` included, for `load_model`.

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
    contents = {"model": named} if format == "rsn" else {"meta": {}, "state_dict": named}
    with whole_file(path) as file:
        torch.save({**contents, ABOUT: _description(model, getattr(model, "about", {}))}, file)


def _description(model, about):
    """Return as JSON what `load_model` needs beside the weights, and `about`."""
    architecture = asdict(model.architecture)
    own = {"architecture": architecture, "keypoints": model.keypoints, "input_size": model.input_size}
    return json.dumps(about | own, sort_keys=True)


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


def _fill(model, weights):
    """Give `model` weights that fit."""
    if any(tensor.is_meta for tensor in model.state_dict().values()):
        model.to_empty(device="cpu")
    model.load_state_dict(weights)
    return model


def _some(problems):
    more = f" and {len(problems) - 5} more" if len(problems) > 5 else ""
    return "; ".join(problems[:5]) + more


def _open(path_or_state_dict):
    """Return what to call a file (or state dict), its contents, and our description of the model in it or None."""
    if not isinstance(path_or_state_dict, (str, Path)):
        return "state dict", path_or_state_dict, None
    path = Path(path_or_state_dict)
    try:
        with path.open("rb") as file:
            start = file.read(512)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from None
    if start.lstrip().startswith((b"<", b"version https://git-lfs")):
        raise UserError(f"{path}: is text, not weights (a web page, or the pointer to a file): download it again")
    try:
        if path.suffix == ".safetensors":
            with safetensors.safe_open(path, "pt") as file:
                contents = {name: file.get_tensor(name) for name in file.keys()}
                return path, contents, (file.metadata() or {}).get(ABOUT)
        contents = read_torch_file(path)
        return path, contents, contents.get(ABOUT) if isinstance(contents, dict) else None
    except Exception as error:  # the readers raise whatever the damage leads to
        reason = str(error).splitlines()[0] if str(error) else "ends early"
        raise UserError(
            f"{path}: damaged or cut short ({path.stat().st_size:,} bytes; {type(error).__name__}: {reason}): "
            "download or copy it again"
        ) from None
