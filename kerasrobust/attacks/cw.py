"""Carlini and Wagner's attack: the smallest L2 perturbation, by gradient descent and a search for the right trade."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import ClassVar

import tensorflow as tf

from kerasrobust.attacks.base import Attack, Parameters, State
from kerasrobust.attacks.network import Network, gradient, mean_score, score
from kerasrobust.errors import InputError
from kerasrobust.ops import balls, draws

INSIDE = 0.999999
"""How close to the edges of the box an image begins, whose place there would be at infinity otherwise."""


@dataclass(frozen=True, kw_only=True)
class CW(Attack):
    """Trades the size of the perturbation against the margin, for a series of prices c.

        minimise |x_adv - x|_2^2 + c * max(f_y - max_{k != y} f_k + confidence, 0),   x_adv = (tanh(w) + 1) / 2

    by Adam in w, from the image itself for each price. The price of an example is raised tenfold until it is fooled,
    and then searched for between the lowest that did and the highest that didn't. The nearest adversarial example met
    on the way counts. Unlike in the paper the steps shrink linearly: of constant ones some 1,000 are needed.

    Attributes:
        norm: "l2".
        steps: of Adam, for each price.
        binary_steps: how many prices are tried.
        initial_c: the first price.
        learning_rate: of Adam, in the first step of each price.
        confidence: by how much another class has to win, in logits.
        targeted: look for the nearest example of the class that is given with the call.

    Example:
        >>> result = CW()(model, x, y)
        >>> result.median_distance

    Reference: Carlini and Wagner 2017, sections V and VI.A.
    """

    name: ClassVar[str] = "cw"
    minimum_norm: ClassVar[bool] = True
    scores_distance: ClassVar[bool] = True
    norms: ClassVar[tuple[balls.Norm, ...]] = ("l2",)

    norm: balls.Norm = "l2"
    steps: int = 100
    binary_steps: int = 9
    initial_c: float = 1e-3
    learning_rate: float = 0.01
    confidence: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.steps < 1 or self.binary_steps < 1:
            raise InputError(
                "Expected at least 1 step and 1 binary step. "
                f"Received: {self.steps} and {self.binary_steps}. Leave them out for the defaults."
            )
        if not (self.initial_c > 0 and self.learning_rate > 0 and self.confidence >= 0):
            raise InputError(
                "Expected initial_c and learning_rate above 0, and a confidence of at least 0. "
                f"Received: {self.initial_c}, {self.learning_rate} and {self.confidence}. "
                "Leave them out for the defaults."
            )

    def structure(self) -> Hashable:
        return type(self), self.norm, self.targeted, self.eot == 1

    def parameters(self) -> dict[str, float | int]:
        return {
            "search_steps": self.steps,
            "initial_c": float(self.initial_c),
            "learning_rate": float(self.learning_rate),
            "confidence": float(self.confidence),
            "eot": self.eot,
        }

    def step_count(self) -> int:
        return self.binary_steps * self.steps

    def begin(self, network: Network, x: tf.Tensor, y: tf.Tensor, keys: tf.Tensor, numbers: Parameters) -> State:
        count = tf.shape(x)[:1]
        return {
            "x": x,
            "y": y,
            "w": _to_w(x),
            "mean": tf.zeros_like(x),
            "square": tf.zeros_like(x),
            "c": tf.fill(count, numbers["initial_c"]),
            "low": tf.zeros(count),
            "high": tf.fill(count, float("inf")),
            "fooled": tf.fill(count, False),
            "found": x,
            "distance": tf.fill(count, float("inf")),
            "step": tf.constant(0),
            "key": draws.fold(keys[0], 7),
        }

    def step(self, network: Network, state: State, numbers: Parameters) -> State:
        state = _next_price(state, numbers)
        x, w = state["x"], state["w"]
        x_adv = _to_image(w)
        slope, _, gap = gradient(
            network,
            x_adv,
            state["y"],
            key=draws.fold(state["key"], state["step"]),
            passes=self.passes(numbers),
            targeted=False,
            loss=lambda logits, y: tf.nn.relu(score(logits, y, self.targeted) + numbers["confidence"]),
        )
        state = state | self._note(state, x_adv, -gap if self.targeted else gap, numbers)
        slope = 2 * (x_adv - x) + balls.column(state["c"]) * slope
        slope *= (1 - tf.square(tf.tanh(w))) / 2
        # Adam (Kingma and Ba 2015, algorithm 1), its moments corrected for their start at 0.
        taken = tf.cast(state["step"] % numbers["search_steps"] + 1, tf.float32)
        mean = 0.9 * state["mean"] + 0.1 * slope
        square = 0.999 * state["square"] + 0.001 * tf.square(slope)
        rate = numbers["learning_rate"] * (1 - (taken - 1) / tf.cast(numbers["search_steps"], tf.float32))
        move = mean / (1 - 0.9**taken) / (tf.sqrt(square / (1 - 0.999**taken)) + 1e-8)
        return state | {
            "w": w - rate * move,
            "mean": mean,
            "square": square,
            "step": state["step"] + 1,
        }

    def _note(self, state: State, x_adv: tf.Tensor, gap: tf.Tensor, numbers: Parameters) -> State:
        """Returns the nearest example so far, and who was fooled at the present price, after a look at this one."""
        fooled = gap + numbers["confidence"] < -numbers["slack"]
        # Adam's first steps are as long for a price that is too low. So its success is told from its second half.
        late = 2 * (state["step"] % numbers["search_steps"] + 1) > numbers["search_steps"]
        distance = balls.distance(x_adv - state["x"], "l2")
        better = fooled & (distance < state["distance"])
        return {
            "found": balls.choose(better, x_adv, state["found"]),
            "distance": tf.where(better, distance, state["distance"]),
            "fooled": state["fooled"] | (fooled & late),
        }

    def finish(self, network: Network, state: State, numbers: Parameters) -> State:
        x_adv = _to_image(state["w"])
        key = draws.fold(state["key"], state["step"])
        gap = mean_score(network, x_adv, state["y"], key, self.passes(numbers), self.targeted)
        return state | self._note(state, x_adv, gap, numbers)

    def found(self, state: State, numbers: Parameters) -> tuple[tf.Tensor, tf.Tensor]:
        return state["found"], state["distance"]


def _next_price(state: State, numbers: Parameters) -> State:
    """Returns the state with which a step begins: where a price is done, with the next one and back at the image."""
    now = (state["step"] > 0) & (state["step"] % numbers["search_steps"] == 0)
    low = tf.where(state["fooled"], state["low"], tf.maximum(state["low"], state["c"]))
    high = tf.where(state["fooled"], tf.minimum(state["high"], state["c"]), state["high"])
    c = tf.where(tf.math.is_finite(high), (low + high) / 2, 10 * state["c"])
    fresh = {"w": _to_w(state["x"]), "c": c, "low": low, "high": high}
    zeros = {name: tf.zeros_like(state[name]) for name in ("mean", "square", "fooled")}
    return state | {name: tf.where(now, value, state[name]) for name, value in (fresh | zeros).items()}


def _to_w(x: tf.Tensor) -> tf.Tensor:
    return tf.atanh(INSIDE * (2 * x - 1))


def _to_image(w: tf.Tensor) -> tf.Tensor:
    return (tf.tanh(w) + 1) / 2
