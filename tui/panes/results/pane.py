"""The contract of a result pane: what it can show of a run, and how it is filled."""

from __future__ import annotations

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.events import Resize
from textual.widgets import DataTable, Static

from kerasrobust.show.tables import SYNTHETIC
from tui.read.measured import Measured
from tui.widgets.layout import SUMMARY
from tui.widgets.table import copy


class ResultPane(Vertical):
    """One kind of result, with a table. A new kind is a subclass, and a line in `panes.RESULTS`.

    Example:
        class NotesPane(ResultPane):
            def pages(self, found: Measured) -> list[str]:
                return ["Notes"] if found.left_out else []

            def fill(self, found: Measured, page: int = 0) -> None:
                self.query_one(Static).update(" ".join(found.left_out))
    """

    DEFAULT_CSS = """
    ResultPane > .words { height: auto; padding: 0 1; }
    ResultPane > .nothing, ResultPane.short > .summary { display: none; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("y", "copy", "Copy", id="copy-result", tooltip="Copy the table, cells separated by tabs"),
    ]

    def pages(self, found: Measured) -> list[str]:
        """Returns a title for each page that it has to show; none where the run has nothing of this kind."""
        raise NotImplementedError

    def fill(self, found: Measured, page: int = 0) -> None:
        """Shows a page of what was found."""
        raise NotImplementedError

    def on_resize(self, event: Resize) -> None:
        # The summary stands in the log as well, and the figures need the lines.
        self.set_class(event.size.height < SUMMARY, "short")

    def words(self) -> ComposeResult:
        """Yields a line on synthetic data, and one for the summary; `say` fills them."""
        yield Static("", markup=False, classes="words synthetic")
        yield Static("", markup=False, classes="words summary dim")

    def say(self, found: Measured, so_far: str = "") -> None:
        """Writes that data are synthetic, and the summary, or what there is to say until it comes."""
        for name, text in (("synthetic", SYNTHETIC if found.synthetic else ""), ("summary", found.summary or so_far)):
            line = self.query_one(f".{name}", Static)
            line.update(text)
            line.set_class(not text, "nothing")

    def action_copy(self) -> None:
        copy(self.query_one(DataTable))
