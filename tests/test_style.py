"""Docstrings begin with an imperative or a noun phrase, rates say "per", and names say what they hold."""

import ast
import re

import pytest
from checkout import ROOT

FIRST = re.compile(r"(What|How|Whether|Where|Who|Whom|Whose|When|Why|The same|As)\b")
COUNTED = "rows?|columns?|lines?|tables?|files?|one|once|people|frames|pixels|bytes|MB|GB|GiB|times|numbers?|messages?"
COUNTED += "|iterations|operations|multiply-adds|batches|blocks?|bottlenecks?|networks?|marks?|dots?|process|pass"
UNITS = "person|second|step|epoch|iteration|batch|branch|block|level|stage|head|kind|model|run|row|image|picture|frame"
UNITS += "|GPU|core|process|input|species|thousand|keypoint|split|section|training|convolution|figure|data set"
RATE = re.compile(rf"\b({COUNTED}) an? ({UNITS})\b")
BANNED_NAMES = {"of_people", "drawn", "norm", "goes_before", "stuff", "helper", "utils"}
DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


def faults(source):
    """Return (line, fault) of each docstring and name in Python source that breaks the rules above."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, (ast.Module, *DEFINITIONS)):
            continue
        text, line = ast.get_docstring(node) or "", getattr(node, "lineno", 1)
        if FIRST.match(text):
            found.append((line, f"begins with {FIRST.match(text)[0]!r}: {text.splitlines()[0]}"))
        if rate := RATE.search(" ".join(text.split())):
            found.append((line, f"{rate[0]!r} must be {rate[1]!r} per {rate[2]!r}"))
        if getattr(node, "name", "") in BANNED_NAMES:
            found.append((line, f"{node.name!r} says nothing"))
    return found


@pytest.mark.parametrize("room", ["rsnlib", "bench", "reliability", "tests"])
def test_every_docstring_keeps_the_language(room):
    found = [
        f"{path.relative_to(ROOT)}:{line}: {fault}"
        for path in sorted((ROOT / room).rglob("*.py"))
        for line, fault in faults(path.read_text())
    ]
    assert not found, "\n" + "\n".join(found)


@pytest.mark.parametrize(
    ("source", "fault"),
    [
        ('"""What the loop does."""', "begins with 'What'"),
        ('def loss():\n    """The same for every head."""', "begins with 'The same'"),
        ('class Table:\n    """A data frame,\n    one row a\n    person."""', "must be"),
        ("class Store:\n    def of_people(self): ...", "says nothing"),
    ],
)
def test_a_spoilt_docstring_or_name_is_found(source, fault):
    ((_, found),) = faults(source)
    assert fault in found
    assert not faults('def loss():\n    """Return the loss, one number per person, as a tensor."""')
