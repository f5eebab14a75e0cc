"""What attacks maximise: losses per example, from logits."""

from __future__ import annotations

import tensorflow as tf

# Below every logit difference that float32 resolves: log(1e-30) is -69.
_SMALLEST = 1e-30
_LARGEST = 1 - 2.0**-24  # The largest float32 below 1.


def from_probabilities(outputs: tf.Tensor, sigmoid: bool = False) -> tf.Tensor:
    """Returns logits of probabilities (N, K): the log-odds of each where they come from a sigmoid, else logarithms.

    Example:
        >>> from_probabilities(tf.constant([[0.5]]), sigmoid=True).numpy()
        array([[0.]], dtype=float32)
    """
    found = tf.math.log(tf.maximum(outputs, _SMALLEST))
    return found - tf.math.log1p(-tf.minimum(outputs, _LARGEST)) if sigmoid else found


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


def odds_against(logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    """Returns log((1 - p) / p) of the label's probability p, float32 (N,).

    Its gradient has the direction of the cross-entropy's, which it is 1 / (1 - p) times as long as: it doesn't vanish
    where the network is sure. What follows the direction alone loses nothing by it.
    """
    own = tf.one_hot(labels, tf.shape(logits)[1], on_value=True, off_value=False)
    right = tf.gather(logits, labels, batch_dims=1)
    return tf.reduce_logsumexp(tf.where(own, float("-inf"), logits), axis=1) - right


def dlr(logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    """Returns the difference of logits ratio, -(z_y - max over the others) / (z_1 - z_3), float32 (N,).

    z_1 and z_3 are the largest and the third largest logit: the loss doesn't change where all logits are scaled or
    shifted, so it can't saturate. Needs three classes.

    Source: Croce and Hein 2020a, equation 6.
    """
    top = tf.math.top_k(logits, 3).values
    return -margin(logits, labels) / (top[:, 0] - top[:, 2] + 1e-12)


def targeted_dlr(logits: tf.Tensor, labels: tf.Tensor, targets: tf.Tensor) -> tf.Tensor:
    """Returns the targeted difference of logits ratio, -(z_y - z_t) / (z_1 - (z_3 + z_4) / 2), float32 (N,).

    `targets` are classes (N,) other than the labels. Needs four classes.

    Source: Croce and Hein 2020a, equation 7.
    """
    top = tf.math.top_k(logits, 4).values
    gap = tf.gather(logits, labels, batch_dims=1) - tf.gather(logits, targets, batch_dims=1)
    return -gap / (top[:, 0] - 0.5 * (top[:, 2] + top[:, 3]) + 1e-12)
