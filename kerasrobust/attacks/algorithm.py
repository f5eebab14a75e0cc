"""What an attack is: an algorithm that takes steps on a batch of images and knows nothing of how it is driven.

An algorithm fills in three functions on a typed state, a NamedTuple of tensors with a row for each example:

- `begin` makes the state before the first step;
- `step` moves it one step, asking the network for scores, gradients or linearisations (`attacks.network`);
- `found` gives the images to be judged, and their scores.

`done` and `look` (a last look after the last step) have defaults. Batches, precision, checkpoints, cost and verdicts
are the driver's. `gradient.FGSM` is the shortest example, `deepfool.DeepFool` one with a state of its own.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Any, ClassVar, Generic, NamedTuple, TypeVar

import tensorflow as tf

from kerasrobust.attacks.network import Network
from kerasrobust.errors import InputError
from kerasrobust.ops import balls
from kerasrobust.settings import check_numbers

Numbers = dict[str, tf.Tensor]
"""What `Algorithm.numbers` names, as tensors, and four of the driver's: `early_stop` (whether examples that are done
stop), `slack` (a margin counts as lost only below minus this: the error of a twin's margins), `run` (number of the
restart) and `eot`."""


class Images(NamedTuple):
    """The examples at hand.

    Attributes:
        x: float32 (N, H, W, C) in [0, 1].
        y: integers (N,), labels; targets where the attack is targeted.
        keys: int32 (N, 2), of each example's own random numbers.
    """

    x: tf.Tensor
    y: tf.Tensor
    keys: tf.Tensor


S = TypeVar("S")
"""An algorithm's state: a NamedTuple of tensors with a row for each example."""


@dataclass(frozen=True, kw_only=True)
class Algorithm(ABC, Generic[S]):
    """Settings as fields, one paper's algorithm as methods.

    Attributes:
        norm: "linf" or "l2"; some attacks take "l1" or "l0" too.
        eot: passes over which each gradient of a randomized network is averaged (Athalye et al. 2018), at least 1.
        targeted: whether the attack drives images to given classes (`target` of the call) instead of away from theirs.
    """

    name: ClassVar[str]
    minimum_norm: ClassVar[bool] = False
    """Whether the attack looks for the nearest adversarial example instead of the worst one inside a ball."""
    scores_distance: ClassVar[bool] = False
    """Whether its scores are distances, infinite where it found nothing, so that the nearest of several runs counts."""
    gradient_free: ClassVar[bool] = False
    """Whether the attack asks for predictions only."""
    takes_targets: ClassVar[bool] = False
    """Whether the attack can be targeted."""
    in_ball: ClassVar[bool] = True
    """Whether what the attack may do is told by a distance in its norm: a ball, or as near as can be. Where it isn't,
    `threat` says what it may do, the attack has no epsilon, and `norm` is only what distances are measured in."""
    largest_batch: ClassVar[int | None] = None
    """Images that the attack takes at once at most, whatever the caller's batch size."""
    fewest_classes: ClassVar[int] = 2
    norms: ClassVar[tuple[balls.Norm, ...]] = ("linf", "l2")

    norm: balls.Norm = "linf"
    eot: int = 1
    targeted: bool = field(default=False, kw_only=True)

    def __post_init__(self) -> None:
        check_numbers(self)
        if self.norm not in self.norms:
            raise InputError(
                f"Expected a norm of {self.name}: {', '.join(self.norms)}. Received: {self.norm!r}. Choose another."
            )
        if self.eot < 1:
            raise InputError(f"Expected at least 1 EOT pass. Received: eot={self.eot}. Use 1 for no averaging.")
        if self.targeted and not self.takes_targets:
            raise InputError(
                f"Expected an attack that takes targets. Received: {self.name}. Use pgd, or leave the target out."
            )

    # What a paper's algorithm is.

    @abstractmethod
    def begin(self, network: Network, images: Images, numbers: Numbers) -> S:
        """Returns the state before the first step."""

    @abstractmethod
    def step(self, network: Network, images: Images, state: S, numbers: Numbers) -> S:
        """Returns the state one step later; `network.step` is the step's number."""

    @abstractmethod
    def found(self, state: S, numbers: Numbers) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns the images to be judged, (N, H, W, C), and their scores, (N,): below 0 where the attack succeeded.

        Of several runs the lowest score counts.
        """

    def queries_of_run(self) -> int:
        """Returns how many queries of each example one run makes at most; 0 for attacks that don't count them."""
        return 0

    def asked(self, state: S) -> tf.Tensor:
        """Returns after how many queries each example fell first, int32 (N,); 0 where it hasn't, or isn't counted."""
        return tf.zeros(tf.shape(tf.nest.flatten(state)[0])[:1], tf.int32)

    def done(self, state: S, numbers: Numbers) -> tf.Tensor:
        """Returns which examples no further step changes, bool (N,)."""
        return tf.zeros(tf.shape(tf.nest.flatten(state)[0])[:1], tf.bool)

    def look(self, network: Network, images: Images, state: S, numbers: Numbers) -> S:
        """Returns the state after a last look at where the steps have ended."""
        return state

    def lean(self, state: S) -> S:
        """Returns the state without what `complete` makes anew: what is saved of it."""
        return state

    def complete(self, network: Network, images: Images, state: S) -> S:
        """Returns a state of which only the `lean` part was saved, whole again."""
        return state

    def constants(self, images: Images, numbers: Numbers) -> Numbers:
        """Returns further numbers that stay as they are during many steps, so that no step computes them again."""
        return {}

    # What its settings are.

    def numbers(self) -> dict[str, float | int]:
        """Returns the settings that enter the graph as tensors: attacks that differ in them alone share a graph."""
        return {}

    def structure(self) -> Hashable:
        """Returns the settings that shape the graph: all that aren't among `numbers`."""
        return type(self), self.norm, self.targeted, self.eot == 1

    @abstractmethod
    def step_count(self) -> int:
        """Returns how many steps one run takes at most."""

    def run_count(self) -> int:
        """Returns how often the attack is run, each time on the examples that are left: restarts, or target classes."""
        return 1

    def radius(self) -> float | None:
        """Returns the largest distance that is allowed, or None for a minimum-norm attack and one outside balls."""
        return None

    def threat(self) -> str:
        """Returns what stands for the norm in all that is written of the attack; where it isn't `in_ball`, what it may
        do, in a few words that go with "at", such as "8x8 pixels".
        """
        return self.norm

    def search_radius(self) -> float | None:
        """Returns the radius inside which any adversarial example will do, or None where the nearest is looked for."""
        return self.radius()

    def looks(self, randomized: bool) -> bool:
        """Returns whether a last look can change what is judged; it isn't made where it can't."""
        return True

    def resolved(self, randomized: bool) -> Algorithm[Any]:
        """Returns the algorithm that runs against a network: some attacks differ on randomized ones."""
        return self

    def settings(self) -> dict[str, Any]:
        """Returns the attack's settings as JSON has them."""
        return dict(vars(self))
