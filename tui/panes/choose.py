"""The list of what can be compared, from which it is chosen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from rich.text import Text
from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.coordinate import Coordinate
from textual.events import Click
from textual.message import Message
from textual.widgets import DataTable, Input, Static

from tui.read.overview import accuracy_range
from tui.read.subject import Subject
from tui.widgets.search import Search
from tui.widgets.table import bring_up_to_date
from tui.widgets.words import state_text

EMPTY = """There is nothing to compare yet: no runs in {runs}, no models in {models}.

Go to the runs with 1 and press d for the demo: it trains five networks and attacks each.
Or press 2 to set up a run of your own."""

_COLUMNS = ("in", "name", "what", "clean", "robust")


class _List(DataTable[Any]):
    """A table where one click is enough, as there is nothing to open."""

    def on_click(self, event: Click) -> None:
        row, column = event.style.meta.get("row", -1), event.style.meta.get("column", -1)
        if row >= 0 and column >= 0:
            # The table's own handler comes next, and selects the row with the cursor.
            self.cursor_coordinate = Coordinate(row, column)


class ChoosePane(Vertical):
    """Runs and models with a mark before those that are chosen."""

    DEFAULT_CSS = """
    ChoosePane > #why { height: 3; padding: 0 1; border-top: solid $panel; }
    ChoosePane > #empty { padding: 2 4; display: none; }
    ChoosePane.empty > #empty { display: block; }
    ChoosePane.empty > #why, ChoosePane.empty > DataTable { display: none; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "end_search", "All", id="end-filter-subjects", show=False, tooltip="End the filter"),
    ]

    @dataclass(eq=False)
    class Toggled(Message):
        """A subject was chosen, or no longer is."""

        subject: Subject

    def __init__(self) -> None:
        super().__init__()
        self._subjects: Sequence[Subject] = ()
        self._shown: list[Subject] = []
        self._chosen: Sequence[Path] = ()
        self._reference: Path | None = None

    def compose(self) -> ComposeResult:
        yield Search("Filter by name, kind, data, state; escape ends", "#subjects", id="search")
        yield Static("", id="empty", markup=False)
        table = _List(cursor_type="row", id="subjects")
        for name in _COLUMNS:
            table.add_column(name, key=name)
        yield table
        yield Static("", id="why", markup=False)

    @property
    def table(self) -> DataTable[Any]:
        return self.query_one(_List)

    @property
    def at_cursor(self) -> Subject | None:
        row = self.table.cursor_row
        return self._shown[row] if 0 <= row < len(self._shown) else None

    def show(self, subjects: Sequence[Subject], chosen: Sequence[Path], reference: Path | None, empty: str) -> None:
        """Shows what there is, and what is chosen of it; `empty` where there is nothing."""
        self._subjects, self._chosen, self._reference = subjects, chosen, reference
        self.set_class(not subjects, "empty")
        self.query_one("#empty", Static).update(empty)
        self._fill()

    def _fill(self) -> None:
        fits = self.query_one(Search).fits
        self._shown = [item for item in self._subjects if fits(f"{item.title} {item.kind} {item.data} {item.state}")]
        bring_up_to_date(self.table, {str(subject.path): self._cells(subject) for subject in self._shown})
        self._explain()

    def _cells(self, subject: Subject) -> list[Text]:
        what = Text(subject.kind, style="dim" if subject.problem else "")
        if subject.problem and subject.state:
            what = Text.assemble(f"{subject.kind} ", state_text(subject.state))
        return [
            self._mark(subject),
            Text(subject.title, no_wrap=True, style="dim" if subject.problem else ""),
            what,
            Text(accuracy_range(subject.clean), justify="right"),
            Text(accuracy_range(subject.robust), justify="right"),
        ]

    def _mark(self, subject: Subject) -> Text:
        if subject.problem:
            return Text("no", "dim")
        if subject.path == self._reference:
            return Text("★ ref", "bold")
        return Text("● in", "bold") if subject.path in self._chosen else Text("○")

    @on(DataTable.RowHighlighted)
    def _explain(self) -> None:
        """Says more of what is at the cursor: why it can't be chosen, or on what it was measured."""
        subject = self.at_cursor
        if subject is None:
            self.query_one("#why", Static).update("Nothing fits the filter." if self._subjects else "")
            return
        synthetic = ", synthetic data" if subject.synthetic else ""
        words = subject.problem or f"{subject.images}{synthetic}; {len(subject.networks)} network"
        words += "s" if len(subject.networks) > 1 else ""
        self.query_one("#why", Static).update(f"{subject.title}: {words}")

    @on(DataTable.RowSelected)
    def toggle(self) -> None:
        if (subject := self.at_cursor) is not None:
            self.post_message(self.Toggled(subject))

    @on(Input.Changed, "#search")
    def _searched(self) -> None:
        self._fill()

    def action_end_search(self) -> None:
        self.query_one(Search).end()
