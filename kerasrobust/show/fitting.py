"""Tables as wide as they need to be, and where there is less room broken at words. No TensorFlow here."""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Iterator, Sequence
from copy import copy
from typing import NamedTuple

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
_NAME = 24
"""So long a name, which the first column has, is kept whole as long as other columns can give way."""
_FEW = 4
"""To so many characters a column is narrowed at most where words have to break."""


def make_console() -> Console:
    """Returns the console of standard output, of the terminal's width or that of the environment's COLUMNS.

    What is neither has no edge: a program that reads lines, or an editor, can't put words together again.
    """
    terminal, said = sys.stdout.isatty(), os.environ.get("COLUMNS", "")
    width = int(said) if said.isdigit() else 0
    if not width and not terminal:
        width = UNBOUNDED
    elif not width and said:  # That of 0 means the terminal's own, but to rich no room at all.
        width = shutil.get_terminal_size().columns
    # Whether it is a terminal is said, as rich takes FORCE_COLOR for one, and a log would fill up with bars.
    return Console(force_terminal=terminal, width=width or None, highlight=False)


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

    Where its lines are too long the widest columns are broken, but for names in the first: at spaces, hyphens, slashes
    and dots. Where that isn't enough, what is the same in all lines is said once, below; only then names, headings and
    at last words are broken anywhere. Texts are taken literally, not as markup.
    """

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield from Table.__rich_console__(self._fitted(console, options), console, options)

    def _fitted(self, console: Console, options: ConsoleOptions) -> Table:
        fitted, (_, right, _, left) = copy(self), self.padding
        found = [_Bounds.of(column, console, options) for column in self.columns if any(column.cells)]
        found = found or [_Bounds.of(column, console, options) for column in self.columns]
        if found[0].natural <= _NAME:
            found[0] = found[0]._replace(least=found[0].natural)
        said = []
        while sum(item.least for item in found) > _room(found, options.max_width, left + right):
            alike = [item for item in found[1:] if _is_alike(item.column, found[0].column)]
            if not alike:
                break
            said.append(longest := max(alike, key=lambda item: item.least))
            found.remove(longest)
        widths = _shared(found, _room(found, options.max_width, left + right))
        fresh = Table(*(item.column.copy() for item in found))
        for column, width in zip(fresh.columns, widths, strict=True):
            column.header = _broken(column.header, width)
        cells = zip(*(item.column.cells for item in found), strict=True)
        for row, line in zip(self.rows, cells, strict=True):
            broken = (_broken(cell, width) for cell, width in zip(line, widths, strict=True))
            fresh.add_row(*broken, style=row.style, end_section=row.end_section)
        fitted.columns, fitted.rows = fresh.columns, fresh.rows
        if said:
            note = ", ".join(f"{item.column.header} {next(filter(None, item.column.cells))}" for item in said)
            caption = Text(str(self.caption or ""), self.caption_style or "")
            fitted.caption = Text("\n").join(filter(None, (Text(f"All lines: {note}."), caption)))
        return fitted


class _Bounds(NamedTuple):
    """How wide a column is by itself, how wide its longest word is, and its longest one below the heading; and whether
    it can't be broken: figures, what is drawn, and what has colours of its own.
    """

    column: Column
    natural: int
    least: int
    below: int
    rigid: bool

    @classmethod
    def of(cls, column: Column, console: Console, options: ConsoleOptions) -> _Bounds:
        rigid = column.no_wrap or not all(isinstance(cell, str) for cell in column.cells)
        natural, least, below = 0, 0, 0
        for place, cell in enumerate((column.header, *column.cells)):
            if isinstance(cell, str):
                wide = max(map(cell_len, cell.split("\n")))
                word = max(cell_len(piece.rstrip()) for piece in _BREAKS.split(cell))
            else:
                word = wide = Measurement.get(console, options, cell).maximum
            natural, least, below = max(natural, wide), max(least, word), max(below, word if place else 0)
        return cls(column, natural, natural, natural, rigid) if rigid else cls(column, natural, least, below, rigid)


def _room(found: Sequence[_Bounds], width: int, padding: int) -> int:
    """Returns how wide columns may be together, without what is between them."""
    return width - len(found) * padding - (len(found) - 1)


def _is_alike(column: Column, first: Column) -> bool:
    """Returns whether a column of words says the same in all lines; one is empty too where it goes on with the line
    above, so that the first column is.
    """
    lines = [cell for cell, name in zip(column.cells, first.cells, strict=True) if cell or name]
    return column.justify == "left" and not column.no_wrap and len(set(map(str, lines))) == 1


def _shared(found: Sequence[_Bounds], room: int) -> list[int]:
    """Returns widths that fit, if any do: the widest columns give way first, down to their longest words, and further
    where all of them have.
    """
    widths = [item.natural for item in found]
    for floors in (
        [item.least for item in found],
        [item.below for item in found],
        [item.below if item.rigid else min(item.below, _FEW) for item in found],
    ):
        while sum(widths) > room:
            able = [place for place, width in enumerate(widths) if width > floors[place]]
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
