"""The registry of commands: one file and one line make a command that everybody knows."""

from __future__ import annotations

import inspect
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest
from cli import ROOT, call

from kerasrobust import commands, names
from kerasrobust.fields import fields
from kerasrobust.jobs.job import Job
from kerasrobust.training import OBJECTIVES
from kerasrobust.twins import precision
from tui import form

TOY = '''
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from kerasrobust.fields import Data, Split
from kerasrobust.settings import RunConfig
from kerasrobust.errors import InputError
from kerasrobust.fields import Option
from kerasrobust.jobs.job import Job


@dataclass(frozen=True, kw_only=True)
class CountConfig(RunConfig):
    """Count the images of a data set."""

    kind: ClassVar[str] = "count"

    data: Data = "shapes"
    split: Split = "test"
    at_least: Annotated[int, Option("How many there have to be.", "number of images", 1)] = 1


class CountJob(Job[CountConfig]):
    """Counts."""

    def check(self) -> None:
        from kerasrobust.data.load import load_dataset

        self.data = load_dataset(self.config.data, self.config.split, emit=self.context.emit)
        if len(self.data) < self.config.at_least:
            raise InputError(f"Expected {self.config.at_least} images. Received: {len(self.data)}. Take more.")

    def run(self) -> dict[str, Any]:
        with self.context.stage("count", "Counting"):
            return self.context.publish(self.context.header() | {"count": len(self.data)})
'''


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "counting.py").write_text(TOY)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "counting", raising=False)
    monkeypatch.setitem(commands.COMMANDS, "count", commands.Command("counting:CountConfig", "counting:CountJob"))


@pytest.mark.usefixtures("toy")
def test_a_new_command_is_a_file_and_a_line(tmp_path: Path) -> None:
    assert "  count       Count the images of a data set." in call("--help").out.splitlines()
    assert "--at-least INT" in call("count", "--help").out
    assert [item.name for item in form.fields(form.commands()["count"])][:4] == ["name", "data", "split", "at_least"]
    places = ["--runs-dir", tmp_path / "runs", "--name", "one"]
    assert "Expected a number of images of at least 1" in call("count", "--at-least", "0", *places).message
    assert "Received: 5. Take more." in call("count", "--at-least", "9", "--split", "test[:5]", *places).message
    assert not list((tmp_path / "runs").iterdir())
    assert call("count", "--split", "test[:5]", *places).status == 0
    result = json.loads((tmp_path / "runs" / "one" / "result.json").read_text())
    assert (result["kind"], result["count"]) == ("count", 5)
    record = json.loads((tmp_path / "runs" / "one" / "config.json").read_text())
    assert commands.from_dict(record).kind == "count"


@pytest.mark.parametrize("kind", commands.COMMANDS)
def test_each_line_leads_to_settings_and_work(kind: str) -> None:
    command, made = commands.COMMANDS[kind], commands.config_class(kind)
    assert made.kind == kind
    assert bool(command.job) != bool(command.answer)
    if command.job:
        assert issubclass(commands.load(command.job), Job)
    else:
        assert callable(commands.load(command.answer))
    assert all(item.help.endswith(".") for item in fields(made))


GUIDE = ROOT / "docs" / "guide"


def test_the_guide_lists_every_command() -> None:
    page = (GUIDE / "commands.md").read_text()
    table = "\n".join(f"| `{kind}` | {summary} |" for kind, summary in commands.summaries().items())
    assert table in page, f"Put this table into the page:\n{table}"


def test_names_that_are_declared_without_tensorflow_are_those_of_the_code() -> None:
    assert {name: commands.load(known.home).name for name, known in names.ATTACKS.items()} == {
        name: name for name in names.ATTACKS
    }
    for known in names.ATTACKS.values():
        kind = commands.load(known.home)
        assert known.in_ball == getattr(kind, "in_ball", True)
        assert known.norms == kind.norms
        assert known.gradient_free == getattr(kind, "gradient_free", False)
    assert set(get_args(names.Precision)) == {"auto", *precision.MEANING}
    assert set(get_args(names.Training)) == set(OBJECTIVES)


def test_the_guide_lists_every_attack() -> None:
    words = {"linf": "Linf", "l2": "L2", "l1": "L1", "l0": "L0"}
    rows = []
    for name, known in names.ATTACKS.items():
        kind = commands.load(known.home)
        norms = ", ".join(words[norm] for norm in kind.norms) if getattr(kind, "in_ball", True) else "none"
        rows.append(f"| `{name}` | `{kind.__name__}` | {norms} | {inspect.getdoc(kind).splitlines()[0]} |")
    table = "\n".join(rows)
    assert table in (GUIDE / "attacks.md").read_text(), f"Put this table into the page:\n{table}"


def test_the_guide_lists_every_objective() -> None:
    rows = [f"| `{name}` | {inspect.getdoc(kind).splitlines()[0]} |" for name, kind in OBJECTIVES.items()]
    table = "\n".join(rows)
    assert table in (GUIDE / "training.md").read_text(), f"Put this table into the page:\n{table}"


def test_the_guide_lists_every_source_of_data() -> None:
    *first, last = (known.takes for known in names.SOURCES.values())
    assert f"`--data` takes {', '.join(first)}, or {last}" in (GUIDE / "data.md").read_text()


TOY_ATTACK = '''
from typing import ClassVar, NamedTuple

import tensorflow as tf

from kerasrobust.attacks.driver import Attack


class Grey(NamedTuple):
    x_adv: tf.Tensor
    score: tf.Tensor


class TurnGrey(Attack[Grey]):
    """Turns images towards grey, as far as the radius allows."""

    name: ClassVar[str] = "grey"
    epsilon: float = 8 / 255

    def step_count(self):
        return 1

    def radius(self):
        return 8 / 255

    def begin(self, network, images, numbers):
        return Grey(images.x, tf.zeros_like(images.y, tf.float32))

    def step(self, network, images, state, numbers):
        moved = images.x + tf.clip_by_value(0.5 - images.x, -8 / 255, 8 / 255)
        return Grey(moved, network.score(moved, images.y))

    def found(self, state, numbers):
        return state
'''
TOY_SOURCE = """
import numpy as np

from kerasrobust.data.dataset import Dataset, Source


def load(name, split, **unused):
    images = np.full((4, 8, 8, 3), 128, np.uint8)
    return Dataset(name=name, split=split, images=images, labels=np.arange(4), class_names=tuple("abcd"))


SOURCE = Source(lambda name: name == "grey", load)
"""


def test_a_new_attack_and_a_new_source_are_a_file_and_a_line(tmp_path: Path) -> None:
    """In a process of its own, as settings are made from the registries when they are imported."""
    (tmp_path / "toys.py").write_text(TOY_ATTACK)
    (tmp_path / "sources.py").write_text(TOY_SOURCE)
    code = """
import json, sys
from kerasrobust import names
names.ATTACKS["grey"] = names.KnownAttack("toys:TurnGrey", "Grey")
names.SOURCES["grey"] = names.KnownSource("sources:SOURCE", "grey squares")
from kerasrobust import commands, run
from kerasrobust.fields import fields
assert run.main(["attack", "--help"]) == 0
from tui import form
from kerasrobust.show.figures import attack_name
import kerasrobust as kr, numpy as np, keras
x, y = kr.load_data("grey", "all")
model = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Flatten(), keras.layers.Dense(4)])
found = kr.evaluate(model, x, y, attacks="grey", audit=False)
print(json.dumps([attack_name("grey"), kr.attacks.TurnGrey.__name__, found.attacks[0].result.forwards, len(x)]))
"""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)]), "COLUMNS": "200"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    *help_lines, last = done.stdout.splitlines()
    # Wherever the lines break.
    assert "  grey                    Grey: linf, l2" in help_lines
    assert "or grey squares;" in "\n".join(help_lines)
    name, kind, forwards, images = json.loads(last)
    assert (name, kind, images) == ("Grey", "TurnGrey", 4) and forwards > 0
