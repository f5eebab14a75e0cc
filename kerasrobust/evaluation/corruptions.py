"""Accuracy under common corruptions, by kind and severity, and what is made of it: mean, mCE and relative mCE.

Reference: Hendrycks and Dietterich 2019, "Benchmarking neural network robustness to common corruptions and
perturbations", sections 3 and 4.1.
"""

from __future__ import annotations

import time
import zlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from kerasrobust.attacks.checkpoint import Checkpoints
from kerasrobust.attacks.task import Task
from kerasrobust.attacks.verdict import NO_CLASS, Verdict, judge
from kerasrobust.data.corruptions.corrupting import check, corrupted, levels
from kerasrobust.errors import Cancelled, InputError
from kerasrobust.evaluation.about import about_models
from kerasrobust.evaluation.begun import agree, mark_of, marks_of
from kerasrobust.evaluation.checks.labels import at_chance, classes_missing
from kerasrobust.evaluation.outcome import Share
from kerasrobust.events import CorruptionFinished, Emit, Finding
from kerasrobust.names import CORRUPTIONS, SEVERITIES
from kerasrobust.networks.images import collected, visible
from kerasrobust.pace import Pace
from kerasrobust.show.corrupted import Cell as MapCell
from kerasrobust.show.corrupted import CorruptionMap
from kerasrobust.show.figures import format_accuracy, format_interval
from kerasrobust.show.heat import heat_table
from kerasrobust.show.tables import as_html, printed
from kerasrobust.stats import accuracy_interval, corruption_error, mce_interval, shared_error

SOURCE = (
    "Images were corrupted here, with the parameters of CIFAR-10-C (Hendrycks and Dietterich 2019), by the seed. Frost "
    "is procedural, where the published one is cut out of photographs."
)

FIFTEEN = tuple(kind for kind, known in CORRUPTIONS.items() if known.group != "extra")
"""The corruptions of the benchmark, without those for validation."""

PASSES = 5
"""Fresh passes over each corrupted image, where a network is randomized."""

PART = 256
"""Images that are corrupted and judged between two questions whether to stop, or as many as a batch has."""


@dataclass(frozen=True, kw_only=True)
class Judged:
    """What a network says of one set of images: `rates`, float64 (N,), the share of passes that are right on each.

    `shared` is the standard error by noise that images share (`stats.shared_error`).
    """

    rates: np.ndarray
    shared: float = 0.0

    @property
    def accuracy(self) -> float:
        return float(self.rates.mean())


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One corruption at one severity: `reference` is what the reference network says of the same images, or None.

    `said` is the class that the network says most often of the image that stands for all (`Corrupted.shown`); None
    where that isn't known.
    """

    kind: str
    severity: int
    judged: Judged
    interval: tuple[float, float]
    seconds: float
    reference: Judged | None = None
    said: int | None = None

    def entry(self) -> dict[str, Any]:
        """Returns the cell's entry in `result.json`, and the fields of its event."""
        return {
            "kind": self.kind,
            "severity": self.severity,
            "accuracy": self.judged.accuracy,
            "interval": list(self.interval),
            "reference": None if self.reference is None else self.reference.accuracy,
            "seconds": self.seconds,
        }


@dataclass(frozen=True, kw_only=True)
class KindError:
    """The errors of one corruption, summed over severities, and in relation to those of the reference network.

    Attributes:
        error: the mean error over severities.
        ce: corruption error, the sum of the errors over that of the reference; None without a reference.
        relative_ce: the same of what the error is above that on clean images.
    """

    kind: str
    error: float
    ce: float | None = None
    relative_ce: float | None = None


@dataclass(frozen=True, kw_only=True)
class Corrupted:
    """What `measure_corruptions` found.

    Attributes:
        clean: accuracy on the unchanged images, with its interval.
        reference_clean: that of the reference network, or None.
        cells: one for each kind and severity, in their order.
        kinds: one for each kind.
        mean: the mean accuracy over the kinds that count (`counted`) and severities, with its interval.
        mce: mean corruption error over these kinds, or None; `relative_mce` likewise.
        mce_interval: its 95 % interval, by resampling images; `relative_mce_interval` likewise.
        shown: the number of the image that stands for all: the first that is right as it is, or else the first.
        said: what the network says of it as it is.
        findings: reasons to doubt the figures.
        conventions: what was said or found out of the model, as `evaluate` returns it.
    """

    clean: Share
    reference_clean: float | None
    cells: list[Cell]
    kinds: list[KindError]
    mean: Share
    mce: float | None
    relative_mce: float | None
    mce_interval: tuple[float, float] | None = None
    relative_mce_interval: tuple[float, float] | None = None
    shown: int = 0
    said: int = NO_CLASS
    findings: list[Finding] = field(default_factory=list)
    conventions: dict[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        return "\n".join([printed(self._table()), *self._means()])

    def _repr_html_(self) -> str:
        return as_html(self._table())

    def _table(self) -> Table:
        return heat_table(CorruptionMap.of([MapCell.parse(cell.entry()) for cell in self.cells]), synthetic=False)

    def _means(self) -> Iterator[str]:
        yield f"clean {format_accuracy(self.clean.accuracy)} ({format_interval(self.clean.interval)} %)"
        yield f"mean {format_accuracy(self.mean.accuracy)} ({format_interval(self.mean.interval)} %)"
        if self.mce is not None:
            interval, relative = format_interval(self.mce_interval), format_interval(self.relative_mce_interval)
            yield (
                f"mCE {format_accuracy(self.mce)} ({interval} %), relative {format_accuracy(self.relative_mce)} "
                f"({relative} %)"
            )

    def entry(self, reference: str | None = None) -> dict[str, Any]:
        """Returns what `result.json` holds of it; `reference` is the name of the reference network."""
        return {
            "source": SOURCE,
            "counted": counted([item.kind for item in self.kinds]),
            "clean_accuracy": self.clean.accuracy,
            "mean_accuracy": self.mean.accuracy,
            "interval": list(self.mean.interval),
            "mce": self.mce,
            "relative_mce": self.relative_mce,
            "mce_interval": _listed(self.mce_interval),
            "relative_mce_interval": _listed(self.relative_mce_interval),
            "reference": reference,
            "reference_clean_accuracy": self.reference_clean,
            "kinds": [vars(item) for item in self.kinds],
            "cells": [cell.entry() for cell in self.cells],
        }


def _listed(interval: tuple[float, float] | None) -> list[float] | None:
    return None if interval is None else list(interval)


def counted(kinds: Sequence[str]) -> list[str]:
    """Returns the kinds that means are over: without those for validation, unless there are no others.

    Example:
        >>> counted(["fog", "spatter"]), counted(["spatter"])
        (['fog'], ['spatter'])
    """
    return [kind for kind in kinds if kind in FIFTEEN] or list(kinds)


def mean_of(values: Sequence[float | None]) -> float | None:
    """Returns the mean, or None where one is missing."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known and len(known) == len(values) else None


def measure_corruptions(
    model: Any,
    x: Any,
    y: Any = None,
    *,
    kinds: Sequence[str] = FIFTEEN,
    severities: Sequence[int] = SEVERITIES,
    reference: Any = None,
    seed: int = 0,
    batch_size: int = 256,
    passes: int = PASSES,
    resume_dir: Path | str | None = None,
    emit: Emit | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> Corrupted:
    """Measures a network's accuracy under common corruptions (`data.corruptions`).

    Args:
        model: as `evaluate` takes it.
        x: likewise.
        y: likewise.
        kinds: names of `names.CORRUPTIONS`.
        severities: 1 to 5.
        reference: a network of the same images and classes, in relation to whose errors mCE is; None for none.
        seed: of the corruptions, and of a randomized network's noise.
        batch_size: images judged at once.
        passes: fresh passes over each image, if the network is randomized.
        resume_dir: a folder where what is done is saved, by kind and severity: a call that was killed and is made again
            with the same arguments resumes there, and ends with the same result.
        emit: takes events: progress, each cell's figures (`CorruptionFinished`), and findings.
        should_stop: asked about every half second.

    Raises:
        InputError: for a model, images, kinds or severities that don't fit, or a folder of another measurement.
        Cancelled: when `should_stop` says so.

    Example:
        >>> found = measure_corruptions(model, x, y, kinds=["fog", "snow"], severities=[3])
        >>> found.mean.accuracy, found.kinds
    """
    if isinstance(kinds, str) or not (isinstance(kinds, Collection) and isinstance(severities, Collection)):
        raise InputError(
            f"Expected sequences of corruptions and severities. Received: {kinds!r} and {severities!r}. "
            "Try ['fog'] and [3]."
        )
    for kind in kinds:
        for severity in severities:
            check(kind, severity)
    if not kinds or not severities:
        raise InputError("Expected at least one corruption and one severity. Received: none. Try 'fog' and 3.")
    options: dict[str, Any] = {"seed": seed, "batch_size": batch_size, "passes": passes, "should_stop": should_stop}
    if y is None and isinstance(x, Iterator):  # Its batches come once, and there may be two networks.
        x, y = collected(x)
    task = Task.checked(model, x, y, precision="float32", **options)
    other = None if reference is None else Task.checked(reference, x, y, precision="float32", **options)
    measurement = _Measurement(task, other, Checkpoints(None if resume_dir is None else Path(resume_dir)), emit)
    with measurement.checkpoints.held():
        return measurement.run(list(dict.fromkeys(kinds)), sorted(set(severities)))


class _Measurement:
    """A network, a reference and images that are about to be measured."""

    def __init__(self, task: Task, reference: Task | None, checkpoints: Checkpoints, emit: Emit | None) -> None:
        self.task, self.reference, self.checkpoints = task, reference, checkpoints
        self.emit = emit or (lambda event: None)
        self.pixels = levels(visible(task.classifier, task.x))
        if reference is not None:
            reference.classifier.check_shape(self.pixels.shape[1:])
        self.shown = 0

    def run(self, kinds: list[str], severities: list[int]) -> Corrupted:
        task, reference = self.task, self.reference
        clean = task.judge(task.x, 1)
        self.shown = int(np.argmax(~clean.wrong))
        reference_clean = None if reference is None else reference.judge(reference.x, 1)
        findings = about_models(task) + at_chance(task, clean) + classes_missing(task)
        for finding in findings:
            self.emit(finding)
        self._agree()
        with task.classifier.unchanged():
            cells = list(self._cells([(kind, severity) for kind in kinds for severity in severities]))
        others = None if reference_clean is None else Judged(rates=reference_clean.correct_rate)
        own = Judged(rates=clean.correct_rate, shared=clean.shared)
        return replace(
            of_cells(cells, own, others, task.classifier.randomized),
            shown=self.shown,
            said=int(clean.prediction[self.shown]),
            findings=findings,
            conventions=task.classifier.conventions.said(),
        )

    def _agree(self) -> None:
        """Raises InputError where the folder holds what was measured of other networks, images or seeds."""
        task, other = self.task, self.reference
        marks = marks_of(task) | ({} if other is None else {"reference": mark_of(other.classifier, other)})
        sizes = {"seed": task.seed, "batch_size": task.batch_size, "passes": task.passes}
        agree(self.checkpoints, "measurement", sizes | marks)

    def _cells(self, wanted: list[tuple[str, int]]) -> Iterator[Cell]:
        """Yields the cells, those from the folder at once."""
        pace = Pace(self.emit, "image", len(wanted) * len(self.pixels))
        for kind, severity in wanted:
            name = f"{kind}-{severity}"
            saved = self.checkpoints.get(name)
            if saved is None:
                saved = self._measure(kind, severity, pace)
                self.checkpoints.put(name, saved)
            else:
                pace.skip(len(self.pixels))
            cell = self._cell(kind, severity, saved)
            self.emit(CorruptionFinished(**cell.entry()))
            yield cell

    def _measure(self, kind: str, severity: int, pace: Pace) -> dict[str, np.ndarray]:
        """Returns the rates of both networks under a corruption, as the folder keeps them."""
        task, began = self.task, time.monotonic()
        tasks = [task, *([] if self.reference is None else [self.reference])]
        verdicts: list[list[Verdict]] = [[] for _ in tasks]
        size = task.batch_size * -(-PART // task.batch_size)
        for first in range(0, len(self.pixels), size):
            if task.should_stop():
                raise Cancelled
            part = slice(first, first + size)
            images = corrupted(self.pixels[part], kind, severity, seed=task.seed, first=first) / np.float32(255)
            for one, found in zip(tasks, verdicts, strict=True):
                found.append(judged(one, images, part, kind, severity))
            pace.add(len(images))
        passes = [np.concatenate([verdict.passes for verdict in found], axis=1) for found in verdicts]
        whole = [found == task.y for found in passes]
        said = np.concatenate([verdict.prediction for verdict in verdicts[0]])[self.shown]
        return {
            "seconds": np.array(time.monotonic() - began),
            "rates": np.stack([right.mean(axis=0) for right in whole]),
            "shared": np.array([shared_error(right) for right in whole]),
            "said": np.array([self.shown, said]),
        }

    def _cell(self, kind: str, severity: int, saved: Mapping[str, np.ndarray]) -> Cell:
        own, *others = (
            Judged(rates=rates, shared=float(shared))
            for rates, shared in zip(saved["rates"], saved["shared"], strict=True)
        )
        # Another image may stand for all: what can't be seeded was right on another one then, or it wasn't kept yet.
        place, said = saved.get("said", (None, 0))
        return Cell(
            kind=kind,
            severity=severity,
            judged=own,
            interval=accuracy_interval(own.rates, self.task.classifier.randomized, own.shared),
            seconds=float(saved["seconds"]),
            reference=others[0] if others else None,
            said=int(said) if place == self.shown else None,
        )


def judged(task: Task, images: np.ndarray, part: slice, kind: str, severity: int) -> Verdict:
    """Returns the verdict on corrupted images in the place of a part of the task's.

    A randomized network's noise depends on the seed, the corruption and the place, and not on what was asked before.
    """
    options: dict[str, Any] = {"passes": task.passes, "batch_size": task.batch_size, "should_stop": task.should_stop}
    seed = [task.seed, zlib.crc32(kind.encode()), severity, part.start]
    return judge(task.classifier, images, task.y[part], seed=seed, **options)


def of_cells(
    cells: list[Cell], clean: Judged, reference_clean: Judged | None = None, randomized: bool = False
) -> Corrupted:
    """Returns what is made of cells that were measured on the same images.

    Args:
        cells: each kind at the same severities.
        clean: what the network says of the unchanged images.
        reference_clean: what the reference network says of them, where the cells have one.
        randomized: whether the network is.
    """
    kinds = list(dict.fromkeys(cell.kind for cell in cells))
    before = None if reference_clean is None else reference_clean.accuracy
    of_kinds = [_of_kind(kind, cells, clean.accuracy, before) for kind in kinds]
    means = counted(kinds)
    counting = [item for item in of_kinds if item.kind in means]
    return Corrupted(
        clean=Share(clean.accuracy, accuracy_interval(clean.rates, randomized, clean.shared)),
        reference_clean=before,
        cells=cells,
        kinds=of_kinds,
        mean=_mean([cell for cell in cells if cell.kind in means], randomized),
        mce=mean_of([item.ce for item in counting]),
        relative_mce=mean_of([item.relative_ce for item in counting]),
        mce_interval=_mce_interval(cells, means, reference_clean),
        relative_mce_interval=_mce_interval(cells, means, reference_clean, clean),
    )


def _mce_interval(
    cells: Sequence[Cell], kinds: Sequence[str], reference: Judged | None, clean: Judged | None = None
) -> tuple[float, float] | None:
    """Returns the interval of mCE over cells of these kinds, or with `clean` of relative mCE; None for no reference."""
    if reference is None:
        return None
    own = np.stack([[cell.judged.rates for cell in cells if cell.kind == kind] for kind in kinds])
    others = np.stack(
        [[cell.reference.rates for cell in cells if cell.kind == kind and cell.reference] for kind in kinds]
    )
    return mce_interval(own, others, *(() if clean is None else (clean.rates, reference.rates)))


def _mean(cells: list[Cell], randomized: bool) -> Share:
    """Returns the mean over cells; its interval resamples images, as all cells are of the same ones."""
    rates = np.mean([cell.judged.rates for cell in cells], axis=0)
    # Each cell's noise is its own.
    shared = float(np.sqrt(sum(cell.judged.shared**2 for cell in cells))) / len(cells)
    return Share(float(rates.mean()), accuracy_interval(rates, len(cells) > 1 or randomized, shared))


def _of_kind(kind: str, cells: Sequence[Cell], clean: float, reference_clean: float | None) -> KindError:
    """Returns the errors of one corruption, beside those of the reference network where there is one."""
    own = [cell for cell in cells if cell.kind == kind]
    errors = [1 - cell.judged.accuracy for cell in own]
    error = sum(errors) / len(errors)
    if reference_clean is None:
        return KindError(kind=kind, error=error)
    others = [1 - cell.reference.accuracy for cell in own if cell.reference is not None]
    relative = corruption_error(errors, others, 1 - clean, 1 - reference_clean)
    return KindError(kind=kind, error=error, ce=corruption_error(errors, others), relative_ce=relative)
