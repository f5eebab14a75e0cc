"""The curves of the runs that are chosen, each metric in a chart of its own, while they run, too."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from rich.text import Text
from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.events import Resize
from textual.message import Message
from textual.widgets import DataTable, Input, Static
from textual.worker import get_current_worker

from tui.panes.side_by_side import ComparedPane
from tui.read.follow import Follower
from tui.read.state import RunState
from tui.read.subject import Subject, differing
from tui.read.together import AXES, Together, together
from tui.widgets.chart import COLOURS, SMOOTHINGS, Chart, Curve
from tui.widgets.search import Search

PERIOD = 2.0
"""Seconds between two looks at the runs, while the charts can be seen."""

_PATIENCE = 0.5
"""Seconds after which curves are shown while long runs are still read."""
_WIDTH, _HEIGHT = 44, 12
"""Columns and lines of a chart, at least."""
_SIGNS = "●▲■◆✚▼"
"""Signs of runs; a star is the reference's."""
_UNSAID = ("kind", "measured on", "name", "tags", "note", "notify")
"""Settings that don't tell why curves differ."""
_NO_CURVES = "Nothing to draw: those chosen have no curves. A saved model has none, but the run that trained it has."


@dataclass(eq=False)
class RunsRead(Message):
    """Runs were read, as far as there is something to read."""

    states: list[tuple[Path, RunState]]
    caught_up: bool


class TogetherPane(ComparedPane):
    """Whose curve is which, with the settings that differ, and a grid of charts."""

    DEFAULT_CSS = """
    TogetherPane > DataTable { height: auto; max-height: 30%; overflow-x: hidden; }
    TogetherPane > .note { height: auto; padding: 0 1; }
    TogetherPane > #charts { height: 1fr; layout: grid; grid-size: 1; grid-gutter: 0 1; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("slash", "search", "Filter", id="filter-charts", key_display="/", tooltip="Show only some charts"),
        Binding("x", "axis", "Axis", id="axis", tooltip="Draw trainings over steps, epochs, or seconds"),
        Binding("s", "smooth", "Smooth", id="smooth-all", tooltip="Smooth the lines: not, a little, much"),
        Binding("v", "log", "Log scale", id="log-scale-all", show=False,
                tooltip="Draw losses and the like on a logarithmic scale, or not"),
    ]  # fmt: skip

    def __init__(self, id: str) -> None:
        super().__init__(id)
        self._axis = AXES[0]
        self._smoothing = 0
        self._log = False
        self._places: dict[Path, int] = {}
        self._followers: dict[Path, Follower] = {}
        self._states: list[tuple[Path, RunState]] | None = None
        self._reading = False

    def compose(self) -> ComposeResult:
        yield DataTable[Any](cursor_type="row", show_header=False, cell_padding=0)
        yield Static("", markup=False, classes="note dim")
        yield VerticalScroll(id="charts", can_focus=False)
        yield Search("Words of charts to show, as robust or loss; escape ends", f"#{self.id} > DataTable")

    def on_mount(self) -> None:
        self.set_interval(PERIOD, self._look)

    def on_resize(self, event: Resize) -> None:
        self._arrange()

    def show(self, subjects: list[Subject]) -> None:
        super().show(subjects)
        self._look()

    def _look(self) -> None:
        if self._reading or not (self.display and self.screen.is_current and self._subjects):
            return
        paths = [subject.path for subject in self._subjects if subject.kind != "model"]
        self._followers = {path: self._followers.get(path) or Follower(path) for path in paths}
        self._reading = bool(paths)
        self._read(list(self._followers.values()))
        if not paths:
            self._states = []
            self.call_next(self._draw)

    def _fill(self) -> None:
        paths = [subject.path for subject in self._subjects]
        # A run keeps its colour while others come and go.
        self._places = {path: place for path, place in self._places.items() if path in paths}
        for path in paths:
            free = (place for place in range(len(paths)) if place not in self._places.values())
            if path not in self._places:
                self._places[path] = next(free)
        self.table.clear(columns=True)
        self.table.add_columns("sign", "run", "settings")
        for number, (subject, words) in enumerate(zip(self._subjects, _differences(self._subjects), strict=True)):
            colour, sign = self._look_of(subject.path)
            name = f"{'★ ' if number == 0 and len(paths) > 1 else ''}{subject.title}  "
            self.table.add_row(
                Text(f"{sign} ", self.app.theme_variables.get(colour, "white").removeprefix("ansi_")),
                Text(name, no_wrap=True),
                Text(words, "dim", no_wrap=True, overflow="ellipsis"),
            )
        if self._states is not None:
            self._states = [(path, state) for path, state in self._states if path in paths]
        self.call_next(self._draw)

    def _look_of(self, path: Path) -> tuple[str, str]:
        """Returns a run's colour and sign."""
        place = self._places[path]
        return COLOURS[place % len(COLOURS)], _SIGNS[place % len(_SIGNS)]

    @work(thread=True)
    def _read(self, followers: Sequence[Follower]) -> None:
        """Reads what is new, of each run a piece in turn, and shows it from time to time."""
        worker, told, more = get_current_worker(), time.monotonic(), list(followers)
        while more and not worker.is_cancelled:
            more = [follower for follower in more if _advanced(follower)]
            if not more or time.monotonic() - told > _PATIENCE:
                told = time.monotonic()
                states = [(follower.folder, follower.state) for follower in followers]
                self.post_message(RunsRead(states, caught_up=not more))

    async def on_runs_read(self, message: RunsRead) -> None:
        self._reading = not message.caught_up
        before = {path: id(state) for path, state in self._states or []}
        # Of runs that were chosen when the reading began, but no longer, nothing is drawn.
        now = [(path, state) for path, state in message.states if path in self._places]
        if self._states is None or before != {path: id(state) for path, state in now}:
            self._states = now
            await self._draw()
        if {*self._places} - {*before, *dict(now)}:  # Chosen meanwhile.
            self._look()

    async def _draw(self) -> None:
        charts = together(self._in_order(), self._axis)
        grid = self.query_one("#charts")
        there = {chart.title: chart for chart in self.query(Chart)}
        if list(there) != [chart.title for chart in charts]:
            await grid.remove_children()
            there = {chart.title: self._chart(chart) for chart in charts}
            await grid.mount_all(there.values())
            self._arrange()
        for chart in charts:
            widget = there[chart.title]
            widget.x_name = chart.x_name
            widget.show(list(self._curves(chart)))
        self._say()

    def _in_order(self) -> list[tuple[Path, RunState]]:
        """Returns what was read, the reference first."""
        states = dict(self._states or [])
        return [(subject.path, states[subject.path]) for subject in self._subjects if subject.path in states]

    def _chart(self, chart: Together) -> Chart:
        made = Chart(chart.title, percent=chart.percent, bounds=(0.0, 1.0) if chart.percent else None)
        made.smooth(SMOOTHINGS[self._smoothing], self._log and not chart.percent)
        return made

    def _curves(self, chart: Together) -> Iterator[Curve]:
        for traced in reversed(chart.traced):  # The reference, which comes first, is drawn last.
            colour, sign = self._look_of(traced.run)
            few = traced.points or len(traced.xs) == 1
            yield Curve("", traced.xs, traced.ys, colour, sign if few else "", joined=True, end="" if few else sign)

    def _say(self) -> None:
        words = [f"over {self._axis}s, x changes"]
        words += [f"smoothing {SMOOTHINGS[self._smoothing]:g}"] if self._smoothing else []
        charts = self.query(Chart)
        hidden = sum(not chart.display for chart in charts)
        words += [f"{hidden} of {len(charts)} charts hidden"] if hidden else []
        if self._axis == "epoch" and any(state.trainings and not state.epoch_steps for _, state in self._in_order()):
            words.append("without trainings whose first epoch hasn't ended")
        none = _NO_CURVES if self._states is not None else "reading..."
        self.query_one(".note", Static).update(", ".join(words) if charts else none)

    @on(Input.Changed)
    def _arrange(self) -> None:
        """Shows the charts that fit the filter, in as many columns as there is room for."""
        search, shown = self.query_one(Search), 0
        for chart in self.query(Chart):
            chart.display = search.fits(chart.title)
            shown += chart.display
        grid = self.query_one("#charts")
        columns = max(1, min(shown, grid.size.width // _WIDTH))
        rows = -(-shown // columns)
        grid.styles.grid_size_columns = columns
        grid.styles.grid_rows = str(max(_HEIGHT, grid.size.height // max(1, rows)))
        self._say()

    def action_search(self) -> None:
        self.query_one(Search).open()

    async def action_axis(self) -> None:
        self._axis = AXES[(AXES.index(self._axis) + 1) % len(AXES)]
        for chart in self.query(Chart):
            chart.action_cursor(0)
            chart.action_whole()
        await self._draw()

    async def action_smooth(self) -> None:
        self._smoothing = (self._smoothing + 1) % len(SMOOTHINGS)
        await self._style()

    async def action_log(self) -> None:
        self._log = not self._log
        await self._style()

    async def _style(self) -> None:
        for chart in self.query(Chart):
            chart.smooth(SMOOTHINGS[self._smoothing], self._log and not chart.percent)
        await self._draw()


def _differences(subjects: Sequence[Subject]) -> list[str]:
    """Returns for each run the settings in which it differs from some other, in words."""
    rows = [(name, values) for name, values, differ in differing(subjects) if differ and name not in _UNSAID]
    return [", ".join(f"{name} {values[place] or 'none'}" for name, values in rows) for place in range(len(subjects))]


def _advanced(follower: Follower) -> bool:
    """Reads the next piece, and returns whether there is more."""
    try:
        return follower.read()
    except OSError:  # It has told nothing yet, or is gone: its curves stay as they are.
        return False
