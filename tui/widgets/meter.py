"""A figure that changes with time: its name, its value, and a bar for each moment."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import ClassVar

from rich.text import Text
from textual.widget import Widget

LABEL_WIDTH = 13
VALUE_WIDTH = 20
BLOCKS = " ▁▂▃▄▅▆▇█"


def bars(values: Sequence[float | None], top: float, width: int, height: int) -> list[str]:
    """Returns `height` lines of block characters, one column for each of the last `width` values.

    The newest is at the right. A value of `top` fills the height; 0 is the lowest bar, an unknown value nothing.

    Example:
        >>> bars([0, None, 50, 100], top=100, width=6, height=1)
        ['  ▁ ▄█']
    """
    steps = len(BLOCKS) - 1
    shown = values[-width:] if width > 0 else ()
    levels = [
        0 if value is None else min(height * steps, max(1, round(height * steps * value / top))) for value in shown
    ]
    lines = []
    for line in reversed(range(height)):
        drawn = "".join(BLOCKS[min(steps, max(0, level - line * steps))] for level in levels)
        lines.append(drawn.rjust(width))
    return lines


def squeezed(values: Sequence[float | None], width: int) -> list[float | None]:
    """Returns `width` values that stand for all: each the mean of its part of them.

    Example:
        >>> squeezed([0.0, 1.0, None, 4.0, 6.0, None], 3), squeezed([1.0, 2.0], 4)
        ([0.5, 4.0, 6.0], [1.0, 1.0, 2.0, 2.0])
    """
    found: list[float | None] = []
    for column in range(width if values else 0):
        first = column * len(values) // width
        known = [
            value for value in values[first : max(first + 1, (column + 1) * len(values) // width)] if value is not None
        ]
        found.append(fmean(known) if known else None)
    return found


class Meter(Widget):
    """One figure with its history, in as many lines as its style says."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {"meter--bar"}
    DEFAULT_CSS = """
    Meter { height: 1; }
    Meter > .meter--bar { color: $text-primary; }
    """

    def __init__(self, label: str) -> None:
        super().__init__()
        self.label = label
        self._value = ""
        self._history: Sequence[float | None] = ()
        self._top = 1.0
        self._whole = False

    def show(self, value: str, history: Sequence[float | None], top: float, *, whole: bool = False) -> None:
        """Shows a value in words, and what it has been, on a scale from 0 to `top`: its end, or all of it."""
        self._value, self._history, self._top, self._whole = value, history, top, whole
        self.refresh()

    def render(self) -> Text:
        width, height = self.size
        bar = self.get_component_rich_style("meter--bar", partial=True)
        text = Text(no_wrap=True)
        room = max(0, width - LABEL_WIDTH - VALUE_WIDTH)
        history = squeezed(self._history, room) if self._whole else self._history
        lines = bars(history, self._top, room, height)
        for number, line in enumerate(lines):
            first = number == 0
            text.append((self.label if first else "").ljust(LABEL_WIDTH))
            text.append((self._value if first else "").ljust(VALUE_WIDTH))
            text.append(line + "\n" * (number < height - 1), bar)
        return text
