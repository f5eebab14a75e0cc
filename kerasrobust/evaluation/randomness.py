"""Is the randomness real? Attacks of equal cost that distinguish a defence from noise in the gradients.

A randomized network that plain PGD can't break may only have blinded it. Here PGD meets the network with one draw of
noise frozen, with gradients over 1, 5, 20 and 50 passes, and without its noise (whose examples are then transferred),
each time with the same number of gradient evaluations per image; fresh passes judge them all.

Reference: Athalye et al. 2018, sections 4.3 and 5.3.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from kerasrobust.attacks import PGD
from kerasrobust.attacks.driver import drive
from kerasrobust.attacks.task import Task
from kerasrobust.attacks.verdict import Verdict
from kerasrobust.errors import InputError
from kerasrobust.evaluation.chain import started
from kerasrobust.evaluation.steered import can_be_steered, steered
from kerasrobust.events import AttackFinished, AttackProgress, Emit, Evaluated, Event, Finding
from kerasrobust.networks.classifier import Classifier
from kerasrobust.ops.balls import Norm
from kerasrobust.settings import radius
from kerasrobust.show.figures import format_accuracy
from kerasrobust.stats import accuracy_interval

EOTS = (1, 5, 20, 50)
NOTHING = 0.05
"""An accuracy below this is no defence."""


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One attack's part.

    Attributes:
        name: "pgd-frozen", "pgd-eot-1" and so on, "pgd-transfer".
        eot: passes over which each gradient was averaged.
        steps: how many, so that steps times passes is the same for all.
        rates: float64 (N,), per example the share of fresh passes that are right.
        accuracy: their mean.
        interval: its 95 % interval.
        own_accuracy: of the network that was attacked, frozen or without noise, on its own examples; else None.
        x_adv: float32 (N, H, W, C).
        gradients: gradient evaluations, summed over examples.
        forwards: forward passes beyond those.
        seconds: wall time.
    """

    name: str
    eot: int
    steps: int
    rates: np.ndarray
    accuracy: float
    interval: tuple[float, float]
    own_accuracy: float | None
    x_adv: np.ndarray
    gradients: int
    forwards: int
    seconds: float

    @property
    def title(self) -> str:
        """What a sentence calls it."""
        if self.name == "pgd-frozen":
            return "PGD on frozen noise"
        if self.name == "pgd-transfer":
            return "transfer from the network without its noise"
        return f"PGD with EOT {self.eot}" if self.eot > 1 else "plain PGD"

    def entry(self, norm: str, epsilon: float) -> dict[str, Any]:
        """Returns the attack's entry in `result.json`."""
        return {
            "name": self.name,
            "norm": norm,
            "epsilon": epsilon,
            "robust_accuracy": self.accuracy,
            "interval": list(self.interval),
            "median_distance": None,
            "seconds": self.seconds,
            "gradients": self.gradients,
            "forwards": self.forwards,
        }


@dataclass(frozen=True, kw_only=True)
class Randomness:
    """What `probe_randomness` found.

    Attributes:
        clean_accuracy: mean accuracy over fresh passes on the unchanged images.
        clean_interval: its 95 % interval.
        trials: one per attack.
        verdict: the answer, with its figures.
        findings: the verdict where it is no praise, and what was left out.
    """

    clean_accuracy: float
    clean_interval: tuple[float, float]
    trials: list[Trial]
    verdict: str
    findings: list[Finding]

    @property
    def strongest(self) -> Trial:
        """The attack that left the least."""
        return min(self.trials, key=lambda trial: trial.accuracy)


def probe_randomness(
    model: Any,
    x: np.ndarray,
    y: np.ndarray,
    *,
    norm: Norm = "linf",
    epsilon: float | str = 8 / 255,
    gradients: int = 500,
    passes: int = 50,
    seed: int = 0,
    batch_size: int = 256,
    emit: Emit | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> Randomness:
    """Attacks a randomized network in several ways of equal cost and says what its noise is worth.

    Args:
        model: a randomized network. For one whose noise can't be steered (a foreign SavedModel, noise layers of other
            origin) the frozen noise and the transfer are left out, and a finding says so.
        x: float32 (N, H, W, C) in [0, 1].
        y: integers (N,).
        norm: of the ball.
        epsilon: its radius, a number or a text such as "8/255".
        gradients: gradient evaluations per image of each attack, at least 50; rounded up to whole hundreds.
        passes: fresh passes that judge each example.
        seed: of everything random.
        batch_size: images at once.
        emit: takes events: each attack's start, progress and result, then the findings.
        should_stop: asked about every half second.

    Raises:
        InputError: for a network that isn't randomized, or what doesn't fit it.
        Cancelled: when `should_stop` says so.

    Example:
        >>> print(probe_randomness(model, x, y).verdict)
    """
    epsilon = radius(epsilon, norm)
    task = Task.checked(
        model, x, y, precision="float32", seed=seed, batch_size=batch_size, passes=passes, emit=emit,
        should_stop=should_stop,
    )  # fmt: skip
    classifier = task.classifier
    if not classifier.randomized:
        raise InputError(
            f"Expected a randomized network. Received: {classifier.name!r}, which gives the same answer each time. "
            "Use the command attack for it."
        )
    if gradients < max(EOTS):
        raise InputError(f"Expected at least {max(EOTS)} gradient evaluations. Received: {gradients}. Try 500.")
    # So that every number of passes divides it.
    gradients = -(-gradients // 100) * 100
    clean = task.judge(task.x, 1)
    findings = list(_left_out(classifier))
    trials = []
    for name, eot, target in _plan(task):
        # The last iterate: the first that fools one draw of noise is no good against another.
        attack = PGD(norm=norm, epsilon=epsilon, steps=gradients // eot, eot=eot, keep_best=False)
        trial = _attacked(task, name, attack, target, clean)
        trials.append(trial)
        if emit is not None:
            emit(AttackFinished(attack=name, **trial.entry(norm, epsilon)))
    code, verdict = judgement(trials)
    if code:
        figures = {trial.name: trial.accuracy for trial in trials}
        findings.insert(0, Finding(code=code, message=verdict, severity="warning", evidence=figures))
    interval = accuracy_interval(clean.correct_rate, True, clean.shared)
    if emit is not None:
        weakest = min(trials, key=lambda trial: trial.accuracy)
        emit(Evaluated(
            clean_accuracy=clean.accuracy, clean_interval=list(interval), robust_accuracy=weakest.accuracy,
            interval=list(weakest.interval),
        ))  # fmt: skip
        for finding in findings:
            emit(finding)
    return Randomness(
        clean_accuracy=clean.accuracy,
        clean_interval=interval,
        trials=trials,
        verdict=verdict,
        findings=findings,
    )


def _plan(task: Task) -> list[tuple[str, int, Classifier]]:
    """Returns each attack's name, its passes, and what it attacks."""
    classifier = task.classifier
    plan: list[tuple[str, int, Classifier]] = [(f"pgd-eot-{eot}", eot, classifier) for eot in EOTS]
    if not can_be_steered(classifier):
        return plan
    shape = task.x.shape[1:]
    frozen, silent = steered(classifier, "frozen", shape, task.seed), steered(classifier, "off", shape)
    return [("pgd-frozen", 1, frozen), *plan, ("pgd-transfer", 1, silent)]


def _attacked(task: Task, name: str, attack: PGD, target: Classifier, clean: Verdict) -> Trial:
    """Runs an attack against a network or what it is without its noise, and judges it on the network."""

    def emit(event: Event) -> None:
        if task.emit is not None:
            task.emit(replace(event, attack=name) if isinstance(event, AttackProgress) else event)

    emit(started(attack, len(task.x), name))
    own = target is task.classifier
    aimed = replace(task, classifier=target, passes=task.passes if own else 1, emit=emit)
    only = clean.correct_rate > 0
    result = drive(attack, aimed, early_stop=False, only=only, clean=clean if own else None)
    judged = result if own else task.judge(result.x_adv, 2)
    rates = judged.correct_rate
    return Trial(
        name=name,
        eot=attack.eot,
        steps=attack.steps,
        rates=rates,
        accuracy=float(rates.mean()),
        interval=accuracy_interval(rates, True, judged.shared),
        own_accuracy=None if own else float(result.correct_rate.mean()),
        x_adv=result.x_adv,
        gradients=result.gradients,
        forwards=result.forwards,
        seconds=result.seconds,
    )


def judgement(trials: list[Trial]) -> tuple[str | None, str]:
    """Returns a finding's code, or None where the noise hides nothing, and the verdict as a sentence or two."""
    plain = next(trial for trial in trials if trial.name == "pgd-eot-1")
    best = min(trials, key=lambda trial: trial.accuracy)
    left, least = format_accuracy(plain.accuracy), format_accuracy(best.accuracy)
    gap = plain.rates - best.rates
    # Paired by example; three standard errors, as the strongest of several attacks was chosen by its figure.
    noise = 3 * gap.std() / np.sqrt(len(gap))
    twin = next((trial.own_accuracy for trial in trials if trial.name == "pgd-transfer"), None)
    without = f" The same network without its noise keeps {format_accuracy(twin)}." if twin is not None else ""
    if best.accuracy <= NOTHING:
        beside = "" if best is plain else f" at the cost at which plain PGD leaves {left}"
        return "noise-defends-nothing", f"No: {best.title} leaves {least}{beside}. The noise defends nothing."
    if gap.mean() > max(noise, 0.01):
        return "noisy-gradients", (
            f"In part: plain PGD leaves {left}, and {best.title} at the same cost {least}. The difference of "
            f"{100 * gap.mean():.1f} points was noise in the gradients, no defence.{without}"
        )
    if twin is not None and twin >= best.accuracy:
        return "noise-adds-nothing", (
            f"No: the same network without its noise keeps {format_accuracy(twin)}, and with it {least} "
            f"({best.title}). What defends it isn't the noise."
        )
    if noise > 0.1:
        return "few-examples", (
            f"{len(gap)} images don't show it: plain PGD leaves {left} and {best.title} {least}, a difference of "
            f"{100 * gap.mean():.1f} points that is known to {100 * noise:.0f} only. Take more images.{without}"
        )
    return None, (
        f"Yes, as far as these attacks show: none leaves clearly less than plain PGD ({left}); the lowest is "
        f"{best.title} with {least}. The figure isn't owed to noise in the gradients.{without}"
    )


def _left_out(classifier: Classifier) -> list[Finding]:
    """Returns why frozen noise and transfer are left out; nothing where they aren't."""
    if can_be_steered(classifier):
        return []
    return [
        Finding(
            code="twin-left-out",
            message=(
                f"The noise of {classifier.name!r} can't be steered from outside, so PGD on frozen noise and transfer "
                "from the network without its noise were left out. Give a Keras model with RandomDropout layers."
            ),
            severity="info",
        )
    ]
