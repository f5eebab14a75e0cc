"""How runs stand that this UI has started: what their folders tell, and what their processes do."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import pytest
from screen import shows, until

from kerasrobust.config import DemoConfig, TrainConfig
from kerasrobust.events import RunFinished, RunStarted
from tui.app import Lab
from tui.read.overview import Overview
from tui.read.own import OneRun, with_own
from tui.read.state import RunState, advance
from tui.runner import Child, Runner


@pytest.fixture
def runner(runs_dir: Path) -> Runner:
    return Runner((sys.executable, "-c", "import time; time.sleep(60)"))


@pytest.fixture
def child(runner: Runner, runs_dir: Path) -> Child:
    found = runner.start(DemoConfig(name="mine", runs_dir=runs_dir))
    yield found  # type: ignore[misc]
    found.process.kill()


def state_of(path: Path, began: float, ended: float | None) -> RunState:
    started = RunStarted(run="mine", kind="demo", config={}, command="", versions={}, devices=[], pid=1, time=began)
    events = [started] if ended is None else [started, RunFinished(status="done", seconds=1, message="", time=ended)]
    return advance(RunState(), events)


def test_a_run_has_ended_while_its_process_cleans_up(child: Child, runner: Runner) -> None:
    def listed(began: float) -> str:
        (run,) = with_own([Overview(child.path, "demo", "done", began=began)], [child])
        return run.state

    # Its folder tells of this start, or of the one before, which is resumed.
    assert listed(child.began + 1) == "done" and listed(child.began - 60) == "starting"
    one = OneRun(child.path, runner)
    assert one.word(state_of(child.path, child.began + 1, child.began + 9), living=False) == "done"
    assert one.word(state_of(child.path, child.began - 60, child.began - 9), living=False) == "starting"
    assert one.word(state_of(child.path, child.began + 1, None), living=False) == "running"


def test_a_run_of_others_began_when_its_lock_was_taken(runs_dir: Path) -> None:
    folder = runs_dir / "theirs"
    folder.mkdir(parents=True)
    for name, age in (("config.json", 7200), ("lock", 30)):
        (folder / name).write_text("{}")
        os.utime(folder / name, (time.time() - age,) * 2)
    assert time.time() - OneRun(folder, Runner([])).began == pytest.approx(30, abs=5)


async def test_a_refused_run_that_is_opened_says_why(runs_dir: Path, models_dir: Path) -> None:
    words = "import sys; print('Expected a model.', file=sys.stderr); sys.exit(2)"
    lab = Lab(runs_dir, models_dir, (sys.executable, "-c", words))
    async with lab.run_test(size=(80, 24)) as pilot:
        lab.start(TrainConfig(name="mine"))
        await until(pilot, lambda: len(lab.screen_stack) == 1)
        await shows(pilot, "✗ refused", "mine")
        await pilot.press("enter")
        await shows(pilot, "✗ refused", "Expected a model.", "Press r in the list of runs to start it again.")
