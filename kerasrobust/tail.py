"""A file of events, followed while somebody writes it. No TensorFlow here."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from kerasrobust.events import Event, from_json


@dataclass(frozen=True)
class Piece:
    """What was read in one go.

    Attributes:
        skipped: lines that aren't events of this version.
        restarted: whether the file was replaced or cut short, so that everything read earlier is void.
        more: whether there is more to read at once.
    """

    events: list[Event]
    skipped: int = 0
    restarted: bool = False
    more: bool = False


@dataclass
class Tail:
    """Follows a file of events, which may not exist yet, while somebody writes it; read up to `offset`, in bytes."""

    path: Path
    offset: int = 0
    _inode: int | None = None

    def read(self, size: int = 2**20, *, brief: bool = False) -> Piece:
        """Returns the whole events of the next `size` bytes.

        A torn last line is "not yet". A line longer than `size` wasn't written by kerasrobust and is skipped. With
        `brief`, progress is left out that a later line of these bytes makes obsolete, which is most of a long run.

        Raises:
            OSError: if the file can't be read; FileNotFoundError if it doesn't exist.
        """
        with self.path.open("rb") as file:
            status = os.fstat(file.fileno())
            restarted = self._inode not in (None, status.st_ino) or status.st_size < self.offset
            if restarted:
                self.offset = 0
            self._inode = status.st_ino
            file.seek(self.offset)
            data = file.read(size)
        whole = data.rfind(b"\n") + 1
        if not whole and len(data) == size:
            self.offset += size
            return Piece([], 1, restarted, True)
        lines = data[:whole].split(b"\n")[:-1]
        if brief:
            lines = _without_obsolete(lines)
        found = [from_json(line) for line in lines]
        self.offset += whole
        events = [event for event in found if event is not None]
        return Piece(events, len(found) - len(events), restarted, len(data) == size)


# Progress as `to_json` writes it, up to its stage and unit. Such lines are dropped unparsed, as parsing is what takes
# time; a line with its keys in another order doesn't match and is kept.
_BEGIN = b'{"schema":1,"type":"Progress","time"'
_PROGRESS = re.compile(
    rb'\{"schema":1,"type":"Progress","time":[^,"]+,("stage":"[^"\\]*(?:\\.[^"\\]*)*","unit":"[^"\\]*(?:\\.[^"\\]*)*"),"done":'
)


def _without_obsolete(lines: list[bytes]) -> list[bytes]:
    """Leaves out progress that later progress of the same stage and unit makes obsolete."""
    kept, seen = [], set()
    for line in reversed(lines):
        match = _PROGRESS.match(line) if line.startswith(_BEGIN) else None
        if match is None:
            kept.append(line)
        elif match[1] not in seen:
            seen.add(match[1])
            kept.append(line)
    kept.reverse()
    return kept


def last_events(path: Path, size: int = 2**16) -> list[Event]:
    """Returns the events in the last `size` bytes of a file.

    Raises:
        OSError: if the file can't be read.
    """
    with path.open("rb") as file:
        file.seek(max(0, os.fstat(file.fileno()).st_size - size))
        lines = file.read().split(b"\n")[:-1]
    return [event for event in map(from_json, lines) if event is not None]


def read_all(path: Path) -> Iterator[Event]:
    """Yields the whole events of a file, in order; what can't be read is skipped.

    Raises:
        OSError: if the file can't be read.
    """
    tail = Tail(path)
    while True:
        piece = tail.read()
        yield from piece.events
        if not piece.more:
            return
