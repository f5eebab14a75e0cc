"""The contract of a result pane: what it can show of a run, and how it is filled."""

from __future__ import annotations

from typing import ClassVar

from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.widgets import DataTable

from tui.read.measured import Measured
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

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("y", "copy", "Copy", id="copy-result", tooltip="Copy the table, cells separated by tabs"),
    ]

    def pages(self, found: Measured) -> list[str]:
        """Returns a title for each page that it has to show; none where the run has nothing of this kind."""
        raise NotImplementedError

    def fill(self, found: Measured, page: int = 0) -> None:
        """Shows a page of what was found."""
        raise NotImplementedError

    def action_copy(self) -> None:
        copy(self.query_one(DataTable))
