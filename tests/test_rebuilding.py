"""A rebuilt network is the network that it was made from, or it is refused: copies, randomized ones, saved ones."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers as L

from kerasrobust.attacks import PGD
from kerasrobust.errors import InputError
from kerasrobust.evaluation.evaluate import evaluate
from kerasrobust.networks.cloning import trainable, with_precision
from kerasrobust.networks.files.formats import SavedModelNetwork
from kerasrobust.networks.noise import RandomDropout, noise_off
from kerasrobust.networks.randomizing import randomize
from kerasrobust.networks.saving import load_model, save_model

SHAPE = (8, 8, 3)
X = np.random.default_rng(4).random((6, *SHAPE), np.float32)
FACTOR = 1.7


def around(*layers: L.Layer) -> keras.Model:
    return keras.Sequential([keras.Input(SHAPE), *layers, L.MaxPooling2D(2), L.Flatten(), L.Dense(4)], name="net")


def adapted(x: np.ndarray = 7 * X + 3) -> L.Layer:
    layer = L.Normalization(axis=-1)
    layer.adapt(x)
    return layer


@keras.saving.register_keras_serializable("tests")
class Forgetful(L.Layer):
    """Its get_config leaves `by` out."""

    def __init__(self, by: float = 1.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.by = by

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        return inputs * self.by

    def get_config(self) -> dict[str, Any]:
        return super().get_config()


class Heavier(L.Layer):
    """Its copies make another number of weights, as get_config leaves `units` out."""

    def __init__(self, units: int = 2, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.inner = L.Dense(units)
        self.outer = L.Dense(3)

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        return self.outer(self.inner(inputs))

    def get_config(self) -> dict[str, Any]:
        return super().get_config()


class Silent(L.Layer):
    """A layer that can't be rebuilt at all."""

    def __init__(self, function: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.function = function

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        return self.function(inputs)


class Own(L.Layer):
    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        return FACTOR * inputs


class Constant(keras.initializers.Initializer):
    def __call__(self, shape: Any, dtype: Any = None, **kwargs: Any) -> Any:
        return keras.ops.full(shape, 0.25, dtype)


class Noisy(L.Layer):
    """Noise that is always on, as people write it for Monte Carlo dropout."""

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        return tf.nn.dropout(inputs, 0.3)


def leaky(x: tf.Tensor) -> tf.Tensor:
    return keras.ops.leaky_relu(x - 0.5, 0.1 * FACTOR)


@keras.saving.register_keras_serializable("tests")
class Net(keras.Model):
    """A subclassed model whose first layer was adapted to images, or holds one that was."""

    def __init__(self, by: float = 1.0, kind: str = "normalization", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.by, self.kind = by, kind
        scale = L.Normalization(axis=1 if kind == "axis 1" else -1)
        self.adapting = L.Discretization(num_bins=4) if kind == "discretization" else scale
        self.first = keras.Sequential([L.Identity(), scale]) if kind == "inside a model" else self.adapting
        self.flatten = L.Flatten()
        self.head = L.Dense(3)

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        return self.head(self.flatten(self.first(inputs))) * self.by

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"kind": self.kind}  # `by` is left out.


def net(by: float = 1.0, kind: str = "normalization") -> keras.Model:
    model = Net(by, kind)
    model.adapting.adapt(7 * X + 3)
    model(X)
    return model


def outputs(model: Any) -> np.ndarray:
    with noise_off():
        return np.asarray(model(X, training=False))


def exported(folder: Path) -> np.ndarray:
    loaded = tf.saved_model.load(str(folder))  # Kept: its functions hold the variables only weakly.
    return loaded.serve(X).numpy()


MODELS: dict[str, Callable[[], keras.Model]] = {
    "normalization": lambda: around(adapted()),
    "normalization inside": lambda: around(keras.Sequential([keras.Input(SHAPE), adapted(), L.Conv2D(2, 3)])),
    "wrapped normalization": lambda: around(L.TimeDistributed(adapted(7 * X[0] + 3))),
    "lambda": lambda: around(L.Lambda(lambda x: FACTOR * x - 1)),
    "lambda of a named function": lambda: around(L.Lambda(leaky)),
    "activation": lambda: around(L.Activation(leaky)),
    "activation of TensorFlow": lambda: around(L.Conv2D(3, 1, activation=tf.nn.swish)),
    "lambda as activation": lambda: around(L.Conv2D(3, 1, activation=lambda x: leaky(x) + FACTOR)),
    "wrapped activation": lambda: around(L.TimeDistributed(L.Dense(3, activation=leaky))),
    "own layer": lambda: around(Own()),
    "own initializer": lambda: around(L.Conv2D(2, 1, bias_initializer=Constant())),
    "discretization": lambda: around(L.Discretization([0.2, 0.4, 0.8], output_mode="int"), L.Rescaling(0.5)),
}


@pytest.mark.parametrize("case", MODELS)
def test_what_is_in_memory_is_rebuilt_as_it_is(case: str, tmp_path: Path) -> None:
    model = MODELS[case]()
    expected = outputs(model)
    np.testing.assert_allclose(outputs(randomize(model, 0.3)), expected, atol=1e-5)
    np.testing.assert_array_equal(outputs(with_precision(with_precision(model, "float64"), "float32")), expected)
    np.testing.assert_allclose(exported(save_model(model, tmp_path / "m", {})), expected, atol=1e-5)
    np.testing.assert_allclose(outputs(model), expected)


@pytest.mark.parametrize("kind", ["normalization", "inside a model", "axis 1"])
def test_a_subclassed_model_keeps_what_was_adapted(kind: str, tmp_path: Path) -> None:
    model = net(kind=kind)
    folder = save_model(model, tmp_path / "m", {})
    np.testing.assert_allclose(exported(folder), outputs(model), atol=1e-5)
    loaded = load_model(folder)
    np.testing.assert_allclose(outputs(loaded), outputs(model), atol=1e-6)
    np.testing.assert_allclose(exported(save_model(loaded, tmp_path / "again", {})), outputs(model), atol=1e-5)


def refused(call: Callable[[], Any], part: str) -> None:
    with pytest.raises(InputError, match=part) as caught:
        call()
    assert "\n" not in str(caught.value)


LOST: dict[str, tuple[Callable[[], keras.Model], str]] = {
    "another function": (lambda: around(Forgetful(by=1.2)), "differ by"),
    "inside a model": (lambda: around(keras.Sequential([keras.Input(SHAPE), Forgetful(by=0.5)])), "differ by"),
    "other weights": (lambda: around(Heavier(5)), "other weights"),
    "no configuration": (lambda: around(Silent(leaky)), "Silent"),
}


@pytest.mark.parametrize("case", LOST)
def test_what_a_configuration_leaves_out_is_refused(case: str, tmp_path: Path) -> None:
    make, part = LOST[case]
    refused(lambda: randomize(make(), 0.2), part)
    refused(lambda: save_model(make(), tmp_path / "m", {}), part)
    refused(lambda: with_precision(make(), "mixed_bfloat16"), part)
    assert not list(tmp_path.iterdir())


def test_a_small_loss_is_not_hidden_by_rounding() -> None:
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = around(Forgetful(by=1.05))
    finally:
        keras.config.set_dtype_policy("float32")
    refused(lambda: with_precision(model, "float32"), "differ by")


def test_a_subclassed_model_that_would_be_another_is_refused(tmp_path: Path) -> None:
    refused(lambda: save_model(net(by=1.5), tmp_path / "m", {}), "differ by")
    refused(lambda: save_model(net(by=0.9, kind="inside a model"), tmp_path / "m", {}), "differ by")
    # Keras keeps no boundaries for a layer that isn't in the configuration.
    refused(lambda: save_model(net(kind="discretization"), tmp_path / "m", {}), "can be rebuilt from get_config")


def test_noise_of_ones_own_is_no_difference(tmp_path: Path) -> None:
    random = randomize(around(Noisy()), 0.2)
    assert [type(layer) for layer in random.layers][:3:2] == [Noisy, RandomDropout]
    save_model(around(Noisy()), tmp_path / "m", {})
    refused(lambda: randomize(around(Noisy(), Forgetful(by=3.0)), 0.2), "differ by")


@pytest.mark.parametrize("mode", ["int8", "int4", "float8"])
def test_a_quantized_network(mode: str, tmp_path: Path) -> None:
    model = around(L.Conv2D(4, 3), L.Dense(6))
    model.quantize(mode)
    expected = outputs(model)
    folder = save_model(model, tmp_path / "m", {})
    loaded = load_model(folder)
    np.testing.assert_allclose(outputs(loaded), expected, atol=1e-5)
    assert loaded.layers[-1].quantization_mode == mode
    np.testing.assert_allclose(exported(folder), expected, atol=1e-5)
    random = randomize(model, 0.3)
    np.testing.assert_allclose(outputs(random), expected, atol=1e-5)
    assert not np.allclose(random(X), random(X), atol=1e-3)
    assert {layer.compute_dtype for layer in random.layers if isinstance(layer, RandomDropout)} == {"float32"}
    refused(lambda: trainable(model), f"quantized to {mode}")


@pytest.mark.parametrize("mode", ["int8", "int4", "float8"])
def test_a_quantized_network_is_judged_by_what_it_predicts(mode: str) -> None:
    """The gradients pass the rounding, and what is found is found in the quantized network itself."""
    model = around(L.Conv2D(4, 3), L.Dense(6))
    model.quantize(mode)
    y = model.predict(X, verbose=0).argmax(axis=1)
    y[0] = (y[0] + 1) % 4
    found = evaluate(model, X, y, attacks=PGD(epsilon=0.1, steps=4), audit=False)
    assert [report.attack.name for report in found.attacks] == ["pgd"] and found.clean_accuracy == pytest.approx(5 / 6)
    after = model.predict(found.worst.x_adv, verbose=0).argmax(axis=1)
    np.testing.assert_array_equal(found.per_example, after == y)
    assert found.robust_accuracy < found.clean_accuracy


def test_a_network_quantized_from_mixed_precision_has_mixed_noise() -> None:
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = around(L.Dense(6), L.Dense(4))
    finally:
        keras.config.set_dtype_policy("float32")
    model.quantize("int8")
    random = randomize(model, 0.3)
    assert {layer.compute_dtype for layer in random.layers if isinstance(layer, RandomDropout)} == {"bfloat16"}
    assert np.isfinite(random(X)).all()


def test_randomized_training_starts_from_the_normalized_network() -> None:
    random = randomize(trainable(around(adapted())), 0.3)
    mean, deviation = (7 * X + 3).mean((0, 1, 2)), (7 * X + 3).std((0, 1, 2))
    np.testing.assert_allclose(random.layers[0](X), (X - mean) / deviation, rtol=1e-3)


def test_the_folder_is_one_network(tmp_path: Path) -> None:
    """What isn't part of the network when it predicts is off in both forms; what always is, is on in both."""
    model = around(L.RandomFlip(), L.RandomRotation(0.4), L.GaussianNoise(0.5), L.Dropout(0.5))
    folder = save_model(model, tmp_path / "m", {})
    saved = SavedModelNetwork(folder)
    for _ in range(2):
        np.testing.assert_allclose(saved(X), model.predict(X, verbose=0), atol=1e-5)
        np.testing.assert_allclose(load_model(folder).predict(X, verbose=0), model.predict(X, verbose=0), atol=1e-5)
    noisy = save_model(randomize(model, 0.5), tmp_path / "noisy", {})
    for network in (SavedModelNetwork(noisy), load_model(noisy)):
        assert not np.allclose(network(tf.constant(X)), network(tf.constant(X)), atol=1e-3)
