"""What adversarial training minimises: its objectives by name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from kerasrobust import attacks
from kerasrobust.attacks.gradient import GradientAttack
from kerasrobust.config import check_epsilon
from kerasrobust.errors import InputError
from kerasrobust.ops import balls


@dataclass(frozen=True, kw_only=True)
class Objective:
    """What training minimises: the cross-entropy on images that an attack has changed, on clean ones, or on both.

    Attributes:
        epsilon: radius of the ball, in units of an image in [0, 1].
        norm: "linf" or "l2".
        clean_share: share of each batch that stays clean, in [0, 1).
        warmup_steps: training steps over which epsilon grows linearly from 0; a help where training collapses early.
        validation_steps: PGD steps of the attack in `evaluate` and in validation.
    """

    name: ClassVar[str]

    epsilon: float = 8 / 255
    norm: balls.Norm = "linf"
    clean_share: float = 0.0
    warmup_steps: int = 0
    validation_steps: int = 10

    def __post_init__(self) -> None:
        check_epsilon(self.epsilon, self.norm)
        if not 0 <= self.clean_share < 1:
            raise InputError(
                f"Expected a share of clean examples in [0, 1). Received: {self.clean_share}. "
                "For 1 use the objective 'standard'."
            )

    def attack(self) -> GradientAttack | None:
        """Returns the attack of the training step, None for clean training."""
        return None

    def validation_attack(self) -> GradientAttack:
        """Returns the attack of the validation: PGD, which single-step training can't fool."""
        return attacks.PGD(epsilon=self.epsilon, norm=self.norm, steps=self.validation_steps)


@dataclass(frozen=True, kw_only=True)
class Standard(Objective):
    """Training on clean images. Robust accuracy is measured in validation only, with a short attack."""

    name: ClassVar[str] = "standard"

    validation_steps: int = 3


@dataclass(frozen=True, kw_only=True)
class FGSM(Objective):
    """Single-step adversarial training from a random start (Wong et al. 2020): cheap, but it can overfit suddenly."""

    name: ClassVar[str] = "fgsm"

    def attack(self) -> GradientAttack:
        return attacks.FGSMRS(epsilon=self.epsilon, norm=self.norm)


@dataclass(frozen=True, kw_only=True)
class PGD(Objective):
    """Adversarial training with PGD (Madry et al. 2018, equation 2.1).

    Attributes:
        steps: PGD steps in each training step.
        step_size: length of a step; None for 2.5 epsilon / steps.
    """

    name: ClassVar[str] = "pgd"

    steps: int = 7
    step_size: float | None = None

    def attack(self) -> GradientAttack:
        # The last iterate: training needs strong examples on average, not the best of each path.
        return attacks.PGD(
            epsilon=self.epsilon, norm=self.norm, steps=self.steps, step_size=self.step_size, keep_best=False
        )


OBJECTIVES: dict[str, type[Objective]] = {kind.name: kind for kind in (Standard, FGSM, PGD)}
