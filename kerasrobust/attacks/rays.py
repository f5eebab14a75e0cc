"""RayS: looks for the signs along which the boundary is nearest, and sees nothing of a network but its class."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, inf, log2
from typing import ClassVar, NamedTuple

import numpy as np
import tensorflow as tf

from kerasrobust.attacks.algorithm import Images, Numbers
from kerasrobust.attacks.decision import DecisionBased, Nearest
from kerasrobust.errors import InputError
from kerasrobust.ops import balls

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
        nearest: what lies nearest on the rays so far.
    """

    signs: tf.Tensor
    level: tf.Tensor
    block: tf.Tensor
    searching: tf.Tensor
    low: tf.Tensor
    cut: tf.Tensor
    nearest: Nearest


@dataclass(frozen=True, kw_only=True)
class RayS(DecisionBased[Ray]):
    """Decision-based minimum-norm attack: turns the signs of a perturbation, block by block, for nearer boundaries.

        g(d) = min {r : x + r d, clipped to [0, 1], is misclassified},   d in {-1, 1}^(H W C)

    It begins at the ray towards white. Each step turns the signs in one block of values. A single query says whether
    that is better: the new ray, as far out as the nearest point known. Only then its boundary is looked for, by steps
    inwards and bisection. Once all blocks have been tried, they are halved; after blocks of one value it begins with
    the whole image again.

    Each step is one query of each example, and each example is in whatever block and bisection it has got to.

    Attributes:
        tolerance: share of the distance to which boundaries are found.

    Example:
        >>> result = RayS(queries=500, epsilon="8/255")(model, x, y)
        >>> result.median_distance, result.queries

    Reference: Chen and Gu 2020, algorithms 1 to 3. Boundaries are found to a share of the distance instead of a length,
    and from outside, which leaves more queries to the search for signs.
    """

    name: ClassVar[str] = "rays"
    norms: ClassVar[tuple[balls.Norm, ...]] = ("linf",)

    tolerance: float = 0.01

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.tolerance < 1:
            raise InputError(
                f"Expected a tolerance between 0 and 1. Received: tolerance={self.tolerance}. Try 0.01, for 1 %."
            )

    def numbers(self) -> dict[str, float | int]:
        return super().numbers() | {"tolerance": float(self.tolerance)}

    def start(self, images: Images, nearest: Nearest) -> Ray:
        zeros = tf.zeros_like(nearest.age)
        return Ray(
            signs=tf.ones_like(images.x),
            level=zeros,
            block=zeros - 1,
            searching=zeros > 0,
            low=tf.zeros_like(nearest.distance),
            cut=tf.zeros_like(nearest.distance),
            nearest=nearest,
        )

    def query(self, step: tf.Tensor, images: Images, known: Ray, numbers: Numbers) -> tf.Tensor:
        return tf.clip_by_value(images.x + balls.column(_radius(known)) * _signs(known), 0.0, 1.0)

    def after(
        self, step: tf.Tensor, images: Images, known: Ray, query: tf.Tensor, share: tf.Tensor, numbers: Numbers
    ) -> Ray:
        searching, reached = known.searching, share > 0.5
        nearest = known.nearest.after(query, reached, balls.distance(query - images.x, self.norm), numbers)
        low = tf.where(searching, tf.where(reached, known.low, _radius(known)), 0.0)
        cut = tf.where(searching, tf.minimum(2 * known.cut, 0.5), tf.where(known.nearest.distance < inf, CUT, 0.5))

        # The block that has been tried is left, whatever came of it.
        length = int(np.prod(images.x.shape[1:]))
        block = tf.where(searching, known.block, known.block + 1)
        over = block * _side(known, length) >= length
        level = tf.where(over, known.level + 1, known.level)
        return Ray(
            signs=balls.choose(reached, _signs(known), known.signs),
            level=tf.where(level > ceil(log2(length)), 0, level),
            block=tf.where(over, 0, block),
            searching=(searching | reached) & (nearest.distance - low > numbers["tolerance"] * nearest.distance),
            low=low,
            cut=cut,
            nearest=nearest,
        )


def _side(ray: Ray, length: int) -> tf.Tensor:
    """Returns of how many of an image's values the blocks are, int32 (N,)."""
    blocks = tf.bitwise.left_shift(1, ray.level)
    return (length + blocks - 1) // blocks


def _signs(ray: Ray) -> tf.Tensor:
    """Returns the signs of the rays that are asked about, (N, H, W, C): turned in a block where that is tried."""
    shape = ray.signs.shape[1:]
    inside = _places(shape)[None] // balls.column(_side(ray, int(np.prod(shape)))) == balls.column(ray.block)
    return tf.where(inside & ~balls.column(ray.searching), -ray.signs, ray.signs)


def _radius(ray: Ray) -> tf.Tensor:
    """Returns how far out on the rays is asked, (N,): before anything is known as far as the box reaches."""
    far = tf.minimum(ray.nearest.distance, 1.0)
    between = tf.where(ray.low > 0, (ray.low + far) / 2, far * (1 - ray.cut))
    return tf.where(ray.searching, between, far)


def _places(shape: tuple[int, ...]) -> tf.Tensor:
    """Returns the order of an image's values, int32 (H, W, C): channel by channel, each row by row."""
    height, width, channels = shape
    places = np.arange(height * width * channels, dtype=np.int32).reshape(channels, height, width)
    return tf.constant(places.transpose(1, 2, 0))
