"""Gradients straight through what has none: planted defences are found by their codes and broken, sound ones aren't."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import PIXELS, SHAPE, images, linear_model
from keras import layers as L
from keras import ops

from kerasrobust.attacks import PGD
from kerasrobust.errors import InputError
from kerasrobust.evaluation.evaluate import Evaluation, evaluate
from kerasrobust.networks.making import as_classifier
from kerasrobust.networks.straight import masked_layers, named, straightened

X = images(60, seed=8)
EPSILON = 0.1


@keras.saving.register_keras_serializable("tests")
class Jpeg(L.Layer):
    """Images as JPEG of quality 75 gives them (Das et al. 2018)."""

    def call(self, x: tf.Tensor) -> tf.Tensor:
        return tf.map_fn(lambda image: tf.image.adjust_jpeg_quality(image, 75), x)


@keras.saving.register_keras_serializable("tests")
class Levels(L.Layer):
    """Images of 8 levels (Xu et al. 2018, feature squeezing)."""

    def call(self, x: tf.Tensor) -> tf.Tensor:
        return tf.round(7 * x) / 7


def rounded(x: keras.KerasTensor) -> keras.KerasTensor:
    return ops.divide(ops.round(ops.multiply(x, 7.0)), 7.0)


DEFENCES: dict[str, Any] = {
    "8 levels": lambda: Levels(name="hidden"),
    "8 levels by a Lambda": lambda: L.Lambda(lambda x: tf.round(7 * x) / 7, name="hidden"),
    "8 levels by operations": lambda: rounded,
    "8 levels inside a model": lambda: keras.Sequential([keras.Input(SHAPE), Levels(name="hidden")]),
    "JPEG": lambda: Jpeg(name="hidden"),
}


def with_front(front: Any) -> keras.Model:
    """A linear network behind a defence."""
    kernel = np.random.default_rng(1).normal(size=(PIXELS, 4)).astype(np.float32)
    base = linear_model(kernel / 2, -(kernel.sum(axis=0) / 4).astype(np.float32))
    seen = keras.Input(SHAPE)
    return keras.Model(seen, base(front(seen)))


def labels(model: keras.Model, x: np.ndarray = X) -> np.ndarray:
    return model.predict(x, verbose=0).argmax(axis=1)


def codes(found: Evaluation) -> set[str]:
    return {finding.code for finding in found.findings}


@pytest.mark.parametrize("name", DEFENCES)
def test_planted_defences_are_found_and_broken(name: str) -> None:
    model = with_front(DEFENCES[name]())
    y = labels(model)
    found = evaluate(model, X, y, attacks=PGD(epsilon=EPSILON, steps=10), thorough=True)
    assert {"straight-through", "zero-gradient"} <= codes(found)
    assert codes(found) <= {"straight-through", "zero-gradient", "few-examples", "conventions"}
    (message,) = [finding.message for finding in found.findings if finding.code == "straight-through"]
    assert ("'hidden'" if "operations" not in name else "'round") in message
    assert found.clean_accuracy == 1
    worst = found.worst.x_adv
    assert abs(worst - X).max() <= EPSILON + 1e-6
    np.testing.assert_array_equal(found.per_example > 0.5, model.predict(worst, verbose=0).argmax(axis=1) == y)
    noise = EPSILON * np.sign(np.random.default_rng(0).normal(size=X.shape)).astype(np.float32)
    assert found.robust_accuracy < 0.1 < 0.3 < (labels(model, X + noise) == y).mean()


def test_the_straight_network_gives_the_same_outputs_and_the_gradients_of_what_is_behind() -> None:
    model = with_front(Levels(name="hidden"))
    straight = straightened(model, X)
    assert straight is not None
    np.testing.assert_allclose(straight.run(X), model.predict(X, verbose=0), atol=1e-5)
    images = tf.constant(X)
    with tf.GradientTape() as tape:
        tape.watch(images)
        total = tf.reduce_sum(straight(images)[:, 1])
    kernel = model.layers[-1].layers[-1].get_weights()[0]
    expected = np.broadcast_to(kernel[:, 1].reshape(SHAPE), X.shape)
    np.testing.assert_allclose(tape.gradient(total, images), expected, atol=1e-6)


def test_a_gradient_past_the_masked_layer_hides_it_from_attacks_and_not_from_the_audit() -> None:
    """A small share of the logits that has a gradient, and says nothing of the rest."""
    front = with_front(Levels(name="hidden"))
    seen = front.inputs[0]
    rows = np.random.default_rng(2).normal(size=(PIXELS, 4)).astype(np.float32)
    past = L.Dense(4, use_bias=False)
    model = keras.Model(seen, L.Add()([front.outputs[0], past(L.Flatten()(seen))]))
    past.set_weights([1e-3 * rows])
    y = labels(model)
    found = evaluate(model, X, y, attacks=PGD(epsilon=EPSILON, steps=10), thorough=True)
    assert "straight-through" not in codes(found)
    (finding,) = [finding for finding in found.findings if finding.code == "masked-layers"]
    own, past = finding.evidence["own"], finding.evidence["straight"]
    broken, left = finding.evidence["broken"], finding.evidence["left_before"]
    straight = evaluate(model, X, y, attacks=PGD(epsilon=EPSILON, steps=10), surrogate=straightened(model, X))
    assert "'hidden'" in finding.message
    assert own == 60 - left and past == 60
    assert broken == left == round(60 * found.robust_accuracy)
    assert straight.robust_accuracy < 0.1 < found.robust_accuracy


@keras.saving.register_keras_serializable("tests")
class Median(L.Layer):
    """Each pixel is the median of 3x3 around it (Xu et al. 2018): the gradient is that of one of nine."""

    def call(self, x: tf.Tensor) -> tf.Tensor:
        patches = tf.image.extract_patches(x, [1, 3, 3, 1], [1, 1, 1, 1], [1, 1, 1, 1], "SAME")
        patches = tf.reshape(patches, (-1, *x.shape[1:3], 9, x.shape[3]))
        return tf.sort(patches, axis=3)[:, :, :, 4]


@keras.saving.register_keras_serializable("tests")
class Winners(L.Layer):
    """Only the k largest values of a row pass (Xiao et al. 2020)."""

    def call(self, x: tf.Tensor) -> tf.Tensor:
        least = tf.math.top_k(x, x.shape[-1] // 10).values[..., -1:]
        return tf.where(x >= least, x, 0.0)


@pytest.mark.parametrize(
    "front",
    [L.ReLU(), L.Rescaling(1.0), L.AveragePooling2D(1), L.Lambda(lambda x: 2 * x), L.Activation(tf.nn.elu)],
    ids=["relu", "rescaling", "pooling", "lambda", "function"],
)
def test_nothing_is_made_straight_that_has_gradients(front: Any) -> None:
    model = with_front(front)
    assert masked_layers(model, tf.constant(X[:4])) == []
    assert straightened(model, X) is None
    assert "masked-layers" not in codes(evaluate(model, X, labels(model), attacks=PGD(steps=2), thorough=True))


def test_what_changes_the_shape_or_cannot_be_taken_apart_is_left_to_black_boxes() -> None:
    halved = keras.Sequential(
        [keras.Input(SHAPE), L.Lambda(lambda x: tf.round(x[:, ::2] * 7)), L.Flatten(), L.Dense(4)]
    )
    assert named(masked_layers(halved, tf.constant(X[:4]))) == []
    model = with_front(Levels())
    for blind in (halved, lambda x: model(x)):
        classifier = as_classifier(blind, image_shape=SHAPE, input_range="0,1", colors="rgb")
        y = classifier.run(X).argmax(axis=1)
        found = evaluate(classifier, X, y, attacks=PGD(epsilon=EPSILON, steps=2), audit=False)
        assert "black-box-only" in codes(found)


@keras.saving.register_keras_serializable("tests")
class InGraphs(L.Layer):
    """Code that works in graphs alone, and so can't be looked at layer by layer."""

    def call(self, x: tf.Tensor) -> tf.Tensor:
        if tf.executing_eagerly():
            raise RuntimeError("Outside of a graph.")
        return tf.round(7 * x) / 7


def test_layers_that_cannot_be_looked_at_stop_no_evaluation() -> None:
    model = with_front(InGraphs())
    with pytest.raises(InputError, match=r"called one by one.*Outside of a graph"):
        straightened(model, X)
    found = evaluate(model, X, labels(model), attacks=PGD(epsilon=EPSILON, steps=2), thorough=True)
    (message,) = [finding.message for finding in found.findings if finding.code == "black-box-only"]
    assert "Outside of a graph" in message
    assert found.audit is not None and found.audit.left_out == ["masked-layers"]
