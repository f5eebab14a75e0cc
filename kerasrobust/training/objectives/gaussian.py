"""Training on noisy images, for certificates by randomized smoothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import tensorflow as tf

from kerasrobust.errors import InputError
from kerasrobust.ops import draws
from kerasrobust.training.objectives.objective import Objective
from kerasrobust.training.step import Step


@dataclass(frozen=True, kw_only=True)
class Gaussian(Objective):
    """Training on images with Gaussian noise, for certificates.

        loss(f(x + n), y),  n normal with deviation sigma in each pixel

    Noisy images leave [0, 1], as they do when a smoothed network votes. Accuracy is that on noisy images; robust
    accuracy is measured in validation only, with a short attack. 1 pass an image.

    Attributes:
        sigma: deviation of the noise, in units of an image in [0, 1].

    Reference: Cohen et al. 2019, section 3.3 and appendix.
    """

    name: ClassVar[str] = "gaussian"

    sigma: float = 0.25
    validation_steps: int = 3

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.sigma > 0:
            raise InputError(f"Expected sigma above 0. Received: {self.sigma}. Try 0.25.")

    def examples(self, step: Step, labels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        noise = draws.normal(draws.fold(step.key, 4), tf.shape(step.x))
        return step.x + self.sigma * noise, tf.shape(step.x)[0]
