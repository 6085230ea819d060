"""The networks by name, each from one description."""

from dataclasses import replace

from rsnlib.config import Architecture, parse
from rsnlib.models.network import Network
from rsnlib.runtime import UserError

RES18 = Architecture("bottleneck")
RSN18 = Architecture("residual_steps")
ZOO = {
    "res18": RES18,
    "rsn18": RSN18,
    "rsn18-prm": replace(RSN18, attention="prm"),
    "2xrsn18": replace(RSN18, stages=2),
    "4xrsn18": replace(RSN18, stages=4),
}


def list_models():
    """Every name that create_model knows."""
    return list(ZOO)


def create_model(model, keypoints=17, input_size=(256, 192)):
    """An untrained network.

    model: a name of list_models(), an Architecture, or a dict of an Architecture's fields
    keypoints: number of heatmaps
    input_size: height and width of the crops, multiples of 32
    """
    if isinstance(model, str):
        if model not in ZOO:
            raise UserError(f"model {model!r} is unknown; known are {', '.join(ZOO)}")
        model = ZOO[model]
    elif isinstance(model, dict):
        model = parse(Architecture, model, "model")
    if any(side < 32 or side % 32 for side in input_size):
        raise UserError(f"input_size {list(input_size)}: height and width must be multiples of 32")
    return Network(model, keypoints, input_size)
