"""TRADES: clean accuracy, and as little change of the prediction within the ball as possible."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import tensorflow as tf

from kerasrobust import attacks
from kerasrobust.attacks.algorithm import Images, Numbers
from kerasrobust.attacks.gradient import GradientAttack
from kerasrobust.errors import InputError
from kerasrobust.ops import draws
from kerasrobust.training.objectives.objective import Objective
from kerasrobust.training.step import Aim, Outcome, Step

NEAR = 0.001
"""Deviation of the noise that the attack starts from: at the clean image itself the divergence has no gradient."""


@dataclass(frozen=True, kw_only=True)
class NearPGD(attacks.PGD):
    """PGD from the image itself, but for faint noise."""

    name: ClassVar[str] = "near-pgd"

    def start(self, images: Images, numbers: Numbers) -> tf.Tensor:
        return images.x + NEAR * draws.normal(images.keys, tf.shape(images.x))


@dataclass(frozen=True, kw_only=True)
class Paired(Objective):
    """What the objectives share that compare each attacked image with its clean one.

    Attributes:
        beta: weight of that comparison.
        steps: PGD steps in each training step.
        step_size: length of a step; None for 2.5 epsilon / steps.
    """

    paired: ClassVar[bool] = True

    beta: float
    steps: int = 10
    step_size: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self.attack()  # Checks the steps.
        if not self.beta >= 0:
            raise InputError(f"Expected beta of at least 0. Received: {self.beta}. The papers take 0.5 to 6.")

    def learning_passes(self) -> float:
        return 2.0

    def attack(self) -> GradientAttack:
        return NearPGD(
            epsilon=self.epsilon, norm=self.norm, steps=self.steps, step_size=self.step_size, keep_best=False
        )


@dataclass(frozen=True, kw_only=True)
class TRADES(Paired):
    """The loss on clean images, and how far the prediction can be moved within the ball.

        loss(f(x), y) + beta max over x' of KL(p(x) || p(x'))

    The attack maximises the same divergence. steps + 2 1/3 passes an image.

    Attributes:
        beta: the paper's 1/lambda; more of it is more robust and less accurate.

    Reference: Zhang et al. 2019, equation 5 and algorithm 1.
    """

    name: ClassVar[str] = "trades"

    beta: float = 6.0

    def passes(self, steps: int | None = None) -> float:
        return super().passes(steps) + 1 / 3  # The clean predictions that the attack moves away from.

    def aim(self, step: Step, labels: tf.Tensor) -> Aim:
        margin = step.reading.margin
        return Aim(
            tf.stop_gradient(step.attacked(step.x, draws.fold(step.key, 3))),
            loss=lambda logits, clean: divergence(clean, logits),
            margin=lambda logits, clean: margin(logits, tf.argmax(clean, axis=1)),
        )

    def loss(self, step: Step, images: tf.Tensor, labels: tf.Tensor) -> Outcome:
        clean, outputs = step.outputs(step.x, 2), step.outputs(images, 1)
        moved = divergence(step.logits(clean), step.logits(outputs))
        return Outcome(step.compiled(step.x, labels, clean) + self.beta * step.mean(moved), outputs, clean)


def divergence(clean: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """Returns KL(softmax(clean) || softmax(logits)) of each example, in nats, float32 (N,), of logits (N, K).

    Of logits, as the gradient of a probability's logarithm is infinite where it rounds to 0.

    Example:
        >>> divergence(tf.constant([[0.0, 0.0]]), tf.constant([[1.0, 1.0]])).numpy()
        array([0.], dtype=float32)
    """
    return tf.reduce_sum(tf.nn.softmax(clean) * (tf.nn.log_softmax(clean) - tf.nn.log_softmax(logits)), axis=1)
