"""MART: images that are misclassified already count more."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import tensorflow as tf

from kerasrobust.training.labels import classes_of
from kerasrobust.training.objectives.trades import Paired, divergence
from kerasrobust.training.step import Outcome, Step

_OFFSET = 1e-4


@dataclass(frozen=True, kw_only=True)
class MART(Paired):
    """A boosted cross-entropy, and a divergence that counts more where the clean image is wrong.

        -log p_y(x') - log(1 - max over k != y of p_k(x')) + beta KL(p(x) || p(x')) (1 - p_y(x))

    steps + 2 passes an image.

    Attributes:
        beta: the paper's lambda.

    Reference: Wang et al. 2020, equations 9 to 11.
    """

    name: ClassVar[str] = "mart"

    beta: float = 5.0

    def loss(self, step: Step, images: tf.Tensor, labels: tf.Tensor) -> Outcome:
        clean, outputs = step.outputs(step.x, 2), step.outputs(images, 1)
        attacked, natural = tf.nn.softmax(step.logits(outputs)), tf.nn.softmax(step.logits(clean))
        own = tf.one_hot(classes_of(step.y), tf.shape(attacked)[1])
        rival = tf.reduce_max(attacked * (1.0 - own), axis=1)
        # The offset keeps the logarithm finite where a wrong class is certain.
        boost = -tf.math.log(1.0 + _OFFSET - rival)
        doubt = 1.0 - tf.reduce_sum(natural * own, axis=1)
        moved = divergence(step.logits(clean), step.logits(outputs)) * doubt
        loss = step.compiled(images, labels, outputs) + step.mean(boost + self.beta * moved)
        return Outcome(loss, outputs, clean)
