"""RayS: looks for the signs along which the boundary is nearest, and sees nothing of a network but its class."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, inf, log2
from typing import ClassVar, NamedTuple

import numpy as np
import tensorflow as tf

from kerasrobust.attacks.algorithm import Images, Numbers
from kerasrobust.attacks.driver import Attack
from kerasrobust.attacks.network import Network
from kerasrobust.errors import InputError
from kerasrobust.ops import balls
from kerasrobust.settings import read_epsilon

CUT = 0.03
"""Share of the distance by which a better ray is first followed inwards, as most blocks bring little; then twice that,
and so on, until bisection takes over. Measured on 38 CIFAR-10 images and the ConvNet, the median distance after 500
queries was 0.020 so, and 0.025 by bisection from 0 on, to 2 % of the distance."""


class Ray(NamedTuple):
    """The nearest adversarial example so far, and what is asked about next.

    Attributes:
        signs: (N, H, W, C), +1 or -1: the ray from the image on which it lies.
        level: int32 (N,); at level s the values fall into 2**s blocks.
        block: int32 (N,), the block whose signs are turned next; -1 before the first, when none are.
        searching: bool (N,), whether a nearer point of the ray itself is looked for.
        low: (N,), how far along it the image is still classified correctly; 0 while that is all that is known.
        cut: (N,), share of the distance by which the next query is nearer, as long as `low` is 0.
        best: (N, H, W, C); the image itself before there is one.
        distance: (N,), its distance; infinite before.
        age: int32 (N,), queries so far but for the first.
        fell: int32 (N,), how many it had been when the distance first was epsilon or less; 0 before.
    """

    signs: tf.Tensor
    level: tf.Tensor
    block: tf.Tensor
    searching: tf.Tensor
    low: tf.Tensor
    cut: tf.Tensor
    best: tf.Tensor
    distance: tf.Tensor
    age: tf.Tensor
    fell: tf.Tensor


@dataclass(frozen=True, kw_only=True)
class RayS(Attack[Ray]):
    """Decision-based minimum-norm attack: turns the signs of a perturbation, block by block, for nearer boundaries.

        g(d) = min {r : x + r d, clipped to [0, 1], is misclassified},   d in {-1, 1}^(H W C)

    It begins at the ray towards white. Each step turns the signs in one block of values. A single query says whether
    that is better: the new ray, as far out as the nearest point known. Only then its boundary is looked for, by steps
    inwards and bisection. Once all blocks have been tried, they are halved; after blocks of one value it begins with
    the whole image again.

    Each step is one query of each example, and each example is in whatever block and bisection it has got to.

    Attributes:
        queries: how many per example.
        tolerance: share of the distance to which boundaries are found.
        epsilon: radius within which an example has fallen, for the result's `queries`; the search goes on from there.
            None to count none.

    Example:
        >>> result = RayS(queries=500, epsilon="8/255")(model, x, y)
        >>> result.median_distance, result.queries

    Reference: Chen and Gu 2020, algorithms 1 to 3. Boundaries are found to a share of the distance instead of a length,
    and from outside, which leaves more queries to the search for signs.
    """

    name: ClassVar[str] = "rays"
    gradient_free: ClassVar[bool] = True
    minimum_norm: ClassVar[bool] = True
    scores_distance: ClassVar[bool] = True
    norms: ClassVar[tuple[balls.Norm, ...]] = ("linf",)

    queries: int = 5_000
    tolerance: float = 0.01
    epsilon: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.epsilon is not None:
            read_epsilon(self)
        if self.queries < 1:
            raise InputError(f"Expected at least 1 query. Received: queries={self.queries}. Try 1000.")
        if not 0 < self.tolerance < 1:
            raise InputError(
                f"Expected a tolerance between 0 and 1. Received: tolerance={self.tolerance}. Try 0.01, for 1 %."
            )

    def numbers(self) -> dict[str, float | int]:
        return {
            "tolerance": float(self.tolerance),
            # Below every distance where falls aren't counted.
            "epsilon": -1.0 if self.epsilon is None else float(self.epsilon),
        }

    def step_count(self) -> int:
        return self.queries

    def queries_of_run(self) -> int:
        return 0 if self.epsilon is None else 1 + self.queries

    def asked(self, state: Ray) -> tf.Tensor:
        return state.fell

    def begin(self, network: Network, images: Images, numbers: Numbers) -> Ray:
        x, zeros = images.x, tf.zeros(tf.shape(images.y), tf.int32)
        # An image that is wrong already is its own nearest adversarial example.
        distance = tf.where(network.score(x, images.y) < -numbers["slack"], 0.0, inf)
        return Ray(
            signs=tf.ones_like(x),
            level=zeros,
            block=zeros - 1,
            searching=zeros > 0,
            low=tf.zeros_like(distance),
            cut=tf.zeros_like(distance),
            best=x,
            distance=distance,
            age=zeros,
            fell=tf.where(distance <= numbers["epsilon"], 1, zeros),
        )

    def step(self, network: Network, images: Images, state: Ray, numbers: Numbers) -> Ray:
        x, searching = images.x, state.searching
        length = int(np.prod(x.shape[1:]))
        blocks = tf.bitwise.left_shift(1, state.level)
        side = (length + blocks - 1) // blocks
        inside = _places(x.shape[1:])[None] // balls.column(side) == balls.column(state.block)
        signs = tf.where(inside & ~balls.column(searching), -state.signs, state.signs)
        # Before anything is known, as far as the box reaches.
        far = tf.minimum(state.distance, 1.0)
        between = tf.where(state.low > 0, (state.low + far) / 2, far * (1 - state.cut))
        radius = tf.where(searching, between, far)
        query = tf.clip_by_value(x + balls.column(radius) * signs, 0.0, 1.0)

        reached = network.score(query, images.y) < -numbers["slack"]
        gap = balls.distance(query - x, self.norm)
        nearer = reached & (gap < state.distance)
        distance = tf.where(nearer, gap, state.distance)
        low = tf.where(searching, tf.where(reached, state.low, radius), 0.0)
        cut = tf.where(searching, tf.minimum(2 * state.cut, 0.5), tf.where(state.distance < inf, CUT, 0.5))
        age = state.age + 1

        # The block that has been tried is left, whatever came of it.
        block = tf.where(searching, state.block, state.block + 1)
        over = block * side >= length
        level = tf.where(over, state.level + 1, state.level)
        return Ray(
            signs=balls.choose(reached, signs, state.signs),
            level=tf.where(level > ceil(log2(length)), 0, level),
            block=tf.where(over, 0, block),
            searching=(searching | reached) & (distance - low > numbers["tolerance"] * distance),
            low=low,
            cut=cut,
            best=balls.choose(nearer, query, state.best),
            distance=distance,
            age=age,
            fell=tf.where((state.fell == 0) & (distance <= numbers["epsilon"]), age + 1, state.fell),
        )

    def found(self, state: Ray, numbers: Numbers) -> tuple[tf.Tensor, tf.Tensor]:
        return state.best, state.distance


def _places(shape: tuple[int, ...]) -> tf.Tensor:
    """Returns the order of an image's values, int32 (H, W, C): channel by channel, each row by row."""
    height, width, channels = shape
    places = np.arange(height * width * channels, dtype=np.int32).reshape(channels, height, width)
    return tf.constant(places.transpose(1, 2, 0))
