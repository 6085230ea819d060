"""Weights under the names of others, the released RSN and MSPN code and MMPose, and the network that they are of."""

import contextlib
import math
import re
from itertools import count

import torch

from rsnlib.errors import UserError
from rsnlib.models.network import UP_WIDTH, Network

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
FORMS = {"rsn": ("top.", "stage0.", "conv_bn_relu_prm_"), "mmpose": ("backbone.", "head.")}  # how names begin
FIRST = ("top.conv.conv.weight", "backbone.top.top.0.conv.weight", "stem.conv.weight")  # in every network, once
SOURCES = {"rsn": "the released RSN or MSPN code", "mmpose": "MMPose", "rsnlib": "rsnlib"}
READ_BY_MMPOSE = {  # what its figures are made with: GetBBoxCenterScale's padding, MegviiHeatmap's kernel and decoding
    "margin": [0.25, 0.25],
    "blur": 5,
    "decoding": "axes",
}
BESIDES = ("data_preprocessor.", "ema_")  # in MMPose's state dicts: the normalisation, and 0.x's second set of weights


def find_state(contents, where):
    """Return whose names are in the contents of a file, "rsn", "mmpose" or "rsnlib", and its state dict: without the
    prefix of whatever the network was part of (`module.`, `model.`), and with MMPose 1.x's names for those of 0.x.

    A moving average of the weights is preferred: it is under "ema_state_dict", but in files of mmengine's runner,
    which swaps the two when it saves, under "state_dict". Raises UserError that names `where` if there is no network
    or more than one.
    """
    contents = contents if isinstance(contents, dict) else {}
    by_mmengine = isinstance(contents.get("meta"), dict) and "mmengine_version" in contents["meta"]
    keys = ("state_dict", "model") if by_mmengine else ("ema_state_dict", "state_dict", "model")
    state = next((contents[key] for key in keys if isinstance(contents.get(key), dict)), contents)
    state = {name: tensor for name, tensor in state.items() if isinstance(name, str)}
    if not any(isinstance(tensor, torch.Tensor) for tensor in state.values()):
        raise UserError(f"{where}: holds no state dict (tensors by name)")
    prefixes = [name.removesuffix(first) for name in state for first in FIRST if f".{name}".endswith(f".{first}")]
    if len(prefixes) > 1:
        listed = ", ".join(map(repr, prefixes))
        raise UserError(f"{where}: holds several networks, their names beginning with {listed}: save one alone")
    prefix = "".join(prefixes) or ("module." if any(name.startswith("module.") for name in state) else "")
    state = {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}
    state = {re.sub(r"^keypoint_head\.", "head.", name): tensor for name, tensor in state.items()}
    form = next((form for form, begin in FORMS.items() if any(name.startswith(begin) for name in state)), "rsnlib")
    return form, {name: tensor for name, tensor in state.items() if not name.startswith(BESIDES)}


def recognise(form, state, contents):
    """Return what `save_model` would have written of the network in a file, and its "source": its architecture and
    keypoints, as far as names and shapes tell them (else RSN-18's), and its skeleton and input size, as far as MMPose
    has written them beside the weights. "assumed" says in words that the input size is a guess; of MMPose's networks
    "margin", "blur" and "decoding" say how it reads poses."""
    rules = _rules(form, "bottleneck" if any(".multi_stage_mspn." in name for name in state) else None)

    def channels(ours):
        tensor = state.get(_rename(f"{ours}.weight", form, rules))
        return tensor.shape[0] if isinstance(tensor, torch.Tensor) and tensor.dim() else 0

    def number(ours):
        return next(index for index in count() if not channels(ours.format(index)))

    stages = number("stages.{}.down.0.0.reduce.conv")
    head, block = f"stages.{stages - 1}.heads.3", "stages.0.down.0.0"
    stem, inner = channels("stem.conv"), channels(f"{block}.reduce.conv")
    found = {
        "depths": [number(f"stages.0.down.{level}.{{}}.reduce.conv") or 2 for level in range(4)],
        "stages": stages,
        "expansion": stem and round(channels(f"{block}.expand.conv") / stem),
        "width": channels(f"{head}.features.conv") / UP_WIDTH,
    }
    middles = {"residual_steps": "steps.0.0.conv", "res2net": "convolutions.0.conv", "bottleneck": "conv"}
    for kind, part in middles.items():
        if branch := channels(f"{block}.middle.{part}"):
            found["block"] = kind
            if kind != "bottleneck":
                found |= {"branches": inner // branch, "branch_width": stem and math.ceil(64 * branch / stem)}
                second, deeper = (channels(f"stages.0.down.{each}.reduce.conv") for each in ("0.1", "1.0"))
                if second in (0, inner) and round(deeper / max(inner, 1)) == 2:
                    found["width_of"] = "base"
    parts = {"se": "channel.0", "cbam": "position.conv", "prm": "position.0.conv", "prm-mmpose": "position.2.conv"}
    for kind, part in parts.items():  # prm-mmpose has the weights of prm, too
        if channels(f"{head}.attention.{part}"):
            found["attention"] = kind
            if channels(f"stages.0.heads.0.attention.{part}"):
                found["attention_at"] = "every"
    found = {field: value for field, value in found.items() if value}
    if stages > 1 and not channels("stages.0.up.0.skip_down.conv"):
        found["cross_stage"] = False
    keypoints = channels(f"{head}.heatmaps.conv") or 17
    about = {"architecture": found, "keypoints": keypoints, "source": SOURCES[form], **_written(contents, keypoints)}
    about |= READ_BY_MMPOSE if form == "mmpose" else {}
    if "input_size" not in about:
        about["input_size"] = [256, 256] if keypoints == 16 else [256, 192]  # of MPII and COCO
        about["assumed"] = "input size {}x{}: weights do not tell it".format(*about["input_size"])
    return about


def _written(contents, keypoints):
    """Return the "input_size" and "skeleton" in the `meta` of a file of MMPose, as far as they are there."""
    found = {}
    meta = contents.get("meta")
    if not isinstance(meta, dict):
        return found
    config = meta.get("cfg", meta.get("config"))  # as text, of 1.x and 0.x
    if isinstance(config, str) and (size := re.search(r"(?:input|image)_size=[\[(]\s*(\d+),\s*(\d+)", config)):
        found["input_size"] = [int(size[2]), int(size[1])]
    data = meta.get("dataset_meta")
    if not isinstance(data, dict):
        return found
    with contextlib.suppress(LookupError, TypeError, ValueError):
        if (data["dataset_name"], keypoints) in (("coco", 17), ("mpii", 16)):  # the same keypoints by the same names
            return found | {"skeleton": data["dataset_name"]}
        names = [str(data["keypoint_id2name"][index]) for index in range(keypoints)]
        place = range(keypoints).__getitem__  # a plain number, in range
        found["skeleton"] = {
            "name": str(data["dataset_name"]),
            "keypoints": names,
            "mirror": [
                sorted(map(place, pair), key=lambda index: "right" in names[index]) for pair in data["flip_pairs"]
            ],
            "limbs": [list(map(place, pair)) for pair in data["skeleton_links"]],
            "upper_body": list(map(place, data["upper_body_ids"])),
        }
    return found


def fit(model, form, state):
    """Return the tensors of a state dict for `model`, by our names, and the problems, in the names of the state dict.

    Released networks take BGR: their first convolution is turned to RGB. MMPose's have no bias: it is zero.
    """
    names, shapes = foreign_names(model, form)
    if form == "mmpose":
        state = {name: torch.zeros(shape) for name, shape in shapes.items() if BEFORE_NORM.search(name)} | state
    problems = [f"{name} is missing" for name in shapes if name not in state]
    for name, tensor in state.items():
        if name not in shapes:
            problems.append(f"{name} does not belong to this network")
        elif not is_plain(tensor):
            problems.append(f"{name} is not stored as plain real numbers")
        elif tensor.shape != shapes[name]:
            problems.append(f"{name} has shape {tuple(tensor.shape)}, not {tuple(shapes[name])}")
    weights = {ours: state[theirs] for ours, theirs in names.items() if is_plain(state.get(theirs))}
    for ours, tensor in weights.items():
        if ".middle_path." in names[ours] and tensor.dim() == 2:
            weights[ours] = tensor[..., None, None]
    if form == "rsn" and (stem := weights.get("stem.conv.weight", torch.empty(0))).dim() == 4:
        weights["stem.conv.weight"] = stem.flip(1)
    return weights, problems


def is_plain(tensor):
    """Return True for a tensor of plain real numbers."""
    if not isinstance(tensor, torch.Tensor) or tensor.layout != torch.strided:
        return False
    return not (tensor.is_meta or tensor.is_quantized or tensor.is_complex())


def foreign_names(model, form):
    """Return {our name: name in a file} of every tensor of `model`, for files of form "rsnlib", "rsn" or "mmpose", and
    {name in the file: shape there}, which differs where MMPose's PRM has linear layers for 1x1 convolutions."""
    rules = _rules(form, model.architecture.block if isinstance(model, Network) else None)
    names, shapes = {}, {}
    for ours, tensor in model.state_dict().items():
        names[ours] = theirs = _rename(ours, form, rules)
        shapes[theirs] = tensor.shape[:2] if ".middle_path." in theirs else tensor.shape
    return names, shapes


def _rules(form, block):
    """Return the rows of the tables above for the names in a file of a form."""
    if form == "rsnlib":
        return ()
    return MMPOSE_MSPN + NAMES if form == "mmpose" and block == "bottleneck" else NAMES


def _rename(ours, form, rules):
    for pattern, *replacements in rules:
        ours = re.sub(pattern, replacements[0 if form == "rsn" else -1], ours)
    return ours
