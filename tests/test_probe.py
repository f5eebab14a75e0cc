"""What passes over random images show: noise, also where they agree by chance, and models that can't be attacked."""

from __future__ import annotations

from collections.abc import Callable

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import SHAPE
from keras import layers as L

from kerasrobust.errors import InputError
from kerasrobust.networks.making import as_classifier


class OtherNoise(L.Layer):
    """Somebody else's always-on noise, which knows nothing of our keys."""

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        return inputs + tf.random.normal(tf.shape(inputs))


def test_other_noise_is_found_and_said_to_be_unseeded() -> None:
    classifier = as_classifier(keras.Sequential([keras.Input(SHAPE), L.Flatten(), OtherNoise(), L.Dense(4)]))
    assert (classifier.randomized, classifier.seedable) == (True, False)
    assert [code for code, _ in classifier.warnings] == ["unseeded-noise"]


def one_of_three(compiled: bool) -> Callable[[tf.Tensor], tf.Tensor]:
    """A network of three, drawn anew for each batch, so that two passes agree by chance in a third of all cases."""
    kernels = tf.constant(np.random.default_rng(0).normal(size=(3, 192, 4)), tf.float32)

    def forward(x: tf.Tensor) -> tf.Tensor:
        return tf.reshape(x, (-1, 192)) @ kernels[tf.random.uniform((), 0, 3, tf.int32)]

    return tf.function(forward, input_signature=[tf.TensorSpec((None, *SHAPE))]) if compiled else forward


@pytest.mark.parametrize("compiled", [False, True])
def test_networks_that_agree_by_chance_are_random_and_follow_no_key(compiled: bool) -> None:
    for seed in range(12):
        tf.random.set_seed(seed)
        found = as_classifier(one_of_three(compiled), image_shape=SHAPE)
        assert (found.randomized, found.seedable, found.probed.untraced) == (True, False, "")


def with_two_inputs() -> keras.Model:
    a, b = keras.Input(SHAPE), keras.Input(SHAPE)
    return keras.Model([a, b], L.Dense(4)(L.Flatten()(a + b)))


def with_two_outputs() -> keras.Model:
    images = keras.Input(SHAPE)
    flat = L.Flatten()(images)
    return keras.Model(images, [L.Dense(4)(flat), L.Dense(4)(flat)])


BAD = {
    "not a model": (lambda: 3, "callable"),
    "two inputs": (with_two_inputs, "one input"),
    "two outputs": (with_two_outputs, "one output"),
    "two outputs of a function": (lambda: lambda x: (x[:, 0, 0], x[:, 0, 0]), "one output"),
    "labels alone": (lambda: lambda x: tf.argmax(x[:, 0, 0], axis=-1), "predict=function, classes=K"),
    "feature map": (lambda: keras.Sequential([keras.Input(SHAPE), L.Conv2D(4, 3)]), r"\(N, classes\)"),
    "vectors": (lambda: keras.Sequential([keras.Input((8,)), L.Dense(4)]), "images"),
    "NaN": (lambda: lambda x: x[:, 0, 0] * np.nan, "NaN"),
    "what Keras can't call": (
        lambda: keras.Sequential([keras.Input(SHAPE), L.Discretization([0.5]), L.Conv2D(2, 3), L.Flatten()]), "Conv2D",
    ),
    "another's mistake": (lambda: lambda x: x.no_such_thing, "no_such_thing"),
}  # fmt: skip


@pytest.mark.parametrize(("there", "advice"), [(False, "TF_ENABLE_ONEDNN_OPTS=1"), (True, "image_shape")])
def test_convolutions_that_need_onednn_say_so(there: bool, advice: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(x: tf.Tensor) -> tf.Tensor:
        message = "The Conv2D op currently only supports the NHWC tensor format on the CPU."
        raise tf.errors.UnimplementedError(None, None, message)

    monkeypatch.setattr("kerasrobust.networks.probe.has_onednn", lambda: there)
    with pytest.raises(InputError, match=advice):
        as_classifier(tf.function(fails, autograph=False), image_shape=SHAPE)


def test_a_second_input_is_fixed_as_the_message_says() -> None:
    images, other = keras.Input(SHAPE), keras.Input((5,))
    model = keras.Model([other, images], L.Dense(4)(L.Flatten()(images)) + L.Dense(4, bias_initializer="ones")(other))
    with pytest.raises(InputError, match="with 2 inputs") as caught:
        as_classifier(model)
    advice = str(caught.value).partition("Give ")[2].partition(", with the values")[0]
    assert advice == "lambda x: model([tf.zeros((tf.shape(x)[0], 5)), x], training=False)"
    x = np.random.default_rng(0).random((3, *SHAPE), np.float32)
    found = as_classifier(eval(advice, {"model": model, "tf": tf}), image_shape=SHAPE)
    np.testing.assert_allclose(found.run(x), model.predict([np.zeros((3, 5)), x], verbose=0), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_attacked_is_refused_in_one_line(name: str) -> None:
    make, part = BAD[name]
    with pytest.raises(InputError, match=part) as caught:
        as_classifier(make(), image_shape=None if name == "vectors" else SHAPE)
    assert "\n" not in str(caught.value) and "\x1b" not in str(caught.value)


def beyond(limit: float, refuses: bool, squash: Callable[[tf.Tensor], tf.Tensor]) -> Callable[[tf.Tensor], tf.Tensor]:
    """A model of one output, between 0 and 1 for images, that has none where pixels lie further away than `limit`."""

    def forward(x: tf.Tensor) -> tf.Tensor:
        largest = tf.reduce_max(abs(x), axis=(1, 2, 3))
        if refuses:
            tf.debugging.assert_less(largest, limit)
        output = squash(tf.reduce_mean(x, axis=(1, 2, 3)))
        return tf.where(largest < limit, output, np.nan)[:, None]

    return forward


@pytest.mark.parametrize("refuses", [False, True])
@pytest.mark.parametrize("limit", [5.0, 50.0, 5000.0])
def test_a_logit_between_0_and_1_is_no_probability_where_far_values_say_nothing(limit: float, refuses: bool) -> None:
    for squash, kind in ((tf.identity, "logits"), (tf.sigmoid, "sigmoid")):
        assert as_classifier(beyond(limit, refuses, squash), image_shape=SHAPE).probed.outputs == kind


class OfIntegers(keras.Model):
    """Takes whole numbers, which it doesn't show: pixels in [0, 1] are cut off to 0."""

    def __init__(self) -> None:
        super().__init__()
        seen = keras.Input((8, 8, 1), dtype="int32")
        self.inner = keras.Model(seen, L.Dense(1)(L.Flatten()(seen)))
        self.inner.quantize("int8")

    def call(self, x: tf.Tensor) -> tf.Tensor:
        return self.inner(x)


@pytest.mark.filterwarnings("ignore:Layer")
def test_one_logit_of_whole_numbers_in_8_bits_is_no_probability() -> None:
    keras.utils.set_random_seed(8494)
    model = OfIntegers()
    # All 0 for images, and no number at 1,000 times their size, where whole numbers of 8 bits overflow.
    assert not model.predict(np.full((1, 8, 8, 1), 0.9, np.float32), verbose=0).any()
    assert as_classifier(model, image_shape=(8, 8, 1)).probed.outputs == "logits"
