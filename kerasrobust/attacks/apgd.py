"""Auto-PGD: projected gradient ascent with momentum that chooses its own step sizes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import tensorflow as tf

from kerasrobust.attacks.algorithm import Algorithm, Images, Numbers
from kerasrobust.attacks.ascent import Ascent, ascended, ascent_from, schedule, start
from kerasrobust.attacks.best import best_of
from kerasrobust.attacks.driver import Attack
from kerasrobust.attacks.network import Loss, Network, nth_rival
from kerasrobust.attacks.shrinking import Shrinking
from kerasrobust.errors import InputError
from kerasrobust.ops import balls, losses
from kerasrobust.settings import read_epsilon


@dataclass(frozen=True, kw_only=True)
class APGD(Attack[Ascent]):
    """What the attacks of this family share; they differ in their loss.

        z_{t+1} = Proj(x_t + size_t * direction(gradient_t))
        x_{t+1} = Proj(x_t + 0.75 (z_{t+1} - x_t) + 0.25 (x_t - x_{t-1}))

    The step begins at twice the radius. At a checkpoint it is halved, and the search continues from the best point so
    far, if the loss grew in at most 75 % of the steps since the last checkpoint, or if neither step size nor best loss
    has changed since then. For L1 the steps are sparse, and it is their sparsity that adapts (Croce and Hein 2021).
    There the search is easier in a larger ball: with `multi_radius` it begins in three times the radius.

    Attributes:
        norm: "linf", "l2" or "l1".
        epsilon: radius of the ball, in units of an image in [0, 1].
        steps: how many.
        restarts: how often the attack is run from a new random point; the best result per example counts.
        multi_radius: in L1, spend 30 % of the steps in three times the radius and 30 % in twice, and go on from there.

    Reference: Croce and Hein 2020a, algorithm 1; 2021, algorithm 1 and section 4.3 for L1.
    """

    norms: ClassVar[tuple[balls.Norm, ...]] = ("linf", "l2", "l1")

    epsilon: float = 8 / 255
    steps: int = 100
    restarts: int = 1
    multi_radius: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        read_epsilon(self)
        if self.multi_radius and self.norm != "l1":
            raise InputError(f"Expected multi_radius with norm l1 only. Received: it with {self.norm!r}. Leave it out.")
        if self.steps < 1 or self.restarts < 1:
            raise InputError(
                f"Expected at least 1 step and 1 restart. Received: {self.steps} and {self.restarts}. Try 100 and 1."
            )

    def loss(self, target: tf.Tensor) -> Loss:
        """Returns what is to grow. `target` is the class to reach (N,), for losses that have one."""
        return losses.cross_entropy

    def target(self, network: Network, images: Images, numbers: Numbers) -> tf.Tensor:
        """Returns the class that this run is to reach, (N,); the label where the loss has no target."""
        return images.y

    def numbers(self) -> dict[str, float | int]:
        first, shrink, least = schedule(self.steps, self.norm)
        periods = {"first": first, "shrink": shrink, "least": least}
        return {"epsilon": float(self.epsilon), "restarts": self.restarts, **periods}

    def step_count(self) -> int:
        return self.steps

    def run_count(self) -> int:
        return self.restarts

    def radius(self) -> float | None:
        return self.epsilon

    def resolved(self, randomized: bool) -> Algorithm[Any]:
        return best_of(Shrinking(algorithm=self, eot=self.eot) if self.multi_radius else self)

    def begin(self, network: Network, images: Images, numbers: Numbers) -> Ascent:
        begun = start(images.keys, images.x, numbers["epsilon"], self.norm)
        return ascent_from(
            begun, self.target(network, images, numbers), numbers["epsilon"], self.norm, numbers["first"]
        )

    def step(self, network: Network, images: Images, state: Ascent, numbers: Numbers) -> Ascent:
        slope, loss, score = network.gradient(state.x_adv, images.y, loss=self.loss(state.target))
        return ascended(state, images.x, (slope, loss, score), self.norm, numbers)

    def look(self, network: Network, images: Images, state: Ascent, numbers: Numbers) -> Ascent:
        return state._replace(score=network.score(state.x_adv, images.y))

    def found(self, state: Ascent, numbers: Numbers) -> tuple[tf.Tensor, tf.Tensor]:
        return state.x_adv, state.score


@dataclass(frozen=True, kw_only=True)
class APGDCE(APGD):
    """APGD on the cross-entropy.

    Example:
        >>> result = APGDCE(epsilon=8 / 255)(model, x, y)

    Reference: Croce and Hein 2020a, section 4.
    """

    name: ClassVar[str] = "apgd-ce"


@dataclass(frozen=True, kw_only=True)
class APGDDLR(APGD):
    """APGD on the difference of logits ratio, which scaling the logits doesn't change. Needs three classes.

    Example:
        >>> result = APGDDLR(epsilon=8 / 255)(model, x, y)

    Reference: Croce and Hein 2020a, equation 6.
    """

    name: ClassVar[str] = "apgd-dlr"
    fewest_classes: ClassVar[int] = 3

    def loss(self, target: tf.Tensor) -> Loss:
        return losses.dlr


@dataclass(frozen=True, kw_only=True)
class APGDMargin(APGD):
    """APGD on the margin between the best other class and the right one: for problems of two or three classes.

    Example:
        >>> result = APGDMargin(epsilon=8 / 255)(model, x, y)

    Reference: Carlini and Wagner 2017, loss f_6; the search is that of Croce and Hein 2020a.
    """

    name: ClassVar[str] = "apgd-margin"

    def loss(self, target: tf.Tensor) -> Loss:
        return lambda logits, y: -losses.margin(logits, y)


@dataclass(frozen=True, kw_only=True)
class APGDT(APGD):
    """APGD on the targeted difference of logits ratio, one run per target. Needs four classes.

    Attributes:
        targets: how many wrong classes are tried, those with the highest logits of the unchanged image first.

    Example:
        >>> result = APGDT(epsilon=8 / 255)(model, x, y)

    Reference: Croce and Hein 2020a, equation 7.
    """

    name: ClassVar[str] = "apgd-t"
    fewest_classes: ClassVar[int] = 4

    targets: int = 9

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.targets < 1:
            raise InputError(f"Expected at least 1 target class. Received: targets={self.targets}. Try 9.")

    def loss(self, target: tf.Tensor) -> Loss:
        def loss(logits: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
            copies = tf.shape(logits)[0] // tf.shape(target)[0]
            return losses.targeted_dlr(logits, y, tf.tile(target, [copies]))

        return loss

    def run_count(self) -> int:
        return self.targets * self.restarts

    def target(self, network: Network, images: Images, numbers: Numbers) -> tf.Tensor:
        return nth_rival(network.logits(images.x), images.y, numbers["run"] // numbers["restarts"])
