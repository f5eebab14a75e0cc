"""The table of runs, filtered and in an order, and what is known of the one at the cursor."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from rich.text import Text
from textual import work
from textual.widgets import DataTable, Static
from textual.worker import get_current_worker

from kerasrobust.events import printable
from kerasrobust.runs import read_json
from kerasrobust.show.summaries import summary
from tui.read.overview import Overview
from tui.read.settings import settings
from tui.widgets.table import bring_up_to_date
from tui.widgets.words import accuracy_text, age_text, bar_text, left_text, state_text

_WIDTHS = {"state": 11, "run": 21, "clean": 11, "robust": 11, "at work": 10}
"""Columns and their widths in 80 columns; the others are in the line below the table."""

_WIDE_WIDTHS = {
    "state": 11, "run": 22, "model": 14, "data": 12, "clean": 11, "robust": 11, "at work": 13, "age": 6,
}  # fmt: skip

ORDERS: dict[str, tuple[str, Callable[[Overview], Any]]] = {
    "age": ("newest first", lambda run: -run.began),
    "run": ("by name", lambda run: run.path.name),
    "state": ("by state", lambda run: (run.state != "running", run.state)),
    "model": ("by model", lambda run: run.model),
    "data": ("by data", lambda run: run.data),
    "clean": ("clean accuracy", lambda run: -max(run.clean, default=-1.0)),
    "robust": ("robust accuracy", lambda run: -max(run.robust, default=-1.0)),
}


class RunsTable(DataTable[Any]):
    """One row for each run that fits the filters.

    Attributes:
        order: the column that runs are ordered by, a key of `ORDERS`.
        only: the state of those that are shown; empty for all.
    """

    def __init__(self, id: str) -> None:
        super().__init__(cursor_type="row", id=id)
        self.order = "age"
        self.only = ""
        self._wide: bool | None = None
        self._runs: Sequence[Overview] = ()
        self._shown: list[Overview] = []

    def widen(self, wide: bool) -> None:
        if wide == self._wide:
            return
        self._wide = wide
        self.clear(columns=True)
        for name, width in (_WIDE_WIDTHS if wide else _WIDTHS).items():
            self.add_column(name, key=name, width=width)

    def show(self, runs: Sequence[Overview], fits: Callable[[str], bool]) -> None:
        self._runs = runs
        of_state = [run for run in runs if self.only in ("", run.state)]
        fitting = [run for run in of_state if fits(f"{run.path.name} {run.kind} {run.model} {run.data} {run.state}")]
        self._shown = sorted(fitting, key=ORDERS[self.order][1])
        names = [str(key.value) for key in self.columns]
        rows = {str(run.path): _cells(run, bool(self._wide)) for run in self._shown}
        bring_up_to_date(self, {path: [cells[name] for name in names] for path, cells in rows.items()})

    @property
    def title(self) -> str:
        """What is shown, in a few words."""
        hidden = len(self._runs) - len(self._shown)
        words = [f"only {self.only}"] if self.only else []
        words.append(f"{len(self._runs)} run" + ("" if len(self._runs) == 1 else "s"))
        words += [f"{hidden} hidden"] if hidden else []
        return ", ".join([*words, ORDERS[self.order][0]])

    @property
    def at_cursor(self) -> Overview | None:
        return self._shown[self.cursor_row] if 0 <= self.cursor_row < len(self._shown) else None

    def next_order(self) -> None:
        orders = list(ORDERS)
        self.order = orders[(orders.index(self.order) + 1) % len(orders)]

    def next_state(self) -> None:
        """Takes the next state, of those that there are; after the last one all."""
        states = ["", *sorted({run.state for run in self._runs})]
        self.only = states[(states.index(self.only) + 1) % len(states)] if self.only in states else ""


def _cells(run: Overview, wide: bool) -> dict[str, Text]:
    mark = " *" if run.synthetic and wide else ""
    return {
        "state": state_text(run.state),
        "run": Text(printable(run.path.name), no_wrap=True, overflow="ellipsis"),
        "model": Text(run.model.rpartition("/")[2]),
        "data": Text(f"{run.data.rpartition('/')[2]}{mark}"),
        "clean": Text(accuracy_text(run.clean), justify="right"),
        "robust": Text(accuracy_text(run.robust), justify="right"),
        "at work": Text(bar_text(run.share, 8 if wide else 5)),
        "age": Text(age_text(run.began), justify="right"),
    }


class RunDetails(Static):
    """Two lines on a run."""

    def show(self, run: Overview | None, otherwise: str) -> None:
        if run is None:
            self.update(otherwise)
            return
        data = f" on {run.data}{', synthetic data (*)' if run.synthetic else ''}" if run.data else ""
        words = f"{run.kind} {run.model}{data}, begun {age_text(run.began)} ago"
        line = Text(words, no_wrap=True, overflow="ellipsis")
        line.append(f"\n{run.doing}{'  ' + left_text(run.seconds_left) if run.seconds_left else ''}", "dim")
        self.update(line)


class RunStory(Static):
    """A run's settings and results, read from its folder."""

    _shown: Overview | None = None

    def show(self, run: Overview | None) -> None:
        if run is None:
            self.update("")
        elif run != self._shown:
            self._read(run)
        self._shown = run

    @work(thread=True, exclusive=True)
    def _read(self, run: Overview) -> None:
        story = _story(run)
        if not get_current_worker().is_cancelled:
            self.app.call_from_thread(self.update, story)


def _story(run: Overview) -> Text:
    text = Text()
    text.append(printable(run.path.name), "bold")
    result = read_json(run.path / "result.json")
    if result is not None:
        text.append(f"\n\n{summary(result)}")
    elif run.doing:
        text.append(f"\n\n{run.doing}")
    text.append("\n")
    for name, value in settings(read_json(run.path / "config.json") or {}).items():
        text.append(f"\n{name.replace('_', ' ')}  ", "dim")
        text.append(value)
    return text
