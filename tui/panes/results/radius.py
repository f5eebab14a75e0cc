"""Accuracy over the radius: what is certified, and what attacks for the nearest example have left."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.text import Text
from textual.app import ComposeResult
from textual.widgets import DataTable

from kerasrobust.show import figures
from kerasrobust.show.charts import Line, Panel, certified_panels, curve_panels
from tui.panes.results.pane import ResultPane
from tui.read.measured import Measured
from tui.widgets.chart import COLOURS, SIGNS, Chart, Curve

_ROWS = 12
"""Points of a curve that its table has, about."""


class RadiusPane(ResultPane):
    """A chart with its figures below; a subclass says which."""

    DEFAULT_CSS = """
    RadiusPane > Chart { height: 3fr; min-height: 8; }
    RadiusPane > DataTable { height: 2fr; }
    """

    def compose(self) -> ComposeResult:
        yield from self.words()
        yield Chart("accuracy", percent=True, bounds=(0.0, 1.0))
        yield DataTable[Any](cursor_type="row", zebra_stripes=True)

    def draw(self, found: Measured, panel: Panel | None, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Shows the curves of a panel, or none, and a table of strings."""
        self.say(found)
        chart, table = self.query_one(Chart), self.query_one(DataTable)
        chart.display = panel is not None
        if panel is not None:
            # A grey level is what people count in Linf.
            scale = 255 if panel.norm == "linf" and panel.over != "queries" else 1
            chart.x_name = f"{panel.over}{' x 255' if scale > 1 else ''}"
            alone = len(panel.lines) == 1
            curves = [_curve(line, place, scale) for place, line in enumerate(panel.lines)]
            chart.show([*(_bounds(panel.lines[0], scale) if alone else []), *curves])
        table.clear(columns=True)
        table.add_columns(*(Text(title, justify="right") for title in header))
        for row in rows:
            table.add_row(*(Text(cell, justify="right") for cell in row))


class CertifiedPane(RadiusPane):
    """Certified accuracy over the radius, by randomized smoothing, and its points."""

    def pages(self, found: Measured) -> list[str]:
        return ["Certified accuracy"] if found.certificate is not None else []

    def fill(self, found: Measured, page: int = 0) -> None:
        if (certificate := found.certificate) is None:
            return
        header = (f"{figures.format_norm(certificate.norm)} radius", "certified", "95 %")
        rows = [
            (f"{radius:.4g}", figures.format_accuracy(accuracy), figures.format_interval(interval))
            for radius, accuracy, *interval in certificate.points
        ]
        self.draw(found, next(iter(certified_panels(certificate)), None), header, rows)


class CurvesOverPane(RadiusPane):
    """Accuracy over epsilon in one norm, or over the queries of black boxes, a page each."""

    def pages(self, found: Measured) -> list[str]:
        return [f"Accuracy over {_axis(panel)}" for panel in curve_panels(found.curves)]

    def fill(self, found: Measured, page: int = 0) -> None:
        panel = curve_panels(found.curves)[page]
        rows = []
        for line in panel.lines:
            step = max(1, len(line.points) // _ROWS)
            for number, point in enumerate(line.points[::step]):
                counted = panel.over == "queries"
                rows.append((
                    line.label if number == 0 else "",
                    f"{point.at:,.0f}" if counted else figures.format_distance(point.at, panel.norm),
                    figures.format_accuracy(point.accuracy),
                    figures.format_interval(point.interval),
                ))  # fmt: skip
        self.draw(found, panel, ("", _axis(panel), "accuracy", "95 %"), rows)


def _axis(panel: Panel) -> str:
    return f"{panel.over} {figures.format_norm(panel.norm)}".strip()


def _curve(line: Line, place: int, scale: float) -> Curve:
    xs = [point.at * scale for point in line.points]
    # One or two points make no line.
    sign = SIGNS[place % len(SIGNS)] if len(xs) < 3 else ""
    accuracies = [point.accuracy for point in line.points]
    return Curve(line.label, xs, accuracies, COLOURS[place % len(COLOURS)], sign, joined=True)


def _bounds(line: Line, scale: float) -> list[Curve]:
    """Returns the ends of the intervals as two curves."""
    known = [(point.at * scale, *point.interval) for point in line.points if point.interval is not None]
    if not known:
        return []
    xs, low, high = zip(*known, strict=True)
    return [Curve("95 % from", xs, low, "foreground"), Curve("to", xs, high, "foreground")]
