"""A run's file of events, read a piece at a time while somebody writes it. No Textual here."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from kerasrobust.tail import Tail
from tui.read.state import RunState, advance


@dataclass
class Follower:
    """Follows the run in a folder.

    Attributes:
        folder: the run's.
        state: all that is known of the run so far.
    """

    folder: Path
    state: RunState = field(default_factory=RunState)

    def __post_init__(self) -> None:
        self._tail = Tail(self.folder / "events.jsonl")

    def read(self) -> bool:
        """Takes in the next piece of the file and returns whether there is more.

        Raises:
            OSError: where it can't be read; FileNotFoundError where it isn't there.
        """
        batch = self._tail.read(brief=True)
        if batch.restarted:
            self.state = RunState(source=self.state.source + 1)
        if batch.events or batch.skipped:
            self.state = advance(self.state, batch.events, batch.skipped)
        return batch.more
