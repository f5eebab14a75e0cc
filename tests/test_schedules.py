"""Labels of ADR, learning rates, decay and order of data, against values computed by hand."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import SHAPE, linear_model

from kerasrobust.data.load import load_dataset
from kerasrobust.data.pipeline import train_pipeline
from kerasrobust.errors import InputError
from kerasrobust.training.averaging import average_of
from kerasrobust.training.objectives.adr import rectified
from kerasrobust.training.objectives.trades import divergence
from kerasrobust.training.optimizers import learning_rate, optimizer_for


def test_labels_of_adr_by_hand() -> None:
    """Softmax (0.8, 0.2): right class 0 keeps trust 0.7; for class 1 the gap of 0.6 leaves 0.1."""
    logits = tf.math.log(tf.constant([[0.8, 0.2], [0.8, 0.2]]))
    found = rectified(logits, tf.constant([0, 1]), 0.7)
    np.testing.assert_allclose(found, [[0.7 * 0.8 + 0.3, 0.14], [0.08, 0.1 * 0.2 + 0.9]], rtol=1e-5)


def test_divergence_by_hand() -> None:
    clean = tf.constant([[0.0, 0.0], [40.0, 0.0]])
    found = divergence(clean, tf.math.log(tf.constant([[0.25, 0.75], [0.5, 0.5]])))
    np.testing.assert_allclose(found, [0.5 * np.log(2) + 0.5 * np.log(2 / 3), np.log(2)], rtol=1e-5)


@pytest.mark.parametrize("gap", [20.0, 88.0, 200.0])
def test_divergence_of_sure_networks_has_gradients(gap: float) -> None:
    """Where a probability rounds to 0, its logarithm had an infinite slope, and the weights became NaN."""
    clean, moved = tf.constant([[0.0, gap], [gap, 0.0]]), tf.constant([[0.0, 1.0], [0.0, 1.0]])
    with tf.GradientTape() as tape:
        tape.watch([clean, moved])
        loss = divergence(clean, moved)
    np.testing.assert_allclose(loss, [np.log1p(np.exp(-1)), np.log1p(np.e)], rtol=1e-4)
    for slope in tape.gradient(loss, [clean, moved]):
        assert np.isfinite(slope).all()


def test_learning_rates_by_hand() -> None:
    for name, values in {
        "one-cycle": {0: 0, 20: 0.1, 40: 0.2, 70: 0.1, 100: 0},
        "piecewise": {0: 0.2, 50: 0.2, 51: 0.02, 75: 0.02, 76: 0.002},
        "cosine": {0: 0, 5: 0.1, 10: 0.2, 55: 0.1, 100: 0},
    }.items():
        rate = learning_rate(name, 0.2, 100)
        for step, value in values.items():
            assert float(rate(step)) == pytest.approx(value, abs=1e-6), (name, step)


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_only_kernels_decay(name: str) -> None:
    """With a gradient of 0 what is left of a step is the decay, rate times weight."""
    model = linear_model(np.ones((192, 2), np.float32), np.ones(2, np.float32))
    optimizer = optimizer_for(model, name, 0.5, weight_decay=0.1)
    optimizer.apply_gradients([(tf.zeros_like(v), v) for v in model.trainable_variables])
    kernel, bias = model.get_weights()
    np.testing.assert_allclose(kernel, 0.95, rtol=1e-6)
    np.testing.assert_array_equal(bias, 1)


def test_unknown_names_are_refused_in_one_line() -> None:
    model = keras.Sequential([keras.Input(SHAPE), keras.layers.Flatten()])
    for call in (lambda: optimizer_for(model, "adamm", 0.1), lambda: learning_rate("cosin", 0.1, 10)):
        with pytest.raises(InputError, match="Received: ") as caught:
            call()
        assert "\n" not in str(caught.value)


def test_a_subclass_has_no_average() -> None:
    class Own(keras.Model):
        pass

    with pytest.raises(InputError, match="Expected a functional or Sequential network to average"):
        average_of(Own())


def test_an_epoch_does_not_depend_on_where_the_training_began() -> None:
    data = load_dataset("shapes", "train[:20]")
    through = train_pipeline(data, 8, seed=1)
    epochs = [[np.array(x) for x, _ in through] for _ in range(3)]
    number = tf.Variable(2, dtype=tf.int64)
    np.testing.assert_array_equal([np.array(x) for x, _ in train_pipeline(data, 8, seed=1, epoch=number)], epochs[2])
    assert not np.array_equal(epochs[1], epochs[2])
