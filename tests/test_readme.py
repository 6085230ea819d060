"""The tables in README.md are those of the committed files, and one command writes them."""

import subprocess
import sys

import pytest
from checkout import ROOT

from rsnlib.__main__ import main
from rsnlib.apps.readme import fill

README = """# Title

<!-- file: results/a.md -->
old
<!-- end -->

Between.

<!-- file: results/b.md -->
<!-- end -->
"""


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project with the README above and the two files that it shows."""
    (tmp_path / "results").mkdir()
    for name in "ab":
        (tmp_path / f"results/{name}.md").write_text(f"| {name} |\n|---|\n")
    (tmp_path / "README.md").write_text(README)
    (tmp_path / "params.yaml").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["rsnlib", "readme"])
    return tmp_path


def test_the_command_writes_what_the_files_have_between_the_markers_and_nothing_else(project):
    main()
    written = (project / "README.md").read_text()
    assert "<!-- file: results/a.md -->\n\n| a |\n|---|\n\n<!-- end -->\n\nBetween.\n" in written
    assert "<!-- file: results/b.md -->\n\n| b |\n|---|\n\n<!-- end -->\n" in written
    assert written.replace("\n| a |\n|---|\n\n", "old\n").replace("\n| b |\n|---|\n\n", "") == README
    main()
    assert (project / "README.md").read_text() == written


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("results/b.md", "results/c.md", "README.md: results/c.md: no such file"),
        ("old\n<!-- end -->", "old", "line 3: <!-- file: results/a.md --> is not closed"),
        ("b.md -->\n<!-- end -->", "b.md -->", "line 9: .*b.md --> is not closed"),
        ("Between.", "<!-- end -->", "line 7: <!-- end --> without a marker"),
    ],
)
def test_a_wrong_marker_is_named_and_the_readme_left_alone(project, old, new, message):
    changed = README.replace(old, new)
    (project / "README.md").write_text(changed)
    with pytest.raises(SystemExit, match=message):
        main()
    assert (project / "README.md").read_text() == changed


def test_lines_end_as_they_did():
    text = "one\r\n<!-- file: a -->\r\n<!-- end -->\r\n"
    assert fill(text, lambda path: path) == "one\r\n<!-- file: a -->\r\n\na\n\n<!-- end -->\r\n"


def committed(path):
    """Return the committed text of a file of the project."""
    return subprocess.check_output(["git", "show", f"HEAD:./{path}"], cwd=ROOT, encoding="utf-8")


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="not in a git checkout")
def test_the_committed_readme_shows_the_committed_tables():
    readme = committed("README.md")
    assert readme.count("<!-- file: results/") >= 3
    assert fill(readme, committed) == readme, "python -m rsnlib readme"
