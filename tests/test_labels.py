"""Several labels an image: how they and the outputs of a network are read, and the strongest of several results."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from kerasrobust.attacks import AttackResult
from kerasrobust.evaluation.combining import strongest
from kerasrobust.networks.adapters.labels import Labels
from kerasrobust.ops import losses
from kerasrobust.ops.stored import patterns, read_labels


@pytest.mark.parametrize("count", [1, 2, 3, 6, 10])
def test_patterns_have_the_sum_of_the_binary_cross_entropies(count: int) -> None:
    draw = np.random.default_rng(count)
    z, y = 4 * draw.normal(size=(40, count)).astype(np.float32), draw.integers(0, 2, (40, count))
    logits, classes = Labels(count).logits(tf.constant(z)), tf.constant(patterns(y))
    assert logits.shape == (40, 2**count)
    binary = tf.nn.sigmoid_cross_entropy_with_logits(y.astype(np.float32), z)
    np.testing.assert_allclose(
        losses.cross_entropy(logits, classes), tf.reduce_sum(binary, axis=1), rtol=1e-4, atol=1e-6
    )
    said = (logits.numpy().argmax(axis=1)[:, None] >> np.arange(count)) & 1
    np.testing.assert_array_equal(said, z > 0)
    # The margin of what is right is that of the label nearest to its threshold, to the last bit.
    own = tf.constant(patterns(z > 0))
    np.testing.assert_array_equal(losses.margin(logits, own), np.abs(z).min(axis=1))


def test_large_logits_hide_no_small_one_and_what_is_infinite_or_no_number_is_told() -> None:
    z = tf.constant([[3e4, 1e-4, -3e4], [-np.inf, 2.0, 1.0], [np.nan, 1.0, 1.0]])
    logits = Labels(3).logits(z).numpy()
    np.testing.assert_array_equal(logits[:2].argmax(axis=1), [0b011, 0b110])
    assert losses.margin(tf.constant(logits[:1]), [0b001]).numpy() < 0
    assert not np.isnan(logits[:2]).any() and np.isnan(logits[2]).all()


def test_one_label_alone_is_two_classes() -> None:
    chosen = tf.Variable(1)
    labels = Labels(3, chosen)
    z = tf.constant([[1.0, -2.0, np.nan]])
    np.testing.assert_array_equal(labels.logits(z), [[0, -2]])
    chosen.assign(0)
    np.testing.assert_array_equal(labels.logits(z), [[0, 1]])


# What an evaluation says.


@pytest.mark.parametrize("dtype", [np.bool_, np.uint8, np.int32, np.float16, np.float64])
def test_labels_of_any_dtype(dtype: Any) -> None:
    rows = np.array([[0, 0, 0], [1, 0, 1]])
    np.testing.assert_array_equal(read_labels(rows.astype(dtype), 2), rows)
    np.testing.assert_array_equal(read_labels(np.eye(3, dtype=dtype), 3), [0, 1, 2])
    np.testing.assert_array_equal(read_labels(np.eye(3, dtype=dtype), 3, several=True), np.eye(3))


# What is said of it.


def test_the_nearest_of_what_most_passes_get_wrong_is_kept() -> None:
    """A farther example that a noisy network gets wrong more often would lie outside the radius."""

    def result(rates: list[float], distances: list[float]) -> AttackResult:
        count = len(rates)
        numbers = {name: np.zeros(count) for name in ("prediction", "prediction_adv", "confidence", "confidence_adv")}
        return AttackResult(
            x_adv=np.zeros((count, 1, 1, 1)), success=np.array(rates) <= 0.5, clean_rate=np.ones(count),
            correct_rate=np.array(rates), distance=np.array(distances), gradients=0, forwards=0, seconds=0.0,
            precision="float32", passes=np.zeros((2, count)), shared=0.0, **numbers,
        )  # fmt: skip

    found = [result([0.1, 0.0, 1.0], [0.3, 0.9, 0.0]), result([0.0, 0.1, 0.2], [0.9, 0.3, 2.0])]
    np.testing.assert_array_equal(strongest(found, nearest=True).distance, [0.3, 0.3, 2.0])
    np.testing.assert_array_equal(strongest(found).correct_rate, [0.0, 0.0, 0.2])
