"""SuperDeepFool: DeepFool, whose ways are straightened until they are perpendicular to the boundary."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import tensorflow as tf

from kerasrobust.attacks.algorithm import Images, Numbers
from kerasrobust.attacks.deepfool import check_candidates, chosen, way_to_boundary
from kerasrobust.attacks.nearest import Met, NearestExample, free
from kerasrobust.attacks.network import Network
from kerasrobust.ops import balls

LEFT = 0.05
"""How much of what leads beyond the boundary the last step leaves, as a share."""

NEARER = 0.999
"""To what share of its distance an example has to come, or the search ends."""


class Straightening(NamedTuple):
    """Where the search of each example is.

    Attributes:
        met: the nearest adversarial example so far.
        x_adv: (N, H, W, C), the iterate.
        base: (N, H, W, C), x_i, where the present run of DeepFool began.
        path: (N, H, W, C), the sum of its steps.
        straight: bool (N,), whether the iterate is a projection, whose way from the image is straight.
        last: bool (N,), whether it is the point of the last step.
        ended: bool (N,).
    """

    met: Met
    x_adv: tf.Tensor
    base: tf.Tensor
    path: tf.Tensor
    straight: tf.Tensor
    last: tf.Tensor
    ended: tf.Tensor


@dataclass(frozen=True, kw_only=True)
class SuperDeepFool(NearestExample[Straightening]):
    """DeepFool whose way is projected onto the boundary's normal, again and again, until that alone crosses it.

        x' = DeepFool(x_i),   w = the gradient of f_k - f_y at x', k being the class there
        x_{i+1} = x_0 + <x' - x_0, w> w / |w|^2

    until x_{i+1} is misclassified, or x' comes no nearer. A step is one linearisation, of as many gradients as there
    are other classes, or `candidates`: it moves x_i on towards x', or, there, to x_{i+1}. In the place of the authors'
    bisection at the end one Newton step follows, back along the way to x_0; and gradients leave out what the box
    blocks.

    Attributes:
        norm: "l2".
        steps: at most so many.
        overshoot: how much further than the boundaries DeepFool goes, as a share of its way.
        candidates: how many classes are looked at, those with the highest logits; None for all.

    Example:
        >>> result = SuperDeepFool()(model, x, y)
        >>> result.median_distance

    Reference: Abdollahpoorrostam et al. 2023, algorithm 2: SDF(infinity, 1).
    """

    name: ClassVar[str] = "superdeepfool"
    takes_targets: ClassVar[bool] = False
    norms: ClassVar[tuple[balls.Norm, ...]] = ("l2",)
    # Each class multiplies it.
    largest_batch: ClassVar[int | None] = 64

    norm: balls.Norm = "l2"
    overshoot: float = 0.02
    candidates: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_candidates(self.candidates)

    def structure(self) -> Hashable:
        return super().structure(), self.candidates

    def numbers(self) -> dict[str, float | int]:
        return {"overshoot": float(self.overshoot)}

    def begin(self, network: Network, images: Images, numbers: Numbers) -> Straightening:
        x = images.x
        no = tf.fill(tf.shape(x)[:1], False)
        return Straightening(self.nothing_met(x), x, x, tf.zeros_like(x), no, no, no)

    def done(self, state: Straightening, numbers: Numbers) -> tf.Tensor:
        return state.ended

    def step(self, network: Network, images: Images, state: Straightening, numbers: Numbers) -> Straightening:
        x, x_adv = images.x, state.x_adv
        gaps, slopes = network.linearise(x_adv, images.y, lambda logits: chosen(logits, images.y, self.candidates))
        leader = tf.argmax(gaps, axis=1)
        lead, slope = (tf.gather(part, leader, batch_dims=1) for part in (gaps, slopes))
        fooled = lead > numbers["slack"]
        gone = x_adv - x
        normal = balls.steepest(free(slope, x), "l2")
        onto = tf.clip_by_value(x + balls.column(_product(gone, normal)) * normal, 0.0, 1.0)
        path = state.path + way_to_boundary(gaps, free(slopes, x_adv[:, None]), "l2")
        moved = tf.clip_by_value(state.base + (1.0 + numbers["overshoot"]) * path, 0.0, 1.0)
        # The lead is to fall to 0 on the way back, at the speed that the gradient says.
        beyond = tf.clip_by_value(tf.math.divide_no_nan(lead, _product(gone, slope)), 0.0, 1.0)
        back = x + balls.column(1.0 - (1.0 - LEFT) * beyond) * gone

        ended = state.ended | state.last
        # Where the boundary bends away, projections fall short for ever: what comes no nearer has arrived, too.
        arrived = balls.distance(gone, "l2") > NEARER * state.met.distance
        last = state.last | (fooled & (state.straight | arrived))
        following = balls.choose(last, back, balls.choose(fooled, onto, moved))
        return Straightening(
            met=self.noted(state.met, x, x_adv, fooled),
            x_adv=balls.choose(ended, x_adv, following),
            base=balls.choose(fooled, onto, state.base),
            path=balls.choose(fooled, tf.zeros_like(path), path),
            straight=fooled & ~state.straight,
            last=last,
            ended=ended,
        )


def _product(one: tf.Tensor, other: tf.Tensor) -> tf.Tensor:
    """Returns the inner products of images, (N,)."""
    return tf.reduce_sum(one * other, axis=[1, 2, 3])
