"""The registry of commands: one file and one line make a command that everybody knows."""

from __future__ import annotations

import json
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

from kerasrobust.config import Data, RunConfig, Split
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
    assert [item.name for item in form.fields(form.commands()["count"])][:3] == ["data", "split", "at_least"]
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


def test_the_readme_lists_every_command() -> None:
    readme = (ROOT / "README.md").read_text()
    table = "\n".join(f"| `{kind}` | {summary} |" for kind, summary in commands.summaries().items())
    assert table in readme, f"Put this table into the README:\n{table}"


def test_names_that_are_declared_without_tensorflow_are_those_of_the_code() -> None:
    assert {name: commands.load(known.home).name for name, known in names.ATTACKS.items()} == {
        name: name for name in names.ATTACKS
    }
    assert set(get_args(names.Precision)) == {"auto", *precision.MEANING}
    assert set(get_args(names.Training)) == set(OBJECTIVES)
