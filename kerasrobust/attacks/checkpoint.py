"""What an evaluation has finished, kept in files, so that one that was killed goes on where it was.

Every finished batch is a file of its own, and every few seconds the state of the batch at hand. A file is written under
a temporary name and then renamed, so whatever stands under its own name is whole.
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

SAVE_SECONDS = 5.0
"""How often the state of an unfinished batch is kept."""


class Memory:
    """A folder of named groups of arrays.

    Args:
        folder: made at the first `put`; None keeps nothing.

    Example:
        >>> memory = Memory(Path("runs/mine/batches"))
        >>> memory.put("0-0", {"score": np.zeros(3)})
        >>> memory.get("0-0")["score"]
        array([0., 0., 0.])
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder

    def inside(self, name: str) -> Memory:
        """Returns the memory of a part of the work."""
        return Memory(None if self.folder is None else self.folder / name)

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
        """Keeps arrays under a name, instead of what was there."""
        if self.folder is None:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"{name}.npz"
        temporary = path.with_suffix(".tmp")
        with temporary.open("wb") as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]
        os.replace(temporary, path)

    def drop(self, name: str) -> None:
        """Forgets what was put under a name."""
        if self.folder is not None:
            (self.folder / f"{name}.npz").unlink(missing_ok=True)
