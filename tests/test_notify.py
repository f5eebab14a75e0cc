"""A command of one's own hears how a run ends and of reasons for doubt, and can do nothing to the run."""

from __future__ import annotations

import dataclasses
import json
import re
import shlex
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from cli import call, events
from whole_runs import unheard

from kerasrobust.config import AttackConfig
from kerasrobust.errors import Cancelled, InputError
from kerasrobust.events import Finding, Log, RunFinished, RunStarted
from kerasrobust.jobs import engine
from kerasrobust.jobs.context import Context
from kerasrobust.runs import open_run

pytest_plugins = ["cli_fixtures"]

Told = list[tuple[list[str], dict[str, str]]]
Hearing = tuple[str, Callable[[int], Told]]

# What it is told, and where a program without a shell takes words with spaces and signs.
HEAR = """
import json, os, sys
told = [sys.argv[2:], {name: words for name, words in os.environ.items() if name.startswith("KERASROBUST_")}]
with open(sys.argv[1], "a") as file:
    file.write(json.dumps(told) + "\\n")
"""


@pytest.fixture
def hearing(tmp_path: Path) -> Hearing:
    """A command that writes down what it is told, and a function that waits for so many times."""
    (tmp_path / "hear.py").write_text(HEAR)
    heard = tmp_path / "heard"

    def wait(count: int) -> Told:
        limit = time.monotonic() + 20
        while not heard.exists() or heard.read_text().count("\n") < count:
            assert time.monotonic() < limit, heard.read_text() if heard.exists() else "nothing"
            time.sleep(0.02)
        return [json.loads(line) for line in heard.read_text().splitlines()]

    return shlex.join([sys.executable, str(tmp_path / "hear.py"), str(heard), "$HOME; two words"]), wait


@pytest.fixture
def config(tmp_path: Path, models_dir: Path, agreed: Path) -> AttackConfig:
    return AttackConfig(
        model="tiny", data=str(agreed), split="all[:6]", attack="fgsm", name="one", runs_dir=tmp_path / "runs",
        models_dir=models_dir,
    )  # fmt: skip


def context(config: AttackConfig) -> Context:
    return Context(config, open_run(config), unheard, lambda: False)


def log_of(config: AttackConfig, lines: int, seconds: float = 20) -> list[str]:
    """Returns the lines of console.log, once there are so many and no more come."""
    path, limit = config.runs_dir / "one" / "console.log", time.monotonic() + seconds
    while not path.exists() or len(path.read_text().splitlines()) < lines:
        assert time.monotonic() < limit, path.read_text() if path.exists() else "no log"
        time.sleep(0.02)
    time.sleep(0.3)
    return path.read_text().splitlines()


def test_it_hears_of_the_end_and_no_report_tells_of_it(places: list[str], agreed: Path, hearing: Hearing) -> None:
    command, heard = hearing
    words = ["--model", "tiny", "--data", agreed, "--split", "all[:6]", "--attack", "fgsm", "--name", "one", *places]
    outcome = call("attack", *words, "--notify", command, "--json")
    assert outcome.status == 0
    folder = Path(places[1]) / "one"
    found = [event for event in events(folder) if isinstance(event, Finding) and event.severity != "info"]
    ends = [told for told in heard(len(found) + 1) if told[1]["KERASROBUST_STATUS"] == "done"]
    finished = events(folder)[-1]
    assert isinstance(finished, RunFinished)
    # Its words are no shell's.
    assert ends == [
        [
            ["$HOME; two words"],
            {"KERASROBUST_RUN": "one", "KERASROBUST_STATUS": "done", "KERASROBUST_MESSAGE": finished.message},
        ]
    ]
    assert "hear.py" not in (folder / "report.html").read_text()
    (started,) = (event for event in events(folder) if isinstance(event, RunStarted))
    assert "hear.py" not in started.command
    assert call("attack", *words, "--notify", "true").message.endswith("--overwrite.")  # Finished, not other settings.


def test_it_hears_of_what_fails_is_cancelled_or_in_doubt(config: AttackConfig, hearing: Hearing) -> None:
    command, heard = hearing
    config = dataclasses.replace(config, notify=command)
    with pytest.raises(Cancelled):
        engine.run(config, unheard, lambda: True)
    heard(1)  # Nobody waits for one before the next is started.
    here = context(config)
    here.emit(Log(level="warning", message="no finding"))
    here.emit(Finding(code="small", message="a note", severity="info"))
    here.emit(Finding(code="large", message="a reason\nfor doubt", severity="warning"))
    heard(2)
    here.emit(RunFinished(status="failed", seconds=1.0, message="OSError: full\0"))
    here.run.close()
    told = [(about["KERASROBUST_STATUS"], about["KERASROBUST_MESSAGE"]) for _, about in heard(3)]
    assert [status for status, _ in told] == ["cancelled", "warning", "failed"]
    assert "the same command" in told[0][1]
    assert [message for _, message in told[1:]] == ["a reason\nfor doubt", "OSError: full"]


@pytest.mark.parametrize(
    ("command", "problem"),
    [
        ("/nowhere/at all", r"(/nowhere/at all) \(No such file or directory\)"),
        (shlex.join([sys.executable, "-c", "print('its own'); raise SystemExit(3)"]), r"\(exit status 3\)"),
    ],
)
def test_its_failure_is_said_once_and_fails_nothing(config: AttackConfig, command: str, problem: str) -> None:
    here = context(dataclasses.replace(config, notify=command))
    for _ in range(3):
        here.emit(Finding(code="large", message="doubt", severity="warning"))
    here.run.close()
    lines = log_of(config, 4 if "its own" in command else 1)
    assert lines.count("its own") == (3 if "its own" in command else 0)
    (said,) = (line for line in lines if line != "its own")
    assert said.startswith("kerasrobust: Expected a command that works for --notify. Received: ")
    assert re.search(problem, said)


def test_nobody_waits_for_it(config: AttackConfig) -> None:
    began = time.monotonic()
    here = context(dataclasses.replace(config, notify="sleep 4"))
    for _ in range(3):
        here.emit(Finding(code="large", message="doubt", severity="warning"))
    here.emit(RunFinished(status="done", seconds=1.0, message=""))
    here.run.close()
    assert time.monotonic() - began < 2


@pytest.mark.parametrize("command", ["", "  ", "say 'it", "say \\", "a\0b"])
def test_what_is_no_command_is_refused(command: str) -> None:
    with pytest.raises(InputError, match=r"^Expected a command and its arguments for --notify\. Received: .*\.$"):
        AttackConfig(model="m", notify=command)


def test_it_is_refused_on_the_command_line_before_anything_begins(places: list[str]) -> None:
    message = call("attack", "--model", "tiny", "--notify", "say 'it", *places).message
    assert message.startswith('Expected a command and its arguments for --notify. Received: "say \'it" (no closing')
    assert not Path(places[1]).exists()


def test_another_command_still_resumes(config: AttackConfig) -> None:
    open_run(config).close()
    run = open_run(dataclasses.replace(config, notify="true"))
    assert not run.is_new
    run.close()
