"""MATLAB files that anyone may have written."""

import struct
import zlib

from scipy.io import loadmat

COMPRESSED = 15  # the type of an element, in MathWorks' description of level 5 MAT-files
PIECE = 1 << 20


def read_matlab(path, largest):
    """The variables of a MATLAB file by their names, as SciPy has them. Raises ValueError where decompressing it gives
    more than `largest` bytes, and whatever SciPy raises of a broken one."""
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
    return loadmat(path, appendmat=False)
