"""The overview of each run: a line made from a few small reads of its folder. No Textual here."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kerasrobust.entries import Row
from kerasrobust.marks import Marks, read_marks
from kerasrobust.records import Result
from kerasrobust.runs import MARKS, data_of, is_locked, list_runs, read_json
from kerasrobust.show.figures import by_network, format_accuracy
from kerasrobust.show.narrate import is_synthetic
from kerasrobust.show.summaries import reference_epsilon
from kerasrobust.tail import last_events
from tui.read.follow import Follower
from tui.read.state import RunState, advance

Accuracies = tuple[float, ...]
"""Nothing, one accuracy, or the lowest and the highest of several networks."""


@dataclass(frozen=True)
class Overview:
    """A run in one line.

    Attributes:
        state: starting, running, done, failed, cancelled or died.
        began: when its folder was made, in Unix seconds.
        share: how much of the stage at work is done, in [0, 1]; `seconds_left` is of that stage too.
        doing: the stage's title while it runs; afterwards the message that it ended with.
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
    marks: Marks = field(default_factory=Marks)

    @property
    def words(self) -> str:
        """All that it may be found by."""
        signs = [word for word in ("starred", "archived") if getattr(self.marks, word)]
        return " ".join(
            [self.path.name, self.kind, self.model, self.data, self.state, *self.marks.tags, self.marks.note, *signs]
        )


class Overviews:
    """Keeps an overview of each run in a folder; what hasn't changed on the disk isn't read again."""

    def __init__(self, runs_dir: Path) -> None:
        self.runs_dir = runs_dir
        self._known: dict[Path, tuple[tuple[Any, ...], Overview]] = {}
        self._followed: dict[Path, Follower] = {}

    def read(self) -> list[Overview]:
        """Returns the overviews, the newest run first. Takes milliseconds for what is new or running.

        Raises:
            OSError: where the folder can't be read.
        """
        found: dict[Path, tuple[tuple[Any, ...], Overview]] = {}
        followed: dict[Path, Follower] = {}
        for path in list_runs(self.runs_dir):
            with contextlib.suppress(OSError):  # Removed since it was listed.
                files = (path / name for name in ("config.json", "events.jsonl", "result.json", MARKS))
                stamp = (is_locked(path), *map(stamp_of, files))
                before = self._known.get(path)
                if before and before[0] == stamp:
                    found[path] = before
                else:
                    found[path] = (stamp, self._overview(path, running=bool(stamp[0]), followed=followed))
                if path in self._followed and stamp[0]:
                    followed.setdefault(path, self._followed[path])
        self._known, self._followed = found, followed
        return [entry for _, entry in found.values()]

    def _overview(self, path: Path, *, running: bool, followed: dict[Path, Follower]) -> Overview:
        config = read_json(path / "config.json") or {}
        result = None if running else read_json(path / "result.json")
        state = RunState()
        with contextlib.suppress(OSError):  # It hasn't emitted anything yet, or its events are gone.
            if result is not None:
                state = advance(state, last_events(path / "events.jsonl")[-1:])
            else:
                follower = self._followed.get(path) or Follower(path)
                follower.skim()
                state = follower.state
                if running:
                    followed[path] = follower
        return overview(path, config, state, result, running=running)


def stamp_of(path: Path) -> tuple[int, int] | None:
    """Returns what changes when a file does; None if it isn't there."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size


def overview(
    path: Path, config: Mapping[str, Any], state: RunState, result: Mapping[str, Any] | None, *, running: bool
) -> Overview:
    """Returns what is known of one run in a line.

    Raises:
        OSError: where its folder has vanished.
    """
    kind = str(config.get("kind", "?"))
    word = "running" if running else state.finished.status if state.finished is not None else "died"
    study = kind in ("study", "demo")
    clean, robust = latest(state, study=study) if result is None or word != "done" else accuracies(Result.parse(result))
    stage = state.stages.get(state.now)
    share, left = at_work(state)
    ended = state.finished.message if state.finished is not None and not running else ""
    loading = "loading TensorFlow" if running else ""
    return Overview(
        path=path,
        kind=kind,
        state=word,
        model=model_of(config),
        data=data_of(config),
        clean=clean,
        robust=robust,
        began=(path / "config.json").stat().st_mtime,
        share=share if running else None,
        seconds_left=left if running else None,
        doing=ended or (stage.title if stage is not None else loading),
        synthetic=is_synthetic(config, kind),
        marks=read_marks(path),
    )


def accuracy_range(accuracies: Accuracies) -> str:
    """Returns an accuracy, or the range of several networks' (`0.0-33.8 %`)."""
    if len(accuracies) == 2:
        return f"{100 * accuracies[0]:.1f}-{format_accuracy(accuracies[1])}"
    return format_accuracy(accuracies[0]) if accuracies else ""


def model_of(config: Mapping[str, Any]) -> str:
    """Returns the model that a run is about, or how many they are."""
    several = {"study": "several networks", "demo": "five networks"}
    return str(config.get("model", several.get(str(config.get("kind")), "")))


def accuracies(result: Result) -> tuple[Accuracies, Accuracies]:
    """Returns clean and robust accuracy of a result; of a study the range over its networks.

    A network's robust accuracy in a study is the lowest at the radius of reference: 8/255, or else the largest.
    """
    if result.rows is not None:
        return of_rows(result.rows)
    return one(result.clean_accuracy), one(result.robust_accuracy)


def of_rows(rows: Sequence[Row]) -> tuple[Accuracies, Accuracies]:
    """Returns the ranges of a study's clean and robust accuracies."""
    radius = reference_epsilon(rows)
    clean, robust = [], []
    for group in by_network(row for row in rows if row.noise == "on").values():
        clean += [value for row in group if row.attack is None for value in one(row.accuracy)]
        # Of an assessment the worst of the norms, of a study what is measured at the radius.
        union = [row for row in group if row.attack == "union"]
        counted = union or [row for row in group if row.attack and row.epsilon == radius]
        attacked = [value for row in counted for value in one(row.accuracy)]
        robust += [min(attacked)] if attacked else []
    return _range(clean), _range(robust)


def one(value: float | None) -> Accuracies:
    """Returns an accuracy as a range; none for what can't be one."""
    return () if value is None or not 0 <= value <= 1 else (value,)


def _range(values: Iterable[float]) -> Accuracies:
    ordered = sorted(values)
    return (ordered[0], ordered[-1]) if ordered else ()


def latest(state: RunState, *, study: bool) -> tuple[Accuracies, Accuracies]:
    """Returns the accuracies of the networks that a study has done, or a training's newest on validation images."""
    # The rows of a network come together at the end of its stage.
    done = {name for name, stage in state.stages.items() if stage.status in ("done", "skipped")}
    if study:
        return of_rows([Row.parse(vars(row)) for row in state.rows if row.stage is None or row.stage in done])
    last = {}
    for (_, split, name), series in state.series.items():
        if split == "validation":
            last[name] = series.ys[-1]
    return one(last.get("accuracy")), one(last.get("robust_accuracy"))


def at_work(state: RunState) -> tuple[float | None, float | None]:
    """Returns the share that is done of what is at work, and its seconds left, as far as they are known."""
    attack = next((line for line in reversed(state.attacks) if line.status == "running"), None)
    if attack is not None:
        return attack.share, attack.seconds_left
    stage = state.stages.get(state.now)
    progress = stage.progress if stage is not None and stage.status == "running" else None
    if progress is None or not progress.total:
        return None, None
    return progress.done / progress.total, progress.seconds_left
