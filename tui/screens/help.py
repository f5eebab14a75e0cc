"""The help: every key of the current screen, and what it does."""

from __future__ import annotations

from typing import Any, ClassVar

from rich.table import Table
from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.screen import ModalScreen, Screen
from textual.widgets import Static


class HelpScreen(ModalScreen[None]):
    """Lists the bindings that are active on the screen that help was asked on, by where they come from."""

    DEFAULT_CSS = """
    HelpScreen { align: center middle; }
    HelpScreen > VerticalScroll { width: 76; max-width: 96%; height: auto; max-height: 90%; border: round $primary;
        background: $surface; padding: 0 1; }
    HelpScreen Static { height: auto; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,question_mark,q,enter", "dismiss", "Close", id="close-help", tooltip="Close the help"),
    ]

    def __init__(self, other: Screen[Any]) -> None:
        super().__init__()
        self.other = other

    def compose(self) -> ComposeResult:
        with VerticalScroll():
            yield Static(self._table())

    def on_mount(self) -> None:
        self.query_one(VerticalScroll).border_title = "Keys"
        self.query_one(VerticalScroll).border_subtitle = "escape closes"

    def _table(self) -> Table:
        table = Table(box=None, show_header=False, padding=(0, 1), expand=True)
        table.add_column(no_wrap=True, style="bold")
        table.add_column()
        groups: dict[str, dict[str, tuple[list[str], str]]] = {}
        for active in self.other.active_bindings.values():
            binding = active.binding
            if not binding.description:
                continue
            # Every binding of this UI has an id; Textual's own, which move cursors and scroll, have none.
            where = "Everywhere" if active.node is self.app else "Here" if binding.id else "Moving about"
            keys, _ = groups.setdefault(where, {}).setdefault(
                binding.action, ([], binding.tooltip or binding.description)
            )
            keys.append(self.app.get_key_display(binding))
        for where in ("Here", "Everywhere", "Moving about"):
            if where in groups:
                table.add_row(Text(where, "underline"), "")
            for keys, meaning in groups.get(where, {}).values():
                table.add_row(" ".join(keys), meaning)
        return table
