"""The error for bad input: one line with what was expected, what was received and what to do."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable


class InputError(ValueError):
    """Input that can't be used. The command line prints it as one line and exits with status 2.

    Example:
        >>> raise InputError("Expected a split with examples. Received: 'test[:0]'. Ask for at least one.")
        Traceback (most recent call last):
        kerasrobust.errors.InputError: Expected a split with examples. Received: 'test[:0]'. Ask for at least one.
    """

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.split()))


class Cancelled(Exception):
    """The person asked to stop (Ctrl-C, SIGTERM). Raised between two chunks of compiled work, never inside one."""


def unknown_name(what: str, name: str, choices: Iterable[str], extra: str = "") -> InputError:
    """Returns the error for an unknown name, with the nearest known one.

    Example:
        >>> str(unknown_name("attack", "pdg", ["fgsm", "pgd"]))
        "Expected an attack that exists (fgsm, pgd). Received: 'pdg'. Did you mean 'pgd'?"
    """
    known = sorted(choices)
    article = "an" if what[0] in "aeiou" else "a"
    near = difflib.get_close_matches(name.lower(), known, n=3, cutoff=0.55)
    near = near or sorted((other for other in known if other in name.lower()), key=len, reverse=True)
    near.sort(key=lambda other: sorted(other) != sorted(name.lower()))  # Letters that are exchanged come first.
    advice = f"Did you mean {near[0]!r}?" if near else "Choose one of these."
    return InputError(
        f"Expected {article} {what} that exists ({', '.join(known)}{extra}). Received: {name!r}. {advice}"
    )


def malformed_split(split: str) -> InputError:
    """Returns the error for a split that isn't in the notation of TensorFlow Datasets."""
    return InputError(
        f"Expected a split such as 'test', 'test[:1000]' or 'train[10%:]'. Received: {split!r}. "
        "Write a part's name, and a slice in examples or percent."
    )


def folder_meant(name: str) -> InputError:
    """Returns the error for the name of a folder that is written like that of a data set."""
    return InputError(
        "Expected a folder to be written with a slash, as a name without one is that of a data set. "
        f"Received: {name!r}. Give ./{name}."
    )


def reason_of(error: BaseException, length: int = 160) -> str:
    """Returns an error's kind and message in one line: what a library said, for the middle of an `InputError`.

    Example:
        >>> reason_of(ValueError("bad   shape"))
        'ValueError: bad shape'
    """
    text = " ".join(re.sub(r"\x1b\[[0-9;]*m", "", str(error)).split())  # Keras writes in bold.
    # What TensorFlow and Keras add is about their own code.
    text = re.split(r" (?:You can attempt|Arguments received by|Call arguments received by) ", text)[0]
    text = text if len(text) <= length else f"{text[: length - 1].rstrip()}…"
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
