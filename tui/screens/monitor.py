"""One run: its course, curves, attacks, images, table and log, live or from the files of long ago."""

from __future__ import annotations

import os
import sys
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

from kerasrobust.marks import read_marks
from kerasrobust.runs import is_locked
from tui.messages import RunRead
from tui.panes.attacks import AttacksPane
from tui.panes.curves import CurvesPane
from tui.panes.gallery import GalleryPane
from tui.panes.log import LogPane
from tui.panes.results.tab import ResultsTab
from tui.panes.settings import SettingsPane, command_of
from tui.panes.status import Stages, Status
from tui.read.follow import Follower
from tui.read.measured import ResultFile
from tui.read.own import OneRun
from tui.read.state import RunState
from tui.screens.marking import MarkingScreen
from tui.widgets.layout import STAGES
from tui.widgets.words import starred

PERIOD = 0.25
"""Seconds between two looks at the file of events: about as often as the engine emits progress."""

_HOME = {
    "attack": "attacks", "audit": "attacks", "randomness": "attacks", "import": "log", "corruptions": "study",
    "certify": "study", "assess": "study",
}  # fmt: skip
"""The tab that a run opens on, where it trains nothing."""

_TABS = {
    "curves": "Curves (m)",
    "attacks": "Attacks (a)",
    "gallery": "Gallery (g)",
    "study": "Table (t)",
    "log": "Log (l)",
    "settings": "Settings (i)",
}


def _tab_of(kind: str, state: RunState, caught_up: bool) -> str:
    """Returns the tab of a run that trains nothing; empty for one that trains, or may do so yet."""
    if kind in _HOME or not caught_up or state.series:
        return _HOME.get(kind, "")
    if state.rows or state.cells or state.certified is not None:
        return "study"
    return "log" if state.finished is not None else ""


class Pane(Protocol):
    """What a tab holds."""

    def show(self, state: RunState) -> None:
        """Brings it up to date."""


def can_open_files() -> bool:
    """Returns whether a browser on this machine would be seen by the person at the keys."""
    if "SSH_CONNECTION" in os.environ or "TEXTUAL_DRIVER" in os.environ:
        return False
    return sys.platform in ("darwin", "win32") or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


class MonitorScreen(MarkingScreen):
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
        Binding("i", "tab('settings')", "Settings", id="tab-settings", show=False, tooltip="Settings and versions"),
        Binding("space", "pause", "Pause", id="pause", tooltip="Hold the view still; the run goes on"),
        Binding("o", "report", "Report", id="open-report", show=False, tooltip="Open report.html in the browser"),
        # Tables take the small letter for themselves.
        Binding("y,Y", "copy_command", "Copy command", id="copy-run-command", show=False, tooltip="Copy its command"),
        Binding("x", "cancel", "Cancel", id="cancel-this", tooltip="Stop the run; it saves what is done"),
    ]  # fmt: skip

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self.state = RunState()
        self.word = "starting"
        self._result = ResultFile(path)
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
        self._run = OneRun(self.path, self.session.runner)
        # An attack has no curves of a training, not even while it starts.
        if tab := _HOME.get(self._run.kind(self.state)):
            self.query_one(TabbedContent).active = tab
        self.show_marks()
        self._show()
        self._follow()

    @property
    def marked(self) -> Path:
        return self.path

    def show_marks(self) -> None:
        marks = read_marks(self.path)
        self.entitle(" ".join([starred(self.path, marks), *(f"#{tag}" for tag in marks.tags)]))
        self._pane().show(self.state)

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
                problem = self._run.missing(follower.state)
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

    def on_run_read(self, message: RunRead) -> None:
        if self._paused:
            self._held = message
            return
        self.state, self._problem = message.state, message.problem
        self.word = self._run.word(self.state, message.living)
        if message.caught_up:
            self._notify_findings()
        if not self._chosen_tab and self.state.started is not None:
            self._open_what_there_is(message)
        self._caught_up = message.caught_up
        self._show()

    def _open_what_there_is(self, message: RunRead) -> None:
        """Goes to the tab with something to see, in a run that trains nothing."""
        tab = _tab_of(self._run.kind(self.state), self.state, message.caught_up)
        # A run under way may still come to its first cell.
        self._chosen_tab = bool(tab or self.state.series) or (message.caught_up and not message.living)
        if tab:
            self.query_one(TabbedContent).active = tab

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
        self._show_status(notes)
        self.query_one(Stages).show(self.state)
        self._pane().show(self.state)

    def _show_status(self, notes: str) -> None:
        self.query_one(Status).show(
            self.state,
            self.word,
            since=self._run.began,
            result=self._result.read(),
            report=(self.path / "report.html").exists(),
            notes=notes,
            last_words=self._run.last_words() if self.word in ("died", "failed", "refused") else "",
        )

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
            self._show_status("view paused: space goes on")
            return
        held, self._held = self._held, None
        if held is not None:
            self.on_run_read(held)
        else:
            self._show()

    def action_report(self) -> None:
        """Opens the report; where no browser can show it, as over SSH, says where it is."""
        report = (self.path / "report.html").resolve()
        if not report.exists():
            self.fail("There is no report yet: it is written at the end of a run that has attacked images.")
        elif can_open_files():
            self.app.open_url(report.as_uri())
            self.say(f"Opened {report}.")
        else:
            self.app.copy_to_clipboard(str(report))
            self.say(f"Copied the report's path: {report}")

    def action_copy_command(self) -> None:
        self.app.copy_to_clipboard(command_of(self._run.config, self.state.started))
        self.say("Copied the command.")

    def action_cancel(self) -> None:
        self.cancel(self.path)
