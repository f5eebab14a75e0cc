"""Carlini and Wagner's attack: the smallest L2 perturbation, by gradient descent and a search for the right trade."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import tensorflow as tf

from kerasrobust.attacks.algorithm import Images, Numbers
from kerasrobust.attacks.driver import Attack
from kerasrobust.attacks.nearest import adam
from kerasrobust.attacks.network import Network, score
from kerasrobust.errors import InputError
from kerasrobust.ops import balls

INSIDE = 0.999999
"""How close to the edges of the box an image begins, whose place there would be at infinity otherwise."""


class Trade(NamedTuple):
    """Where the search of each example is.

    Attributes:
        w: (N, H, W, C), the iterate in the space of tanh.
        mean: Adam's first moment.
        square: Adam's second moment.
        c: (N,), the present price.
        low: (N,), the highest price that hasn't fooled the network.
        high: (N,), the lowest one that has; infinite before.
        fooled: bool (N,), whether the present price has.
        found: the nearest adversarial example so far; the image itself before there is one.
        distance: (N,), its distance; infinite before.
    """

    w: tf.Tensor
    mean: tf.Tensor
    square: tf.Tensor
    c: tf.Tensor
    low: tf.Tensor
    high: tf.Tensor
    fooled: tf.Tensor
    found: tf.Tensor
    distance: tf.Tensor


@dataclass(frozen=True, kw_only=True)
class CW(Attack[Trade]):
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
    takes_targets: ClassVar[bool] = True
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

    def numbers(self) -> dict[str, float | int]:
        return {
            "search_steps": self.steps,
            "initial_c": float(self.initial_c),
            "learning_rate": float(self.learning_rate),
            "confidence": float(self.confidence),
        }

    def step_count(self) -> int:
        return self.binary_steps * self.steps

    def begin(self, network: Network, images: Images, numbers: Numbers) -> Trade:
        x, count = images.x, tf.shape(images.y)
        return Trade(
            w=_to_w(x),
            mean=tf.zeros_like(x),
            square=tf.zeros_like(x),
            c=tf.fill(count, numbers["initial_c"]),
            low=tf.zeros(count),
            high=tf.fill(count, float("inf")),
            fooled=tf.fill(count, False),
            found=x,
            distance=tf.fill(count, float("inf")),
        )

    def step(self, network: Network, images: Images, state: Trade, numbers: Numbers) -> Trade:
        taken = network.step % numbers["search_steps"]
        state = _next_price(images.x, state, (network.step > 0) & (taken == 0))
        x_adv = _to_image(state.w)
        slope, _, gap = network.gradient(
            x_adv,
            images.y,
            loss=lambda logits, y: tf.nn.relu(score(logits, y, self.targeted) + numbers["confidence"]),
        )
        state = self._noted(images.x, state, x_adv, -gap if self.targeted else gap, taken, numbers)
        slope = 2 * (x_adv - images.x) + balls.column(state.c) * slope
        slope *= (1 - tf.square(tf.tanh(state.w))) / 2
        age = tf.cast(taken + 1, tf.float32)
        move, mean, square = adam(slope, state.mean, state.square, age)
        rate = numbers["learning_rate"] * (1 - (age - 1) / tf.cast(numbers["search_steps"], tf.float32))
        return state._replace(w=state.w - rate * move, mean=mean, square=square)

    def _noted(
        self, x: tf.Tensor, state: Trade, x_adv: tf.Tensor, gap: tf.Tensor, taken: tf.Tensor, numbers: Numbers
    ) -> Trade:
        """Returns the state with the nearest example so far, and who was fooled, after a look at one image each."""
        fooled = gap + numbers["confidence"] < -numbers["slack"]
        # Adam's first steps are as long for a price that is too low: only its second half shows whether a price does.
        late = 2 * (taken + 1) > numbers["search_steps"]
        distance = balls.distance(x_adv - x, "l2")
        better = fooled & (distance < state.distance)
        return state._replace(
            found=balls.choose(better, x_adv, state.found),
            distance=tf.where(better, distance, state.distance),
            fooled=state.fooled | (fooled & late),
        )

    def look(self, network: Network, images: Images, state: Trade, numbers: Numbers) -> Trade:
        x_adv = _to_image(state.w)
        gap = network.score(x_adv, images.y, self.targeted)
        return self._noted(images.x, state, x_adv, gap, network.step % numbers["search_steps"], numbers)

    def found(self, state: Trade, numbers: Numbers) -> tuple[tf.Tensor, tf.Tensor]:
        return state.found, state.distance


def _next_price(x: tf.Tensor, state: Trade, now: tf.Tensor) -> Trade:
    """Returns the state with which a step begins: `now`, with the next price and back at the image."""
    low = tf.where(state.fooled, state.low, tf.maximum(state.low, state.c))
    high = tf.where(state.fooled, tf.minimum(state.high, state.c), state.high)
    c = tf.where(tf.math.is_finite(high), (low + high) / 2, 10 * state.c)
    fresh = {"w": _to_w(x), "c": c, "low": low, "high": high}
    zeros = {name: tf.zeros_like(getattr(state, name)) for name in ("mean", "square", "fooled")}
    changes = {name: tf.where(now, value, getattr(state, name)) for name, value in (fresh | zeros).items()}
    return state._replace(**changes)


def _to_w(x: tf.Tensor) -> tf.Tensor:
    return tf.atanh(INSIDE * (2 * x - 1))


def _to_image(w: tf.Tensor) -> tf.Tensor:
    return (tf.tanh(w) + 1) / 2
