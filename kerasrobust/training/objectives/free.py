"""Free adversarial training: one backward pass moves the weights and the images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import tensorflow as tf

from kerasrobust import attacks
from kerasrobust.attacks.gradient import GradientAttack
from kerasrobust.attacks.network import finite
from kerasrobust.errors import InputError
from kerasrobust.ops import balls, draws
from kerasrobust.training.objectives.objective import Objective
from kerasrobust.training.step import Step


@dataclass(frozen=True, kw_only=True)
class Free(Objective):
    """Free adversarial training: each backward pass moves the weights and the images.

        d <- clip(d + epsilon sign(grad_d loss(f(x + d), y)))   and   w <- w - rate grad_w loss(f(x + d), y)

    at each replay. A batch begins at a random point of the ball; the paper goes on from where the last batch has ended,
    which is another image's, so that it is random too, but couldn't be resumed. `replays` passes an image, and as many
    updates: divide the epochs by it.

    Attributes:
        replays: how often each batch is trained on, at least 2, the paper's m.

    Reference: Shafahi et al. 2019, algorithm 1.
    """

    name: ClassVar[str] = "free"
    paired: ClassVar[bool] = True  # The images move all together.

    replays: int = 8

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.replays < 2:
            raise InputError(
                f"Expected at least 2 replays (--steps on the command line). Received: {self.replays}. Try 8."
            )
        if self.awp:
            raise InputError(f"Expected no weight perturbation for 'free'. Received: {self.awp}. Leave it out.")

    def attack(self) -> GradientAttack:
        return attacks.FGSM(epsilon=self.epsilon, norm=self.norm)

    def passes(self, steps: int | None = None) -> float:
        return float(self.replays)

    def examples(self, step: Step, labels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        start = balls.random_start(draws.fold(step.key, 7), step.x, self.epsilon * step.share, self.norm)
        return start, tf.constant(0)

    def moved(self, step: Step, images: tf.Tensor, slope: tf.Tensor) -> tf.Tensor:
        radius = self.epsilon * step.share
        # Half precision may have overflowed, in a step that its optimizer then leaves out.
        return balls.project(images + radius * balls.steepest(finite(slope), self.norm), step.x, radius, self.norm)
