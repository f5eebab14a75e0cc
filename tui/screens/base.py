"""What the main screens share: the line with the places above, the keys below, and folders that are read."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, ClassVar, cast

from rich.text import Text
from textual import work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.events import Click
from textual.screen import Screen
from textual.widget import Widget
from textual.widgets import Footer

from kerasrobust.errors import InputError
from tui.messages import FoldersRead, Go
from tui.session import Host, Session
from tui.widgets.search import Search

PLACES = {"runs": "Runs", "new": "New", "models": "Models", "compare": "Compare", "system": "System"}
"""The five places, in the order of their keys 1 to 5."""

REST = 50
"""A folder rests this many times as long as reading it took: thousands of runs don't keep a core busy."""


class Places(Widget):
    """The top line: the current screen and its neighbours, which a click or a number goes to."""

    DEFAULT_CSS = """
    Places { height: 1; dock: top; background: $panel; color: $foreground; }
    """

    def __init__(self, place: str) -> None:
        super().__init__()
        self.place = place
        self.title = ""
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
        if title != self.title:
            self.title = title
            self.refresh()

    def on_click(self, event: Click) -> None:
        for end, place in self._ends:
            if event.x < end:
                self.post_message(Go(place))
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
    def session(self) -> Session:
        return cast(Host, self.app).session

    def compose(self) -> ComposeResult:
        yield Places(self.PLACE)
        yield from self.content()
        yield Footer(show_command_palette=False)

    def content(self) -> ComposeResult:
        """Yields what is between the two lines."""
        yield from ()

    def entitle(self, title: str) -> None:
        self.query_one(Places).entitle(title)

    def say(self, message: str) -> None:
        self.app.notify(message, markup=False)

    def fail(self, message: str) -> None:
        self.app.notify(message, severity="error", timeout=10, markup=False)

    def cancel(self, run: Path) -> None:
        """Asks the run in a folder to stop, and says what was done."""
        try:
            self.say(f"{run.name}: {self.session.runner.cancel(run)}.")
        except InputError as error:
            self.fail(str(error))

    def action_back(self) -> None:
        """Leaves an input; then the screen, if it lies on another one."""
        if len(self.app.screen_stack) > 1:
            self.app.pop_screen()
        elif self.focused is not None:
            self.set_focus(None)


class FolderScreen(MainScreen):
    """A screen of what lies in folders, which it reads again and again while it is the current one.

    Subclasses call `keep_reading` when they are mounted, read in `read_folders` and show in `show_found`.
    """

    READS: ClassVar[str] = "The folders"

    def __init__(self) -> None:
        super().__init__()
        self.was_read = False
        self._problem = ""
        self._looked: float | None = None
        self._rest = 0.0

    def read_folders(self) -> Any:
        """Returns what there is, or None if nothing has changed; runs in a thread and may raise OSError."""
        raise NotImplementedError

    def show_found(self, found: Any) -> None:
        """Shows what was read; None if the folders can't be read."""
        raise NotImplementedError

    def keep_reading(self, period: float) -> None:
        """Reads the folders now and every `period` seconds."""
        self.set_interval(period, self.look)
        self.look()

    def on_screen_resume(self) -> None:
        if self._looked is not None:
            self.look()

    def action_search(self) -> None:
        self.query_one(Search).open()

    def look(self) -> None:
        """Reads the folders, unless nobody can see them or they were read a moment ago."""
        now = time.monotonic()
        if (self.is_current or not self.was_read) and (self._looked is None or now - self._looked >= self._rest):
            self._looked = now
            self._read_folders()

    @work(thread=True, exclusive=True)
    def _read_folders(self) -> None:
        began = time.monotonic()
        try:
            message = FoldersRead(self.read_folders())
        except OSError as error:
            message = FoldersRead(None, f"{self.READS} can't be read: {error.strerror} ({error.filename}).")
        self._rest = REST * (time.monotonic() - began)
        if message.found is not None or message.problem:
            self.post_message(message)

    def on_folders_read(self, message: FoldersRead) -> None:
        self.was_read = self.was_read or not message.problem
        if message.problem and message.problem != self._problem:
            self.fail(message.problem)
        self._problem = message.problem
        self.show_found(message.found)
