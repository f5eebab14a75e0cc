"""A run's file of events, read a piece at a time while somebody writes it, and the end of its log. No Textual here."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

from kerasrobust.events import printable
from kerasrobust.tail import Tail
from tui.read.state import RunState, advance

_SKIMMED = 2**20
"""Bytes at the beginning of events, and at their end, that tell how a run stands."""
_TAIL = 2**17  # Bytes of console.log that are shown: its end is what people look for.


@dataclass
class Follower:
    """Follows the run in a folder.

    Attributes:
        folder: the run's.
        state: all that is known of the run so far. While a long file is read for the first time, which takes seconds,
            what its beginning and its end tell; such a state has the source -1.
    """

    folder: Path
    state: RunState = field(default_factory=RunState)

    def __post_init__(self) -> None:
        self._tail = Tail(self.folder / "events.jsonl")
        self._read = self.state

    def read(self) -> bool:
        """Takes in the next piece of the file and returns whether there is more.

        Raises:
            OSError: where it can't be read; FileNotFoundError where it isn't there.
        """
        batch = self._tail.read(brief=True)
        if batch.restarted:
            self._read = RunState(source=self._read.source + 1)
        if batch.events or batch.skipped:
            self._read = advance(self._read, batch.events, batch.skipped)
        if not batch.more:
            self.state = self._read
        elif self.state.started is None:
            end = Tail(self._tail.path, max(self._tail.offset, self._tail.path.stat().st_size - _SKIMMED)).read(
                brief=True
            )
            self.state = replace(advance(self._read, end.events), source=-1)
        return batch.more

    def skim(self) -> None:
        """Takes in all of a short file, and of a long one its beginning and its end, as far as it wasn't read.

        Raises:
            OSError: as `read` does.
        """
        while self.read():
            end = (self.folder / "events.jsonl").stat().st_size
            self._tail.offset = max(self._tail.offset, end - _SKIMMED)


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
