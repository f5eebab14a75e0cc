"""The console script `kerasrobust-tui`, also `python -m tui`."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from kerasrobust.errors import InputError
from kerasrobust.settings import RunConfig
from tui import preferences

PROGRAM = "kerasrobust-tui"
PORT = 8000


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the terminal UI and returns its exit status: 0 done, 2 bad input, 130 interrupted."""
    try:
        options = parse(argv)
        preferred = preferences.read(preferences.place())  # Also where only what is served reads it again.
        if options.serve:
            from tui.serve import serve

            serve(options.runs_dir, options.models_dir, port=options.port)
            return 0
        _check_terminal()
        from tui.app import Lab

        lab = Lab(options.runs_dir, options.models_dir, preferences=preferred)
        lab.run()
        return lab.return_code or 0
    except InputError as error:
        print(f"{PROGRAM}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:  # Before the UI has taken the terminal over, or the server has begun.
        return 130


class _Parser(argparse.ArgumentParser):
    """Reports bad options in one line, as everything else here does."""

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message[:1].upper()}{message[1:]}. See {PROGRAM} --help.")


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Returns the options `runs_dir`, `models_dir`, `serve` and `port`; ends the program after --help.

    Raises:
        InputError: for unknown or bad options, in one line.
    """
    parser = _Parser(prog=PROGRAM, description="The terminal UI of kerasrobust.", allow_abbrev=False)
    for name, default, what in (
        ("--runs-dir", RunConfig.runs_dir, "all runs"),
        ("--models-dir", RunConfig.models_dir, "saved models"),
    ):
        parser.add_argument(
            name, metavar="DIR", type=Path, default=default, help=f"folder of {what} (default: %(default)s)"
        )
    serving = "serve the UI to a browser on this machine, at the address that is printed"
    parser.add_argument("--serve", action="store_true", help=serving)
    parser.add_argument(
        "--port", metavar="N", type=int, help=f"port of --serve (default: {PORT}; 0 takes one that is free)"
    )
    options = parser.parse_args(argv)
    for name, folder in (("--runs-dir", options.runs_dir), ("--models-dir", options.models_dir)):
        if folder.exists() and not folder.is_dir():
            raise InputError(f"Expected a folder for {name}. Received: {folder}, which is a file. Choose another.")
    if options.port is None:
        options.port = PORT
    elif not options.serve:
        raise InputError(f"Expected --serve beside --port. Received: --port {options.port} alone. Add --serve.")
    if not 0 <= options.port < 2**16:
        raise InputError(f"Expected a port from 0 to 65535. Received: {options.port}. Choose another.")
    return options


def _check_terminal() -> None:
    """Raises InputError if nobody could see the UI or type into it."""
    if "TEXTUAL_DRIVER" in os.environ:  # What --serve starts talks to the server through pipes.
        return
    # Textual reads keys from standard input and draws on standard error.
    for name in ("stdin", "stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None or not stream.isatty():
            raise InputError(
                f"Expected a terminal. Received: {name} is not a terminal. "
                "Start it in a terminal, add --serve for a browser, or use the command line: kerasrobust --help."
            )


if __name__ == "__main__":
    sys.exit(main())
