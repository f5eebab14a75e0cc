"""DDN: the direction of the perturbation and its length, each with a rule of its own."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import tensorflow as tf

from kerasrobust.attacks.algorithm import Images, Numbers
from kerasrobust.attacks.nearest import Met, NearestExample, annealed, farthest, free
from kerasrobust.attacks.network import Loss, Network
from kerasrobust.errors import InputError, unknown_name
from kerasrobust.names import AttackLoss
from kerasrobust.ops import balls, losses

LOSSES: dict[str, Loss] = {
    "margin": lambda logits, y: -losses.margin(logits, y),
    # Of the cross-entropy the direction alone is followed, which this has as well, and doesn't vanish.
    "cross-entropy": losses.odds_against,
}


class Decoupled(NamedTuple):
    """Where the search of each example is.

    Attributes:
        met: the nearest adversarial example so far.
        x_adv: (N, H, W, C), the iterate.
        radius: (N,), the length that its perturbation has before it is clipped to the box.
    """

    met: Met
    x_adv: tf.Tensor
    radius: tf.Tensor


@dataclass(frozen=True, kw_only=True)
class DDN(NearestExample[Decoupled]):
    """Decoupled direction and norm: steps along the gradient, on a sphere that shrinks where the network is fooled.

        d_{k+1} = d_k + a_k g / |g|,   r_{k+1} = (1 - gamma) r_k where x_k is misclassified, else (1 + gamma) r_k
        x_{k+1} = clip(x_0 + r_{k+1} d_{k+1} / |d_{k+1}|)

    with g the gradient of the margin at x_k, and steps a_k that fall from 1 to 0.01 along half a cosine. The nearest
    adversarial example met on the way counts. One gradient a step, and one forward pass at the end.

    Unlike in the paper the margin is climbed, not the cross-entropy: of networks whose probabilities are soft, as
    adversarial training makes them, that is largest elsewhere on a sphere than where the label flips first. Nothing is
    rounded to 256 levels, and g leaves out what the box blocks.

    Attributes:
        norm: "l2".
        steps: how many.
        gamma: by which share the radius grows or shrinks in a step.
        first_radius: where it begins.
        loss: "margin", or "cross-entropy" as in the paper.
        targeted: look for the nearest example of the class that is given with the call.

    Example:
        >>> result = DDN(steps=300)(model, x, y)
        >>> result.median_distance

    Reference: Rony et al. 2019, algorithm 1.
    """

    name: ClassVar[str] = "ddn"
    norms: ClassVar[tuple[balls.Norm, ...]] = ("l2",)

    norm: balls.Norm = "l2"
    gamma: float = 0.05
    first_radius: float = 1.0
    loss: AttackLoss = "margin"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.loss not in LOSSES:
            raise unknown_name("loss", self.loss, LOSSES)
        if not (0 < self.gamma < 1 and self.first_radius > 0):
            raise InputError(
                "Expected gamma between 0 and 1, and a first_radius above 0. "
                f"Received: {self.gamma} and {self.first_radius}. Leave them out for the defaults."
            )

    def structure(self) -> Hashable:
        return super().structure(), self.loss

    def numbers(self) -> dict[str, float | int]:
        return super().numbers() | {"gamma": float(self.gamma), "first_radius": float(self.first_radius)}

    def begin(self, network: Network, images: Images, numbers: Numbers) -> Decoupled:
        radius = tf.fill(tf.shape(images.x)[:1], numbers["first_radius"])
        return Decoupled(self.nothing_met(images.x), images.x, radius)

    def constants(self, images: Images, numbers: Numbers) -> Numbers:
        return {"farthest": farthest(images.x, "l2")}

    def step(self, network: Network, images: Images, state: Decoupled, numbers: Numbers) -> Decoupled:
        x, x_adv = images.x, state.x_adv
        slope, _, score = network.gradient(x_adv, images.y, targeted=self.targeted, loss=LOSSES[self.loss])
        fooled = score < -numbers["slack"]
        size = annealed(1.0, 0.01, network.step, numbers["search_steps"])
        way = x_adv - x + size * balls.steepest(free(slope, x_adv), "l2")
        radius = state.radius * tf.where(fooled, 1 - numbers["gamma"], 1 + numbers["gamma"])
        radius = tf.minimum(radius, numbers["farthest"])
        return Decoupled(
            self.noted(state.met, x, x_adv, fooled),
            tf.clip_by_value(x + balls.column(radius) * balls.steepest(way, "l2"), 0.0, 1.0),
            radius,
        )
