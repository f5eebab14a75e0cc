"""A stand-in for `python -m kerasrobust.run`: takes the same words, and replays what the real one has recorded.

It makes the folder, holds the lock and stops on SIGINT as the real one does, but computes nothing. FAKE_STOP_AT is
the number of events after which it waits until it is stopped, or there is a file `GO_ON` in its folder.
"""

from __future__ import annotations

import dataclasses
import gzip
import os
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from kerasrobust.errors import InputError
from kerasrobust.events import Event, RunFinished, RunStarted, from_json
from kerasrobust.marks import mark_at_start
from kerasrobust.run import parse
from kerasrobust.runs import open_run
from kerasrobust.settings import to_dict

RECORDINGS = Path(__file__).parent / "recordings"
ENGINE = (sys.executable, __file__)
SECONDS = 0.2
"""How long a run takes."""
GO_ON = "go-on"
_LIKE = {"study": "demo", "import": "attack"}
_PICTURED = ("demo", "train", "attack")
"""Runs that keep adversarial images."""


def recorded(kind: str) -> list[Event]:
    """Returns the events of a recorded run; imports and studies are played by what is most like them."""
    lines = gzip.decompress((RECORDINGS / f"{_LIKE.get(kind, kind)}.jsonl.gz").read_bytes()).splitlines()
    return [event for event in map(from_json, lines) if event is not None]


def leave_files(kind: str, folder: Path) -> None:
    """Puts what a run leaves beside its events into a folder: the recorded result, and a few images."""
    shutil.copytree(RECORDINGS / _LIKE.get(kind, kind), folder, dirs_exist_ok=True)
    if _LIKE.get(kind, kind) in _PICTURED:
        write_pictures(folder / "examples.h5")


def write_pictures(path: Path, count: int = 6) -> None:
    """Writes pictures of the embedded set under an attack that isn't one: every third is still right after it."""
    import numpy as np

    from kerasrobust.data.shapes import CLASS_NAMES, generate
    from kerasrobust.show.examples import write_examples

    x, y = generate(count, seed=0)
    x = x.astype(np.float32) / 255
    x_adv = np.clip(x + np.where(np.indices(x.shape).sum(axis=0) % 2, 8, -8).astype(np.float32) / 255, 0, 1)
    success = np.arange(count) % 3 != 0
    part = {
        "x": x, "x_adv": x_adv, "y": y, "prediction": y, "prediction_adv": np.where(success, (y + 1) % 10, y),
        "success": success, "correct_rate": 1.0 - success, "distance": np.full(count, 8 / 255, np.float32),
        "confidence": np.full(count, 0.9, np.float32), "confidence_adv": np.full(count, 0.6, np.float32),
        "attack": "pgd", "epsilon": 8 / 255, "eot": 1,
    }  # fmt: skip
    write_examples(path, [part], model="small", norm="linf", class_names=CLASS_NAMES)


def played(events: list[Event], **started: Any) -> Iterator[Event]:
    """Yields recorded events as if they happened now."""
    for event in events:
        changes: dict[str, Any] = {"time": time.time()}
        if isinstance(event, RunStarted):
            changes |= started
        yield dataclasses.replace(event, **changes)


def main() -> int:
    stop = False

    def ask(*_: object) -> None:
        nonlocal stop
        stop = True

    signal.signal(signal.SIGINT, ask)
    signal.signal(signal.SIGTERM, ask)
    try:
        config = parse(sys.argv[1:])
        assert config is not None
        run = open_run(config)
        mark_at_start(run, config)
    except InputError as error:
        print(f"kerasrobust: {error}", file=sys.stderr)
        return 2
    (run.path / "console.log").write_text("what a library has printed\nand its last line\n")
    events = recorded(config.kind)
    pause = SECONDS / len(events)
    halt = int(os.environ.get("FAKE_STOP_AT", "-1"))
    for number, event in enumerate(played(events, run=run.name, pid=os.getpid(), config=to_dict(config))):
        while number == halt and not stop and not (run.path / GO_ON).exists():
            time.sleep(0.02)
        if stop:
            run.write(RunFinished(status="cancelled", seconds=1.0, message="What is done so far is kept."))
            return 130
        if isinstance(event, RunFinished):
            leave_files(config.kind, run.path)
        run.write(event)
        time.sleep(pause)
    run.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
