"""One model under several threats and their worst case, a row each."""

from __future__ import annotations

from typing import Any

from rich.text import Text
from textual.app import ComposeResult
from textual.containers import VerticalScroll
from textual.events import Resize
from textual.widgets import DataTable, Static

from kerasrobust.entries import Row
from kerasrobust.show import figures
from kerasrobust.show.tables import SYNTHETIC
from tui.panes.results.pane import ResultPane
from tui.read.measured import Measured
from tui.widgets.layout import FULL
from tui.widgets.table import bring_up_to_date
from tui.widgets.words import bar_text

_COLUMNS = ("attack", "threat", "acc.", "95 %", "images")
_BAR = 30


class ThreatsPane(ResultPane):
    """Accuracy under each threat with its interval and number of images; below, the summary and what was left out."""

    DEFAULT_CSS = """
    ThreatsPane > DataTable { height: auto; max-height: 70%; }
    ThreatsPane > VerticalScroll { height: 1fr; min-height: 3; border-top: solid $panel; padding: 0 1; }
    ThreatsPane > VerticalScroll > Static { height: auto; }
    """

    def __init__(self) -> None:
        super().__init__()
        self._found = Measured()

    def compose(self) -> ComposeResult:
        yield DataTable[Any](cursor_type="row", zebra_stripes=True)
        with VerticalScroll():
            yield Static("", markup=False)

    def on_resize(self, event: Resize) -> None:
        names = [*_COLUMNS, ""] if event.size.width >= FULL else _COLUMNS
        table = self.query_one(DataTable)
        if [key.value for key in table.columns] != list(names):
            table.clear(columns=True)
            for name in names:
                table.add_column(name, key=name)
            self._fill()

    def pages(self, found: Measured) -> list[str]:
        return ["Threats"] if found.is_assessment else []

    def fill(self, found: Measured, page: int = 0) -> None:
        self._found = found
        self._fill()

    def _fill(self) -> None:
        found, table = self._found, self.query_one(DataTable)
        wide = "" in table.columns
        if table.columns:
            several = len({row.network for row in found.rows}) > 1
            lines: dict[str, list[Text]] = {}
            for place, row in enumerate(found.rows):
                if several and row.attack is None:  # With which each network's rows begin.
                    name = Text(row.network, style="bold", no_wrap=True)
                    lines[row.network] = [name, *(Text() for _ in range(len(table.columns) - 1))]
                lines[f"{place} {row.attack}"] = _cells(row, wide=wide)
            bring_up_to_date(table, lines)
        words = [SYNTHETIC if found.synthetic else "", found.summary]
        words += ["Not looked at:", *(f"· {reason}" for reason in found.left_out)] if found.left_out else []
        self.query_one(Static).update("\n".join(filter(None, words)))


def _cells(row: Row, *, wide: bool) -> list[Text]:
    # What everything is measured by, and what it comes to.
    style = "bold" if row.attack in (None, "union") else ""
    left = (figures.attack_name(row.attack or "clean"), figures.format_budget(row.epsilon, row.norm))
    right = (
        figures.format_accuracy(row.accuracy),
        figures.format_interval(row.interval),
        "" if row.examples is None else f"{row.examples:,}",
    )
    return [
        *(Text(word, style=style, no_wrap=True) for word in left),
        *(Text(word, style=style, justify="right") for word in right),
        *([Text(bar_text(row.accuracy, _BAR)[:_BAR])] if wide else []),
    ]
