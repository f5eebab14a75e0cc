"""DeepFool: the nearest decision boundary of the linearised network, again and again."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import tensorflow as tf

from kerasrobust.attacks.algorithm import Images, Numbers
from kerasrobust.attacks.driver import Attack
from kerasrobust.attacks.network import Network, rivals_of
from kerasrobust.errors import InputError
from kerasrobust.ops import balls


class Crossing(NamedTuple):
    """How far each example is on its way to the boundary.

    Attributes:
        x_adv: (N, H, W, C), the iterate, with the overshoot.
        path: (N, H, W, C), r, the sum of all steps.
        score: (N,), minus the lead of the best rival; infinite until one leads.
    """

    x_adv: tf.Tensor
    path: tf.Tensor
    score: tf.Tensor


@dataclass(frozen=True, kw_only=True)
class DeepFool(Attack[Crossing]):
    """Minimum-norm attack: steps onto the nearest boundary of the network's linearisation until the label flips.

        k = argmin_k |f_k - f_y| / |w_k|_q,   r <- r + |f_k - f_y| / |w_k|_q * direction(w_k)
        x <- x_0 + (1 + overshoot) * r

    with w_k the gradient of f_k - f_y, q = 2 for L2 and 1 for Linf. All candidates' gradients go back through
    one forward pass, up to 16 of them. The perturbation isn't clipped to any epsilon; robust accuracy at an epsilon is
    the share of examples whose distance is larger.

    Attributes:
        norm: "l2" or "linf".
        steps: at most so many.
        overshoot: how much further than the boundaries the image is moved, as a share of the whole way.
        candidates: how many classes are looked at, those with the highest logits; None for all.

    Example:
        >>> result = DeepFool(norm="l2")(model, x, y)
        >>> result.median_distance

    Reference: Moosavi-Dezfooli et al. 2016, algorithm 2 (L2) and section 2.3 (other norms).
    """

    name: ClassVar[str] = "deepfool"
    minimum_norm: ClassVar[bool] = True
    # Each class multiplies it.
    largest_batch: ClassVar[int | None] = 64

    norm: balls.Norm = "l2"
    steps: int = 50
    overshoot: float = 0.02
    candidates: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.steps < 1:
            raise InputError(f"Expected at least 1 step. Received: steps={self.steps}. Try 50.")
        check_candidates(self.candidates)

    def structure(self) -> Hashable:
        return super().structure(), self.candidates

    def numbers(self) -> dict[str, float | int]:
        return {"overshoot": float(self.overshoot)}

    def step_count(self) -> int:
        return self.steps

    def begin(self, network: Network, images: Images, numbers: Numbers) -> Crossing:
        return Crossing(images.x, tf.zeros_like(images.x), tf.fill(tf.shape(images.y), float("inf")))

    def done(self, state: Crossing, numbers: Numbers) -> tf.Tensor:
        return state.score < 0

    def step(self, network: Network, images: Images, state: Crossing, numbers: Numbers) -> Crossing:
        gaps, slopes = network.linearise(
            state.x_adv, images.y, lambda logits: chosen(logits, images.y, self.candidates)
        )
        # Not the nearest other class alone: any that leads is a success.
        lead = tf.reduce_max(gaps, axis=1)
        score = tf.where(lead > numbers["slack"], -lead, state.score)
        done = score < 0
        path = state.path + balls.column(tf.where(done, 0.0, 1.0)) * way_to_boundary(gaps, slopes, self.norm)
        # The overshoot stretches the whole path, as in the authors' program: an image that swings between two facets of
        # the boundary is pushed across it.
        moved = tf.clip_by_value(images.x + (1.0 + numbers["overshoot"]) * path, 0.0, 1.0)
        return Crossing(balls.choose(done, state.x_adv, moved), path, score)

    def look(self, network: Network, images: Images, state: Crossing, numbers: Numbers) -> Crossing:
        return state._replace(score=network.score(state.x_adv, images.y))

    def found(self, state: Crossing, numbers: Numbers) -> tuple[tf.Tensor, tf.Tensor]:
        return state.x_adv, state.score


def check_candidates(count: int | None) -> None:
    """Raises InputError for fewer candidates than 1."""
    if count is not None and count < 1:
        raise InputError(f"Expected at least 1 candidate. Received: candidates={count}. Try 9.")


def chosen(logits: tf.Tensor, y: tf.Tensor, count: int | None) -> tf.Tensor:
    """Returns so many classes other than the label with the highest logits, or all of them, integers (N, K)."""
    classes = logits.shape[1]
    if classes is None:
        raise InputError("Expected a model with a known number of classes. Received: logits of unknown width.")
    if count is None:
        return rivals_of(y, classes)
    own = tf.one_hot(y, classes, on_value=True, off_value=False)
    return tf.math.top_k(tf.where(own, float("-inf"), logits), min(count, classes - 1)).indices


def way_to_boundary(gaps: tf.Tensor, slopes: tf.Tensor, norm: balls.Norm) -> tf.Tensor:
    """Returns the way to the nearest boundary of a linearisation, (N, H, W, C), of gaps (N, K) and their gradients."""
    # The dual norm of each gradient: how fast the gap closes per unit of distance.
    flat = tf.reshape(slopes, [tf.shape(slopes)[0], tf.shape(slopes)[1], -1])
    speeds = tf.norm(flat, ord=1 if norm == "linf" else 2, axis=2)
    ways = tf.where(speeds > 0, tf.abs(gaps) / tf.maximum(speeds, 1e-12), float("inf"))
    nearest = tf.argmin(ways, axis=1)
    way = tf.gather(ways, nearest, batch_dims=1)
    slope = tf.gather(slopes, nearest, batch_dims=1)
    # Where the box blocks more of a step than the overshoot adds, steps shrink on the way to the boundary without
    # end. A nudge far below any distance of interest, as in the authors' program, carries the image across.
    nudge = 2e-6 if norm == "linf" else 1e-4
    # A flat network offers no way at all: the example stays where it is, and fails.
    length = tf.where(tf.math.is_finite(way), way + nudge, 0.0)
    return balls.column(length) * balls.steepest(slope, norm)
