"""The runs: all that the folder holds, live, whoever started them."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

from rich.text import Text
from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.events import Resize
from textual.widgets import DataTable, Input, Static
from textual.worker import get_current_worker

from kerasrobust.commands import from_dict
from kerasrobust.config import DemoConfig
from kerasrobust.errors import InputError
from kerasrobust.events import printable
from kerasrobust.runs import delete, read_json
from kerasrobust.show.figures import summary
from tui.messages import RunsRead
from tui.read.overview import Overview, Overviews
from tui.screens.base import MainScreen
from tui.screens.dialogs import Confirm
from tui.widgets.settings import settings
from tui.widgets.table import as_text
from tui.widgets.words import accuracy_text, age_text, bar_text, left_text, state_text

PERIOD = 1.0
"""Seconds between two looks at the folder."""

REST = 50
"""How many times as long as a look has taken nothing is looked at: thousands of runs don't take a core."""

WIDE = 150
"""From this many columns on the table has more of them, and details stand beside it."""

_WIDTHS = {"state": 11, "run": 21, "clean": 11, "robust": 11, "at work": 10}
"""Columns and their widths in 80 columns; what is left out stands below the table."""

_WIDE_WIDTHS = {
    "state": 11, "run": 22, "model": 14, "data": 12, "clean": 11, "robust": 11, "at work": 13, "age": 6,
}  # fmt: skip

_RESUMABLE = ("cancelled", "failed", "died")

_ORDERS: dict[str, tuple[str, Callable[[Overview], Any]]] = {
    "age": ("newest first", lambda run: -run.began),
    "run": ("by name", lambda run: run.path.name),
    "state": ("by state", lambda run: (run.state != "running", run.state)),
    "model": ("by model", lambda run: run.model),
    "data": ("by data", lambda run: run.data),
    "clean": ("clean accuracy", lambda run: -max(run.clean, default=-1.0)),
    "robust": ("robust accuracy", lambda run: -max(run.robust, default=-1.0)),
}

EMPTY = """No runs in {folder} yet.

Press [b]d[/b] to run the demo: the whole study on embedded, synthetic pictures, in a few minutes.
It trains five networks, attacks each, and compares them.

Press [b]n[/b] to set up a run of your own, [b]3[/b] for the saved models, [b]?[/b] for all keys."""


class RunsScreen(MainScreen):
    """The table of runs, with search, filter and order, and what can be done with a run."""

    PLACE = "runs"
    DEFAULT_CSS = """
    RunsScreen #search { dock: bottom; display: none; }
    RunsScreen #search.shown { display: block; }
    RunsScreen #runs { height: 1fr; }
    RunsScreen.wide Vertical { width: 120; }
    RunsScreen #details { height: 3; padding: 0 1; border-top: solid $panel; }
    RunsScreen #beside { width: 1fr; display: none; border-left: solid $panel; padding: 0 1;
        overflow-y: auto; }
    RunsScreen.wide #beside { display: block; }
    RunsScreen #empty { padding: 2 4; display: none; }
    RunsScreen.empty #empty { display: block; }
    RunsScreen.empty DataTable, RunsScreen.empty #details, RunsScreen.empty #beside { display: none; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "open", "Open", id="open-run", tooltip="Open the run: its curves, attacks, images and log"),
        Binding("n", "new", "New", id="new-run", tooltip="Set up a run in a form"),
        Binding("d", "demo", "Demo", id="demo", tooltip="Run the demo: the whole study on embedded data"),
        Binding("x", "cancel", "Cancel", id="cancel-run", tooltip="Stop the run; it saves what is done"),
        Binding("r", "restart", "Again", id="restart-run", tooltip="Start again with the same settings, or go on"),
        Binding("e", "edit", "Edit", id="edit-run", show=False, tooltip="Open its settings in the form"),
        Binding("delete,backspace", "delete", "Delete", id="delete-run", tooltip="Delete the run's folder; asks first"),
        Binding("slash", "search", "Search", id="search-runs", key_display="/", tooltip="Search name, model, data"),
        Binding("f", "filter", "Filter", id="filter-runs", tooltip="Show only runs of one state"),
        Binding(
            "s", "sort", "Sort", id="sort-runs", show=False, tooltip="Change the order; a click on a heading does too"
        ),
        Binding("y", "copy", "Copy", id="copy-runs", show=False, tooltip="Copy the table, cells separated by tabs"),
    ]

    def __init__(self) -> None:
        super().__init__()
        self._runs: list[Overview] = []
        self._overviews: Overviews | None = None
        self._order = "age"
        self._filter = ""
        self._shown: list[Path] = []
        self._read = False
        self._problem = ""
        self._looked = self._pause = 0.0
        self._told: Overview | None = None

    def content(self) -> ComposeResult:
        # Disabled while it isn't shown, as else it would take the keys when the table hides.
        yield Input(placeholder="Search name, model, data, state; escape ends", id="search", disabled=True)
        yield Static("", id="empty")
        with Horizontal():
            with Vertical():
                table: DataTable[Any] = DataTable(cursor_type="row", id="runs")
                yield table
                yield Static("", id="details")
            yield Static("", id="beside")

    def on_mount(self) -> None:
        self._overviews = Overviews(self.lab.runs_dir)
        self.query_one("#empty", Static).update(EMPTY.format(folder=self.lab.runs_dir))
        self._columns()
        self.set_interval(PERIOD, self._look)
        self._look()
        self.query_one(DataTable).focus()

    def on_screen_resume(self) -> None:
        if self._overviews is not None:
            self._look()

    def on_resize(self, event: Resize) -> None:
        wide = event.size.width >= WIDE
        if wide != self.has_class("wide"):
            self.set_class(wide, "wide")
            self._columns()

    def _columns(self) -> None:
        table = self.query_one(DataTable)
        table.clear(columns=True)
        widths = _WIDE_WIDTHS if self.has_class("wide") else _WIDTHS
        for name, width in widths.items():
            table.add_column(name, key=name, width=width)
        self._shown = []
        self._show()

    def _look(self) -> None:
        if (self.is_current or not self._read) and time.monotonic() - self._looked >= self._pause:
            self._looked = time.monotonic()
            self._read_folder()

    @work(thread=True, exclusive=True)
    def _read_folder(self) -> None:
        assert self._overviews is not None
        began = time.monotonic()
        found: list[Overview] = []
        problem = ""
        try:
            found = self._overviews.read()
        except OSError as error:
            problem = f"The runs can't be read: {error.strerror} ({error.filename})."
        self._pause = REST * (time.monotonic() - began)
        self.post_message(RunsRead(found, problem))

    def on_runs_read(self, message: RunsRead) -> None:
        self._read = True
        if message.problem and message.problem != self._problem:
            self.lab.fail(message.problem)
        self._problem = message.problem
        running = {run.path for run in message.overviews if run.state == "running"}
        starting = {
            child.path: Overview(child.path, child.command.split()[3], "starting", began=child.began)
            for child in self.lab.runner.running()
            if child.path not in running
        }
        # Also one that is taken up again, whose folder tells of its end until it has begun.
        self._runs = [*starting.values(), *(run for run in message.overviews if run.path not in starting)]
        self._show()

    def _chosen(self) -> list[Overview]:
        words = self.query_one("#search", Input).value.lower().split()

        def fits(run: Overview) -> bool:
            text = f"{run.path.name} {run.kind} {run.model} {run.data} {run.state}".lower()
            return (not self._filter or run.state == self._filter) and all(word in text for word in words)

        return sorted(filter(fits, self._runs), key=_ORDERS[self._order][1])

    def _show(self) -> None:
        """Brings the table up to date: cells where the rows are the same ones, else all of it."""
        self.set_class(self._read and not self._runs, "empty")
        table = self.query_one(DataTable)
        if self._runs and self.focused is None:  # It was hidden while there was nothing.
            table.focus()
        runs = self._chosen()
        names = [str(key.value) for key in table.columns]
        if [run.path for run in runs] == self._shown:
            for run in runs:
                cells = self._cells(run)
                for name in names:
                    if table.get_cell(str(run.path), name) != cells[name]:
                        table.update_cell(str(run.path), name, cells[name], update_width=True)
        else:
            at = self._at_cursor()
            table.clear()
            for run in runs:
                cells = self._cells(run)
                table.add_row(*(cells[name] for name in names), key=str(run.path))
            self._shown = [run.path for run in runs]
            if at is not None and at.path in self._shown:
                table.move_cursor(row=self._shown.index(at.path), animate=False)
        hidden = len(self._runs) - len(runs)
        words = [f"only {self._filter}"] if self._filter else []
        words += [f"{len(self._runs)} run" + ("" if len(self._runs) == 1 else "s")]
        words += [f"{hidden} hidden"] if hidden else []
        self.entitle(", ".join([*words, _ORDERS[self._order][0]]))
        self._tell()

    def _cells(self, run: Overview) -> dict[str, Text]:
        wide = self.has_class("wide")
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

    def _at_cursor(self) -> Overview | None:
        row = self.query_one(DataTable).cursor_row
        if not 0 <= row < len(self._shown):
            return None
        return next((run for run in self._runs if run.path == self._shown[row]), None)

    @on(DataTable.RowHighlighted)
    def _tell(self) -> None:
        """Says more of the run at the cursor: a line below, or a column beside where there is room."""
        run = self._at_cursor()
        details, beside = self.query_one("#details", Static), self.query_one("#beside", Static)
        if run is None:
            details.update("Nothing fits the search or filter." if self._runs else "")
            beside.update("")
            return
        data = f" on {run.data}{', synthetic data (*)' if run.synthetic else ''}" if run.data else ""
        words = f"{run.kind} {run.model}{data}, begun {age_text(run.began)} ago"
        line = Text(words, no_wrap=True, overflow="ellipsis")
        line.append(f"\n{run.doing}{'  ' + left_text(run.seconds_left) if run.seconds_left else ''}", "dim")
        details.update(line)
        if self.has_class("wide") and self._told != run:
            self._told = run
            self._tell_story(run)

    @work(thread=True, exclusive=True, group="story")
    def _tell_story(self, run: Overview) -> None:
        story = _story(run)
        if not get_current_worker().is_cancelled:
            self.app.call_from_thread(self.query_one("#beside", Static).update, story)

    @on(DataTable.HeaderSelected)
    def _order_by_heading(self, event: DataTable.HeaderSelected) -> None:
        if event.column_key.value in _ORDERS:
            self._order = event.column_key.value
            self._show()

    @on(DataTable.RowSelected)
    def action_open(self) -> None:
        """Opens the run at the cursor."""
        if (run := self._at_cursor()) is not None:
            self.lab.open_run(run.path)

    def action_new(self) -> None:
        """Goes to the form."""
        self.lab.show("new")

    def action_demo(self) -> None:
        """Starts the demo."""
        self.lab.start(DemoConfig())

    def action_sort(self) -> None:
        """Takes the next order."""
        orders = list(_ORDERS)
        self._order = orders[(orders.index(self._order) + 1) % len(orders)]
        self._show()

    def action_filter(self) -> None:
        """Shows the next state only, of those that there are; after the last one all."""
        states = ["", *sorted({run.state for run in self._runs})]
        self._filter = states[(states.index(self._filter) + 1) % len(states)] if self._filter in states else ""
        self._show()

    def action_search(self) -> None:
        """Opens the search."""
        search = self.query_one("#search", Input)
        search.add_class("shown")
        search.disabled = False
        search.focus()

    @on(Input.Changed, "#search")
    def _searched(self) -> None:
        self._show()

    @on(Input.Submitted, "#search")
    def _search_ended(self, event: Input.Submitted) -> None:
        if not event.value.strip():
            self.action_back()
        self.query_one(DataTable).focus()

    def action_back(self) -> None:
        """Ends the search."""
        search = self.query_one("#search", Input)
        search.value = ""
        search.remove_class("shown")
        search.disabled = True
        self.query_one(DataTable).focus()

    def action_copy(self) -> None:
        """Copies the table."""
        self.app.copy_to_clipboard(as_text(self.query_one(DataTable)))
        self.lab.tell("Copied the table.")

    def action_cancel(self) -> None:
        """Asks the run at the cursor to stop."""
        if (run := self._at_cursor()) is None:
            return
        try:
            self.lab.tell(f"{run.path.name}: {self.lab.runner.cancel(run.path)}.")
        except InputError as error:
            self.lab.fail(str(error))

    def action_restart(self) -> None:
        """Starts the run once more: goes on where it stopped, or, where it is done, anew under another name."""
        self._with_settings(lambda config: self.lab.start(config))

    def action_edit(self) -> None:
        """Opens the run's settings in the form."""
        self._with_settings(lambda config: self.lab.new_run(config))

    def _with_settings(self, use: Callable[[Any], None]) -> None:
        run = self._at_cursor()
        if run is None:
            return
        if run.state in ("running", "starting"):
            self.lab.fail(f"{run.path.name} is running. Cancel it first, or wait.")
            return
        try:
            config = from_dict(read_json(run.path / "config.json") or {})
        except InputError as error:
            self.lab.fail(str(error))
            return
        # What has ended early goes on under its own name; what is done is done anew, and replaces nothing.
        name = run.path.name if run.state in _RESUMABLE else None
        use(dataclasses.replace(config, name=name, overwrite=False))

    def action_delete(self) -> None:
        """Deletes the run at the cursor, after a question."""
        run = self._at_cursor()
        if run is None:
            return

        def answered(answer: str | None) -> None:
            if answer != "y":
                return
            try:
                delete(run.path)
            except InputError as error:
                self.lab.fail(str(error))
            self._look()

        question = f"Delete the folder {run.path}, with all that is in it? This can't be undone."
        self.app.push_screen(Confirm(question, {"n": "Keep", "y": "Delete"}, danger="y"), answered)


def _story(run: Overview) -> Text:
    """Returns what a run was asked for and what came out of it."""
    text = Text()
    text.append(printable(run.path.name), "bold")
    result = read_json(run.path / "result.json")
    if result is not None:
        try:
            text.append(f"\n\n{summary(result)}")
        except (AttributeError, KeyError, TypeError, ValueError):
            text.append("\n\nIts result.json is not one of ours.")
    elif run.doing:
        text.append(f"\n\n{run.doing}")
    text.append("\n")
    for name, value in settings(read_json(run.path / "config.json") or {}).items():
        text.append(f"\n{name.replace('_', ' ')}  ", "dim")
        text.append(value)
    return text
