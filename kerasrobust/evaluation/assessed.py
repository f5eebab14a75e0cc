"""What is made of the parts of an assessment: lines of its table, rates by image, the union, curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from kerasrobust.attacks import Attack
from kerasrobust.attacks.task import Task
from kerasrobust.attacks.verdict import Verdict
from kerasrobust.evaluation.autoattack import AutoAttack
from kerasrobust.evaluation.budget import Found
from kerasrobust.evaluation.case import finding
from kerasrobust.evaluation.checks.images import WIDE
from kerasrobust.evaluation.corruptions import Cell, Corrupted, Judged, of_cells
from kerasrobust.evaluation.outcome import CURVE_POINTS, CurvePoint
from kerasrobust.evaluation.smoothing import Certificate
from kerasrobust.evaluation.threats import (
    ALPHA,
    CELLS,
    CERTIFIED,
    CORRUPTED,
    OF_CERTIFICATE,
    SAMPLES,
    SELECTION,
    threats,
)
from kerasrobust.events import Finding
from kerasrobust.settings import radius
from kerasrobust.show.figures import attack_name, format_budget, format_norm
from kerasrobust.show.pairs import NORMS, UNION, norms_text, union_of
from kerasrobust.stats import accuracy_interval


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


def seen(
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

    for norm in NORMS:
        if norm in found and found[norm].images:
            rates[norm] = found[norm].arrays[norm]
            add(AutoAttack.name, norm, radius(None, norm), rates[norm], found[norm].arrays[f"{norm} shared"])
    norms = united(found)
    if norms:
        count = min(len(rates[norm]) for norm in norms)
        halves = np.stack([found[norm].arrays[f"{norm} halves"][:count] for norm in norms])
        right = _worst(np.stack([rates[norm][:count] for norm in norms]), halves)
        shared = np.stack([found[norm].arrays[f"{norm} shared"][:count] for norm in norms])
        rates[union_of(norms)] = right
        add(UNION, norms_text(norms, "or"), None, right, shared)
    for name, attack in attacks.items():
        if name in found and found[name].images:
            rates[name] = found[name].arrays[name]
            add(name, attack.threat(), None, rates[name], found[name].arrays[f"{name} shared"])
    return figures, rates


def united(found: Mapping[str, Found]) -> list[str]:
    """Returns the norms that the union is over: those that have a figure, if there are two; none before all had a turn.

    Else it would be told of two norms first, and then of three.
    """
    norms: list[str] = [norm for norm in NORMS if norm in found and found[norm].images]
    return norms if len(norms) > 1 and all(norm in found for norm in NORMS) else []


def without_union(found: Mapping[str, Found]) -> list[str]:
    """Returns why there is no union, where there is none."""
    if united(found):
        return []
    only = [f"one in {format_norm(norm)} alone" for norm in NORMS if found[norm].images]
    return [f"Union: it takes figures in two norms at least, and there is {' '.join(only) or 'none'}."]


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


def curves_of(found: Found | None, randomized: bool) -> dict[str, list[CurvePoint]]:
    """Returns accuracy over the radius in each norm, up to where 1 % of those that fell are left, or AutoAttack's."""
    curves: dict[str, list[CurvePoint]] = {}
    if found is None or not found.images:
        return curves
    for norm in NORMS:
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


def few(figures: Sequence[Figure]) -> list[Finding]:
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
