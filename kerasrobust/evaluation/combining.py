"""The results of several attacks as one: of each image what did worst to the model, or the nearest example."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from kerasrobust.attacks import AttackResult
from kerasrobust.attacks.driver import is_nearest
from kerasrobust.attacks.verdict import Verdict
from kerasrobust.evaluation.outcome import AttackReport, surviving
from kerasrobust.stats import accuracy_interval


def combine(reports: Sequence[AttackReport], x: np.ndarray) -> tuple[AttackResult, np.ndarray]:
    """Returns per example what the attack that did worst to the model found inside its radius, and that attack's name.

    Of attacks that did the same the first counts, of several radii that within the largest. Costs are those of all
    together. What a minimum-norm attack moved further than the radius counts as unchanged.
    """
    if len(reports) == 1:  # As it is: how far a minimum-norm attack went is worth keeping.
        return reports[0].result, np.full(len(x), reports[0].attack.name, dtype=object)
    if all_nearest(reports):  # As above.
        which = _nearest([item.result for item in reports])
        return picked([item.result for item in reports], which), _names(reports)[which]
    order = np.array(sorted(range(len(reports)), key=lambda place: -(reports[place].epsilon or 0.0)))
    rates = np.array([np.where(item.attacked, item.rates, np.inf) for item in reports])
    which = order[np.argmin(rates[order], axis=0)]
    return picked([_inside(item, x) for item in reports], which), _names(reports)[which]


def _names(reports: Sequence[AttackReport]) -> np.ndarray:
    return np.array([item.attack.name for item in reports], dtype=object)


def nearest_groups(reports: Sequence[AttackReport]) -> list[list[AttackReport]]:
    """Returns the attacks that looked for the nearest example of all images, those of a norm together, where there are
    several.
    """
    groups: dict[str, list[AttackReport]] = {}
    for item in reports:
        if is_nearest(item.attack) and item.attacked.all():
            groups.setdefault(item.attack.norm, []).append(item)
    return [group for group in groups.values() if len(group) > 1]


def all_nearest(reports: Sequence[AttackReport]) -> bool:
    """Returns whether they are one such group."""
    return [len(group) for group in nearest_groups(reports)] == [len(reports)]


def together(
    reports: Sequence[AttackReport],
    judge: Callable[[np.ndarray], Verdict] | None = None,
    target: np.ndarray | None = None,
) -> AttackReport:
    """Returns what attacks for the nearest example say as one: of each image the nearest example that any has found.

    Args:
        reports: of attacks in one norm, each on all images.
        judge: gives the verdict of fresh passes on images, for a randomized network: the lower of several noisy rates
            is biased.
        target: int64 (N,), the classes that they drove to, as in `judged`.
    """
    first, result = reports[0], strongest([item.result for item in reports], nearest=True)
    result = result if judge is None else judged(result, judge(result.x_adv), target)
    rates = surviving(first.attack, result, first.epsilon)
    return replace(
        first,
        title=f"nearest of {', '.join(item.attack.name for item in reports)}",
        result=result,
        rates=rates,
        robust_accuracy=float(rates.mean()),
        interval=accuracy_interval(rates, judge is not None, result.shared),
    )


def strongest(found: Sequence[AttackResult], nearest: bool = False) -> AttackResult:
    """Returns per example which of several results did worst to the model, of equals the first.

    Of examples that are sought as near as can be, the nearest success. Costs are those of all together.
    """
    which = _nearest(found) if nearest else np.argmin([item.correct_rate for item in found], axis=0)
    return picked(found, which)


def _nearest(found: Sequence[AttackResult]) -> np.ndarray:
    """Returns per example the number of the result whose success is the nearest, int64 (N,)."""
    rates = np.array([item.correct_rate for item in found])
    failed = np.array([~item.success for item in found])
    return np.lexsort((rates, np.array([item.distance for item in found]), failed), axis=0)[0]


def picked(found: Sequence[AttackResult], which: np.ndarray) -> AttackResult:
    """Returns per example one of several results, by its number, int64 (N,)."""
    places = np.arange(len(which))

    def pick(name: str) -> np.ndarray:
        return np.stack([getattr(result, name) for result in found])[which, places]

    return replace(
        found[0],
        x_adv=pick("x_adv"),
        prediction_adv=pick("prediction_adv"),
        success=pick("success"),
        correct_rate=pick("correct_rate"),
        confidence_adv=pick("confidence_adv"),
        distance=pick("distance"),
        passes=np.stack([result.passes for result in found], axis=1)[:, which, places],
        learned=None,
        queries=None,
        gradients=sum(item.gradients for item in found),
        forwards=sum(item.forwards for item in found),
        shared=max(result.shared for result in found),
        seconds=sum(item.seconds for item in found),
    )


def judged(result: AttackResult, verdict: Verdict, target: np.ndarray | None = None) -> AttackResult:
    """Returns a result with another verdict on its examples: one of fresh passes.

    With a target, int64 (N,), the class that is to be reached, a success is that class and no other error.
    """
    return replace(
        result,
        prediction_adv=verdict.prediction,
        success=verdict.wrong if target is None else verdict.prediction == target,
        correct_rate=verdict.correct_rate,
        confidence_adv=verdict.confidence,
        passes=verdict.passes,
        shared=verdict.shared,
    )


def _inside(found: AttackReport, x: np.ndarray) -> AttackResult:
    """Returns the attack's result inside its radius: the image itself where a minimum-norm attack went further."""
    result = found.result
    if not found.attack.minimum_norm:
        return result
    out = result.distance > found.epsilon
    return replace(
        result,
        x_adv=np.where(out[:, None, None, None], x, result.x_adv),
        prediction_adv=np.where(out, result.prediction, result.prediction_adv),
        success=np.where(out, ~result.correct, result.success),
        correct_rate=np.where(out, result.clean_rate, result.correct_rate),
        confidence_adv=np.where(out, result.confidence, result.confidence_adv),
        distance=np.where(out, np.float32(0), result.distance),
    )
