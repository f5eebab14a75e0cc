"""One run's folder: made, locked, written, read again and followed. No TensorFlow here.

`config.json`, `events.jsonl`, `console.log`, `result.json`, `examples.h5`, `report.html`, `models/`, and `lock`, which a
living run holds (with its pid). Files appear whole: they are written under another name and then renamed.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from kerasrobust.config import RunConfig, to_dict
from kerasrobust.errors import InputError, unknown_name
from kerasrobust.events import Event, RunFinished, finite, from_json, to_json

# Settings that may differ when a run is taken up again: they change where and how it is shown, not what comes out.
_IRRELEVANT = ("overwrite", "quiet", "json", "runs_dir", "models_dir", "data_dir", "name")


def write_json(path: Path, value: Any) -> None:
    """Writes JSON under a temporary name and renames it, so that nobody meets half a file."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_text(json.dumps(finite(value), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def read_json(path: Path) -> dict[str, Any] | None:
    """Returns a JSON object, or None where there is none that can be read."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None


@dataclass
class Run:
    """A run's folder while this process works in it.

    Attributes:
        path: the folder.
        is_new: whether it was made just now.
    """

    path: Path
    is_new: bool
    _lock: IO[str]
    _events: IO[str] | None = None

    @property
    def name(self) -> str:
        return self.path.name

    def write(self, event: Event) -> None:
        """Appends an event to `events.jsonl`: a whole line in one write."""
        if self._events is None:
            self._events = (self.path / "events.jsonl").open("a", encoding="utf-8")
        self._events.write(to_json(event) + "\n")
        self._events.flush()

    def close(self) -> None:
        """Lets go of the folder."""
        if self._events is not None:
            self._events.close()
        self._lock.close()

    def discard(self) -> None:
        """Removes the folder of a run that never began."""
        self.close()
        shutil.rmtree(self.path)


def open_run(config: RunConfig) -> Run:
    """Makes a run's folder, or takes up the unfinished one of the same name and settings, and locks it.

    A finished study is taken up too: its stages are done, so it ends at once with the same table.

    Raises:
        InputError: where the folder is in use, finished, of other settings, or can't be written.
    """
    name = config.name or f"{config.kind}-{time.strftime('%Y%m%d-%H%M%S')}"
    path = config.runs_dir / name
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if not config.name:
            while path.exists():
                path = path.with_name(path.name + "b")
        is_new = not path.exists()
        path.mkdir(exist_ok=True)
        lock = (path / "lock").open("a+")
    except OSError as error:
        raise InputError(
            f"Expected a folder for runs that can be written. Received: {config.runs_dir} ({error.strerror}). "
            "Choose another with --runs-dir."
        ) from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.seek(0)
        owner = lock.read().strip()
        lock.close()
        raise InputError(
            f"Expected a run folder that is free. Received: {path}, in use by process {owner or 'unknown'}. "
            "Wait for it, stop it, or choose another --name."
        ) from None
    run = Run(path=path, is_new=is_new, _lock=lock)
    try:
        if not is_new:
            _take_up(path, config)
        lock.truncate(0)
        lock.write(f"{os.getpid()}\n")
        lock.flush()
        write_json(path / "config.json", to_dict(config))
    except OSError as error:
        run.close()
        raise InputError(
            f"Expected a run folder that can be written. Received: {path} ({error.strerror}). "
            "Free some space, or choose another with --runs-dir."
        ) from error
    except InputError:
        run.close()
        raise
    return run


def _take_up(path: Path, config: RunConfig) -> None:
    """Checks that an existing folder may be gone on with; empties it where it is to be overwritten."""
    if config.overwrite:
        for item in path.iterdir():
            if item.name != "lock":
                shutil.rmtree(item) if item.is_dir() else item.unlink()
        return
    before = read_json(path / "config.json")
    if before is None:
        if any(item.name != "lock" for item in path.iterdir()):
            raise InputError(f"Expected a run's folder. Received: {path}, which holds something else. Choose another.")
        return

    def relevant(settings: dict[str, Any]) -> dict[str, Any]:
        return {key: value for key, value in settings.items() if key not in _IRRELEVANT}

    now = json.loads(json.dumps(finite(to_dict(config))))
    if relevant(before) != relevant(now):
        differing = sorted(key for key in relevant(now) if relevant(before).get(key) != relevant(now)[key])
        raise InputError(
            f"Expected the settings that run {path.name!r} was started with. Received: other {', '.join(differing)}. "
            "Choose another --name, or replace it with --overwrite."
        )
    if (path / "result.json").exists() and config.kind not in ("study", "demo"):
        raise InputError(
            f"Expected a name that is free. Received: {path.name!r}, a finished run. "
            "Choose another --name, or replace it with --overwrite."
        )


def read_events(path: Path, offset: int = 0) -> tuple[list[Event], int]:
    """Returns the whole events of a file from a byte offset on, and the offset to go on from.

    A torn last line is left for the next call; lines that aren't events of this version are skipped.

    Example:
        >>> events, offset = read_events(run / "events.jsonl")
        >>> more, offset = read_events(run / "events.jsonl", offset)
    """
    with path.open("rb") as file:
        file.seek(offset)
        data = file.read()
    whole = data.rfind(b"\n") + 1
    found = [from_json(line) for line in data[:whole].splitlines()]
    return [event for event in found if event is not None], offset + whole


def is_locked(path: Path) -> bool:
    """Tells whether a living process works in this run's folder."""
    with contextlib.suppress(OSError), (path / "lock").open() as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def state(path: Path) -> str:
    """Returns `running`, `done`, `failed`, `cancelled`, or `died` for a run that ended without saying so."""
    if is_locked(path):
        return "running"
    try:
        events, _ = read_events(path / "events.jsonl")
    except OSError:
        return "died"
    last = events[-1] if events else None
    return last.status if isinstance(last, RunFinished) else "died"


def list_runs(runs_dir: Path) -> list[Path]:
    """Returns the folders of all runs, the newest first."""
    if not runs_dir.is_dir():
        return []
    found = [path for path in runs_dir.iterdir() if (path / "config.json").is_file()]
    return sorted(found, key=lambda path: (path / "config.json").stat().st_mtime, reverse=True)


def read_card(folder: Path) -> dict[str, Any] | None:
    """Returns a saved model's card, or None where there is none."""
    return read_json(folder / "card.json")


def list_models(models_dir: Path) -> list[Path]:
    """Returns the folders of all saved models with a card, by name."""
    if not models_dir.is_dir():
        return []
    return sorted(path for path in models_dir.iterdir() if (path / "card.json").is_file())


def find(subject: str, config: RunConfig) -> Path:
    """Returns the folder of a run or saved model, named or given by path.

    Raises:
        InputError: where there is none, with the nearest name.
    """
    for path in (Path(subject), config.runs_dir / subject, config.models_dir / subject):
        if (path / "config.json").is_file() or (path / "card.json").is_file():
            return path
    known = [path.name for path in [*list_runs(config.runs_dir), *list_models(config.models_dir)]]
    raise unknown_name("run or model", subject, known)


def stage_results(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields the names and results of the stages that a run has finished."""
    folder = path / "stages"
    for file in sorted(folder.glob("*.json")) if folder.is_dir() else []:
        if (value := read_json(file)) is not None:
            yield file.stem, value
