"""PDPGD: the L1 norm and the margin weighed against each other by a dual variable, the norm by its proximal step."""

from __future__ import annotations

from dataclasses import dataclass
from math import log
from typing import ClassVar, NamedTuple

import tensorflow as tf

from kerasrobust.attacks.algorithm import Images, Numbers
from kerasrobust.attacks.nearest import Met, NearestExample, adam_moments
from kerasrobust.attacks.network import Network
from kerasrobust.errors import InputError
from kerasrobust.ops import balls

MOST = -log(1e-6)
"""How far the dual variable goes, up and down."""


class Weighed(NamedTuple):
    """Where the search of each example is.

    Attributes:
        met: the nearest adversarial example so far.
        x_adv: (N, H, W, C), the iterate.
        mean: Adam's first moment.
        square: Adam's second moment.
        dual: (N,), log of the weight of the margin over that of the norm.
        weight: (N,), the norm's weight, of two whose sum is 1, averaged over the steps.
    """

    met: Met
    x_adv: tf.Tensor
    mean: tf.Tensor
    square: tf.Tensor
    dual: tf.Tensor
    weight: tf.Tensor


@dataclass(frozen=True, kw_only=True)
class PDPGD(NearestExample[Weighed]):
    """Primal-dual proximal gradient descent: a game between the perturbation and the weights of norm and margin.

        v <- Adam's step down log(1 + exp f) where f > 0,   v_i <- sign(v_i) max(|v_i| - l a / h_i, 0) in the box
        u <- u + b sign(f),   l = s / (1 - s), s being the mean of 1 / (1 + exp u) over the last steps

    with f the margin at x + v, a Adam's step size, which falls by the factor 100, and h_i what Adam divides entry i by:
    the norm's part of each step is exact. b falls from 0.1 to 0.01. One gradient a step, and one forward pass at the
    end. Of fewer than a few hundred steps FMN comes closer.

    Attributes:
        norm: "l1".
        steps: how many.
        step_size: of Adam, the first one.
        targeted: look for the nearest example of the class that is given with the call.

    Example:
        >>> result = PDPGD(steps=1_000)(model, x, y)
        >>> result.median_distance

    Reference: Matyasko and Chau 2021, algorithm 1; proximal steps in Adam's metric as in Melchior et al. 2019.
    """

    name: ClassVar[str] = "pdpgd"
    norms: ClassVar[tuple[balls.Norm, ...]] = ("l1",)

    norm: balls.Norm = "l1"
    steps: int = 500
    step_size: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.step_size > 0:
            raise InputError(f"Expected a step_size above 0. Received: {self.step_size}. Try 0.1.")

    def numbers(self) -> dict[str, float | int]:
        return super().numbers() | {"step_size": float(self.step_size)}

    def begin(self, network: Network, images: Images, numbers: Numbers) -> Weighed:
        x, zeros, count = images.x, tf.zeros_like(images.x), tf.shape(images.x)[:1]
        # At first the margin weighs a hundred times as much as the norm.
        return Weighed(self.nothing_met(x), x, zeros, zeros, tf.fill(count, log(100)), tf.fill(count, 1 / 101))

    def step(self, network: Network, images: Images, state: Weighed, numbers: Numbers) -> Weighed:
        x, x_adv = images.x, state.x_adv
        slope, score = self.ascent(network, images, x_adv)
        fooled = score < -numbers["slack"]
        descent = -balls.column(tf.where(fooled, 0.0, tf.sigmoid(score))) * slope
        mean, square = adam_moments(descent, state.mean, state.square)
        age = tf.cast(network.step + 1, tf.float32)
        share = tf.cast(network.step, tf.float32) / tf.cast(numbers["search_steps"], tf.float32)
        rates = numbers["step_size"] * 0.01**share / (tf.sqrt(square / (1 - 0.999**age)) + 1e-8)
        moved = x_adv - x - rates * mean / (1 - 0.9**age)
        moved = tf.clip_by_value(x + moved, 0.0, 1.0) - x
        pull = balls.column(state.weight / (1 - state.weight)) * rates
        moved = tf.sign(moved) * tf.nn.relu(tf.abs(moved) - pull)
        dual = state.dual + 0.1 * (1 - 0.9 * share) * tf.where(fooled, -1.0, 1.0)
        dual = tf.clip_by_value(dual, -MOST, MOST)
        return Weighed(
            self.noted(state.met, x, x_adv, fooled),
            tf.where(moved == 0, x, tf.clip_by_value(x + moved, 0.0, 1.0)),
            mean,
            square,
            dual,
            0.9 * state.weight + 0.1 * tf.sigmoid(-dual),
        )
