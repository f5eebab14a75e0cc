"""The adversarial examples of a run: which files there are, which examples fit some filters. No Textual here."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from kerasrobust.errors import InputError
from kerasrobust.show.examples import Index, list_examples, read_index

if TYPE_CHECKING:
    import numpy as np

OUTCOMES = {
    "all": "all outcomes",
    "succeeded": "attack succeeded",
    "survived": "survived",
    "wrong": "wrong from the start",
}


class Setting(NamedTuple):
    """An attack and its settings, as `examples.Block` has them."""

    attack: str
    epsilon: float | None
    eot: int


@dataclass(frozen=True)
class Source:
    """A file of examples, which are of one network, without the images.

    Attributes:
        stamp: changes when the file does.
        attacks: each with the examples that it stands behind.
    """

    path: Path
    stamp: tuple[int, int]
    index: Index = field(compare=False)
    attacks: tuple[tuple[Setting, Sequence[int]], ...] = field(compare=False)

    @property
    def network(self) -> str:
        """The network's name; that of the run in older files."""
        if self.path.parent.name == "examples":  # Of a study, whose networks' names are those of the files.
            return self.path.stem
        return self.index.model or self.path.parent.name

    def setting(self, place: int) -> Setting:
        return next(setting for setting, places in self.attacks if place in places)


@dataclass(frozen=True)
class Filters:
    """Which examples are shown: those of a true class, an outcome of `OUTCOMES`, a network's file and an attack.

    None stands for any.
    """

    label: int | None = None
    outcome: str = "all"
    network: Path | None = None
    attack: Setting | None = None


def read_sources(folder: Path, known: Sequence[Source]) -> tuple[list[Source], list[str]]:
    """Returns a run's files of examples, and a sentence for each that can't be read.

    Args:
        folder: the run's.
        known: sources that were read before; those whose files are as they were are taken over.
    """
    sources, problems = [], []
    before = {(source.path, source.stamp): source for source in known}
    try:
        paths = list_examples(folder)
    except OSError as error:
        return [], [f"The folder {folder} can't be read: {error.strerror}."]
    if not folder.is_dir():
        problems.append(f"The folder {folder} is gone.")
    for path in paths:
        try:
            status = path.stat()
            stamp = (status.st_mtime_ns, status.st_size)
            if (path, stamp) in before:
                sources.append(before[path, stamp])
                continue
            index = read_index(path)
            attacks = tuple((Setting(*block[1:]), block.examples) for block in index.blocks())
            sources.append(Source(path, stamp, index, attacks))
        except FileNotFoundError:  # Gone since the folder was read.
            continue
        except (OSError, InputError) as error:
            problems.append(str(error))
    return sources, problems


def choose(sources: Sequence[Source], filters: Filters) -> np.ndarray:
    """Returns the examples that fit, int (N, 2): number of the source, number within it.

    Those come first that were right before the attack and are wrong after it; else the order is that of the files.
    """
    import numpy as np

    found = [np.empty((0, 3), int)]
    for number, source in enumerate(sources):
        if filters.network not in (None, source.path):
            continue
        index = source.index
        fits = _has_outcome(index, filters.outcome)
        if filters.label is not None:
            fits &= index.y == filters.label
        if filters.attack is not None:
            under = np.zeros(len(index), bool)
            for setting, part in source.attacks:
                under[np.asarray(part)] = setting == filters.attack
            fits &= under
        places = np.flatnonzero(fits)
        later = ~_has_outcome(index, "succeeded")[places]
        found.append(np.stack([later, np.full(len(places), number), places], axis=1))
    rows = np.concatenate(found)
    return rows[rows[:, 0].argsort(kind="stable"), 1:]


def _has_outcome(index: Index, outcome: str) -> np.ndarray:
    """Returns a new mask, bool (N,)."""
    match outcome:
        case "succeeded":
            return index.correct & index.success
        case "survived":
            return index.correct & ~index.success
        case "wrong":
            return ~index.correct
    return index.correct | True


@dataclass
class Selection:
    """The examples of a run that fit the filters, and the one at hand.

    Attributes:
        chosen: (number of the source, number within it) of each example that fits.
        at: which of them is at hand.
    """

    sources: list[Source] = field(default_factory=list)
    filters: Filters = field(default_factory=Filters)
    chosen: list[tuple[int, int]] = field(default_factory=list)
    at: int = 0

    @property
    def current(self) -> tuple[Source, int] | None:
        """The example at hand: its source, and its number there."""
        if not self.chosen:
            return None
        number, place = self.chosen[self.at]
        return self.sources[number], place

    def from_current(self, most: int) -> list[tuple[Source, int]]:
        """Returns the example at hand and those after it."""
        return [(self.sources[number], place) for number, place in self.chosen[self.at : self.at + most]]

    @property
    def total(self) -> int:
        """How many examples there are without filters."""
        return sum(len(source.index) for source in self.sources)

    @property
    def networks(self) -> list[Path]:
        """The files, one for each network."""
        return [source.path for source in self.sources]

    @property
    def attacks(self) -> list[Setting]:
        return list(dict.fromkeys(setting for source in self.sources for setting, _ in source.attacks))

    @property
    def labels(self) -> list[int]:
        """The true classes that occur."""
        return sorted({int(label) for source in self.sources for label in set(source.index.y.tolist())})

    def class_name(self, label: int) -> str:
        return next((source.index.class_name(label) for source in self.sources), f"class {label}")

    def take(self, sources: list[Source]) -> None:
        """Takes files that were read, and stays at the example at hand: a file that grew is read again."""
        current = self.current
        self.sources = sources
        self._select(current)

    def filter(self, filters: Filters) -> None:
        """Takes other filters, and stays at the example at hand if it fits them."""
        self.filters = filters
        self._select(self.current)

    def go(self, at: int) -> None:
        self.at = min(max(at, 0), max(0, len(self.chosen) - 1))

    def _select(self, current: tuple[Source, int] | None) -> None:
        if self.filters.network not in (None, *self.networks):
            self.filters = replace(self.filters, network=None)
        self.chosen = [(number, place) for number, place in choose(self.sources, self.filters).tolist()]
        places = {(self.sources[number].path, place): at for at, (number, place) in enumerate(self.chosen)}
        self.go(0 if current is None else places.get((current[0].path, current[1]), 0))


def amplification(largest: float) -> int:
    """Returns the factor that makes the largest change, in (0, 1], about half the range: 1, 2, 3, 4, 6, 8, 12, 16...

    Example:
        >>> amplification(8 / 255), amplification(0.1), amplification(0.9)
        (16, 4, 1)
    """
    # 1/255 more than the range is not to be seen, and makes a change by 8/255 a factor of 16 rather than 12.
    most = 0.5 / largest * (1 + 1 / 127.5)
    power = 2 ** max(0, int(math.log2(max(most, 1.0))))
    return power * 3 // 2 if power > 1 and power * 1.5 <= most else power


def amplify(x: np.ndarray, x_adv: np.ndarray, factor: int | None) -> tuple[np.ndarray, int]:
    """Returns the amplified perturbation of two images as a picture around middle grey, and the factor.

    All are float32 (H, W, C) in [0, 1]. Of four channels the last, which is no colour, is left out. Without a factor
    it is the one that fills the range; 0 for images that are the same.
    """
    change = x_adv - x
    if change.shape[2] == 4:
        change = change[..., :3]
    largest = float(abs(change).max(initial=0.0))
    if not largest > 0:
        return change + 0.5, 0
    factor = factor or amplification(largest)
    return (0.5 + factor * change).clip(0, 1), factor
