"""What attacks maximise: losses per example, from logits."""

from __future__ import annotations

import tensorflow as tf


def cross_entropy(logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    """Returns the cross-entropy of each example, float32 (N,), from logits (N, K) and integer labels (N,)."""
    return tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits)


def margin(logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    """Returns z_y - max over the other classes of z_i, float32 (N,): below 0 where another class wins.

    Source: Carlini and Wagner 2017, section V.A, without the clipping.
    """
    own = tf.one_hot(labels, tf.shape(logits)[1], on_value=True, off_value=False)
    right = tf.gather(logits, labels, batch_dims=1)
    return right - tf.reduce_max(tf.where(own, float("-inf"), logits), axis=1)
