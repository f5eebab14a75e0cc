"""One run: its course, curves, attacks, images, table and log, live or from the files of long ago."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import ClassVar, Protocol, cast

from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal
from textual.events import Resize
from textual.widget import Widget
from textual.widgets import TabbedContent, TabPane

from kerasrobust.events import printable
from kerasrobust.runs import is_locked
from tui.messages import RunRead
from tui.panes.attacks import AttacksPane
from tui.panes.curves import CurvesPane
from tui.panes.gallery import GalleryPane
from tui.panes.log import LogPane, last_lines
from tui.panes.results.tab import ResultsTab
from tui.panes.settings import SettingsPane
from tui.panes.status import Stages, Status
from tui.read.follow import Follower
from tui.read.state import RunState
from tui.screens.base import MainScreen
from tui.widgets.layout import STAGES

PERIOD = 0.25
"""Seconds between two looks at the file of events: about as often as the engine emits progress."""

_TABS = {
    "curves": "Curves (m)",
    "attacks": "Attacks (a)",
    "gallery": "Gallery (g)",
    "study": "Table (t)",
    "log": "Log (l)",
    "settings": "Settings (i)",
}


class Pane(Protocol):
    """What a tab holds."""

    def show(self, state: RunState) -> None:
        """Brings it up to date."""


class MonitorScreen(MainScreen):
    """Watches the run in a folder by following its file of events, whoever started it."""

    PLACE = "runs"
    DEFAULT_CSS = """
    MonitorScreen Stages { display: none; }
    MonitorScreen.wide Stages { display: block; }
    MonitorScreen TabPane { padding: 0; }
    MonitorScreen TabbedContent { width: 1fr; height: 1fr; }
    MonitorScreen ContentSwitcher { height: 1fr; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "back", "Back", id="detach", tooltip="Detach: back to the list; the run goes on"),
        Binding("m", "tab('curves')", "Monitor", id="tab-curves", show=False, tooltip="Curves of the training"),
        Binding("a", "tab('attacks')", "Attacks", id="tab-attacks", show=False, tooltip="Attacks, live, and survivors"),
        Binding("g", "tab('gallery')", "Gallery", id="tab-gallery", show=False, tooltip="Adversarial images"),
        Binding("t", "tab('study')", "Table", id="tab-study", show=False, tooltip="Tables, maps and curves"),
        Binding("l", "tab('log')", "Log", id="tab-log", show=False, tooltip="The run's messages, and console.log"),
        Binding("i", "tab('settings')", "Settings", id="tab-settings", show=False,
                tooltip="Settings, command, versions"),
        Binding("space", "pause", "Pause", id="pause", tooltip="Hold the view still; the run goes on"),
        Binding("x", "cancel", "Cancel", id="cancel-this", tooltip="Stop the run; it saves what is done"),
    ]  # fmt: skip

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self.state = RunState()
        self.word = "starting"
        self._problem = ""
        self._paused = False
        self._held: RunRead | None = None
        self._caught_up = False
        self._notified = 0
        self._chosen_tab = False
        self._left = threading.Event()

    def content(self) -> ComposeResult:
        yield Status()
        with Horizontal():
            yield Stages()
            with TabbedContent():
                live = CurvesPane(), AttacksPane(), GalleryPane(self.path)
                panes = *live, ResultsTab(self.path), LogPane(self.path), SettingsPane(self.path)
                for (name, label), pane in zip(_TABS.items(), panes, strict=True):
                    with TabPane(label, id=name):
                        yield pane

    def on_mount(self) -> None:
        self.entitle(printable(self.path.name))
        self._show()
        self._follow()

    def on_unmount(self) -> None:
        self._left.set()

    def on_resize(self, event: Resize) -> None:
        self.set_class(event.size.width >= STAGES, "wide")

    @work(thread=True)
    def _follow(self) -> None:
        """Reads what is new, a piece at a time, until the screen is closed."""
        follower = Follower(self.path)
        shown: object = None
        while not self._left.is_set():
            problem, more = "", False
            try:
                more = follower.read()
            except FileNotFoundError:
                problem = self._missing(follower.state)
            except OSError as error:
                problem = f"Its events can't be read: {error.strerror}."
            living, state = is_locked(self.path), follower.state
            # Nothing happens while a graph is compiled, but the time that passes is shown.
            news = (state, living, problem, more, int(time.time()) if living else 0)
            if news != shown:
                shown = news
                self.post_message(RunRead(state, living=living, problem=problem, caught_up=not more))
            if not more:
                # A run that has ended may be resumed, but that is rare.
                self._left.wait(PERIOD if living else 4 * PERIOD)

    def _missing(self, state: RunState) -> str:
        if self.path.is_dir():
            return "There are no events yet." if state.started is None else "Its file of events has vanished."
        return "" if self.path in self.session.runner.children else f"The run's folder is gone: {self.path}"

    def on_run_read(self, message: RunRead) -> None:
        if self._paused:
            self._held = message
            return
        self.state, self._problem = message.state, message.problem
        self.word = self._word(message.living)
        if message.caught_up:
            self._notify_findings()
        if not self._chosen_tab and self.state.started is not None:
            self._open_what_there_is(message)
        self._caught_up = message.caught_up
        self._show()

    def _open_what_there_is(self, message: RunRead) -> None:
        """Goes to the tab with something to see, in a run that trains nothing."""
        state = self.state
        kind = state.started.kind if state.started is not None else ""
        tab = {"attack": "attacks", "import": "log"}.get(kind, "")
        if not tab and message.caught_up and not state.series:
            if state.rows or state.cells or state.certified is not None:
                tab = "study"
            elif state.finished is not None:
                tab = "log"
        # A run under way may still come to its first cell.
        self._chosen_tab = bool(tab or state.series) or (message.caught_up and not message.living)
        if tab:
            self.query_one(TabbedContent).active = tab

    def _word(self, living: bool) -> str:
        if living:
            return "running"
        child = self.session.runner.children.get(self.path)
        if self.state.finished is not None:
            return self.state.finished.status
        if child is not None and not child.ended:
            return "starting" if self.state.started is None else "running"
        return "cancelled" if child is not None and child.was_cancelled else "died"

    def _notify_findings(self) -> None:
        """Notifies of warnings as they come, but not of those that were there when the run was opened."""
        fresh = self.state.found - self._notified
        if self._caught_up and fresh > 0:
            for finding in list(self.state.findings)[-fresh:]:
                severity = "information" if finding.severity == "info" else finding.severity
                self.app.notify(finding.message, title=finding.code, severity=severity, markup=False)
        self._notified = self.state.found

    def _show(self) -> None:
        if self._paused or not self.is_mounted:
            return
        notes = self._problem if self._caught_up else "reading..." if self.state.started else self._problem
        if self.state.skipped:
            notes = f"{notes} {self.state.skipped:,} lines can't be read (damaged, foreign or newer)".strip()
        self.query_one(Status).show(self.state, self.word, notes=notes, last_words=self._last_words())
        self.query_one(Stages).show(self.state)
        self._pane().show(self.state)

    def _last_words(self) -> str:
        if self.word not in ("died", "failed"):
            return ""
        child = self.session.runner.children.get(self.path)
        words = [child.exit_words()] if child is not None and child.exit_words() else []
        if child is not None and child.message():
            words.append(child.message())
        words.append("Press r in the list of runs to resume. The end of console.log (l, k):")
        try:
            words += [line[:200] for line in last_lines(self.path / "console.log", 2)]
        except OSError:
            words.append("there is none.")
        return "\n".join(words)

    def _pane(self) -> Pane:
        tabs = self.query_one(TabbedContent)
        return cast(Pane, tabs.get_pane(tabs.active or "curves").children[0])

    @on(TabbedContent.TabActivated)
    def _changed_tab(self, event: TabbedContent.TabActivated) -> None:
        self._chosen_tab |= event.pane.id != "curves"
        self._pane().show(self.state)
        # Into the tab, so that its keys work, also after a click on its name.
        inside = self.query_one(TabbedContent).active_pane
        focusable = (widget for widget in inside.walk_children(Widget) if widget.focusable) if inside else iter(())
        self.set_focus(next(focusable, None))

    def action_tab(self, name: str) -> None:
        self._chosen_tab = True
        self.query_one(TabbedContent).active = name

    def action_back(self) -> None:
        """Ends a search in the log; else back to the list."""
        if self.query_one(TabbedContent).active != "log" or not self.query_one(LogPane).end_search():
            super().action_back()

    def action_pause(self) -> None:
        self._paused = not self._paused
        if self._paused:
            self.query_one(Status).show(self.state, self.word, notes="view paused: space goes on")
            return
        held, self._held = self._held, None
        if held is not None:
            self.on_run_read(held)
        else:
            self._show()

    def action_cancel(self) -> None:
        self.cancel(self.path)
