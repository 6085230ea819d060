"""MATLAB files, which anyone may have written: read in bounded memory, in a process of their own."""

import contextlib
import multiprocessing
import struct
import zlib
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

COMPRESSED = 15  # the type of an element, in MathWorks' description of level 5 MAT-files
PIECE = 1 << 20
PROCESSES = multiprocessing.get_context("fork" if "fork" in multiprocessing.get_all_start_methods() else None)
MEMORY = 1 << 31  # bytes that reading a file may take


def read_matlab(path, largest):
    """Return the variables of a MATLAB file by name, as SciPy represents them. Raises ValueError for a broken file and
    for one of more than `largest` bytes when decompressed.

    SciPy reads the file in a process of its own: its C code can crash on a broken file, or ask for any memory.
    """
    from scipy.io import loadmat  # here, as other readers do without it

    with open(path, "rb") as file:
        order = ">" if file.read(128)[126:] == b"MI" else "<"
        room = largest
        while len(tag := file.read(8)) == 8:
            kind, size = struct.unpack(f"{order}II", tag)
            contents = file.read(size)
            if kind == COMPRESSED:
                inflate = zlib.decompressobj()
                while contents and not inflate.eof:
                    room -= len(inflate.decompress(contents, PIECE))
                    contents = inflate.unconsumed_tail
                    if room < 0:
                        raise ValueError(f"more than {largest:,} bytes when decompressed")
    with ProcessPoolExecutor(1, PROCESSES, _limit_memory) as pool:
        try:
            return pool.submit(loadmat, path, appendmat=False).result()
        except BrokenProcessPool:
            raise ValueError("SciPy's reader crashes on it") from None
        except Exception as error:  # a broken file can raise anything
            raise ValueError(f"{type(error).__name__}: {error}") from None


def _limit_memory():
    with contextlib.suppress(OSError, ValueError, ImportError):  # elsewhere than on Linux
        import resource

        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
