"""A run's file of events, read a piece at a time while somebody writes it, and the end of its log. No Textual here."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from kerasrobust.events import printable
from kerasrobust.tail import Tail
from tui.read.state import RunState, advance

_TAIL = 2**17  # Bytes of console.log that are shown: its end is what people look for.


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


def last_lines(path: Path, count: int | None = None) -> list[str]:
    """Returns the lines at the end of a text file, whatever its size and bytes.

    Raises:
        OSError: where it can't be read.
    """
    with path.open("rb") as file:
        file.seek(0, 2)
        file.seek(max(0, file.tell() - _TAIL))
        lines = printable(file.read().decode(errors="replace").replace("\r", "\n")).split("\n")
        lines = [line for line in lines if line.strip()]
    return lines if count is None else lines[-count:]
