"""The tables in README.md: between the lines `<!-- file: path -->` and `<!-- end -->` stands what the file at that path
has. `python -m rsnlib readme` puts it there."""

import re

from rsnlib.config import project_root
from rsnlib.errors import UserError
from rsnlib.files import whole_file

BEGIN, END = re.compile(r"<!-- file: (\S+) -->"), "<!-- end -->"


def fill(text, read):
    """`text` with read(path) between the markers of each path, and everything outside them as it is."""
    filled, opened = [], None
    for number, line in enumerate(text.splitlines(keepends=True), 1):
        begin = BEGIN.fullmatch(line.strip())
        if line.strip() == END:
            if not opened:
                raise UserError(f"README.md: line {number}: {END} without a marker that it ends")
            opened = None
        if begin and opened:
            break
        if not opened:
            filled.append(line)
        if begin:
            opened = f"line {number}: {begin[0]}"
            filled.append("\n" + read(begin[1]).strip("\n") + "\n\n")
    if opened:
        raise UserError(f"README.md: {opened} is not closed by {END}")
    return "".join(filled)


def write_readme():
    """Fill README.md of the project from the files as they lie there."""
    root = project_root()

    def read(path):
        if not (root / path).is_file():
            raise UserError(f"README.md: {path}: no such file; `dvc repro` makes what lies in results/")
        return (root / path).read_text(encoding="utf-8")

    with open(root / "README.md", encoding="utf-8", newline="") as file:
        text = file.read()
    filled = fill(text, read)
    with whole_file(root / "README.md", "w") as file:
        file.write(filled)
