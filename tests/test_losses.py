"""The losses that attacks climb, against values worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import tensorflow as tf

from kerasrobust.ops.losses import cross_entropy, margin, odds_against

LOGITS = tf.constant([[math.log(1.0), math.log(2.0), math.log(5.0)], [0.0, 0.0, 0.0], [300.0, -300.0, 299.0]])
LABELS = tf.constant([2, 0, 1], tf.int64)


def test_cross_entropy_by_hand() -> None:
    # Probabilities 1/8, 2/8, 5/8; then a third each; then a label 600 below the largest: the loss is that gap.
    expected = [math.log(8 / 5), math.log(3), 600 + math.log1p(math.exp(-1))]
    np.testing.assert_allclose(cross_entropy(LOGITS, LABELS), expected, rtol=1e-6)


def test_margin_by_hand() -> None:
    np.testing.assert_allclose(margin(LOGITS, LABELS), [math.log(5 / 2), 0.0, -600.0], rtol=1e-6)


def test_margin_of_infinite_logits_is_no_nan() -> None:
    logits = tf.constant([[1.0, float("-inf")], [float("-inf"), 1.0]])
    np.testing.assert_array_equal(margin(logits, tf.constant([0, 0])), [math.inf, -math.inf])


def test_gradient_of_the_cross_entropy_is_softmax_minus_label() -> None:
    with tf.GradientTape() as tape:
        tape.watch(LOGITS)
        loss = tf.reduce_sum(cross_entropy(LOGITS, LABELS))
    np.testing.assert_allclose(tape.gradient(loss, LOGITS)[0], [1 / 8, 2 / 8, 5 / 8 - 1], rtol=1e-6)


def test_odds_by_hand_and_their_gradient_that_does_not_vanish() -> None:
    # Probabilities 5/8, 1/3, and e^-600: log((1 - p) / p).
    np.testing.assert_allclose(odds_against(LOGITS, LABELS), [math.log(3 / 5), math.log(2), 600.3132617], rtol=1e-6)
    sure = tf.constant([[500.0, 0.0, math.log(3.0)]])
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(sure)
        tape.watch(LOGITS)
        odds, least = odds_against(sure, tf.constant([0])), cross_entropy(sure, tf.constant([0]))
        parallel = odds_against(LOGITS, LABELS)[0], cross_entropy(LOGITS, LABELS)[0]
    assert not np.asarray(tape.gradient(least, sure)).any()
    np.testing.assert_allclose(tape.gradient(odds, sure), [[-1, 1 / 4, 3 / 4]], rtol=1e-6)
    # Of a label of probability 5/8: the cross-entropy's gradient divided by 3/8.
    slopes = [np.asarray(tape.gradient(loss, LOGITS))[0] for loss in parallel]
    np.testing.assert_allclose(slopes[0], slopes[1] / (3 / 8), rtol=1e-6)
