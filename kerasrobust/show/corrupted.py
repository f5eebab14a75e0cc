"""What a result has of common corruptions, parsed once. No TensorFlow here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from kerasrobust.entries import JSON, Interval, interval, number, objects, text
from kerasrobust.names import CORRUPTIONS

if TYPE_CHECKING:
    import numpy as np

PICTURED = (1, 3, 5)
"""Severities at which a report shows an image."""


@dataclass(frozen=True, kw_only=True)
class Cell:
    """The accuracy under one corruption at one severity; `reference` is that of the reference network, or None."""

    kind: str
    severity: int
    accuracy: float
    interval: Interval | None = None
    reference: float | None = None

    @classmethod
    def parse(cls, record: JSON) -> Cell | None:
        """Returns the cell of an entry, or of an event's fields; None for one that isn't whole."""
        severity, accuracy = number(record.get("severity")), number(record.get("accuracy"))
        if severity is None or accuracy is None:
            return None
        return cls(
            kind=text(record.get("kind")),
            severity=int(severity),
            accuracy=accuracy,
            interval=interval(record.get("interval")),
            reference=number(record.get("reference")),
        )


@dataclass(frozen=True, kw_only=True)
class Picture:
    """One image under a corruption, or with severity 0 as it is, and what the network says of it.

    Attributes:
        image: (H, W, C) with 1, 3 or 4 channels; uint8, or float in [0, 1].
        label: the true class by name.
        answer: the class that the network says, by name; empty where that isn't known.
    """

    kind: str
    severity: int
    image: np.ndarray
    label: str
    answer: str = ""


def pictured(severities: Sequence[int]) -> tuple[int, ...]:
    """Returns the severities that are shown of those that were measured.

    Example:
        >>> pictured([1, 2, 3, 4, 5]), pictured([2, 4])
        ((1, 3, 5), (2, 4))
    """
    return tuple(severity for severity in severities if severity in PICTURED) or tuple(severities)


@dataclass(frozen=True, kw_only=True)
class CorruptionMap:
    """All cells of a measurement, and what was made of them.

    Attributes:
        cells: by kind and severity; kinds and severities may be missing.
        relative: relative corruption error, by kind, where there is one.
        counted: the kinds that the means are over.
        clean: accuracy on the same images without any corruption; None in older results.
        source: how the images were corrupted, in a sentence.
    """

    cells: Mapping[tuple[str, int], Cell]
    relative: Mapping[str, float | None] = field(default_factory=dict)
    counted: tuple[str, ...] = ()
    clean: float | None = None
    mean_accuracy: float | None = None
    interval: Interval | None = None
    mce: float | None = None
    relative_mce: float | None = None
    mce_interval: Interval | None = None
    relative_mce_interval: Interval | None = None
    reference_clean: float | None = None
    reference: str = ""
    source: str = ""

    @classmethod
    def of(cls, cells: Iterable[Cell | None]) -> CorruptionMap:
        """Returns the map of cells alone, as they come while they are measured."""
        return cls(cells={(cell.kind, cell.severity): cell for cell in cells if cell is not None})

    @classmethod
    def parse(cls, record: Mapping[str, Any]) -> CorruptionMap | None:
        """Returns the map of a result's `corruptions`, or None where there are none."""
        cells = cls.of(map(Cell.parse, objects(record.get("cells")))).cells
        if not cells:
            return None
        counted = record.get("counted")
        return cls(
            cells=cells,
            relative={text(item.get("kind")): number(item.get("relative_ce")) for item in objects(record.get("kinds"))},
            counted=tuple(map(text, counted)) if isinstance(counted, list) else (),
            clean=number(record.get("clean_accuracy")),
            mean_accuracy=number(record.get("mean_accuracy")),
            interval=interval(record.get("interval")),
            mce=number(record.get("mce")),
            relative_mce=number(record.get("relative_mce")),
            mce_interval=interval(record.get("mce_interval")),
            relative_mce_interval=interval(record.get("relative_mce_interval")),
            reference_clean=number(record.get("reference_clean_accuracy")),
            reference=text(record.get("reference")),
            source=text(record.get("source")),
        )

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds in the order in which they were measured."""
        return tuple(dict.fromkeys(kind for kind, _ in self.cells))

    @property
    def severities(self) -> tuple[int, ...]:
        return tuple(sorted({severity for _, severity in self.cells}))

    def mean_of(self, kind: str) -> float:
        """Returns the mean accuracy of a kind over its severities."""
        own = [cell.accuracy for cell in self.cells.values() if cell.kind == kind]
        return sum(own) / len(own)

    def ce_of(self, kind: str) -> float | None:
        """Returns the corruption error of a kind in relation to the reference network, or None without one."""
        from kerasrobust.stats import corruption_error  # It takes NumPy, without which the UI starts.

        own = [cell for cell in self.cells.values() if cell.kind == kind]
        others = [1 - cell.reference for cell in own if cell.reference is not None]
        return corruption_error([1 - cell.accuracy for cell in own], others) if len(others) == len(own) else None

    @property
    def weakest(self) -> str:
        """The kind that leaves the least."""
        return min(self.kinds, key=self.mean_of)


def title_of(kind: str) -> str:
    """Returns what people call a corruption; procedural frost says so.

    Example:
        >>> title_of("frost"), title_of("unheard_of")
        ('frost (procedural)', 'unheard of')
    """
    return CORRUPTIONS[kind].title if kind in CORRUPTIONS else kind.replace("_", " ")
