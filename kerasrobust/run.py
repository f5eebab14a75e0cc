"""The headless command line: `python -m kerasrobust COMMAND [options]`, also installed as `kerasrobust`."""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from kerasrobust import __version__, require_tensorflow
from kerasrobust.arguments import PROGRAM, parse
from kerasrobust.commands import COMMANDS, load
from kerasrobust.errors import Cancelled, InputError
from kerasrobust.events import Event, RunStarted, to_json
from kerasrobust.settings import RunConfig

GRACE_SECONDS = 1.0
"""How long the work may take to notice a request to stop before it is interrupted wherever it is."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit status: 0 done, 1 failed, 2 bad input, 130 cancelled."""
    people, words = sys.stderr, sys.argv[1:] if argv is None else list(argv)
    try:
        if words[:1] == ["--version"]:
            print(f"{PROGRAM} {__version__}")
            return 0
        config = parse(words)
        if config is None:
            return 0
        require_tensorflow()
        if not isinstance(config, RunConfig):
            return int(load(COMMANDS[config.kind].answer)(config))
        status = _run(config)
        if status == 130 and argv is None:
            # Everything is on disk, and TensorFlow would take up to a second to clean up.
            sys.stdout.flush()
            os._exit(status)
        return status
    except InputError as error:
        print(f"{PROGRAM}: {error}", file=people)
        return 2
    except BrokenPipeError:  # Who reads has seen enough, as with `| head`; Python would say it again on its way out.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:  # Before anything has begun.
        return 130


class _Log:
    """Where everything goes that libraries print on standard error: a file, later the run's `console.log`.

    TensorFlow prints from C++, so the file descriptor itself is redirected. Messages for people go to the original one.
    """

    def __init__(self) -> None:
        # Like Python's own standard error: a name that can't be printed is escaped.
        self.people: IO[str] = os.fdopen(os.dup(2), "w", buffering=1, errors="backslashreplace")
        self._early = tempfile.TemporaryFile()  # noqa: SIM115 - closed by `close`.
        os.dup2(self._early.fileno(), 2)

    def move(self, target: Path) -> None:
        """Continues in `target`, beginning with the output so far."""
        sys.stderr.flush()
        with target.open("ab") as file:
            self._early.seek(0)
            file.write(self._early.read())
            file.flush()
            os.dup2(file.fileno(), 2)

    def close(self) -> None:
        sys.stderr.flush()
        os.dup2(self.people.fileno(), 2)
        self.people.close()
        self._early.close()


@contextlib.contextmanager
def _stopping() -> Iterator[Callable[[], bool]]:
    """Makes SIGINT and SIGTERM set a flag, and yields a function that returns it.

    Work that doesn't ask for the flag within `GRACE_SECONDS` (loading, tracing) is interrupted by a KeyboardInterrupt,
    as by a second signal. Must be entered in the main thread, which receives the signals.
    """
    flag = threading.Event()
    # Only a real signal ends a sleep or a wait for another thread.
    again = functools.partial(signal.pthread_kill, threading.get_ident(), signal.SIGINT)
    timer = threading.Timer(GRACE_SECONDS, again)
    timer.daemon = True

    def ask(*_: Any) -> None:
        if flag.is_set():
            raise KeyboardInterrupt
        flag.set()
        timer.start()

    def asked() -> bool:
        if flag.is_set():
            timer.cancel()
        return flag.is_set()

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked
    finally:
        timer.cancel()
        for number, handler in before.items():
            signal.signal(number, handler)


def _run(config: RunConfig) -> int:
    """Runs a config, with its events drawn on the console or printed as JSON; returns the exit status."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "1")
    log = _Log()
    try:
        # Imported here, as help and refusals need none of it.
        from kerasrobust.jobs import engine

        with _stopping() as should_stop, contextlib.ExitStack() as stack:
            if config.json:
                draw: Callable[[Event], None] = _print_json
            else:
                from kerasrobust.show.console import ConsoleRenderer

                draw = stack.enter_context(ConsoleRenderer(quiet=config.quiet))

            def emit(event: Event) -> None:
                if isinstance(event, RunStarted):
                    log.move(config.runs_dir / event.run / "console.log")
                draw(event)

            engine.run(config, emit, should_stop)
        return 0
    except (Cancelled, KeyboardInterrupt):
        return 130
    except InputError as error:
        print(f"{PROGRAM}: {error}", file=log.people)
        return 2
    except BrokenPipeError:  # The reader is gone, as with `| head`: Python's last flush would fail too.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 1
    except OSError as error:
        # HDF5 wraps the number into several lines.
        reason = os.strerror(error.errno) if error.errno else " ".join(str(error).split())
        where = f" ({error.filename})" if error.filename else ""
        print(f"{PROGRAM}: Expected files that can be read and written. Received: {reason}{where}. "
              "Free some space, or check the folders.", file=log.people)  # fmt: skip
        return 2
    except Exception as error:  # A bug. One line for the person, the traceback for console.log.
        print(f"{PROGRAM}: failed with {type(error).__name__}: {' '.join(str(error).split())[:300]}. "
              "The traceback is in the run's console.log.", file=log.people)  # fmt: skip
        import traceback

        traceback.print_exc()
        return 1
    finally:
        log.close()


def _print_json(event: Event) -> None:
    print(to_json(event), flush=True)


if __name__ == "__main__":
    sys.exit(main())
