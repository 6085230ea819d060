"""Imports run one way: from later rooms of `FLOW` to earlier ones, without a circle."""

import ast
from graphlib import CycleError, TopologicalSorter

import pytest
from checkout import ROOT

FLOW = ["errors", "files", "device", "models", "fast", "data", "demo", "training", "inference", "metrics", "report"]
FLOW += ["config", "stages", "apps", "__main__"]
OUTSIDE = {"__init__"}  # of rsnlib: gathers names of every room
ALLOWED = {"models": {"models", "errors", "files"}}  # the paper's networks: plain torch
CONFIGURED = {"config", "stages", "apps", "__main__"}  # the only rooms that know params.yaml
NETWORKS_REPORTED = {"report.cost"}  # the only module of report that sees a network


def imports(folder):
    """Return {module: modules of `folder` imported by it, at the top or inside functions}, without `rsnlib.`."""
    paths = {".".join(path.relative_to(folder).with_suffix("").parts): path for path in folder.rglob("*.py")}
    modules = {name.removesuffix(".__init__"): path for name, path in paths.items()}
    graph = {}
    for module, path in modules.items():
        found = set()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                found |= {f"{node.module}.{alias.name}" for alias in node.names}
        named = {name.removeprefix(f"{folder.name}.") for name in found if name.startswith(f"{folder.name}.")}
        named = {name if name in modules else name.rpartition(".")[0] for name in named}
        graph[module] = (named & set(modules)) - {module}
    return {module: found for module, found in graph.items() if module not in OUTSIDE}


def faults(graph):
    """Return a sentence per import of {module: imported modules} that breaks the flow, and for a circle."""
    found = []
    for module, others in graph.items():
        room = module.split(".")[0]
        for other in sorted(others):
            to = other.split(".")[0]
            if FLOW.index(to) > FLOW.index(room):
                found.append(f"{module} imports {other}, of a later room")
            if to not in ALLOWED.get(room, {to}):
                found.append(f"{module} imports {other}: {room} knows {', '.join(sorted(ALLOWED[room]))} alone")
            if room == "report" and to == "models" and module not in NETWORKS_REPORTED:
                found.append(f"{module} imports {other}: report takes arrays and data frames")
            if to == "config" and room not in CONFIGURED:
                found.append(f"{module} imports {other}: settings are handed over")
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        found.append(f"a circle: {' -> '.join(reversed(error.args[1]))}")
    return found


def test_nothing_that_windows_lacks_is_imported_at_the_top():
    for path in (ROOT / "rsnlib").rglob("*.py"):
        lines = {line.split()[1] for line in path.read_text().splitlines() if line.startswith(("import ", "from "))}
        assert not lines & {"fcntl", "grp", "pty", "pwd", "resource", "termios"}, path


def test_imports_follow_the_flow_without_a_circle():
    found = faults(imports(ROOT / "rsnlib"))
    assert not found, "\n" + "\n".join(found)


@pytest.mark.parametrize(
    ("graph", "fault"),
    [
        ({"metrics.pck": {"stages.layout"}, "stages.layout": set()}, "metrics.pck imports stages.layout, of a later"),
        ({"data.store": {"config"}}, "settings are handed over"),
        ({"models.blocks": {"device"}}, "models knows errors, files, models alone"),
        ({"report.charts": {"models.zoo"}}, "report takes arrays"),
        ({"data.a": {"data.b"}, "data.b": {"data.c"}, "data.c": {"data.a"}}, "data.a -> data.b -> data.c -> data.a"),
    ],
)
def test_a_spoilt_import_is_found(graph, fault):
    assert any(fault in found for found in faults(graph))
    assert not faults({"stages.train": {"config", "training.loop"}, "training.loop": {"models.network"}})
