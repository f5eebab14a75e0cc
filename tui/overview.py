"""What the list of runs says of each: a line made from a few small reads of its folder. No Textual here."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kerasrobust.events import AttackProgress, Event, Metrics, Progress, Row, RunFinished, StageStarted, as_dict
from kerasrobust.figures import by_network, reference_epsilon
from kerasrobust.runs import is_locked, last_events, list_runs, read_json

Accuracies = tuple[float, ...]
"""Nothing, one accuracy, or the lowest and the highest of several networks."""


@dataclass(frozen=True)
class Overview:
    """A run in one line.

    Attributes:
        state: starting, running, done, failed, cancelled or died.
        began: when its folder was made, in Unix seconds.
        share: how much of the stage at work is done, in [0, 1], where that is known.
        seconds_left: of that stage.
        doing: the stage's title while it runs; afterwards what the run said at its end.
    """

    path: Path
    kind: str
    state: str
    model: str = ""
    data: str = ""
    clean: Accuracies = ()
    robust: Accuracies = ()
    began: float = 0.0
    share: float | None = None
    seconds_left: float | None = None
    doing: str = ""
    synthetic: bool = False


class Overviews:
    """Keeps an overview of each run in a folder; what hasn't changed on the disk isn't read again."""

    def __init__(self, runs_dir: Path) -> None:
        self.runs_dir = runs_dir
        self._known: dict[Path, tuple[tuple[Any, ...], Overview]] = {}

    def read(self) -> list[Overview]:
        """Returns the overviews, the newest run first. Takes milliseconds for what is new or running."""
        found: dict[Path, tuple[tuple[Any, ...], Overview]] = {}
        for path in list_runs(self.runs_dir):
            with contextlib.suppress(OSError):  # Removed since it was listed.
                stamp = (is_locked(path), *(_stamp(path / name) for name in ("events.jsonl", "result.json")))
                before = self._known.get(path)
                found[path] = (
                    before if before and before[0] == stamp else (stamp, overview(path, running=bool(stamp[0])))
                )
        self._known = found
        return [entry for _, entry in found.values()]


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size


def overview(path: Path, *, running: bool) -> Overview:
    """Returns what is known of one run.

    Raises:
        OSError: where its folder has vanished.
    """
    began = (path / "config.json").stat().st_mtime
    config = read_json(path / "config.json") or {}
    events: list[Event] = []
    with contextlib.suppress(OSError):  # It hasn't told anything yet.
        events = last_events(path / "events.jsonl")
    last = events[-1] if events else None
    ended = isinstance(last, RunFinished) and not running
    state = "running" if running else last.status if isinstance(last, RunFinished) else "died"
    result = read_json(path / "result.json") if state == "done" else None
    clean, robust = accuracies(result) if result else latest(events)
    share, left, doing = progress(events)
    kind = str(config.get("kind", "?"))
    return Overview(
        path=path,
        kind=kind,
        state=state,
        model=str(config.get("model", "five networks" if kind in ("study", "demo") else "")),
        data=str(config.get("data", "")),
        clean=clean,
        robust=robust,
        began=began,
        share=share if state == "running" else None,
        seconds_left=left if state == "running" else None,
        doing=last.message if isinstance(last, RunFinished) and ended else doing,
        synthetic=config.get("data") == "shapes",
    )


def accuracies(result: Mapping[str, Any]) -> tuple[Accuracies, Accuracies]:
    """Returns clean and robust accuracy of a result; of a study the range over its networks.

    A network's robust accuracy in a study is the lowest at the radius of reference: 8/255, or else the largest.
    """
    rows = result.get("rows")
    if not isinstance(rows, list):
        return _one(result.get("clean_accuracy")), _one(result.get("robust_accuracy"))
    try:
        return _of_rows(rows)
    except (KeyError, TypeError, AttributeError):  # Somebody else's idea of rows.
        return (), ()


def _of_rows(rows: list[dict[str, Any]]) -> tuple[Accuracies, Accuracies]:
    radius = reference_epsilon(rows)
    clean, robust = [], []
    for group in by_network(rows).values():
        clean += [value for row in group if row.get("attack") is None for value in _one(row["accuracy"])]
        under = [row for row in group if row.get("attack") and row.get("epsilon") == radius]
        attacked = [value for row in under for value in _one(row["accuracy"])]
        robust += [min(attacked)] if attacked else []
    return _range(clean), _range(robust)


def _one(value: Any) -> Accuracies:
    return (value,) if isinstance(value, float | int) else ()


def _range(values: Iterable[float]) -> Accuracies:
    ordered = sorted(values)
    return (ordered[0], ordered[-1]) if ordered else ()


def latest(events: list[Event]) -> tuple[Accuracies, Accuracies]:
    """Returns the newest validation accuracies in the last events of a run, or those of its rows."""
    rows = [as_dict(event) for event in events if isinstance(event, Row)]
    if rows:
        return _of_rows(rows)
    for event in reversed(events):
        if isinstance(event, Metrics) and event.split == "validation":
            return _one(event.values.get("accuracy")), _one(event.values.get("robust_accuracy"))
    return (), ()


def progress(events: list[Event]) -> tuple[float | None, float | None, str]:
    """Returns the share that is done of what is at work, its seconds left, and the stage's title."""
    title = next((event.title for event in reversed(events) if isinstance(event, StageStarted)), "")
    for event in reversed(events):
        if isinstance(event, StageStarted):
            break
        if isinstance(event, AttackProgress):
            return (event.done / event.total if event.total else None), None, title
        if isinstance(event, Progress) and event.unit != "epoch":
            return (event.done / event.total if event.total else None), event.seconds_left, title
    return None, None, title
