"""What the images of each class are taken for, as a heat map in SVG. No TensorFlow here."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape

from kerasrobust.records import Result
from kerasrobust.show import figures

MOST = 20
"""Classes that a map is drawn of, at most."""
_CELL, _TOP = 30, 10
_LETTER = 6.6
"""Width of a letter of a name."""
_LONGEST = 18
"""Letters of a name that are drawn."""
_MIDDLE, _DARK = 0.6, 0.85
"""Shares from which a figure is light on a cell in dark colours, and in light ones."""


def confusion_maps(result: Result) -> Iterator[tuple[str, str]]:
    """Yields the title of each map of a result, and the map as an SVG element; none of more than 20 classes."""
    names = [entry.name for entry in result.by_class]
    for title, counts in (
        ("Unchanged images", result.confusion),
        ("Under attack", result.confusion_under_attack),
    ):
        if counts and len(counts) == len(names) <= MOST:
            yield title, draw_confusion(names, counts)


def draw_confusion(names: Sequence[str], counts: Sequence[Sequence[int]]) -> str:
    """Returns a map of true classes (rows) and predicted classes (columns), in colours of the page's style sheet.

    Cells are shares of their row in %; those below half a percent stay empty. What a cell counts shows when the pointer
    rests on it.

    Args:
        names: those of K classes.
        counts: images by true and predicted class, K x K.
    """
    short = [name if len(name) <= _LONGEST else f"{name[: _LONGEST - 1]}\N{HORIZONTAL ELLIPSIS}" for name in names]
    left = 14 + _LETTER * max(map(len, short))
    below = _TOP + _CELL * len(names)
    # Names of columns are turned by 45 degrees.
    width, height = left + _CELL * len(names) + 8, below + 16 + 0.72 * _LETTER * max(map(len, short))
    parts = []
    for row, (name, line) in enumerate(zip(names, counts, strict=True)):
        down, total = _TOP + _CELL * row, sum(line)
        parts.append(f'<text x="{left - 8:g}" y="{down + 19}" text-anchor="end">{escape(short[row])}</text>')
        for column, count in enumerate(line):
            share = count / total if total else 0.0
            title = f"{name} taken for {names[column]}: {figures.format_count(count, 'image')} of {total:,}"
            parts.append(_cell(left + _CELL * column, down, share, title))
    for column, name in enumerate(short):
        across = left + _CELL * column + _CELL / 2 + 4
        parts.append(
            f'<text x="{across:g}" y="{below + 12}" text-anchor="end" '
            f'transform="rotate(-45 {across:g} {below + 12})">{escape(name)}</text>'
        )
    label = "True classes by predicted classes"
    box = f"0 0 {width:.0f} {height:.0f}"
    return f'<svg class="heat" viewBox="{box}" role="img" aria-label="{label}">{"".join(parts)}</svg>'


def _cell(across: float, down: int, share: float, title: str) -> str:
    written = f"{100 * share:.0f}" if share >= 0.005 else ""
    ink = ' class="dark"' if share > _DARK else ' class="middle"' if share > _MIDDLE else ""
    size = f'width="{_CELL - 2}" height="{_CELL - 2}"'
    return (
        f"<g><title>{escape(title)}</title>"
        f'<rect x="{across:g}" y="{down}" {size}/>'
        f'<rect class="warm" x="{across:g}" y="{down}" {size} fill-opacity="{share:.3f}"/>'
        f'<text{ink} x="{across + _CELL / 2 - 1:g}" y="{down + 18}" text-anchor="middle">{written}</text></g>'
    )
