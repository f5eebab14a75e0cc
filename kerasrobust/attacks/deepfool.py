"""DeepFool: the nearest decision boundary of the linearised network, again and again."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import ClassVar

import tensorflow as tf

from kerasrobust.attacks.base import Attack, Parameters, State
from kerasrobust.attacks.network import Network, linearise, mean_score, rivals_of
from kerasrobust.errors import InputError
from kerasrobust.ops import balls, draws


@dataclass(frozen=True, kw_only=True)
class DeepFool(Attack):
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
        if self.targeted:
            raise InputError("Expected targeted=False for DeepFool, which has no targets. Use PGD or BIM with targets.")
        if self.steps < 1:
            raise InputError(f"Expected at least 1 step. Received: steps={self.steps}. Try 50.")
        if self.candidates is not None and self.candidates < 1:
            raise InputError(f"Expected at least 1 candidate. Received: candidates={self.candidates}. Try 9.")

    def structure(self) -> Hashable:
        return type(self), self.norm, self.eot == 1, self.candidates

    def parameters(self) -> dict[str, float | int]:
        return {"overshoot": float(self.overshoot), "eot": self.eot}

    def step_count(self) -> int:
        return self.steps

    def cost_per_step(self, classes: int) -> int:
        return self._rivals(classes) * self.eot

    def _rivals(self, classes: int) -> int:
        return classes - 1 if self.candidates is None else min(self.candidates, classes - 1)

    def begin(self, network: Network, x: tf.Tensor, y: tf.Tensor, keys: tf.Tensor, numbers: Parameters) -> State:
        return {
            "x": x,
            "y": y,
            "x_adv": x,
            "path": tf.zeros_like(x),
            "score": tf.fill([tf.shape(x)[0]], float("inf")),
            "step": tf.constant(0),
            "key": draws.fold(keys[0], 7),
        }

    def done(self, state: State, numbers: Parameters) -> tf.Tensor:
        return state["score"] < 0

    def step(self, network: Network, state: State, numbers: Parameters) -> State:
        x_adv = state["x_adv"]
        key = draws.fold(state["key"], state["step"])
        y = state["y"]
        gaps, slopes = linearise(
            network, x_adv, y, lambda logits: self._choose(logits, y), key=key, passes=self.passes(numbers)
        )
        # Not the nearest other class alone: any that leads is a success.
        lead = tf.reduce_max(gaps, axis=1)
        score = tf.where(lead > numbers["slack"], -lead, state["score"])
        done = score < 0
        # The dual norm of each gradient: how fast the gap closes per unit of distance.
        flat = tf.reshape(slopes, [tf.shape(slopes)[0], tf.shape(slopes)[1], -1])
        if self.norm == "linf":
            speeds = tf.reduce_sum(tf.abs(flat), axis=2)
        else:
            speeds = tf.sqrt(tf.reduce_sum(tf.square(flat), axis=2))
        ways = tf.where(speeds > 0, tf.abs(gaps) / tf.maximum(speeds, 1e-12), float("inf"))
        nearest = tf.argmin(ways, axis=1)
        way = tf.gather(ways, nearest, batch_dims=1)
        slope = tf.gather(slopes, nearest, batch_dims=1)
        # Where the box blocks more of a step than the overshoot adds, steps shrink on the way to the boundary without
        # end. A nudge far below any distance of interest, as in the authors' program, carries the image across.
        nudge = 2e-6 if self.norm == "linf" else 1e-4
        # A flat network offers no way at all: the example stays where it is, and fails.
        length = tf.where(done | ~tf.math.is_finite(way), 0.0, way + nudge)
        path = state["path"] + balls.column(length) * balls.steepest(slope, self.norm)
        # The overshoot stretches the whole path, as in the authors' program: an image that swings between two facets of
        # the boundary is pushed across it.
        moved = tf.clip_by_value(state["x"] + (1.0 + numbers["overshoot"]) * path, 0.0, 1.0)
        moved = balls.choose(done, x_adv, moved)
        return dict(state) | {"x_adv": moved, "path": path, "score": score, "step": state["step"] + 1}

    def _choose(self, logits: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
        """Returns the classes other than the label with the highest logits, int32 (N, K)."""
        classes = logits.shape[1]
        if classes is None:
            raise InputError("Expected a model with a known number of classes. Received: logits of unknown width.")
        if self.candidates is None:
            return rivals_of(y, classes)
        own = tf.one_hot(y, classes, on_value=True, off_value=False)
        return tf.math.top_k(tf.where(own, float("-inf"), logits), self._rivals(classes)).indices

    def finish(self, network: Network, state: State, numbers: Parameters) -> State:
        key = draws.fold(state["key"], state["step"])
        return state | {
            "score": mean_score(network, state["x_adv"], state["y"], key, self.passes(numbers), targeted=False)
        }

    def found(self, state: State, numbers: Parameters) -> tuple[tf.Tensor, tf.Tensor]:
        return state["x_adv"], state["score"]
