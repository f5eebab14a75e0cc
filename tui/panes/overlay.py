"""Accuracy over epsilon of several runs or models in one chart, and the same as a table."""

from __future__ import annotations

from typing import Any

from rich.text import Text
from textual.app import ComposeResult
from textual.widgets import DataTable, Static

from kerasrobust.show.figures import attack_name, format_accuracy, format_epsilon, format_norm
from tui.panes.side_by_side import PagedPane, synthetic_note
from tui.read.subject import Overlay, Subject, overlaid
from tui.widgets.chart import COLOURS, SIGNS, Chart, Curve

_SIGNS = SIGNS + "○△□◇☆▽ABCDEFGHIJKLMNOPQRSTUVWXYZ"


class OverlayPane(PagedPane):
    """One attack at a time: the curves with signs, and below whose sign it is, with the accuracies."""

    DEFAULT_CSS = """
    OverlayPane > .next { height: auto; padding: 0 1; }
    OverlayPane > .note { height: auto; padding: 0 1; }
    OverlayPane > Chart { height: 3fr; min-height: 8; }
    OverlayPane > DataTable { height: 2fr; }
    """

    def compose(self) -> ComposeResult:
        yield Static("", markup=False, classes="next")
        yield Static("", markup=False, classes="note dim")
        yield Chart("accuracy", percent=True, bounds=(0.0, 1.0))
        yield DataTable[Any](cursor_type="row", zebra_stripes=True, cell_padding=0)

    def show(self, subjects: list[Subject]) -> None:
        """Shows the curves; the attack stays where it is there again."""
        if subjects != self._subjects:
            before = self._pages[self._at : self._at + 1]
            self._pages = overlaid(subjects)
            keys = [(overlay.attack, overlay.norm) for overlay in self._pages]
            self._at = next((keys.index(key) for old in before if (key := (old.attack, old.norm)) in keys), 0)
        super().show(subjects)

    def _fill(self) -> None:
        line, chart, table = self.query_one(".next", Static), self.query_one(Chart), self.table
        note = self.query_one(".note", Static)
        notes = [synthetic_note(self._subjects)]
        if len({subject.data for subject in self._subjects}) > 1:
            on = ", ".join(f"{subject.title} on {subject.data or 'unknown data'}" for subject in self._subjects)
            notes.append(f"Not the same data: {on}.")
        note.update("\n".join(filter(None, notes)))
        note.display = any(notes)
        chart.display = table.display = bool(self._pages)
        if not self._pages:
            line.update("Nothing to draw: none of those chosen was measured at an epsilon.")
            return
        overlay = self._pages[self._at]
        levels = overlay.norm == "linf"
        text = Text(f"{attack_name(overlay.attack)} {format_norm(overlay.norm)}".strip(), "bold")
        text.append(f": accuracy over epsilon{' in 1/255' if levels else ''}", "not bold")
        text.append(self._which(), "not bold")
        line.update(text)
        chart.x_name = "epsilon x 255" if levels else "epsilon"
        chart.show([
            Curve(
                # The names stand in the table below, as they don't fit into the line above.
                label="",
                xs=[point.at * (255 if levels else 1) for point in trace.points],
                ys=[point.accuracy for point in trace.points],
                colour=COLOURS[place % len(COLOURS)],
                sign=_SIGNS[place % len(_SIGNS)],
                joined=trace.joined,
            )
            for place, trace in reversed([*enumerate(overlay.traces)])
        ])  # fmt: skip
        chart.action_cursor(0)
        chart.action_whole()
        self._fill_table(overlay)

    def _fill_table(self, overlay: Overlay) -> None:
        # Radii may have passed through float32: those that are written alike are one column.
        written = {format_epsilon(point.at): point.at for trace in overlay.traces for point in trace.points}
        columns = sorted(written, key=lambda name: written[name])
        table = self.table
        table.clear(columns=True)
        table.add_columns("", "of ", *(f"{'clean' if written[name] == 0 else name} " for name in columns))
        for place, trace in enumerate(overlay.traces):
            colour = self.query_one(Chart).colour(COLOURS[place % len(COLOURS)])
            accuracies = {format_epsilon(point.at): format_accuracy(point.accuracy) for point in trace.points}
            table.add_row(
                Text(f"{_SIGNS[place % len(_SIGNS)]} ", colour),
                Text(f"{trace.label} ", no_wrap=True),
                *(Text(f"{accuracies.get(name, '')} ", justify="right") for name in columns),
            )
