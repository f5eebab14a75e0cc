"""What is exported: a run or a saved model as its folder has it, and the files that are made of it."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from kerasrobust.commands import from_dict
from kerasrobust.entries import text
from kerasrobust.errors import InputError
from kerasrobust.records import Card, Result
from kerasrobust.runs import read_card, read_json
from kerasrobust.settings import command_line


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A run or a saved model.

    Attributes:
        folder: its own.
        card: what is known of it; of a run that hasn't ended, nothing.
        raw: the same as it stands in the file.
        is_model: whether it is a saved model, and not a run.
    """

    folder: Path
    card: Card
    raw: dict[str, Any]
    is_model: bool

    @classmethod
    def read(cls, folder: Path) -> Subject:
        """Returns what a folder holds; it has a card, or else is a run's."""
        card = read_card(folder)
        if card is not None:
            return cls(folder=folder, card=Card.parse(card), raw=card, is_model=True)
        raw = read_json(folder / "result.json") or {}
        return cls(folder=folder, card=Result.parse(raw), raw=raw, is_model=False)

    @property
    def name(self) -> str:
        return self.folder.resolve().name

    @property
    def events(self) -> Path:
        return self.folder / "events.jsonl"

    @property
    def command(self) -> str:
        """What repeats the run under a name of its own, or made the model; empty where nobody knows."""
        if self.is_model:
            return self.card.command
        try:
            return command_line(replace(from_dict(read_json(self.folder / "config.json") or {}), name=None))
        except InputError:  # Of another version.
            return text(self.raw.get("command"))


@dataclass(frozen=True, kw_only=True)
class Part:
    """One file, or one folder of files, of an export.

    Attributes:
        name: its path in the folder of the export.
        what: what it holds, for people.
        write: writes it to a path where nothing is yet.
        lacks: why it can't be written on this machine, and what to do; empty if it can.
    """

    name: str
    what: str
    write: Callable[[Path], None]
    lacks: str = ""

    @classmethod
    def of_text(cls, name: str, what: str, content: str) -> Part:
        return cls(name=name, what=what, write=lambda path: _write_text(path, content))


def _write_text(path: Path, content: str) -> None:
    # Lines end as they are given: csv's own readers want them so on any system.
    path.write_text(content, encoding="utf-8", newline="")


def free(name: str, taken: Iterable[str]) -> str:
    """Returns a name that is not taken: the same, or with a number behind it.

    Example:
        >>> free("pgd", ["pgd", "pgd-2"])
        'pgd-3'
    """
    known = set(taken)
    return next(
        found for number in itertools.count(1) if (found := f"{name}-{number}" if number > 1 else name) not in known
    )


def slug(words: str) -> str:
    """Returns words as a part of a file's name.

    Example:
        >>> slug("PGD 8/255, L∞")
        'pgd-8-255-l'
    """
    letters = "".join(letter if letter.isascii() and letter.isalnum() else " " for letter in words.lower())
    return "-".join(letters.split()) or "x"
