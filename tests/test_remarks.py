"""What is said of a model beside its outputs: layers that compute in integers, and noise that some calls draw."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from cli import call
from conftest import SHAPE, images
from keras import layers as L

from kerasrobust.attacks import PGD
from kerasrobust.evaluation.evaluate import evaluate
from kerasrobust.networks.classifier import has_gradient
from kerasrobust.networks.making import as_classifier
from kerasrobust.networks.probe import apart
from kerasrobust.networks.saving import SavedModelNetwork, load_model, save_model
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


STAYING_ON: dict[str, Callable[[], L.Layer]] = {
    "GaussianNoise": lambda: L.GaussianNoise(0.5, name="grain"),
    "Dropout": lambda: L.Dropout(0.5, name="grain"),
    "SpatialDropout2D": lambda: L.SpatialDropout2D(0.5, name="grain"),
}


def staying_on(layer: str, nested: bool = False) -> keras.Model:
    """The layer called with training=True, as people do who want its noise in `predict`."""
    keras.utils.set_random_seed(4)
    seen = keras.Input(SHAPE)
    noisy = STAYING_ON[layer]()(seen, training=True)
    inner = keras.Model(seen, L.Dense(4)(L.Flatten()(noisy)))
    return keras.Sequential([keras.Input(SHAPE), inner]) if nested else inner


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("layer", STAYING_ON)
def test_layers_called_with_training_true_are_named_and_can_be_kept(layer: str, nested: bool) -> None:
    model = staying_on(layer, nested)
    off = as_classifier(model)
    assert not off.randomized and dict(off.warnings)["training-noise"].startswith("grain of ")
    np.testing.assert_allclose(off.run(X), model.predict(X, verbose=0), rtol=1e-4, atol=1e-5)
    on = as_classifier(model, noise="on")
    assert on.randomized and apart(on.run(X), on.run(X)) > 1e-3
    # The noise is that of the layer itself, whose mean is what it gets.
    many = np.tile(X, (60, 1, 1, 1))
    drawn = on.run(many).reshape(60, 12, 4)
    error = 6 * drawn.std(axis=0) / np.sqrt(60) + 1e-4
    assert (abs(drawn.mean(axis=0) - off.run(X)) <= error).all()


class Calling(keras.Model):
    """Calls its layer with training=True itself, which Keras doesn't switch off."""

    def __init__(self, layer: L.Layer) -> None:
        super().__init__()
        self.noise, self.head = layer, keras.Sequential([L.Flatten(), L.Dense(4)])

    def call(self, x: tf.Tensor) -> tf.Tensor:
        return self.head(self.noise(x, training=True))


@pytest.mark.parametrize("layer", STAYING_ON)
@pytest.mark.parametrize("form", ["subclass", "SavedModel", "SavedModel of kerasrobust"])
def test_noise_that_predict_has_is_attacked_in_every_form(form: str, layer: str, tmp_path: Path) -> None:
    model = Calling(STAYING_ON[layer]()) if form == "subclass" else staying_on(layer)
    model(X)
    if form == "SavedModel":
        model.export(tmp_path / "m", verbose=False)
        loaded = load_model(tmp_path / "m")
        twice = [np.asarray(loaded(X)) for _ in range(2)]
        assert as_classifier(loaded).randomized == (apart(*twice) > 1e-3)
    elif form == "subclass":
        assert apart(*(model.predict(X, verbose=0) for _ in range(2))) > 1e-3
        assert as_classifier(model, image_shape=SHAPE).randomized
    else:
        saved = SavedModelNetwork(save_model(model, tmp_path / "m", {}))
        np.testing.assert_allclose(saved(X), model.predict(X, verbose=0), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("noise", ["on", "off"])
def test_the_command_line_says_which_network_is_meant(noise: str, tmp_path: Path) -> None:
    model = staying_on("GaussianNoise")
    model.save(tmp_path / "m.keras")
    np.savez(tmp_path / "own.npz", x=X, y=model.predict(X, verbose=0).argmax(axis=1))
    words = ("--model", tmp_path / "m.keras", "--data", tmp_path / "own.npz", "--attack", "fgsm", "--epsilon", "0")
    outcome = call("attack", *words, "--noise", noise, "--runs-dir", tmp_path / "runs", "--name", noise)
    assert outcome.status == 0, outcome.err
    result = json.loads((tmp_path / "runs" / noise / "result.json").read_text())
    assert result["randomized"] == (noise == "on")
    assert (result["clean_accuracy"] == 1) == (noise == "off")


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
