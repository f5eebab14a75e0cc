"""A line of words that filters a list."""

from __future__ import annotations

from typing import Any

from textual import on
from textual.widgets import Input


class Search(Input):
    """Filters a list by any words; hidden until it is opened.

    Args:
        placeholder: what it shows while it is empty.
        listed: selects the list, which gets the focus afterwards.
    """

    DEFAULT_CSS = """
    Search { display: none; }
    Search.shown { display: block; }
    """

    def __init__(self, placeholder: str, listed: str, **names: Any) -> None:
        # Disabled while hidden, as it would take the focus when the list hides.
        super().__init__(placeholder=placeholder, disabled=True, **names)
        self._listed = listed

    @property
    def words(self) -> list[str]:
        return self.value.lower().split()

    def fits(self, text: str) -> bool:
        text = text.lower()
        return all(word in text for word in self.words)

    def open(self) -> None:
        self.add_class("shown")
        self.disabled = False
        self.focus()

    def end(self) -> bool:
        """Hides the line and forgets the words; returns whether it was open."""
        was_open = self.has_class("shown")
        self.value = ""
        self.remove_class("shown")
        self.disabled = True
        self._to_list()
        return was_open

    @on(Input.Submitted)
    def _to_list(self) -> None:
        self.screen.query_one(self._listed).focus()
