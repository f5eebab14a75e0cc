"""A figure that changes with time: its name, its value, and a bar for each moment."""

from __future__ import annotations

from collections.abc import Sequence
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

    def show(self, value: str, history: Sequence[float | None], top: float) -> None:
        """Shows a value in words, and what it has been, on a scale from 0 to `top`."""
        self._value, self._history, self._top = value, history, top
        self.refresh()

    def render(self) -> Text:
        width, height = self.size
        bar = self.get_component_rich_style("meter--bar", partial=True)
        text = Text(no_wrap=True)
        lines = bars(self._history, self._top, width - LABEL_WIDTH - VALUE_WIDTH, height)
        for number, line in enumerate(lines):
            first = number == 0
            text.append((self.label if first else "").ljust(LABEL_WIDTH))
            text.append((self._value if first else "").ljust(VALUE_WIDTH))
            text.append(line + "\n" * (number < height - 1), bar)
        return text
