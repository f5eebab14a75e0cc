"""What an evaluation has finished, kept in files, so that one that was killed can be resumed.

Every finished batch is a file of its own, and every few seconds the state of the batch at hand. A file is written under
a temporary name and then renamed, so whatever stands under its own name is whole. One evaluation at a time works in a
folder: it holds the file `lock`, which is free again when its process has ended, however that was.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import threading
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from kerasrobust.errors import InputError

SAVE_SECONDS = 5.0
"""How often the state of an unfinished batch is saved."""


class Found(NamedTuple):
    """What a run has found.

    Attributes:
        examples: their indices.
        images: found for them.
        scores: theirs.
        queries: after which they fell, 0 where they haven't, or nobody counts.
    """

    examples: np.ndarray
    images: np.ndarray
    scores: np.ndarray
    queries: np.ndarray


class Checkpoints:
    """A folder of named groups of arrays.

    Args:
        folder: made at the first `put`; None keeps nothing.

    Example:
        >>> checkpoints = Checkpoints(Path("runs/mine/batches"))
        >>> checkpoints.put("0-0", {"score": np.zeros(3)})
        >>> checkpoints.get("0-0")["score"]
        array([0., 0., 0.])
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Keeps others out of the folder, which is made if it isn't there.

        Raises:
            InputError: for a folder that another evaluation holds, or that can't be one.
        """
        if self.folder is None:
            yield
            return
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            lock = (self.folder / "lock").open("a+")
        except OSError as error:
            reason = "a file" if self.folder.is_file() else error.strerror
            raise InputError(
                f"Expected a folder that can be written to. Received: {self.folder} ({reason}). Choose another."
            ) from error
        with lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                lock.seek(0)
                owner = lock.read().strip() or "unknown"
                whose = "this process" if owner == str(os.getpid()) else f"process {owner}"
                raise InputError(
                    f"Expected a folder that is free. Received: {self.folder}, in use by another evaluation, in "
                    f"{whose}. Wait for it, stop it, or choose another folder."
                ) from error
            lock.truncate(0)
            lock.write(str(os.getpid()))
            lock.flush()
            for torn in self.folder.rglob("*.tmp"):  # Of a process that was killed.
                torn.unlink()
            yield

    def inside(self, name: str) -> Checkpoints:
        """Returns the checkpoints of a part of the work."""
        return Checkpoints(None if self.folder is None else self.folder / name)

    def get(self, name: str) -> dict[str, np.ndarray] | None:
        """Returns what was put under a name, or None where there is nothing, or nothing that can be read."""
        if self.folder is None:
            return None
        try:
            with np.load(self.folder / f"{name}.npz", allow_pickle=False) as file:
                return {key: file[key] for key in file.files}
        # A disk that was full, or a power cut: the batch is computed again.
        except (OSError, ValueError, EOFError, zipfile.BadZipFile):
            return None

    def put(self, name: str, arrays: Mapping[str, np.ndarray]) -> None:
        """Saves arrays under a name, instead of what was there."""
        if self.folder is None:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        temporary = self.folder / f"{name}-{os.getpid()}-{threading.get_ident()}.tmp"
        with temporary.open("wb") as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]
        os.replace(temporary, self.folder / f"{name}.npz")

    def remove(self, name: str) -> None:
        """Forgets what was put under a name."""
        if self.folder is not None:
            (self.folder / f"{name}.npz").unlink(missing_ok=True)


class RunCheckpoint:
    """What one run of an attack has found, and the batch that it is at.

    Args:
        checkpoints: the attack's folder.
        name: of the run in it.
        queue: int64 (N,), the indices of the examples to attack. A checkpoint of others isn't used: noise that can't be
            seeded may have left other examples in another process.
    """

    def __init__(self, checkpoints: Checkpoints, name: str, queue: np.ndarray) -> None:
        self._checkpoints, self._name, self._queue = checkpoints, name, queue
        self._parts = 0
        self._unsaved: list[Found] = []

    def load(self) -> tuple[dict[str, np.ndarray], list[Found]] | None:
        """Returns the batch that an earlier process was at and all that it had found, or None if there is nothing.

        So it is, too, where what was found, the batch and the rest of the queue aren't all examples, once each: a file
        is lost or another evaluation's. Then the run is computed anew.
        """
        at_hand = f"{self._name}-at-hand"
        saved = self._checkpoints.get(at_hand)
        if saved is None or not np.array_equal(saved.pop("queue"), self._queue):
            return None
        parts = int(saved.pop("parts"))
        files = [self._checkpoints.get(f"{self._name}-{number}") for number in range(parts)]
        # A part of another version has other arrays.
        found = [Found(**file) for file in files if file is not None and file.keys() == set(Found._fields)]
        rows = saved["rows"]
        there = [*(part.examples for part in found), rows[rows >= 0], self._queue[int(saved["taken"]) :]]
        if not np.array_equal(np.sort(np.concatenate(there)), np.sort(self._queue)):
            self._checkpoints.remove(at_hand)  # Or it would stand beside the first new part, if that is all there is.
            return None
        self._parts = parts
        return saved, found

    def add(self, found: Found) -> None:
        """Notes examples that are finished, for the next `save`."""
        if self._checkpoints.folder is not None:
            self._unsaved.append(found)

    def save(self, batch: Mapping[str, np.ndarray]) -> None:
        """Writes what was found since the last time, and then where the run is: `taken` from the queue, `rows`, ..."""
        if self._unsaved:
            part = Found(*(np.concatenate(items) for items in zip(*self._unsaved, strict=True)))
            self._checkpoints.put(f"{self._name}-{self._parts}", part._asdict())
            self._unsaved = []
            self._parts += 1
        arrays = {"queue": self._queue, "parts": np.array(self._parts)}
        self._checkpoints.put(f"{self._name}-at-hand", arrays | dict(batch))
