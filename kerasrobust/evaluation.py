"""Clean and robust accuracy with 95 % intervals, from attacks whose results were re-predicted."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from kerasrobust.attacks import ATTACKS, Attack, AttackResult, Step
from kerasrobust.attacks.base import PASSES
from kerasrobust.classifier import as_classifier, check_images, has_gradient
from kerasrobust.errors import InputError, unknown_name
from kerasrobust.verdict import judge

RESAMPLES = 2_000


def wilson(right: float, count: int) -> tuple[float, float]:
    """Returns the 95 % Wilson score interval of a share, `right` of `count` independent trials.

    Example:
        >>> [round(end, 3) for end in wilson(50, 100)]
        [0.404, 0.596]

    Reference: Wilson 1927; Brown et al. 2001, section 3.1.1.
    """
    if count == 0:
        return 0.0, 1.0
    z = 1.959963984540054
    share = right / count
    centre = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    # Exact at the ends, where rounding leaves 7e-18.
    return 0.0 if right == 0 else max(0.0, centre - half), 1.0 if right == count else min(1.0, centre + half)


def bootstrap(rates: np.ndarray, seed: int = 0) -> tuple[float, float]:
    """Returns the 95 % percentile interval of the mean of `rates` (N,), by resampling examples.

    For randomized networks: the passes over one example are not independent trials, so Wilson's formula on their total
    would be far too narrow.

    Reference: Efron and Tibshirani 1993, section 13.3.
    """
    if len(rates) == 0:
        return 0.0, 1.0
    if np.ptp(rates) == 0 and rates[0] in (0, 1):  # All alike: resampling would claim certainty.
        return wilson(float(rates.sum()), len(rates))
    draw = np.random.default_rng(seed)
    means = np.array([rates[draw.integers(0, len(rates), len(rates))].mean() for _ in range(RESAMPLES)])
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


def accuracy_interval(rates: np.ndarray, randomized: bool) -> tuple[float, float]:
    """Returns the 95 % interval of a mean accuracy: Wilson's, or by resampling examples for a randomized network."""
    return bootstrap(rates) if randomized else wilson(float(rates.sum()), len(rates))


def make_attack(
    name: str, *, epsilon: float | None = None, norm: str = "linf", eot: int = 1, **settings: Any
) -> Attack:
    """Returns an attack by its registered name; settings that are None are left at the attack's own default.

    Raises:
        InputError: for an unknown name, or a setting that the attack doesn't have.

    Example:
        >>> make_attack("pgd", epsilon=8 / 255, steps=20).name
        'pgd'
    """
    if name not in ATTACKS:
        raise unknown_name("attack", name, ATTACKS)
    kind = ATTACKS[name]
    known = {item.name for item in dataclasses.fields(kind)}
    if epsilon is not None and "epsilon" in known:
        settings["epsilon"] = epsilon
    settings = {key: value for key, value in settings.items() if value is not None}
    for key in settings:
        if key not in known:
            raise InputError(f"Expected settings that {name!r} has. Received: {key}. Leave it out, or use pgd.")
    return kind(norm=norm, eot=eot, **settings)  # type: ignore[arg-type]


@dataclass(frozen=True, kw_only=True)
class AttackReport:
    """One attack's part of an evaluation.

    Attributes:
        attack: what ran.
        epsilon: radius at which robust accuracy is read off.
        rates: float64 (N,), per example the share of fresh passes that are right under this attack.
        robust_accuracy: their mean.
        interval: its 95 % interval.
        result: what the attack found.
    """

    attack: Attack
    epsilon: float
    rates: np.ndarray
    robust_accuracy: float
    interval: tuple[float, float]
    result: AttackResult

    def entry(self) -> dict[str, Any]:
        """Returns the attack's entry in `result.json`."""
        median = self.result.median_distance
        return {
            "name": self.attack.name,
            "norm": self.attack.norm,
            "epsilon": self.epsilon,
            "robust_accuracy": self.robust_accuracy,
            "interval": list(self.interval),
            "median_distance": median if math.isfinite(median) else None,
            "seconds": self.result.seconds,
            "gradients": self.result.gradients,
            "forwards": self.result.forwards,
        }


def surviving(attack: Attack, result: AttackResult, epsilon: float) -> np.ndarray:
    """Returns per example the share of passes that are right at this radius, float64 (N,).

    A minimum-norm attack has one distance per example: an example further away than `epsilon` counts as it was before.
    """
    if not attack.minimum_norm:
        return result.correct_rate
    return np.where(result.distance > epsilon, result.clean_rate, result.correct_rate)


def _inside(found: AttackReport, x: np.ndarray) -> np.ndarray:
    """Returns the attack's examples inside its radius: the image itself where a minimum-norm attack went further."""
    if not found.attack.minimum_norm:
        return found.result.x_adv
    return np.where((found.result.distance > found.epsilon)[:, None, None, None], x, found.result.x_adv)


def report(attack: Attack, result: AttackResult, epsilon: float, randomized: bool) -> AttackReport:
    """Returns what an attack's result says about robust accuracy at a radius."""
    rates = surviving(attack, result, epsilon)
    return AttackReport(
        attack=attack,
        epsilon=epsilon,
        rates=rates,
        robust_accuracy=float(rates.mean()),
        interval=accuracy_interval(rates, randomized),
        result=result,
    )


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What `evaluate` found.

    Attributes:
        clean_accuracy: share of images that are right (mean over fresh passes for a randomized network).
        clean_interval: its 95 % interval.
        robust_accuracy: the same under all attacks together: per example the attack that did worst to the model counts.
        interval: its 95 % interval.
        per_example: float64 (N,), per example the share of fresh passes that are right under the worst attack; 0 or 1
            where nothing is random.
        attacks: each attack's own report.
        randomized: whether the network's answers differ from pass to pass.
        warnings: (code, message) pairs: reasons to doubt the figures.
    """

    clean_accuracy: float
    clean_interval: tuple[float, float]
    robust_accuracy: float
    interval: tuple[float, float]
    per_example: np.ndarray
    attacks: list[AttackReport]
    randomized: bool
    warnings: list[tuple[str, str]]


def evaluate(
    model: Any,
    x: np.ndarray,
    y: np.ndarray,
    *,
    attacks: str | Attack | Iterable[str | Attack] = "pgd",
    norm: str = "linf",
    epsilon: float = 8 / 255,
    eot: int = 1,
    seed: int = 0,
    precision: str = "auto",
    batch_size: int = 256,
    passes: int = PASSES,
    started: Callable[[Attack], None] | None = None,
    progress: Callable[[Attack, Step], None] | None = None,
    finished: Callable[[AttackReport], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> Evaluation:
    """Measures clean accuracy, and robust accuracy under one attack or several.

    Args:
        model: Keras model, SavedModel network, or callable giving logits.
        x: float32 (N, H, W, C) in [0, 1].
        y: integers (N,).
        attacks: registered names, or attacks with settings of their own.
        norm: of attacks that are given by name.
        epsilon: of attacks that are given by name; the radius at which minimum-norm attacks are read off.
        eot: of attacks that are given by name.
        seed: of everything random; equal seeds give equal results.
        precision: of the attacks' gradients.
        batch_size: images at once.
        passes: fresh passes that judge each example of a randomized network.
        started: called with each attack before it runs.
        progress: called with the attack and a `Step` about every half second.
        finished: called with each attack's report.
        should_stop: asked about every half second.

    Raises:
        InputError: for images, labels or settings that don't fit.
        Cancelled: when `should_stop` says so.

    Example:
        >>> evaluation = evaluate(model, x, y, attacks=["fgsm", "pgd"], epsilon=8 / 255)
        >>> evaluation.robust_accuracy, evaluation.interval
    """
    classifier = as_classifier(model, image_shape=np.shape(x)[1:] if np.ndim(x) == 4 else None)
    x, y = check_images(classifier, x, y)
    chosen = [attacks] if isinstance(attacks, str | Attack) else list(attacks)
    if not chosen:
        raise InputError("Expected at least one attack. Received: none. Try 'pgd'.")
    made = [
        make_attack(item, epsilon=epsilon, norm=norm, eot=eot) if isinstance(item, str) else item for item in chosen
    ]
    stop = should_stop or (lambda: False)
    clean = judge(
        classifier,
        x,
        y,
        passes=passes if classifier.randomized else 1,
        seed=[seed, 1],
        batch_size=batch_size,
        should_stop=stop,
    )
    reports = []
    for attack in made:
        if started:
            started(attack)
        result = attack(
            classifier,
            x,
            y,
            seed=seed,
            precision=precision,
            batch_size=batch_size,
            progress=None if progress is None else partial(progress, attack),
            should_stop=should_stop,
            passes=passes,
            clean=clean,
        )
        radius = attack.radius()
        found = report(attack, result, epsilon if radius is None else radius, classifier.randomized)
        reports.append(found)
        if finished:
            finished(found)
    worst = np.min([item.rates for item in reports], axis=0)
    if classifier.randomized and len(reports) > 1:
        # The lowest of several noisy rates is biased low, so the worst example of each is judged on fresh passes.
        which = np.argmin([item.rates for item in reports], axis=0)
        chosen_x = np.stack([_inside(item, x) for item in reports])[which, np.arange(len(x))]
        fresh = judge(classifier, chosen_x, y, passes=passes, seed=[seed, 3], batch_size=batch_size, should_stop=stop)
        worst = fresh.correct_rate
    warnings = list(classifier.warnings)
    if not has_gradient(classifier):
        message = f"No gradient of {classifier.name!r} reaches the images, so gradient attacks are blind: "
        warnings.append(("no-gradient", message + "the robust accuracy is no more than a guess from above."))
    return Evaluation(
        clean_accuracy=clean.accuracy,
        clean_interval=accuracy_interval(clean.correct_rate, classifier.randomized),
        robust_accuracy=float(worst.mean()),
        interval=accuracy_interval(worst, classifier.randomized),
        per_example=worst,
        attacks=reports,
        randomized=classifier.randomized,
        warnings=warnings,
    )
