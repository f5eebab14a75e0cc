"""Accuracy under corruptions as a heat map: a table for the console, SVG for the report. No TensorFlow here."""

from __future__ import annotations

from html import escape

from rich.style import Style
from rich.table import Table
from rich.text import Text

from kerasrobust.show import figures
from kerasrobust.show.corrupted import Cell, CorruptionMap, title_of
from kerasrobust.show.tables import make_table

_LEFT, _TOP, _WIDTH, _HEIGHT = 132, 24, 58, 22
_MIDDLE, _DARK = 0.6, 0.85
"""The accuracies from which a figure is light on a cell in dark colours, and in light ones."""
_BLUE = (0, 114, 178)


def heat_table(found: CorruptionMap, *, synthetic: bool) -> Table:
    """Returns the table of accuracies by corruption and severity, the background the darker the higher.

    The intervals stand in the lines that came before, and in the report. CE is the corruption error, where there is a
    reference network. It fits 80 columns.

    Example:
        >>> heat_table(CorruptionMap.of([Cell(kind="fog", severity=1, accuracy=0.9)]), synthetic=False).row_count
        1
    """
    table = make_table(synthetic)
    table.add_column("accuracy under", no_wrap=True)
    for severity in found.severities:
        table.add_column(
            f"severity\n{severity}" if severity == found.severities[0] else f"\n{severity}", justify="right"
        )
    table.add_column("mean", justify="right", no_wrap=True)
    errors = {kind: figures.format_accuracy(found.ce_of(kind)) for kind in found.kinds}
    if any(errors.values()):
        table.add_column("CE", justify="right", no_wrap=True)
    for kind in found.kinds:
        cells = [found.cells.get((kind, severity)) for severity in found.severities]
        table.add_row(
            title_of(kind),
            *(coloured(None if cell is None else cell.accuracy) for cell in cells),
            coloured(found.mean_of(kind)),
            *([f" {errors[kind]}"] if any(errors.values()) else []),
        )
    return table


def coloured(accuracy: float | None, *, bare: bool = False) -> Text:
    """Returns an accuracy on a background between white and blue, `bare` without the sign; nothing for None.

    Example:
        >>> coloured(0.5).plain, coloured(0.5, bare=True).plain
        (' 50.0 % ', ' 50.0 ')
    """
    if accuracy is None:
        return Text("")
    written = figures.format_accuracy(accuracy)
    written = written.removesuffix(" %") if bare else written
    share = min(max(accuracy, 0.0), 1.0)  # A file may hold anything.
    red, green, blue = (round(255 + (end - 255) * share) for end in _BLUE)
    ink = "white" if accuracy > _DARK else "black"
    # A space on both sides, as the columns touch each other.
    return Text(f" {written} ", Style.parse(f"{ink} on rgb({red},{green},{blue})"))


def draw_heat(found: CorruptionMap) -> str:
    """Returns the heat map as an SVG element that takes its colours from the page's style sheet."""
    severities = found.severities
    width, height = _LEFT + _WIDTH * (len(severities) + 1) + 10, _TOP + _HEIGHT * len(found.kinds) + 2
    parts = []
    for column, words in enumerate([*map(str, severities), "mean"]):
        parts.append(
            f'<text x="{_across(column, severities) + _WIDTH / 2:g}" y="15" text-anchor="middle">{words}</text>'
        )
    for row, kind in enumerate(found.kinds):
        down = _TOP + _HEIGHT * row
        parts.append(f'<text x="{_LEFT - 8}" y="{down + 15}" text-anchor="end">{escape(title_of(kind))}</text>')
        for column, severity in enumerate(severities):
            if (cell := found.cells.get((kind, severity))) is not None:
                parts.append(_drawn(cell, _across(column, severities), down))
        mean = Cell(kind=kind, severity=0, accuracy=found.mean_of(kind))
        parts.append(_drawn(mean, _across(len(severities), severities), down))
    name = "Accuracy under corruptions, by severity"
    return f'<svg class="heat" viewBox="0 0 {width:g} {height}" role="img" aria-label="{name}">{"".join(parts)}</svg>'


def _across(column: int, severities: tuple[int, ...]) -> float:
    # The mean stands apart.
    return _LEFT + _WIDTH * column + (8 if column == len(severities) else 0)


def _drawn(cell: Cell, across: float, down: float) -> str:
    interval = figures.format_interval(cell.interval)
    where = f"severity {cell.severity}" if cell.severity else "mean over severities"
    accuracy = figures.format_accuracy(cell.accuracy)
    title = f"{title_of(cell.kind)}, {where}: {accuracy}{f' ({interval})' if interval else ''}"
    ink = ' class="dark"' if cell.accuracy > _DARK else ' class="middle"' if cell.accuracy > _MIDDLE else ""
    return (
        f"<g><title>{escape(title)}</title>"
        f'<rect x="{across:g}" y="{down}" width="{_WIDTH - 2}" height="{_HEIGHT - 2}"/>'
        f'<rect class="warm" x="{across:g}" y="{down}" width="{_WIDTH - 2}" height="{_HEIGHT - 2}" '
        f'fill-opacity="{cell.accuracy:.3f}"/>'
        f'<text{ink} x="{across + _WIDTH / 2 - 1:g}" y="{down + 14.5:g}" text-anchor="middle">'
        f"{accuracy.removesuffix(' %')}</text></g>"
    )
