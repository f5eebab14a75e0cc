"""SurFree: turns along circles towards the image, and sees nothing of a network but which class it says."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from math import pi, radians
from typing import ClassVar, NamedTuple

import numpy as np
import tensorflow as tf

from kerasrobust.attacks.algorithm import Images, Numbers
from kerasrobust.attacks.decision import DecisionBased, Nearest, Way
from kerasrobust.errors import InputError
from kerasrobust.ops import balls, draws

FIRST_ANGLE, LARGEST_ANGLE = radians(30), 0.45 * pi
"""Of turns; at a right angle the circle is back at the image."""
FACTOR = 1.2
"""By which turns get wider after one that is misclassified, and narrower after a direction of no use."""


class Turn(NamedTuple):
    """From where each example turns, and where to.

    Attributes:
        way: to the boundary, from where it turns first.
        direction: (N, H, W, C), into which it turns: of length 1, at a right angle to the way from the image.
        angle: (N,), by how much.
        back: bool (N,), whether it turns the other way next, in the same direction.
        nearest: the nearest adversarial example so far, from which it turns.
    """

    way: Way
    direction: tf.Tensor
    angle: tf.Tensor
    back: tf.Tensor
    nearest: Nearest


@dataclass(frozen=True, kw_only=True)
class SurFree(DecisionBased[Turn]):
    """Decision-based minimum-norm attack in L2: turns along circles through the image, in random smooth directions.

    From a misclassified point x + d u and a direction v at a right angle to u, all points

        x + d cos(a) (cos(a) u + sin(a) v)

    lie on a circle, and the larger the angle a, the nearer to x. One query asks for a turn in a new direction, a second
    for the same turn the other way; what is misclassified is the next point. No query goes to estimates of the
    boundary's normal.

    Each step is one query of each example, and each example is in whatever phase it has got to.

    Attributes:
        frequencies: share of the image's cosine frequencies that directions are made of, the lowest ones.

    Example:
        >>> result = SurFree(queries=500, epsilon=0.5)(model, x, y)
        >>> result.median_distance, result.queries

    Reference: Maho et al. 2021, section 4. The paper looks for the widest turn in each direction of use, and keeps
    directions at right angles to those before. Here angles follow what was of use, which comes nearer.
    """

    name: ClassVar[str] = "surfree"
    norms: ClassVar[tuple[balls.Norm, ...]] = ("l2",)

    norm: balls.Norm = "l2"
    frequencies: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.frequencies <= 1:
            raise InputError(
                f"Expected a share of the frequencies above 0, at most 1. Received: frequencies={self.frequencies}. "
                "Try 0.5."
            )

    def structure(self) -> Hashable:
        return super().structure(), self.frequencies

    def start(self, images: Images, nearest: Nearest) -> Turn:
        return Turn(
            way=Way.unknown(images.x),
            direction=tf.zeros_like(images.x),
            angle=tf.zeros_like(nearest.distance) + FIRST_ANGLE,
            back=nearest.age > 0,
            nearest=nearest,
        )

    def query(self, step: tf.Tensor, images: Images, known: Turn, numbers: Numbers) -> tf.Tensor:
        angle = tf.where(known.back, -known.angle, known.angle)
        turned = _turned(images.x, known.nearest.best, known.direction, angle)
        query = balls.choose(known.way.known, turned, known.way.query(images, step))
        return tf.clip_by_value(query, 0.0, 1.0)

    def after(
        self, step: tf.Tensor, images: Images, known: Turn, query: tf.Tensor, share: tf.Tensor, numbers: Numbers
    ) -> Turn:
        turning, back, reached = known.way.known, known.back, share > 0.5
        wider = tf.minimum(known.angle * FACTOR, LARGEST_ANGLE)
        angle = tf.where(reached, wider, tf.where(back, known.angle / FACTOR, known.angle))
        nearest = known.nearest.after(query, reached, balls.distance(query - images.x, self.norm), numbers)
        again = turning & ~back & ~reached
        return Turn(
            way=known.way.after(query, reached),
            direction=balls.choose(again, known.direction, self._direction(images, nearest.best, step + 1)),
            angle=tf.where(turning, angle, known.angle),
            back=again,
            nearest=nearest,
        )

    def _direction(self, images: Images, end: tf.Tensor, step: tf.Tensor) -> tf.Tensor:
        """Returns random directions of low frequencies at a right angle to the way to the ends, (N, H, W, C)."""
        height, width, _ = images.x.shape[1:]
        waves = draws.normal(draws.fold(images.keys, step), tf.shape(images.x)) * _lowest(
            height, width, self.frequencies
        )
        smooth = tf.einsum("ah,nhwc,bw->nabc", _cosines(height), waves, _cosines(width))
        way = balls.steepest(end - images.x, "l2")
        along = tf.reduce_sum(smooth * way, axis=(1, 2, 3))
        return balls.steepest(smooth - balls.column(along) * way, "l2")


def _turned(x: tf.Tensor, end: tf.Tensor, direction: tf.Tensor, angle: tf.Tensor) -> tf.Tensor:
    """Returns the points of circles through images and their nearest examples, (N, H, W, C), at angles, (N,)."""
    way, sine, cosine = end - x, tf.sin(angle), tf.cos(angle)
    across = cosine * sine * balls.distance(way, "l2")
    return x + balls.column(cosine**2) * way + balls.column(across) * direction


def _cosines(length: int) -> tf.Tensor:
    """Returns the orthonormal cosines of a row of pixels, float32 (length, length): a frequency in each column."""
    places, numbers = np.arange(length)[:, None] + 0.5, np.arange(length)[None]
    waves = np.cos(np.pi * places * numbers / length) * np.sqrt(np.where(numbers == 0, 1, 2) / length)
    return tf.constant(waves, tf.float32)


def _lowest(height: int, width: int, share: float) -> tf.Tensor:
    """Returns 1 for a share of the frequencies of images, the lowest, and 0 for the others, float32 (H, W, 1)."""
    order = np.arange(height)[:, None] / height + np.arange(width)[None] / width
    last = np.sort(order, axis=None)[max(0, round(share * order.size) - 1)]
    return tf.constant(order[..., None] <= last, tf.float32)
