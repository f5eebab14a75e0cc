"""Does randomness help? A randomized network beside one without noise that is right as often on unchanged images."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from kerasrobust.evaluation.evaluate import Evaluation
from kerasrobust.evaluation.outcome import surviving
from kerasrobust.show.figures import attack_name, format_accuracy, format_interval
from kerasrobust.stats import accuracy_interval, difference_interval

WORTH = 0.01
"""A difference in accuracy that is worth speaking of."""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One network's part of the comparison.

    Attributes:
        randomized: whether its answers differ from pass to pass.
        attack: what its strongest attack is called.
        clean: float64 (N,), per image the share of passes that are right.
        robust: the same under that attack.
        shared: the standard error of the latter by noise that images share.
    """

    randomized: bool
    attack: str
    clean: np.ndarray
    robust: np.ndarray
    shared: float = 0.0

    @staticmethod
    def of(evaluation: Evaluation, epsilon: float) -> Measured:
        """Returns what an evaluation found at a radius, under the attack that leaves the least there."""
        inside = [item for item in evaluation.attacks if item.attack.minimum_norm or item.epsilon == epsilon]
        rates = [surviving(item.attack, item.result, epsilon) for item in inside]
        least = min(range(len(inside)), key=lambda place: float(rates[place].mean()))
        report = inside[least]
        eot = f" with EOT {report.attack.eot}" if report.attack.eot > 1 else ""
        return Measured(
            randomized=evaluation.randomized,
            attack=f"{attack_name(report.attack.name)}{eot}",
            clean=report.result.clean_rate,
            robust=rates[least],
            shared=report.result.shared,
        )

    @staticmethod
    def parse(record: dict[str, Any]) -> Measured:
        """Returns what `as_json` was made of."""
        arrays = {name: np.array(record[name], np.float64) for name in ("clean", "robust")}
        return Measured(**record | arrays)

    def as_json(self) -> dict[str, Any]:
        return vars(self) | {"clean": self.clean.tolist(), "robust": self.robust.tolist()}

    def said(self) -> str:
        """Returns its figures in words."""
        interval = format_interval(accuracy_interval(self.robust, self.randomized, self.shared))
        return (
            f"{format_accuracy(float(self.robust.mean()))} ({interval} %) under {self.attack}, "
            f"{format_accuracy(float(self.clean.mean()))} clean"
        )


def does_randomness_help(randomized: Measured, matched: Measured) -> str:
    """Returns the answer as a sentence, with both networks' figures on the same images.

    The difference of their accuracies under attack counts with its paired 95 % interval: it helps where all of that is
    above 0, doesn't where all of it is below `WORTH`, and can't be told otherwise. No verdict is given where their
    clean accuracies differ by more than chance and more than `WORTH`, as each can be bought with the other.

    Example:
        >>> print(does_randomness_help(Measured.of(first, 8 / 255), Measured.of(second, 8 / 255)))
    """
    count = f"{len(randomized.clean):,} images"
    both = f"the randomized network keeps {randomized.said()}; the matched one without noise {matched.said()}"
    gap, low, high = _gap(randomized.clean, matched.clean)
    if abs(gap) > WORTH and not low <= 0 <= high:
        return (
            f"No verdict, as the clean accuracies differ by {_points(gap, low, high)} on {count}, and either kind of "
            f"accuracy can be bought with the other: {both}."
        )
    gap, low, high = _gap(randomized.robust, matched.robust, math.hypot(randomized.shared, matched.shared))
    points = _points(gap, low, high)
    if low > 0:
        return f"It helps by {points} on {count}: {both}."
    if high < WORTH:
        return f"It doesn't, the difference being {points} on {count}: {both}."
    return f"It can't be told on {count}, the difference being {points}: {both}."


def _gap(first: np.ndarray, second: np.ndarray, shared: float = 0.0) -> tuple[float, float, float]:
    return float((first - second).mean()), *difference_interval(first, second, shared)


def _points(gap: float, low: float, high: float) -> str:
    # Not -0.0.
    return f"{0.0 + 100 * gap:+.1f} points (95 %: {100 * low:+.1f} to {100 * high:+.1f})"
