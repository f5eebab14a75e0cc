"""Auto-PGD: projected gradient ascent with momentum that chooses its own step sizes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import tensorflow as tf

from kerasrobust.attacks.algorithm import Algorithm, Images, Numbers
from kerasrobust.attacks.best import best_of
from kerasrobust.attacks.driver import Attack
from kerasrobust.attacks.network import Loss, Network, nth_rival
from kerasrobust.errors import InputError
from kerasrobust.ops import balls, draws, losses
from kerasrobust.settings import read_epsilon

MOMENTUM = 0.75
RISES = 0.75
"""Share of the steps of a period in which the loss has to grow, or the step is halved."""


def schedule(steps: int, norm: balls.Norm) -> tuple[int, int, int]:
    """Returns the first period between checkpoints, by how much periods shrink, and the shortest one.

    Example:
        >>> schedule(100, "linf")
        (22, 3, 6)
    """
    if norm == "l1":
        period = max(int(0.04 * steps), 1)
        return period, 0, period
    return max(int(0.22 * steps), 1), max(int(0.03 * steps), 1), max(int(0.06 * steps), 1)


class Ascent(NamedTuple):
    """Where the search of each example is.

    Attributes:
        target: (N,), the class to reach, or the label.
        x_adv: (N, H, W, C), the iterate x_t.
        previous: the one before it.
        score: (N,), the score of the iterate whose gradient was taken last.
        best: the iterate of the largest loss so far, from which the search continues once a step has been halved.
        best_loss: (N,), its loss.
        best_slope: its gradient.
        size: (N,), length of a step.
        loss: (N,), of the iterate before.
        rises: int32 (N,), steps since the last checkpoint in which the loss has grown.
        checked: (N,), the largest loss at the last checkpoint.
        halved: bool (N,), whether the step was halved there.
        share: (N,), in L1 the share of entries that a step moves.
        entries: (N,), in L1 how many entries of the best point differ from the image, at the last checkpoint.
        period: int32 (N,), steps from one checkpoint to the next.
        checkpoint: int32 (N,), the step of the next one.
        age: int32 (N,), steps taken.
    """

    target: tf.Tensor
    x_adv: tf.Tensor
    previous: tf.Tensor
    score: tf.Tensor
    best: tf.Tensor
    best_loss: tf.Tensor
    best_slope: tf.Tensor
    size: tf.Tensor
    loss: tf.Tensor
    rises: tf.Tensor
    checked: tf.Tensor
    halved: tf.Tensor
    share: tf.Tensor
    entries: tf.Tensor
    period: tf.Tensor
    checkpoint: tf.Tensor
    age: tf.Tensor


@dataclass(frozen=True, kw_only=True)
class APGD(Attack[Ascent]):
    """What the attacks of this family share; they differ in their loss.

        z_{t+1} = Proj(x_t + size_t * direction(gradient_t))
        x_{t+1} = Proj(x_t + 0.75 (z_{t+1} - x_t) + 0.25 (x_t - x_{t-1}))

    The step begins at twice the radius. At a checkpoint it is halved, and the search continues from the best point so
    far, if the loss grew in at most 75 % of the steps since the last checkpoint, or if neither step size nor best loss
    has changed since then. For L1 the steps are sparse, and it is their sparsity that adapts (Croce and Hein 2021).

    Attributes:
        norm: "linf", "l2" or "l1".
        epsilon: radius of the ball, in units of an image in [0, 1].
        steps: how many.
        restarts: how often the attack is run from a new random point; the best result per example counts.

    Reference: Croce and Hein 2020a, algorithm 1; 2021, algorithm 1 for L1.
    """

    norms: ClassVar[tuple[balls.Norm, ...]] = ("linf", "l2", "l1")

    epsilon: float = 8 / 255
    steps: int = 100
    restarts: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        read_epsilon(self)
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
        return best_of(self)

    def begin(self, network: Network, images: Images, numbers: Numbers) -> Ascent:
        x, count = images.x, tf.shape(images.x)[:1]
        start = _start(images.keys, x, numbers["epsilon"], self.norm)
        return Ascent(
            target=self.target(network, images, numbers),
            x_adv=start,
            previous=start,
            score=tf.fill(count, float("inf")),
            best=start,
            best_loss=tf.fill(count, float("-inf")),
            best_slope=tf.zeros_like(x),
            size=tf.fill(count, (1.0 if self.norm == "l1" else 2.0) * numbers["epsilon"]),
            loss=tf.fill(count, float("inf")),
            rises=tf.zeros(count, tf.int32),
            checked=tf.fill(count, float("-inf")),
            halved=tf.fill(count, True),
            share=tf.fill(count, 0.2),
            entries=tf.fill(count, tf.cast(tf.reduce_prod(tf.shape(x)[1:]), tf.float32)),
            period=tf.fill(count, numbers["first"]),
            checkpoint=tf.fill(count, numbers["first"]),
            age=tf.zeros(count, tf.int32),
        )

    def step(self, network: Network, images: Images, state: Ascent, numbers: Numbers) -> Ascent:
        slope, loss, score = network.gradient(state.x_adv, images.y, loss=self.loss(state.target))
        better = loss > state.best_loss
        state = state._replace(
            score=score,
            best=balls.choose(better, state.x_adv, state.best),
            best_slope=balls.choose(better, slope, state.best_slope),
            best_loss=tf.where(better, loss, state.best_loss),
            rises=state.rises + tf.cast(loss > state.loss, tf.int32),
            loss=loss,
        )
        back, state = _check_l1(images.x, state, numbers) if self.norm == "l1" else _check(state, numbers)
        x, old = images.x, balls.choose(back, state.best, state.x_adv)
        slope = balls.choose(back, state.best_slope, slope)
        epsilon, size = numbers["epsilon"], balls.column(state.size)
        if self.norm == "l1":
            moved = balls.project(old + size * _sparse(slope, state.share), x, epsilon, "l1")
        else:
            moved = balls.project(old + size * balls.steepest(slope, self.norm), x, epsilon, self.norm)
            # The first step has nothing to carry on.
            weight = balls.column(tf.where(state.age > 0, MOMENTUM, 1.0))
            moved = old + weight * (moved - old) + (1 - weight) * (old - state.previous)
            moved = balls.project(moved, x, epsilon, self.norm)
        # What the next step carries on is the way from here, also where "here" was the best point.
        return state._replace(x_adv=moved, previous=old, age=state.age + 1)

    def look(self, network: Network, images: Images, state: Ascent, numbers: Numbers) -> Ascent:
        return state._replace(score=network.score(state.x_adv, images.y))

    def found(self, state: Ascent, numbers: Numbers) -> tuple[tf.Tensor, tf.Tensor]:
        return state.x_adv, state.score


def _check(state: Ascent, numbers: Numbers) -> tuple[tf.Tensor, Ascent]:
    """Returns which examples go back to their best point, and the state after the check: all at checkpoints only."""
    now = state.age == state.checkpoint
    slow = tf.cast(state.rises, tf.float32) <= RISES * tf.cast(state.period, tf.float32)
    stuck = ~state.halved & (state.checked >= state.best_loss)
    halve = now & (slow | stuck)
    period = tf.maximum(state.period - numbers["shrink"], numbers["least"])
    return halve, state._replace(
        size=tf.where(halve, state.size / 2, state.size),
        halved=tf.where(now, halve, state.halved),
        checked=tf.where(now, state.best_loss, state.checked),
        rises=tf.where(now, 0, state.rises),
        period=tf.where(now, period, state.period),
        checkpoint=state.checkpoint + tf.where(now, period, 0),
    )


def _check_l1(x: tf.Tensor, state: Ascent, numbers: Numbers) -> tuple[tf.Tensor, Ascent]:
    """The same for L1: the share of entries that a step moves follows the sparsity of the best point."""
    now = state.age == state.checkpoint
    entries = tf.reduce_sum(tf.cast(tf.abs(state.best - x) > 0, tf.float32), axis=[1, 2, 3])
    fewer = entries / state.entries < 0.95
    full = numbers["epsilon"]
    size = tf.clip_by_value(tf.where(fewer, full, state.size / 1.5), full / 10, full)
    total = tf.cast(tf.reduce_prod(tf.shape(x)[1:]), tf.float32)
    return now & fewer, state._replace(
        size=tf.where(now, size, state.size),
        share=tf.where(now, entries / total / 1.5, state.share),
        entries=tf.where(now, entries, state.entries),
        checkpoint=state.checkpoint + tf.where(now, state.period, 0),
    )


def _sparse(slope: tf.Tensor, share: tf.Tensor) -> tf.Tensor:
    """Returns a direction of L1 norm 1: the signs of that share of entries whose gradients are the largest."""
    flat = tf.abs(tf.reshape(slope, [tf.shape(slope)[0], -1]))
    size = tf.shape(flat)[1]
    place = tf.clip_by_value(tf.cast((1 - share) * tf.cast(size, tf.float32), tf.int32), 0, size - 1)
    threshold = tf.gather(tf.sort(flat, axis=1), place, batch_dims=1)
    signs = tf.where(tf.abs(slope) >= balls.column(threshold), tf.sign(slope), 0.0)
    return signs / (balls.column(balls.distance(signs, "l1")) + 1e-10)


def _start(keys: tf.Tensor, x: tf.Tensor, epsilon: tf.Tensor, norm: balls.Norm) -> tf.Tensor:
    """Returns a random point on the surface of the ball, clipped to the box."""
    if norm == "l1":
        return balls.project(x + draws.normal(keys, tf.shape(x)), x, epsilon, norm)
    shape = tf.shape(x)
    noise = draws.uniform(keys, shape, -1.0, 1.0) if norm == "linf" else draws.normal(keys, shape)
    return tf.clip_by_value(x + epsilon * noise / balls.column(balls.distance(noise, norm)), 0.0, 1.0)


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
