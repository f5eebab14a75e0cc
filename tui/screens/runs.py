"""The runs: all that the folder holds, live, whoever started them."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.events import Resize
from textual.widgets import DataTable, Input, Static

from kerasrobust.config import DemoConfig
from kerasrobust.errors import InputError
from kerasrobust.runs import delete
from kerasrobust.settings import RunConfig
from tui.messages import Edit, Go, Open, Start
from tui.panes.runs import ORDERS, RunDetails, RunsTable
from tui.read.overview import Overview, Overviews
from tui.read.own import again, with_own
from tui.screens.base import FolderScreen
from tui.screens.dialogs import Confirm
from tui.screens.marking import MarkingScreen
from tui.widgets.layout import BESIDE
from tui.widgets.search import Search
from tui.widgets.table import copy

PERIOD = 1.0
"""Seconds between two looks at the folder."""

DEMO = """Run the demo? It trains five networks on embedded, synthetic pictures and attacks each: about five minutes \
of work for this machine."""

EMPTY = """No runs in {folder} yet.

Press [b]d[/b] to run the demo: the study on embedded, synthetic pictures, in a few minutes.
It trains five networks, attacks each, and compares them.

Press [b]n[/b] to set up a run of your own, [b]3[/b] for the saved models, [b]?[/b] for all keys."""


class RunsScreen(FolderScreen, MarkingScreen):
    """The table of runs, with search, filter and order, and what can be done with a run."""

    PLACE = "runs"
    READS = "The runs"
    DEFAULT_CSS = """
    RunsScreen #search { dock: bottom; }
    RunsScreen #runs { height: 1fr; }
    RunsScreen #list { width: 3fr; }
    RunsScreen.wide #list { min-width: 80; }
    RunsScreen #details { height: 3; padding: 0 1; border-top: solid $panel; }
    RunsScreen #beside { width: 2fr; height: 1fr; display: none; border-left: solid $panel; padding: 0 1; }
    RunsScreen.wide #beside { display: block; }
    RunsScreen #empty { padding: 2 4; display: none; }
    RunsScreen.empty #empty { display: block; }
    RunsScreen.empty DataTable, RunsScreen.empty #details, RunsScreen.empty #beside { display: none; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "open", "Open", id="open-run", tooltip="Open the run: its curves, attacks, images and log"),
        Binding("n", "new", "New", id="new-run", tooltip="Set up a run in a form"),
        Binding("d", "demo", "Demo", id="demo", tooltip="Run the demo: the study on embedded data"),
        Binding("x", "cancel", "Cancel", id="cancel-run", tooltip="Stop the run; it saves what is done"),
        Binding("r", "restart", "Again", id="restart-run", tooltip="Start again with the same settings, or go on"),
        Binding("e", "edit", "Edit", id="edit-run", show=False, tooltip="Open its settings in the form"),
        Binding("delete,backspace", "delete", "Delete", id="delete-run", tooltip="Delete the run's folder; asks first"),
        Binding("slash", "search", "Search", id="search-runs", key_display="/",
                tooltip="Search names, models, data, tags and notes"),
        Binding("f", "filter", "Filter", id="filter-runs", show=False,
                tooltip="Show only runs of one state, or those that are archived"),
        Binding("s", "sort", "Sort", id="sort-runs", show=False,
                tooltip="Change the order, also by tag; a click on a heading does too"),
        Binding("a", "archive", "Archive", id="archive-run", show=False,
                tooltip="Leave the run out of the list, or bring it back; f shows what is archived"),
        Binding("y", "copy", "Copy", id="copy-runs", show=False, tooltip="Copy the table, cells separated by tabs"),
    ]  # fmt: skip

    def __init__(self) -> None:
        super().__init__()
        self._runs: list[Overview] = []
        self._overviews: Overviews | None = None

    def content(self) -> ComposeResult:
        yield Search("Search name, model, data, state, tags, notes; escape ends", "#runs", id="search")
        yield Static("", id="empty")
        with Horizontal():
            with Vertical(id="list"):
                yield RunsTable("runs")
                yield RunDetails("", id="details")
            yield Vertical(id="beside")

    def on_mount(self) -> None:
        self._overviews = Overviews(self.session.runs_dir)
        self.query_one("#empty", Static).update(EMPTY.format(folder=self.session.runs_dir))
        self.keep_reading(PERIOD)
        self.table.focus()

    @property
    def table(self) -> RunsTable:
        return self.query_one(RunsTable)

    def on_resize(self, event: Resize) -> None:
        self.set_class(event.size.width >= BESIDE, "wide")
        # The table gets its columns after this.
        self.call_after_refresh(self._show)

    def read_folders(self) -> list[Overview]:
        assert self._overviews is not None
        return self._overviews.read()

    def show_found(self, found: list[Overview] | None) -> None:
        self.was_read = True
        self._runs = with_own(found or [], self.session.runner.children.values())
        self._show()

    def follow(self, path: Path) -> None:
        """Puts the cursor on a run: also before the folder is read again, what one presses next is done to it."""
        self.table.await_run(path)
        if self.was_read:
            self.show_found(self._runs)

    @on(Input.Changed, "#search")
    def _show(self) -> None:
        self.set_class(self.was_read and not self._runs, "empty")
        if self._runs and self.focused is None:  # The table was hidden while there was nothing.
            self.table.focus()
        self.table.show(self._runs, self.query_one(Search).fits)
        self.entitle(self.table.title)
        self._show_details()

    @on(DataTable.RowHighlighted)
    def _show_details(self) -> None:
        run, self.session.selected = self.table.at_cursor, self.marked
        self.query_one(RunDetails).show(run, "Nothing fits the search or filter." if self._runs else "")
        if self.was_read and self.has_class("wide"):
            self.call_next(self._show_beside, run)

    async def _show_beside(self, run: Overview | None) -> None:
        from tui.panes.story import RunStory  # With what draws its chart, which the first picture doesn't wait for.

        beside = self.query_one("#beside")
        if not beside.children:
            await beside.mount(RunStory())
        beside.query_one(RunStory).show(run)

    @on(DataTable.HeaderSelected)
    def _order_by_heading(self, event: DataTable.HeaderSelected) -> None:
        if event.column_key.value in ORDERS:
            self.table.order = event.column_key.value
            self._show()

    @on(DataTable.RowSelected)
    def action_open(self) -> None:
        if (run := self.table.at_cursor) is not None:
            self.post_message(Open(run.path))

    def action_new(self) -> None:
        self.post_message(Go("new"))

    def action_demo(self) -> None:
        def answered(answer: str | None) -> None:
            if answer == "y":
                self.post_message(Start(DemoConfig()))

        self.app.push_screen(Confirm(DEMO, {"y": "Run it", "n": "Not now"}), answered)

    def action_sort(self) -> None:
        self.table.next_order()
        self._show()

    def action_filter(self) -> None:
        self.table.next_state()
        self._show()

    @on(Input.Submitted, "#search")
    def _search_ended(self, event: Input.Submitted) -> None:
        if not event.value.strip():
            self.action_back()

    def action_back(self) -> None:
        self.query_one(Search).end()

    def action_copy(self) -> None:
        copy(self.table)

    def action_cancel(self) -> None:
        if (run := self.table.at_cursor) is not None:
            self.cancel(run.path)

    def action_restart(self) -> None:
        """Starts the run again: resumes one that has stopped early, repeats one that is done under another name."""
        if (config := self._settings()) is not None:
            self.post_message(Start(config))

    def action_edit(self) -> None:
        if (config := self._settings()) is not None:
            self.post_message(Edit(config))

    def _settings(self) -> RunConfig | None:
        """Returns the config that runs the run at the cursor again, or says why there is none."""
        run = self.table.at_cursor
        try:
            return None if run is None else again(run, self.session.runner.children.get(run.path))
        except InputError as error:
            self.fail(str(error))
            return None

    @property
    def marked(self) -> Path | None:
        run = self.table.at_cursor
        return None if run is None else run.path

    def show_marks(self) -> None:
        self.look()

    def action_archive(self) -> None:
        run = self.table.at_cursor
        if run is not None and self.mark(run.path, archived=not run.marks.archived):
            self.say(f"{run.path.name}: {'back in the list' if run.marks.archived else 'archived; f shows it'}.")

    def action_delete(self) -> None:
        run = self.table.at_cursor
        if run is None:
            return

        def answered(answer: str | None) -> None:
            if answer != "y":
                return
            try:
                delete(run.path)
                self.session.runner.forget(run.path)
            except InputError as error:
                self.fail(str(error))
            self.look()

        if not run.path.exists() and self.session.runner.forget(run.path):  # Nothing is lost with the line.
            self.look()
            return
        question = f"Delete the folder {run.path}, with all that is in it? This can't be undone."
        self.app.push_screen(Confirm(question, {"n": "Keep", "y": "Delete"}, danger="y"), answered)
