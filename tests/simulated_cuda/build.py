"""Compiling the device, once per version of torch. Does not import torch, which must find the device when it starts."""

import hashlib
import os
import subprocess
import sys
import tempfile
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

SOURCE = Path(__file__).with_name("device.cpp")
FOLDER = Path(__file__).parents[2] / ".pytest_cache" / "simulated_cuda"
TORCH = Path(find_spec("torch").origin).parent
OPTIONS = ["-std=c++20", "-O0", "-DAT_PER_OPERATOR_HEADERS", "-shared", "-fPIC"]  # the quickest to compile: 13 s
OPTIONS += [f"-isystem{TORCH}/include", f"-isystem{TORCH}/include/torch/csrc/api/include"]
LIBRARIES = [f"-L{TORCH}/lib", f"-Wl,-rpath,{TORCH}/lib", "-ltorch_cpu", "-lc10"]


class Unavailable(Exception):
    """The reason why there is no simulated device."""


def library():
    """Return the path of the compiled device. Raises Unavailable elsewhere than on Linux, for a torch built with CUDA,
    and without a C++ compiler (`CXX`, else c++) that can compile for torch."""
    if sys.platform != "linux" or not (TORCH / "lib/libtorch_cpu.so").is_file():
        raise Unavailable("only for torch's own packages on Linux")
    if (TORCH / "lib/libtorch_cuda.so").is_file():
        raise Unavailable("this torch is built with CUDA of its own; its CPU build is needed")
    command = [os.environ.get("CXX", "c++"), *OPTIONS, str(SOURCE), *LIBRARIES]
    key = SOURCE.read_bytes() + repr((version("torch"), command)).encode()
    path = FOLDER / f"{hashlib.sha256(key).hexdigest()[:16]}.so"
    if not path.is_file():
        FOLDER.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=FOLDER) as folder:
            compiled = Path(folder, path.name)
            try:
                subprocess.run([*command, "-o", compiled], check=True, capture_output=True, text=True)
            except OSError as error:
                raise Unavailable(f"no C++ compiler ({error})") from None
            except subprocess.CalledProcessError as error:
                raise Unavailable(f"the C++ compiler cannot compile it: {error.stderr[-1000:]}") from None
            compiled.replace(path)
    return path
