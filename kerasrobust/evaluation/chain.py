"""Several attacks on one task, one after another, some of them only on what those before have left."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from kerasrobust.attacks import ATTACKS, Attack, AttackResult, make_attack
from kerasrobust.attacks.checkpoint import Checkpoints
from kerasrobust.attacks.driver import drive
from kerasrobust.attacks.task import Task
from kerasrobust.attacks.verdict import Verdict, predict
from kerasrobust.evaluation.outcome import AttackReport, combine, judged, report
from kerasrobust.events import AttackFinished, AttackProgress, AttackStarted, Event, Finding
from kerasrobust.networks.classifier import has_gradient, slope_of
from kerasrobust.networks.probe import same

PROBES = 16
"""Images on which it is tried whether gradients reach them."""


class Part(NamedTuple):
    """An attack of a chain.

    Attributes:
        attack: what runs.
        chained: whether it runs only on what those before it have left.
        radius: at which robust accuracy is read off.
    """

    attack: Attack[Any]
    chained: bool
    radius: float


@dataclass(frozen=True, kw_only=True)
class Chained:
    """What a chain of attacks found.

    Attributes:
        clean: the verdict on the unchanged images.
        reports: one for each attack.
        worst: per example what the attack that did worst to the model found.
        by_attack: str (N,), the name of that attack.
        rates: float64 (N,), per example the share of fresh passes that are right under the worst attack.
    """

    clean: Verdict
    reports: list[AttackReport]
    worst: AttackResult
    by_attack: np.ndarray
    rates: np.ndarray


def part_of(attack: Attack[Any], epsilon: float, chained: bool = False) -> Part:
    """Returns an attack's part; `epsilon` is the radius for one that has none of its own."""
    radius = attack.radius()
    return Part(attack, chained, epsilon if radius is None else radius)


def run_chain(
    parts: Sequence[Part],
    task: Task,
    *,
    checkpoints: Checkpoints | None = None,
    progress: Callable[[Attack[Any], AttackProgress], None] | None = None,
) -> Chained:
    """Runs attacks one after another, and emits when each starts, how far it is, and what it found.

    Args:
        parts: the attacks.
        task: what they run on.
        checkpoints: where finished batches are saved and found again.
        progress: called with the attack and its progress a few times a second.

    Raises:
        Cancelled: when `task.should_stop` says so.
    """
    randomized = task.classifier.randomized
    clean = task.judge(task.x, 1)
    reports: list[AttackReport] = []
    left = clean.correct_rate
    for number, (attack, chained, radius) in enumerate(parts):

        def emit(event: Event, attack: Attack[Any] = attack) -> None:
            if task.emit is not None:
                task.emit(event)
            if progress is not None and isinstance(event, AttackProgress):
                progress(attack, event)

        emit(started(attack, len(task.x)))
        only = left > 0 if chained else np.ones(len(task.x), bool)
        place = (checkpoints or Checkpoints()).inside(f"{number}-{attack.name}")
        result = drive(attack, replace(task, emit=emit), clean=clean, only=only, checkpoints=place)
        found = report(attack, result, radius, randomized, only, left)
        left = np.minimum(left, found.rates) if chained else left
        reports.append(found)
        emit(AttackFinished(attack=attack.name, **found.entry()))
    worst, names = combine(reports, task.x)
    rates = np.min([item.rates for item in reports], axis=0)
    if randomized and len(reports) > 1:
        # The lowest of several noisy rates is biased low, so the worst example of each is judged on fresh passes.
        worst = judged(worst, task.judge(worst.x_adv, 3))
        rates = worst.correct_rate
    return Chained(clean=clean, reports=reports, worst=worst, by_attack=names, rates=rates)


def started(attack: Attack[Any], examples: int, name: str | None = None) -> AttackStarted:
    """Returns the event that says that an attack starts, under its own name or another."""
    return AttackStarted(
        attack=name or attack.name,
        norm=attack.norm,
        epsilon=attack.radius(),
        examples=examples,
        settings=attack.settings(),
    )


def without_gradients(parts: Sequence[Part], task: Task) -> tuple[list[Part], list[Finding]]:
    """Returns the attacks that can run, and a finding where those on gradients can't, as none reach the images.

    In their place Square and HopSkipJump run, where they weren't asked for anyway.
    """
    some = task.x[:PROBES]
    if all(part.attack.gradient_free for part in parts) or has_gradient(task.classifier, some):
        return list(parts), []
    logits = predict(task.classifier, some)
    alike = len(some) > 1 and same(logits, np.broadcast_to(logits[0], logits.shape))
    if alike and slope_of(task.classifier, some) is not None:
        # A network that says the same of every image hides no gradient: it has none, and no attack can change its mind.
        return list(parts), []
    blind = next(part for part in parts if not part.attack.gradient_free)
    able = [part for part in parts if part.attack.gradient_free]
    there, norm = [part.attack.name for part in able], blind.attack.norm
    for name in ("square", "hopskipjump"):
        if name not in there and norm in ATTACKS[name].norms:
            attack = make_attack(name, norm=norm, epsilon=blind.radius, eot=blind.attack.eot)
            able.append(part_of(attack, blind.radius, chained=True))
    names = ", ".join(part.attack.name for part in able)
    finding = Finding(
        code="black-box-only",
        message=(
            f"No gradient of {task.classifier.name!r} reaches the images, so only black-box attacks ran ({names}). "
            "Attacks on the gradients would find more: treat the robust accuracy as an upper bound."
        ),
        severity="warning",
    )
    return able, [finding]
