"""Saved models as the UI shows them. A card may be anybody's, of another version, or half: what fits is shown."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kerasrobust.commands import from_dict
from kerasrobust.config import AttackConfig, TrainConfig
from kerasrobust.errors import InputError
from kerasrobust.names import ARCHITECTURES
from kerasrobust.runs import list_models, list_runs, read_card
from kerasrobust.show.figures import attack_name, format_accuracy, format_budget, format_interval

_LONGEST = 200
"""Characters that are shown of a text in a card."""


@dataclass(frozen=True)
class SavedModel:
    """A saved model with what is known of it.

    Attributes:
        path: its folder.
        run: the run that holds it; empty for one in the folder of saved models.
        card: its card, or None where that can't be read.
        size: bytes of its files.
    """

    path: Path
    run: str
    card: dict[str, Any] | None
    size: int

    @property
    def title(self) -> str:
        return f"{self.run}/{self.path.name}" if self.run else self.path.name

    @property
    def subject(self) -> str:
        """What `--model` finds it by."""
        return str(self.path) if self.run else self.path.name

    def part(self, key: str) -> dict[str, Any]:
        """Returns a part of the card, empty where there is none in our form."""
        value = (self.card or {}).get(key)
        return value if isinstance(value, dict) else {}

    def items(self, key: str) -> list[dict[str, Any]]:
        """Returns a list of records in the card, without what isn't one."""
        value = (self.card or {}).get(key)
        return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []

    def text(self, key: str) -> str:
        return plain((self.card or {}).get(key))

    @property
    def architecture(self) -> str:
        return plain(self.part("training").get("model")).rpartition("/")[2]

    @property
    def is_randomized(self) -> bool:
        return (self.card or {}).get("randomized") is True or number(self.part("training").get("randomize")) is not None

    @property
    def data(self) -> str:
        return plain(self.part("data").get("name")) or self.text("data")

    @property
    def clean(self) -> float | None:
        return number((self.card or {}).get("clean_accuracy"))

    @property
    def robust(self) -> tuple[float | None, list[float] | None]:
        """The accuracy against all attacks together, and its interval."""
        card = self.card or {}
        accuracy = number(card.get("robust_accuracy"))
        if accuracy is not None:
            return accuracy, interval(card.get("robust_interval"))
        attack = self.strongest
        return number(attack.get("robust_accuracy")), interval(attack.get("interval"))

    @property
    def strongest(self) -> dict[str, Any]:
        """The attack that the card's robust accuracy is of, or else the one that leaves the least; empty without any.

        A study's card holds attacks at several radii, and its robust accuracy is at the usual one of them.
        """
        measured = [attack for attack in self.items("attacks") if number(attack.get("robust_accuracy")) is not None]
        told = number((self.card or {}).get("robust_accuracy"))
        return min(
            measured, key=lambda attack: (attack["robust_accuracy"] != told, attack["robust_accuracy"]), default={}
        )

    @property
    def parameters(self) -> int | None:
        value = (self.card or {}).get("parameters")
        return value if type(value) is int else None

    def attack_config(self) -> AttackConfig:
        """Returns an attack on it, on the data that its card was measured on.

        Raises:
            InputError: where its name can't be one.
        """
        data = self.part("data")
        split = plain(data.get("test_split")) or plain(data.get("split"))
        given: dict[str, Any] = {"data": self.data, "split": _fewer(split)}
        return AttackConfig(model=self.subject, **{key: value for key, value in given.items() if value})

    def train_config(self) -> TrainConfig:
        """Returns a training that goes on from it, with its own settings as far as they are known.

        Raises:
            InputError: where they aren't valid.
        """
        # An architecture's name alone would begin anew.
        model = str(self.path) if self.subject in ARCHITECTURES else self.subject
        # Its noise is in the network already.
        settings = {key: value for key, value in self.part("training").items() if key != "randomize"}
        try:
            config = from_dict(settings | {"kind": TrainConfig.kind, "model": model})
        except OverflowError as error:
            raise InputError(
                f"Expected settings in numbers. Received: {error}. Check {self.path}/card.json."
            ) from error
        assert isinstance(config, TrainConfig)
        return config


def read_models(models_dir: Path, runs_dir: Path) -> list[SavedModel]:
    """Returns the saved models by name, then those of the runs, the newest run first.

    Raises:
        OSError: where the folders can't be read.
    """
    return [
        SavedModel(path, run, _card(path), _size(path))
        for run, folder in _folders(models_dir, runs_dir)
        for path in list_models(folder)
    ]


def stamps(models_dir: Path, runs_dir: Path) -> list[tuple[Path, int]]:
    """Returns what changes when models come or go, or are measured: the times of folders and cards."""
    found = []
    for _, folder in _folders(models_dir, runs_dir):
        with contextlib.suppress(OSError):  # Not there; most runs have no models.
            found += [(path, path.stat().st_mtime_ns) for path in (folder, *folder.glob("*/card.json"))]
    return found


def _folders(models_dir: Path, runs_dir: Path) -> Iterator[tuple[str, Path]]:
    yield "", models_dir
    for run in list_runs(runs_dir):
        yield run.name, run / "models"


def _card(path: Path) -> dict[str, Any] | None:
    try:
        return read_card(path)
    except RecursionError:  # Brackets without end.
        return None


def _size(path: Path) -> int:
    total = 0
    for file in path.rglob("*"):
        try:
            total += file.stat().st_size if file.is_file() else 0
        except OSError:  # Gone since it was listed.
            continue
    return total


def _fewer(split: str) -> str:
    """Returns a split, and of a whole test set its first 1,000 examples: the others take long."""
    return "test[:1000]" if split == "test" else split


def plain(value: Any) -> str:
    """Returns a card's value as one line of printable text; nothing for None, lists and records."""
    if value is None or isinstance(value, list | dict):
        return ""
    text = " ".join(str(value).split())[:_LONGEST]
    return "".join(letter for letter in text if letter.isprintable())


def number(value: Any) -> float | None:
    """Returns a card's value where it is a finite number."""
    if (type(value) is int and abs(value) < 10**15) or (type(value) is float and math.isfinite(value)):
        return float(value)
    return None


def interval(value: Any) -> list[float] | None:
    """Returns a card's value where it is an interval."""
    if not isinstance(value, list) or len(value) != 2:
        return None
    bounds = [bound for bound in map(number, value) if bound is not None]
    return bounds if len(bounds) == 2 else None


def accuracy(value: float | None, bounds: list[float] | None = None) -> str:
    """Returns an accuracy with its interval, such as `34.2 % (33.4-35.0)`."""
    return f"{format_accuracy(value)}{f' ({format_interval(bounds)})' if bounds and value is not None else ''}"


def attack_text(attack: dict[str, Any]) -> str:
    """Returns an attack with its budget, such as `PGD 8/255 L∞`."""
    budget = format_budget(number(attack.get("epsilon")), plain(attack.get("norm")))
    return f"{attack_name(plain(attack.get('name')))} {budget}".strip()


def shape_text(value: Any) -> str:
    """Returns a layer's output shape, such as `(N, 32, 32, 3)`."""
    if not isinstance(value, list):
        return plain(value)
    return f"({', '.join('N' if size is None else plain(size) for size in value)})"
