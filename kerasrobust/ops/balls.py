"""Norms and balls: steepest step, projection, random start, distance, on batches of images.

All functions take perturbations of shape (N, H, W, C) in float32 and radii that are numbers or scalar tensors, and run
inside a `tf.function`. `norm` is "linf" or "l2"; functions that take "l1" or "l0", the number of values that
differ, say so.
"""

from __future__ import annotations

import tensorflow as tf

from kerasrobust.names import Norm
from kerasrobust.ops import draws


def distance(perturbation: tf.Tensor, norm: Norm) -> tf.Tensor:
    """Returns the norm of each example's perturbation, float32 (N,). Takes "l1" and "l0" too."""
    flat = tf.reshape(perturbation, [tf.shape(perturbation)[0], -1])
    if norm == "linf":
        return tf.reduce_max(tf.abs(flat), axis=1)
    if norm == "l1":
        return tf.reduce_sum(tf.abs(flat), axis=1)
    if norm == "l0":
        return tf.math.count_nonzero(flat, axis=1, dtype=tf.float32)
    return tf.sqrt(tf.reduce_sum(tf.square(flat), axis=1))


def column(values: tf.Tensor) -> tf.Tensor:
    """Returns (N,) as (N, 1, 1, 1), to be combined with images."""
    return tf.reshape(values, [-1, 1, 1, 1])


def choose(chosen: tf.Tensor, one: tf.Tensor, other: tf.Tensor) -> tf.Tensor:
    """Returns per example one image or another; `chosen` is bool (N,), both tensors are (N, ...).

    What `tf.where` with a column does, in a tenth of the time: its broadcast goes entry by entry.
    """
    return tf.raw_ops.Select(condition=chosen, x=one, y=other)


def steepest(gradient: tf.Tensor, norm: Norm) -> tf.Tensor:
    """Returns the direction of norm 1 along which a linear function with this gradient grows fastest.

    Linf: the gradient's sign. L2: the gradient divided by its length (0 where the gradient is 0).
    """
    if norm == "linf":
        return tf.sign(gradient)
    # Scaled by the largest entry first: squares of gradients below 1e-19 are 0 in float32.
    scaled = tf.math.divide_no_nan(gradient, column(distance(gradient, "linf")))
    return tf.math.divide_no_nan(scaled, column(distance(scaled, "l2")))


def bounds(x: tf.Tensor, epsilon: tf.Tensor | float) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns each entry's least and greatest value in the Linf ball of radius `epsilon` and the box [0, 1]."""
    return tf.maximum(x - epsilon, 0.0), tf.minimum(x + epsilon, 1.0)


def project(x_adv: tf.Tensor, x: tf.Tensor, epsilon: tf.Tensor | float, norm: Norm) -> tf.Tensor:
    """Returns `x_adv` brought back into the ball of radius `epsilon` around `x` and into the box [0, 1].

    Takes "l1" and "l0" too, and returns the nearest point of ball and box together in "l1".
    """
    if norm == "linf":
        return tf.clip_by_value(x_adv, *bounds(x, epsilon))
    if norm == "l1":
        return _project_l1(x_adv, x, epsilon)
    if norm == "l0":
        return tf.clip_by_value(x + _largest(x_adv - x, epsilon), 0.0, 1.0)
    perturbation = x_adv - x
    shrink = tf.minimum(1.0, tf.math.divide_no_nan(epsilon, distance(perturbation, "l2")))
    shrink = tf.where(distance(perturbation, "l2") > 0, shrink, 1.0)
    # Clipping to the box afterwards only shortens the perturbation, as x itself lies in the box.
    return tf.clip_by_value(x + perturbation * column(shrink), 0.0, 1.0)


def _project_l1(x_adv: tf.Tensor, x: tf.Tensor, epsilon: tf.Tensor | float) -> tf.Tensor:
    """Returns the point of the L1 ball and the box that is nearest to `x_adv` in L2.

    The conditions of optimality give it in closed form but for one number per example, how far each entry is pulled
    back towards `x` before it is clipped to the box; bisection finds that number.

    Source: Croce and Hein 2021 ("Mind the box"), section 2.
    """
    gap = x_adv - x
    # Sums of thousands of entries are right to some 1e-7 only.
    epsilon = epsilon * (1 - 1e-6)

    def pulled(back: tf.Tensor) -> tf.Tensor:
        return tf.clip_by_value(x + tf.sign(gap) * tf.nn.relu(tf.abs(gap) - column(back)), 0.0, 1.0)

    def halve(number: tf.Tensor, low: tf.Tensor, high: tf.Tensor) -> tuple[tf.Tensor, ...]:
        middle = (low + high) / 2
        outside = distance(pulled(middle) - x, "l1") > epsilon
        return number + 1, tf.where(outside, middle, low), tf.where(outside, high, middle)

    high = distance(gap, "linf")
    _, _, back = tf.while_loop(lambda number, *_: number < 26, halve, (tf.constant(0), tf.zeros_like(high), high))
    inside = distance(tf.clip_by_value(x_adv, 0.0, 1.0) - x, "l1") <= epsilon
    return pulled(tf.where(inside, 0.0, back))


def _largest(perturbation: tf.Tensor, count: tf.Tensor) -> tf.Tensor:
    """Returns the perturbation with 0 in all but so many, (N,), of its largest values (more where some are equal)."""
    size = tf.abs(tf.reshape(perturbation, [tf.shape(perturbation)[0], -1]))
    place = tf.clip_by_value(tf.cast(count, tf.int32) - 1, 0, tf.shape(size)[1] - 1)
    least = tf.gather(tf.sort(size, axis=1, direction="DESCENDING"), place, batch_dims=1)
    kept = (tf.abs(perturbation) >= column(least)) & column(count >= 1)
    return tf.where(kept, perturbation, 0.0)


def random_start(keys: tf.Tensor, x: tf.Tensor, epsilon: tf.Tensor | float, norm: Norm) -> tf.Tensor:
    """Returns points drawn uniformly from the ball of radius `epsilon` around `x`, clipped to the box [0, 1].

    L2: a direction from the sphere times uniform ** (1 / d), d the number of entries of an image.
    """
    shape = tf.shape(x)
    if norm == "linf":
        perturbation = draws.uniform(keys, shape, -1.0, 1.0)
    else:
        direction = steepest(draws.normal(keys, shape), "l2")
        radius = draws.uniform(draws.fold(keys, 1), tf.stack([shape[0], 1, 1, 1]))
        perturbation = direction * radius ** (1.0 / tf.cast(tf.reduce_prod(shape[1:]), tf.float32))
    return tf.clip_by_value(x + epsilon * perturbation, 0.0, 1.0)
