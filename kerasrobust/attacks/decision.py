"""What attacks that see only the predicted class have in common: the nearest example so far, and where they begin."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf, prod
from typing import Any, ClassVar, NamedTuple, Protocol, TypeVar

import numpy as np
import tensorflow as tf

from kerasrobust.attacks.algorithm import Algorithm, Images, Numbers
from kerasrobust.attacks.driver import Attack
from kerasrobust.attacks.network import Network
from kerasrobust.errors import InputError
from kerasrobust.ops import balls, draws
from kerasrobust.settings import read_epsilon


class Nearest(NamedTuple):
    """The nearest adversarial example of each image so far.

    Attributes:
        best: (N, H, W, C); the image itself before there is one.
        distance: (N,), its distance; infinite before.
        age: int32 (N,), queries so far but for the first.
        fell: int32 (N,), how many it had been when the distance first was epsilon or less; 0 before.
    """

    best: tf.Tensor
    distance: tf.Tensor
    age: tf.Tensor
    fell: tf.Tensor

    def after(self, query: tf.Tensor, reached: tf.Tensor, distance: tf.Tensor, numbers: Numbers) -> Nearest:
        """Returns what is known after a query, (N, H, W, C), of the wrong class where `reached`, at these distances."""
        nearer, age = reached & (distance < self.distance), self.age + 1
        distance = tf.where(nearer, distance, self.distance)
        fell = tf.where((self.fell == 0) & (distance <= numbers["epsilon"]), age + 1, self.fell)
        return Nearest(balls.choose(nearer, query, self.best), distance, age, fell)


HALVINGS = 10
"""Of the way to the first image of another class."""


class Way(NamedTuple):
    """The way from each image to a first one of another class, and where on it the boundary lies.

    Attributes:
        far: (N, H, W, C), that image; before there is one, the image itself.
        low: (N,), share of the way that is still classified correctly.
        high: (N,), share that is misclassified.
        halved: int32 (N,), how often; -1 before there is an image of another class.
    """

    far: tf.Tensor
    low: tf.Tensor
    high: tf.Tensor
    halved: tf.Tensor

    @staticmethod
    def unknown(x: tf.Tensor) -> Way:
        zeros = tf.zeros(tf.shape(x)[:1])
        return Way(x, zeros, zeros + 1.0, tf.cast(zeros, tf.int32) - 1)

    @property
    def known(self) -> tf.Tensor:
        """Whether the boundary is found, bool (N,)."""
        return self.halved >= HALVINGS

    def query(self, images: Images, step: tf.Tensor) -> tf.Tensor:
        """Returns what is asked about next, (N, H, W, C)."""
        halfway = images.x + balls.column((self.low + self.high) / 2) * (self.far - images.x)
        return balls.choose(self.halved < 0, other_image(images, step), halfway)

    def after(self, query: tf.Tensor, reached: tf.Tensor) -> Way:
        """Returns what is known after that query, of another class where `reached`: nothing new once it is `known`."""
        first, halving = (self.halved < 0) & reached, (self.halved >= 0) & ~self.known
        middle = (self.low + self.high) / 2
        return Way(
            balls.choose(first, query, self.far),
            tf.where(halving & ~reached, middle, self.low),
            tf.where(halving & reached, middle, self.high),
            self.halved + tf.cast(first | halving, tf.int32),
        )


class _Searching(Protocol):
    @property
    def nearest(self) -> Nearest: ...


S = TypeVar("S", bound=_Searching)


@dataclass(frozen=True, kw_only=True)
class DecisionBased(Attack[S]):
    """Looks for the nearest example by one query a step, and hears only which class the network says.

    Its state has a field `nearest`.

    Attributes:
        queries: how many per example.
        epsilon: radius within which an example has fallen, for the result's `queries`; the search goes on from there.
            None to count none.
    """

    gradient_free: ClassVar[bool] = True
    minimum_norm: ClassVar[bool] = True
    scores_distance: ClassVar[bool] = True

    takes_means: ClassVar[bool] = False
    """Whether an answer of a randomized network may be that of the mean over some passes. Who keeps the nearest point
    that was ever misclassified keeps one that was so by luck, of which nothing is left on other noise."""

    queries: int = 5_000
    epsilon: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.epsilon is not None:
            read_epsilon(self)
        if self.queries < 1:
            raise InputError(f"Expected at least 1 query. Received: queries={self.queries}. Try 1000.")

    def numbers(self) -> dict[str, float | int]:
        # Below every distance where falls aren't counted.
        return {"epsilon": -1.0 if self.epsilon is None else float(self.epsilon)}

    def resolved(self, randomized: bool) -> Algorithm[Any]:
        if randomized and not self.takes_means:
            raise InputError(
                f"Expected a network that answers an image always alike for {self.name}, as it keeps whatever was "
                "misclassified once. Received: a randomized one. Use square, or hopskipjump with --eot 20."
            )
        return self

    def step_count(self) -> int:
        return self.queries

    def queries_of_run(self) -> int:
        return 0 if self.epsilon is None else 1 + self.queries

    def asked(self, state: S) -> tf.Tensor:
        return state.nearest.fell

    def found(self, state: S, numbers: Numbers) -> tuple[tf.Tensor, tf.Tensor]:
        return state.nearest.best, state.nearest.distance


def begun(network: Network, images: Images, numbers: Numbers) -> Nearest:
    """Returns what the first query, the image itself, says: one that is wrong already is its own nearest example."""
    zeros = tf.zeros(tf.shape(images.y), tf.int32)
    distance = tf.where(network.score(images.x, images.y) < -numbers["slack"], 0.0, inf)
    return Nearest(images.x, distance, zeros, tf.where(distance <= numbers["epsilon"], 1, zeros))


def other_image(images: Images, step: tf.Tensor) -> tf.Tensor:
    """Returns what may be of another class, float32 (N, H, W, C) in [0, 1]: uniform noise in blocks, new in each step.

    Fine noise is of one class to most networks, so blocks are of changing size: 1, 2, 4, ... as far as the image goes.
    """
    _, height, width, _ = images.x.shape
    size = prod(images.x.shape[1:])
    uniform = draws.hashed_uniform(images.keys, step, size + size % 2)[:, :size]
    sides = int(np.log2(max(height, width))) + 1
    block = tf.bitwise.left_shift(1, step % sides)
    rows, columns = (tf.range(length) // block * block for length in (height, width))
    return tf.gather(tf.gather(tf.reshape(uniform, tf.shape(images.x)), rows, axis=1), columns, axis=2)
