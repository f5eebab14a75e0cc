"""APGD in L1 that begins in larger balls: three times the radius, then twice, and at last the radius itself."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import ClassVar

import tensorflow as tf

from kerasrobust.attacks.algorithm import Algorithm, Images, Numbers
from kerasrobust.attacks.ascent import Ascent, ascent_from
from kerasrobust.attacks.network import Network
from kerasrobust.ops import balls

RADII = (3.0, 2.0, 1.0)
"""Of the balls, in units of epsilon."""
SHARE = 0.3
"""Of the steps that are taken in the first ball, and in the second."""


def stages(steps: int) -> tuple[int, int, int]:
    """Returns how many of the steps are taken in each ball.

    Example:
        >>> stages(100)
        (30, 30, 40)
    """
    early = int(SHARE * steps)
    return early, early, steps - 2 * early


@dataclass(frozen=True, kw_only=True)
class Shrinking(Algorithm[Ascent]):
    """A search of APGD in L1, run in one ball after the other, each from the best point of the one before.

    That point is projected onto the smaller ball, where the search begins anew: step size, checkpoints and the largest
    loss. Only what lies in the last ball is judged. Two more steps are taken than asked for, as the last point of a
    ball is looked at before it is left.

    Attributes:
        algorithm: what takes the steps.

    Reference: Croce and Hein 2021, section 4.3 (multi-epsilon APGD).
    """

    name: ClassVar[str] = "shrinking"
    norms: ClassVar[tuple[balls.Norm, ...]] = ("l1",)

    algorithm: Algorithm[Ascent]
    norm: balls.Norm = "l1"

    def structure(self) -> Hashable:
        return type(self), self.algorithm.structure()

    def numbers(self) -> dict[str, float | int]:
        first, second, third = stages(self.algorithm.step_count())
        # The steps, counted from 0, that go to the next ball, and the periods between checkpoints in each.
        ends = {"end_0": first, "end_1": first + second + 1}
        periods = {f"period_{number}": max(int(0.04 * steps), 1) for number, steps in enumerate((first, second, third))}
        return {**self.algorithm.numbers(), **ends, **periods}

    def step_count(self) -> int:
        return self.algorithm.step_count() + 2

    def begin(self, network: Network, images: Images, numbers: Numbers) -> Ascent:
        begun = self.algorithm.begin(network, images, _in(numbers, RADII[0] * numbers["epsilon"]))
        return _anew(begun, begun.x_adv, images.x, RADII[0] * numbers["epsilon"], numbers["period_0"])

    def step(self, network: Network, images: Images, state: Ascent, numbers: Numbers) -> Ascent:
        ball = _ball(state.age, numbers)
        moved = self.algorithm.step(network, images, state, _in(numbers, _radius(ball, numbers)))
        leaves = (state.age == numbers["end_0"]) | (state.age == numbers["end_1"])
        next_ball = _ball(moved.age, numbers)

        def to_the_next() -> Ascent:
            radius = _radius(next_ball, numbers)
            start = balls.project(moved.best, images.x, radius, "l1")
            period = tf.where(next_ball == 1, numbers["period_1"], numbers["period_2"])
            anew = _anew(moved, start, images.x, radius, period)
            return tf.nest.map_structure(lambda one, other: balls.choose(leaves, one, other), anew, moved)

        moved = tf.cond(tf.reduce_any(leaves), to_the_next, lambda: moved)
        return moved._replace(score=tf.where(ball == 2, moved.score, float("inf")))

    def look(self, network: Network, images: Images, state: Ascent, numbers: Numbers) -> Ascent:
        return self.algorithm.look(network, images, state, numbers)

    def found(self, state: Ascent, numbers: Numbers) -> tuple[tf.Tensor, tf.Tensor]:
        return self.algorithm.found(state, numbers)


def _in(numbers: Numbers, radius: tf.Tensor) -> Numbers:
    return numbers | {"epsilon": radius}


def _ball(age: tf.Tensor, numbers: Numbers) -> tf.Tensor:
    """Returns the number of the ball in which a step is taken, int32 (N,)."""
    return tf.cast(age > numbers["end_0"], tf.int32) + tf.cast(age > numbers["end_1"], tf.int32)


def _radius(ball: tf.Tensor, numbers: Numbers) -> tf.Tensor:
    return tf.gather(tf.constant(RADII), ball) * numbers["epsilon"]


def _anew(state: Ascent, start: tf.Tensor, x: tf.Tensor, radius: tf.Tensor, period: tf.Tensor) -> Ascent:
    """Returns the state of a search that begins at `start` in a ball, at the same age and with the same target.

    Its first steps are as sparse as the point that it begins from.
    """
    entries = balls.distance(start - x, "l0")
    size = tf.cast(tf.reduce_prod(tf.shape(x)[1:]), tf.float32)
    begun = ascent_from(start, state.target, radius, "l1", tf.reduce_max(period))
    return begun._replace(
        score=state.score,
        share=entries / size / 1.5,
        entries=entries,
        period=tf.zeros_like(state.age) + period,
        checkpoint=state.age + period,
        age=state.age,
    )
