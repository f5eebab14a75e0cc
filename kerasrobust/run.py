"""The headless command line: `python -m kerasrobust.run COMMAND [options]`, also installed as `kerasrobust`.

The order of precedence: what is typed, then the preset (`train --preset`), then the defaults of the config class.
"""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import difflib
import functools
import io
import os
import re
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from kerasrobust import presets, require_tensorflow
from kerasrobust.config import CompareConfig, Epsilon, ModelsConfig, RunConfig, written
from kerasrobust.errors import Cancelled, InputError, unknown_name
from kerasrobust.events import Event, RunStarted, to_json

PROGRAM = "kerasrobust"
GRACE_SECONDS = 1.0
"""How long the work may take to notice that it is to stop, before it is interrupted wherever it is."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit status: 0 done, 1 failed, 2 bad input, 130 cancelled."""
    people = sys.stderr
    try:
        config = parse(sys.argv[1:] if argv is None else list(argv))
        if config is None:
            return 0
        require_tensorflow()
        if isinstance(config, CompareConfig | ModelsConfig):
            from kerasrobust.show import compare

            return compare.run(config)
        status = _run(config)
        if status == 130 and argv is None:
            # All that matters is on the disk, and TensorFlow takes up to a second to tidy up after itself.
            sys.stdout.flush()
            os._exit(status)
        return status
    except InputError as error:
        print(f"{PROGRAM}: {error}", file=people)
        return 2
    except KeyboardInterrupt:  # Before anything has begun.
        return 130


def parse(words: list[str]) -> RunConfig | None:
    """Returns what the words of a command line ask for, or None where help was asked for and printed.

    Raises:
        InputError: for words that aren't understood, in one line.
    """
    if words[:1] in (["--help"], ["-h"], ["help"]):
        print(_help())
        return None
    kind = words.pop(0) if words and not words[0].startswith("-") else "demo"
    if kind not in RunConfig.kinds:
        raise unknown_name("command", kind, RunConfig.kinds)
    made = RunConfig.kinds[kind]
    default = None
    if kind == "train":
        words, default = _preset(words)
    _check_options(kind, words)
    import tyro

    errors = io.StringIO()
    # What is compared is typed without an option's name.
    markers = (tyro.conf.PositionalRequiredArgs,) if made is CompareConfig else ()
    try:
        with contextlib.redirect_stderr(errors):
            return tyro.cli(
                made,
                args=words,
                default=default,
                prog=f"{PROGRAM} {kind}",
                registry=_registry(),
                config=(tyro.conf.FlagCreatePairsOff, *markers),
            )
    except SystemExit as stopped:
        if not stopped.code:
            return None
        cause: BaseException | None = stopped
        while cause is not None:  # What our own checks have raised is among what the parser was handling.
            if isinstance(cause, InputError):
                raise cause from None
            cause = cause.__context__
        raise _reworded(errors.getvalue(), kind) from None


def _check_options(kind: str, words: list[str]) -> None:
    """Raises InputError for an option that the command doesn't have, with the nearest one that it has."""
    names = [item.name.replace("_", "-") for item in dataclasses.fields(RunConfig.kinds[kind])]
    known = ["--help", "--preset", *(f"--{prefix}{name}" for name in names for prefix in ("", "no-"))]
    for word in words:
        option = word.partition("=")[0].replace("_", "-")
        if word.startswith("--") and option not in known:
            near = difflib.get_close_matches(option, known, n=1)
            advice = f"Did you mean {near[0]}?" if near else f"See {PROGRAM} {kind} --help."
            raise InputError(f"Expected an option of {kind!r}. Received: {option}. {advice}")


def _preset(words: list[str]) -> tuple[list[str], RunConfig | None]:
    """Takes `--preset NAME` out of the words; returns the rest and the preset."""
    for place, word in enumerate(words):
        if word == "--preset" or word.startswith("--preset="):
            name = word.partition("=")[2] or (words[place + 1] if place + 1 < len(words) else "")
            rest = words[:place] + words[place + (1 if "=" in word else 2) :]
            return rest, presets.get(name)
    return words, None


def _registry() -> Any:
    """Returns tyro's rules with one more: radii are read from 8/255 as well as from 0.031."""
    import tyro

    registry = tyro.constructors.ConstructorRegistry()

    @registry.primitive_rule
    def radius(info: Any) -> Any:
        if info.type is not Epsilon:
            return None
        return tyro.constructors.PrimitiveConstructorSpec(
            nargs=1,
            metavar="RADIUS",
            instance_from_str=lambda words: Epsilon(words[0]),
            is_instance=lambda value: isinstance(value, Epsilon),
            str_from_instance=lambda value: [written(value)],
        )

    return registry


def _reworded(text: str, kind: str) -> InputError:
    """Returns what the parser says in a box, in one line and in the words of all other errors here."""
    inside = [line.strip("│ ") for line in text.splitlines() if not re.match(r"[╭╰]", line)]
    message = " ".join(" ".join(inside).split("───")[0].split()).rstrip(". ")
    see = f"See {PROGRAM} {kind} --help."
    if match := re.match(r"Missing from .*?: (--[\w-]+)", message):
        return InputError(f"Expected the option {match[1]}. Received: none. {see}")
    if match := re.match(r"Missing value for argument '(--[\w-]+)", message):
        return InputError(f"Expected a value after {match[1]}. Received: none. {see}")
    if match := re.match(r"invalid choice '(.*)' for argument '--([\w-]+)'.*\((.*)\)$", message):
        return unknown_name(match[2], match[1], re.findall(r"'([^']+)'", match[3]))
    if match := re.match(r"Error parsing (--[\w-]+): (.*): (\[.*\]|'.*')$", message):
        option, reason, received = match.groups()
        if option == "--epsilons":  # The parser tries several readings of a list and drops what they say.
            for word in ast.literal_eval(received):
                Epsilon(word)
        what = {"invalid": "a whole number", "could": "a number"}.get(reason.split()[0], "whole numbers")
        return InputError(f"Expected {option} as {what}. Received: {received}. {see}")
    if match := re.match(r"Unrecognized options: (.*)", message):
        return InputError(f"Expected options of {kind!r} only. Received: {match[1]}. {see}")
    return InputError(f"Expected options that can be read. Received: {message or 'others'}. {see}")


def _help() -> str:
    """Returns the list of commands."""
    lines = [
        "usage: kerasrobust [COMMAND] [options]      (also: python -m kerasrobust.run)",
        "",
        "A robustness laboratory for Keras image classifiers. Without a command it runs the demo.",
        "",
    ]
    for kind, made in RunConfig.kinds.items():
        lines.append(f"  {kind:<12}{(made.__doc__ or '').splitlines()[0]}")
    lines += ["", "  COMMAND --help lists a command's options. train --preset takes a recipe:", ""]
    lines += [f"  {name:<21}{summary}" for name, summary in presets.summaries().items()]
    return "\n".join(lines)


class _Log:
    """Where everything goes that libraries print on standard error: a file, later the run's `console.log`.

    TensorFlow prints from C++, so the file descriptor itself is turned round. What people are to read is written to the
    original one.
    """

    def __init__(self) -> None:
        # As Python's own standard error does it: a name that can't be printed is no reason to fail.
        self.people: IO[str] = os.fdopen(os.dup(2), "w", buffering=1, errors="backslashreplace")
        self._early = tempfile.TemporaryFile()  # noqa: SIM115 - closed by `close`.
        os.dup2(self._early.fileno(), 2)

    def move(self, target: Path) -> None:
        """Goes on in `target`, with what came so far."""
        sys.stderr.flush()
        with target.open("ab") as file:
            self._early.seek(0)
            file.write(self._early.read())
            file.flush()
            os.dup2(file.fileno(), 2)

    def close(self) -> None:
        """Gives standard error back."""
        sys.stderr.flush()
        os.dup2(self.people.fileno(), 2)
        self.people.close()
        self._early.close()


@contextlib.contextmanager
def _stopping() -> Iterator[Callable[[], bool]]:
    """Makes SIGINT and SIGTERM set a flag that the engine looks at; gives a function that tells it.

    What doesn't look at the flag within `GRACE_SECONDS` (loading, tracing) is interrupted by a KeyboardInterrupt, as by
    a second signal. To be entered in the main thread, which signals go to.
    """
    flag = threading.Event()
    # A real signal, as only that ends a sleep or a wait for another thread.
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
    """Runs a config with the console or `--json` watching; returns the exit status."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "1")
    log = _Log()
    try:
        # Seconds of TensorFlow, before anything has begun: Ctrl-C ends it at once.
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
    except BrokenPipeError:  # Nobody reads on, as behind `| head`; neither would Python's last flush get through.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 1
    except OSError as error:
        # HDF5 tells a long story of several lines around the number.
        reason = os.strerror(error.errno) if error.errno else " ".join(str(error).split())
        where = f" ({error.filename})" if error.filename else ""
        print(f"{PROGRAM}: Expected files that can be read and written. Received: {reason}{where}. "
              "Free some space, or check the folders.", file=log.people)  # fmt: skip
        return 2
    except Exception as error:  # The last line of defence: the traceback is in console.log, the person gets a line.
        print(f"{PROGRAM}: failed with {type(error).__name__}: {' '.join(str(error).split())[:300]}. "
              "The whole story is in the run's console.log.", file=log.people)  # fmt: skip
        import traceback

        traceback.print_exc()
        return 1
    finally:
        log.close()


def _print_json(event: Event) -> None:
    print(to_json(event), flush=True)


if __name__ == "__main__":
    sys.exit(main())
