"""What searches that ask for predictions only have in common: one candidate per query, kept where it is better."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Hashable
from dataclasses import dataclass, replace
from typing import Any, ClassVar, NamedTuple

import tensorflow as tf

from kerasrobust.attacks.algorithm import Algorithm, Images, Numbers
from kerasrobust.attacks.driver import Attack
from kerasrobust.attacks.network import Network
from kerasrobust.ops import balls
from kerasrobust.twins import Kept


class Incumbent(NamedTuple):
    """The best image of each example so far.

    Attributes:
        best: (N, H, W, C).
        score: (N,), its margin.
        age: int32 (N,), queries so far but for the first.
        fell: int32 (N,), how many it had been when it fell first; 0 where it hasn't.
        pixels: int32 (N, P), the numbers of the pixels that it may change; (N, 0) where a search doesn't say.
        kept: what the network keeps of `best` (`Network.changed`), where the search changes windows.
    """

    best: tf.Tensor
    score: tf.Tensor
    age: tf.Tensor
    fell: tf.Tensor
    pixels: tf.Tensor
    kept: Kept = ()


@dataclass(frozen=True, kw_only=True)
class RandomSearch(Attack[Incumbent]):
    """Asks for one candidate per query, and keeps it where its margin is lower than the best so far.

    Attributes:
        paired: compare each candidate with the best so far on the same noise, at twice the cost. Always so on a
            randomized network, where the lowest of many noisy margins would be one that was lucky, and never be beaten.
    """

    gradient_free: ClassVar[bool] = True
    takes_targets: ClassVar[bool] = True
    first: ClassVar[int] = 1
    """Queries that the search begins with."""

    paired: bool = False

    def structure(self) -> Hashable:
        return super().structure(), self.paired

    def resolved(self, randomized: bool) -> Algorithm[Any]:
        return replace(self, paired=True) if randomized else self

    def done(self, state: Incumbent, numbers: Numbers) -> tf.Tensor:
        return numbers["early_stop"] & (state.score < -numbers["slack"])

    def step(self, network: Network, images: Images, state: Incumbent, numbers: Numbers) -> Incumbent:
        candidate, pixels = self.candidate(images, state, numbers)
        score = network.score(candidate, images.y, self.targeted)
        # The same noise for both, as it is the same step.
        incumbent = network.score(state.best, images.y, self.targeted) if self.paired else state.score
        better = self.better(state, score, incumbent, numbers)
        after = self.after(state, balls.choose(better, candidate, state.best), score, incumbent, numbers)
        return after._replace(pixels=tf.where(better[:, None], pixels, state.pixels))

    def after(
        self, state: Incumbent, best: tf.Tensor, score: tf.Tensor, incumbent: tf.Tensor, numbers: Numbers
    ) -> Incumbent:
        """Returns the state after a query.

        Args:
            state: before it.
            best: the best images now.
            score: (N,), of the images that were asked about.
            incumbent: (N,), what it had to beat.
            numbers: the search's.
        """
        return state._replace(
            best=best,
            score=tf.where(self.better(state, score, incumbent, numbers), score, incumbent),
            age=state.age + 1,
            fell=tf.where((state.fell == 0) & (score < -numbers["slack"]), state.age + 1 + self.first, state.fell),
        )

    def better(self, state: Incumbent, score: tf.Tensor, incumbent: tf.Tensor, numbers: Numbers) -> tf.Tensor:
        """Returns which candidates are kept, bool (N,), by their scores and those that are to be beaten."""
        return (score < incumbent) & ~self.done(state, numbers)

    def queries_of_run(self) -> int:
        return self.first + self.step_count()

    def asked(self, state: Incumbent) -> tf.Tensor:
        return state.fell

    def found(self, state: Incumbent, numbers: Numbers) -> tuple[tf.Tensor, tf.Tensor]:
        return state.best, state.score

    @abstractmethod
    def candidate(self, images: Images, state: Incumbent, numbers: Numbers) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns the images of the next query, (N, H, W, C), and their `Incumbent.pixels`."""


def begun(x_adv: tf.Tensor, score: tf.Tensor, numbers: Numbers, pixels: tf.Tensor | None = None) -> Incumbent:
    """Returns the state of a search whose first query is known.

    Args:
        x_adv: float32 (N, H, W, C), what was asked about.
        score: float32 (N,), its score.
        numbers: the search's.
        pixels: int32 (N, P), as in `Incumbent`; none without it.
    """
    zeros = tf.zeros(tf.shape(score), tf.int32)
    pixels = tf.zeros([tf.shape(score)[0], 0], tf.int32) if pixels is None else pixels
    return Incumbent(x_adv, score, zeros, tf.where(score < -numbers["slack"], 1, zeros), pixels)
