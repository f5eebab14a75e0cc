"""What every screen may ask the app for: the folders, and the runs that this UI has started."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from tui.runner import Runner


@dataclass
class Session:
    """One start of the UI: the folders of runs and saved models, and what starts runs.

    Attributes:
        selected: the run at the cursor of the list.
    """

    runs_dir: Path
    models_dir: Path
    runner: Runner
    selected: Path | None = None


class Host(Protocol):
    """An app that screens of this UI can live in."""

    session: Session
