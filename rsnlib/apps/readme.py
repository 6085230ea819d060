"""The tables of results/ in README.md, each between the lines `<!-- file: path -->` and `<!-- end -->`."""

import re

from rsnlib.config import project_root
from rsnlib.errors import UserError
from rsnlib.files import whole_file

BEGIN, END = re.compile(r"<!-- file: (\S+) -->"), "<!-- end -->"


def fill(text, read):
    """Return `text` with read(path) between the markers of each path, and everything outside them unchanged."""
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
    """Fill the project's README.md from the files in its folder."""
    root = project_root()

    def read(path):
        if not (root / path).is_file():
            raise UserError(f"README.md: {path}: no such file; `dvc repro` makes the files in results/")
        return (root / path).read_text(encoding="utf-8")

    text = (root / "README.md").read_bytes().decode("utf-8")  # read_text would change the ends of lines
    with whole_file(root / "README.md") as file:
        file.write(fill(text, read).encode("utf-8"))
