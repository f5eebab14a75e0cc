"""FGSM, R-FGSM, FGSM-RS, BIM and PGD: one step with hooks for the start, the gradient, the direction, the length."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import tensorflow as tf

from kerasrobust.attacks.algorithm import Algorithm, Images, Numbers
from kerasrobust.attacks.best import best_of
from kerasrobust.attacks.driver import Attack
from kerasrobust.attacks.network import Network
from kerasrobust.errors import InputError
from kerasrobust.ops import balls, draws
from kerasrobust.settings import read_epsilon


class Walk(NamedTuple):
    """Where each example is.

    Attributes:
        x_adv: (N, H, W, C), the iterate.
        score: (N,), the score of the one before, whose gradient was taken.
        velocity: the accumulated gradient of MI-FGSM; empty otherwise.
        age: int32 (N,), the steps taken, where draws follow them; empty otherwise.
    """

    x_adv: tf.Tensor
    score: tf.Tensor
    velocity: tf.Tensor | tuple[()] = ()
    age: tf.Tensor | tuple[()] = ()


@dataclass(frozen=True, kw_only=True)
class GradientAttack(Attack[Walk]):
    """Steps along the loss's gradient, each followed by a projection.

        x_{t+1} = Proj_{B(x0, epsilon)}(x_t + step_size * direction(gradient_t))

    Attributes:
        epsilon: radius of the ball, in units of an image in [0, 1].
    """

    takes_targets: ClassVar[bool] = True

    epsilon: float = 8 / 255

    def __post_init__(self) -> None:
        super().__post_init__()
        read_epsilon(self)
        if self.step_count() < 1:
            raise InputError(f"Expected at least 1 step. Received: steps={self.step_count()}.")

    # The hooks.

    def start(self, images: Images, numbers: Numbers) -> tf.Tensor:
        """Returns where the first gradient is taken: at the image itself, unless an attack says otherwise."""
        return images.x

    def length(self) -> float:
        """Returns the length of a step."""
        return self.epsilon

    def slope(self, network: Network, images: Images, state: Walk, numbers: Numbers) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns the gradient that the step is made of, and the score of the image that it starts from."""
        slope, _, score = network.gradient(state.x_adv, images.y, targeted=self.targeted)
        return slope, score

    def direction(self, slope: tf.Tensor, state: Walk, numbers: Numbers) -> tuple[tf.Tensor, tf.Tensor | tuple[()]]:
        """Returns the gradient that the step follows, and what the next step accumulates."""
        return slope, ()

    # The algorithm.

    def numbers(self) -> dict[str, float | int]:
        # As floats: the integer 1 would become an integer tensor.
        return {"epsilon": float(self.epsilon), "step_size": float(self.length())}

    def step_count(self) -> int:
        return 1

    def radius(self) -> float | None:
        return self.epsilon

    def constants(self, images: Images, numbers: Numbers) -> Numbers:
        if self.norm != "linf":
            return {}
        low, high = balls.bounds(images.x, numbers["epsilon"])
        return {"low": low, "high": high}

    def begin(self, network: Network, images: Images, numbers: Numbers) -> Walk:
        # Any score does for the last iterate, until there is one to choose between restarts by.
        return Walk(self.start(images, numbers), tf.zeros(tf.shape(images.y)[:1]))

    def step(self, network: Network, images: Images, state: Walk, numbers: Numbers) -> Walk:
        slope, score = self.slope(network, images, state, numbers)
        slope, velocity = self.direction(slope, state, numbers)
        moved = state.x_adv + numbers["step_size"] * balls.steepest(slope, self.norm)
        if self.norm == "linf":
            moved = tf.raw_ops.ClipByValue(t=moved, clip_value_min=numbers["low"], clip_value_max=numbers["high"])
        else:
            moved = balls.project(moved, images.x, numbers["epsilon"], self.norm)
        return Walk(moved, score, velocity)

    def looks(self, randomized: bool) -> bool:
        # On a randomized network the score of the last iterate only decides between restarts.
        return not randomized or self.run_count() > 1

    def look(self, network: Network, images: Images, state: Walk, numbers: Numbers) -> Walk:
        return state._replace(score=network.score(state.x_adv, images.y, self.targeted))

    def found(self, state: Walk, numbers: Numbers) -> tuple[tf.Tensor, tf.Tensor]:
        return state.x_adv, state.score


@dataclass(frozen=True, kw_only=True)
class FGSM(GradientAttack):
    """Fast gradient sign method: one step of the whole budget.

    Example:
        >>> result = FGSM(epsilon=8 / 255)(model, x, y)

    Reference: Goodfellow et al. 2015, section 4.
    """

    name: ClassVar[str] = "fgsm"


@dataclass(frozen=True, kw_only=True)
class RFGSM(GradientAttack):
    """R-FGSM: half the budget as a random sign step, the other half along the gradient.

    Example:
        >>> result = RFGSM(epsilon=8 / 255)(model, x, y)

    Reference: Tramèr et al. 2018, section 4.2, with alpha = epsilon / 2.
    """

    name: ClassVar[str] = "rfgsm"

    def start(self, images: Images, numbers: Numbers) -> tf.Tensor:
        direction = balls.steepest(draws.normal(images.keys, tf.shape(images.x)), self.norm)
        return balls.project(images.x + numbers["step_size"] * direction, images.x, numbers["epsilon"], self.norm)

    def length(self) -> float:
        return self.epsilon / 2


@dataclass(frozen=True, kw_only=True)
class FGSMRS(GradientAttack):
    """FGSM from a random start: a uniform point of the ball, one step of 1.25 epsilon, projected.

    Example:
        >>> result = FGSMRS(epsilon=8 / 255)(model, x, y)

    Reference: Wong et al. 2020, algorithm 3.
    """

    name: ClassVar[str] = "fgsm-rs"

    def start(self, images: Images, numbers: Numbers) -> tf.Tensor:
        return balls.random_start(images.keys, images.x, numbers["epsilon"], self.norm)

    def length(self) -> float:
        return 1.25 * self.epsilon


@dataclass(frozen=True, kw_only=True)
class Iterative(GradientAttack):
    """What BIM, PGD and MI-FGSM share.

    Attributes:
        steps: how many.
        step_size: length of a step; None for 2.5 epsilon / steps, with which any point of the ball can be reached.
        keep_best: return the iterate with the lowest margin per example instead of the last one. Against a randomized
            network it is always the last one.
    """

    steps: int = 20
    step_size: float | None = None
    keep_best: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.step_size is not None and not self.step_size > 0:
            raise InputError(f"Expected a step size above 0. Received: {self.step_size}. Leave it out for the default.")

    def length(self) -> float:
        return 2.5 * self.epsilon / self.steps if self.step_size is None else self.step_size

    def resolved(self, randomized: bool) -> Algorithm[Any]:
        # The lowest of many noisy margins is mostly that of lucky noise. Measured on 500 CIFAR-10 images, PGD-20 on a
        # randomized ConvNet: 38.7 % were left by the best iterate, 36.1 % by the last; with EOT 5 34.8 % and 33.9 %.
        return best_of(self) if self.keep_best and not randomized else self

    def step_count(self) -> int:
        return self.steps


@dataclass(frozen=True, kw_only=True)
class BIM(Iterative):
    """Basic iterative method: FGSM in small steps, from the image itself.

    Example:
        >>> result = BIM(epsilon=8 / 255, steps=10)(model, x, y)

    Reference: Kurakin et al. 2017, section 2.2.
    """

    name: ClassVar[str] = "bim"


@dataclass(frozen=True, kw_only=True)
class PGD(Iterative):
    """Projected gradient descent: BIM from a random point of the ball, repeated from new ones.

    Attributes:
        random_start: begin at a uniform point of the ball; False makes it BIM.
        restarts: how often the attack is run; the best result per example counts.

    Example:
        >>> result = PGD(epsilon=8 / 255, steps=20, restarts=5)(model, x, y)

    Reference: Madry et al. 2018, section 2.1.
    """

    name: ClassVar[str] = "pgd"

    random_start: bool = True
    restarts: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.restarts < 1:
            raise InputError(f"Expected at least 1 restart. Received: restarts={self.restarts}. Use 1 for one run.")

    def structure(self) -> Hashable:
        return super().structure(), self.random_start

    def run_count(self) -> int:
        return self.restarts

    def start(self, images: Images, numbers: Numbers) -> tf.Tensor:
        if not self.random_start:
            return images.x
        return balls.random_start(images.keys, images.x, numbers["epsilon"], self.norm)
