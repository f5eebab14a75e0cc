"""Adversarial training with one step from strong noise: N-FGSM."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import tensorflow as tf

from kerasrobust.attacks.algorithm import Images, Numbers
from kerasrobust.attacks.gradient import GradientAttack, Walk
from kerasrobust.attacks.network import Network
from kerasrobust.errors import InputError
from kerasrobust.ops import balls, draws
from kerasrobust.training.objectives.objective import Objective


@dataclass(frozen=True, kw_only=True)
class NoisyStep(GradientAttack):
    """One step of length epsilon from uniform noise, without a projection onto the ball: what N-FGSM trains on."""

    name: ClassVar[str] = "nfgsm"
    norms: ClassVar[tuple[balls.Norm, ...]] = ("linf",)

    noise: float = 2.0

    def start(self, images: Images, numbers: Numbers) -> tf.Tensor:
        drawn = draws.uniform(images.keys, tf.shape(images.x), -1.0, 1.0)
        return images.x + self.noise * numbers["epsilon"] * drawn

    def step(self, network: Network, images: Images, state: Walk, numbers: Numbers) -> Walk:
        slope, _, score = network.gradient(state.x_adv, images.y)
        moved = state.x_adv + numbers["step_size"] * balls.steepest(slope, self.norm)
        return Walk(tf.clip_by_value(moved, 0.0, 1.0), score)


@dataclass(frozen=True, kw_only=True)
class NFGSM(Objective):
    """Single-step adversarial training from strong noise, which is hardly ever overfitted catastrophically.

        x' = x + u + epsilon sign(grad_x loss(f(x + u), y)),  u uniform in [-noise epsilon, noise epsilon]

    The result isn't projected onto the ball, only onto [0, 1]. 2 passes an image.

    Attributes:
        noise: largest noise, in units of epsilon.

    Reference: de Jorge et al. 2022, algorithm 1.
    """

    name: ClassVar[str] = "nfgsm"

    noise: float = 2.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.norm != "linf":
            raise InputError(f"Expected norm 'linf' for 'nfgsm'. Received: {self.norm!r}. Train with pgd.")
        if not self.noise >= 0:
            raise InputError(f"Expected noise of at least 0. Received: {self.noise}. Try 2.")

    def attack(self) -> GradientAttack:
        return NoisyStep(epsilon=self.epsilon, noise=self.noise)
