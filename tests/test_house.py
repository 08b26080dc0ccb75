"""The house: no import circle of any kind, no folder too full, no name with two meanings.

The graph is built from the syntax trees: imports count wherever they stand, in functions and for
types too, so nothing is hidden by being late.
"""

from __future__ import annotations

import ast
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TREES = ("orpo_mlx", "tui")
LAZY_TABLES = {
    "orpo_mlx.cli.command",
    "orpo_mlx.cli.commands.export",
    "orpo_mlx.export.formats.hub",
}
"""The only modules that load one of our own by a string: the table of commands, that of formats."""

Graph = dict[str, set[str]]


def modules() -> dict[str, Path]:
    """Every module of both trees by its dotted name."""
    found = {}
    for tree in TREES:
        for path in (ROOT / tree).rglob("*.py"):
            parts = path.relative_to(ROOT).with_suffix("").parts
            name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            found[name] = path
    return found


MODULES = modules()
SYNTAX = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in MODULES.items()}


def imported(tree: ast.AST, known: set[str]) -> Iterator[str]:
    """Modules of ours that a syntax tree imports, wherever the import stands."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in known)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute here"
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                if full in known:
                    yield full
                elif node.module in known:
                    yield str(node.module)


def circles(graph: Graph) -> list[list[str]]:
    """Strongly connected components of more than one module, by Tarjan's algorithm."""
    number: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found = []

    def visit(node: str) -> None:
        number[node] = low[node] = len(number)
        stack.append(node)
        for other in graph.get(node, ()):
            if other not in number:
                visit(other)
                low[node] = min(low[node], low[other])
            elif other in stack:
                low[node] = min(low[node], number[other])
        if low[node] == number[node]:
            component = stack[stack.index(node) :]
            del stack[stack.index(node) :]
            if len(component) > 1:
                found.append(sorted(component))

    for node in graph:
        if node not in number:
            visit(node)
    return found


def test_no_import_goes_in_a_circle():
    known = set(MODULES)
    graph = {name: set(imported(tree, known)) - {name} for name, tree in SYNTAX.items()}
    assert sum(map(len, graph.values())) > 1000
    assert circles(graph) == []


@pytest.mark.parametrize(
    ("code", "line"),
    [
        ("from a import b", "a"),
        ("def f():\n    import a", "a"),
        ("if TYPE_CHECKING:\n    from a.c import D", "a.c"),
        ("from a import c", "a.c"),
    ],
)
def test_an_import_is_seen_wherever_it_stands(code: str, line: str):
    assert list(imported(ast.parse(code), {"a", "a.c"})) == [line]


def test_a_circle_would_be_found():
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"b", "d"}, "d": set()}) == [["b", "c"]]


def test_modules_of_our_own_are_loaded_by_a_string_in_the_lazy_tables_only():
    loaders = {"import_module", "__import__", "run_module", "find_spec"}
    found = set()
    for name, tree in SYNTAX.items():
        for node in ast.walk(tree):
            called = isinstance(node, ast.Call) and (
                getattr(node.func, "attr", "") or getattr(node.func, "id", "")
            )
            if called in loaders and not _is_foreign(node):
                found.add(name)
    # The leash runs the module a child was started for; see its docstring.
    assert found == LAZY_TABLES | {"tui.processes.leash"}


def _is_foreign(call: ast.Call) -> bool:
    """Whether a module is named that is surely none of ours."""
    text = ast.unparse(call.args[0]) if call.args else ""
    return text[:1] in "'\"" and text.strip("'\"").split(".")[0] not in TREES


# Rooms


def folders() -> dict[Path, int]:
    """Modules in each folder of both trees, `__init__` not counted."""
    count = Counter(path.parent for path in MODULES.values() if path.name != "__init__.py")
    return {folder.relative_to(ROOT): number for folder, number in count.items()}


def test_no_folder_is_too_full_or_too_deep():
    for folder, number in folders().items():
        assert number <= 14, f"{folder} has {number} modules: divide it by noun"
        assert len(folder.parts) <= 3, f"{folder} lies too deep"


def test_the_roots_are_nearly_empty():
    assert all(folders()[Path(tree)] < 6 for tree in TREES)


def test_every_package_says_in_a_few_lines_what_is_in_it():
    for name, path in MODULES.items():
        if path.name == "__init__.py":
            said = ast.get_docstring(SYNTAX[name]) or ""
            assert 0 < len(said.splitlines()) <= 10, name


# Names

SHARED_NAMES: set[str] = set()
"""Class names that may stand twice, each with its reason beside it."""


def test_a_class_name_means_one_thing():
    places = defaultdict(list)
    for name, tree in SYNTAX.items():
        for node in tree.body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places[node.name].append(name)
    twice = {name: found for name, found in places.items() if len(found) > 1}
    assert {name: found for name, found in twice.items() if name not in SHARED_NAMES} == {}
    assert set(twice) >= SHARED_NAMES
