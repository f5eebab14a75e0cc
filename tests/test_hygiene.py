"""What is imported when: the light modules take no TensorFlow with them, and help answers at once."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import tomllib

import pytest
from cli import ROOT, call

import kerasrobust
from kerasrobust.commands import COMMANDS
from kerasrobust.presets import PRESETS

HEAVY = ("tensorflow", "keras", "tensorflow_datasets", "h5py")
LIGHT = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    for folder, pattern in (("kerasrobust", "*.py"), ("kerasrobust/show", "**/*.py"), ("tui", "**/*.py"))
    for path in (ROOT / folder).glob(pattern)
)


def in_a_new_process(code: str, *arguments: str) -> str:
    """Runs code in a process of its own, in the checkout; returns what it prints."""
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_light_modules_take_nothing_heavy_with_them() -> None:
    code = """
import importlib, json, sys
found = {}
for name in sys.argv[2:]:
    importlib.import_module(name)
    for heavy in json.loads(sys.argv[1]):
        if heavy in sys.modules:
            found.setdefault(heavy, name)
print(json.dumps(found))
"""
    assert json.loads(in_a_new_process(code, json.dumps(HEAVY), *LIGHT)) == {}


@pytest.mark.parametrize("line", ["attack --model m --epsilon 8/0", "trian", "train --help", "help"])
def test_what_is_refused_or_answered_while_parsing_loads_little(line: str) -> None:
    code = (
        "import json, sys\nbefore = len(sys.modules)\nfrom kerasrobust.run import main\n"
        "status = main(json.loads(sys.argv[1]))\nprint(json.dumps([status, list(sys.modules)[before:]]))"
    )
    status, loaded = json.loads(in_a_new_process(code, json.dumps(line.split())).splitlines()[-1])
    assert status == (0 if "help" in line else 2)
    # An answer in 0.1 s: about 55 modules, nearly all of the standard library's.
    assert not {*HEAVY, "numpy", "rich", "textual"} & set(loaded) and len(loaded) < 80


def test_the_core_knows_nothing_of_the_terminal_ui() -> None:
    # With TensorFlow: the engine and all that it calls.
    code = """
import pkgutil, importlib, sys, kerasrobust
for module in pkgutil.walk_packages(kerasrobust.__path__, "kerasrobust."):
    importlib.import_module(module.name)
print([name for name in sys.modules if name.split(".")[0] in ("tui", "textual")])
"""
    assert in_a_new_process(code).strip() == "[]"


def test_help_lists_every_command() -> None:
    outcome = call("--help")
    listed = {line.split()[0] for line in outcome.out.splitlines() if line.startswith("  ")}
    assert {*COMMANDS, *PRESETS} <= listed
    assert {"demo", "study", "train", "attack", "compare", "models"} <= listed


@pytest.mark.parametrize("name", kerasrobust.__all__)
def test_public_names_resolve(name: str) -> None:
    assert getattr(kerasrobust, name) is not None
    assert name in dir(kerasrobust)


def test_names_that_are_loaded_later_are_those_that_type_checkers_see() -> None:
    lazy = {*kerasrobust._HOMES, *kerasrobust._MODULES}
    assert lazy <= set(kerasrobust.__all__)
    for name, home in kerasrobust._HOMES.items():
        assert getattr(kerasrobust, name) is getattr(importlib.import_module(f"kerasrobust.{home}"), name)


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'atacks'"):
        kerasrobust.atacks  # noqa: B018


@pytest.mark.parametrize(("before", "after"), [(None, "1"), ("0", "0")])
def test_tensorflow_computes_by_onednn_unless_that_is_turned_off(
    before: str | None, after: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "TF_ENABLE_ONEDNN_OPTS"
    monkeypatch.delenv(name, raising=False)
    if before is not None:
        monkeypatch.setenv(name, before)
    kerasrobust.require_tensorflow()
    assert os.environ.pop(name) == after


def test_another_backend_is_refused_when_a_name_is_first_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    with pytest.raises(kerasrobust.InputError, match="Received: KERAS_BACKEND=jax"):
        kerasrobust.load_model  # noqa: B018


def test_a_wheel_has_what_the_package_needs_beside_its_code() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    patterns = project["tool"]["setuptools"]["package-data"]["kerasrobust"]
    folder = ROOT / "kerasrobust"
    packed = {path for pattern in patterns for path in folder.glob(pattern)}
    beside = {path for path in folder.rglob("*") if path.is_file() and path.suffix not in (".py", ".pyc")}
    assert beside == packed
    assert folder / "py.typed" in packed
