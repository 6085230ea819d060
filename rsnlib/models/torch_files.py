"""Contents of the files that `torch.save` writes, read without executing anything in them.

Both of torch's formats hold a pickle, a program that builds objects by calling functions by name. Only the functions
below are ever called; every other class, function and object becomes `Ignored`. So tensors, numbers, texts and
containers come out of any checkpoint, whatever lies beside them.
"""

import io
import math
import mmap
import pickle
import re
import zipfile
from pathlib import Path

import numpy as np
import torch

from rsnlib.files import check_zip

MAGIC = 0x1950A86A20F9469CFC6C  # the first pickle in a file of torch's format from before zip files
DTYPES = {
    f"{name}Storage": dtype
    for name, dtype in {
        "Double": torch.float64, "Float": torch.float32, "Half": torch.float16, "BFloat16": torch.bfloat16,
        "Long": torch.int64, "Int": torch.int32, "Short": torch.int16, "Char": torch.int8, "Byte": torch.uint8,
        "Bool": torch.bool, "ComplexFloat": torch.complex64, "ComplexDouble": torch.complex128,
    }.items()
}  # fmt: skip


def read_torch_file(path):
    """Return the contents of a file of `torch.save`. Raises whatever the damage of a damaged file leads to."""
    check_zip(path)
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            return _read_archive(archive)
    with Path(path).open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        return _read_sequence(data)


def _read_archive(archive):
    """Return the contents of a zip: NAME/data.pkl is the pickle, NAME/data/KEY the numbers of one storage."""
    names = archive.namelist()
    folder = next((name.removesuffix("data.pkl") for name in names if name.endswith("data.pkl")), None)
    if folder is None:
        raise ValueError("a zip that torch.save did not write")
    if f"{folder}byteorder" in names and archive.read(f"{folder}byteorder") != b"little":
        raise ValueError("its numbers are big-endian")
    storages = {}

    def storage(dtype, key, *_):
        if key not in storages:
            numbers = bytearray(archive.read(f"{folder}data/{key}"))
            storages[key] = torch.frombuffer(numbers, dtype=dtype) if numbers else torch.empty(0, dtype=dtype)
        return storages[key]

    return _Unpickler(io.BytesIO(archive.read(f"{folder}data.pkl")), storage).load()


def _read_sequence(data):
    """Return the contents of a file from before zip files: pickles of a magic number, a version, the writing machine,
    the contents and the keys of storages; then of each storage its length (8 bytes) and numbers."""
    storages, left = {}, len(data)

    def storage(dtype, key, location, length, view):
        nonlocal left
        if key not in storages:
            left -= length * dtype.itemsize
            if left < 0:
                raise EOFError("its tensors are larger than the file")
            storages[key] = torch.empty(length, dtype=dtype)
        return storages[key] if view is None else storages[key][view[1] :][: view[2]]

    def load():
        return _Unpickler(data, storage).load()

    if load() != MAGIC:
        raise ValueError("no file of torch.save")
    _, machine, contents, keys = load(), load(), load(), load()
    if not machine["little_endian"]:
        raise ValueError("its numbers are big-endian")
    for key in keys:
        numbers = storages[key].view(torch.uint8).numpy()
        if int.from_bytes(data.read(8), "little") != len(storages[key]):
            raise ValueError(f"storage {key} is of another length than its tensors")
        numbers[:] = np.frombuffer(data.read(len(numbers)), np.uint8)
    return contents


class _IgnoredType(type):
    """Class of `Ignored`: calls, and the items that a pickle adds to containers, change nothing."""

    def __call__(cls, *_, **__):
        return cls

    __setitem__ = append = extend = add = __call__


class Ignored(metaclass=_IgnoredType):
    """Stand-in for every class and function that is not read, for what they would return, and for their instances."""

    def __new__(cls, *_, **__):
        return cls


class _Unpickler(pickle._Unpickler):  # in Python: the one in C reserves memory for as many objects as a file claims
    """Unpickler that calls the functions in `CALLED` alone.

    storage: a function of a dtype and the further fields of a tensor's storage in the pickle; returns a tensor (n,)
    """

    dispatch = dict(pickle._Unpickler.dispatch)

    def __init__(self, file, storage):
        super().__init__(file, encoding="latin1")  # Python 2 wrote bytes as strings
        self.storage = storage

    def find_class(self, module, name):
        module = module.replace("__builtin__", "builtins").replace("numpy._core", "numpy.core")
        if module in ("torch", "torch.cuda") and name in DTYPES:
            return DTYPES[name]
        return CALLED.get(f"{module}.{name}", Ignored)

    def persistent_load(self, saved):
        kind, *fields = saved
        if kind != "storage" or not isinstance(fields[0], torch.dtype):
            return Ignored
        return self.storage(*fields)

    def get_extension(self, code):
        self.append(Ignored)

    def load_build(self):
        """Give an array its numbers; no other object has a state."""
        state, target = self.stack.pop(), self.stack[-1]
        if isinstance(target, np.ndarray):
            _, shape, dtype, by_columns, numbers = state
            if isinstance(dtype, np.dtype) and isinstance(numbers, (str, bytes)):
                numbers = numbers.encode("latin1") if isinstance(numbers, str) else numbers
                target.__setstate__((1, shape, dtype, by_columns, numbers))
        elif isinstance(target, np.dtype) and state[1] == ">":
            raise ValueError("its arrays are big-endian")

    dispatch[pickle.BUILD[0]] = load_build


def _tensor(storage, offset, size, stride, *_):
    """Return a view of a storage, no larger than the storage."""
    if not isinstance(storage, torch.Tensor):
        return Ignored
    if math.prod(torch.Size(size)) > len(storage):
        raise ValueError(f"a tensor of shape {tuple(size)} has {len(storage)} numbers")
    return storage.as_strided(size, stride, offset)


def _dtype(code, *_):
    """Return a NumPy dtype of plain numbers or text: no objects, no records."""
    plain = isinstance(code, str) and re.fullmatch(r"b1|[iu][1248]|f[248]|c8|c16|[SU]\d{1,4}", code)
    return np.dtype(code) if plain else Ignored


def _scalar(dtype, value):
    if not isinstance(dtype, np.dtype):
        return Ignored
    return np.frombuffer(value.encode("latin1") if isinstance(value, str) else value, dtype)[0]


def _first(value, *_):
    return value


CALLED = {
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_parameter": _first,
    "torch._utils._rebuild_parameter_with_state": _first,
    "torch._tensor._rebuild_from_type_v2": lambda function, _, given, __: function(*given),
    "torch.Size": tuple,
    "collections.OrderedDict": lambda *_: {},
    "collections.defaultdict": lambda *_: {},
    "collections.Counter": lambda *given: dict(*given),
    "builtins.set": set,
    "builtins.frozenset": frozenset,
    "numpy.dtype": _dtype,
    "numpy.core.multiarray._reconstruct": lambda *_: np.empty(0),
    "numpy.core.multiarray.scalar": _scalar,
    "_codecs.encode": lambda text, _: text.encode("latin1"),
}
