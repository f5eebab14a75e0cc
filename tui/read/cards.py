"""Saved models as the UI shows them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kerasrobust.commands import from_dict
from kerasrobust.config import AttackConfig, TrainConfig
from kerasrobust.entries import AttackEntry, Interval, text
from kerasrobust.names import ARCHITECTURES
from kerasrobust.records import Card
from kerasrobust.runs import list_models, list_runs, read_card
from kerasrobust.show.figures import attack_name, format_accuracy, format_budget, format_interval

_LONGEST = 200
"""Characters that are shown of a text in a card."""


@dataclass(frozen=True)
class SavedModel:
    """A saved model in a folder with its card, None if that can't be read, and the bytes of its files.

    `run` is the run that holds it; empty for one in the folder of saved models.
    """

    path: Path
    run: str
    card: Card | None
    size: int

    @property
    def title(self) -> str:
        return f"{self.run}/{self.path.name}" if self.run else self.path.name

    @property
    def subject(self) -> str:
        """What `--model` finds it by."""
        return str(self.path) if self.run else self.path.name

    @property
    def known(self) -> Card:
        return self.card or Card()

    @property
    def robust(self) -> tuple[float | None, Interval | None]:
        """The accuracy against all attacks together, and its interval."""
        card, attack = self.known, self.strongest
        if card.robust_accuracy is not None or attack is None:
            return card.robust_accuracy, card.robust_interval
        return attack.robust_accuracy, attack.interval

    @property
    def strongest(self) -> AttackEntry | None:
        """The attack that the card's robust accuracy is of, or else the one that leaves the least; None without any.

        A study's card holds attacks at several radii, and its robust accuracy is at the usual one of them.
        """
        measured = [attack for attack in self.known.attacks if attack.robust_accuracy is not None]
        together = self.known.robust_accuracy
        return min(
            measured,
            key=lambda attack: (attack.robust_accuracy != together, attack.robust_accuracy or 0.0),
            default=None,
        )

    def attack_config(self) -> AttackConfig:
        """Returns an attack on it, on the data that its card was measured on.

        Raises:
            InputError: where its name can't be one.
        """
        data = self.known.data
        split = plain(data.measured)
        # A whole test set takes long.
        given: dict[str, Any] = {"data": plain(data.name), "split": "test[:1000]" if split == "test" else split}
        return AttackConfig(model=self.subject, **{key: value for key, value in given.items() if value})

    def train_config(self) -> TrainConfig:
        """Returns a training that starts from it, with its own settings as far as they are known.

        Raises:
            InputError: where they aren't valid.
        """
        # An architecture's name alone would begin anew.
        model = str(self.path) if self.subject in ARCHITECTURES else self.subject
        # Its noise is in the network already.
        settings = {key: value for key, value in self.known.training.items() if key != "randomize"}
        config = from_dict(settings | {"kind": TrainConfig.kind, "model": model})
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


def _card(path: Path) -> Card | None:
    card = read_card(path)
    return None if card is None else Card.parse(card)


def _size(path: Path) -> int:
    total = 0
    for file in path.rglob("*"):
        try:
            total += file.stat().st_size if file.is_file() else 0
        except OSError:  # Gone since it was listed.
            continue
    return total


def plain(value: Any) -> str:
    """Returns a card's value as one short line of printable text; nothing for None, lists and records."""
    return text(value)[:_LONGEST]


def accuracy(value: float | None, bounds: Interval | None = None) -> str:
    """Returns an accuracy with its interval, such as `34.2 % (33.4-35.0)`."""
    return f"{format_accuracy(value)}{f' ({format_interval(bounds)})' if bounds and value is not None else ''}"


def attack_text(attack: AttackEntry) -> str:
    """Returns an attack with its budget, such as `PGD 8/255 L∞`."""
    return f"{attack_name(plain(attack.name))} {format_budget(attack.epsilon, plain(attack.norm))}".strip()


def shape_text(value: Any) -> str:
    """Returns a layer's output shape, such as `(N, 32, 32, 3)`."""
    if not isinstance(value, list):
        return plain(value)
    return f"({', '.join('N' if size is None else plain(size) for size in value)})"
