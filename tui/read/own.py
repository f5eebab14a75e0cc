"""How runs stand: what their folders say, and what is known of those that this UI has started. No Textual here."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from kerasrobust.commands import from_dict
from kerasrobust.errors import InputError
from kerasrobust.runs import data_of, read_json
from kerasrobust.settings import RunConfig, to_dict
from tui.read.follow import last_lines
from tui.read.overview import Overview, model_of, stamp_of
from tui.read.state import RunState
from tui.runner import Child, Runner

_RESUMABLE = ("cancelled", "failed", "died", "refused")
"""States of runs that go on under their own name."""


def with_own(found: Iterable[Overview], children: Iterable[Child]) -> list[Overview]:
    """Returns the runs of a folder and those that were started here and have no folder, or whose folder knows less."""
    runs = {run.path: run for run in found}
    own = {}
    for child in children:
        run = runs.get(child.path)
        # Also one that is resumed: its folder reports its end until it has begun again. Once it has, the folder is
        # right: a process takes a second or two to go after its run's end.
        if not child.ended and (run is None or (run.state != "running" and run.began < child.began)):
            own[child.path] = _of_child(child, "starting", "loading TensorFlow")
        elif child.was_cancelled and run is not None and run.state == "died":
            own[child.path] = dataclasses.replace(run, state="cancelled")
        elif child.refused and run is None:
            words = "Cancelled before it began." if child.was_cancelled else child.last_words()
            state = "cancelled" if child.was_cancelled else "died" if child.was_killed else "refused"
            own[child.path] = _of_child(child, state, words)
    return [*own.values(), *(run for run in runs.values() if run.path not in own)]


def _of_child(child: Child, state: str, doing: str) -> Overview:
    """Returns the line of a run that has no folder yet, or never got one."""
    config = to_dict(child.config)
    return Overview(
        child.path, child.config.kind, state, model_of(config), data_of(config), began=child.began, doing=doing
    )


def again(run: Overview, child: Child | None) -> RunConfig:
    """Returns the config that does a run again: resumes what has stopped early, repeats what is done anew.

    Args:
        run: as the list shows it.
        child: the process of it, if it was started here.

    Raises:
        InputError: where it is under way, or its settings can't be read.
    """
    if run.state in ("running", "starting"):
        raise InputError(
            f"Expected a run that has ended. Received: {run.path.name}, which is running. Cancel it first, or wait."
        )
    name = run.path.name if run.state in _RESUMABLE else None
    if child is not None and not (run.path / "config.json").exists():  # What has never begun has left no file.
        return dataclasses.replace(child.config, name=name, overwrite=False)
    config = from_dict(read_json(run.path / "config.json") or {})
    # As it is marked now.
    tags, note = ",".join(run.marks.tags) or None, run.marks.note or None
    return dataclasses.replace(config, name=name, overwrite=False, tags=tags, note=note)


class OneRun:
    """The run in a folder, as far as its events don't tell."""

    def __init__(self, path: Path, runner: Runner) -> None:
        self.path = path
        self._runner = runner

    @property
    def child(self) -> Child | None:
        return self._runner.children.get(self.path)

    @property
    def config(self) -> dict[str, Any]:
        """Its settings, also before it has begun."""
        if self.child is not None:
            return to_dict(self.child.config)
        return read_json(self.path / "config.json") or {}

    @property
    def began(self) -> float:
        """When it was started, in Unix seconds."""
        if self.child is not None:
            return self.child.began
        # Whoever works in the folder writes its lock anew.
        stamp = stamp_of(self.path / "lock") or stamp_of(self.path / "config.json")
        return stamp[0] / 1e9 if stamp is not None else time.time()

    def kind(self, state: RunState) -> str:
        return state.started.kind if state.started is not None else str(self.config.get("kind", ""))

    def word(self, state: RunState, living: bool) -> str:
        """Returns its state in one word: starting, running, done, failed, cancelled, refused or died."""
        if living:
            return "running"
        child = self.child
        # One that is resumed tells its former end until it has begun again.
        if state.finished is not None and (child is None or child.ended or state.finished.time >= child.began):
            return state.finished.status
        if child is not None and not child.ended:
            return "running" if state.started is not None and state.finished is None else "starting"
        if child is not None and child.was_cancelled:
            return "cancelled"
        return "refused" if child is not None and child.refused and not child.was_killed else "died"

    def missing(self, state: RunState) -> str:
        """Returns why there are no events to read."""
        if self.path.is_dir():
            return "There are no events yet." if state.started is None else "Its file of events has vanished."
        return "" if self.child is not None else f"The run's folder is gone: {self.path}"

    def last_words(self) -> str:
        """Returns how it has ended, and the end of its log."""
        child = self.child
        words = [child.exit_words()] if child is not None and child.exit_words() else []
        if child is not None and child.message():
            words.append(child.message())
        if not self.path.is_dir():
            return "\n".join([*words, "Press r in the list of runs to start it again."])
        words.append("Press r in the list of runs to resume. The end of console.log (l, k):")
        try:
            words += [line[:200] for line in last_lines(self.path / "console.log", 2)]
        except OSError:
            words.append("there is none.")
        return "\n".join(words)
