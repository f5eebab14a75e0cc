"""The documentation: its commands are read, its Python runs, and its tables are those of the code."""

from __future__ import annotations

import ast
import re
import shlex
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import h5py
import keras
import numpy as np
import pytest
from cli import ROOT
from exports import write_run

import kerasrobust as kr
from kerasrobust.commands import COMMANDS
from kerasrobust.run import parse
from kerasrobust.show.examples import read_index

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


SMALLER = {
    "epochs=30": "epochs=1",
    "samples=10_000": "samples=200",
    "minutes=10": "minutes=0.02",
    "steps=20": "steps=2",
}
"""What the guide asks for is done with less of it."""


@pytest.fixture
def at_hand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Makes a few images and small networks what the guide's code loads and builds; returns its names."""
    monkeypatch.chdir(tmp_path)
    x, y = kr.load_data("shapes", split="test[:12]")

    def build(name: str = "lenet") -> keras.Model:
        return kr.build_model("convnet", widths=(4,))

    names = {"kr": SimpleNamespace(**{name: getattr(kr, name) for name in dir(kr) if not name.startswith("_")})}
    for name, made in {"load_data": lambda *_, **__: (x, y), "load_model": build, "build_model": build}.items():
        setattr(names["kr"], name, made)
    return names | {"keras": keras, "model": build(), "x": x, "y": y}


@pytest.mark.parametrize("page", ["README.md", "docs/guide/python.md", "docs/guide/training.md"])
def test_the_guide_runs_on_a_few_images(page: str, at_hand: dict[str, Any]) -> None:
    code = blocks(ROOT / page, "python")[0]
    for large, small in SMALLER.items():
        code = code.replace(large, small)
    exec(compile(code.replace("import kerasrobust as kr\n", ""), page, "exec"), at_hand)


def test_models_as_people_have_them(at_hand: dict[str, Any]) -> None:
    first, labels, black_box = blocks(ROOT / "docs/guide/python.md", "python")[1].split("kr.evaluate")[1:]
    x, y = at_hand["x"], at_hand["y"]
    own = keras.Sequential([
        keras.layers.Input((3, 32, 32)), keras.layers.Rescaling(1 / 255), keras.layers.Flatten(),
        keras.layers.Dense(1, activation="sigmoid"),
    ])  # fmt: skip
    exec(f"found = kr.evaluate{first}", at_hand | {"model": own, "y": y % 2} | (done := {}), done)
    assert done["found"].conventions == {"input_range": "0,255", "channels": "first", "outputs": "sigmoid"}
    several = keras.Sequential([keras.layers.Input((32, 32, 3)), keras.layers.Flatten(), keras.layers.Dense(3)])
    tags = np.random.default_rng(0).integers(0, 2, (12, 3))
    exec(f"found = kr.evaluate{labels}", at_hand | {"model": several, "y": tags}, done)
    assert len(done["found"]) == 3
    grey = x.mean(axis=-1, keepdims=True)[:, ::4, ::4]
    forest = SimpleNamespace(
        predict_proba=lambda given: np.eye(10)[np.argsort(given.reshape(len(given), -1))[:, 0] % 10]
    )
    exec(f"found = kr.evaluate{black_box}", at_hand | {"x": grey, "forest": forest}, done)
    assert [item.attack.name for item in done["found"].attacks] == ["square"]


def test_examples_are_read_as_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_run(tmp_path / "runs" / "my-run", examples=4) / "examples.h5"
    with h5py.File(path, "r+") as file:
        file["prediction"][1] = 0  # Wrong from the start, as its class is 1.
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    (code,) = blocks(ROOT / "docs/reference/files.md", "python")
    exec(code, names)
    index = read_index(path)
    fooled = [place for place in range(4) if index.correct[place] and index.success[place]]
    assert 0 < len(fooled) == len(names["fooled"]) < index.success.sum()


def codes() -> set[str]:
    """Returns the codes of all findings that the package can make."""
    found = set()
    for path in (ROOT / "kerasrobust").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                name = getattr(node.func, "attr", getattr(node.func, "id", ""))
                said = [item.value for item in node.keywords if item.arg == "code"] if name == "Finding" else []
                said += node.args[:1] if name in ("finding", "_warn") else []
                found |= {item.value for item in said if isinstance(item, ast.Constant)}
    return {str(code) for code in found}


def test_every_finding_is_explained() -> None:
    page = (ROOT / "docs" / "guide" / "trust.md").read_text()
    assert len(codes()) > 25 and [code for code in codes() if f"`{code}`" not in page] == []


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
        if not target.startswith("http"):
            assert (page.parent / target).exists(), target
