"""What attacks that see only the predicted class have in common: the nearest example so far, and where they begin."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Hashable
from dataclasses import dataclass, replace
from math import inf, prod
from typing import Any, ClassVar, Generic, NamedTuple, Protocol, TypeVar

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


class _Kept(Protocol):
    @property
    def nearest(self) -> Nearest: ...


K = TypeVar("K", bound=_Kept)
"""What a search knows of its examples: a NamedTuple of tensors with a field `nearest`."""

FRESH, SURE = 40, 0.7
"""Passes of a randomized network that have to be heard before it is believed that something is misclassified, and the
share of them that have to say so."""


class Doubt(NamedTuple):
    """What a randomized network has said about the question at hand.

    Attributes:
        query: (N, H, W, C), what is asked about.
        heard: (N,), passes so far; 0 where the next question is a new one.
        wrong: (N,), those of them that said another class.
    """

    query: tf.Tensor
    heard: tf.Tensor
    wrong: tf.Tensor

    def after(self, query: tf.Tensor, share: tf.Tensor, passes: tf.Tensor) -> tuple[Doubt, tf.Tensor, tf.Tensor]:
        """Returns what is known after a look, which examples have their answer, and whether it is that of another
        class, both bool (N,).

        Args:
            query: (N, H, W, C), what was asked about.
            share: (N,), of the passes that said another class.
            passes: how many there were, a scalar.
        """
        heard = self.heard + passes
        wrong = tf.where(self.heard > 0, self.wrong, 0.0) + tf.round(share * passes)
        last = heard >= tf.maximum(float(FRESH), 2.0 * passes)
        # Most questions have their answer at the first look: what isn't misclassified.
        refuted = wrong < tf.where(last, SURE, 0.5) * heard
        settled = refuted | last
        return Doubt(query, tf.where(settled, 0.0, heard), wrong), settled, ~refuted


class Search(NamedTuple, Generic[K]):
    """A search's state.

    Attributes:
        known: what it knows.
        doubt: of a randomized network; () of another.
    """

    known: K
    doubt: Doubt | tuple[()]


@dataclass(frozen=True, kw_only=True)
class DecisionBased(Attack[Search[K]]):
    """Looks for the nearest example by one query a step, and hears only which class the network says.

    A search is three functions on what it knows: `start`, `query` and `after`.

    What a randomized network misclassifies once it may do by luck, and a search that keeps it as the nearest finds
    nothing nearer from there on. So what seems misclassified is asked about again in the next steps, twice at least: it
    counts as correct as soon as fewer than half of the passes misclassify it, and as misclassified once 40 or more have
    been heard of which 70 % do. Each of these steps is a query of `eot` passes, so that it takes 40 queries without EOT
    to believe one of them, and fewer find nothing.

    Attributes:
        queries: how many per example.
        epsilon: radius within which an example has fallen, for the result's `queries`; the search goes on from there.
            None to count none.
        doubting: ask again about what seems misclassified. Set on randomized networks.
    """

    gradient_free: ClassVar[bool] = True
    minimum_norm: ClassVar[bool] = True
    scores_distance: ClassVar[bool] = True

    queries: int = 5_000
    epsilon: float | None = None
    doubting: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.epsilon is not None:
            read_epsilon(self)
        if self.queries < 1:
            raise InputError(f"Expected at least 1 query. Received: queries={self.queries}. Try 1000.")

    @abstractmethod
    def start(self, images: Images, nearest: Nearest) -> K:
        """Returns what is known once it is known whether the images themselves are misclassified."""

    @abstractmethod
    def query(self, step: tf.Tensor, images: Images, known: K, numbers: Numbers) -> tf.Tensor:
        """Returns what is asked about next, (N, H, W, C); `step` is the step's number."""

    @abstractmethod
    def after(
        self, step: tf.Tensor, images: Images, known: K, query: tf.Tensor, share: tf.Tensor, numbers: Numbers
    ) -> K:
        """Returns what is known after a query, (N, H, W, C), that a share of passes, float32 (N,), misclassify.

        Of what was asked about again, and of a network that isn't randomized, the share is 1 or 0.
        """

    def is_doubted(self, known: K) -> tf.Tensor:
        """Returns whether what is asked about next is asked about again where it seems misclassified, bool (N,)."""
        return known.nearest.age >= 0

    def settings(self) -> dict[str, Any]:
        # The network says it, not the caller.
        return {name: value for name, value in super().settings().items() if name != "doubting"}

    def numbers(self) -> dict[str, float | int]:
        # Below every distance where falls aren't counted.
        return {"epsilon": -1.0 if self.epsilon is None else float(self.epsilon)}

    def structure(self) -> Hashable:
        return super().structure(), self.doubting

    def resolved(self, randomized: bool) -> Algorithm[Any]:
        return replace(self, doubting=True) if randomized else self

    def step_count(self) -> int:
        return self.queries

    def queries_of_run(self) -> int:
        return 0 if self.epsilon is None else 1 + self.queries

    def begin(self, network: Network, images: Images, numbers: Numbers) -> Search[K]:
        x, zeros = images.x, tf.zeros(tf.shape(images.y)[:1])
        share = _misclassified(network, x, images.y, numbers)
        if not self.doubting:
            return Search(self.start(images, _begun(x, share, numbers)), ())
        doubt, _, _ = Doubt(x, zeros, zeros).after(x, share, tf.cast(numbers["eot"], tf.float32))
        return Search(self.start(images, _begun(x, zeros, numbers)), doubt)

    def step(self, network: Network, images: Images, state: Search[K], numbers: Numbers) -> Search[K]:
        known, doubt = state
        query = self.query(network.step, images, known, numbers)
        if not isinstance(doubt, Doubt):
            share = _misclassified(network, query, images.y, numbers)
            return Search(self.after(network.step, images, known, query, share, numbers), ())
        query = balls.choose(doubt.heard > 0, doubt.query, query)
        share = _misclassified(network, query, images.y, numbers)
        later, settled, sure = doubt.after(query, share, tf.cast(numbers["eot"], tf.float32))
        # The image itself, with which it begins, is always doubted.
        once = (doubt.heard == 0) & ~self.is_doubted(known)
        answer = tf.where(once, share, tf.cast(sure, tf.float32))
        after, answered = self.after(network.step, images, known, query, answer, numbers), once | settled
        asked = known.nearest.age + 1  # Also where there is no answer yet.
        kept: Any = tf.nest.map_structure(lambda new, old: balls.choose(answered, new, old), after, known)
        kept = kept._replace(nearest=kept.nearest._replace(age=asked))
        return Search(kept, later._replace(heard=tf.where(answered, 0.0, later.heard)))

    def asked(self, state: Search[K]) -> tf.Tensor:
        return state.known.nearest.fell

    def found(self, state: Search[K], numbers: Numbers) -> tuple[tf.Tensor, tf.Tensor]:
        return state.known.nearest.best, state.known.nearest.distance


def _misclassified(network: Network, x: tf.Tensor, y: tf.Tensor, numbers: Numbers) -> tf.Tensor:
    """Returns the share of passes that say another class of images, float32 (N,): 1 or 0 of a single one."""

    def right(logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        return tf.where(network.margin(logits, labels) < -numbers["slack"], 0.0, 1.0)

    # A pass without a prediction, of logits that hold NaN, scores far below 0.
    return tf.clip_by_value(1.0 - replace(network, margin=right).score(x, y), 0.0, 1.0)


def _begun(x: tf.Tensor, share: tf.Tensor, numbers: Numbers) -> Nearest:
    """Returns what the first query, the image itself, says: one that is wrong already is its own nearest example."""
    zeros = tf.zeros(tf.shape(share), tf.int32)
    distance = tf.where(share > 0.5, 0.0, inf)
    return Nearest(x, distance, zeros, tf.where(distance <= numbers["epsilon"], 1, zeros))


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
