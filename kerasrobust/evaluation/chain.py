"""Several attacks on one task, one after another, some of them only on what those before have left."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np

from kerasrobust.attacks import ATTACKS, Attack, AttackResult, make_attack
from kerasrobust.attacks.checkpoint import Checkpoints
from kerasrobust.attacks.driver import drive, is_nearest
from kerasrobust.attacks.surrogate import check_transfers, without_slope
from kerasrobust.attacks.task import Task
from kerasrobust.attacks.verdict import Verdict, predict
from kerasrobust.errors import InputError
from kerasrobust.evaluation.combining import all_nearest, combine, judged, nearest_groups, strongest, together
from kerasrobust.evaluation.narrowing import narrowed
from kerasrobust.evaluation.outcome import AttackReport, CurvePoint, report, surviving
from kerasrobust.events import AttackFinished, AttackProgress, AttackStarted, Event, Finding
from kerasrobust.names import confirming_name
from kerasrobust.networks.classifier import Classifier, has_gradient, reaches, slope_of
from kerasrobust.networks.probe import same
from kerasrobust.networks.straight import straightened
from kerasrobust.stats import accuracy_interval

PROBES = 16
"""Images on which it is tried whether gradients reach them."""


class Part(NamedTuple):
    """An attack of a chain.

    Attributes:
        attack: what runs.
        chained: whether it runs only on what those before it have left.
        radius: at which robust accuracy is read off; None for an attack outside balls.
        narrowed: whether it runs only where it can find something (`narrowing`).
        straight: a network of the same outputs whose gradients it takes, as the model's own reach no image.
        confirming: whether it runs once more on what a cheaper version has left; its figures say so.
    """

    attack: Attack[Any]
    chained: bool
    radius: float | None
    narrowed: bool = False
    straight: Classifier | None = None
    confirming: bool = False


@dataclass(frozen=True, kw_only=True)
class Chained:
    """What a chain of attacks found.

    Attributes:
        clean: the verdict on the unchanged images.
        reports: one for each attack.
        worst: per example what the attack that did worst to the model found.
        by_attack: str (N,), the name of that attack.
        rates: float64 (N,), per example the share of fresh passes that are right under the worst attack.
        nearest: of attacks for the nearest example, where there are several in a norm, what they say as one.
        within: of attacks within one radius after another, what is right within each.
    """

    clean: Verdict
    reports: list[AttackReport]
    worst: AttackResult
    by_attack: np.ndarray
    rates: np.ndarray
    nearest: list[AttackReport] = field(default_factory=list)
    within: list[CurvePoint] = field(default_factory=list)


def part_of(
    attack: Attack[Any],
    epsilon: float | None,
    chained: bool = False,
    narrowed: bool = False,
    confirming: bool = False,
) -> Part:
    """Returns an attack's part; `epsilon` is the radius for one that has none of its own."""
    radius = attack.radius()
    radius = epsilon if radius is None and attack.in_ball else radius
    return Part(attack, chained, radius, narrowed, confirming=confirming)


def run_chain(
    parts: Sequence[Part],
    task: Task,
    *,
    clean: Verdict | None = None,
    checkpoints: Checkpoints | None = None,
    progress: Callable[[Attack[Any], AttackProgress], None] | None = None,
    known: Mapping[Attack[Any] | None, AttackResult] | None = None,
) -> Chained:
    """Runs attacks one after another, and emits when each starts, how far it is, and what it found.

    Args:
        parts: the attacks.
        task: what they run on.
        clean: the verdict on its unchanged images, where that is known.
        checkpoints: where finished batches are saved and found again.
        progress: called with the attack and its progress a few times a second.
        known: what an attack has found against another reading of the same network's outputs, for those that run by
            themselves, and with the key None for all that are chained. It is judged anew, and they go on from there.
            What is of no part goes to the first.

    Raises:
        Cancelled: when `task.should_stop` says so.
    """
    randomized = task.classifier.randomized
    before = _assigned(known or {}, parts)
    clean = clean or task.judge(task.x, 1)
    reports: list[AttackReport] = []
    left = clean.correct_rate
    for number, (attack, chained, radius, narrow, straight, confirming) in enumerate(parts):
        name = confirming_name(attack.name) if confirming else attack.name

        def emit(event: Event, attack: Attack[Any] = attack, name: str = name) -> None:
            if isinstance(event, AttackProgress):
                event = replace(event, attack=name)
            if task.emit is not None:
                task.emit(event)
            if progress is not None and isinstance(event, AttackProgress):
                progress(attack, event)

        emit(started(attack, len(task.x), name))
        attacked = left > 0 if chained else np.ones(len(task.x), bool)
        place = (checkpoints or Checkpoints()).inside(f"{number}-{attack.name}")
        other = before.pop(_key(parts[number]), None)
        target = task.target if attack.targeted else None
        other = other and _judged_here(task, clean, other, target)
        # What looks for the nearest example may find a nearer one.
        rest = attacked & (other is None or is_nearest(attack) or other.correct_rate > 0)
        here = replace(task, emit=emit)
        if straight is not None:
            here = replace(here, surrogate=straight, precision="float32")
        if narrow and other is None:
            asked = np.zeros_like(left) if _in_vain(parts[:number], attack, reports) else left
            within = [item for item in reports if item.epsilon == radius]
            result, attacked = narrowed(attack, here, radius, clean, asked, within, place)
        else:
            result = drive(attack, here, clean=clean, only=rest, checkpoints=place)
        if other is not None:
            # What was learned stays that of this task.
            result = replace(strongest([other, result], is_nearest(attack)), learned=result.learned)
            # As below: the lower of two noisy rates is biased.
            result = judged(result, task.judge(result.x_adv, 6), target) if randomized else result
        found = report(attack, result, radius, randomized, attacked, left, target, here.surrogate)
        reports.append(found := replace(found, title=name) if confirming else found)
        left = np.minimum(left, found.rates) if chained else left
        emit(AttackFinished(attack=name, **found.entry()))
    nearest = _together(reports, task)
    worst, names, rates = _worst(parts, reports, task)
    return Chained(
        clean=clean, reports=reports, worst=worst, by_attack=names, rates=rates, nearest=nearest,
        within=_within(parts, reports, clean, rates, task),
    )  # fmt: skip


def _worst(
    parts: Sequence[Part], reports: Sequence[AttackReport], task: Task
) -> tuple[AttackResult, np.ndarray, np.ndarray]:
    """Returns per example what did worst to the model, that attack's name, and the rate that is left, float64 (N,)."""
    worst, names = combine(reports, task.x)
    rates = np.min([item.rates for item in reports], axis=0)
    if task.classifier.randomized and len(reports) > 1:
        # The lowest of several noisy rates is biased low, so the worst example of each is judged on fresh passes.
        worst = judged(worst, task.judge(worst.x_adv, 3), _target(reports, task))
        # Where all look for the nearest example, that may lie further away than the radius.
        sought = all_nearest(reports)
        rates = surviving(parts[0].attack, worst, parts[0].radius) if sought else worst.correct_rate
    return worst, names, rates


def _within(
    parts: Sequence[Part], reports: Sequence[AttackReport], clean: Verdict, rates: np.ndarray, task: Task
) -> list[CurvePoint]:
    """Returns what is right without an attack and within each radius, where all parts are chained and their radii grow.

    `rates`, float64 (N,), are those under all attacks together.
    """
    radii = list(dict.fromkeys(part.radius for part in parts))
    if len(radii) < 2 or not all(part.chained for part in parts):
        return []
    randomized, found = task.classifier.randomized, {0.0: (clean.correct_rate, clean.shared)}
    for place, radius in enumerate(radii):
        before = [item for item, part in zip(reports, parts, strict=True) if part.radius in radii[: place + 1]]
        own, shared = before[-1].rates, before[-1].result.shared
        if radius == radii[-1]:
            own = rates
        elif randomized and len(before) > 1:  # As in the whole: the lowest of several noisy rates is biased.
            verdict = task.judge(combine(before, task.x)[0].x_adv, 3)
            own, shared = verdict.correct_rate, verdict.shared
        found[radius or 0.0] = own, shared
    return [
        CurvePoint(radius, float(own.mean()), *accuracy_interval(own, randomized, shared))
        for radius, (own, shared) in found.items()
    ]


def _together(reports: list[AttackReport], task: Task) -> list[AttackReport]:
    """Returns what attacks for the nearest example of one norm say together, and emits it."""
    judge = (lambda x: task.judge(x, 3)) if task.classifier.randomized else None
    found = [together(group, judge, _target(group, task)) for group in nearest_groups(reports)]
    for item in found:
        if task.emit is not None:
            task.emit(AttackFinished(attack=item.title or item.attack.name, **item.entry()))
    return found


def _target(reports: Sequence[AttackReport], task: Task) -> np.ndarray | None:
    """Returns the classes that attacks drove to, if all of them did."""
    return task.target if all(item.attack.targeted for item in reports) else None


def _in_vain(before: Sequence[Part], attack: Attack[Any], reports: Sequence[AttackReport]) -> bool:
    """Returns whether the part just before was a shorter form of an attack, narrowed too, and broke nothing."""
    if not before or not before[-1].narrowed or before[-1].attack.name != attack.name or len(reports) < 2:
        return False
    return bool((reports[-1].rates == reports[-2].rates).all())


def _key(part: Part) -> Attack[Any] | None:
    return None if part.chained else part.attack


def _assigned(
    known: Mapping[Attack[Any] | None, AttackResult], parts: Sequence[Part]
) -> dict[Attack[Any] | None, AttackResult]:
    """Returns what is known by the parts that it is of; what is of none, as of black boxes where gradients failed, is
    taken in by the first.
    """
    keys = [_key(part) for part in parts]
    own = {key: result for key, result in known.items() if key in keys}
    if strays := [result for key, result in known.items() if key not in keys]:
        own[keys[0]] = strongest([*([own[keys[0]]] if keys[0] in own else []), *strays])
    return own


def _judged_here(task: Task, clean: Verdict, other: AttackResult, target: np.ndarray | None) -> AttackResult:
    """Returns what an attack on another reading of the same network found, with the verdict of this one."""
    classifier = task.classifier
    moved = (other.distance > 0) | classifier.randomized | (not classifier.any_batch)
    return replace(
        judged(other, task.judge_again(clean, moved, other.x_adv, 5), target),
        prediction=clean.prediction, clean_rate=clean.correct_rate, confidence=clean.confidence,
        gradients=0, forwards=int(moved.sum()) * task.passes, seconds=0.0,
    )  # fmt: skip


def started(attack: Attack[Any], examples: int, name: str | None = None) -> AttackStarted:
    """Returns the event that says that an attack starts, under its own name or another."""
    return AttackStarted(
        attack=name or attack.name,
        norm=attack.threat(),
        epsilon=attack.radius(),
        examples=examples,
        settings=attack.settings(),
    )


def without_gradients(parts: Sequence[Part], task: Task) -> tuple[list[Part], list[Finding]]:
    """Returns the attacks that can run, and a finding where those on gradients can't, as none reach the images.

    Where single layers let none through, gradients go straight through these. Otherwise Square and HopSkipJump run in
    the place of such attacks, where they weren't asked for anyway. A surrogate has to have gradients.

    Raises:
        InputError: where no attack can run, and for a surrogate without gradients or of attacks that take none.
    """
    some = task.x[:PROBES]
    if task.surrogate is not None:
        check_transfers(part.attack for part in parts)
        if not has_gradient(task.surrogate, some):
            raise without_slope(task.surrogate)
        return list(parts), []
    if all(part.attack.gradient_free for part in parts):
        return list(parts), []
    slope = slope_of(task.classifier, some)
    if reaches(slope):
        return list(parts), []
    logits = predict(task.classifier, some)
    if slope is not None and len(some) > 1 and same(logits, np.broadcast_to(logits[0], logits.shape)):
        # A network that says the same of every image hides no gradient: it has none, and no attack can change its mind.
        return list(parts), []
    try:
        straight, reason = straightened(task.classifier, some), ""
    except InputError as error:
        straight, reason = None, f" Nor could gradients go straight through single layers: {error}"
    if straight is not None:
        led = [part if part.attack.gradient_free else part._replace(straight=straight) for part in parts]
        return led, [_straight_through(task.classifier.name, straight.name)]
    barred = [part for part in parts if not part.attack.gradient_free]
    able = [part for part in parts if part.attack.gradient_free]
    # Black boxes take the place of attacks inside a ball; for a patch there is none.
    blind = next((part for part in barred if part.attack.in_ball), barred[0])
    there, norm = [part.attack.name for part in able], blind.attack.norm
    narrow = any(part.narrowed for part in barred) and all(part.narrowed for part in able)
    again = any(part.confirming for part in barred)
    for name in ("square", "hopskipjump"):
        takes = ATTACKS[name].takes_targets or not blind.attack.targeted
        if name not in there and norm in ATTACKS[name].norms and takes:
            attack = make_attack(
                name, norm=norm, epsilon=blind.radius, eot=blind.attack.eot, targeted=blind.attack.targeted
            )
            able.append(part_of(attack, blind.radius, True, narrow, again))
    if not able:
        advice = "Take linf or l2." if blind.attack.in_ball else "Take square, sparse-rs or spatial."
        raise InputError(
            f"Expected a model whose gradients reach the images, at {blind.attack.threat()}. Received: "
            f"{task.classifier.name!r}, where none does, and no black-box attack is for that. {advice}"
        )
    outside = ", ".join(part.attack.name for part in barred if not part.attack.in_ball)
    names = ", ".join(part.attack.name for part in able)
    finding = Finding(
        code="black-box-only",
        message=(
            f"No gradient of {task.classifier.name!r} reaches the images, so only black-box attacks ran ({names}). "
            "Attacks on the gradients would find more: treat the robust accuracy as an upper bound."
            + (f" Nothing stands for {outside}." if outside else "")
            + reason
        ),
        severity="warning",
    )
    return able, [finding]


def _straight_through(name: str, straight: str) -> Finding:
    return Finding(
        code="straight-through",
        message=(
            f"No gradient of {name!r} reaches the images, so the attacks followed those of {straight}, as if "
            "that changed nothing (BPDA). Other approximations may find more: treat the robust accuracy as an upper "
            "bound."
        ),
        severity="warning",
    )
