"""The attacks of a run, live: a table, and how many examples survive over time."""

from __future__ import annotations

from typing import Any, ClassVar

from rich.text import Text
from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.events import Resize
from textual.widgets import DataTable, Static

from kerasrobust.show import figures
from tui.read.state import AttackLine, RunState
from tui.widgets.chart import Chart, Curve
from tui.widgets.layout import ATTACKS
from tui.widgets.table import copy
from tui.widgets.words import budget_text, left_text, state_text

_WIDTHS = {
    "of": 18,
    "attack": 18,
    "survivors": 13,
    "robust": 7,
    "95 %": 9,
    "distance": 8,
    "gradients": 10,
    "time": 7,
    "left": 11,
}
"""Columns and their widths, which stay whatever comes."""

_NARROW = {"of": 18, "attack": 18, "survivors": 9, "robust": 6, "95 %": 9, "time": 6}
"""The same where there are 80 columns."""


class AttacksPane(Vertical):
    """One row for each attack; below, the survivors of the one at the cursor over time."""

    DEFAULT_CSS = """
    AttacksPane > DataTable { height: auto; max-height: 50%; }
    AttacksPane > Static { height: 1; padding: 0 1; text-wrap: nowrap; text-overflow: ellipsis; }
    AttacksPane > Chart { height: 1fr; min-height: 7; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("y", "copy", "Copy", id="copy-attacks", tooltip="Copy the table, cells separated by tabs"),
        Binding("f", "follow", "Follow", id="follow-attack", tooltip="Keep the cursor on the attack at work, or not"),
    ]

    def __init__(self) -> None:
        super().__init__()
        self._lines: list[AttackLine] = []
        self._model = ""
        self._filled: dict[str, AttackLine] = {}
        self._follow = True

    def compose(self) -> ComposeResult:
        yield DataTable[Any](cursor_type="row")
        yield Static("No attack yet.", classes="dim", markup=False)
        yield Chart("survivors", percent=True, x_name="second", bounds=(0.0, 1.0))

    def on_resize(self, event: Resize) -> None:
        widths = _WIDTHS if event.size.width >= ATTACKS else _NARROW
        table = self.query_one(DataTable)
        if [key.value for key in table.columns] != list(widths):
            table.clear(columns=True)
            for name, width in widths.items():
                table.add_column(name, width=width, key=name)
            self._fill()

    def show(self, state: RunState) -> None:
        self._lines = state.attacks
        self._model = str(state.started.config.get("model", "")) if state.started is not None else ""
        self._fill()

    def _fill(self) -> None:
        table = self.query_one(DataTable)
        names = [str(key.value) for key in table.columns]
        if not names:
            return
        # A resumed run has dropped some attacks; the rows of the others are brought up to date.
        table_rows = [row.key.value for row in table.ordered_rows]
        keys = [f"{place} {line.stage} {line.began}" for place, line in enumerate(self._lines)]
        if keys[: len(table_rows)] != table_rows:
            table.clear()
            table_rows = []
        for place, (line, key) in enumerate(zip(self._lines, keys, strict=True)):
            if place < len(table_rows) and self._filled.get(key) == line:
                continue
            self._filled[key] = line
            cells = _cells(line, self._of(line))
            if place >= len(table_rows):
                table.add_row(*(cells[name] for name in names), key=key)
                continue
            for name in names:
                if table.get_cell(key, name) != cells[name]:
                    table.update_cell(key, name, cells[name])
        running = [place for place, line in enumerate(self._lines) if line.status == "running"]
        if self._follow and running:
            table.move_cursor(row=running[-1], animate=False)
        self._show_curve()

    def _of(self, line: AttackLine) -> str:
        """Returns the network that is attacked: a study's stages are named after theirs."""
        return line.stage.removeprefix("attack-") if line.stage.startswith("attack-") else self._model

    def _at_cursor(self) -> AttackLine | None:
        row = self.query_one(DataTable).cursor_row
        return self._lines[row] if 0 <= row < len(self._lines) else None

    @on(DataTable.RowHighlighted)
    def _show_curve(self) -> None:
        line = self._at_cursor()
        if line is None:
            return
        budget = figures.format_budget(line.epsilon, line.norm)
        words = [
            f"{self._of(line)} under {figures.attack_name(line.attack)} {budget}".strip(),
            f"{line.gradients:,} gradients",
            f"{line.forwards:,} forward passes",
            f"step {line.step}/{line.steps}" if line.status == "running" and line.steps else "",
            left_text(line.seconds_left) if line.status == "running" else "",
            ", ".join(f"{key} {value}" for key, value in line.settings.items() if key in ("steps", "eot", "restarts")),
        ]
        self.query_one(Static).update("  ".join(word for word in words if word))
        # A quick attack reports only once, and one point makes no line.
        sign = "●" if len(line.curve.xs) < 3 else ""
        curve = Curve("survivors", line.curve.xs, line.curve.ys, "warning", sign, joined=True)
        self.query_one(Chart).show([curve])

    def action_copy(self) -> None:
        copy(self.query_one(DataTable))

    def action_follow(self) -> None:
        self._follow = not self._follow
        self.app.notify("The cursor follows the attack at work." if self._follow else "The cursor stays where it is.")


def _cells(line: AttackLine, of: str) -> dict[str, Text]:
    survivors = line.survivors if line.survivors is not None and line.robust_accuracy is None else None
    eot = line.settings.get("eot")
    name = f"{figures.attack_name(line.attack)} {budget_text(line.epsilon, line.norm)}".strip()
    minimum = line.epsilon is None and not figures.is_no_ball(line.norm)
    words = {
        "gradients": f"{line.gradients:,}",
        "survivors": f"{survivors:,}/{line.total:,}" if survivors is not None else "",
        "robust": "" if minimum else figures.format_accuracy(line.robust_accuracy),
        "95 %": "" if minimum else figures.format_interval(line.interval),
        "distance": figures.format_distance(line.median_distance, line.norm) if minimum else "",
        "time": figures.format_seconds(line.seconds),
        "left": left_text(line.seconds_left) if line.status == "running" else "",
    }
    right = {key: Text(word, justify="right") for key, word in words.items()}
    running = "bold" if line.status == "running" else ""
    return right | {
        "of": Text(of, style=running, no_wrap=True, overflow="ellipsis"),
        "attack": Text(
            f"{state_text(line.status).plain[0]} {name}{f' EOT {eot}' if isinstance(eot, int) and eot > 1 else ''}",
            style=running,
        ),
    }
