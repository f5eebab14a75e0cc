"""sigma-zero: the fewest values that have to change, by descent on a smooth count of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import tensorflow as tf

from kerasrobust.attacks.algorithm import Images, Numbers
from kerasrobust.attacks.nearest import Met, NearestExample, adam, annealed
from kerasrobust.attacks.network import Network
from kerasrobust.errors import InputError
from kerasrobust.ops import balls


class Sparse(NamedTuple):
    """Where the search of each example is.

    Attributes:
        met: the nearest adversarial example so far.
        x_adv: (N, H, W, C), the iterate.
        mean: Adam's first moment.
        square: Adam's second moment.
        threshold: (N,), the size below which a change is dropped.
    """

    met: Met
    x_adv: tf.Tensor
    mean: tf.Tensor
    square: tf.Tensor
    threshold: tf.Tensor


@dataclass(frozen=True, kw_only=True)
class SigmaZero(NearestExample[Sparse]):
    """Descends on the margin and a smooth count of the changed values, and drops the smallest changes in each step.

        minimise max(f, 0) + 1/d sum_i v_i^2 / (v_i^2 + sigma),   v = x_adv - x, d the number of values,

    by Adam, along gradients whose largest entry is 1, in steps that fall to a tenth along half a cosine. Then changes
    below a threshold are dropped, which grows by `threshold_step` times the step where the network is fooled and
    shrinks by that elsewhere. f is the margin. One gradient a step, and one forward pass at the end. The distance is
    the number of values that differ, not of pixels.

    Attributes:
        norm: "l0".
        steps: how many.
        step_size: the first one.
        sigma: how sharply a change counts: one of sqrt(sigma) counts half.
        threshold: the first one.
        threshold_step: how fast it changes.
        targeted: look for the nearest example of the class that is given with the call.

    Example:
        >>> result = SigmaZero(steps=1_000)(model, x, y)
        >>> result.median_distance

    Reference: Cinà et al. 2024, algorithm 1; Adam as in the authors' program.
    """

    name: ClassVar[str] = "sigma-zero"
    norms: ClassVar[tuple[balls.Norm, ...]] = ("l0",)

    norm: balls.Norm = "l0"
    step_size: float = 1.0
    sigma: float = 1e-3
    threshold: float = 0.3
    threshold_step: float = 0.01

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (self.step_size > 0 and self.sigma > 0 and 0 <= self.threshold <= 1 and self.threshold_step >= 0):
            raise InputError(
                "Expected step_size and sigma above 0, a threshold from 0 to 1, and a threshold_step of at least 0. "
                f"Received: {self.step_size}, {self.sigma}, {self.threshold} and {self.threshold_step}. "
                "Leave them out for the defaults."
            )

    def numbers(self) -> dict[str, float | int]:
        names = "step_size", "sigma", "threshold", "threshold_step"
        return super().numbers() | {name: float(getattr(self, name)) for name in names}

    def begin(self, network: Network, images: Images, numbers: Numbers) -> Sparse:
        x, zeros = images.x, tf.zeros_like(images.x)
        return Sparse(self.nothing_met(x), x, zeros, zeros, tf.fill(tf.shape(x)[:1], numbers["threshold"]))

    def step(self, network: Network, images: Images, state: Sparse, numbers: Numbers) -> Sparse:
        x, x_adv, sigma = images.x, state.x_adv, numbers["sigma"]
        slope, score = self.ascent(network, images, x_adv)
        fooled = score < -numbers["slack"]
        change = x_adv - x
        count = tf.cast(tf.reduce_prod(tf.shape(x)[1:]), tf.float32)
        descent = 2 * sigma * change / tf.square(tf.square(change) + sigma) / count
        # Once the network is fooled, the margin's part of the loss is flat.
        descent -= balls.choose(fooled, tf.zeros_like(slope), slope)
        descent = tf.math.divide_no_nan(descent, balls.column(balls.distance(descent, "linf")))
        move, mean, square = adam(descent, state.mean, state.square, tf.cast(network.step + 1, tf.float32))
        size = annealed(numbers["step_size"], 0.1 * numbers["step_size"], network.step, numbers["search_steps"])
        moved = tf.clip_by_value(x_adv - size * move, 0.0, 1.0)
        growth = numbers["threshold_step"] * size
        threshold = tf.clip_by_value(state.threshold + tf.where(fooled, growth, -growth), 0.0, 1.0)
        return Sparse(
            self.noted(state.met, x, x_adv, fooled),
            tf.where(tf.abs(moved - x) < balls.column(threshold), x, moved),
            mean,
            square,
            threshold,
        )
