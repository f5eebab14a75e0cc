"""What stands between images and a network that takes whole numbers, or so many images at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf


@tf.custom_gradient
def straight_through(values: tf.Tensor, smooth: tf.Tensor) -> tuple[tf.Tensor, Callable[[tf.Tensor], Any]]:
    """Returns values as they are, with the gradient of others (Bengio et al. 2013).

    Not as `smooth + stop_gradient(values - smooth)`: that may be 62.999996, which a cast to integers makes 62, and is
    NaN where both are infinite.

    Example:
        >>> straight_through(tf.constant([2.0]), tf.constant([1.6])).numpy()
        array([2.], dtype=float32)
    """
    return tf.identity(values), lambda slope: (None, slope)


def rounded(values: tf.Tensor) -> tf.Tensor:
    """Returns whole numbers, with the gradient of what isn't rounded.

    Example:
        >>> rounded(tf.constant([0.4, 1.6])).numpy()
        array([0., 2.], dtype=float32)
    """
    return straight_through(tf.round(values), values)


def in_pieces(run: Callable[[tf.Tensor], Any], x: tf.Tensor, size: int) -> tf.Tensor:
    """Returns the float32 outputs (N, K) of a pass that takes `size` images at once, for any number of them.

    Args:
        run: (size, ...) to one output, (size, K).
        x: (N, ...), at least one.
        size: how many it takes.

    Example:
        >>> in_pieces(lambda pair: pair * 2, tf.constant([[1.0], [2.0], [3.0]]), 2).numpy().ravel()
        array([2., 4., 6.], dtype=float32)
    """
    count = tf.shape(x)[0]
    # Repeats of an image: zeros could give NaN in a model that standardises each image. Not gathered, as gradients of
    # that are slices.
    x = tf.concat([x, tf.tile(x[-1:], [-count % size, *[1] * (x.shape.rank - 1)])], axis=0)
    pieces = tf.reshape(x, (-1, size, *x.shape[1:]))
    outputs = tf.map_fn(
        lambda piece: tf.cast(tf.nest.flatten(run(piece))[0], tf.float32), pieces, fn_output_signature=tf.float32
    )
    return tf.reshape(outputs, tf.concat([[-1], tf.shape(outputs)[2:]], axis=0))[:count]
