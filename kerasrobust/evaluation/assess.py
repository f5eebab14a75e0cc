"""How fragile is this model? One answer from several threats on the same images, within a budget of minutes."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from kerasrobust import events
from kerasrobust.attacks.checkpoint import Checkpoints
from kerasrobust.attacks.task import PASSES, Task
from kerasrobust.attacks.verdict import Verdict
from kerasrobust.entries import Row
from kerasrobust.errors import InputError
from kerasrobust.evaluation.about import about_models
from kerasrobust.evaluation.assessed import Figure, curves_of, few, seen, without_union
from kerasrobust.evaluation.begun import agree, marks_of
from kerasrobust.evaluation.budget import BLOCK, LEAST, Budget, Found, Part
from kerasrobust.evaluation.checks.labels import at_chance, classes_missing
from kerasrobust.evaluation.corruptions import Corrupted
from kerasrobust.evaluation.outcome import CurvePoint
from kerasrobust.evaluation.smoothing import Certificate
from kerasrobust.evaluation.threats import CLEAN, parts_of
from kerasrobust.evaluation.unattacked import Unattacked, unattacked
from kerasrobust.events import Emit, Finding
from kerasrobust.names import Version
from kerasrobust.networks.classifier import Classifier
from kerasrobust.networks.images import channels_of, check_fits, read_images
from kerasrobust.networks.making import classifier_of
from kerasrobust.settings import check_minutes, check_seed, check_sigma
from kerasrobust.show.figures import format_accuracy
from kerasrobust.show.tables import as_html, printed, threat_table

PREPARED, PREPARING = 15, 0.15
"""Passes over each image that finding out how a model takes images needs, and the share of the budget that may take."""

PACING = 0.05
"""Share of the budget that finding out how fast the model is may take."""


@dataclass(frozen=True, kw_only=True)
class Assessment:
    """What `assess` found.

    Attributes:
        unattacked: accuracy, confusion and calibration on images as they are: all that `order` names.
        figures: accuracy under each threat, on as many images as the budget allowed.
        curves: accuracy over the radius, by norm, on the first `curve_images` of the images.
        corruptions: accuracy under each corruption at each severity; None where the time was spent before.
        certificate: what smoothing certifies; None without a sigma, or where the time was spent before.
        rates: float64 (n,), by name of a threat the share of fresh passes that are right on each image: of those that
            `order` names first. "clean" has it of all of them without any threat, "union-linf-l2" that of these two
            norms, where there was no time for the third.
        order: int64 (N,), the images in the order in which they were taken; of a slow model as many as there is time
            for.
        randomized: whether the network is.
        findings: reasons to doubt the figures.
        short: by title, the minutes to try for what there was no time for.
        not_taken: what else was not looked at, and why.
        seconds: what the attacks took, that of earlier processes included.
        conventions: what was said or found out of the model, as `evaluate` returns it.
    """

    unattacked: Unattacked
    figures: list[Figure]
    curves: dict[str, list[CurvePoint]]
    corruptions: Corrupted | None
    certificate: Certificate | None
    rates: dict[str, np.ndarray]
    order: np.ndarray
    randomized: bool
    findings: list[Finding]
    short: dict[str, float]
    not_taken: list[str]
    seconds: float
    conventions: dict[str, Any] = field(default_factory=dict)
    curve_images: int = 0

    @property
    def left_out(self) -> list[str]:
        """What was not looked at, and why."""
        return self.reasons()

    def reasons(self, models: int = 1) -> list[str]:
        """Returns what was not looked at, and why, where this many models share the minutes."""
        shared = "" if models == 1 else f", for the {models} models together"
        return self.not_taken + [
            # Above what rounding makes of a whole number.
            f"{title}: there was no time. Try --minutes {math.ceil(models * minutes - 1e-6):,} (minutes=){shared}."
            for title, minutes in self.short.items()
        ]

    def __repr__(self) -> str:
        """Returns the table of figures, what there is to doubt, and what wasn't looked at."""
        codes = ", ".join(dict.fromkeys(item.code for item in self.findings)) or "none"
        error = format_accuracy(self.unattacked.calibration.accuracy)
        told = [f"calibration error {error}; findings {codes}", *(f"not looked at: {item}" for item in self.left_out)]
        return "\n".join([printed(self._table()), *told])

    def _repr_html_(self) -> str:
        return as_html(self._table())

    def _table(self) -> Table:
        clean = self.unattacked.clean
        known: dict[str, Any] = {"model": "", "randomized": self.randomized}
        rows = [Row(**known, accuracy=clean.accuracy, interval=clean.interval, examples=len(self.order))]
        rows += [
            Row(
                **known, attack=item.name, norm=item.threat, epsilon=item.epsilon, accuracy=item.accuracy,
                interval=item.interval, examples=item.images,
            )
            for item in self.figures
        ]  # fmt: skip
        return threat_table(rows, synthetic=False)


def assess(
    model: Any,
    x: Any,
    y: Any = None,
    *,
    minutes: float = 10.0,
    version: Version = "auto",
    sigma: float | None = None,
    seed: int = 0,
    precision: str = "auto",
    batch_size: int = 256,
    passes: int = PASSES,
    resume_dir: Path | str | None = None,
    emit: Emit | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> Assessment:
    """Measures what a model is worth under several threats, within a budget of time.

    On all images: accuracy, confusion, calibration. On a random part of them, the same for all threats as far as the
    time goes: AutoAttack in Linf at 8/255, L2 at 0.5 and L1 at 12, and the worst of these on each image (union), of two
    where there was no time for the third;
    accuracy over the radius in each norm; rotation and translation; a patch of a quarter of the width; fifteen common
    corruptions at five severities; certificates by randomized smoothing, where a sigma is given; and what the audit
    finds.

    Args:
        model: as `evaluate` takes it.
        x: images, as `evaluate` takes them.
        y: labels; left out where `x` gives them.
        minutes: the budget. A tracing that takes longer than that can't be stopped.
        version: AutoAttack's; "auto" is "rand" for a randomized network, else "adaptive".
        sigma: standard deviation of the gaussian noise that certificates are by, best that which the network was
            trained under; without it there are none.
        seed: of everything random; equal seeds and equal numbers of images give equal figures.
        precision: of the attacks' gradients.
        batch_size: images at once, 64 at most.
        passes: fresh passes that judge each example of a randomized network.
        resume_dir: a folder where finished blocks of images are saved and found again.
        emit: takes events: a stage for each part, how much of the budget is spent, findings.
        should_stop: asked about every half second.

    Raises:
        InputError: for images, labels or settings that don't fit, or a model of several labels an image.
        Cancelled: when `should_stop` says so.

    Example:
        >>> assessment = assess(model, x, y, minutes=5)
        >>> [(figure.name, figure.threat, figure.accuracy) for figure in assessment.figures]

    Reference: Tramèr and Boneh 2019 (union of threats); Croce and Hein 2020a (AutoAttack).
    """
    began = time.monotonic()
    check_minutes(minutes)
    check_seed(seed)
    if sigma is not None:
        check_sigma(sigma)
    checkpoints = Checkpoints(None if resume_dir is None else Path(resume_dir))
    with checkpoints.held():
        task, order, missed, pace = _prepared(
            model, x, y, checkpoints, 60 * minutes, precision=precision, seed=seed, passes=passes,
            batch_size=min(batch_size, BLOCK), emit=emit, should_stop=should_stop,
        )  # fmt: skip
        asked = {"minutes": minutes, "version": version, "sigma": sigma, "precision": precision, "passes": task.passes}
        agree(checkpoints, "assessment", asked | {"seed": seed, "batch_size": task.batch_size} | marks_of(task))
        checkpoints.put("images", {"most": np.array(len(order))})
        clean = task.judge(task.x, 1)
        about = about_models(task) + at_chance(task, clean) + classes_missing(task)
        _say(about, task)
        prepared = time.monotonic() - began
        budget = Budget(60 * minutes - prepared, len(task.x), pace, checkpoints, emit, task.should_stop, said=about)
        parts, left_out = parts_of(task, version, sigma)
        before = unattacked(clean, task.y, task.classifier.classes, task.classifier.randomized)
        _tell([Figure(None, None, None, *before.clean, len(order))], task)
        found = budget.spend(parts, _telling(clean, task, sigma))
    figures, rates, corruptions, certificate = seen(found, clean, task, sigma)
    wide = few(figures)
    _say(wide, task)
    if missed:
        left_out.append(f"{missed:,} of {missed + len(order):,} images: a pass takes {1000 * pace:.0f} ms for one.")
    return Assessment(
        unattacked=before,
        figures=figures,
        curves=curves_of(found.get("nearest"), task.classifier.randomized),
        corruptions=corruptions,
        certificate=certificate,
        rates={CLEAN: clean.correct_rate, **rates},
        order=order,
        randomized=task.classifier.randomized,
        findings=about + [item for part in found.values() for item in part.findings] + wide,
        short=_short(parts, found, minutes, pace),
        not_taken=left_out + without_union(found),
        seconds=prepared + budget.spent,
        conventions=task.classifier.conventions.said(),
        curve_images=found["nearest"].images if "nearest" in found else 0,
    )


def _pace(classifier: Classifier, x: np.ndarray, seconds: float) -> float:
    """Returns the seconds that a forward pass takes for an image, in batches; of a slow model in smaller ones.

    Args:
        classifier: the model.
        x: float32 (N, H, W, C), a batch of images.
        seconds: that finding it out may take about.
    """
    run, began, count = classifier.runner(2), time.perf_counter(), 1
    run(x[:1])  # Code of one's own may be traced here.
    while True:
        before = time.perf_counter()
        run(x[:count])
        now = time.perf_counter()
        pace = (now - before) / count
        # The next would take four times as long, where it is no faster in larger batches.
        if count >= len(x) or now - began + 4 * (now - before) > seconds:
            return pace
        count = min(4 * count, len(x))


def _prepared(
    model: Any, x: Any, y: Any, checkpoints: Checkpoints, seconds: float, **options: Any
) -> tuple[Task, np.ndarray, int, float]:
    """Returns the task of as many images as there is time for, which those are in the data, in a random order, how many
    are missed, and the seconds that a pass takes for an image.
    """
    images, labels = read_images(x, y)
    classifier = classifier_of(model, image_shape=images.shape[1:])
    images = channels_of(classifier, images)
    if labels.ndim != 1 or classifier.labels is not None:
        count = labels.shape[1] if labels.ndim == 2 else "a model of several"
        raise InputError(f"Expected one label an image. Received: {count}. Use evaluate, which takes several.")
    check_fits(classifier, images.shape[1:], labels)
    pace = _pace(classifier, images[:BLOCK], PACING * seconds)
    most = _affordable(seconds, pace, checkpoints)
    order = np.random.default_rng(options["seed"]).permutation(len(images))[:most]
    return Task.checked(classifier, images[order], labels[order], **options), order, len(images) - len(order), pace


def _affordable(seconds: float, pace: float, checkpoints: Checkpoints) -> int:
    """Returns how many images there is time to prepare: as many as at the first start, where that is resumed."""
    kept = checkpoints.get("images")
    return max(LEAST, int(PREPARING * seconds / (PREPARED * pace))) if kept is None else int(kept["most"])


def _short(parts: Sequence[Part], found: Mapping[str, Found], minutes: float, pace: float) -> dict[str, float]:
    """Returns by title the minutes to try for what there was no time for: those that its first images are expected to
    take, or where tracing took longer, half as many again as there were.
    """
    total = sum(part.share for part in parts)
    return {
        part.title: max(1.5 * minutes, LEAST * part.passes * pace * total / part.share / 60)
        for part in parts
        if not found[part.name].images
    }


def _telling(clean: Verdict, task: Task, sigma: float | None) -> Callable[[Mapping[str, Found]], None]:
    """Returns what emits the lines of the table that a part has added or changed."""
    told: list[Figure] = []

    def tell(found: Mapping[str, Found]) -> None:
        figures = seen(found, clean, task, sigma)[0]
        _tell([item for item in figures if item not in told], task)
        told[:] = figures

    return tell


def _say(findings: Sequence[Finding], task: Task) -> None:
    """Emits findings."""
    for item in findings if task.emit is not None else ():
        task.emit(item)  # type: ignore[misc]


def _tell(figures: Sequence[Figure], task: Task) -> None:
    """Emits lines of the table."""
    for item in figures if task.emit is not None else ():
        task.emit(  # type: ignore[misc]
            events.Row(
                model=task.classifier.name,
                training="",
                randomized=task.classifier.randomized,
                attack=item.name,
                norm=item.threat,
                epsilon=item.epsilon,
                accuracy=item.accuracy,
                interval=list(item.interval),
                examples=item.images,
            )
        )
