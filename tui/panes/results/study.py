"""The study's table, with the published figures beside."""

from __future__ import annotations

from typing import Any

from rich.text import Text
from textual.app import ComposeResult
from textual.widgets import DataTable, Static

from kerasrobust.show import figures
from tui.panes.results.pane import ResultPane
from tui.read.measured import Measured
from tui.widgets.words import budget_text

_COLUMNS = ("network", "attack", "epsilon", "EOT", "acc.", "95 %", "dist.", "publ.")


class StudyPane(ResultPane):
    """One row for each network and attack of a study."""

    DEFAULT_CSS = """
    StudyPane > DataTable { height: 1fr; }
    StudyPane > Static { height: auto; padding: 0 1; }
    """

    def compose(self) -> ComposeResult:
        yield Static("", markup=False, classes="dim")
        table: DataTable[Any] = DataTable(cursor_type="row", zebra_stripes=True, cell_padding=0)
        table.add_columns(*(f"{name} " for name in _COLUMNS))
        yield table

    def pages(self, found: Measured) -> list[str]:
        return ["Study"] if found.rows and not found.is_assessment else []

    def fill(self, found: Measured, page: int = 0) -> None:
        note = "Synthetic data: not real images; the published figures are of CIFAR-10." if found.synthetic else ""
        self.query_one(Static).update(note)
        table = self.query_one(DataTable)
        table.clear()
        for name, group in figures.by_network(found.rows).items():
            for index, row in enumerate(group):
                # The name once, as in print; the clean row is the group's first.
                attack = figures.with_noise(figures.attack_name(row.attack or "clean"), row.noise)
                left = (name if index == 0 else "", attack, budget_text(row.epsilon, row.norm))
                right = (
                    str(row.eot or ""),
                    figures.format_accuracy(row.accuracy),
                    figures.format_interval(row.interval),
                    figures.format_distance(row.median_distance, row.norm),
                    figures.format_published(row.published),
                )
                table.add_row(
                    *(Text(f"{cell} ", style="" if row.attack else "bold") for cell in left),
                    *(Text(f"{cell} ", justify="right") for cell in right),
                )
