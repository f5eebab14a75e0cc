"""Tables as wide as they need to be, and where there is less room broken at words. No TensorFlow here."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator, Sequence
from copy import copy

from rich.cells import cell_len, chop_cells
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.measure import Measurement
from rich.table import Column, Table
from rich.text import Text

UNBOUNDED = 10_000
"""Columns of what is no terminal."""

_BREAKS = re.compile(
    r"(?<=\s)(?=\S)"
    # Of a path or a name; but 8/255, 0.5 and a date are words of their own.
    r"|(?<=[/.-])(?<!\d[/.-])(?=[^\s/.-])"
    r"|(?<=\d[/.-])(?=[^\s\d/.-])"
)
_FEW = 4
"""To so many characters a column is narrowed at most where words have to break."""


def make_console() -> Console:
    """Returns the console of standard output, of the terminal's width or that of the environment's COLUMNS.

    What is neither has no edge: a program that reads lines, or an editor, can't put words together again.
    """
    terminal = sys.stdout.isatty()
    bounded = terminal or os.environ.get("COLUMNS", "").isdigit()
    # Whether it is a terminal is said, as rich takes FORCE_COLOR for one, and a log would fill up with bars.
    return Console(force_terminal=terminal, width=None if bounded else UNBOUNDED, highlight=False)


def print_words(console: Console, words: Text) -> None:
    """Prints a line: on a terminal broken between words, indented as its beginning is; elsewhere as it is."""
    indent = len(words.plain) - len(words.plain.lstrip(" "))
    if console.is_terminal and console.width > 2 * indent:
        lines = [
            part
            for line in words[indent:].split("\n", allow_blank=True)
            for part in line.divide(_turns(line.plain, console.width - indent))
        ]
        for line in lines:
            line.rstrip()
        words = Text("\n").join(Text.assemble(" " * indent, line) for line in lines)
    console.print(words, soft_wrap=True, highlight=False)


def _turns(line: str, width: int) -> Iterator[int]:
    """Yields where a line is broken. A word that is longer stays one, as a path is to be copied in one piece."""
    begin = 0
    for word in re.finditer(r"\S+", line):
        if word.start() > begin and cell_len(line[begin : word.end()]) > width:
            begin = word.start()
            yield begin


class FittingTable(Table):
    """A table without the columns that are empty in all of its lines, fitted to where it is printed.

    Where its lines are too long the widest columns are broken: at spaces, hyphens, slashes and dots, and inside a word
    only where that isn't enough. Texts are taken literally, not as markup.
    """

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield from Table.__rich_console__(self._fitted(console, options), console, options)

    def _fitted(self, console: Console, options: ConsoleOptions) -> Table:
        shown = [column for column in self.columns if any(column.cells)] or self.columns
        _, right, _, left = self.padding
        room = options.max_width - len(shown) * (left + right) - (len(shown) - 1)
        natural, least = zip(*(_bounds(column, console, options) for column in shown), strict=True)
        widths = _shared(natural, least, [_rigid(column) for column in shown], room)
        fresh = Table(*(column.copy() for column in shown))
        for column, width in zip(fresh.columns, widths, strict=True):
            column.header = _broken(column.header, width)
        cells = zip(*(column.cells for column in shown), strict=True)
        for row, line in zip(self.rows, cells, strict=True):
            broken = (_broken(cell, width) for cell, width in zip(line, widths, strict=True))
            fresh.add_row(*broken, style=row.style, end_section=row.end_section)
        fitted = copy(self)
        fitted.columns, fitted.rows = fresh.columns, fresh.rows
        return fitted


def _rigid(column: Column) -> bool:
    """Returns whether a column can't be broken: figures, what is drawn, and what has colours of its own."""
    return column.no_wrap or not all(isinstance(cell, str) for cell in column.cells)


def _bounds(column: Column, console: Console, options: ConsoleOptions) -> tuple[int, int]:
    """Returns how wide a column is by itself, and how wide its longest word is."""
    natural = least = 0
    for cell in (column.header, *column.cells):
        if isinstance(cell, str):
            natural = max(natural, *map(cell_len, cell.split("\n")))
            least = max(least, *(cell_len(piece.rstrip()) for piece in _BREAKS.split(cell)))
        else:
            wide = Measurement.get(console, options, cell).maximum
            natural, least = max(natural, wide), max(least, wide)
    return natural, natural if _rigid(column) else least


def _shared(natural: Sequence[int], least: Sequence[int], rigid: Sequence[bool], room: int) -> list[int]:
    """Returns widths that fit, if any do: the widest columns give way first, down to their longest words, and further
    where all of them have.
    """
    widths = list(natural)
    further = [low if fixed else min(low, _FEW) for low, fixed in zip(least, rigid, strict=True)]
    for floor in (least, further):
        while sum(widths) > room:
            able = [place for place, width in enumerate(widths) if width > floor[place]]
            if not able:
                break
            widths[max(able, key=widths.__getitem__)] -= 1
    return widths


def _broken(cell: RenderableType, width: int) -> RenderableType:
    """Returns a text in lines of a width, and anything else as it is."""
    return Text("\n".join(broken(cell, width))) if isinstance(cell, str) else cell


def broken(words: str, width: int) -> Iterator[str]:
    """Yields a text in lines of at most so many columns.

    Example:
        >>> list(broken("convnet-random-pgd, noise off", 16))
        ['convnet-random-', 'pgd, noise off']
    """
    for paragraph in words.split("\n"):
        line = ""
        for piece in _BREAKS.split(paragraph):
            if line and cell_len((line + piece).rstrip()) > width:
                yield line.rstrip()
                line = ""
            if cell_len(piece.rstrip()) > width:
                # What separates it from the next word has no width of its own.
                *whole, end = chop_cells(piece.rstrip(), width)
                yield from whole
                piece = end + piece[len(piece.rstrip()) :]
            line += piece
        yield line.rstrip()
