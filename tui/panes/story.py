"""What is known of a run beside the list of runs: its result, its worst finding, its curves, its settings."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from threading import Lock

from rich.text import Text
from textual import work
from textual.app import ComposeResult
from textual.containers import Vertical, VerticalScroll
from textual.message import Message
from textual.widgets import Static
from textual.worker import get_current_worker

from kerasrobust.runs import read_json
from kerasrobust.show.figures import attack_name, format_budget
from kerasrobust.show.summaries import summary
from tui.panes.curves import ACCURACIES, training_curves
from tui.read.follow import Follower
from tui.read.overview import Overview
from tui.read.settings import settings
from tui.read.state import RunState
from tui.widgets.chart import COLOURS, SIGNS, Chart, Curve
from tui.widgets.words import finding_text, said_of, starred

_ATTACKS = 4
"""Attacks whose survivors are drawn: the legend has no room for more."""


@dataclass(frozen=True)
class _Told:
    """What was read of a run: a text above the chart, one below it, and the curves."""

    above: Text
    below: Text
    curves: list[Curve]
    x_name: str = ""


@dataclass(eq=False)
class StoryRead(Message):
    """A run was read."""

    path: Path
    told: _Told


class RunStory(Vertical):
    """The run at the cursor, read from its folder."""

    DEFAULT_CSS = """
    RunStory > VerticalScroll { height: auto; max-height: 50%; }
    RunStory > Chart { height: 1fr; min-height: 8; display: none; }
    RunStory Static { height: auto; }
    RunStory > #settings { height: 1fr; }
    RunStory.drawn > Chart { display: block; }
    RunStory.drawn > #settings { height: auto; max-height: 40%; }
    """

    def __init__(self) -> None:
        super().__init__()
        self._shown: Overview | None = None
        self._follower: Follower | None = None
        # A worker that was cancelled still ends what it reads.
        self._reading = Lock()

    def compose(self) -> ComposeResult:
        with VerticalScroll(can_focus=False):
            yield Static("", id="above", markup=False)
        yield Chart("accuracy", percent=True, bounds=(0.0, 1.0))
        with VerticalScroll(id="settings", can_focus=False):
            yield Static("", id="below", markup=False)

    def show(self, run: Overview | None) -> None:
        if run is None:
            if self._shown is not None:
                self.workers.cancel_node(self)
                self._tell(_Told(Text(), Text(), []))
        elif run != self._shown:
            self._read(run)
        self._shown = run

    @work(thread=True, exclusive=True)
    def _read(self, run: Overview) -> None:
        worker = get_current_worker()
        with self._reading:
            follower = self._follower
            if follower is None or follower.folder != run.path:
                follower = Follower(run.path)
            try:
                while not worker.is_cancelled and follower.read():
                    pass
            except OSError:  # It has told nothing yet, or its events are gone.
                pass
            self._follower = follower
            told = _told(run, follower.state)
        if not worker.is_cancelled:
            # A message isn't handled once its widget goes, while a call would meet one that has lost its children.
            self.post_message(StoryRead(run.path, told))

    def on_story_read(self, message: StoryRead) -> None:
        if self._shown is not None and message.path == self._shown.path:
            self._tell(message.told)

    def _tell(self, told: _Told) -> None:
        self.query_one("#above", Static).update(told.above)
        self.query_one("#below", Static).update(told.below)
        self.set_class(bool(told.curves), "drawn")
        chart = self.query_one(Chart)
        chart.x_name = told.x_name
        chart.show(told.curves)


def _told(run: Overview, state: RunState) -> _Told:
    above, below = Text(starred(run.path, run.marks), "bold"), Text()
    if said := said_of(run.marks):
        above.append("\n").append_text(said)
    result = read_json(run.path / "result.json")
    if result is not None and run.state not in ("starting", "running"):
        above.append(f"\n{summary(result)}", "not bold")
    elif run.doing:
        above.append(f"\n{run.doing}", "not bold")
    if (worst := state.worst) is not None:
        above.append("\n")
        above.append_text(finding_text(worst, state.found))
    for name, value in settings(read_json(run.path / "config.json") or {}).items():
        below.append(f"{name.replace('_', ' ')}  ", "dim")
        below.append(f"{value}\n")
    stage = state.trainings[-1] if state.trainings else None
    if stage is not None:
        curves = training_curves(state, stage, ACCURACIES)
        # The legend has no room for all four: what is measured on validation images is what counts.
        curves = [curve for curve in curves if curve.sign] or curves
        if len(state.trainings) > 1:
            above.append(f"\n{state.stages[stage].title}, the last of {len(state.trainings)} trainings", "dim")
        return _Told(above, below, curves, "step")
    return _Told(above, below, _survivors(state), "second")


def _survivors(state: RunState) -> list[Curve]:
    """Returns the share of survivors of the last attacks over time."""
    drawn = [line for line in state.attacks if line.curve.xs][-_ATTACKS:]
    return [
        Curve(
            f"{attack_name(line.attack)} {format_budget(line.epsilon, line.norm)}".strip(),
            line.curve.xs,
            line.curve.ys,
            COLOURS[place % len(COLOURS)],
            SIGNS[place % len(SIGNS)] if len(line.curve.xs) < 3 else "",
            joined=True,
        )
        for place, line in enumerate(drawn)
    ]
