"""What the results of attacks say about a model: robust accuracies, curves over epsilon, several attacks as one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from kerasrobust.attacks import Attack, AttackResult
from kerasrobust.attacks.targets import NOWHERE
from kerasrobust.attacks.verdict import Verdict
from kerasrobust.networks.classifier import Classifier
from kerasrobust.stats import accuracy_interval

CURVE_POINTS = 25


class Share(NamedTuple):
    """An accuracy and its 95 % interval."""

    accuracy: float
    interval: tuple[float, float]


class CurvePoint(NamedTuple):
    """Robust accuracy at a radius, with its 95 % interval."""

    epsilon: float
    accuracy: float
    low: float
    high: float


class QueryPoint(NamedTuple):
    """Robust accuracy after so many queries of each image, with its 95 % interval."""

    queries: int
    accuracy: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class AttackReport:
    """One attack's part of an evaluation.

    Attributes:
        attack: what ran.
        epsilon: radius at which robust accuracy is read off; None for an attack outside balls.
        attacked: bool (N,), what it ran on: all examples, or those that the attacks before it have left.
        rates: float64 (N,), per example the share of fresh passes that are right under this attack; where it didn't
            run, under those before it.
        robust_accuracy: their mean.
        interval: its 95 % interval.
        result: what the attack found.
        target: int64 (N,), the classes that a targeted attack drives to, `NOWHERE` where there is none.
        surrogate: the name of the model whose gradients it took, where that isn't the attacked one.
    """

    attack: Attack[Any]
    epsilon: float | None
    attacked: np.ndarray
    rates: np.ndarray
    robust_accuracy: float
    interval: tuple[float, float]
    result: AttackResult
    target: np.ndarray | None = None
    surrogate: str | None = None

    @property
    def reached(self) -> Share | None:
        """Of a targeted attack, the share of the images with a target that are taken for it, within the radius."""
        if self.target is None or (self.target == NOWHERE).all():
            return None
        inside = not self.attack.minimum_norm or self.result.distance <= self.epsilon
        there = (self.result.success & inside)[self.target != NOWHERE].astype(np.float64)
        return Share(float(there.mean()), accuracy_interval(there, randomized=False))

    def entry(self) -> dict[str, Any]:
        """Returns the attack's entry in `result.json`."""
        everything = self.attacked.all()
        aimed = self.result.correct if self.target is None else self.result.correct & (self.target != NOWHERE)
        median = self.result.median_over(aimed) if everything and self.attack.in_ball else math.nan
        entry: dict[str, Any] = {
            "name": self.attack.name,
            "norm": self.attack.threat(),
            "epsilon": self.epsilon,
            "robust_accuracy": self.robust_accuracy,
            "interval": list(self.interval),
            "median_distance": median if math.isfinite(median) else None,
            "seconds": self.result.seconds,
            "gradients": self.result.gradients,
            "forwards": self.result.forwards,
        }
        if (reached := self.reached) is not None:
            entry |= {"reached": reached.accuracy, "reached_interval": list(reached.interval)}
        if self.surrogate is not None:
            entry["surrogate"] = self.surrogate
        if everything and self.result.queries is not None and self.target is None:
            fallen = np.where(self.result.queries > 0, self.result.queries, np.inf)[self.result.correct]
            typical = float(np.median(fallen)) if len(fallen) else math.inf
            entry["median_queries"] = typical if math.isfinite(typical) else None
            entry["query_curve"] = [list(point) for point in query_curve(self.result)]
        if not everything:
            entry["attacked"] = int(self.attacked.sum())
        # One that stops inside a radius doesn't look for the nearest example.
        if self.attack.minimum_norm and everything and self.attack.search_radius() is None:
            entry["curve"] = [list(point) for point in curve(self.result)]
        return entry


def surviving(attack: Attack[Any], result: AttackResult, epsilon: float | None) -> np.ndarray:
    """Returns per example the share of passes that are right at this radius, float64 (N,).

    A minimum-norm attack has one distance per example: an example further away than `epsilon` counts as it was before.
    """
    if not attack.minimum_norm or epsilon is None:
        return result.correct_rate
    return np.where(result.distance > epsilon, result.clean_rate, result.correct_rate)


def curve(result: AttackResult, epsilons: Sequence[float] | None = None) -> list[CurvePoint]:
    """Returns robust accuracy over the radius from one run of a minimum-norm attack, without a run per radius.

    Args:
        result: of one such attack, as DeepFool, FAB or DDN.
        epsilons: the radii; without them 25 from 0 to where nearly nothing is left.

    Example:
        >>> for epsilon, accuracy, low, high in curve(FAB(norm="l2")(model, x, y)):
        ...     print(epsilon, accuracy)
    """
    if epsilons is None:
        reached = result.distance[result.success & result.correct]
        epsilons = np.linspace(0, float(np.quantile(reached, 0.99)) if len(reached) else 1.0, CURVE_POINTS).tolist()
    randomized = len(result.passes) > 1
    points = []
    for epsilon in epsilons:
        rates = np.where(result.distance > epsilon, result.clean_rate, result.correct_rate)
        points.append(CurvePoint(epsilon, float(rates.mean()), *accuracy_interval(rates, randomized, result.shared)))
    return points


def query_curve(result: AttackResult) -> list[QueryPoint]:
    """Returns the share of images that are still right after so many queries of a black-box attack.

    Args:
        result: of Square, Sparse-RS or Spatial on a deterministic network.

    Returns:
        A point for each number of queries after which an image fell, thinned to 25, from the clean accuracy on; none
        for a result without queries.

    Example:
        >>> for queries, accuracy, low, high in query_curve(Square()(model, x, y)):
        ...     print(queries, accuracy)
    """
    if result.queries is None:
        return []
    asked = result.queries[result.queries > 0]
    at = np.unique(np.quantile(asked, np.linspace(0, 1, CURVE_POINTS - 1), method="nearest")) if len(asked) else asked
    points = []
    for queries in (0, *at.tolist()):
        rates = (result.correct & ~((result.queries > 0) & (result.queries <= queries))).astype(np.float64)
        points.append(QueryPoint(int(queries), float(rates.mean()), *accuracy_interval(rates, randomized=False)))
    return points


def report(
    attack: Attack[Any],
    result: AttackResult,
    epsilon: float | None,
    randomized: bool,
    attacked: np.ndarray | None = None,
    before: np.ndarray | None = None,
    target: np.ndarray | None = None,
    surrogate: Classifier | None = None,
) -> AttackReport:
    """Returns what an attack's result says about robust accuracy at a radius.

    Args:
        attack: what ran.
        result: what it found.
        epsilon: the radius; None for an attack outside balls.
        randomized: whether the network is.
        attacked: bool (N,), what it ran on; all without it.
        before: float64 (N,), the rates of the examples that it didn't run on.
        target: int64 (N,), the classes that a targeted attack drives to.
        surrogate: whose gradients it took, where that isn't the attacked model.
    """
    rates = surviving(attack, result, epsilon)
    if attacked is None or before is None:
        attacked = np.ones(len(rates), bool)
    else:
        rates = np.where(attacked, rates, before)
    return AttackReport(
        attack=attack,
        epsilon=epsilon,
        attacked=attacked,
        rates=rates,
        robust_accuracy=float(rates.mean()),
        interval=accuracy_interval(rates, randomized, result.shared),
        result=result,
        target=target,
        surrogate=None if surrogate is None else surrogate.name,
    )


def combine(reports: Sequence[AttackReport], x: np.ndarray) -> tuple[AttackResult, np.ndarray]:
    """Returns per example what the attack that did worst to the model found inside its radius, and that attack's name.

    Of attacks that did the same the first counts. Costs are those of all together. What a minimum-norm attack moved
    further than the radius counts as unchanged.
    """
    if len(reports) == 1:  # As it is: how far a minimum-norm attack went is worth keeping.
        return reports[0].result, np.full(len(x), reports[0].attack.name, dtype=object)
    which = np.argmin([np.where(item.attacked, item.rates, np.inf) for item in reports], axis=0)
    names = np.array([item.attack.name for item in reports], dtype=object)[which]
    return picked([_inside(item, x) for item in reports], which), names


def strongest(found: Sequence[AttackResult], nearest: bool = False) -> AttackResult:
    """Returns per example which of several results did worst to the model, of equals the first.

    Of examples that are sought as near as can be, the nearest that most passes get wrong. Costs are those of all
    together.
    """
    rates = np.array([item.correct_rate for item in found])
    keys = (rates, np.array([item.distance for item in found]), rates > 0.5) if nearest else (rates,)
    return picked(found, np.lexsort(keys, axis=0)[0])


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
        patch=None,
        queries=None,
        gradients=sum(item.gradients for item in found),
        forwards=sum(item.forwards for item in found),
        shared=max(result.shared for result in found),
        seconds=sum(item.seconds for item in found),
    )


def judged(result: AttackResult, verdict: Verdict) -> AttackResult:
    """Returns a result with another verdict on its examples: one of fresh passes."""
    return replace(
        result,
        prediction_adv=verdict.prediction,
        success=verdict.wrong,
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
