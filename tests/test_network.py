"""What attacks ask of a network, against a linear one, whose leads and gradients are known."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import tensorflow as tf
from conftest import PIXELS, images

from kerasrobust.attacks.network import UNROLLED, Network, Passes, rivals_of, score

X = tf.constant(images(5))
Y = tf.constant([0, 3, 7, 3, 2])


@pytest.mark.parametrize(
    ("classes", "chosen", "passes"),
    [(9, False, 1), (9, True, 5), (UNROLLED + 2, False, 5), (2 * UNROLLED + 1, True, 1)],
)
def test_linearisation_of_a_linear_network(classes: int, chosen: bool, passes: int) -> None:
    """However many rivals there are, and however many of their gradients are written out at once."""
    kernel = np.random.default_rng(3).normal(0, 1, (PIXELS, classes)).astype(np.float32)

    def network(x: tf.Tensor, key: tf.Tensor | None) -> tf.Tensor:
        return tf.reshape(x, [-1, PIXELS]) @ kernel

    several = Passes() if passes == 1 else Passes(tf.constant(passes), tf.constant(12))
    given = rivals_of(Y, classes)
    rivals: tf.Tensor | Callable[[tf.Tensor], tf.Tensor] = (
        (lambda logits: tf.argsort(logits, axis=1)[:, :-1]) if chosen else given
    )
    expected = np.argsort(network(X, None), axis=1)[:, :-1] if chosen else given.numpy()

    @tf.function(autograph=False, input_signature=[tf.TensorSpec([None, *X.shape[1:]])])
    def found(x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return Network(network, tf.constant([1, 2]), several, classes).linearise(x, Y, rivals)

    leads, slopes = found(X)
    logits = network(X, None).numpy()
    rows = np.arange(len(Y))[:, None]
    np.testing.assert_allclose(leads, logits[rows, expected] - logits[rows, Y[:, None]], rtol=1e-4, atol=1e-4)
    lines = kernel.T[expected] - kernel.T[Y.numpy()][:, None]
    np.testing.assert_allclose(slopes, lines.reshape(slopes.shape), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("passes", [1, 5])
@pytest.mark.parametrize("pool", [tf.reduce_max, tf.reduce_min])
def test_gradients_have_the_images_shape(pool: Callable[..., tf.Tensor], passes: int) -> None:
    """TensorFlow's own forget it for such a pooling of one channel; loops then refused to be traced."""
    grey = X[..., :1]

    def network(x: tf.Tensor, key: tf.Tensor | None) -> tf.Tensor:
        return pool(x, axis=(1, 2)) * [1.0, 3.0]

    @tf.function(autograph=False, input_signature=[tf.TensorSpec([None, *grey.shape[1:]])])
    def found(x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        several = Passes() if passes == 1 else Passes(tf.constant(passes), tf.constant(12))
        asked = Network(network, tf.constant([1, 2]), several, 2, loss=lambda logits, y: logits[:, 1] - logits[:, 0])
        slope, _, _ = asked.gradient(x, tf.zeros_like(Y))
        _, slopes = asked.linearise(x, tf.zeros_like(Y), tf.ones([5, 1], tf.int32))
        assert slope.shape[1:] == grey.shape[1:]
        return slope, slopes[:, 0]

    flat = grey.numpy().reshape(5, -1)
    chosen = flat.argmax(axis=1) if pool is tf.reduce_max else flat.argmin(axis=1)
    expected = 2 * np.eye(flat.shape[1])[chosen].reshape(grey.shape)
    for slope in found(grey):
        np.testing.assert_allclose(slope, expected, atol=1e-6)


def test_no_number_is_lost_and_two_infinities_are_not() -> None:
    inf, nan = np.inf, np.nan
    logits = tf.constant([[inf, inf, 0], [inf, 0, 0], [0, inf, inf], [nan, 5, 0], [3, -inf, 1]], tf.float32)
    y = tf.constant([0, 0, 0, 0, 0])
    np.testing.assert_array_equal(score(logits, y, targeted=False), np.float32([0, inf, -inf, -1e30, 2]))
    np.testing.assert_array_equal(score(logits, y, targeted=True), np.float32([0, -inf, inf, 1e30, -2]))
