"""Pictures of every screen in two sizes, some in both themes; `--snapshot-update` takes them anew.

Nothing on them depends on where, when or how fast they are taken: clocks stand still, folders are relative, the
machine's figures are made up, and no process runs: a run counts as running by its name.
"""

from __future__ import annotations

import dataclasses
import itertools
import os
import re
import shutil
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fake_engine import ENGINE, recorded
from rich.segment import Segment
from screen import until
from textual._context import visible_screen_stack
from textual.app import App
from textual.pilot import Pilot
from textual.widgets import Input

from kerasrobust.config import AttackConfig
from kerasrobust.events import Event, Finding, RunFinished, to_json
from kerasrobust.fields import Epsilon
from kerasrobust.machine import Gpu
from kerasrobust.runs import write_json
from kerasrobust.settings import to_dict
from tui.app import Lab
from tui.panes.choose import ChoosePane
from tui.screens.monitor import MonitorScreen
from tui.system import Process, Sample
from tui.widgets.fields import FieldRow

CARDS = Path(__file__).parents[2] / "saved_models"
NETWORKS = ("convnet", "convnet-adv", "convnet-pgd", "convnet-random", "convnet-random-pgd", "lenet")
"""Of those that are shipped; another one would change most pictures."""
NOW = max(recorded(kind)[-1].time for kind in ("demo", "train", "attack"))
MINUTE, HOUR, DAY = 60, 3600, 86400
SIZES = {"80x24": (80, 24), "160x48": (160, 48)}

AddRun = Callable[..., Path]
Step = str | Callable[[Lab], object]
"""A key, or what a key can't do."""


def monitor(name: str, *steps: tuple[Step, str]) -> list[tuple[Step, str]]:
    """Returns the steps into a run's monitor, and on from there."""
    return [(lambda lab: lab.open_run(lab.session.runs_dir / name), f"│ {name}"), *steps]


def at(name: str) -> Step:
    """Returns the step to a line of the list in the comparison."""

    def move(lab: Lab) -> None:
        table = lab.screen.query_one(ChoosePane).table
        names = [str(table.get_row(row.key)[1]) for row in table.ordered_rows]
        table.move_cursor(row=names.index(name))

    return move


def compared(names: Sequence[str], *steps: tuple[Step, str]) -> list[tuple[Step, str]]:
    """Returns the steps that choose runs and models in the comparison, and on from there."""
    chosen: list[tuple[Step, str]] = [("4", "0 of 15 chosen")]
    for count, name in enumerate(names, start=1):
        chosen += [(at(name), ""), ("space", f"{count} of 15 chosen")]
    return [*chosen, *steps]


def leave(lab: Lab) -> None:
    """Quits while a run of this UI is under way."""
    lab.session.runner.running = lambda: [SimpleNamespace(path=lab.session.runs_dir / "demo-live", asked=None)]  # type: ignore
    lab.action_leave()


def attack_form(lab: Lab) -> None:
    lab.edit(AttackConfig(model="convnet", epsilon=Epsilon(4 / 255), steps=50))


def epochs(lab: Lab) -> None:
    next(row for row in lab.screen.query(FieldRow) if row.item.name == "epochs").editor.focus()


Steps = list[tuple[Step, str]]
"""Steps, each with the words that stand on the screen after it."""

# Each group is gone through in one app: the steps of a screen begin where those of the one before have ended.
GROUPS: list[dict[str, Steps]] = [
    {
        "runs": [],
        "help": [("question_mark", "escape closes")],
        "delete": [("escape", ""), ("down", ""), ("down", ""), ("delete", "Keep (n)")],
        "runs-search": [
            *(("escape", ""), ("up", ""), ("up", "")),
            *(("slash", ""), ("t", ""), ("r", ""), ("a", ""), ("i", "hidden")),
        ],
        "quit": [("escape", "9 runs"), ("up", ""), ("up", ""), (leave, "A run is under way.")],
    },
    {
        "new-train": [("2", "kerasrobust.run train")],
        "new-faulty": [(epochs, ""), ("x", "see epochs")],
    },
    {"new-attack": [(attack_form, "--steps 50")]},
    {
        "models": [("3", "6 models"), ("down", "")],
        "models-layers": [("l", "output shape")],
        "import": [("l", ""), ("up", ""), ("i", "Import someone"), ("enter", "✗ Give the path")],
    },
    {"compare": compared(["demo", "convnet-pgd"], (at("train-died"), "It died"))},
    {"compare-figures": compared(["attack", "train"], ("f", "McNemar's exact test"))},
    {"compare-settings": compared(["convnet", "convnet-pgd"], ("i", "settings differ"))},
    {"compare-table": compared(["demo"], ("t", "publ."))},
    {"compare-curves": compared(["demo", "train"], ("m", "accuracy, validation"))},
    {"compare-epsilon": compared(["demo", "convnet-pgd"], ("e", "accuracy over epsilon"))},
    {"system": [("5", "Load 1.25")]},
    {"system-gpus": [("5", "GPU 1: NVIDIA")]},
    {
        "monitor-curves": monitor("demo", ("m", "✓ done")),
        "monitor-attacks": [("a", "gradients")],
        "monitor-gallery": [("g", "original:")],
        "monitor-table": [("t", "publ.")],
        "monitor-log": [("l", "Everything is in")],
        "monitor-settings": [("i", "tensorflow")],
    },
    {"monitor-running": monitor("demo-live", ("m", "● running"))},
    {"monitor-running-attacks": monitor("demo-late", ("a", "● running"))},
    {"monitor-died": monitor("train-died", ("m", "† died"))},
]
FOUND: dict[str, Steps] = {
    "result-corruptions": monitor("corruptions", (lambda lab: None, "fog")),
    "result-certify": [("escape", "3 runs"), *monitor("certify", (lambda lab: None, "L2 radius"))],
    "result-assess": [("escape", "3 runs"), *monitor("assess", (lambda lab: None, "union"))],
}
"""What commands have found that neither train nor only attack."""
EMPTY: dict[str, Steps] = {
    "runs-empty": [],
    "models-empty": [("3", "No models in")],
    "compare-empty": [("4", "There is nothing to compare")],
}
LIGHT = ("runs", "new-train", "monitor-curves", "monitor-gallery")
"""Screens that are also taken in the light theme: together they have every kind of widget."""

TAKEN: dict[tuple[str, str], list[str]] = {}
"""Pictures that were taken, by screen and size: the dark one, then the light one."""


@pytest.fixture
def runs_dir() -> Path:
    """The runs folder, by a name that is the same everywhere."""
    return Path("runs")


@pytest.fixture
def folders(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch, add_run: AddRun) -> None:
    """Runs of every state, and the models that come with the project; made once, as no picture changes them."""
    home = tmp_path_factory.getbasetemp() / "pictured"
    made = home.is_dir()
    home.mkdir(exist_ok=True)
    monkeypatch.chdir(home)
    if made:
        return

    def end(run: Path, *events: Event) -> Path:
        with (run / "events.jsonl").open("a") as file:
            file.writelines(f"{to_json(event)}\n" for event in events)
        return run

    runs = {
        add_run("demo", "demo-late", events=930): 5 * MINUTE,
        add_run("demo", "demo-live", events=810): 7 * MINUTE,
        add_run("train"): 25 * MINUTE,
        add_run("demo"): 3 * HOUR,
        add_run("attack"): 20 * HOUR,
        end(
            add_run("train", "train-stopped", events=12),
            RunFinished(status="cancelled", seconds=70.0, message="What is done so far is kept.", time=NOW),
        ): 2 * DAY,
        end(
            add_run("train", "train-died", events=17),
            Finding(code="weak-attack", message="More steps lower it.", severity="warning", time=NOW),
        ): 5 * DAY,
        end(
            add_run("train", "a-long-name-of-a-run-as-people-give-20261101", events=3),
            RunFinished(status="failed", seconds=3.0, message="Expected a data set. Received: mnits.", time=NOW),
        ): 21 * DAY,
        add_run("attack", "attack-photographs"): 400 * DAY,
    }
    config = dataclasses.replace(AttackConfig(model="convnet", steps=10), data="cifar10")
    write_json(Path("runs/attack-photographs/config.json"), to_dict(config))
    for path, age in runs.items():
        os.utime(path / "config.json", (NOW - age, NOW - age))
    for name in NETWORKS:
        (Path("saved_models") / name).mkdir(parents=True)
        shutil.copy(CARDS / name / "card.json", Path("saved_models") / name)


@pytest.fixture
def found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, add_run: AddRun) -> None:
    """A run of each kind whose result has a pane of its own."""
    monkeypatch.chdir(tmp_path)
    for kind in ("corruptions", "certify", "assess"):
        add_run(kind, began=NOW - HOUR)


@pytest.fixture
def nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No folders at all."""
    monkeypatch.chdir(tmp_path)


class Machine:
    """Stands in for `Sampler`: a machine that has done the same for five minutes, and does nothing more."""

    gpus = 0

    def __init__(self, runs_dir: Path) -> None:
        self.problem = "" if self.gpus else "no GPU (NVML Shared Library Not Found)"
        self.history = deque(map(self._at, range(300)))

    def _at(self, second: int) -> Sample:
        wave = abs(second % 60 - 30) / 30
        cards = [
            Gpu(
                name="NVIDIA A100-SXM4-80GB", utilisation=100 * wave, memory_used=(20 + 40 * number) * 2.0**30,
                memory_total=80 * 2.0**30, temperature=50 + 20 * wave, power=100 + 250 * wave, power_limit=400,
            )
            for number in range(self.gpus)
        ]  # fmt: skip
        runs = [Process(run="demo-live", pid=4711, cpu=163.0, rss=1.5 * 2**30)]
        return Sample(
            cpu=25 + 50 * wave, cores=(50 * wave, 50 + 50 * wave) * 4,
            disk_used=120 * 2.0**30, disk_total=500 * 2.0**30,
            memory_used=(4 + second / 100) * 2**30, memory_total=16 * 2**30,
            load=1.25, gpus=tuple(cards), processes=tuple(runs),
        )  # fmt: skip

    def sample(self) -> Sample:
        return self.history[-1]


class TwoGpus(Machine):
    gpus = 2


@pytest.fixture(autouse=True)
def still(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stops what goes on by itself."""
    clock = SimpleNamespace(time=lambda: NOW, localtime=time.gmtime, strftime=time.strftime)
    monkeypatch.setattr("tui.widgets.words.time", clock)
    monkeypatch.setattr("tui.panes.status.time", clock)
    for module in ("tui.read.overview", "tui.screens.monitor"):
        monkeypatch.setattr(f"{module}.is_locked", lambda path: path.name in ("demo-live", "demo-late"))
    # What is there is read at once; nothing changes later.
    for screen in ("runs", "models", "compare", "monitor"):
        monkeypatch.setattr(f"tui.screens.{screen}.PERIOD", 60.0)
    monkeypatch.setattr("tui.screens.system.Sampler", Machine)


def look(pilot: Pilot[Any]) -> list[list[Segment]]:
    """Returns what stands on the screen, and behind a dialog, where else nothing would be drawn, and kept."""
    visible_screen_stack.set(pilot.app._background_screens)
    return [list(strip) for strip in pilot.app.screen._compositor.render_strips()]


async def shows(pilot: Pilot[Any], words: str) -> None:
    """Waits until the words stand on the screen."""
    limit = time.monotonic() + 10
    while words not in (text := "\n".join("".join(segment.text for segment in line) for line in look(pilot))):
        assert time.monotonic() < limit, text
        await pilot.pause(0.01)


async def take(pilot: Pilot[Any], step: Step, words: str) -> None:
    """Takes a step, and waits for the words, and until a run that it opened is read to its end."""
    lab = pilot.app
    assert isinstance(lab, Lab)
    if isinstance(step, str):
        await pilot.press(step)
    else:
        step(lab)
        await pilot.pause()
    await shows(pilot, words)
    await until(pilot, lambda: not isinstance(lab.screen, MonitorScreen) or lab.screen._caught_up)


async def rest(pilot: Pilot[Any]) -> None:
    """Waits until nothing is laid out any more: the screen stays as it is."""
    limit = time.monotonic() + 10
    before, same = look(pilot), 0
    while same < 3:
        assert time.monotonic() < limit, "The screen doesn't come to rest."
        await pilot.pause(0.01)
        now = look(pilot)
        before, same = now, same + 1 if now == before else 0


async def settle(pilot: Pilot[Any]) -> None:
    """Waits until the screen is as it stays, without a caret that blinks."""
    for field in pilot.app.screen.query(Input):
        field.cursor_blink = False
    await rest(pilot)
    if len(pilot.app.screen_stack) > 1:  # What is behind has come to rest, too.
        pilot.app.screen.refresh()
        await rest(pilot)


def picture(lab: Lab) -> str:
    """Returns the screen as SVG, without what says the same in every element: half of it, in a hundred files."""
    svg = lab.export_screenshot(title=lab.title, simplify=True)
    svg = re.sub(r'<clipPath id="terminal-\d+-line-.*?</clipPath>\s*', "", svg, flags=re.DOTALL)
    svg = re.sub(r' clip-path="url\(#terminal-\d+-line-\d+\)"| shape-rendering="crispEdges"', "", svg)
    return svg.replace("<style>", "<style> rect { shape-rendering: crispEdges }", 1)


class Taken(App[str]):
    """An app that was looked at already, for the fixture, which else starts one for each picture."""

    def __init__(self, svg: str) -> None:
        super().__init__()
        self.svg = svg

    def run(self, **_: Any) -> str:  # type: ignore[override]
        return self.svg


async def go_through(group: dict[str, Steps], size: str, runs_dir: Path) -> None:
    """Takes the pictures of a group's screens, one after the other in one app."""
    lab = Lab(runs_dir, Path("saved_models"), ENGINE)
    async with lab.run_test(size=SIZES[size]) as pilot:
        await shows(pilot, "No runs in" if group is EMPTY else "3 runs" if group is FOUND else "9 runs")
        for name, steps in group.items():
            for step, words in steps:
                await take(pilot, step, words)
            pictures = TAKEN[name, size] = []
            for theme in ("textual-dark", "textual-light")[: 2 if name in LIGHT else 1]:
                if lab.theme != theme:
                    lab.action_toggle_theme()
                assert lab.theme == theme
                await pilot.pause()
                await settle(pilot)
                pictures.append(picture(lab))
            if lab.theme != "textual-dark":
                lab.action_toggle_theme()
                await pilot.pause()


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", [*itertools.chain(*GROUPS), *FOUND, *EMPTY])
async def test_the_screen_looks_as_it_did(
    name: str, size: str, runs_dir: Path, request: pytest.FixtureRequest, snap_compare: Any
) -> None:
    if (name, size) not in TAKEN:
        request.getfixturevalue("nothing" if name in EMPTY else "found" if name in FOUND else "folders")
        if name == "system-gpus":
            request.getfixturevalue("monkeypatch").setattr("tui.screens.system.Sampler", TwoGpus)
        await go_through(next(group for group in (EMPTY, FOUND, *GROUPS) if name in group), size, runs_dir)
    # The first is dark, the second, .1, is light.
    for svg in TAKEN[name, size]:
        assert snap_compare(Taken(svg))
