"""MATLAB files that anyone may have written."""

import contextlib
import multiprocessing
import resource
import struct
import zlib
from pathlib import Path

from scipy.io import loadmat

COMPRESSED = 15  # the type of an element, in MathWorks' description of level 5 MAT-files
PIECE = 1 << 20
MEMORY = 1 << 31  # bytes that reading a file may take


def read_matlab(path, largest):
    """The variables of a MATLAB file by their names, as SciPy has them. Raises ValueError where decompressing it gives
    more than `largest` bytes, and of a broken one.

    SciPy reads it in a process of its own: what it has in C can crash on a broken file, or ask for any memory.
    """
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
    answer, question = multiprocessing.Pipe(duplex=False)
    process = multiprocessing.get_context("fork").Process(target=_read, args=(path, question))
    process.start()
    question.close()
    try:
        variables, reason = answer.recv()
    except EOFError:
        variables, reason = None, "SciPy's reader crashes on it"
    process.join()
    if variables is None:
        raise ValueError(reason)
    return variables


def _read(path, pipe):
    """Sends what SciPy has of a file, and why it has nothing."""
    with contextlib.suppress(OSError, ValueError):
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
    try:
        pipe.send((loadmat(path, appendmat=False), None))
    except Exception as error:  # a broken file can raise anything
        pipe.send((None, f"{type(error).__name__}: {error}"))
