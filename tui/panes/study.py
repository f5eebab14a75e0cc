"""The study's table, with the published figures beside."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.widgets import DataTable, Static

from kerasrobust import events
from kerasrobust.entries import Row
from kerasrobust.show import figures
from kerasrobust.show.narrate import is_synthetic
from tui.read.state import RunState
from tui.widgets.table import copy
from tui.widgets.words import budget_text

_COLUMNS = ("network", "attack", "epsilon", "EOT", "acc.", "95 %", "dist.", "publ.")


class StudyPane(Vertical):
    """One row for each network and attack of a study."""

    DEFAULT_CSS = """
    StudyPane > DataTable { height: 1fr; }
    StudyPane > Static { height: auto; padding: 0 1; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("y", "copy", "Copy", id="copy-study", tooltip="Copy the table, cells separated by tabs"),
    ]

    def __init__(self) -> None:
        super().__init__()
        self._shown: list[events.Row] | None = None

    def compose(self) -> ComposeResult:
        yield Static("", markup=False, classes="dim")
        table: DataTable[Any] = DataTable(cursor_type="row", zebra_stripes=True, cell_padding=0)
        table.add_columns(*(f"{name} " for name in _COLUMNS))
        yield table

    def show(self, state: RunState) -> None:
        if state.rows == self._shown:
            return
        self._shown = state.rows
        synthetic = state.started is not None and is_synthetic(state.started.config, state.started.kind)
        self.fill([Row.parse(vars(row)) for row in state.rows], synthetic=synthetic)

    def fill(self, rows: Sequence[Row], *, synthetic: bool) -> None:
        note = "Synthetic data: not real images; the published figures are of CIFAR-10." if synthetic else ""
        self.query_one(Static).update(note if rows else "No rows yet: a study has one for each network and attack.")
        table = self.query_one(DataTable)
        table.clear()
        for name, group in figures.by_network(rows).items():
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

    def action_copy(self) -> None:
        copy(self.query_one(DataTable))
