"""The log of a run: its messages, and what libraries printed, searchable."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.message import Message
from textual.widgets import Input, Log, Static

from tui.read.follow import last_lines
from tui.read.state import LINES, Line, RunState
from tui.widgets.search import Search
from tui.widgets.words import clock_text

_CLOCK = 10
"""Columns of the time before a line, with the gap behind it."""


@dataclass(eq=False)
class ConsoleRead(Message):
    """The end of console.log was read."""

    lines: list[str]


class LogPane(Vertical):
    """Lines of a run's events, or of the console.log in its folder, filtered by words."""

    DEFAULT_CSS = """
    LogPane > Static { height: 1; }
    LogPane > Log { height: 1fr; scrollbar-size-horizontal: 1; background: $background; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding(
            "slash", "search", "Search", id="search-log", key_display="/", tooltip="Show only lines with some words"
        ),
        Binding("k", "source", "Console", id="log-source", tooltip="Change between the run's events and console.log"),
        Binding("w", "warnings", "Warnings", id="log-warnings", tooltip="Show only warnings and errors"),
        Binding("y", "copy", "Copy", id="copy-log", show=False, tooltip="Copy the lines that are shown"),
    ]

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self._state = RunState()
        self._printed: list[str] = []
        self._from_console = False
        self._warnings = False
        self._written = 0
        self._source = 0
        self._wide = 0
        self._stamp: object = None

    def compose(self) -> ComposeResult:
        yield Static("", classes="dim", markup=False)
        yield Log(max_lines=LINES, highlight=False, auto_scroll=True)
        yield Search("Words to look for; enter goes to the lines, escape ends", "LogPane > Log")

    def on_mount(self) -> None:
        self._head()

    def show(self, state: RunState) -> None:
        fresh = state.logged - self._written
        self._state = state
        if self._from_console:
            self._read_console()
        elif fresh < 0 or state.source != self._source:
            self._source = state.source
            self._rewrite()
        elif fresh:
            self._write(self._written_as(list(state.lines)[-fresh:]))
            self._written = state.logged

    def _head(self) -> None:
        source = "console.log: what libraries printed" if self._from_console else "events of the run"
        words = [
            source,
            "warnings and errors only" if self._warnings else "",
            f"with {' '.join(wanted)}" if (wanted := self.query_one(Search).words) else "",
        ]
        self.query_one(Static).update("  ".join(word for word in words if word))

    def _written_as(self, lines: Iterable[Line]) -> list[str]:
        fits = self.query_one(Search).fits
        shown = [line for line in lines if not self._warnings or line.severity != "info"]
        texts = [(line, line.text if line.severity == "info" else f"{line.severity}: {line.text}") for line in shown]
        return [f"{clock_text(line.time)}  {' '.join(text.split())}" for line, text in texts if fits(text)]

    def _write(self, lines: Sequence[str]) -> None:
        """Writes lines, the rest of long ones below their beginning."""
        log = self.query_one(Log)
        self._wide = log.scrollable_content_region.width
        room = max(20, self._wide or 80)
        indent = " " * (0 if self._from_console else _CLOCK)
        log.write_lines(
            part for line in lines for part in textwrap.wrap(line, room, subsequent_indent=indent) or [line]
        )

    def on_resize(self) -> None:
        if self.query_one(Log).scrollable_content_region.width not in (0, self._wide):
            self.call_after_refresh(self._rewrite)
            self.call_after_refresh(self.query_one(Log).scroll_end, animate=False)

    def _texts(self) -> list[str]:
        """Returns the lines that are shown, as they were told."""
        if self._from_console:
            return [text for text in self._printed if self.query_one(Search).fits(text)]
        return self._written_as(self._state.lines)

    def _rewrite(self) -> None:
        self._head()
        self.query_one(Log).clear()
        self._write(self._texts())
        if not self._from_console:
            self._written = self._state.logged

    @work(thread=True, exclusive=True)
    def _read_console(self) -> None:
        path = self.path / "console.log"
        try:
            status = path.stat()
            if (status.st_mtime_ns, status.st_size) == self._stamp:
                return
            self._stamp = (status.st_mtime_ns, status.st_size)
            lines = last_lines(path)
        except OSError as error:
            lines = [f"No console.log: {error.strerror}."]
        self.post_message(ConsoleRead(lines))

    def on_console_read(self, message: ConsoleRead) -> None:
        self._printed = message.lines or ["console.log is empty: nothing was printed."]
        if self._from_console:
            self._rewrite()

    def action_source(self) -> None:
        self._from_console = not self._from_console
        self._stamp = None
        self._rewrite()
        if self._from_console:
            self._read_console()

    def action_warnings(self) -> None:
        self._warnings = not self._warnings
        self._rewrite()

    def action_search(self) -> None:
        self.query_one(Search).open()

    def end_search(self) -> bool:
        """Ends the search; returns whether there was one."""
        return self.query_one(Search).end()

    @on(Input.Changed)
    def _searched(self) -> None:
        self._rewrite()

    def action_copy(self) -> None:
        self.app.copy_to_clipboard("\n".join(self._texts()))
        self.app.notify("Copied the lines.")
