"""The documentation: its commands are read, its Python runs, and its tables are those of the code."""

from __future__ import annotations

import ast
import re
import shlex
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from cli import ROOT

import kerasrobust as kr
from kerasrobust.commands import COMMANDS
from kerasrobust.run import parse

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def blocks(page: Path, language: str) -> list[str]:
    """Returns a page's code in one language."""
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)


def commands(page: Path) -> list[list[str]]:
    """Returns the words of each command of ours on a page, without its name."""
    lines = [line for block in blocks(page, "bash") for line in block.splitlines()]
    found = [shlex.split(line, comments=True) for line in lines]
    return [words[1:] for words in found if words[:1] == ["kerasrobust"] and words[1:2] != ["--help"]]


def test_every_command_is_shown() -> None:
    shown = {words[0] for page in PAGES for words in commands(page)}
    assert shown == set(COMMANDS)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_commands_are_read(page: Path) -> None:
    for words in commands(page):
        if "--help" not in words:
            assert parse(words).kind == words[0]


@pytest.mark.parametrize("page", sorted((ROOT / "docs" / "tutorials").glob("*.md")), ids=lambda page: page.stem)
def test_tutorials_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    for block in blocks(page, "python"):
        exec(compile(block, str(page), "exec"), names)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_names_of_the_package_are_there(page: Path) -> None:
    for block in blocks(page, "python"):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.Attribute) and ast.unparse(node).startswith(("kr.", "keras.")):
                home: Any = {"kr": kr, "keras": keras}[ast.unparse(node).partition(".")[0]]
                for part in ast.unparse(node).split(".")[1:]:
                    if not part.isidentifier():  # A call, whose result the test doesn't know.
                        break
                    home = getattr(home, part)
                    if isinstance(home, type | np.ndarray):
                        break


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_pictures_and_pages_that_are_linked_are_there(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text()):
        if not target.startswith("http") and target != "../benchmarks.md":  # Made by `docs/hooks.py`.
            assert (page.parent / target).exists(), target
