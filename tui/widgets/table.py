"""Tables: rows brought up to date, and the whole as text for the clipboard."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.text import Text
from textual.widgets import DataTable


def bring_up_to_date(table: DataTable[Any], rows: Mapping[str, Sequence[Text]]) -> None:
    """Shows rows, each under its key. The cursor stays on its row, and of rows that stay only new cells are written."""
    before = [str(row.key.value) for row in table.ordered_rows]
    if list(rows) == before:
        columns = [column.key for column in table.ordered_columns]
        for key, cells in rows.items():
            for column, cell in zip(columns, cells, strict=True):
                if table.get_cell(key, column) != cell:
                    table.update_cell(key, column, cell, update_width=True)
        return
    at = before[table.cursor_row] if 0 <= table.cursor_row < len(before) else None
    table.clear()
    for key, cells in rows.items():
        table.add_row(*cells, key=key)
    if at is not None and at in rows:
        table.move_cursor(row=list(rows).index(at), animate=False)


def copy(table: DataTable[Any]) -> None:
    """Copies a table with its header, the cells separated by tabs, as spreadsheets take it."""
    rows = [[column.label for column in table.ordered_columns]]
    rows += [table.get_row(row.key) for row in table.ordered_rows]
    table.app.copy_to_clipboard("\n".join("\t".join(_plain(cell) for cell in row) for row in rows))
    table.app.notify("Copied the table.")


def _plain(cell: Any) -> str:
    return " ".join((cell.plain if isinstance(cell, Text) else str(cell)).split())
