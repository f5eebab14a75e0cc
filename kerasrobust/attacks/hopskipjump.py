"""HopSkipJump: walks along the decision boundary, and sees nothing of a network but which class it says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np
import tensorflow as tf

from kerasrobust.attacks.algorithm import Images, Numbers
from kerasrobust.attacks.decision import DecisionBased, Nearest, other_image
from kerasrobust.errors import InputError
from kerasrobust.ops import balls, draws

START, SEARCH, SAMPLE, JUMP = range(4)
"""What an example's next query is for: an image of another class, the boundary, its normal, a step along that."""
FIRST_RADIUS = 0.1
"""Radius of the samples in the first round, whose boundary point is still far from anything of interest."""
HALVINGS = 20
"""Of a jump, before its direction is given up and estimated anew: 1e-6 of the distance is left then."""


class Hop(NamedTuple):
    """Which phase each example is in, and what it knows.

    Attributes:
        phase: int32 (N,), one of `START`, `SEARCH`, `SAMPLE`, `JUMP`.
        asked: int32 (N,), queries in this phase so far.
        round: int32 (N,), counted from 1.
        far: (N, H, W, C), the misclassified end of the bisection.
        low: (N,), share of the way to `far` that is still classified correctly.
        high: (N,), share that is misclassified.
        boundary: (N, H, W, C), the misclassified point next to the boundary.
        radius: (N,), of the samples around it.
        length: (N,), of the jump.
        signs: (N,), sum of the samples' signs.
        total: (N, H, W, C), sum of the samples.
        signed: (N, H, W, C), sum of the samples times their signs.
        nearest: the nearest adversarial example so far.
    """

    phase: tf.Tensor
    asked: tf.Tensor
    round: tf.Tensor
    far: tf.Tensor
    low: tf.Tensor
    high: tf.Tensor
    boundary: tf.Tensor
    radius: tf.Tensor
    length: tf.Tensor
    signs: tf.Tensor
    total: tf.Tensor
    signed: tf.Tensor
    nearest: Nearest


@dataclass(frozen=True, kw_only=True)
class HopSkipJump(DecisionBased[Hop]):
    """Decision-based minimum-norm attack: only the predicted class is used, as a remote API gives it.

    It begins at a random image of another class. In each round it searches the boundary between the best image so far
    and the original by bisection, estimates the boundary's normal by asking on which side random points around it lie,
    and jumps along it:

        normal = mean over b of (s_b - mean(s)) u_b,   s_b = +1 where boundary + radius * u_b is misclassified, else -1

    Each step is one query of each example, and each example is in whatever phase it has got to.

    Attributes:
        norm: "l2" or "linf".
        initial_queries: samples of the first round; round t takes sqrt(t) times as many.
        gamma: scales the radius of the samples and the precision of the bisection.

    Example:
        >>> result = HopSkipJump(norm="l2", queries=2_000)(model, x, y)
        >>> result.median_distance

    Reference: Chen et al. 2020, algorithms 1 and 2. Two things differ. A random start is noise in blocks of changing
    size, as fine noise is of one class to most networks. And for Linf the radius of the samples follows the L2 distance
    too: the paper's is lost in the rounding of float32.
    """

    name: ClassVar[str] = "hopskipjump"

    norm: balls.Norm = "l2"
    initial_queries: int = 100
    gamma: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.initial_queries < 2:
            raise InputError(
                f"Expected at least 2 initial queries. Received: initial_queries={self.initial_queries}. Try 100."
            )
        if not self.gamma > 0:
            raise InputError(f"Expected gamma above 0. Received: {self.gamma}. Try 1.")

    def numbers(self) -> dict[str, float | int]:
        return super().numbers() | {"initial": float(self.initial_queries), "gamma": float(self.gamma)}

    def start(self, images: Images, nearest: Nearest) -> Hop:
        x, count = images.x, tf.shape(images.y)
        return Hop(
            phase=tf.where(nearest.distance == 0, SEARCH, START),
            asked=tf.zeros(count, tf.int32),
            round=tf.ones(count, tf.int32),
            far=x,
            low=tf.zeros(count),
            high=tf.ones(count),
            boundary=x,
            radius=tf.zeros(count),
            length=tf.zeros(count),
            signs=tf.zeros(count),
            total=tf.zeros_like(x),
            signed=tf.zeros_like(x),
            nearest=nearest,
        )

    def is_doubted(self, known: Hop) -> tf.Tensor:
        # Of samples a share of the passes says more than yes or no.
        return known.phase != SAMPLE

    def query(self, step: tf.Tensor, images: Images, known: Hop, numbers: Numbers) -> tf.Tensor:
        x, boundary, phase = images.x, known.boundary, known.phase
        size = int(np.prod(x.shape[1:]))
        uniform = draws.hashed_uniform(images.keys, step, size + size % 2)
        image = tf.reshape(uniform[:, :size], tf.shape(x))
        direction = tf.reshape(_normal(uniform)[:, :size], tf.shape(x)) if self.norm == "l2" else 2.0 * image - 1.0
        sample = boundary + balls.column(known.radius) * balls.steepest(direction, "l2")
        jump = boundary + balls.column(known.length) * balls.steepest(_boundary_normal(known, numbers), self.norm)
        share = balls.column((known.low + known.high) / 2)
        gap = known.far - x
        if self.norm == "l2":
            between = x + share * gap
        else:
            side = share * balls.column(balls.distance(gap, "linf"))
            between = x + tf.clip_by_value(gap, -side, side)
        query = balls.choose(phase == START, other_image(images, step), between)
        query = balls.choose(phase == SAMPLE, sample, query)
        query = balls.choose(phase == JUMP, jump, query)
        return tf.clip_by_value(query, 0.0, 1.0)

    def after(
        self, step: tf.Tensor, images: Images, known: Hop, query: tf.Tensor, share: tf.Tensor, numbers: Numbers
    ) -> Hop:
        phase, reached = known.phase, share > 0.5
        asked = known.asked + 1
        size = float(np.prod(images.x.shape[1:]))

        searching, sampling, jumping = phase == SEARCH, phase == SAMPLE, phase == JUMP
        # The bisection's precision, gamma * d**-1.5 of the distance, resolves what the samples' radius does.
        bisections = tf.math.ceil(tf.math.log(size**1.5 / numbers["gamma"]) / np.log(2.0))
        searched = searching & (asked >= tf.cast(bisections, tf.int32))
        sampled = sampling & (asked >= tf.cast(_samples(known, numbers), tf.int32))
        found = reached & ((phase == START) | jumping)
        lost = jumping & ~reached & (asked >= HALVINGS)
        moved = found | lost | searched | sampled

        # What is misclassified and no sample is the new end of the bisection, or its first.
        nearer = reached & ~sampling
        boundary = balls.choose(nearer, query, known.boundary)
        middle = (known.low + known.high) / 2
        following = tf.where(found, SEARCH, tf.where(searched | lost, SAMPLE, tf.where(sampled, JUMP, phase)))

        sign = tf.where(sampling, 2.0 * share - 1.0, 0.0)
        offset = tf.math.divide_no_nan(query - known.boundary, balls.column(known.radius))
        fresh = balls.column(searched | lost)
        radius = numbers["gamma"] * balls.distance(boundary - images.x, "l2") / size
        radius = tf.where(known.round == 1, tf.minimum(FIRST_RADIUS, size * radius), radius)
        length = balls.distance(boundary - images.x, self.norm) / tf.sqrt(tf.cast(known.round, tf.float32))

        return Hop(
            phase=following,
            asked=tf.where(moved, 0, asked),
            round=known.round + tf.cast(jumping & (found | lost), tf.int32),
            far=balls.choose(found, query, known.far),
            low=tf.where(found, 0.0, tf.where(searching & ~reached, middle, known.low)),
            high=tf.where(found, 1.0, tf.where(searching & reached, middle, known.high)),
            boundary=boundary,
            radius=tf.where(searched | lost, radius, known.radius),
            length=tf.where(sampled, length, tf.where(jumping, known.length / 2, known.length)),
            signs=tf.where(searched | lost, 0.0, known.signs + sign),
            total=tf.where(fresh, 0.0, known.total + balls.column(tf.cast(sampling, tf.float32)) * offset),
            signed=tf.where(fresh, 0.0, known.signed + balls.column(sign) * offset),
            nearest=known.nearest.after(query, nearer, balls.distance(query - images.x, self.norm), numbers),
        )


def _samples(state: Hop, numbers: Numbers) -> tf.Tensor:
    """Returns how many samples the normal is estimated from in each example's round, float32 (N,)."""
    return tf.floor(numbers["initial"] * tf.sqrt(tf.cast(state.round, tf.float32)))


def _boundary_normal(state: Hop, numbers: Numbers) -> tf.Tensor:
    """Returns the estimate of the boundary's normal, pointing to the misclassified side, up to its length.

    Subtracting the mean sign takes out most of the noise (Chen et al. 2020, equation 16). Where all samples lie on one
    side nothing would be left, and their mean is the estimate.
    """
    mean = state.signs / _samples(state, numbers)
    return state.signed - balls.column(tf.where(tf.abs(mean) < 1, mean, 0.0)) * state.total


def _normal(uniform: tf.Tensor) -> tf.Tensor:
    """Returns as many standard normal numbers as there are uniform ones in [0, 1), (N, even); Box and Muller 1958."""
    first, second = tf.split(uniform, 2, axis=1)
    radius = tf.sqrt(-2.0 * tf.math.log1p(-first))
    angle = 2.0 * np.pi * second
    return tf.concat([radius * tf.cos(angle), radius * tf.sin(angle)], axis=1)
