"""Adversarial training with PGD."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import tensorflow as tf

from kerasrobust import attacks
from kerasrobust.attacks.gradient import GradientAttack
from kerasrobust.errors import InputError
from kerasrobust.training.objectives.objective import Objective
from kerasrobust.training.step import Aim, Step


@dataclass(frozen=True, kw_only=True)
class PGD(Objective):
    """Adversarial training with PGD.

        min over weights of the mean of  max over x' in the ball of  loss(f(x'), y)

    steps + 1 passes an image.

    Attributes:
        steps: PGD steps in each training step.
        step_size: length of a step; None for 2.5 epsilon / steps.
        attack_loss: what the attack maximises: "cross-entropy", or "margin", the largest wrong logit less the right
            one.

    Reference: Madry et al. 2018, equation 2.1.
    """

    name: ClassVar[str] = "pgd"

    steps: int = 7
    step_size: float | None = None
    attack_loss: Literal["cross-entropy", "margin"] = "cross-entropy"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.attack()  # Checks the steps.
        if self.attack_loss not in ("cross-entropy", "margin"):
            raise InputError(
                f"Expected an attack loss: cross-entropy or margin. Received: {self.attack_loss!r}. Choose one."
            )

    def attack(self) -> GradientAttack:
        # The last iterate: training needs strong examples on average, not the best of each path.
        return attacks.PGD(
            epsilon=self.epsilon, norm=self.norm, steps=self.steps, step_size=self.step_size, keep_best=False
        )

    def aim(self, step: Step, labels: tf.Tensor) -> Aim:
        aim = step.aim(labels)
        return aim if self.attack_loss == "cross-entropy" else aim._replace(loss=lambda *both: -aim.margin(*both))
