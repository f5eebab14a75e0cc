"""The search of APGD: where it is on each example, and what happens at its checkpoints."""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

from kerasrobust.attacks.algorithm import Numbers
from kerasrobust.ops import balls, draws

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


def ascent_from(start: tf.Tensor, target: tf.Tensor, epsilon: tf.Tensor, norm: balls.Norm, period: tf.Tensor) -> Ascent:
    """Returns the state of a search that begins at `start`, (N, H, W, C).

    Args:
        start: the first iterate.
        target: (N,), the class to reach, or the label.
        epsilon: radius of the ball, for all examples or for each, (N,).
        norm: of the ball.
        period: an int32 scalar, steps up to the first checkpoint.
    """
    count = tf.shape(start)[:1]
    return Ascent(
        target=target,
        x_adv=start,
        previous=start,
        score=tf.fill(count, float("inf")),
        best=start,
        best_loss=tf.fill(count, float("-inf")),
        best_slope=tf.zeros_like(start),
        size=tf.broadcast_to((1.0 if norm == "l1" else 2.0) * epsilon, count),
        loss=tf.fill(count, float("inf")),
        rises=tf.zeros(count, tf.int32),
        checked=tf.fill(count, float("-inf")),
        halved=tf.fill(count, True),
        share=tf.fill(count, 0.2),
        entries=tf.fill(count, tf.cast(tf.reduce_prod(tf.shape(start)[1:]), tf.float32)),
        period=tf.fill(count, period),
        checkpoint=tf.fill(count, period),
        age=tf.zeros(count, tf.int32),
    )


def ascended(
    state: Ascent, x: tf.Tensor, seen: tuple[tf.Tensor, tf.Tensor, tf.Tensor], norm: balls.Norm, numbers: Numbers
) -> Ascent:
    """Returns the state a step later.

    Args:
        state: before it.
        x: the unchanged images.
        seen: the gradient at `state.x_adv`, the loss that grows along it, and the score.
        norm: of the ball.
        numbers: `epsilon`, for all examples or for each, as `balls.project` takes it; but in L1 `shrink` and `least`,
            how periods between checkpoints change.
    """
    slope, loss, score = seen
    better = loss > state.best_loss
    state = state._replace(
        score=score,
        best=balls.choose(better, state.x_adv, state.best),
        best_slope=balls.choose(better, slope, state.best_slope),
        best_loss=tf.where(better, loss, state.best_loss),
        rises=state.rises + tf.cast(loss > state.loss, tf.int32),
        loss=loss,
    )
    back, state = check_l1(x, state, numbers) if norm == "l1" else check(state, numbers)
    old = balls.choose(back, state.best, state.x_adv)
    slope = balls.choose(back, state.best_slope, slope)
    epsilon, size = numbers["epsilon"], balls.column(state.size)
    if norm == "l1":
        moved = balls.project(old + size * sparse(slope, state.share), x, epsilon, "l1")
    else:
        moved = balls.project(old + size * balls.steepest(slope, norm), x, epsilon, norm)
        # The first step has nothing to carry on.
        weight = balls.column(tf.where(state.age > 0, MOMENTUM, 1.0))
        moved = old + weight * (moved - old) + (1 - weight) * (old - state.previous)
        moved = balls.project(moved, x, epsilon, norm)
    # What the next step carries on is the way from here, also where "here" was the best point.
    return state._replace(x_adv=moved, previous=old, age=state.age + 1)


def check(state: Ascent, numbers: Numbers) -> tuple[tf.Tensor, Ascent]:
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


def check_l1(x: tf.Tensor, state: Ascent, numbers: Numbers) -> tuple[tf.Tensor, Ascent]:
    """The same for L1: the share of entries that a step moves follows the sparsity of the best point."""
    now = state.age == state.checkpoint
    entries = balls.distance(state.best - x, "l0")
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


def sparse(slope: tf.Tensor, share: tf.Tensor) -> tf.Tensor:
    """Returns a direction of L1 norm 1: the signs of that share of entries whose gradients are the largest."""
    flat = tf.abs(tf.reshape(slope, [tf.shape(slope)[0], -1]))
    size = tf.shape(flat)[1]
    place = tf.clip_by_value(tf.cast((1 - share) * tf.cast(size, tf.float32), tf.int32), 0, size - 1)
    threshold = tf.gather(tf.sort(flat, axis=1), place, batch_dims=1)
    signs = tf.where(tf.abs(slope) >= balls.column(threshold), tf.sign(slope), 0.0)
    return signs / (balls.column(balls.distance(signs, "l1")) + 1e-10)


def start(keys: tf.Tensor, x: tf.Tensor, epsilon: tf.Tensor, norm: balls.Norm) -> tf.Tensor:
    """Returns a random point on the surface of the ball, clipped to the box."""
    if norm == "l1":
        return balls.project(x + draws.normal(keys, tf.shape(x)), x, epsilon, norm)
    shape = tf.shape(x)
    noise = draws.uniform(keys, shape, -1.0, 1.0) if norm == "linf" else draws.normal(keys, shape)
    return tf.clip_by_value(x + epsilon * noise / balls.column(balls.distance(noise, norm)), 0.0, 1.0)
