"""What is said of a model beside its outputs: layers that compute in integers, and noise that some calls draw."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import SHAPE, images
from keras import layers as L

from kerasrobust.attacks import PGD
from kerasrobust.evaluation.evaluate import evaluate
from kerasrobust.networks.classifier import has_gradient
from kerasrobust.networks.making import as_classifier
from kerasrobust.networks.probe import apart
from kerasrobust.ops.intake import straight_through

X = images(12, seed=4)


IN_INTEGERS: dict[str, Callable[[], L.Layer]] = {
    "layer": lambda: L.LayerNormalization(),
    "group": lambda: L.GroupNormalization(groups=1),
    "rms": lambda: L.RMSNormalization(),
}


@pytest.mark.parametrize("layer", IN_INTEGERS)
def test_layers_that_compute_in_integers_are_judged_as_they_are(layer: str) -> None:
    """Keras 3.15 computes mean and variance of uint8 in uint8: the same layers in float32 are another network."""
    seen = keras.Input(SHAPE, dtype="uint8")
    normalized = IN_INTEGERS[layer]()(seen)
    model = keras.Model(seen, L.Dense(4)(L.Flatten()(L.Rescaling(2.0)(normalized))))
    expected = model.predict(np.round(X * 255).astype("uint8"), verbose=0)
    classifier = as_classifier(model)
    assert "integer-layers" in dict(classifier.warnings)
    np.testing.assert_allclose(classifier.run(X), expected, rtol=1e-4, atol=1e-4 * abs(expected).max())
    assert has_gradient(classifier)
    evaluation = evaluate(model, X, expected.argmax(axis=1), attacks=PGD(epsilon=0.05, steps=3), audit=False)
    after = model.predict(np.round(evaluation.worst.x_adv * 255).astype("uint8"), verbose=0).argmax(axis=1)
    assert evaluation.clean_accuracy == 1
    np.testing.assert_array_equal(evaluation.per_example, after == expected.argmax(axis=1))


@pytest.mark.parametrize("value", [-np.inf, 1e9])
def test_values_keep_what_they_are_with_the_gradient_of_others(value: float) -> None:
    """A masked class stays masked; the sum of both less one of them would be no number."""

    @tf.function(autograph=False)
    def found(x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        with tf.GradientTape() as tape:
            tape.watch(x)
            smooth = tf.stack([3.0 * x, x * 0 + value])
            exact = straight_through(tf.constant([7.0, value]), smooth)
            first = exact[0]
        return exact, tape.gradient(first, x)

    exact, slope = found(tf.constant(2.0))
    np.testing.assert_array_equal(exact, np.array([7.0, value], np.float32))
    assert float(slope) == 3.0


def test_layers_called_with_training_true_are_named_and_can_be_kept() -> None:
    seen = keras.Input(SHAPE)
    noisy = L.GaussianNoise(0.5, name="grain")(seen, training=True)
    model = keras.Model(seen, L.Dense(4)(L.Flatten()(noisy)))
    off = as_classifier(model)
    assert not off.randomized and dict(off.warnings)["training-noise"].startswith("grain of ")
    np.testing.assert_allclose(off.run(X), model.predict(X, verbose=0), rtol=1e-4, atol=1e-5)
    on = as_classifier(model, noise="on")
    assert on.randomized and apart(on.run(X), on.run(X)) > 1e-3


def test_only_layers_that_change_something_are_named() -> None:
    """Keras calls all layers that prepare images with training=True unless told otherwise."""
    for layer in (L.Resizing(5, 5), L.CenterCrop(6, 6)):
        model = keras.Sequential([keras.Input(SHAPE), layer, L.Flatten(), L.Dense(4)])
        assert as_classifier(model).warnings == []
    turning = keras.Sequential([keras.Input(SHAPE), L.RandomFlip(name="turn"), L.Flatten(), L.Dense(4)])
    for augmenting in (turning, keras.Sequential([keras.Input(SHAPE), turning])):
        seen = as_classifier(augmenting)
        assert not seen.randomized and dict(seen.warnings)["training-noise"].startswith("turn of ")


@keras.saving.register_keras_serializable("test_remarks")
class Around(keras.Model):
    """A model around a layer that augments, whose call takes `training` or not."""

    def __init__(self, augments: L.Layer, head: L.Layer, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.augments, self.flat, self.head = augments, L.Flatten(), head

    def call(self, x: tf.Tensor) -> tf.Tensor:
        return self.head(self.flat(self.augments(x)))


class Passing(Around):
    def call(self, x: tf.Tensor, training: bool = False) -> tf.Tensor:
        return self.head(self.flat(self.augments(x, training=training)))


AUGMENTING = {
    "contrast": lambda: L.RandomContrast(0.5, value_range=(0, 1)),
    "brightness": lambda: L.RandomBrightness(0.3, value_range=(0, 1)),
    "flip": lambda: L.RandomFlip("horizontal"),
}


@pytest.mark.parametrize("kind", [Around, Passing])
@pytest.mark.parametrize("layer", AUGMENTING)
def test_what_predict_draws_is_attacked(layer: str, kind: type[Around]) -> None:
    """Keras passes `training=False` only to a call that takes it; layers that augment are on without it."""
    model = kind(AUGMENTING[layer](), L.Dense(4))
    model(X)
    many = np.tile(X, (40, 1, 1, 1))
    seen = model.predict(many, verbose=0, batch_size=480).reshape(40, 12, 4)
    noisy = kind is Around
    assert (seen.std(axis=0).max() > 1e-3) == noisy
    classifier = as_classifier(model, image_shape=SHAPE)
    assert classifier.randomized == noisy
    assert ("training-noise" in dict(classifier.warnings)) == noisy
    own = classifier.run(many).reshape(40, 12, 4)
    # Means over 40 draws each, within 6 standard errors.
    assert (abs(own.mean(axis=0) - seen.mean(axis=0)) <= 6 * seen.std(axis=0) * np.sqrt(2 / 40) + 1e-4).all()
    # Inside a model that passes it on, Keras switches the layer off, whatever the inner call takes.
    outer = keras.Sequential([keras.Input(SHAPE), model])
    np.testing.assert_allclose(as_classifier(outer).run(X), outer.predict(X, verbose=0), rtol=1e-4, atol=1e-5)


def test_making_a_classifier_moves_no_weights() -> None:
    """What is at work in `model(x)` alone is looked for by a pass in training mode, which moves means and seeds."""
    seen = keras.Input(SHAPE)
    hidden = L.BatchNormalization(momentum=0.5)(seen, training=True)
    model = keras.Model(seen, L.Dense(4)(L.Flatten()(L.RandomFlip()(hidden))))
    before, answers = [np.array(variable) for variable in model.variables], model.predict(X, verbose=0)
    assert "training-noise" in dict(as_classifier(model).warnings)
    for variable, value in zip(model.variables, before, strict=True):
        np.testing.assert_array_equal(variable, value)
    np.testing.assert_array_equal(model.predict(X, verbose=0), answers)
