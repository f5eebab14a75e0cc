"""Best-so-far as a wrapper: of all images that an algorithm visits, the one with the lowest score is judged."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Protocol

import tensorflow as tf

from kerasrobust.attacks.algorithm import Algorithm, Images, Numbers
from kerasrobust.attacks.network import Network
from kerasrobust.ops import balls


class Visits(Protocol):
    """A state that says where the algorithm is, and the score of where it was before its last step."""

    @property
    def x_adv(self) -> tf.Tensor:
        """The image that the next step looks at, (N, H, W, C)."""

    @property
    def score(self) -> tf.Tensor:
        """The score of the image that the last step, or the last look, has looked at, (N,)."""


class BestState(NamedTuple):
    """The algorithm's own state, and the best image so far with its score."""

    inner: Any
    best: tf.Tensor
    score: tf.Tensor


@dataclass(frozen=True, kw_only=True)
class Best(Algorithm[BestState]):
    """An algorithm whose best iterate counts instead of its last one, and which is done once that has succeeded.

    Attributes:
        algorithm: what walks; its state is a `Visits`.
    """

    name: ClassVar[str] = "best"
    takes_targets: ClassVar[bool] = True
    norms: ClassVar[tuple[balls.Norm, ...]] = ("linf", "l2", "l1", "l0")

    algorithm: Algorithm[Any]

    def structure(self) -> Hashable:
        return type(self), self.algorithm.structure()

    def numbers(self) -> dict[str, float | int]:
        return self.algorithm.numbers()

    def step_count(self) -> int:
        return self.algorithm.step_count()

    def constants(self, images: Images, numbers: Numbers) -> Numbers:
        return self.algorithm.constants(images, numbers)

    def begin(self, network: Network, images: Images, numbers: Numbers) -> BestState:
        inner = self.algorithm.begin(network, images, numbers)
        return BestState(inner, inner.x_adv, tf.fill(tf.shape(images.y)[:1], float("inf")))

    def done(self, state: BestState, numbers: Numbers) -> tf.Tensor:
        return numbers["early_stop"] & (state.score < -numbers["slack"])

    def step(self, network: Network, images: Images, state: BestState, numbers: Numbers) -> BestState:
        return self._after(self.algorithm.step(network, images, state.inner, numbers), state, numbers)

    def look(self, network: Network, images: Images, state: BestState, numbers: Numbers) -> BestState:
        return self._after(self.algorithm.look(network, images, state.inner, numbers), state, numbers)

    def _after(self, inner: Visits, before: BestState, numbers: Numbers) -> BestState:
        """Returns the state once the score of the image that was visited is known."""
        better = (inner.score < before.score) & ~self.done(before, numbers)
        return BestState(
            inner,
            balls.choose(better, before.inner.x_adv, before.best),
            tf.where(better, inner.score, before.score),
        )

    def found(self, state: BestState, numbers: Numbers) -> tuple[tf.Tensor, tf.Tensor]:
        return state.best, state.score


def best_of(algorithm: Algorithm[Any]) -> Best:
    """Returns the algorithm with its best iterate instead of its last one."""
    return Best(algorithm=algorithm, norm=algorithm.norm, eot=algorithm.eot, targeted=algorithm.targeted)
