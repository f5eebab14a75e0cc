"""ADR: labels that the network's own moving average softens."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import tensorflow as tf

from kerasrobust.errors import InputError
from kerasrobust.training.labels import classes_of
from kerasrobust.training.objectives.pgd import PGD
from kerasrobust.training.step import Step


@dataclass(frozen=True, kw_only=True)
class ADR(PGD):
    """Adversarial training on labels from the network's own moving average (self-distillation).

        label = l p(x) + (1 - l) y,  p = softmax(z_average(x) / temperature),  l = clip(trust - (max p - p_y), 0, 1)

    so that the right class stays the likeliest one. Trust rises and the temperature falls over the training, each as
    half a cosine. The attack maximises the loss of the same labels. steps + 1 1/3 passes an image. Needs `average`.

    Attributes:
        trust: the largest share of the average's opinion at the beginning and at the end, the paper's lambda.
        temperature: of its softmax, likewise, the paper's tau.

    Reference: Wu et al. 2024, equations 4 to 6 and algorithm 1.
    """

    name: ClassVar[str] = "adr"
    soft_labels: ClassVar[bool] = True
    wants_average: ClassVar[bool] = True

    trust: tuple[float, float] = (0.7, 0.95)
    temperature: tuple[float, float] = (2.5, 2.0)

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.trust) != 2 or not all(0 <= value <= 1 for value in self.trust):
            raise InputError(f"Expected two shares in [0, 1] for trust. Received: {self.trust}. Try (0.7, 0.95).")
        if len(self.temperature) != 2 or not all(value > 0 for value in self.temperature):
            raise InputError(f"Expected two temperatures above 0. Received: {self.temperature}. Try (2.5, 2.0).")

    def passes(self, steps: int | None = None) -> float:
        return super().passes(steps) + 1 / 3  # The average's predictions.

    def labels(self, step: Step) -> tf.Tensor:
        trust, temperature = annealed(self.trust, step.progress), annealed(self.temperature, step.progress)
        return tf.stop_gradient(rectified(step.averaged(step.x) / temperature, classes_of(step.y), trust))


def annealed(ends: tuple[float, float], progress: tf.Tensor) -> tf.Tensor:
    """Returns a value between two ends, along half a cosine, for a progress from 0 to 1."""
    return ends[1] + (ends[0] - ends[1]) * 0.5 * (1.0 + tf.cos(math.pi * progress))


def rectified(logits: tf.Tensor, y: tf.Tensor, trust: tf.Tensor | float) -> tf.Tensor:
    """Returns labels (N, K) between the one-hot ones of (N,) and the softmax of logits (N, K).

    Example:
        >>> rectified(tf.constant([[0.0, 0.0]]), tf.constant([1]), 0.5).numpy()
        array([[0.25, 0.75]], dtype=float32)
    """
    probabilities = tf.nn.softmax(logits)
    own = tf.one_hot(y, tf.shape(logits)[1])
    gap = tf.reduce_max(probabilities, axis=1) - tf.reduce_sum(probabilities * own, axis=1)
    share = tf.clip_by_value(trust - gap, 0.0, 1.0)[:, None]
    return share * probabilities + (1.0 - share) * own
