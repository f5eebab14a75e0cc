"""What the main screens share: the line with the places above, the keys below."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, cast

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.events import Click
from textual.screen import Screen
from textual.widget import Widget
from textual.widgets import Footer

if TYPE_CHECKING:
    from tui.app import Lab

PLACES = {"runs": "Runs", "new": "New", "models": "Models", "compare": "Compare", "system": "System"}
"""The five places, in the order of their keys 1 to 5."""


class Places(Widget):
    """The top line: where one is, and where one can go, by number or by click."""

    DEFAULT_CSS = """
    Places { height: 1; dock: top; background: $panel; color: $foreground; }
    """

    def __init__(self, place: str, title: str = "") -> None:
        super().__init__()
        self.place = place
        self.title = title
        self._ends: list[tuple[int, str]] = []

    def render(self) -> Text:
        line = Text(no_wrap=True, overflow="ellipsis")
        self._ends = []
        for number, (place, name) in enumerate(PLACES.items(), start=1):
            # Reversed, so that it shows without colours as well.
            line.append(f" {number} {name} ", "bold reverse" if place == self.place else "")
            self._ends.append((len(line), place))
        if self.title:
            line.append("│ ")
            line.append(self.title, "bold")
        return line

    def entitle(self, title: str) -> None:
        """Shows a title beside the places."""
        if title != self.title:
            self.title = title
            self.refresh()

    def on_click(self, event: Click) -> None:
        for end, place in self._ends:
            if event.x < end:
                cast("Lab", self.app).show(place)
                return


class MainScreen(Screen[None]):
    """A screen with the places above and its keys below.

    Subclasses set `PLACE` and yield their content in `content`.
    """

    PLACE: ClassVar[str] = "runs"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "back", "Back", id="back", show=False, tooltip="Back to where you came from"),
    ]

    @property
    def lab(self) -> Lab:
        """The app, with its type."""
        return cast("Lab", self.app)

    def compose(self) -> ComposeResult:
        yield Places(self.PLACE)
        yield from self.content()
        yield Footer(show_command_palette=False)

    def content(self) -> ComposeResult:
        """Yields what is between the two lines."""
        yield from ()

    def entitle(self, title: str) -> None:
        """Shows a title beside the places."""
        self.query_one(Places).entitle(title)

    def action_back(self) -> None:
        """Leaves an input; then the screen, where it lies on another one."""
        if len(self.app.screen_stack) > 1:
            self.app.pop_screen()
        elif self.focused is not None:
            self.set_focus(None)
