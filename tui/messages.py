"""What screens ask of the app, and what the threads that read files report to the screens."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from textual.message import Message

from kerasrobust.settings import RunConfig
from tui.read.state import RunState


@dataclass(eq=False)
class Go(Message):
    """Asks for one of the five places."""

    place: str


@dataclass(eq=False)
class Open(Message):
    """Asks for the monitor of the run in a folder."""

    path: Path


@dataclass(eq=False)
class Edit(Message):
    """Asks for the form, filled in with a config."""

    config: RunConfig


@dataclass(eq=False)
class Start(Message):
    """Asks for a run in a child process."""

    config: RunConfig


@dataclass(eq=False)
class Read(Message):
    """A reading that makes an older one of its kind obsolete."""

    def can_replace(self, message: Message) -> bool:
        return isinstance(message, type(self))


@dataclass(eq=False)
class FoldersRead(Read):
    """A screen's folders were read; `problem` says why they couldn't be, in one sentence."""

    found: Any
    problem: str = ""


@dataclass(eq=False)
class RunRead(Read):
    """Events of a run were read, up to the file's end if it `caught_up`; a process works in the folder if `living`.

    `problem` says why nothing can be read at the moment, in one sentence.
    """

    state: RunState
    living: bool
    problem: str = ""
    caught_up: bool = True
