"""What a run was asked for, on what it ran, and what it left behind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.text import Text
from textual.app import ComposeResult
from textual.containers import VerticalScroll
from textual.widgets import Static

from kerasrobust.commands import from_dict
from kerasrobust.errors import InputError
from kerasrobust.events import RunStarted
from kerasrobust.marks import read_marks
from kerasrobust.runs import read_json
from kerasrobust.settings import command_line
from tui.read.settings import settings
from tui.read.state import RunState


class SettingsPane(VerticalScroll):
    """The settings of the run in a folder, its command, versions, devices and files."""

    DEFAULT_CSS = """
    SettingsPane { padding: 0 1; }
    SettingsPane > Static { height: auto; }
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self._shown: object = None

    def compose(self) -> ComposeResult:
        yield Static("", markup=False)

    def show(self, state: RunState) -> None:
        marks = read_marks(self.path)
        stamp = (state.started, len(state.models), len(state.examples), state.finished, marks)
        if stamp == self._shown:
            return
        self._shown = stamp
        config = state.started.config if state.started else read_json(self.path / "config.json") or {}
        text = Text()
        text.append(f"{command_of(config, state.started)}\n\n", "bold")
        if marks.tags:
            _pair(text, "tags", ", ".join(marks.tags))
        if marks.note:
            _pair(text, "note", marks.note)
        for name, value in settings(config).items():
            _pair(text, name.replace("_", " "), value)
        if state.started is not None:
            text.append("\n")
            _pair(text, "devices", ", ".join(map(str, state.started.devices)))
            _pair(text, "versions", ", ".join(f"{name} {version}" for name, version in state.started.versions.items()))
            _pair(text, "process", str(state.started.pid))
        text.append("\n")
        _pair(text, "folder", str(self.path))
        for model in state.models.values():
            _pair(text, "model", model.path)
        for examples in state.examples.values():
            _pair(text, "images", f"{examples.path} ({examples.count:,})")
        if (self.path / "report.html").exists():
            _pair(text, "report", str((self.path / "report.html").resolve()))
        self.query_one(Static).update(text)


def command_of(config: dict[str, Any], started: RunStarted | None) -> str:
    """Returns the command that repeats a run."""
    if started is not None:
        return started.command
    try:
        return command_line(from_dict(config))
    except InputError as error:
        return str(error)


def _pair(text: Text, name: str, value: str) -> None:
    text.append(f"{name:<18}", "dim")
    text.append(f"{value}\n")
