"""What an attack sees of a model: its logits, its shape, its noise, its images; `test_probe` has what is refused."""

from __future__ import annotations

import functools
import gc
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import check_images
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import layers as L

from kerasrobust.attacks.verdict import predict
from kerasrobust.errors import InputError
from kerasrobust.evaluation.evaluate import evaluate
from kerasrobust.networks.classifier import MANY, Classifier, has_gradient
from kerasrobust.networks.cloning import with_precision
from kerasrobust.networks.making import as_classifier, classifier_of
from kerasrobust.networks.noise import RandomDropout

SHAPE = (8, 8, 3)
KERNEL = np.random.default_rng(1).normal(size=(192, 4)).astype(np.float32)
BIAS = np.array([0.5, -0.5, 0.25, 0], np.float32)
X = np.random.default_rng(2).random((5, *SHAPE), np.float32)
LOGITS = X.reshape(5, -1) @ KERNEL + BIAS


def linear(*after: L.Layer, **dense: Any) -> keras.Model:
    """Returns images -> flatten -> the fixed dense layer -> `after`."""
    model = keras.Sequential([keras.Input(SHAPE), L.Flatten(), L.Dense(4, name="head", **dense), *after])
    model.get_layer("head").set_weights([KERNEL, BIAS])
    return model


def noisy(layer: L.Layer) -> keras.Model:
    return keras.Sequential([keras.Input(SHAPE), L.Flatten(), layer, L.Dense(4)])


class Subclassed(keras.Model):
    def __init__(self, activation: str | None = None) -> None:
        super().__init__()
        self.flatten = L.Flatten()
        self.head = L.Dense(4, activation=activation)

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        return self.head(self.flatten(inputs))


def functional_with_ops() -> keras.Model:
    images = keras.Input(SHAPE)
    dense = L.Dense(4)
    model = keras.Model(images, keras.ops.softmax(dense(L.Flatten()(images))))
    dense.set_weights([KERNEL, BIAS])
    return model


def nested_softmax() -> keras.Model:
    head = keras.Sequential([keras.Input((192,)), L.Dense(4), L.Softmax()])
    head.layers[0].set_weights([KERNEL, BIAS])
    return keras.Sequential([keras.Input(SHAPE), L.Flatten(), head])


def dict_of_images() -> keras.Model:
    images = keras.Input(SHAPE, name="images")
    dense = L.Dense(4, activation="softmax")
    model = keras.Model({"images": images}, {"probabilities": dense(L.Flatten()(images))})
    dense.set_weights([KERNEL, BIAS])
    return model


@pytest.mark.parametrize(
    "make",
    [
        linear,
        lambda: linear(activation="softmax"),
        lambda: linear(L.Softmax()),
        lambda: linear(L.Activation("softmax")),
        functional_with_ops,
        nested_softmax,
        dict_of_images,
    ],
    ids=["logits", "dense", "softmax", "activation", "ops", "nested", "dict"],
)
def test_logits_are_those_before_the_softmax(make: Callable[[], keras.Model]) -> None:
    classifier = as_classifier(make())
    np.testing.assert_allclose(classifier(X), LOGITS, rtol=1e-4, atol=1e-5)
    assert (classifier.image_shape, classifier.classes, classifier.warnings) == (SHAPE, 4, [])


def test_softmax_shares_the_weights_of_the_model() -> None:
    model = linear(activation="softmax")
    classifier = as_classifier(model)
    classifier.run(X)
    model.set_weights([KERNEL * 2, BIAS * 0])
    np.testing.assert_allclose(classifier.run(X), (LOGITS - BIAS) * 2, rtol=1e-4, atol=1e-5)


def test_opaque_probabilities_become_their_logarithm_with_a_warning() -> None:
    classifier = as_classifier(lambda x: tf.nn.softmax(tf.reshape(x, (-1, 192)) @ KERNEL + BIAS), image_shape=SHAPE)
    expected = LOGITS - np.log(np.exp(LOGITS).sum(axis=1, keepdims=True))
    np.testing.assert_allclose(classifier.run(X), expected, rtol=1e-3, atol=1e-4)
    assert [code for code, _ in classifier.warnings] == ["softmax-output"]


def test_probabilities_that_round_to_zero_stay_finite() -> None:
    classifier = as_classifier(
        lambda x: tf.nn.softmax(1e4 * (tf.reshape(x, (-1, 192)) @ KERNEL)), image_shape=SHAPE, classes=4
    )
    assert np.isfinite(classifier.run(X)).all()


def test_dense_subclass_is_not_taken_for_dense() -> None:
    class Doubled(L.Dense):
        def call(self, inputs: tf.Tensor) -> tf.Tensor:
            return super().call(2 * inputs)

    model = keras.Sequential([keras.Input(SHAPE), L.Flatten(), Doubled(4, activation="softmax")])
    got = as_classifier(model)(X)
    np.testing.assert_allclose(tf.nn.softmax(got), model(X), atol=1e-6)


def test_batch_normalisation_and_dropout_are_in_inference_mode() -> None:
    model = keras.Sequential([keras.Input(SHAPE), L.BatchNormalization(), L.Dropout(0.5), L.Flatten(), L.Dense(4)])
    before = model.get_weights()
    classifier = as_classifier(model)
    np.testing.assert_array_equal(classifier.run(X), classifier.run(X))
    assert not classifier.randomized
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_a_model_keeps_its_classifier_until_a_new_one_is_asked_for() -> None:
    @tf.function
    def function(x: tf.Tensor) -> tf.Tensor:
        return tf.reshape(x, (-1, 192)) @ KERNEL

    for model in (linear(), function):
        classifier = classifier_of(model, image_shape=SHAPE)
        assert classifier_of(model) is classifier
        for function in (classifier_of, as_classifier):
            assert function(classifier, image_shape=SHAPE) is classifier
        anew = as_classifier(model, image_shape=SHAPE)
        assert anew is not classifier
        assert classifier_of(model) is anew


def test_another_model_never_gets_a_kept_classifier() -> None:
    def three(x: tf.Tensor) -> tf.Tensor:
        return tf.reduce_mean(x, (1, 2))

    three = tf.function(three)
    classifier_of(three, image_shape=SHAPE)

    @functools.wraps(three)
    def two(x: tf.Tensor) -> tf.Tensor:
        return three(x)[:, :2]

    assert classifier_of(two, image_shape=SHAPE).classes == 2
    growing = linear()
    assert as_classifier(growing).classes == 4
    growing.add(L.Dense(6))
    assert as_classifier(growing).classes == 6


def test_training_keeps_the_classifier(tmp_path: Any) -> None:
    model = linear()
    kept = classifier_of(model)
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(X, np.zeros(len(X), int), verbose=0)
    model.evaluate(X, np.zeros(len(X), int), verbose=0)
    model.save_weights(tmp_path / "one.weights.h5")
    model.load_weights(tmp_path / "one.weights.h5")
    model.predict(X, verbose=0)
    assert classifier_of(model) is kept


def test_dropped_model_is_freed_with_its_classifier() -> None:
    model = linear(activation="softmax")
    classifier = as_classifier(model)
    predict(classifier, X)
    dropped = weakref.ref(model), weakref.ref(classifier)
    del model, classifier
    gc.collect()
    assert [ref() for ref in dropped] == [None, None]


def test_keeping_the_classifier_leaves_weights_and_files_alone(tmp_path: Any) -> None:
    model = linear()
    names = [weight.path for weight in model.weights]
    as_classifier(model)
    model.save(tmp_path / "m.keras")
    assert [weight.path for weight in model.weights] == names
    np.testing.assert_array_equal(keras.saving.load_model(tmp_path / "m.keras")(X), model(X))


def test_our_noise_follows_its_key() -> None:
    classifier = as_classifier(noisy(RandomDropout(0.5)))
    assert (classifier.randomized, classifier.seedable, classifier.warnings) == (True, True, [])
    one, two = tf.constant([0, 1]), tf.constant([0, 2])
    np.testing.assert_array_equal(classifier.run(X, one), classifier.run(X, one))
    assert not np.array_equal(classifier.run(X, one), classifier.run(X, two))
    assert not np.array_equal(classifier.run(X), classifier.run(X))


def test_subclassed_model_tells_its_shape_once_it_is_built() -> None:
    model = Subclassed("softmax")
    with pytest.raises(InputError, match="built"):
        as_classifier(model)
    model(X)
    classifier = as_classifier(model)
    assert (classifier.image_shape, classifier.classes) == (SHAPE, 4)
    assert [code for code, _ in classifier.warnings] == ["softmax-output"]
    np.testing.assert_allclose(tf.nn.softmax(classifier.run(X)), model(X), atol=1e-5)


def test_shape_that_is_not_fixed_is_tried_once() -> None:
    model = keras.Sequential([keras.Input((None, None, 3)), L.Conv2D(4, 3), L.GlobalAveragePooling2D()])
    classifier = as_classifier(model)
    assert classifier.image_shape == (None, None, 3)
    as_classifier(model, image_shape=(16, 12, 3))
    with pytest.raises(InputError, match="anyxanyx3"):
        as_classifier(model, image_shape=(16, 12, 2))
    with pytest.raises(InputError, match="fails on a batch"):
        as_classifier(model, image_shape=(1, 1, 3))


def test_gradients_are_found_where_there_are_any() -> None:
    assert has_gradient(as_classifier(linear()))
    assert has_gradient(as_classifier(noisy(RandomDropout(0.5))))
    assert not has_gradient(as_classifier(lambda x: tf.round(x)[:, 0, :, 0], image_shape=SHAPE))
    assert not has_gradient(as_classifier(lambda x: tf.stop_gradient(x)[:, 0, :, 0], image_shape=SHAPE))


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_an_operation_may_have_no_gradient_in_an_arithmetic(dtype: str) -> None:
    """TensorFlow turns images in bfloat16, and raises TypeError for the gradient (2.21)."""
    quarter = keras.layers.RandomRotation(0.25, seed=1, dtype=dtype)

    def turned(x: tf.Tensor) -> tf.Tensor:
        return tf.cast(quarter(tf.cast(x, dtype), training=True), tf.float32)[:, 0, :, 0]

    found = as_classifier(turned, image_shape=SHAPE)
    assert has_gradient(found) is (dtype == "float32")


@pytest.mark.parametrize("layer", [L.Dense(4), L.EinsumDense("ab,bc->ac", 4), L.Dense(4, activation="softmax")])
def test_gradients_that_keras_has_in_graphs_alone_are_found(layer: keras.Layer) -> None:
    """Those of layers in float8: without a graph TensorFlow fails in them."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input(SHAPE), L.Flatten(), layer])
    logits = layer.activation is not keras.activations.softmax
    layer.quantize("float8")
    x = np.random.default_rng(5).random((30, *SHAPE), np.float32)
    y = model.predict(x, verbose=0).argmax(axis=1)

    @tf.function
    def slope(images: tf.Tensor) -> tf.Tensor:
        losses = keras.losses.sparse_categorical_crossentropy(y, model(images), from_logits=logits)
        return tf.gradients(losses, images)[0]

    with pytest.raises(ValueError, match="unpack"), tf.GradientTape() as tape:
        tape.watch(images := tf.constant(x))
        tape.gradient(model(images), images)
    assert has_gradient(as_classifier(model))
    moved = np.clip(x + 0.02 * np.sign(slope(tf.constant(x))), 0, 1)
    expected = (model.predict(moved, verbose=0).argmax(axis=1) == y).mean()
    found = evaluate(model, x, y, attacks="fgsm", epsilon=0.02, audit=False)
    assert 0 < expected < 1 and abs(found.robust_accuracy - expected) < 0.05


def test_stated_shape_and_classes_are_checked() -> None:
    with pytest.raises(InputError, match="10 classes"):
        as_classifier(linear(), classes=10)
    with pytest.raises(InputError, match=r"8x8x3.*--resize"):
        as_classifier(linear(), image_shape=(9, 8, 3))
    with pytest.raises(InputError, match="height, width, channels"):
        as_classifier(linear(), image_shape=(8, 8))


@pytest.fixture(scope="module")
def classifier() -> Iterator[Classifier]:
    yield as_classifier(linear())


Y = np.arange(5) % 4


def test_good_images_come_back_as_float32_and_int64(classifier: Classifier) -> None:
    x, y = check_images(classifier, X.astype(np.float64), list(Y))
    assert (x.dtype, y.dtype) == (np.float32, np.int64)
    np.testing.assert_array_equal(x, X)
    np.testing.assert_array_equal(y, Y)


@pytest.mark.parametrize(
    ("x", "y", "part"),
    [
        (X[0], Y, "shape"),
        (X[:0], Y[:0], "at least one"),
        (X[:, :4], Y, "8x8x3"),
        (X + 0.5, Y, r"\[0, 1\]"),
        (X - 0.5, Y, r"\[0, 1\]"),
        (np.where(X > 0.5, np.nan, X), Y, "NaN"),
        (np.where(X > 0.5, np.inf, X), Y, "inf"),
        (X, Y[:4], "5 integer labels"),
        (X, Y + 1, "from 0 to 3"),
        (X, Y - 1, "from 0 to 3"),
    ],
)
def test_bad_images_and_labels_are_refused_in_one_line(classifier: Classifier, x: Any, y: Any, part: str) -> None:
    with pytest.raises(InputError, match=part) as caught:
        check_images(classifier, x, y)
    assert "\n" not in str(caught.value)


@settings(deadline=None, max_examples=15)
@given(count=st.integers(1, 13), batch_size=st.integers(1, 16))
def test_prediction_does_not_depend_on_the_batch(classifier: Classifier, count: int, batch_size: int) -> None:
    x = np.random.default_rng(count).random((count, *SHAPE), np.float32)
    got = predict(classifier, x, batch_size)
    np.testing.assert_allclose(got, x.reshape(count, -1) @ KERNEL + BIAS, rtol=1e-4, atol=1e-5)
    assert got.dtype == np.float32


def test_prediction_of_nothing_is_empty(classifier: Classifier) -> None:
    assert predict(classifier, X[:0]).shape == (0, 4)


@pytest.mark.parametrize(("count", "calls"), [(4 * MANY - 1, MANY), (4 * MANY + 1, 1)], ids=["called", "traced"])
def test_last_batch_is_padded_and_many_batches_are_traced_once(count: int, calls: int) -> None:
    shapes = []

    def function(x: tf.Tensor) -> tf.Tensor:
        shapes.append(tuple(x.shape))
        return tf.reduce_mean(x, (1, 2))

    classifier = as_classifier(function, image_shape=SHAPE)
    shapes.clear()
    x = np.random.default_rng(0).random((count, *SHAPE), np.float32)
    np.testing.assert_allclose(predict(classifier, x, batch_size=4), x.mean((1, 2)), rtol=1e-5)
    assert shapes == [(4, *SHAPE)] * calls


def test_passes_over_what_cannot_be_kept_are_not_traced_again_and_again() -> None:
    """A graph for one size of batch can't be compared with a few images, so none is kept."""
    traced = 0

    def function(x: tf.Tensor) -> tf.Tensor:
        nonlocal traced
        traced += not tf.executing_eagerly()
        return tf.reduce_mean(x, (1, 2))

    classifier = as_classifier(function, image_shape=SHAPE)
    traced = 0
    for _ in range(MANY + 3):
        predict(classifier, X)
    assert traced == 0


def test_prediction_repeats_under_a_key_and_batches_differ() -> None:
    classifier = as_classifier(noisy(RandomDropout(0.5)))
    x = np.repeat(X[:1], 4, axis=0)
    once = predict(classifier, x, batch_size=2, key=[0, 7])
    np.testing.assert_array_equal(once, predict(classifier, x, batch_size=2, key=[0, 7]))
    assert not np.array_equal(once[:2], once[2:])
    assert not np.array_equal(predict(classifier, x), predict(classifier, x))


@pytest.mark.parametrize("make", [linear, functional_with_ops, nested_softmax], ids=["linear", "ops", "nested"])
def test_precision_there_and_back_keeps_the_weights(make: Callable[[], keras.Model]) -> None:
    model = make()
    assert with_precision(model, "float32") is model
    mixed = with_precision(model, "mixed_bfloat16")
    back = with_precision(mixed, "float32")
    np.testing.assert_array_equal(back(X), model(X))
    assert mixed(X).dtype == tf.float32
    np.testing.assert_allclose(mixed(X), model(X), atol=0.2)


def test_mixed_precision_computes_in_bfloat16_but_for_the_logits() -> None:
    model = keras.Sequential(
        [keras.Input(SHAPE), L.Conv2D(4, 3), RandomDropout(0.5, seed=1), L.Flatten(), L.Dense(4), L.Softmax()]
    )
    mixed = with_precision(model, "mixed_bfloat16")
    assert [layer.compute_dtype for layer in mixed.layers] == ["bfloat16"] * 3 + ["float32"] * 2
    assert as_classifier(mixed).run(X).dtype == np.float32


def test_subclassed_model_has_no_twin_in_another_precision() -> None:
    model = Subclassed()
    model(X)
    assert with_precision(model, "float32") is model
    with pytest.raises(InputError, match="functional or Sequential"):
        with_precision(model, "mixed_bfloat16")
