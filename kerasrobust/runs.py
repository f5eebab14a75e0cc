"""One run's folder: made, locked, written and read again. No TensorFlow here.

`config.json`, `events.jsonl`, `console.log`, `result.json`, `examples.h5`, `report.html`, `models/`, `marks.json` for a
person's words, and `lock`, which a living run holds (with its pid and when it began, in Unix seconds). Files appear
whole: they are written under another name and then renamed.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import time
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import IO, Any

from kerasrobust.entries import Data
from kerasrobust.errors import InputError, unknown_name
from kerasrobust.events import Event, RunFinished, finite, printable, to_json
from kerasrobust.settings import CommandConfig, RunConfig, to_dict
from kerasrobust.tail import last_events

# Settings that may differ when a run is resumed: they change where and how it is shown, not its result.
IRRELEVANT = ("overwrite", "quiet", "json", "runs_dir", "models_dir", "data_dir", "name", "tags", "note", "notify")

MARKS = "marks.json"  # Whatever takes a run's place takes it over.


def write_whole(path: Path, text: str) -> None:
    """Writes a file under a temporary name and renames it, so that nobody reads half of it."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Writes JSON, whole or not at all; what isn't finite becomes null."""
    write_whole(path, json.dumps(finite(value), indent=1) + "\n")


def read_json(path: Path) -> dict[str, Any] | None:
    """Returns the JSON object in a file, or None if there is none that can be read."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):  # The last for brackets without end.
        return None
    return printable(value) if isinstance(value, dict) else None


@dataclass
class Run:
    """A run's folder while this process works in it.

    Attributes:
        is_new: whether it was made just now, also in place of another run.
        is_settled: whether the run is under way, so that what it replaces is gone.
        before: the settings that were in the folder, of this run or of the one that it replaces.
    """

    path: Path
    is_new: bool
    _lock: IO[str]
    _events: IO[str] | None = None
    _replaced: Path | None = None
    is_settled: bool = False
    before: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.path.name

    def write(self, event: Event) -> None:
        """Appends an event to `events.jsonl`: a whole line in one write."""
        if self._events is None:
            path = self.path / "events.jsonl"
            torn = path.exists() and path.read_bytes()[-1:] not in (b"", b"\n")
            self._events = path.open("a", encoding="utf-8")
            if torn:  # A process died while writing: the next event must not end up in that line.
                self._events.write("\n")
        self._events.write(to_json(event) + "\n")
        self._events.flush()

    @property
    def replaces(self) -> bool:
        """Whether there is a run put aside, which comes back unless this one gets under way."""
        return self._replaced is not None

    def settle(self) -> None:
        """Records that the run is under way: what it replaces is removed."""
        self.is_settled = True
        replaced, self._replaced = self._replaced, None
        if replaced is not None:
            shutil.rmtree(replaced)

    def close(self) -> None:
        """Releases the folder; a run that was to replace another and never got under way is discarded."""
        if self._replaced is not None:
            return self.discard()
        try:
            if self._events is not None:
                self._events.close()
        finally:
            self._lock.close()

    def discard(self) -> None:
        """Removes the folder of a run that never began, and restores the one that it was to replace."""
        replaced, self._replaced = self._replaced, None
        with contextlib.suppress(OSError):  # What couldn't be written to a full disk is removed anyway.
            self.close()
        shutil.rmtree(self.path)
        if replaced is not None:
            replaced.rename(self.path)


def open_run(config: RunConfig) -> Run:
    """Makes a run's folder, or resumes the unfinished one of the same name and settings, and locks it.

    A finished study is resumed too: its stages are done, so it ends at once with the same table. With `overwrite` a run
    that can't be resumed is put aside, until `Run.settle` removes it or `Run.discard` restores it.

    Raises:
        InputError: where the folder is in use, finished, of other settings, or can't be written.
    """
    with contextlib.ExitStack() as undo:
        try:
            config.runs_dir.mkdir(parents=True, exist_ok=True)
            path, is_new = _make_folder(config)
            if is_new:
                undo.callback(_remove_if_empty, path)
            lock = undo.enter_context((path / "lock").open("a+"))
            _take_lock(lock, path)
            if is_new:
                undo.callback(shutil.rmtree, path, ignore_errors=True)
            replaced, before = None, read_json(path / "config.json") or {}
            if not is_new and (refusal := _refusal(path, config)):
                if not config.overwrite or not (path / "config.json").is_file():
                    raise refusal
                is_new, replaced = True, path.with_name(f".{path.name}.{os.getpid()}")
                path.rename(replaced)
                undo.callback(replaced.rename, path)
                lock.close()
                path.mkdir()
                undo.callback(shutil.rmtree, path, ignore_errors=True)
                if (replaced / MARKS).is_file():
                    shutil.copy(replaced / MARKS, path)
                lock = undo.enter_context((path / "lock").open("a+"))
                _take_lock(lock, path)
            if replaced is None and not is_new:
                replaced = _put_aside(path)
            lock.truncate(0)
            # With the time, since pids are used again.
            lock.write(f"{os.getpid()} {time.time():.0f}\n")
            lock.flush()
            write_json(path / "config.json", to_dict(config))
        except OSError as error:
            raise InputError(
                f"Expected a folder for runs that can be written. Received: {config.runs_dir} ({error.strerror}). "
                "Free some space, or choose another with --runs-dir."
            ) from error
        undo.pop_all()
    return Run(path=path, is_new=is_new, _lock=lock, _replaced=replaced, before=before)


def _put_aside(path: Path) -> Path | None:
    """Returns the run that a process put aside for this one and was killed; None where it's superseded, and removes it.

    It is if this run has work of its own: then the process was killed while it removed the other.
    """
    before = f".{path.name}."
    # The whole rest is a number: what was put aside for a run `a.b` isn't that of a run `a`.
    beside = [other for other in path.parent.iterdir() if other.name.startswith(before)]
    aside = [other for other in beside if other.name[len(before) :].isdigit()]
    idle = {item.name for item in path.iterdir()} <= {"config.json", "lock", "events.jsonl", "console.log", MARKS}
    kept = max(aside, key=lambda other: other.stat().st_mtime, default=None) if idle else None
    for other in aside:
        if other != kept:
            shutil.rmtree(other)
    return kept


def _make_folder(config: RunConfig) -> tuple[Path, bool]:
    """Returns the run's folder, and whether it was made just now.

    A run without a name resumes an unfinished one with the same settings, if its command can do so.
    """
    if config.name is None and config.resumes_unnamed and not config.overwrite:
        for path in list_runs(config.runs_dir):
            unnamed = (read_json(path / "config.json") or {"name": ""}).get("name") is None
            if unnamed and not is_locked(path) and (path / "batches").is_dir() and _refusal(path, config) is None:
                return path, False
    path = config.runs_dir / (config.name or f"{config.kind}-{time.strftime('%Y%m%d-%H%M%S')}")
    while True:
        try:
            path.mkdir()
        except FileExistsError:
            if config.name is None:
                path = path.with_name(path.name + "b")
                continue
            if not path.is_dir():
                raise
            return path, False
        return path, True


def _remove_if_empty(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.rmdir()


def _take_lock(lock: IO[str], path: Path) -> None:
    """Locks a run's folder for this process; raises InputError where another one works in it."""
    for pause in (0.05, 0.1, None):  # `is_locked` of another process holds it for a moment.
        try:
            return fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if pause is not None:
                time.sleep(pause)
    lock.seek(0)
    owner, *_ = [*lock.read().split(), "unknown"]
    raise InputError(
        f"Expected a run folder that is free. Received: {path}, in use by process {owner}. "
        "Wait for it, stop it, or choose another --name."
    )


def _refusal(path: Path, config: RunConfig) -> InputError | None:
    """Returns why an existing run can't be resumed, or None if it can."""
    before = read_json(path / "config.json")
    if before is None:
        if any(item.name != "lock" for item in path.iterdir()):
            return InputError(f"Expected a run's folder. Received: {path}, which holds something else. Choose another.")
        return None

    def relevant(settings: dict[str, Any]) -> dict[str, Any]:
        return {key: value for key, value in settings.items() if key not in IRRELEVANT}

    # A setting that an older version didn't have was at its default.
    defaults = {item.name: item.default for item in fields(config) if item.default is not MISSING}
    then, now = (
        relevant(json.loads(json.dumps(finite(settings), default=str)))
        for settings in (defaults | before, to_dict(config))
    )
    if then != now:
        differing = sorted(key for key in then | now if then.get(key) != now.get(key))
        return InputError(
            f"Expected the settings that run {path.name!r} was started with. Received: other {', '.join(differing)}. "
            "Choose another --name, or replace it with --overwrite."
        )
    finished = (path / "result.json").exists() and (not config.resumes_unnamed or _is_done(path))
    if finished and (config.overwrite or not config.resumes_finished):
        return InputError(
            f"Expected a name that is free. Received: {path.name!r}, a finished run. "
            "Choose another --name, or replace it with --overwrite."
        )
    return None


def _is_done(path: Path) -> bool:
    """Whether a run came to its end; one that was killed after its result was written didn't."""
    with contextlib.suppress(OSError):
        return any(
            isinstance(event, RunFinished) and event.status == "done" for event in last_events(path / "events.jsonl")
        )
    return True  # No events: assume that it did.


def is_locked(path: Path) -> bool:
    """Whether a living process works in this run's folder."""
    with contextlib.suppress(OSError), (path / "lock").open() as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def owner(path: Path) -> int | None:
    """Returns the pid of the process that works in this run's folder, from its lock; None if there is none."""
    if not is_locked(path):
        return None
    try:
        word, *_ = [*(path / "lock").read_bytes().split(), b""]
    except OSError:
        return None
    # Signals to 0 and 1 would go to a whole process group and to init.
    return int(word) if word.isdigit() and len(word) < 10 and int(word) > 1 else None


def state(path: Path) -> str:
    """Returns `running`, `done`, `failed`, `cancelled`, or `died` for a run that ended without a last event."""
    if is_locked(path):
        return "running"
    try:
        events = last_events(path / "events.jsonl")
    except OSError:
        return "died"
    last = events[-1] if events else None
    return last.status if isinstance(last, RunFinished) else "died"


def delete(path: Path) -> None:
    """Removes a run's folder, with everything in it.

    Raises:
        InputError: if it isn't a run's folder, a living process works in it, or it can't be removed.
    """
    if not (path / "config.json").is_file():
        raise InputError(f"Expected a run's folder to delete. Received: {path}, which is not one. Choose a run.")
    remove_folder(path, lock=path / "lock")


def remove_folder(path: Path, lock: Path | None = None) -> None:
    """Removes a folder, but never a link's target; raises InputError if it can't, or a process holds the `lock`."""
    # Renamed first, so that it disappears at once, however long the removal takes.
    hidden = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        if path.is_symlink():
            path.unlink()
            return
        with contextlib.nullcontext() if lock is None else lock.open("a") as held:
            if held is not None:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.rename(hidden)
        shutil.rmtree(hidden)
    except BlockingIOError as error:
        raise InputError(
            f"Expected a run that has ended. Received: {path}, which is running. Cancel it first."
        ) from error
    except OSError as error:
        left = hidden if hidden.exists() else path
        raise InputError(
            f"Expected a folder that can be removed. Received: {left} ({error.strerror}). Remove it by hand."
        ) from error


def list_runs(runs_dir: Path) -> list[Path]:
    """Returns the folders of all runs, the newest first."""
    if not runs_dir.is_dir():
        return []
    found = []
    for path in runs_dir.iterdir():
        if not path.name.startswith("."):  # What is being replaced.
            with contextlib.suppress(OSError):  # Not a run, or removed in the meantime.
                found.append(((path / "config.json").stat().st_mtime_ns, path))
    return [path for _, path in sorted(found, reverse=True)]


def read_card(folder: Path) -> dict[str, Any] | None:
    """Returns a saved model's card, or None if there is none."""
    return read_json(folder / "card.json")


def data_of(config: Mapping[str, Any]) -> str:
    """Returns the data of a run by its settings: where none is said, those on the model's card, or else `shapes`.

    Example:
        >>> data_of({"kind": "attack", "model": "convnet-pgd", "data": None, "models_dir": "saved_models"})
        'cifar10'
    """
    said = config.get("data")
    said = said if isinstance(said, str) else Data.parse(config).name  # A name may hold what can't be printed.
    if said or "model" not in config or config.get("kind") in ("train", "import"):
        return said
    return Data.parse(card_of(str(config["model"]), config.get("models_dir", ""))).name or "shapes"


def card_of(model: str, models_dir: str | Path) -> dict[str, Any]:
    """Returns the card of a model that is named, or given by its folder or a file in that; empty if there is none."""
    path = Path(model)
    folders = (Path(models_dir) / path, path, path.parent)
    return next((card for folder in folders if (card := read_card(folder)) is not None), {})


def list_models(models_dir: Path) -> list[Path]:
    """Returns the folders of all saved models with a card, by name; of none that is being written or removed."""
    if not models_dir.is_dir():
        return []
    return sorted(path for path in models_dir.iterdir() if path.name[0] != "." and (path / "card.json").is_file())


def find(subject: str, config: CommandConfig) -> Path:
    """Returns the folder of a run or saved model, named or given by path.

    Raises:
        InputError: if there is none, with the nearest name.
    """
    for path in (Path(subject), config.runs_dir / subject, config.models_dir / subject):
        if (path / "config.json").is_file() or (path / "card.json").is_file():
            return path
    known = [path.name for path in [*list_runs(config.runs_dir), *list_models(config.models_dir)]]
    raise unknown_name("run or model", subject, known)
