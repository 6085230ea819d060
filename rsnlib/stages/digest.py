"""Stage `digest`: a fingerprint of the files of a data set, wherever these lie."""

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from rsnlib.errors import UserError
from rsnlib.files import fingerprint, write_json
from rsnlib.stages.layout import data_path, digest_path


def write_digest(dataset):
    """Write the number of files in a data set's folder and the fingerprint of their names and contents; return the
    path. Raises UserError for a file that cannot be read."""
    root = data_path(dataset)
    files = sorted(Path(folder, name) for folder, _, names in os.walk(root, followlinks=True) for name in names)
    try:
        with ThreadPoolExecutor() as pool:
            digests = list(pool.map(_digest, files))
    except OSError as error:
        raise UserError(f"{error.filename}: cannot be read ({error.strerror})") from None
    names = [path.relative_to(root).as_posix() for path in files]
    write_json(digest_path(dataset), {"files": len(files), "fingerprint": fingerprint(names, digests)})
    return digest_path(dataset)


def _digest(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
