"""The nearest adversarial example by APGD: in a ball whose radius is found by bisection, for each image its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import tensorflow as tf

from kerasrobust.attacks.algorithm import Images, Numbers
from kerasrobust.attacks.ascent import Ascent, ascended, ascent_from, schedule, start
from kerasrobust.attacks.nearest import DUAL, Met, NearestExample, farthest, free
from kerasrobust.attacks.network import Network
from kerasrobust.errors import InputError
from kerasrobust.ops import balls

NEXT = 0.9
"""What the next radius is at least of the distance that is known: near the end most smaller balls hold nothing, and it
takes all steps to see that."""
LEAST, GROWTH = 1e-3, 4.0
"""The first radius at least, as a share of how far the box reaches, where the gradient says less; and by what radii
grow as long as nothing was found, so that steep or masked gradients don't end the search near the image."""
CLEAR = 1e-5
"""By which share of its lead at the image the label has to be behind: bisection ends so near to the boundary that
another batch's rounding would take it back."""


class Bisected(NamedTuple):
    """Where the search of each example is.

    Attributes:
        met: the nearest adversarial example so far.
        radius: (N,), of the ball at hand.
        clear: (N,), by how much the label has to be behind.
        empty: (N,), the largest radius in which nothing was found.
        search: that of APGD inside the ball.
    """

    met: Met
    radius: tf.Tensor
    clear: tf.Tensor
    empty: tf.Tensor
    search: Ascent

    @property
    def x_adv(self) -> tf.Tensor:
        """The image that the next step looks at, (N, H, W, C)."""
        return self.search.x_adv


@dataclass(frozen=True, kw_only=True)
class APGDNearest(NearestExample[Bisected]):
    """APGD on the margin, in balls whose radius is halved between what holds an adversarial example and what doesn't.

        r' = max((r_empty + |x* - x_0|) / 2, 0.9 |x* - x_0|),   x* being the nearest adversarial example so far,
             4 r                                                as long as there is none

    The first radius is where the boundary is by the gradient at the image. A search ends with the first adversarial
    example; the next one begins at x*, brought back into its ball. One without success ends after `ball_steps`, and the
    whole where the two radii differ by less than `tolerance`. Each image has a radius and a schedule of its own.
    Gradients leave out what the box blocks.

    Attributes:
        norm: "linf" or "l2".
        steps: how many at most, in all balls together. With fewer than 300 they are mostly too few for a ball, and FMN
            finds nearer examples.
        ball_steps: after how many a ball counts as empty; None for a fifth of `steps`.
        tolerance: of the distance, as a share of it.
        restarts: how often the whole is run: at first from the image itself, then from random points of the first ball;
            the nearest counts.
        targeted: look for the nearest example of the class that is given with the call.

    Example:
        >>> result = APGDNearest(norm="l2")(model, x, y)
        >>> result.median_distance

    Reference: Croce and Hein 2020a, algorithm 1, for the search in a ball; Cinà et al. 2025 (AttackBench), for the
    bisection.
    """

    name: ClassVar[str] = "apgd-nearest"

    steps: int = 300
    ball_steps: int | None = None
    tolerance: float = 0.001
    restarts: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if min(self.restarts, 1 if self.ball_steps is None else self.ball_steps) < 1 or not 0 < self.tolerance < 1:
            raise InputError(
                "Expected at least 1 step in a ball, a tolerance between 0 and 1, and at least 1 restart. "
                f"Received: {self.ball_steps}, {self.tolerance} and {self.restarts}. Leave them out for the defaults."
            )

    def numbers(self) -> dict[str, float | int]:
        steps = max(self.steps // 5, 1) if self.ball_steps is None else self.ball_steps
        first, shrink, least = schedule(steps, self.norm)
        periods = {"first": first, "shrink": shrink, "least": least}
        return super().numbers() | {"ball_steps": steps, "tolerance": float(self.tolerance), **periods}

    def run_count(self) -> int:
        return self.restarts

    def constants(self, images: Images, numbers: Numbers) -> Numbers:
        return {"farthest": farthest(images.x, self.norm)}

    def begin(self, network: Network, images: Images, numbers: Numbers) -> Bisected:
        x = images.x
        slope, score = self.ascent(network, images, x)
        ahead = tf.abs(score) / tf.maximum(balls.distance(free(slope, x), DUAL[self.norm]), 1e-12)
        far = farthest(x, self.norm)
        radius = tf.minimum(tf.maximum(ahead, LEAST * far), far)
        again = numbers["run"] > 0
        begun = tf.cond(again, lambda: start(images.keys, x, balls.column(radius), self.norm), lambda: x)
        met = self.noted(self.nothing_met(x), x, x, score < -numbers["slack"])
        search = self._search(begun, images, radius, numbers)
        return Bisected(met, radius, CLEAR * tf.abs(score), tf.zeros_like(radius), search)

    def step(self, network: Network, images: Images, state: Bisected, numbers: Numbers) -> Bisected:
        x, x_adv = images.x, state.x_adv
        slope, score = self.ascent(network, images, x_adv)
        fooled = score < -numbers["slack"] - state.clear
        met = self.noted(state.met, x, x_adv, fooled)
        inside = numbers | {"epsilon": self._room(state.radius)}
        search = ascended(state.search, x, (free(slope, x_adv), -score, score), self.norm, inside)
        ended = fooled | (search.age >= numbers["ball_steps"])
        empty = tf.where(ended & ~fooled, state.radius, state.empty)
        # What was taken for empty wasn't, where something lies in it.
        empty = tf.where(empty < met.distance, empty, 0.0)
        known = tf.math.is_finite(met.distance)
        radius = tf.maximum((empty + met.distance) / 2, NEXT * met.distance)
        radius = tf.where(known, radius, tf.minimum(GROWTH * state.radius, numbers["farthest"]))
        radius = tf.where(ended, radius, state.radius)

        def in_the_next() -> Ascent:
            nearest = balls.choose(known, met.image, search.best)
            begun = balls.project(nearest, x, self._room(radius), self.norm)
            anew = self._search(begun, images, radius, numbers)
            return tf.nest.map_structure(lambda one, other: balls.choose(ended, one, other), anew, search)

        search = tf.cond(tf.reduce_any(ended), in_the_next, lambda: search)
        return state._replace(met=met, radius=radius, empty=empty, search=search)

    def look(self, network: Network, images: Images, state: Bisected, numbers: Numbers) -> Bisected:
        fooled = network.score(state.x_adv, images.y, self.targeted) < -numbers["slack"] - state.clear
        return state._replace(met=self.noted(state.met, images.x, state.x_adv, fooled))

    def done(self, state: Bisected, numbers: Numbers) -> tf.Tensor:
        distance = state.met.distance
        close = tf.math.is_finite(distance) & (distance - state.empty <= numbers["tolerance"] * distance)
        # Nothing was found in the whole box.
        return close | (state.empty > 0) & (state.radius <= state.empty)

    def _search(self, begun: tf.Tensor, images: Images, radius: tf.Tensor, numbers: Numbers) -> Ascent:
        return ascent_from(begun, images.y, radius, self.norm, numbers["first"])

    def _room(self, radius: tf.Tensor) -> tf.Tensor:
        """Returns radii, (N,), as `balls.project` takes them."""
        return balls.column(radius) if self.norm == "linf" else radius
