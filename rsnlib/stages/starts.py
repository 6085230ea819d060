"""Stage `starts`: what every model starts from, recorded for DVC, whose `train` stages depend on these records."""

import hashlib
from dataclasses import asdict

import torch

from rsnlib.config import load_params
from rsnlib.errors import UserError
from rsnlib.files import fingerprint, project_root, write_json
from rsnlib.models.published import PUBLISHED
from rsnlib.models.zoo import create_model
from rsnlib.stages.layout import start_path
from rsnlib.training.start import parts


def write_starts():
    """Write for each model of the run what stands for the weights that it starts from: null where there are none.

    Raises UserError, before anything is trained, for a missing file and for a frozen part that the network lacks.
    """
    params = load_params()
    for model in params.run.models:
        description = params.model(model)
        if description.training.frozen:
            with torch.device("meta"):
                network = create_model(description.architecture)
            try:
                parts(network, description.training.frozen)
            except UserError as error:
                raise UserError(f"params.yaml: {model}.{error}") from None
        write_json(start_path(model), origin(params, model))


def origin(params, model):
    """Return a JSON value that changes with the weights that a model starts from, None where it starts from none.

    Of weights it is their digest; of another model all that its line says, and its own origin: data, recipe and code
    are the same for both.
    """
    init = params.model(model).training.init
    if init is None:
        return None
    if params.trains(init):
        return fingerprint(asdict(params.model(init)), origin(params, init))
    return digest(init)


def digest(init):
    """Return the SHA-256 of a file, given by its path in the project; of published weights the digits in their name."""
    if init in PUBLISHED:
        return PUBLISHED[init].digest
    try:
        with (project_root() / init).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UserError(f"{init} (`init` in params.yaml): {error.strerror}") from None
