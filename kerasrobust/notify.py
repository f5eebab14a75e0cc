"""A command of a person's own that hears of a run: beside it, so that it neither delays nor fails the run.

As a program, started by its path, it runs the command and waits for it. It imports nothing of the package, and outlives
the run.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shlex
import subprocess
import sys
import threading
from pathlib import Path


def notify(command: str, run: Path, status: str, message: str) -> None:
    """Starts a command in the background, without a shell, with what happened in its environment.

    What it prints goes to the run's `console.log`, and so does, once, that it failed.

    Args:
        command: words as a shell takes them.
        run: the run's folder, whose name is `KERASROBUST_RUN`.
        status: `KERASROBUST_STATUS`: done, failed or cancelled, or the severity of a finding.
        message: `KERASROBUST_MESSAGE`: one or more sentences.

    Example:
        >>> notify("notify-send kerasrobust", Path("runs/one"), "done", "Everything is in runs/one.")
        ... # doctest: +SKIP
    """
    told = {"RUN": run.name, "STATUS": status, "MESSAGE": message.replace("\0", "")}
    try:
        process = subprocess.Popen(
            [sys.executable, "-I", __file__, str(run / "console.log"), *shlex.split(command)],
            env=os.environ | {f"KERASROBUST_{name}": words for name, words in told.items()},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # What stops the run doesn't stop it.
        )
    except OSError as error:
        _say(run / "console.log", command, error.strerror or "")
    else:
        threading.Thread(target=process.wait, daemon=True).start()  # So that it leaves no zombie.


def main(log: str, *words: str) -> None:
    """Runs a command; says in the log if it can't be run, or ends with another status than 0."""
    with contextlib.ExitStack() as stack:
        output: object = subprocess.DEVNULL
        with contextlib.suppress(OSError):  # The folder may be gone by now.
            output = stack.enter_context(Path(log).open("a"))
        try:
            status = subprocess.run(words, stdin=subprocess.DEVNULL, stdout=output, stderr=output).returncode  # type: ignore[call-overload]
            problem = f"exit status {status}" if status > 0 else f"killed by signal {-status}" if status else ""
        except OSError as error:
            problem = error.strerror or type(error).__name__
    if problem:
        _say(Path(log), shlex.join(words), problem)


def _say(log: Path, command: str, problem: str) -> None:
    """Says in the log that a command failed, unless it says so already."""
    line = f"kerasrobust: Expected a command that works for --notify. Received: {command} ({problem}). Try it by hand."
    with contextlib.suppress(OSError), log.open("a+", errors="replace") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # Two may fail at once.
        file.seek(0)
        if line not in file.read().splitlines():
            file.write(f"{line}\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
