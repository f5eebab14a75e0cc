"""How fragile is this model? One answer from several threats on the same images, within a budget of minutes."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from kerasrobust.attacks import FMN, PGD, Attack, Patch, Spatial
from kerasrobust.attacks.checkpoint import Checkpoints
from kerasrobust.attacks.task import PASSES, Task
from kerasrobust.errors import InputError
from kerasrobust.evaluation.autoattack import AutoAttack
from kerasrobust.evaluation.budget import BLOCK, Block, Budget, Found, Part
from kerasrobust.evaluation.evaluate import Evaluation, evaluate
from kerasrobust.evaluation.outcome import CURVE_POINTS, CurvePoint
from kerasrobust.evaluation.unattacked import Unattacked, unattacked
from kerasrobust.events import Emit, Event, Finding
from kerasrobust.names import Version
from kerasrobust.networks.classifier import has_gradient
from kerasrobust.ops.balls import Norm
from kerasrobust.settings import radius
from kerasrobust.show.figures import format_budget
from kerasrobust.stats import accuracy_interval

BALLS: tuple[Norm, ...] = ("linf", "l2", "l1")
UNION = "union"
PASSES_OF_AUTOATTACK = 1_500
"""Forward passes that the adaptive version takes about for an image of a robust network; slow models are told by it."""
OF_BLOCKS = "adaptive-version", "few-examples"
"""Findings about a block alone: what was left out is said of the whole, and each figure has its interval."""
AUDITED = 256
"""Images that the audit looks at, at most."""


class Figure(NamedTuple):
    """A model's accuracy under one threat.

    Attributes:
        name: of the attack, or "union" for the worst of several on each image.
        threat: the norm, or words where the threat is no ball.
        epsilon: the radius; None where there is none.
        accuracy: the share of images that stay right.
        interval: its 95 % interval.
        images: on how many it was measured.
    """

    name: str
    threat: str
    epsilon: float | None
    accuracy: float
    interval: tuple[float, float]
    images: int


@dataclass(frozen=True, kw_only=True)
class Assessment:
    """What `assess` found.

    Attributes:
        unattacked: accuracy, confusion and calibration on all images as they are.
        figures: accuracy under each threat, on as many images as the budget allowed.
        curves: accuracy over the radius, by norm.
        rates: float64 (n,), by name of a threat the share of fresh passes that are right on each image: of those that
            `order` names first.
        order: int64 (N,), the images in the order in which they were taken.
        randomized: whether the network is.
        findings: reasons to doubt the figures.
        left_out: what was not looked at, and why.
        seconds: what it took, that of earlier processes included.
    """

    unattacked: Unattacked
    figures: list[Figure]
    curves: dict[str, list[CurvePoint]]
    rates: dict[str, np.ndarray]
    order: np.ndarray
    randomized: bool
    findings: list[Finding]
    left_out: list[str]
    seconds: float


def assess(
    model: Any,
    x: Any,
    y: Any = None,
    *,
    minutes: float = 10.0,
    version: Version = "auto",
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
    accuracy over the radius in each norm; rotation and translation; a patch of a quarter of the width; and what the
    audit finds.

    Args:
        model: as `evaluate` takes it.
        x: images, as `evaluate` takes them.
        y: labels; left out where `x` gives them.
        minutes: the budget. A tracing that takes longer than that can't be stopped.
        version: AutoAttack's; "auto" is "rand" for a randomized network, else "adaptive".
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
    if not minutes > 0:
        raise InputError(f"Expected a budget above 0 minutes. Received: {minutes}. Try 10.")
    task = Task.checked(
        model, x, y, precision=precision, seed=seed, batch_size=min(batch_size, BLOCK), passes=passes,
        emit=emit, should_stop=should_stop,
    )  # fmt: skip
    if task.classifier.labels is not None:
        raise InputError(
            f"Expected one label an image. Received: {task.classifier.labels.count}. Use evaluate, which takes several."
        )
    order = np.random.default_rng(seed).permutation(len(task.x))
    task = replace(task, x=task.x[order], y=task.y[order])
    checkpoints = Checkpoints(None if resume_dir is None else Path(resume_dir))
    with checkpoints.held():
        clean = task.judge(task.x, 1)
        pace = _pace(task)
        prepared = time.monotonic() - began
        budget = Budget(60 * minutes - prepared, len(task.x), pace, checkpoints, emit, task.should_stop)
        parts, left_out = _parts(task, version)
        found = budget.spend(parts)
    figures, rates = _figures(found, _threats(task), task.classifier.randomized)
    for part in parts:
        if not found[part.name].images:
            left_out.append(f"{part.title}: the time was spent before. Give it more minutes.")
    return Assessment(
        unattacked=unattacked(clean, task.y, task.classifier.classes, task.classifier.randomized),
        figures=figures,
        curves=_curves(found.get("nearest"), task.classifier.randomized),
        rates=rates,
        order=order,
        randomized=task.classifier.randomized,
        findings=[item for part in found.values() for item in part.findings],
        left_out=left_out,
        seconds=prepared + budget.spent,
    )


def _threats(task: Task) -> dict[str, Attack[Any]]:
    """Returns the attacks outside balls, by name."""
    return {"spatial": Spatial(), "patch": Patch(size=max(1, min(task.x.shape[1:3]) // 4))}


def _parts(task: Task, version: Version) -> tuple[list[Part], list[str]]:
    """Returns what is looked at, in its order, and what isn't, with the reason."""
    chosen: Version = version if version != "auto" else "rand" if task.classifier.randomized else "adaptive"
    parts = []
    for norm in BALLS:
        attack = AutoAttack(norm=norm, epsilon=radius(None, norm), version=chosen)
        title = f"AutoAttack ({chosen}), {format_budget(attack.epsilon, norm)}"
        measure = partial(_attacked, task, norm, attack)
        parts.append(Part(name=norm, title=title, share=20, passes=PASSES_OF_AUTOATTACK, measure=measure))
    audit = partial(_audited, task)
    parts.append(Part(name="audit", title="Reasons to doubt", share=10, passes=300, measure=audit, most=AUDITED))
    blind = not has_gradient(task.classifier, task.x[:1])
    left_out = []
    if chosen == "adaptive":
        left_out.append("The rest of AutoAttack's version standard: --version standard (version=) runs it.")
    if blind:
        left_out.append("Accuracy over epsilon: it is found by gradients, and there are none.")
    else:
        nearest = partial(_nearest, task)
        parts.append(Part(name="nearest", title="Accuracy over epsilon", share=20, passes=1_000, measure=nearest))
    for name, threat in _threats(task).items():
        title = f"{name.capitalize()}: {threat.threat()}"
        if blind and not threat.gradient_free:
            left_out.append(f"{title}: it is made by gradients, and there are none.")
        else:
            measure = partial(_attacked, task, name, threat)
            parts.append(Part(name=name, title=title, share=10, passes=500, measure=measure))
    return parts, left_out


def _attacked(task: Task, name: str, attack: Attack[Any] | AutoAttack, block: Block) -> dict[str, np.ndarray]:
    """Returns the rates of a block under an attack, and the error by noise that its images share."""
    found = _evaluated(task, block, attack)
    return {name: found.per_example, f"{name} shared": np.full(len(found.per_example), found.worst.shared)}


def _pace(task: Task) -> float:
    """Returns the seconds that a forward pass takes for an image, in batches."""
    x = task.x[: task.batch_size]
    run = task.classifier.runner(2)
    run(x)  # Code of one's own may be traced here.
    began = time.perf_counter()
    run(x)
    return (time.perf_counter() - began) / len(x)


def _evaluated(task: Task, block: Block, attack: Attack[Any] | AutoAttack, **settings: Any) -> Evaluation:
    """Returns the evaluation of a block; what it has done is kept under the attack's name and norm."""
    within = block.checkpoints.inside(f"{attack.name}-{attack.norm}")

    def heard(event: Event) -> None:
        if getattr(event, "code", "") not in OF_BLOCKS:
            block.emit(event)

    given: dict[str, Any] = {"audit": False} | settings
    return evaluate(
        task.classifier,
        task.x[block.rows],
        task.y[block.rows],
        attacks=attack,
        seed=task.seed,
        precision=task.precision,
        batch_size=task.batch_size,
        passes=task.passes,
        resume_dir=within.folder,
        emit=heard,
        should_stop=block.should_stop,
        **given,
    )


def _audited(task: Task, block: Block) -> dict[str, np.ndarray]:
    return {"pgd": _evaluated(task, block, PGD(), audit=True, thorough=True).per_example}


def _nearest(task: Task, block: Block) -> dict[str, np.ndarray]:
    """Returns how far the nearest adversarial example is in each norm, and the rates before and behind it."""
    arrays: dict[str, np.ndarray] = {}
    for norm in BALLS:
        found = _evaluated(task, block, FMN(norm=norm)).worst
        arrays |= {
            f"{norm} distance": found.distance, f"{norm} before": found.clean_rate, f"{norm} behind": found.correct_rate
        }  # fmt: skip
    return arrays


def _figures(
    found: Mapping[str, Found], threats: Mapping[str, Attack[Any]], randomized: bool
) -> tuple[list[Figure], dict[str, np.ndarray]]:
    """Returns the accuracy under each threat, and the rates by image that they are made of."""
    figures: list[Figure] = []
    rates: dict[str, np.ndarray] = {}

    def add(name: str, threat: str, epsilon: float | None, right: np.ndarray, shared: np.ndarray) -> None:
        interval = accuracy_interval(right, randomized, float(shared.max()))
        figures.append(Figure(name, threat, epsilon, float(right.mean()), interval, len(right)))

    for norm in BALLS:
        if found[norm].images:
            rates[norm] = found[norm].arrays[norm]
            add(AutoAttack.name, norm, radius(None, norm), rates[norm], found[norm].arrays[f"{norm} shared"])
    if all(norm in rates for norm in BALLS):
        count = min(len(rates[norm]) for norm in BALLS)
        rates[UNION] = np.min([rates[norm][:count] for norm in BALLS], axis=0)
        shared = np.max([found[norm].arrays[f"{norm} shared"][0] for norm in BALLS])
        add(UNION, "L∞, L2 or L1", None, rates[UNION], np.array([shared]))
    for name, attack in threats.items():
        if name in found and found[name].images:
            rates[name] = found[name].arrays[name]
            add(name, attack.threat(), None, rates[name], found[name].arrays[f"{name} shared"])
    return figures, rates


def _curves(found: Found | None, randomized: bool) -> dict[str, list[CurvePoint]]:
    """Returns accuracy over the radius in each norm, up to where 1 % of those that fell are left."""
    curves: dict[str, list[CurvePoint]] = {}
    if found is None or not found.images:
        return curves
    for norm in BALLS:
        distance, before, behind = (found.arrays[f"{norm} {what}"] for what in ("distance", "before", "behind"))
        reached = distance[(behind < before) & (distance > 0)]
        top = float(np.quantile(reached, 0.99)) if len(reached) else 2 * radius(None, norm)
        points = []
        for epsilon in np.linspace(0, top, CURVE_POINTS).tolist():
            right = np.where(distance > epsilon, before, behind)
            points.append(CurvePoint(epsilon, float(right.mean()), *accuracy_interval(right, randomized)))
        curves[norm] = points
    return curves
