"""The structure of the house: no circle of imports, no arrow upward, rooms and functions of a readable size."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from cli import ROOT

import kerasrobust

FILES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for folder in ("kerasrobust", "tui")
    for path in (ROOT / folder).rglob("*.py")
}
HEAVY = {"tensorflow", "keras", "tensorflow_datasets"}


def names_imported(path: Path) -> Iterator[str]:
    """Yields what a file imports, also inside functions and for type checkers alone, as `module` or `module.name`."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0 and node.module, f"{path}: a relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@cache
def arrows() -> dict[str, set[str]]:
    """Which modules of the house each module imports; the package itself by its lazy names, too."""
    found = {}
    for module, path in FILES.items():
        names = {name if name in FILES else name.rpartition(".")[0] for name in names_imported(path)}
        found[module] = {name for name in names if name in FILES} - {module}
    found["kerasrobust"] |= {f"kerasrobust.{home}" for home in kerasrobust._HOMES.values()}
    return found


def room(module: str) -> str:
    """Returns the folder in the package that a module lies in, or the module itself where it lies in none."""
    return "tui" if module.startswith("tui") else ".".join(module.split(".")[:2])


def circle(graph: dict[str, set[str]]) -> list[str]:
    """Returns nodes that import each other in a ring, or none."""
    done: set[str] = set()

    def walk(node: str, way: list[str]) -> list[str]:
        if node in way:
            return [*way[way.index(node) :], node]
        if node in done:
            return []
        found = next((ring for after in sorted(graph[node]) if (ring := walk(after, [*way, node]))), [])
        done.add(node)
        return found

    return next((ring for node in sorted(graph) if (ring := walk(node, []))), [])


@cache
def rooms() -> dict[str, set[str]]:
    found: dict[str, set[str]] = {room(module): set() for module in FILES}
    for module, others in arrows().items():
        found[room(module)] |= {room(other) for other in others} - {room(module)}
    return found


def test_no_circle_of_modules_and_none_of_rooms() -> None:
    assert circle(arrows()) == []
    assert circle(rooms()) == []


def test_nine_floors_at_most() -> None:
    @cache
    def floor(name: str) -> int:
        return 1 + max(map(floor, rooms()[name]), default=0)

    assert max(map(floor, rooms())) <= 9


def test_a_circle_is_seen() -> None:
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c", "b"]


def test_what_needs_no_tensorflow_imports_no_folder_that_may() -> None:
    """What lies directly in kerasrobust/, all of show/ and all of tui/; a command line and public names load lazily."""
    heavy = {name for name in rooms() if (ROOT / name.replace(".", "/")).is_dir()} - {"tui", "kerasrobust.show"}
    light = [name for name in FILES if room(name) not in heavy and name not in ("kerasrobust", "kerasrobust.run")]
    assert len(light) > 40
    for module in light:
        assert not {room(other) for other in arrows()[module]} & heavy, module
        assert not {name.split(".")[0] for name in names_imported(FILES[module])} & HEAVY, module


@pytest.mark.parametrize("module", FILES)
def test_classes_and_functions_can_be_read(module: str) -> None:
    for node in ast.walk(ast.parse(FILES[module].read_text())):
        if isinstance(node, ast.ClassDef):
            assert (node.end_lineno or 0) - node.lineno < 200, f"{node.name} in {module}"
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            doc = node.body[0] if ast.get_docstring(node) else None
            length = (node.end_lineno or 0) - node.lineno + 1
            length -= 0 if doc is None else (doc.end_lineno or 0) - doc.lineno + 1
            assert length <= 60, f"{node.name} in {module}"


def test_files_can_be_read() -> None:
    lengths = sorted(len(path.read_text().splitlines()) for path in FILES.values())
    assert lengths[-1] <= 500
    assert sum(length > 400 for length in lengths) <= 5


def test_each_test_file_has_a_name_of_its_own() -> None:
    """pytest imports them by that name alone, and refuses the second one in a run of all."""
    names = Counter(path.name for path in (ROOT / "tests").glob("**/test_*.py"))
    assert [name for name, count in names.items() if count > 1] == []
