"""The packages import each other in one direction."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).parents[1] / "ssl_zoo"


def unit(module: str) -> str:
    """The package, or the file beside the packages, that a module belongs to."""
    return ".".join(module.split(".")[:2])


def modules() -> dict[str, Path]:
    return {
        ".".join(("ssl_zoo", *path.relative_to(ROOT).with_suffix("").parts)).removesuffix(".__init__"): path
        for path in ROOT.rglob("*.py")
    }


def for_types_only(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def nodes(node: ast.AST) -> Iterator[ast.AST]:
    """All nodes below, without what only type checkers read; imports inside of functions count."""
    for child in ast.iter_child_nodes(node):
        if not for_types_only(child):
            yield child
            yield from nodes(child)


def imported(path: Path, known: dict[str, Path]) -> Iterator[str]:
    for node in nodes(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield inner if inner in known else node.module


def graph() -> dict[str, set[str]]:
    known = modules()
    found: dict[str, set[str]] = {}
    for name, path in known.items():
        others = {unit(other) for other in imported(path, known) if other.startswith("ssl_zoo")}
        found.setdefault(unit(name), set()).update(others - {unit(name)})
    return found


def test_no_package_imports_itself_through_others() -> None:
    try:
        TopologicalSorter(graph()).prepare()
    except CycleError as error:
        raise AssertionError(" -> ".join(error.args[1])) from None


def test_losses_import_torch_alone_and_nobody_imports_methods() -> None:
    found = graph()
    assert found["ssl_zoo.losses"] <= {"ssl_zoo.errors"}
    assert [name for name, others in found.items() if "ssl_zoo.methods" in others] == []
    assert "ssl_zoo.report" not in found["ssl_zoo.worker"] | found["ssl_zoo.launch"]
