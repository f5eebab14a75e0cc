"""The runs that this UI has started: child processes of their own session, which outlive it. No Textual here."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shlex
import signal
import subprocess
import tempfile
import time
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from kerasrobust.errors import InputError
from kerasrobust.events import printable
from kerasrobust.runs import is_locked, owner
from kerasrobust.settings import RunConfig, command_line

GRACE_SECONDS = 10.0
"""Grace period before the next stronger signal: SIGINT, SIGTERM, SIGKILL."""

NICENESS = 10
"""Niceness of runs: where cores are few, a key press comes before the next step. Alone they are as fast."""

_ENGINE_WORDS = 3  # python -m kerasrobust.run


@dataclass
class Child:
    """A run that this process has started.

    Attributes:
        path: the run's folder, there once the engine has begun.
        command: what was started, as one can paste it.
        config: its settings.
        process: the child, leader of a session and a process group.
        began: when it was started, in Unix seconds.
        asked: when it was asked to stop, by the monotonic clock; None before.
        signals: how many of the signals it has been sent.
        refused: whether it has ended with bad input, or before it began; known once its end was noted.
    """

    path: Path
    command: str
    config: RunConfig
    process: subprocess.Popen[bytes]
    _errors: IO[bytes]
    began: float
    asked: float | None = None
    signals: int = 0
    refused: bool = False
    _message: str = ""

    @property
    def ended(self) -> bool:
        return self.process.poll() is not None

    @property
    def was_cancelled(self) -> bool:
        """Whether it has ended as somebody asked it to; it says so itself only once it has begun."""
        return self.asked is not None and self.process.poll() in (-signal.SIGINT, -signal.SIGTERM, 130)

    @property
    def was_killed(self) -> bool:
        return (self.process.poll() or 0) < 0

    @property
    def settled(self) -> bool:
        """Whether its end was noted."""
        return self._errors.closed

    def settle(self) -> None:
        """Notes its end: keeps its last message and closes the file."""
        self._message = self.message()
        self.refused = self.process.returncode == 2 or not (self.path / "config.json").exists()
        self._errors.close()

    def exit_words(self) -> str:
        """Returns how it has ended, such as `exit status 1` or `killed by SIGKILL`; nothing while it lives."""
        status = self.process.poll()
        if status is None:
            return ""
        if status < 0:
            with contextlib.suppress(ValueError):
                return f"killed by {signal.Signals(-status).name}"
        return f"exit status {status}"

    def last_words(self) -> str:
        """Returns why it was refused, or how it has ended."""
        return self.message() or f"{self.exit_words()}: {self.command}"

    def message(self) -> str:
        """Returns its last line on standard error, which says what is wrong with the input."""
        if self._errors.closed:
            return self._message
        end = self._errors.seek(0, os.SEEK_END)
        self._errors.seek(max(0, end - 10_000))
        lines = self._errors.read().decode(errors="replace").split("\n")
        return printable(next((line.strip() for line in reversed(lines) if line.strip()), ""))


class Runner:
    """Starts runs with the words that start the engine, knows which are its own, and stops runs.

    Example:
        >>> child = Runner([sys.executable, "-m", "kerasrobust.run"]).start(DemoConfig())
    """

    def __init__(self, engine: Sequence[str]) -> None:
        self.engine = list(engine)
        self.children: dict[Path, Child] = {}

    def start(self, config: RunConfig) -> Child:
        """Starts a run in a process of its own, under a name that is made here where it has none.

        Raises:
            InputError: where no process can be started.
        """
        config = named(config, self.children)
        known = self.children.get(config.runs_dir / str(config.name))
        if known is not None and not known.ended:
            raise InputError(
                f"Expected a run that has ended. Received: {config.name}, which is starting or running. "
                "Wait for it, or cancel it first."
            )
        command = command_line(config)
        try:
            with contextlib.ExitStack() as undo:
                errors = undo.enter_context(tempfile.TemporaryFile())
                process = subprocess.Popen(
                    [*self.engine, *shlex.split(command)[_ENGINE_WORDS:]],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,  # Its events hold all that it reports.
                    stderr=errors,
                    start_new_session=True,
                )
                undo.pop_all()  # Read as long as the child is known.
        except OSError as error:
            raise InputError(
                f"Expected to start {self.engine[0]}. Received: {error.strerror}. "
                "Free some space, or see whether the environment is still there."
            ) from error
        _give_way(process.pid)
        assert config.name is not None
        child = Child(config.runs_dir / config.name, command, config, process, errors, time.time())
        self.children[child.path] = child
        return child

    def running(self) -> list[Child]:
        return [child for child in self.children.values() if not child.ended]

    def forget(self, path: Path) -> bool:
        """Forgets a run that was started here and has ended; returns whether there was one."""
        child = self.children.get(path)
        if child is None or not child.ended:
            return False
        del self.children[path]
        return True

    def cancel(self, path: Path) -> str:
        """Asks a run to stop, its own or another's; returns what was done, in words.

        Of an own one the whole group is signalled, and `escalate` sends the next signals. Another's gets SIGINT,
        and is never killed.

        Raises:
            InputError: where it isn't running, or belongs to somebody else.
        """
        child = self.children.get(path)
        if child is not None and not child.ended:
            if child.asked is None:
                child.asked = time.monotonic()
                self._signal(child)
                return "asked to stop; it saves what is done"
            self._signal(child)
            return "asked again"
        if not is_locked(path):
            raise InputError(f"Expected a running run. Received: {path.name}, which has ended. Leave it.")
        pid = owner(path)
        if pid is None:
            raise InputError(f"Expected a process in {path / 'lock'}. Received: none. Stop it where it was started.")
        try:
            os.kill(pid, signal.SIGINT)
        except OSError as error:
            raise InputError(
                f"Expected a process that may be stopped. Received: {pid} ({error.strerror}). "
                "Stop it where it was started."
            ) from error
        return "asked to stop; it was started elsewhere"

    def escalate(self) -> Iterable[tuple[Child, str]]:
        """Sends the next signal to those that were asked to stop and haven't; to be called now and then."""
        for child in self.running():
            if child.asked is not None and time.monotonic() - child.asked > GRACE_SECONDS * child.signals:
                yield child, self._signal(child)

    def _signal(self, child: Child) -> str:
        number = (signal.SIGINT, signal.SIGTERM, signal.SIGKILL)[min(child.signals, 2)]
        child.signals += 1
        with contextlib.suppress(ProcessLookupError):  # It has ended in between.
            os.killpg(child.process.pid, number)
        return number.name


def _give_way(pid: int) -> None:
    """Lowers the priority of a run that has just been started, before it makes threads."""
    with contextlib.suppress(OSError):  # It has ended already.
        os.setpriority(os.PRIO_PROCESS, pid, NICENESS)
    # Linux shares the cores between sessions first, and between the processes of each after that.
    with contextlib.suppress(OSError):
        Path(f"/proc/{pid}/autogroup").write_text(str(NICENESS))


def named(config: RunConfig, taken: Collection[Path] = ()) -> RunConfig:
    """Returns the config with a name that no run in its folder has, made from command and time, where it has none.

    `taken` are folders that are not there yet, but will be.
    """
    if config.name is not None:
        return config
    name = stem = f"{config.kind}-{time.strftime('%Y%m%d-%H%M%S')}"
    number = 1
    while config.runs_dir / name in taken or (config.runs_dir / name).exists():
        number += 1
        name = f"{stem}-{number}"
    return dataclasses.replace(config, name=name)
