"""FMN: the nearest adversarial example in any norm, by steps in a ball whose radius follows the boundary."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import tensorflow as tf

from kerasrobust.attacks.algorithm import Images, Numbers
from kerasrobust.attacks.deepfool import check_candidates, chosen, way_to_boundary
from kerasrobust.attacks.nearest import DUAL, Met, NearestExample, annealed, farthest, free
from kerasrobust.attacks.network import Network
from kerasrobust.errors import InputError
from kerasrobust.ops import balls

LEAST = 0.001
"""What gamma has fallen to in the end."""

GROWTH = 1.5
"""By which factor a radius in L0 grows that nothing has been found in yet."""

FIRST: dict[str, float] = {"linf": 10.0, "l2": 1.0, "l1": 6.0, "l0": 1.0}
"""The first step by norm, in L2."""

SHARE = 1 / 32
"""The share of values that a step in L1 moves, beside those that differ already."""

FEWEST = 32
"""How many those are at least, of small images."""


class Follower(NamedTuple):
    """Where the search of each example is.

    Attributes:
        met: the nearest adversarial example so far.
        x_adv: (N, H, W, C), the iterate.
        radius: (N,), of the ball that the next iterate lies in.
    """

    met: Met
    x_adv: tf.Tensor
    radius: tf.Tensor


@dataclass(frozen=True, kw_only=True)
class FMN(NearestExample[Follower]):
    """Fast minimum-norm attack: steps along the gradient, in a ball that shrinks where the network is fooled.

        x_{k+1} = clip(Proj_{B(x_0, r_{k+1})}(x_k + a_k g / |g|_2))
        r_{k+1} = min((1 - gamma_k) r_k, |x* - x_0|)   where x_k is misclassified, x* being the nearest such one so far,
                  (1 + gamma_k) r_k                    elsewhere, once there is an x*,
                  (1 + gamma_k) (|x_k - x_0| + |f(x_k)| / |g|_q)   before: to behind where the boundary seems to be,

    with f the margin, g its gradient and q the dual norm. The steps a_k fall to a hundredth along half a cosine, and
    gamma_k to 0.001. One gradient a step, and one forward pass at the end. In L0, the number of values that change,
    the radius begins at 1, grows by half until there is an x*, and changes by 1 at least. Unlike in the paper the first
    radii lie behind the boundary, which a smooth network is never led across otherwise, and g leaves out what the box
    blocks. In L1 steps are longer and g has only its largest entries, a 32nd of all, and those of values that differ
    already: the others would be projected away, and the step with them.

    In Linf and L2 x_1 is where the nearest of several boundaries lies by the gradients at x_0, one more for each class
    that is looked at. The search seldom leaves the class that it comes to first, and from x_0 that is the runner-up,
    whose boundary often isn't the nearest.

    Attributes:
        norm: "linf", "l2", "l1" or "l0".
        steps: how many.
        step_size: the first one, in L2; None for 10 in Linf, 6 in L1, and 1 in the other norms.
        gamma: by which share the radius grows or shrinks in the first step.
        candidates: how many classes the beginning looks at in Linf and L2, those with the highest logits, each of which
            takes the memory of a batch's gradient or two; None for all, 1 to begin at the image itself, as does a
            targeted attack.
        targeted: look for the nearest example of the class that is given with the call.

    Example:
        >>> result = FMN(norm="l1")(model, x, y)
        >>> result.median_distance

    Reference: Pintor et al. 2021, algorithm 1.
    """

    name: ClassVar[str] = "fmn"
    norms: ClassVar[tuple[balls.Norm, ...]] = ("linf", "l2", "l1", "l0")

    step_size: float | None = None
    gamma: float = 0.05
    candidates: int | None = 9

    def __post_init__(self) -> None:
        super().__post_init__()
        check_candidates(self.candidates)
        if not (LEAST <= self.gamma < 1 and (self.step_size is None or self.step_size > 0)):
            raise InputError(
                f"Expected gamma from {LEAST} to 1, and a step_size above 0. "
                f"Received: {self.gamma} and {self.step_size}. Leave them out for the defaults."
            )

    def structure(self) -> Hashable:
        return super().structure(), self.candidates

    def numbers(self) -> dict[str, float | int]:
        size = FIRST[self.norm] if self.step_size is None else float(self.step_size)
        return super().numbers() | {"gamma": float(self.gamma), "step_size": size}

    def begin(self, network: Network, images: Images, numbers: Numbers) -> Follower:
        x, radius = images.x, tf.fill(tf.shape(images.x)[:1], 1.0 if self.norm == "l0" else float("inf"))
        several = min(self.candidates or 9, (network.classes or 2) - 1) > 1
        if self.targeted or self.norm in ("l1", "l0") or not several:
            return Follower(self.nothing_met(x), x, radius)
        gaps, slopes = network.linearise(x, images.y, lambda logits: chosen(logits, images.y, self.candidates))
        met = self.noted(self.nothing_met(x), x, x, tf.reduce_max(gaps, axis=1) > numbers["slack"])
        way = way_to_boundary(gaps, free(slopes, x[:, None]), self.norm)
        return Follower(met, tf.clip_by_value(x + way, 0.0, 1.0), radius)

    def constants(self, images: Images, numbers: Numbers) -> Numbers:
        return {"farthest": farthest(images.x, self.norm)}

    def step(self, network: Network, images: Images, state: Follower, numbers: Numbers) -> Follower:
        x, x_adv = images.x, state.x_adv
        slope, score = self.ascent(network, images, x_adv)
        # Among the values that a budget in L0 is spent on, those at the edge are told apart by their gradients.
        keep = (x_adv != x) & (self.norm == "l0")
        slope = tf.where(keep, slope, free(slope, x_adv))
        fooled = score < -numbers["slack"]
        met = self.noted(state.met, x, x_adv, fooled)
        gamma = annealed(numbers["gamma"], LEAST, network.step, numbers["search_steps"])
        size = annealed(numbers["step_size"], 0.01 * numbers["step_size"], network.step, numbers["search_steps"])
        if self.norm == "l0":
            less = tf.minimum(state.radius - 1, tf.floor((1 - gamma) * state.radius))
            growth = tf.where(tf.math.is_finite(met.distance), 1 + gamma, GROWTH)
            more = tf.maximum(state.radius + 1, tf.floor(growth * state.radius))
        else:
            less, more = (1 - gamma) * state.radius, (1 + gamma) * state.radius
            speed = balls.distance(slope, DUAL[self.norm])
            ahead = balls.distance(x_adv - x, self.norm) + tf.abs(score) / tf.maximum(speed, 1e-12)
            more = tf.where(tf.math.is_finite(met.distance), more, (1 + gamma) * ahead)
        radius = tf.where(fooled, tf.maximum(tf.minimum(less, met.distance), 0.0), more)
        radius = tf.minimum(radius, numbers["farthest"])
        slope = sparse(slope, x_adv != x) if self.norm == "l1" else slope
        moved = x_adv + size * balls.steepest(slope, "l2")
        room = balls.column(radius) if self.norm == "linf" else radius
        return Follower(met, balls.project(moved, x, room, self.norm), radius)


def sparse(slope: tf.Tensor, kept: tf.Tensor) -> tf.Tensor:
    """Returns a gradient with 0 in all entries but those that are kept and the share `SHARE` that is the largest."""
    flat = tf.abs(tf.reshape(slope, [tf.shape(slope)[0], -1]))
    size = tf.shape(flat)[1]
    count = tf.minimum(tf.maximum(tf.cast(SHARE * tf.cast(size, tf.float32), tf.int32), FEWEST), size)
    least = tf.math.top_k(flat, count, sorted=True).values[:, -1]
    return tf.where(kept | (tf.abs(slope) >= balls.column(least)), slope, 0.0)
