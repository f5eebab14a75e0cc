"""Accuracy under common corruptions, by kind and severity, and what is made of it: mean, mCE and relative mCE.

Reference: Hendrycks and Dietterich 2019, "Benchmarking neural network robustness to common corruptions and
perturbations", sections 3 and 4.1.
"""

from __future__ import annotations

import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from kerasrobust.attacks.checkpoint import Checkpoints
from kerasrobust.attacks.task import Task
from kerasrobust.attacks.verdict import Verdict, judge
from kerasrobust.data.corruptions.corrupting import check, corrupted, levels
from kerasrobust.errors import Cancelled, InputError
from kerasrobust.evaluation.checks.labels import at_chance, classes_missing
from kerasrobust.evaluation.outcome import Share
from kerasrobust.events import CorruptionFinished, Emit, Finding
from kerasrobust.names import CORRUPTIONS, SEVERITIES
from kerasrobust.pace import Pace
from kerasrobust.stats import accuracy_interval, corruption_error, shared_error

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
        shown: the number of the image that stands for all: the first that is right as it is, or else the first.
        said: what the network says of it as it is.
        findings: reasons to doubt the figures.
    """

    clean: Share
    reference_clean: float | None
    cells: list[Cell]
    kinds: list[KindError]
    mean: Share
    mce: float | None
    relative_mce: float | None
    shown: int
    said: int
    findings: list[Finding] = field(default_factory=list)


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
    for kind in kinds:
        for severity in severities:
            check(kind, severity)
    if not kinds or not severities:
        raise InputError("Expected at least one corruption and one severity. Received: none. Try 'fog' and 3.")
    options: dict[str, Any] = {"seed": seed, "batch_size": batch_size, "passes": passes, "should_stop": should_stop}
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
        self.pixels = levels(task.x)
        self.shown = 0

    def run(self, kinds: list[str], severities: list[int]) -> Corrupted:
        task, reference = self.task, self.reference
        clean = task.judge(task.x, 1)
        self.shown = int(np.argmax(~clean.wrong))
        reference_clean = None if reference is None else reference.judge(reference.x, 1)
        findings = at_chance(task, clean) + classes_missing(task)
        for finding in findings:
            self.emit(finding)
        said = [clean, *([] if reference_clean is None else [reference_clean])]
        self._agree([verdict.passes for verdict in said])
        with task.classifier.unchanged():
            cells = list(self._cells([(kind, severity) for kind in kinds for severity in severities]))
        means = counted(kinds)
        of_kinds = [_of_kind(kind, cells, clean, reference_clean) for kind in kinds]
        counting = [item for item in of_kinds if item.kind in means]
        interval = accuracy_interval(clean.correct_rate, task.classifier.randomized, clean.shared)
        return Corrupted(
            clean=Share(clean.accuracy, interval),
            reference_clean=None if reference_clean is None else reference_clean.accuracy,
            cells=cells,
            kinds=of_kinds,
            mean=self._mean([cell for cell in cells if cell.kind in means]),
            mce=mean_of([item.ce for item in counting]),
            relative_mce=mean_of([item.relative_ce for item in counting]),
            shown=self.shown,
            said=int(clean.prediction[self.shown]),
            findings=findings,
        )

    def _mean(self, cells: list[Cell]) -> Share:
        """Returns the mean over cells; its interval resamples images, as all cells are of the same ones."""
        rates = np.mean([cell.judged.rates for cell in cells], axis=0)
        # Each cell's noise is its own.
        shared = float(np.sqrt(sum(cell.judged.shared**2 for cell in cells))) / len(cells)
        mixed = len(cells) > 1 or self.task.classifier.randomized
        return Share(float(rates.mean()), accuracy_interval(rates, mixed, shared))

    def _agree(self, clean: Sequence[np.ndarray]) -> None:
        """Raises InputError where the folder holds what was measured of other networks, images or seeds."""
        task = self.task
        sizes = [task.seed, task.batch_size, task.passes, len(clean)]
        arrays = [self.pixels, task.y]
        # What can't be seeded says something else each time.
        arrays += clean if all(one.classifier.repeats for one in (task, self.reference) if one is not None) else []
        mark = np.array([*sizes, *(zlib.crc32(array.tobytes()) for array in arrays)])
        before = self.checkpoints.get("measurement")
        if before is not None and not np.array_equal(before["mark"], mark):
            raise InputError(
                f"Expected the measurement that {self.checkpoints.folder} was begun with. Received: another model, "
                "other images or another seed. Resume the same, or begin anew: by another --name, by --overwrite, or "
                "in an empty folder."
            )
        self.checkpoints.put("measurement", {"mark": mark})

    def _cells(self, wanted: list[tuple[str, int]]) -> Iterator[Cell]:
        """Yields the cells, those from the folder at once."""
        pace = Pace(self.emit, "image", len(wanted) * len(self.pixels))
        for number, (kind, severity) in enumerate(wanted):
            name = f"{kind}-{severity}"
            saved = self.checkpoints.get(name)
            if saved is None:
                saved = self._measure(kind, severity, number, pace)
                self.checkpoints.put(name, saved)
            else:
                pace.skip(len(self.pixels))
            cell = self._cell(kind, severity, saved)
            self.emit(CorruptionFinished(**cell.entry()))
            yield cell

    def _measure(self, kind: str, severity: int, number: int, pace: Pace) -> dict[str, np.ndarray]:
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
                found.append(self._judged(one, images, part, [task.seed, 2 + number, first]))
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

    def _judged(self, task: Task, images: np.ndarray, part: slice, seed: Sequence[int]) -> Verdict:
        options: dict[str, Any] = {"passes": task.passes, "batch_size": task.batch_size}
        return judge(task.classifier, images, task.y[part], seed=seed, should_stop=task.should_stop, **options)

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


def _of_kind(kind: str, cells: Sequence[Cell], clean: Verdict, reference_clean: Verdict | None) -> KindError:
    """Returns the errors of one corruption, beside those of the reference network where there is one."""
    own = [cell for cell in cells if cell.kind == kind]
    errors = [1 - cell.judged.accuracy for cell in own]
    error = sum(errors) / len(errors)
    if reference_clean is None:
        return KindError(kind=kind, error=error)
    others = [1 - cell.reference.accuracy for cell in own if cell.reference is not None]
    relative = corruption_error(errors, others, 1 - clean.accuracy, 1 - reference_clean.accuracy)
    return KindError(kind=kind, error=error, ce=corruption_error(errors, others), relative_ce=relative)
