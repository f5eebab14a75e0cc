"""The headless command line: `python -m kerasrobust.run COMMAND [options]`, also installed as `kerasrobust`.

The order of precedence: what is typed, then the preset (`train --preset`), then the defaults of the config class.
"""

from __future__ import annotations

import contextlib
import io
import json
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
from kerasrobust.events import Event, RunStarted, as_dict

PROGRAM = "kerasrobust"


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit status: 0 done, 1 failed, 2 bad input, 130 cancelled."""
    people = sys.stderr
    try:
        config = parse(sys.argv[1:] if argv is None else list(argv))
        if config is None:
            return 0
        require_tensorflow()
        if isinstance(config, CompareConfig | ModelsConfig):
            from kerasrobust import compare

            return compare.run(config)
        return _run(config)
    except InputError as error:
        print(f"{PROGRAM}: {error}", file=people)
        return 2


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
    if made is CompareConfig and words and not words[0].startswith("-"):
        words = ["--subjects", *words]
    import tyro

    errors = io.StringIO()
    try:
        with contextlib.redirect_stderr(errors):
            return tyro.cli(
                made,
                args=words,
                default=default,
                prog=f"{PROGRAM} {kind}",
                registry=_registry(),
                config=(tyro.conf.FlagCreatePairsOff,),
            )
    except SystemExit as stopped:
        if not stopped.code:
            return None
        raise InputError(_one_line(errors.getvalue(), kind)) from None


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


def _one_line(text: str, kind: str) -> str:
    """Returns the parser's message without its box, its help and its line breaks."""
    inside = [line.strip("│ ") for line in text.splitlines() if not re.match(r"[╭╰]", line)]
    message = " ".join(" ".join(inside).split("───")[0].split()).rstrip(".")
    message = re.sub(r"^Error parsing --[\w-]+: (?=Expected)", "", message)
    return f"{message}. See {PROGRAM} {kind} --help." if message else f"Bad options. See {PROGRAM} {kind} --help."


def _help() -> str:
    """Returns the list of commands."""
    lines = [
        "usage: kerasrobust [COMMAND] [options]      (also: python -m kerasrobust.run)",
        "",
        "A robustness laboratory for Keras image classifiers. Without a command it runs the demo.",
        "",
    ]
    for kind, made in RunConfig.kinds.items():
        lines.append(f"  {kind:<9}{(made.__doc__ or '').splitlines()[0]}")
    lines += ["", "  COMMAND --help lists a command's options. train --preset takes a recipe:", ""]
    lines += [f"  {name:<21}{summary}" for name, summary in presets.summaries().items()]
    return "\n".join(lines)


class _Log:
    """Where everything goes that libraries print on standard error: a file, later the run's `console.log`.

    TensorFlow prints from C++, so the file descriptor itself is turned round. What people are to read is written to the
    original one.
    """

    def __init__(self) -> None:
        self.people: IO[str] = os.fdopen(os.dup(2), "w", buffering=1)
        self._early = tempfile.TemporaryFile()
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


@contextlib.contextmanager
def _stopping() -> Iterator[Callable[[], bool]]:
    """Makes SIGINT and SIGTERM set a flag that the engine looks at; gives a function that tells it."""
    flag = threading.Event()
    before = {number: signal.signal(number, lambda *_: flag.set()) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield flag.is_set
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _run(config: RunConfig) -> int:
    """Runs a config with the console or `--json` watching; returns the exit status."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "1")
    log = _Log()
    try:
        with _stopping() as should_stop, contextlib.ExitStack() as stack:
            if config.json:
                draw: Callable[[Event], None] = _print_json
            else:
                from kerasrobust.console import ConsoleRenderer

                draw = stack.enter_context(ConsoleRenderer(quiet=config.quiet))

            def emit(event: Event) -> None:
                if isinstance(event, RunStarted):
                    log.move(config.runs_dir / event.run / "console.log")
                draw(event)

            from kerasrobust import engine

            engine.run(config, emit, should_stop)
        return 0
    except Cancelled:
        return 130
    except InputError as error:
        print(f"{PROGRAM}: {error}", file=log.people)
        return 2
    except OSError as error:
        print(f"{PROGRAM}: Expected to write and read files. Received: {error}. Free space or check the folder.",
              file=log.people)  # fmt: skip
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
    print(json.dumps(as_dict(event), ensure_ascii=False), flush=True)


if __name__ == "__main__":
    sys.exit(main())
