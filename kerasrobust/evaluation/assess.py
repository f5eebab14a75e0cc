"""How fragile is this model? One answer from several threats on the same images, within a budget of minutes."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rich.table import Table

from kerasrobust import events
from kerasrobust.attacks import Attack
from kerasrobust.attacks.checkpoint import Checkpoints
from kerasrobust.attacks.task import PASSES, Task
from kerasrobust.attacks.verdict import Verdict
from kerasrobust.entries import Row
from kerasrobust.errors import InputError
from kerasrobust.evaluation.about import about_models
from kerasrobust.evaluation.autoattack import AutoAttack
from kerasrobust.evaluation.begun import agree, marks_of
from kerasrobust.evaluation.budget import BLOCK, LEAST, Budget, Found, Part
from kerasrobust.evaluation.case import finding
from kerasrobust.evaluation.checks.images import WIDE
from kerasrobust.evaluation.checks.labels import at_chance, classes_missing
from kerasrobust.evaluation.corruptions import Cell, Corrupted, Judged, of_cells
from kerasrobust.evaluation.outcome import CURVE_POINTS, CurvePoint
from kerasrobust.evaluation.smoothing import Certificate
from kerasrobust.evaluation.threats import (
    ALPHA,
    BALLS,
    CELLS,
    CERTIFIED,
    CLEAN,
    CORRUPTED,
    OF_CERTIFICATE,
    SAMPLES,
    SELECTION,
    UNION,
    parts_of,
    threats,
)
from kerasrobust.evaluation.unattacked import Unattacked, unattacked
from kerasrobust.events import Emit, Finding
from kerasrobust.names import Version
from kerasrobust.networks.classifier import Classifier
from kerasrobust.networks.images import channels_of, check_fits, read_images
from kerasrobust.networks.making import classifier_of
from kerasrobust.settings import check_minutes, check_seed, check_sigma, radius
from kerasrobust.show.figures import attack_name, format_accuracy, format_budget
from kerasrobust.show.tables import as_html, printed, threat_table
from kerasrobust.stats import accuracy_interval

PREPARED, PREPARING = 15, 0.15
"""Passes over each image that finding out how a model takes images needs, and the share of the budget that may take."""


PACING = 0.05
"""Share of the budget that finding out how fast the model is may take."""


class Figure(NamedTuple):
    """A model's accuracy under one threat.

    Attributes:
        name: of the attack, or "union" for the worst of several on each image; None for no threat at all.
        threat: the norm, or words where the threat is no ball; None without a threat.
        epsilon: the radius; None where there is none.
        accuracy: the share of images that stay right.
        interval: its 95 % interval.
        images: on how many it was measured.
    """

    name: str | None
    threat: str | None
    epsilon: float | None
    accuracy: float
    interval: tuple[float, float]
    images: int


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
            `order` names first. "clean" has it of all of them without any threat.
        order: int64 (N,), the images in the order in which they were taken; of a slow model as many as there is time
            for.
        randomized: whether the network is.
        findings: reasons to doubt the figures.
        left_out: what was not looked at, and why.
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
    left_out: list[str]
    seconds: float
    conventions: dict[str, Any] = field(default_factory=dict)
    curve_images: int = 0

    def __repr__(self) -> str:
        """Returns the table of figures, what there is to doubt, and what wasn't looked at."""
        codes = ", ".join(dict.fromkeys(item.code for item in self.findings)) or "none"
        error = f"{format_accuracy(self.unattacked.calibration.accuracy)}"
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
    time goes: AutoAttack in Linf at 8/255, L2 at 0.5 and L1 at 12, and the worst of these on each image (union);
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
    figures, rates, corruptions, certificate = _seen(found, clean, task, sigma)
    few = _few(figures)
    _say(few, task)
    left_out += _without_time(parts, found, minutes, pace)
    if missed:
        left_out.append(f"{missed:,} of {missed + len(order):,} images: a pass takes {1000 * pace:.0f} ms for one.")
    return Assessment(
        unattacked=before,
        figures=figures,
        curves=_curves(found.get("nearest"), task.classifier.randomized),
        corruptions=corruptions,
        certificate=certificate,
        rates={CLEAN: clean.correct_rate, **rates},
        order=order,
        randomized=task.classifier.randomized,
        findings=about + [item for part in found.values() for item in part.findings] + few,
        left_out=left_out,
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


def _without_time(parts: Sequence[Part], found: Mapping[str, Found], minutes: float, pace: float) -> list[str]:
    """Returns what wasn't looked at as there was no time, with the minutes that would have been enough."""
    total = sum(part.share for part in parts)
    told = []
    for part in parts:
        if not found[part.name].images:
            wanted = max(1.5 * minutes, LEAST * part.passes * pace * total / part.share / 60)
            unit = "minute" if round(wanted) == 1 else "minutes"
            told.append(f"{part.title}: there was no time. About {wanted:.0f} {unit} for this model would do.")
    return told


def _few(figures: Sequence[Figure]) -> list[Finding]:
    """Returns what there is to say of figures whose intervals are wide."""
    wide = [item for item in figures if item.interval[1] - item.interval[0] > WIDE]
    if not wide:
        return []
    words = ", ".join(
        " ".join(
            filter(
                None,
                (attack_name(item.name or ""), format_budget(item.epsilon, item.threat), f"({item.images} images)"),
            )
        )
        for item in wide
    )
    message = f"Known to more than {100 * WIDE:.0f} points only: {words}. More minutes take more images."
    return finding("few-examples", message, "info", examples=min(item.images for item in wide))


def _telling(clean: Verdict, task: Task, sigma: float | None) -> Callable[[Mapping[str, Found]], None]:
    """Returns what emits the lines of the table that a part has added or changed."""
    told: list[Figure] = []

    def tell(found: Mapping[str, Found]) -> None:
        figures = _seen(found, clean, task, sigma)[0]
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


def _seen(
    found: Mapping[str, Found], clean: Verdict, task: Task, sigma: float | None
) -> tuple[list[Figure], dict[str, np.ndarray], Corrupted | None, Certificate | None]:
    """Returns what the parts that are done give: lines of the table, rates by image, corruptions, certificates."""
    figures, rates = _figures(found, threats(task), task.classifier.randomized)
    corruptions = _corruptions(found.get(CORRUPTED), Judged(rates=clean.correct_rate, shared=clean.shared), task)
    certificate = _certificate(found.get(CERTIFIED), sigma or 0.0, task.y)
    return figures + _of_corruptions(corruptions) + _of_certificate(certificate), rates, corruptions, certificate


def _figures(
    found: Mapping[str, Found], attacks: Mapping[str, Attack[Any]], randomized: bool
) -> tuple[list[Figure], dict[str, np.ndarray]]:
    """Returns the accuracy under each threat, and the rates by image that they are made of."""
    figures: list[Figure] = []
    rates: dict[str, np.ndarray] = {}

    def add(name: str, threat: str, epsilon: float | None, right: np.ndarray, shared: np.ndarray) -> None:
        interval = accuracy_interval(right, randomized, float(shared.max()))
        figures.append(Figure(name, threat, epsilon, float(right.mean()), interval, len(right)))

    for norm in BALLS:
        if norm in found and found[norm].images:
            rates[norm] = found[norm].arrays[norm]
            add(AutoAttack.name, norm, radius(None, norm), rates[norm], found[norm].arrays[f"{norm} shared"])
    if all(norm in rates for norm in BALLS):
        count = min(len(rates[norm]) for norm in BALLS)
        halves = np.stack([found[norm].arrays[f"{norm} halves"][:count] for norm in BALLS])
        rates[UNION] = _worst(np.stack([rates[norm][:count] for norm in BALLS]), halves)
        shared = np.stack([found[norm].arrays[f"{norm} shared"][:count] for norm in BALLS])
        add(UNION, "L∞, L2 or L1", None, rates[UNION], shared)
    for name, attack in attacks.items():
        if name in found and found[name].images:
            rates[name] = found[name].arrays[name]
            add(name, attack.threat(), None, rates[name], found[name].arrays[f"{name} shared"])
    return figures, rates


def _worst(rates: np.ndarray, halves: np.ndarray) -> np.ndarray:
    """Returns each image's rate under the worst of several attacks, float64 (N,).

    One half of a randomized network's passes says which attack is the worst, and the other half how often the network
    is right there; and the other way round. The least of several means of the same passes would be too low. Where one
    attack is the worst of nearly all images that choice costs more than it finds: then that attack alone is the union.

    Args:
        rates: float64 (attacks, N), the share of right passes.
        halves: float64 (attacks, N, 2), that of each half of the passes.
    """
    chosen = halves.argmin(axis=0)
    images = np.arange(halves.shape[1])
    worst = (halves[chosen[:, 0], images, 1] + halves[chosen[:, 1], images, 0]) / 2
    lowest = rates[rates.mean(axis=1).argmin()]
    return lowest if lowest.mean() < worst.mean() else worst


def _curves(found: Found | None, randomized: bool) -> dict[str, list[CurvePoint]]:
    """Returns accuracy over the radius in each norm, up to where 1 % of those that fell are left, or AutoAttack's."""
    curves: dict[str, list[CurvePoint]] = {}
    if found is None or not found.images:
        return curves
    for norm in BALLS:
        distance, before, behind = (found.arrays[f"{norm} {what}"] for what in ("distance", "before", "behind"))
        reached = distance[(behind < before) & (distance > 0)]
        # The radius of the table is on it.
        usual = radius(None, norm)
        top = max(float(np.quantile(reached, 0.99)), usual) if len(reached) else 2 * usual
        points = []
        for epsilon in np.linspace(0, top, CURVE_POINTS).tolist():
            right = np.where(distance > epsilon, before, behind)
            points.append(CurvePoint(epsilon, float(right.mean()), *accuracy_interval(right, randomized)))
        curves[norm] = points
    return curves


def _corruptions(found: Found | None, clean: Judged, task: Task) -> Corrupted | None:
    """Returns accuracy under corruptions, beside that on the same images without any."""
    if found is None or not found.images:
        return None
    arrays, randomized = found.arrays, task.classifier.randomized
    cells = []
    for number, (kind, severity) in enumerate(CELLS):
        judged = Judged(rates=arrays["rates"][:, number], shared=float(arrays["shared"][:, number].max()))
        interval = accuracy_interval(judged.rates, randomized, judged.shared)
        seconds = float(arrays["of cells"][:, number].sum())
        cells.append(Cell(kind=kind, severity=severity, judged=judged, interval=interval, seconds=seconds))
    return of_cells(cells, replace(clean, rates=clean.rates[: found.images]), randomized=randomized)


def _of_corruptions(found: Corrupted | None) -> list[Figure]:
    """Returns the line of the table for the mean over corruptions."""
    if found is None:
        return []
    severities = sorted({cell.severity for cell in found.cells})
    words = f"{len(found.kinds)} kinds, severities {severities[0]} to {severities[-1]}"
    images = len(found.cells[0].judged.rates)
    return [Figure(CORRUPTED, words, None, found.mean.accuracy, found.mean.interval, images)]


def _certificate(found: Found | None, sigma: float, y: np.ndarray) -> Certificate | None:
    if found is None or not found.images:
        return None
    return Certificate(
        **{name: found.arrays[name] for name in OF_CERTIFICATE},  # type: ignore[arg-type]
        y=y[: found.images],
        noise="gaussian",
        sigma=sigma,
        samples=SAMPLES,
        selection=SELECTION,
        alpha=ALPHA,
        findings=found.findings,
    )


def _of_certificate(found: Certificate | None) -> list[Figure]:
    """Returns the line of the table for certificates: at AutoAttack's radius, where there can be any, else at sigma."""
    if found is None:
        return []
    usual = radius(None, "l2")
    epsilon = usual if usual < found.largest else found.sigma
    share = found.certified(epsilon)
    return [Figure(CERTIFIED, found.norm, epsilon, share.accuracy, share.interval, len(found.y))]
