"""Adversarial logit pairing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import tensorflow as tf

from kerasrobust.training.objectives.trades import Paired
from kerasrobust.training.step import Outcome, Step


@dataclass(frozen=True, kw_only=True)
class ALP(Paired):
    """Adversarial logit pairing: the loss, and how far the logits are from those of the clean image.

        loss(f(x'), y) + beta mean over classes of (z(x') - z(x))^2

    By itself it was broken by longer attacks (Engstrom et al. 2018); trained with enough steps it holds.
    steps + 2 passes an image.

    Attributes:
        beta: the paper's lambda.

    Reference: Kannan et al. 2018, section 3.2.
    """

    name: ClassVar[str] = "alp"

    beta: float = 0.5

    def loss(self, step: Step, images: tf.Tensor, labels: tf.Tensor) -> Outcome:
        clean, outputs = step.outputs(step.x, 2), step.outputs(images, 1)
        apart = tf.reduce_mean(tf.square(step.logits(outputs) - step.logits(clean)), axis=1)
        return Outcome(step.compiled(images, labels, outputs) + self.beta * step.mean(apart), outputs, clean)
