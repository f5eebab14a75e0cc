"""A classifier that was made before isn't used again where its model has changed by more than its weights."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import PIXELS, SHAPE, linear_model
from keras import layers as L

from kerasrobust.errors import InputError
from kerasrobust.networks.architectures import build_model
from kerasrobust.networks.classifier import Classifier, as_classifier
from kerasrobust.networks.noise import RandomDropout, randomize
from kerasrobust.networks.saving import load_model

KERNEL = np.random.default_rng(1).normal(size=(PIXELS, 4)).astype(np.float32)
BIAS = np.array([0.5, -0.5, 0.25, 0], np.float32)
X = np.random.default_rng(2).random((5, *SHAPE), np.float32)
LOGITS = X.reshape(5, -1) @ KERNEL + BIAS


def linear(*after: L.Layer) -> keras.Model:
    return keras.Sequential([keras.Input(SHAPE), linear_model(KERNEL, BIAS), *after])


def test_a_layer_with_another_setting_makes_another_classifier() -> None:
    """Graphs hold what a layer was told when they were traced, and not what it was told since."""
    dropout = RandomDropout(0.1)
    noise = keras.Sequential([keras.Input(SHAPE), L.Flatten(), dropout])
    for rate in (0.1, 0.9):
        dropout.rate = rate
        assert np.mean(as_classifier(noise).run(X) == 0) == pytest.approx(rate, abs=0.05)
    network = linear(L.Activation("linear"))
    np.testing.assert_allclose(as_classifier(network).run(X), LOGITS, rtol=1e-4, atol=1e-4)
    network.layers[-1].activation = keras.activations.relu
    np.testing.assert_allclose(as_classifier(network).run(X), np.maximum(LOGITS, 0), rtol=1e-4, atol=1e-4)


def test_arrays_that_layers_hold_are_settings_too() -> None:
    scale, norm = L.Rescaling([1.0, 2.0, 3.0]), L.Normalization()
    norm.adapt(X)
    network = keras.Sequential([keras.Input(SHAPE), scale, norm, L.Flatten(), L.Dense(4)])

    def check() -> None:
        np.testing.assert_allclose(as_classifier(network).run(X), network(X), rtol=1e-3, atol=1e-3)

    check()
    scale.scale = [3.0, 1.0, -1.0]
    check()
    norm.adapt(3 * X + 5)
    check()


def test_what_a_large_array_or_a_late_built_layer_holds_is_a_setting_too() -> None:
    norm = L.Normalization()
    scale = L.Rescaling(np.ones((64, 64, 3), np.float32))
    images = np.random.default_rng(3).random((4, 64, 64, 3), np.float32)
    network = keras.Sequential([scale, norm, L.GlobalAveragePooling2D(), L.Dense(4)])  # Built by what asks first.
    for change in (lambda: None, lambda: norm.adapt(3 * images + 5), lambda: setattr(scale, "scale", 2 * scale.scale)):
        change()
        found = as_classifier(network, image_shape=images.shape[1:]).run(images)
        np.testing.assert_allclose(found, network(images), rtol=1e-3, atol=1e-3)


class Helper:
    """What Python code asks besides a model's weights."""

    def __init__(self) -> None:
        self.times = 1.0


def in_a_layer(where: Callable[[Helper], Any]) -> Callable[[Helper], Any]:
    class Holding(L.Layer):
        def __init__(self, helper: Helper) -> None:
            super().__init__()
            self._held = where(helper)

        def call(self, inputs: tf.Tensor) -> tf.Tensor:
            return inputs * (self._held["helper"] if isinstance(self._held, dict) else self._held).times

    return lambda helper: linear(Holding(helper))


def in_a_subclass(helper: Helper) -> keras.Model:
    class Subclass(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.inner = linear()

        def call(self, inputs: tf.Tensor, training: bool | None = None) -> tf.Tensor:
            return self.inner(inputs) * helper.times

    return Subclass()


def in_a_lambda(helper: Helper) -> keras.Model:
    return linear(L.Lambda(lambda inputs: inputs * helper.times))


class Times(keras.Operation):
    def __init__(self, helper: Helper) -> None:
        super().__init__()
        self.helper = helper

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        return inputs * self.helper.times

    def compute_output_spec(self, inputs: keras.KerasTensor) -> keras.KerasTensor:
        return keras.KerasTensor(inputs.shape, inputs.dtype)


def in_an_operation(helper: Helper) -> keras.Model:
    images = keras.Input(SHAPE)
    return keras.Model(images, Times(helper)(linear()(images)))


def in_a_mapped_function(helper: Helper) -> keras.Model:
    images = keras.Input(SHAPE)
    return keras.Model(images, keras.ops.vectorized_map(lambda one: one * helper.times, linear()(images)))


def in_a_mapped_argument(helper: Helper) -> keras.Model:
    images = keras.Input(SHAPE)
    return keras.Model(images, keras.ops.map(lambda one: one * helper.times, linear()(images)))


def beside_a_masked_class(helper: Helper) -> keras.Model:
    """As networks say that a class is impossible; rounding of such a number is larger than the other logits."""
    return linear(L.Lambda(lambda inputs: inputs * helper.times), L.Lambda(lambda inputs: inputs - [0, 0, 0, 1e9]))


def followed(model: Any, change: Callable[[], None]) -> None:
    """Checks that the same classifier comes back until something changes, and then one that says the same again."""

    def check() -> None:
        np.testing.assert_allclose(as_classifier(model, image_shape=SHAPE).run(X), model(X), rtol=1e-4, atol=1e-4)

    kept = as_classifier(model, image_shape=SHAPE)
    check()
    assert as_classifier(model, image_shape=SHAPE) is kept
    change()
    assert as_classifier(model, image_shape=SHAPE) is not kept
    check()


@pytest.mark.parametrize(
    "make",
    [
        in_a_layer(lambda helper: helper),
        in_a_layer(lambda helper: {"helper": helper}),
        in_a_lambda,
        in_an_operation,
        in_a_mapped_function,
        in_a_mapped_argument,
        in_a_subclass,
        beside_a_masked_class,
    ],
    ids=["private", "dict", "lambda", "operation", "mapped", "argument", "subclass", "masked"],
)
def test_what_python_code_in_a_model_reads_is_followed(make: Callable[[Helper], keras.Model]) -> None:
    helper = Helper()
    model = make(helper)
    followed(model, lambda: setattr(helper, "times", 0.999))


class Wrapper:
    """A model with a step before it, as people write it without Keras."""

    def __init__(self, model: Callable[[Any], Any], kernel: np.ndarray = KERNEL) -> None:
        self.model, self.kernel = model, kernel

    def __call__(self, x: tf.Tensor) -> tf.Tensor:
        return self.model(x) + tf.reshape(x, (-1, PIXELS)) @ self.kernel


def test_callables_say_what_they_say_now() -> None:
    """Nothing tells what a callable reads, not even to a pass over random images: two networks may agree there."""
    wrapper = Wrapper(linear())
    models = [wrapper, lambda x: wrapper.model(x), functools.partial(Wrapper.__call__, wrapper), L.Lambda(wrapper)]
    models.append(lambda x: wrapper(tf.constant(x.__array__())).numpy())  # NumPy code.
    changes = [
        lambda: None,
        lambda: setattr(wrapper, "kernel", -KERNEL),
        lambda: setattr(wrapper, "model", linear(L.ReLU())),
        lambda: setattr(wrapper, "model", Wrapper(linear())),
        lambda: setattr(wrapper.model, "kernel", 3 * KERNEL),
    ]
    for change in changes:
        change()
        for model in models:
            found = as_classifier(model, image_shape=SHAPE).run(X)
            np.testing.assert_allclose(found, model(tf.constant(X)), rtol=1e-4, atol=1e-4)


def test_a_graph_is_kept(tmp_path: Any) -> None:
    """What TensorFlow has traced already has read what it reads."""
    network = linear()
    network.export(tmp_path / "exported", verbose=False)
    function = tf.function(lambda x: network(x))
    models = [function, function.get_concrete_function(tf.TensorSpec((None, *SHAPE)))]
    models += [L.TFSMLayer(tmp_path / "exported", call_endpoint="serve"), load_model(tmp_path / "exported")]
    for model in models:
        classifier = as_classifier(model, image_shape=SHAPE)
        assert as_classifier(model, image_shape=SHAPE) is classifier
        np.testing.assert_allclose(classifier.run(X), LOGITS, rtol=1e-4, atol=1e-4)


def functional() -> keras.Model:
    images = keras.Input(SHAPE)
    hidden = L.BatchNormalization()(L.Conv2D(4, 3, activation="relu")(images))
    return keras.Model(images, keras.ops.relu(L.Dense(4)(L.Flatten()(hidden))) * 2)


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
def test_what_keras_says_all_of_needs_no_pass(policy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    keras.config.set_dtype_policy(policy)
    try:
        models = [functional(), linear(L.ReLU()), build_model("convnet", widths=(2, 4))]
    finally:
        keras.config.set_dtype_policy("float32")
    models.append(randomize(models[-1], 0.1))
    for model in models:
        kept = as_classifier(model)
        assert kept.gap is None
        monkeypatch.setattr(Classifier, "__call__", None)
        model.set_weights([2 * part for part in model.get_weights()])
        assert as_classifier(model) is kept
        monkeypatch.undo()


@pytest.mark.filterwarnings("error")
def test_a_class_that_is_masked_by_infinity_is_no_noise() -> None:
    model = linear(L.Lambda(lambda inputs: inputs - [0, 0, 0, np.inf]))
    kept = as_classifier(model)
    assert not kept.randomized
    assert kept.gap == pytest.approx(0, abs=1e-6)
    assert as_classifier(model) is kept


def test_what_runs_in_graphs_alone_is_followed_too() -> None:
    helper = Helper()

    class Slope(L.Layer):
        def call(self, inputs: tf.Tensor) -> tf.Tensor:
            return inputs + helper.times * tf.gradients(tf.reduce_sum(inputs**2), inputs)[0]

    class Asserting(Slope):
        def call(self, inputs: tf.Tensor) -> tf.Tensor:
            assert not tf.executing_eagerly()
            return super().call(inputs)

    for model in (linear(Slope()), linear(Asserting())):
        for helper.times in (1.0, 2.0):
            found = as_classifier(model).run(X)
            np.testing.assert_allclose(found, (1 + 2 * helper.times) * LOGITS, rtol=1e-4, atol=1e-4)


def test_noise_that_cant_be_seeded_hides_no_change() -> None:
    helper = Helper()

    class Noisy(L.Layer):
        def call(self, inputs: tf.Tensor) -> tf.Tensor:
            return helper.times * (inputs + tf.random.uniform(tf.shape(inputs), 0, 1e-3))

    model = linear(Noisy())
    for helper.times in (1.0, 2.0):
        np.testing.assert_allclose(as_classifier(model).run(X), helper.times * LOGITS, rtol=1e-4, atol=1e-2)


def test_code_that_fails_since_is_refused_in_one_line() -> None:
    helper = Helper()
    model = in_a_lambda(helper)
    as_classifier(model)
    helper.times = None  # type: ignore[assignment]
    with pytest.raises(InputError) as told:
        as_classifier(model)
    assert "\n" not in str(told.value)


def test_frozen_normalisation_is_followed_where_a_model_asks_for_training_mode() -> None:
    class Training(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.norm, self.inner = L.BatchNormalization(), linear()

        def call(self, inputs: tf.Tensor, training: bool | None = None) -> tf.Tensor:
            return self.inner(self.norm(inputs, training=True))

    model = Training()
    model(X)
    as_classifier(model, image_shape=SHAPE).run(X)
    model.trainable = False
    np.testing.assert_allclose(as_classifier(model, image_shape=SHAPE).run(X), model(X), rtol=1e-3, atol=1e-3)


class Counting(L.Layer):
    """Remembers how often it was called, and what it saw last."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        self.calls += 1
        self.last = tf.reduce_mean(inputs, axis=1)
        return inputs


def test_what_calls_change_is_no_setting() -> None:
    model = linear(Counting())
    kept = as_classifier(model)
    for _ in range(2):
        model(X)
        assert as_classifier(model) is kept
        kept.run(X)
        assert as_classifier(model) is kept
