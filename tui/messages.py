"""What the threads that read files tell the screens. A newer message replaces an older one of its kind."""

from __future__ import annotations

from textual.message import Message

from tui.read.overview import Overview
from tui.read.state import RunState


class RunsRead(Message):
    """The runs folder was read; `problem` says why it could not be."""

    def __init__(self, overviews: list[Overview], problem: str = "") -> None:
        super().__init__()
        self.overviews = overviews
        self.problem = problem

    def can_replace(self, message: Message) -> bool:
        return isinstance(message, RunsRead)


class RunRead(Message):
    """Events of a run were read.

    Attributes:
        state: all that is known now.
        living: whether a process works in the folder.
        problem: why nothing can be read at the moment, a sentence; empty where all is well.
        caught_up: whether the file was read to its end.
    """

    def __init__(self, state: RunState, *, living: bool, problem: str = "", caught_up: bool = True) -> None:
        super().__init__()
        self.state = state
        self.living = living
        self.problem = problem
        self.caught_up = caught_up

    def can_replace(self, message: Message) -> bool:
        return isinstance(message, RunRead)
