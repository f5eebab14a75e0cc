"""What attacks share that walk along the boundary and keep the nearest adversarial example that they have met."""

from __future__ import annotations

from dataclasses import dataclass
from math import pi
from typing import Any, ClassVar, NamedTuple

import tensorflow as tf

from kerasrobust.attacks.algorithm import Images, Numbers, S
from kerasrobust.attacks.driver import Attack
from kerasrobust.attacks.network import Network
from kerasrobust.errors import InputError
from kerasrobust.ops import balls, losses

DUAL: dict[str, balls.Norm] = {"linf": "l1", "l2": "l2", "l1": "linf"}
"""The norm of a gradient that says how much a linear function changes at most, within a ball of radius 1."""


class Met(NamedTuple):
    """The nearest adversarial example so far.

    Attributes:
        image: (N, H, W, C); the image itself before there is one.
        distance: (N,), its distance; infinite before.
    """

    image: tf.Tensor
    distance: tf.Tensor


@dataclass(frozen=True, kw_only=True)
class NearestExample(Attack[S]):
    """An attack of a fixed number of steps, whose state has `met`, what it has met, and `x_adv`, where it is.

    Attributes:
        steps: how many.
        targeted: look for the nearest example of the class that is given with the call.
    """

    minimum_norm: ClassVar[bool] = True
    scores_distance: ClassVar[bool] = True
    takes_targets: ClassVar[bool] = True

    steps: int = 100

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.steps < 1:
            raise InputError(f"Expected at least 1 step. Received: steps={self.steps}. Try 100.")

    def numbers(self) -> dict[str, float | int]:
        return {"search_steps": self.steps}

    def step_count(self) -> int:
        return self.steps

    def nothing_met(self, x: tf.Tensor) -> Met:
        """Returns what has been met before the first step."""
        return Met(x, tf.fill(tf.shape(x)[:1], float("inf")))

    def ascent(self, network: Network, images: Images, x_adv: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns the gradient of the margin by which an image is fooling, (N, H, W, C), and the scores, (N,)."""
        slope, _, score = network.gradient(
            x_adv, images.y, targeted=self.targeted, loss=lambda logits, y: -losses.margin(logits, y)
        )
        return slope, score

    def noted(self, met: Met, x: tf.Tensor, x_adv: tf.Tensor, fooled: tf.Tensor) -> Met:
        """Returns what has been met after a look at one image each, `x_adv`, that is adversarial where `fooled`."""
        distance = balls.distance(x_adv - x, self.norm)
        nearer = fooled & (distance < met.distance)
        return Met(balls.choose(nearer, x_adv, met.image), tf.where(nearer, distance, met.distance))

    def look(self, network: Network, images: Images, state: Any, numbers: Numbers) -> Any:
        fooled = network.score(state.x_adv, images.y, self.targeted) < -numbers["slack"]
        return state._replace(met=self.noted(state.met, images.x, state.x_adv, fooled))

    def found(self, state: Any, numbers: Numbers) -> tuple[tf.Tensor, tf.Tensor]:
        return state.met.image, state.met.distance


def annealed(first: tf.Tensor | float, last: tf.Tensor | float, step: tf.Tensor, steps: tf.Tensor) -> tf.Tensor:
    """Returns a number that falls from `first` to `last` along half a cosine (Loshchilov and Hutter 2017, eq. 5).

    Example:
        >>> float(annealed(3.0, 1.0, tf.constant(5), tf.constant(10)))
        2.0
    """
    share = tf.cast(step, tf.float32) / tf.cast(steps, tf.float32)
    return last + (first - last) * (1 + tf.cos(pi * share)) / 2


def adam(
    slope: tf.Tensor, mean: tf.Tensor, square: tf.Tensor, age: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Returns Adam's move along a gradient, and its moments (Kingma and Ba 2015, algorithm 1).

    Args:
        slope: the gradient.
        mean: the first moment before it, 0 at first.
        square: the second one.
        age: which gradient it is, float32, from 1.
    """
    mean, square = adam_moments(slope, mean, square)
    # Corrected for their start at 0.
    return mean / (1 - 0.9**age) / (tf.sqrt(square / (1 - 0.999**age)) + 1e-8), mean, square


def adam_moments(slope: tf.Tensor, mean: tf.Tensor, square: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns Adam's moments after a gradient, given those before it."""
    return 0.9 * mean + 0.1 * slope, 0.999 * square + 0.001 * tf.square(slope)


def free(slope: tf.Tensor, x_adv: tf.Tensor) -> tf.Tensor:
    """Returns a gradient with 0 where it leads out of the box [0, 1] at once: what is left can be followed."""
    return tf.where(((slope > 0) & (x_adv >= 1)) | ((slope < 0) & (x_adv <= 0)), 0.0, slope)


def farthest(x: tf.Tensor, norm: balls.Norm) -> tf.Tensor:
    """Returns the distance of the corner of the box [0, 1] that is farthest from each image, (N,)."""
    return balls.distance(tf.maximum(x, 1.0 - x), norm)
