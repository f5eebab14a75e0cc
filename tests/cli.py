"""The command line as tests use it: called in this process, or started as one of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from kerasrobust import run
from kerasrobust.events import Event
from kerasrobust.tail import Tail

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Outcome:
    """How a command ended, and what it wrote on the two file descriptors, from Python and from C."""

    status: int
    out: str
    err: str

    @property
    def message(self) -> str:
        """The one line of a command that refuses its input; checks that there is nothing else."""
        assert self.status == 2, (self.status, self.err)
        assert self.err.count("\n") == 1 and self.err.endswith("\n"), self.err
        line = self.err.removeprefix("kerasrobust: ").rstrip("\n")
        assert line.startswith("Expected ") and line.endswith((".", "?")), line
        assert "Received: " in line, line
        assert "Traceback" not in line and "│" not in line, line
        return line


def call(*words: str | Path, encoding: str = "utf-8") -> Outcome:
    """Calls the command line in this process, which spares the seconds that TensorFlow takes to start."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        kept = os.dup(1), os.dup(2)
        streams = sys.stdout, sys.stderr
        try:
            os.dup2(out.fileno(), 1)
            os.dup2(err.fileno(), 2)
            # Unlike pytest's own, these write through the file descriptors, as in a process of its own.
            with (
                open(1, "w", encoding=encoding, closefd=False) as sys.stdout,
                open(2, "w", buffering=1, errors="backslashreplace", closefd=False) as sys.stderr,
            ):
                status = run.main([str(word) for word in words])
        finally:
            sys.stdout, sys.stderr = streams
            for number, copy in enumerate(kept, start=1):
                os.dup2(copy, number)
                os.close(copy)
        texts = []
        for file in (out, err):
            file.seek(0)
            texts.append(file.read().decode())
    return Outcome(status, *texts)


def start(*words: str | Path, cwd: Path | None = None) -> subprocess.Popen[str]:
    """Starts the command line in a process of its own."""

    def prepare() -> None:
        # A test suite in the background has it ignored, and what it starts inherits that.
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    return subprocess.Popen(
        [sys.executable, "-m", "kerasrobust.run", *map(str, words)],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=prepare,
    )


def finish(process: subprocess.Popen[str], seconds: float = 120) -> Outcome:
    """Waits for the end of a process."""
    try:
        out, err = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    return Outcome(process.returncode, out, err)


def read_events(path: Path, offset: int = 0) -> tuple[list[Event], int]:
    """Returns the whole events of a file from a byte offset on, and the offset to read on from."""
    tail = Tail(path, offset)
    found: list[Event] = []
    while (piece := tail.read()).more or piece.events:
        found += piece.events
    return found, tail.offset


def events(folder: Path) -> list[Event]:
    """Returns what happened in a run so far."""
    path = folder / "events.jsonl"
    return read_events(path)[0] if path.exists() else []


def wait_for(process: subprocess.Popen[str], ready: Callable[[], bool], seconds: float = 120) -> None:
    """Waits until something has happened while a process runs."""
    end = time.monotonic() + seconds
    while not ready():
        if process.poll() is not None or time.monotonic() > end:
            outcome = finish(process, 0.1)
            raise AssertionError(f"It ended too early, or never got there: {outcome}")
        time.sleep(0.02)


def interrupt(process: subprocess.Popen[str]) -> tuple[Outcome, float]:
    """Sends SIGINT, as Ctrl-C does; returns how the process ended, and when it was sent."""
    sent = time.time()
    process.send_signal(signal.SIGINT)
    return finish(process, 60), sent
