"""What the results of attacks say about a model: robust accuracies, curves over epsilon."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from kerasrobust.attacks import Attack, AttackResult
from kerasrobust.attacks.targets import NOWHERE
from kerasrobust.networks.classifier import Classifier
from kerasrobust.show.figures import format_accuracy, format_budget, format_interval
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
        title: what is written for the attack's name, where the report is of several together, or of an attack that
            runs once more to confirm.
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
    title: str | None = None

    def __repr__(self) -> str:
        """Returns the figures; the arrays would fill screens."""
        budget = format_budget(self.epsilon, self.attack.threat()) or self.attack.norm
        share = f"{format_accuracy(self.robust_accuracy)} ({format_interval(self.interval)} %)"
        return f"AttackReport({self.title or self.attack.name} {budget}: robust accuracy {share}; {self.result!r})"

    @property
    def reached(self) -> Share | None:
        """Of a targeted attack, the share of the images with a target that are taken for it, within the radius."""
        if self.target is None or (self.target == NOWHERE).all():
            return None
        inside = not self.attack.minimum_norm or self.result.distance <= self.epsilon
        there = (self.result.success & inside)[self.target != NOWHERE].astype(np.float64)
        return Share(float(there.mean()), accuracy_interval(there, randomized=False))

    def _settings(self) -> dict[str, Any]:
        """Returns the attack's settings; what follows from others as the number that it was."""
        # The radius that counts, where the attack's graph has another number for none.
        numbers, said = self.attack.numbers() | {"epsilon": self.epsilon}, self.attack.settings()
        return {name: numbers.get(name) if value is None else value for name, value in said.items()}

    def entry(self) -> dict[str, Any]:
        """Returns the attack's entry in `result.json`."""
        everything = self.attacked.all()
        aimed = self.result.correct if self.target is None else self.result.correct & (self.target != NOWHERE)
        median = self.result.median_over(aimed) if everything and self.attack.in_ball else math.nan
        entry: dict[str, Any] = {
            "name": self.title or self.attack.name,
            "norm": self.attack.threat(),
            "epsilon": self.epsilon,
            "robust_accuracy": self.robust_accuracy,
            "interval": list(self.interval),
            "median_distance": median if math.isfinite(median) else None,
            "seconds": self.result.seconds,
            "gradients": self.result.gradients,
            "forwards": self.result.forwards,
            "settings": self._settings(),
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
