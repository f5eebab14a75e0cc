"""Gradients of networks that compute in float16, where what is below 6e-8 is 0 and what is above 65,504 infinite.

A network that is sure of a class has a loss whose gradient is far smaller than that. So each image's loss is scaled
before its gradient enters the network, and the gradient of the image is scaled back (Micikevicius et al. 2018).
"""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf
from tensorflow.core.framework import types_pb2

TARGET = 2.0**8
"""The largest entry of the gradient by the logits, once scaled: as far from underflow as from overflow."""

SMALL = 2.0**-6
"""Largest entry of a scaled gradient of an image below which most of it may have been lost."""

STEP = 2.0**12
"""By how much the scale changes from try to try, towards where something is left and nothing overflows."""

TRIES = 3


def computes(outputs: tf.Tensor) -> bool:
    """Returns whether anything in the graph that gives `outputs` is float16; False outside of graphs."""
    return not isinstance(outputs, tf.__internal__.EagerTensor) and in_graph(outputs.graph)


def in_graph(graph: tf.Graph) -> bool:
    """Returns whether anything in a graph is float16."""
    if any(output.dtype == tf.float16 for operation in graph.get_operations() for output in operation.outputs):
        return True
    # Functions inside, as a SavedModel's.
    inner = graph.as_graph_def().library.function
    return any(
        value.type == types_pb2.DT_HALF for part in inner for node in part.node_def for value in node.attr.values()
    )


def slope(
    forward: Callable[[tf.Tensor], tf.Tensor], loss: Callable[[tf.Tensor], tf.Tensor], images: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Returns the gradient of each image's loss by the image, (N, H, W, C), the losses (N,), and the logits.

    A network in another arithmetic than float16 costs one pass forward and one back.

    Args:
        forward: images (N, H, W, C) to logits (N, K).
        loss: logits to losses (N,).
        images: float32 (N, H, W, C).
    """
    none = tf.UnconnectedGradients.ZERO
    # Not watching the weights: their gradients would be computed with the images' otherwise.
    with tf.GradientTape(watch_accessed_variables=False, persistent=True) as tape:
        tape.watch(images)
        logits = forward(images)
        found = loss(logits)
        total = tf.reduce_sum(found)
    if not computes(logits):
        return shaped(tape.gradient(total, images, unconnected_gradients=none), images), found, logits
    entry = tape.gradient(total, logits, unconnected_gradients=none)
    scale = TARGET / tf.maximum(tf.reduce_max(tf.abs(entry), axis=1), 1e-15)
    first = tape.gradient(logits, images, entry * scale[:, None], unconnected_gradients=none)

    def again(scale: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(images)
            scaled = tf.reduce_sum(loss(forward(images)) * scale)
        return shaped(tape.gradient(scaled, images, unconnected_gradients=none), images)

    return _settled(shaped(first, images), scale, again), found, logits


def shaped(slope: tf.Tensor, images: tf.Tensor) -> tf.Tensor:
    """Returns a gradient with the images' static shape.

    Seen with TensorFlow 2.21: that of `tf.reduce_max` or `tf.reduce_min` forgets it where the batch is of any size.
    """
    return tf.ensure_shape(slope, images.shape)


def _settled(first: tf.Tensor, scale: tf.Tensor, again: Callable[[tf.Tensor], tf.Tensor]) -> tf.Tensor:
    """Returns gradients, scaled back, after tries with other scales for the images that overflowed or underflowed."""

    def kept(raw: tf.Tensor, scale: tf.Tensor, before: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Returns the gradients so far, the scales to try next, and whether there is any to try."""
        largest = tf.reduce_max(tf.abs(raw), axis=[1, 2, 3])
        fine = tf.math.is_finite(largest) & tf.reduce_all(tf.math.is_finite(raw), axis=[1, 2, 3])
        back = tf.where(fine, 1.0 / scale, 0.0)[:, None, None, None]
        factor = tf.where(fine, tf.where(largest < SMALL, STEP, 1.0), 1.0 / STEP)
        values = tf.where(fine[:, None, None, None], raw * back, before)
        return values, tf.clip_by_value(scale * factor, 1e-18, 1e18), tf.reduce_any(factor != 1.0)

    def more(tried: tf.Tensor, values: tf.Tensor, scale: tf.Tensor, _: tf.Tensor) -> tuple[tf.Tensor, ...]:
        return tried + 1, *kept(again(scale), scale, values)

    state = tf.constant(0), *kept(first, scale, tf.zeros_like(first))
    return tf.while_loop(lambda tried, values, scale, left: left & (tried < TRIES), more, state)[1]
