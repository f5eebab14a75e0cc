"""The rows of a study's table: what was measured of each network, with the figures of the original study beside."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kerasrobust.config import TrainConfig
from kerasrobust.evaluation.evaluate import Evaluation
from kerasrobust.evaluation.outcome import surviving
from kerasrobust.events import Row, Steering
from kerasrobust.stats import accuracy_interval

REFERENCE = 8 / 255
"""The radius that the study of 2023 is about."""

PUBLISHED: dict[str, dict[str | None, float]] = {
    "lenet": {None: 0.40},
    "convnet": {None: 0.69},
    "convnet-random": {"pgd": 0.1157},
    "convnet-random-pgd": {"pgd": 0.2507},
}
"""The figures of the original study on CIFAR-10, by network and attack (None: clean); its attacks used no EOT."""


def study_rows(
    name: str, recipe: TrainConfig, evaluation: Evaluation, radii: Sequence[float], noise: Steering = "on"
) -> list[Row]:
    """Returns one network's rows: clean accuracy, then the attacks, minimum-norm ones once per radius.

    Args:
        name: the network's.
        recipe: how it was trained.
        evaluation: what was found of it, or of what it is with its noise off or frozen.
        radii: at which minimum-norm attacks are read off.
        noise: what was done to its noise.
    """
    figures_of = PUBLISHED.get(name, {}) if noise == "on" else {}
    randomized = evaluation.randomized
    common: dict[str, Any] = {
        "name": name,
        "model": recipe.model,
        "training": recipe.training,
        "randomized": recipe.randomize is not None,
        "noise": noise,
    }
    published, interval = figures_of.get(None), list(evaluation.clean_interval)
    rows = [Row(**common, accuracy=evaluation.clean_accuracy, interval=interval, published=published)]
    for report in evaluation.attacks:
        attack = report.attack
        eot = attack.eot if randomized else None
        for radius in radii if attack.minimum_norm else [report.epsilon]:
            rates = surviving(attack, report.result, radius)
            is_published = radius == REFERENCE and eot == 1
            rows.append(
                Row(
                    **common,
                    attack=attack.name,
                    norm=attack.threat(),
                    epsilon=radius,
                    steps=attack.step_count(),
                    eot=eot,
                    accuracy=float(rates.mean()),
                    interval=list(accuracy_interval(rates, randomized, report.result.shared)),
                    # Inside a ball the distance is just the ball's radius.
                    median_distance=report.entry()["median_distance"] if attack.minimum_norm else None,
                    published=figures_of.get(attack.name) if is_published else None,
                )
            )
    return rows
