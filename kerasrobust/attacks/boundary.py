"""The Boundary attack: a random walk along the decision boundary, towards the image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import tensorflow as tf

from kerasrobust.attacks.algorithm import Images, Numbers
from kerasrobust.attacks.decision import DecisionBased, Nearest, Way
from kerasrobust.ops import balls, draws

FIRST_STEP = 0.05
"""Of both steps, as a share of the distance."""
FACTOR = 1.5
"""By which a step gets longer or shorter."""
WINDOW = 10
"""Steps of a kind, after which its length is judged."""
FEWEST, MOST = (0.2, 0.1), (0.5, 0.25)
"""Shares of steps around and towards the image that are misclassified: below the first the step gets shorter, above the
second longer."""


class Walk(NamedTuple):
    """Where each walk is, and what its next step is.

    Attributes:
        way: to the boundary, where the walk begins.
        towards: bool (N,), whether the next step is one towards the image, from the end of the one before.
        end: (N, H, W, C), that end.
        steps: (N, 2), lengths of the steps around and towards the image, shares of the distance.
        tried: (N, 2), steps of each kind since its length was judged.
        hit: (N, 2), those of them that were misclassified.
        nearest: where the walk is: the nearest adversarial example so far.
    """

    way: Way
    towards: tf.Tensor
    end: tf.Tensor
    steps: tf.Tensor
    tried: tf.Tensor
    hit: tf.Tensor
    nearest: Nearest


@dataclass(frozen=True, kw_only=True)
class Boundary(DecisionBased[Walk]):
    """Decision-based minimum-norm attack in L2: a random walk along the boundary, always misclassified, ever nearer.

    A step around the image keeps the distance: a random direction at a right angle to the way from the image, whose end
    is brought back onto the sphere. Where that is misclassified a step towards the image follows, and where that is,
    too, the walk goes on from there. Both lengths follow how many of their steps are misclassified.

    It is the first attack of its kind, for comparison: `SurFree` and `HopSkipJump` come nearer on as many queries.

    Each step is one query of each example, and each example is in whatever phase it has got to.

    Example:
        >>> result = Boundary(queries=5_000)(model, x, y)
        >>> result.median_distance

    Reference: Brendel et al. 2018, section 2. The walk begins at the boundary on the way to noise of another class.
    """

    name: ClassVar[str] = "boundary"
    norms: ClassVar[tuple[balls.Norm, ...]] = ("l2",)

    norm: balls.Norm = "l2"

    def start(self, images: Images, nearest: Nearest) -> Walk:
        pairs = tf.zeros((tf.shape(images.y)[0], 2))
        return Walk(
            way=Way.unknown(images.x),
            towards=nearest.age > 0,
            end=images.x,
            steps=pairs + FIRST_STEP,
            tried=pairs,
            hit=pairs,
            nearest=nearest,
        )

    def query(self, step: tf.Tensor, images: Images, known: Walk, numbers: Numbers) -> tf.Tensor:
        walking = known.way.known
        sideways, inwards = tf.unstack(known.steps, axis=1)
        query = balls.choose(walking & ~known.towards, _around(images, known.nearest.best, sideways, step),
                             known.end + balls.column(inwards) * (images.x - known.end))  # fmt: skip
        return tf.clip_by_value(balls.choose(walking, query, known.way.query(images, step)), 0.0, 1.0)

    def after(
        self, step: tf.Tensor, images: Images, known: Walk, query: tf.Tensor, share: tf.Tensor, numbers: Numbers
    ) -> Walk:
        walking, reached = known.way.known, share > 0.5
        around, towards = walking & ~known.towards, walking & known.towards
        kinds = tf.stack([around, towards], axis=1)
        tried, hit = known.tried + tf.cast(kinds, tf.float32), known.hit + tf.cast(kinds & reached[:, None], tf.float32)
        steps, tried, hit = _judged(known.steps, tried, hit)
        return Walk(
            way=known.way.after(query, reached),
            towards=around & reached,
            end=query,
            steps=steps,
            tried=tried,
            hit=hit,
            # A step around ends nearer where pixels are clipped; the walk goes on from there, too.
            nearest=known.nearest.after(query, reached, balls.distance(query - images.x, self.norm), numbers),
        )


def _around(images: Images, end: tf.Tensor, length: tf.Tensor, step: tf.Tensor) -> tf.Tensor:
    """Returns points, (N, H, W, C), as far from the images as these ends are, steps of lengths (N,) away."""
    way = end - images.x
    unit, draw = balls.steepest(way, "l2"), draws.normal(draws.fold(images.keys, step), tf.shape(way))
    across = draw - balls.column(tf.reduce_sum(draw * unit, axis=(1, 2, 3))) * unit
    moved = unit + balls.column(length) * balls.steepest(across, "l2")
    return images.x + balls.column(balls.distance(way, "l2")) * balls.steepest(moved, "l2")


def _judged(steps: tf.Tensor, tried: tf.Tensor, hit: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Returns lengths of steps, steps tried and hit, each (N, 2), once lengths are judged where that is due."""
    few, many = (tf.constant(rates) for rates in (FEWEST, MOST))
    due, share = tried >= WINDOW, tf.math.divide_no_nan(hit, tried)
    steps = tf.where(due & (share > many), steps * FACTOR, tf.where(due & (share < few), steps / FACTOR, steps))
    # Half the distance is more than any step of use.
    return tf.minimum(steps, 0.5), tf.where(due, 0.0, tried), tf.where(due, 0.0, hit)
