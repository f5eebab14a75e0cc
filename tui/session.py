"""What every screen may ask the app for: the folders, and the runs that this UI has started."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from tui.runner import Runner


@dataclass(frozen=True)
class Session:
    """One start of the UI.

    Attributes:
        runs_dir: folder of all runs.
        models_dir: folder of saved models.
        runner: starts runs, and knows those that it has started.
    """

    runs_dir: Path
    models_dir: Path
    runner: Runner


class Host(Protocol):
    """An app that screens of this UI can live in."""

    session: Session
