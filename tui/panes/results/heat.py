"""Accuracy under common corruptions, by kind and severity: a heat map that fills while it is measured."""

from __future__ import annotations

from typing import Any

from rich.text import Text
from textual import on
from textual.app import ComposeResult
from textual.widgets import DataTable, Static

from kerasrobust.show import figures
from kerasrobust.show.corrupted import CorruptionMap, title_of
from kerasrobust.show.heat import coloured
from tui.panes.results.pane import ResultPane
from tui.read.measured import Measured
from tui.widgets.table import bring_up_to_date


class HeatPane(ResultPane):
    """A cell for each corruption and severity; below, the cell at the cursor with its interval."""

    DEFAULT_CSS = """
    HeatPane > DataTable { height: 1fr; }
    HeatPane > #cell { height: 1; padding: 0 1; text-wrap: nowrap; text-overflow: ellipsis; }
    """

    def __init__(self) -> None:
        super().__init__()
        self._map = CorruptionMap(cells={})

    def compose(self) -> ComposeResult:
        yield from self.words()
        yield DataTable[Any](cursor_type="cell", cell_padding=0, fixed_columns=1)
        yield Static("", id="cell", markup=False)

    def pages(self, found: Measured) -> list[str]:
        return ["Corruptions"] if found.corruptions is not None else []

    def fill(self, found: Measured, page: int = 0) -> None:
        if found.corruptions is None:
            return
        self._map = found.corruptions
        count = len(self._map.cells)
        self.say(found, f"{count} cell{'s' if count > 1 else ''} so far; means over corruptions come at the end.")
        self._fill_table()

    def _fill_table(self) -> None:
        found, table = self._map, self.query_one(DataTable)
        errors = {kind: figures.format_accuracy(found.ce_of(kind)) for kind in found.kinds}
        columns = {
            "kind": "accuracy in %, under",
            **{str(severity): f"{severity}" for severity in found.severities},
            "mean": "mean",
            **({"CE": "CE"} if any(errors.values()) else {}),
        }
        if [key.value for key in table.columns] != list(columns):
            table.clear(columns=True)
            for key, title in columns.items():
                table.add_column(Text(title if key == "kind" else f"{title} ", justify="right"), key=key)
        rows = {}
        for kind in found.kinds:
            cells = [found.cells.get((kind, severity)) for severity in found.severities]
            accuracies = [None if cell is None else cell.accuracy for cell in cells]
            drawn = [coloured(accuracy, bare=True) for accuracy in (*accuracies, found.mean_of(kind))]
            for cell in drawn:
                cell.justify = "right"
            name = Text(f"{title_of(kind)} ", no_wrap=True)
            rows[kind] = [name, *drawn, *([Text(f" {errors[kind]}", justify="right")] if "CE" in columns else [])]
        bring_up_to_date(table, rows)
        self._describe()

    @on(DataTable.CellHighlighted)
    def _describe(self) -> None:
        """Writes what stands in the cell at the cursor, with its interval and the reference network's figure."""
        found, table = self._map, self.query_one(DataTable)
        row, column = table.cursor_coordinate
        kinds, severities = found.kinds, found.severities
        if row >= len(kinds):
            return
        kind = kinds[row]
        cell = found.cells.get((kind, severities[column - 1])) if 1 <= column <= len(severities) else None
        if cell is None:
            words = [f"{title_of(kind)}, mean over severities: {figures.format_accuracy(found.mean_of(kind))}"]
            if error := figures.format_accuracy(found.ce_of(kind)):
                words.append(f"errors {error} of those of {found.reference or 'the reference network'}")
        else:
            words = [
                f"{title_of(kind)}, severity {cell.severity}: {figures.format_accuracy(cell.accuracy)}"
                f" ({figures.format_interval(cell.interval)} %)"
            ]
            if cell.reference is not None:
                other = found.reference or "reference network"
                words.append(f"{other} {figures.format_accuracy(cell.reference)}")
        self.query_one("#cell", Static).update(", ".join(words))
