"""What an objective sees of one training step, and what it gives back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import tensorflow as tf

from kerasrobust.attacks.gradient import GradientAttack
from kerasrobust.attacks.network import Loss
from kerasrobust.training.labels import Reading


class Aim(NamedTuple):
    """What a training attack maximises.

    Attributes:
        y: labels, (N,) or (N, K), that both functions take.
        loss: of logits (N, K) and those labels, float32 (N,).
        margin: likewise, below 0 where an example has fallen.
    """

    y: tf.Tensor
    loss: Loss
    margin: Loss


class Outcome(NamedTuple):
    """What an objective makes of a batch.

    Attributes:
        loss: a scalar, to be minimised.
        outputs: the network's, in training mode, for the images that are trained on.
        clean: its outputs for the clean images, where the objective has computed them.
    """

    loss: tf.Tensor
    outputs: tf.Tensor
    clean: tf.Tensor | None = None


@dataclass(frozen=True)
class Step:
    """One training step.

    Attributes:
        x: float32 (N, H, W, C) in [0, 1].
        y: labels, integers (N,) or one-hot (N, K).
        weights: of the examples, (N,), or None.
        key: int32 (2,), what is random in this step comes from it.
        share: a scalar, the share of the attack's budget that is in force.
        progress: a scalar, the share of the training that is done, from 0 to 1, as it was when the epoch began.
        reading: how outputs and labels are read.
        attacked: images and a key to the logits that the attack sees, in inference mode.
        averaged: images to the logits of the network's moving average, in inference mode.
        taught: images to the teacher's logits; None without a teacher.
        outputs: images and the number of the pass to the network's outputs in training mode.
        compiled: images, labels and outputs to the compiled loss, a scalar, with the regularizers'.
        craft: an attack, its images and what it maximises to attacked images.
    """

    x: tf.Tensor
    y: tf.Tensor
    weights: tf.Tensor | None
    key: tf.Tensor
    share: tf.Tensor
    progress: tf.Tensor
    reading: Reading
    attacked: Callable[[tf.Tensor, tf.Tensor], tf.Tensor]
    averaged: Callable[[tf.Tensor], tf.Tensor]
    taught: Callable[[tf.Tensor], tf.Tensor] | None
    outputs: Callable[[tf.Tensor, int], tf.Tensor]
    compiled: Callable[[tf.Tensor, tf.Tensor, tf.Tensor], tf.Tensor]
    craft: Callable[[GradientAttack, tf.Tensor, Aim], tf.Tensor]

    def aim(self, labels: tf.Tensor) -> Aim:
        """Returns the loss of labels, which most attacks maximise: those of the data, or probabilities (N, K)."""
        if labels is self.y:
            return Aim(labels, self.reading.loss, self.reading.margin)
        return Aim(
            labels,
            loss=lambda logits, y: tf.nn.softmax_cross_entropy_with_logits(labels=y, logits=logits),
            margin=lambda logits, y: self.reading.margin(logits, tf.argmax(y, axis=1)),
        )

    def logits(self, outputs: tf.Tensor) -> tf.Tensor:
        """Returns logits, float32 (N, K), of the network's outputs."""
        return self.reading.logits(outputs)

    def mean(self, values: tf.Tensor) -> tf.Tensor:
        """Returns the mean of what each example costs, float32 (N,), weighted as Keras weighs its losses.

        Of several replicas each has its part of it, as their gradients are added.
        """
        mean = tf.reduce_mean(values if self.weights is None else values * tf.reshape(self.weights, [-1]))
        return mean / tf.distribute.get_strategy().num_replicas_in_sync
