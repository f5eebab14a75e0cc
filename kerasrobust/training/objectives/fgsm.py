"""Adversarial training with one step: FGSM from a random start."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from kerasrobust import attacks
from kerasrobust.attacks.gradient import GradientAttack
from kerasrobust.training.objectives.objective import Objective


@dataclass(frozen=True, kw_only=True)
class FGSM(Objective):
    """Single-step adversarial training from a random start: cheap, but it can overfit suddenly.

    2 passes an image.

    Reference: Wong et al. 2020, algorithm 3.
    """

    name: ClassVar[str] = "fgsm"

    def attack(self) -> GradientAttack:
        return attacks.FGSMRS(epsilon=self.epsilon, norm=self.norm)
