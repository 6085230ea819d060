"""The tables in README.md and docs/ are those of the committed files, and one command writes them."""

import subprocess
import sys

import pytest
from checkout import ROOT

from rsnlib.__main__ import main
from rsnlib.apps.readme import fill, pages

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
    """A project with the README above, a page that shows the first of the two files that it shows, and these files."""
    (tmp_path / "results").mkdir()
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/page.md").write_text("<!-- file: results/a.md -->\n<!-- end -->\n")
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
    assert (project / "docs/page.md").read_text() == "<!-- file: results/a.md -->\n\n| a |\n|---|\n\n<!-- end -->\n"
    main()
    assert (project / "README.md").read_text() == written


def test_a_fault_in_one_page_leaves_all_alone(project):
    (project / "docs/page.md").write_text("<!-- end -->\n")
    with pytest.raises(SystemExit, match="docs/page.md: line 1: <!-- end --> without a marker"):
        main()
    assert (project / "README.md").read_text() == README


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
    assert fill("page", text, lambda path: path) == "one\r\n<!-- file: a -->\r\n\na\n\n<!-- end -->\r\n"


def committed(path):
    """Return the committed text of a file of the project."""
    return subprocess.check_output(["git", "show", f"HEAD:./{path}"], cwd=ROOT, encoding="utf-8")


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="not in a git checkout")
def test_the_committed_pages_show_the_committed_tables():
    shown = 0
    for name in [str(page.relative_to(ROOT)) for page in pages(ROOT)]:
        text = committed(name)
        assert fill(name, text, committed) == text, "python -m rsnlib readme"
        shown += text.count("<!-- file: results/")
    assert shown >= 6
