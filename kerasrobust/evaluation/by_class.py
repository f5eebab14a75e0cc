"""Each class by itself, as it is and under attack, and what its images are taken for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from kerasrobust.attacks.driver import is_nearest
from kerasrobust.evaluation.evaluate import Evaluation
from kerasrobust.evaluation.outcome import Share
from kerasrobust.evaluation.unattacked import confusion_of
from kerasrobust.stats import accuracy_interval

CONFUSED = 100
"""Classes of which tables of true and predicted classes are kept, at most."""


def by_class(evaluation: Evaluation, y: np.ndarray, names: Sequence[str], classes: int) -> dict[str, Any]:
    """Returns what `result.json` has of each class under all attacks together; nothing of several labels an image.

    Args:
        evaluation: of N images.
        y: int64 (N,), their true classes.
        names: those of the classes.
        classes: K, how many there are.

    Returns:
        `by_class`, an entry for each class; and of at most 100 classes `confusion` and `confusion_under_attack`, images
        by true class (row) and predicted class (column), K x K, as they are and as attacks have left them. An image
        whose nearest example lies beyond the radius is in the second as it is in the first.
    """
    if evaluation.labels:
        return {}
    worst, randomized = evaluation.worst, evaluation.randomized

    def share(rates: np.ndarray) -> Share:
        return Share(float(rates.mean()), accuracy_interval(rates, randomized))

    entries: list[dict[str, Any]] = []
    for number in range(classes):
        own = y == number
        entry = {"name": names[number] if number < len(names) else str(number), "images": int(own.sum())}
        if own.any():
            clean, robust = share(worst.clean_rate[own]), share(evaluation.per_example[own])
            entry |= {"accuracy": clean.accuracy, "interval": list(clean.interval)}
            entry |= {"robust_accuracy": robust.accuracy, "robust_interval": list(robust.interval)}
        entries.append(entry)
    if classes > CONFUSED:
        return {"by_class": entries}
    radius = evaluation.attacks[-1].epsilon
    sought = radius is not None and all(is_nearest(report.attack) for report in evaluation.attacks)
    inside = worst.distance <= radius if sought else np.ones(len(y), bool)
    attacked = np.where(inside, worst.prediction_adv, worst.prediction)
    return {
        "by_class": entries,
        "confusion": confusion_of(worst.prediction, y, classes).tolist(),
        "confusion_under_attack": confusion_of(attacked, y, classes).tolist(),
    }
