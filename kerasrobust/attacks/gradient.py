"""FGSM, R-FGSM, FGSM-RS, BIM, PGD and MI-FGSM: one loop with hooks for the start, the direction and the step."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, replace
from typing import ClassVar, Self

import tensorflow as tf

from kerasrobust.attacks.base import Attack, Parameters, State
from kerasrobust.attacks.network import Network, gradient, mean_score
from kerasrobust.config import check_epsilon
from kerasrobust.errors import InputError
from kerasrobust.ops import balls, draws


@dataclass(frozen=True, kw_only=True)
class GradientAttack(Attack):
    """Steps along the loss's gradient, each followed by a projection.

        x_{t+1} = Proj_{B(x0, epsilon)}(x_t + step_size * direction(gradient_t))

    Attributes:
        epsilon: radius of the ball, in units of an image in [0, 1].
    """

    momentum: ClassVar[bool] = False

    epsilon: float = 8 / 255

    def __post_init__(self) -> None:
        super().__post_init__()
        check_epsilon(self.epsilon, self.norm)
        if self.step_count() < 1:
            raise InputError(f"Expected at least 1 step. Received: steps={self.step_count()}.")

    # The hooks.

    def start(self, x: tf.Tensor, keys: tf.Tensor, numbers: Parameters) -> tf.Tensor:
        """Returns where the first gradient is taken: at the image itself, unless an attack says otherwise."""
        return x

    def length(self) -> float:
        """Returns the length of a step."""
        return self.epsilon

    def keeps_best(self) -> bool:
        """Tells whether the best iterate is returned instead of the last one."""
        return False

    # The loop.

    def structure(self) -> Hashable:
        return type(self), self.norm, self.targeted, self.eot == 1, self.keeps_best()

    def parameters(self) -> dict[str, float | int]:
        # As floats: the integer 1 would become an integer tensor.
        numbers: dict[str, float | int] = {"epsilon": float(self.epsilon), "step_size": float(self.length())}
        return numbers | {"eot": self.eot} | ({"decay": float(self.decay())} if self.momentum else {})

    def decay(self) -> float:
        """Returns the decay of the accumulated gradient, where the attack has one."""
        return 1.0

    def step_count(self) -> int:
        return 1

    def radius(self) -> float | None:
        return self.epsilon

    def begin(self, network: Network, x: tf.Tensor, y: tf.Tensor, keys: tf.Tensor, numbers: Parameters) -> State:
        start = self.start(x, keys, numbers)
        # The noise of the network is drawn per batch and step, that of the attack per example.
        key = keys if keys.shape.rank == 1 else keys[0]
        # Where the last iterate counts, any score does until there is one to choose by.
        score = tf.fill([tf.shape(x)[0]], float("inf") if self.keeps_best() else 0.0)
        state = {"x": x, "y": y, "x_adv": start, "score": score}
        state |= {"step": tf.constant(0), "key": draws.fold(key, 7)}
        if self.keeps_best():
            state |= {"best": start}
        if self.momentum:
            state |= {"velocity": tf.zeros_like(x)}
        return state

    def done(self, state: State, numbers: Parameters) -> tf.Tensor:
        if not self.keeps_best():
            return super().done(state, numbers)
        return numbers["early_stop"] & (state["score"] < -numbers["slack"])

    def advance(self, network: Network, state: State, count: tf.Tensor, numbers: Parameters) -> State:
        if self.norm == "linf":  # The ends of ball and box once, instead of at every step.
            low, high = balls.bounds(state["x"], numbers["epsilon"])
            numbers = numbers | {"low": low, "high": high}
        return super().advance(network, state, count, numbers)

    def step(self, network: Network, state: State, numbers: Parameters) -> State:
        x, y, x_adv = state["x"], state["y"], state["x_adv"]
        key = draws.fold(state["key"], state["step"])
        slope, _, found = gradient(network, x_adv, y, key=key, passes=self.passes(numbers), targeted=self.targeted)
        state = dict(state)
        if self.keeps_best():
            state |= self._best(state, x_adv, found, numbers)
        if self.momentum:
            # The mean absolute value, so that the decay weighs gradients of all scales alike (Dong 2018, eq. 6).
            size = tf.reduce_mean(tf.abs(slope), axis=[1, 2, 3], keepdims=True)
            slope = numbers["decay"] * state["velocity"] + tf.math.divide_no_nan(slope, size)
            state["velocity"] = slope
        moved = x_adv + numbers["step_size"] * balls.steepest(slope, self.norm)
        if self.norm == "linf":
            moved = tf.raw_ops.ClipByValue(t=moved, clip_value_min=numbers["low"], clip_value_max=numbers["high"])
        else:
            moved = balls.project(moved, x, numbers["epsilon"], self.norm)
        return state | {"x_adv": moved, "step": state["step"] + 1}

    def _best(self, state: State, x_adv: tf.Tensor, found: tf.Tensor, numbers: Parameters) -> State:
        """Returns the better one, per example, of the best iterate so far and this one."""
        better = (found < state["score"]) & ~self.done(state, numbers)
        return {
            "best": balls.choose(better, x_adv, state["best"]),
            "score": tf.where(better, found, state["score"]),
        }

    def has_last_look(self, randomized: bool) -> bool:
        # On a randomized network the last iterate counts, and its score only decides between restarts.
        return self.keeps_best() or not randomized or self.run_count() > 1

    def finish(self, network: Network, state: State, numbers: Parameters) -> State:
        x_adv = state["x_adv"]
        key = draws.fold(state["key"], state["step"])
        found = mean_score(network, x_adv, state["y"], key, self.passes(numbers), self.targeted)
        if not self.keeps_best():
            return state | {"score": found}
        return state | self._best(state, x_adv, found, numbers)

    def found(self, state: State, numbers: Parameters) -> tuple[tf.Tensor, tf.Tensor]:
        return state["best" if self.keeps_best() else "x_adv"], state["score"]


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

    Reference: Tramer et al. 2018, section 4.2, with alpha = epsilon / 2.
    """

    name: ClassVar[str] = "rfgsm"

    def start(self, x: tf.Tensor, keys: tf.Tensor, numbers: Parameters) -> tf.Tensor:
        direction = balls.steepest(draws.normal(keys, tf.shape(x)), self.norm)
        return balls.project(x + numbers["step_size"] * direction, x, numbers["epsilon"], self.norm)

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

    def start(self, x: tf.Tensor, keys: tf.Tensor, numbers: Parameters) -> tf.Tensor:
        return balls.random_start(keys, x, numbers["epsilon"], self.norm)

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

    def keeps_best(self) -> bool:
        return self.keep_best

    def against(self, randomized: bool) -> Self:
        # The lowest of many noisy margins is mostly that of lucky noise. Measured on 500 CIFAR-10 images, PGD-20 on a
        # randomized ConvNet: 38.7 % were left by the best iterate, 36.1 % by the last; with EOT 5 34.8 % and 33.9 %.
        return replace(self, keep_best=False) if randomized else self

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

    def start(self, x: tf.Tensor, keys: tf.Tensor, numbers: Parameters) -> tf.Tensor:
        return balls.random_start(keys, x, numbers["epsilon"], self.norm) if self.random_start else x


@dataclass(frozen=True, kw_only=True)
class MIFGSM(Iterative):
    """Momentum iterative FGSM: steps along an accumulated, scale-free gradient.

    Attributes:
        momentum_decay: how much of the accumulated gradient is kept from step to step.

    Example:
        >>> result = MIFGSM(epsilon=8 / 255, steps=10)(model, x, y)

    Reference: Dong et al. 2018, algorithm 1.
    """

    name: ClassVar[str] = "mifgsm"
    momentum: ClassVar[bool] = True

    momentum_decay: float = 1.0

    def decay(self) -> float:
        return self.momentum_decay
