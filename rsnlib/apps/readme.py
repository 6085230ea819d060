"""The tables of results/ in README.md and docs/, each between the lines `<!-- file: path -->` and `<!-- end -->`."""

import re

from rsnlib.config import project_root
from rsnlib.errors import UserError
from rsnlib.files import whole_file

BEGIN, END = re.compile(r"<!-- file: (\S+) -->"), "<!-- end -->"


def fill(page, text, read):
    """Return the `text` of a page with read(path) between the markers of each path, and everything outside them
    unchanged. page: its name, for errors"""
    filled, opened = [], None
    for number, line in enumerate(text.splitlines(keepends=True), 1):
        begin = BEGIN.fullmatch(line.strip())
        if line.strip() == END:
            if not opened:
                raise UserError(f"{page}: line {number}: {END} without a marker that it ends")
            opened = None
        if begin and opened:
            break
        if not opened:
            filled.append(line)
        if begin:
            opened = f"line {number}: {begin[0]}"
            filled.append("\n" + read(begin[1]).strip("\n") + "\n\n")
    if opened:
        raise UserError(f"{page}: {opened} is not closed by {END}")
    return "".join(filled)


def pages(root):
    """Return the paths of README.md and of the documentation, below the folder `root`."""
    return [root / "README.md", *sorted((root / "docs").glob("*.md"))]


def write_readme():
    """Fill the project's README.md and docs/ from the files in its folder; on an error all stay as they were."""
    root = project_root()
    filled = {}
    for page in pages(root):
        name = page.relative_to(root)

        def read(path, name=name):
            if not (root / path).is_file():
                raise UserError(f"{name}: {path}: no such file; `dvc repro` makes the files in results/")
            return (root / path).read_text(encoding="utf-8")

        filled[page] = fill(name, page.read_bytes().decode("utf-8"), read)  # read_text would change the ends of lines
    for page, text in filled.items():
        with whole_file(page) as file:
            file.write(text.encode("utf-8"))
