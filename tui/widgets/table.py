"""Tables as text, for the clipboard."""

from __future__ import annotations

from typing import Any

from rich.text import Text
from textual.widgets import DataTable


def as_text(table: DataTable[Any]) -> str:
    """Returns a table with its header, the cells separated by tabs, as spreadsheets take it."""
    rows = [[column.label for column in table.ordered_columns]]
    rows += [table.get_row(row.key) for row in table.ordered_rows]
    return "\n".join("\t".join(_plain(cell) for cell in row) for row in rows)


def _plain(cell: Any) -> str:
    return " ".join((cell.plain if isinstance(cell, Text) else str(cell)).split())
