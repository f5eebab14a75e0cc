"""Models of other conventions: what attacks see of them is what Keras itself computes of converted images."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import SHAPE, images
from keras import layers as L

from kerasrobust.attacks import PGD, DeepFool
from kerasrobust.errors import InputError
from kerasrobust.evaluation.evaluate import evaluate
from kerasrobust.networks.adapters.adapter import Conventions, logits_from
from kerasrobust.networks.adapters.inputs import adapted
from kerasrobust.networks.classifier import has_gradient
from kerasrobust.networks.making import as_classifier
from kerasrobust.networks.probe import apart
from kerasrobust.networks.saving import load_model

X = images(12, seed=4)
KERNEL = np.random.default_rng(0).normal(size=(192, 4)).astype(np.float32)


def net(*head: L.Layer, shape: tuple[int, ...] = SHAPE, **given: Any) -> keras.Model:
    """A small network with fixed weights; what `head` adds comes behind its flattened images."""
    keras.utils.set_random_seed(3)
    return keras.Sequential([keras.Input(shape, **given), L.Flatten(), *head])


def preprocessed(mode: str) -> np.ndarray:
    """What Keras' own preprocessing makes of the images."""
    return keras.applications.imagenet_utils.preprocess_input(np.array(X) * 255, mode=mode)


RANGES = {
    "0,255": lambda: X * 255,
    "-1,1": lambda: preprocessed("tf"),
    "imagenet": lambda: preprocessed("torch"),
    "caffe": lambda: preprocessed("caffe"),
    "0,16": lambda: X * 16,
    "1,0": lambda: 1 - X,
    "255,0": lambda: 255 * (1 - X),
    "0.4/0.2": lambda: (X - 0.4) / 0.2,
    "0.4,0.5,0.6/0.1,0.2,0.3": lambda: (X - [0.4, 0.5, 0.6]) / [0.1, 0.2, 0.3],
}


@pytest.mark.parametrize("name", RANGES)
def test_ranges_are_those_of_keras(name: str) -> None:
    model = net(L.Dense(4))
    expected = model(RANGES[name]().astype(np.float32))
    np.testing.assert_allclose(as_classifier(model, input_range=name).run(X), expected, rtol=1e-4, atol=1e-4)


def test_order_of_colours_and_numbers_for_the_range() -> None:
    model = net(L.Dense(4))
    seen = as_classifier(model, input_range=(0, 255), colors="bgr").run(X)
    np.testing.assert_allclose(seen, model(X[..., ::-1] * 255), rtol=1e-5)


@pytest.mark.parametrize("wrong", ["0..255", "255", "1,1", "0.5/0", "a/b", "1,2,3"])
def test_a_range_that_cannot_be_read_is_refused(wrong: str) -> None:
    with pytest.raises(InputError, match="Expected a range of pixels"):
        Conventions(input_range=wrong)


@pytest.mark.parametrize("last", [L.Conv2D(4, 8), L.GlobalAveragePooling2D(keepdims=True)])
def test_outputs_of_one_pixel_are_those_of_a_classifier(last: L.Layer) -> None:
    model = keras.Sequential([keras.Input((8, 8, 3)), L.Conv2D(4, 1), last])
    np.testing.assert_allclose(as_classifier(model, input_range="0,1").run(X), model(X)[:, 0, 0], rtol=1e-5)


def test_missing_channel_axis() -> None:
    model = net(L.Dense(4), shape=(8, 8))
    classifier = as_classifier(model)
    assert classifier.image_shape == (8, 8, 1)
    np.testing.assert_allclose(classifier.run(X[..., :1]), model(X[..., 0]), rtol=1e-5)


def test_rows_of_numbers() -> None:
    model = keras.Sequential([keras.Input((192,)), L.Dense(4)])
    assert as_classifier(model).image_shape == (8, 8, 3)
    np.testing.assert_allclose(as_classifier(model, image_shape=SHAPE).run(X), model(X.reshape(12, -1)), rtol=1e-5)


def test_rows_of_numbers_with_the_channels_first() -> None:
    model = keras.Sequential([keras.Input((192,)), L.Dense(4)])
    classifier = as_classifier(model, image_shape=SHAPE, channels="first")
    np.testing.assert_allclose(classifier.run(X), model(X.transpose(0, 3, 1, 2).reshape(12, -1)), rtol=1e-5)


def channels_first() -> keras.Model:
    seen = keras.Input((3, 8, 8))
    hidden = L.Conv2D(4, 3, activation="relu", data_format="channels_first")(seen)
    return keras.Model(seen, L.Dense(4)(L.Flatten()(hidden)))


@pytest.mark.parametrize("make", [channels_first, lambda: net(L.Dense(4), shape=(3, 8, 8))])
def test_channels_first_is_read_off_the_model(make: Callable[[], keras.Model]) -> None:
    model = make()
    classifier = as_classifier(model)
    assert classifier.image_shape == (8, 8, 3)
    np.testing.assert_allclose(classifier.run(X), model(X.transpose(0, 3, 1, 2)), rtol=1e-4, atol=1e-5)
    attacked = PGD(epsilon=0.05, steps=3)(model, X, np.asarray(classifier.run(X).argmax(axis=1)))
    assert abs(attacked.x_adv - X).max() <= 0.05 + 1e-6 and attacked.x_adv.shape == X.shape


def test_channels_first_can_be_said_where_the_shape_leaves_it_open() -> None:
    model = net(L.Dense(4), shape=(3, 8, 3))
    assert as_classifier(model).image_shape == (3, 8, 3)
    assert as_classifier(model, channels="first").image_shape == (8, 3, 3)


@pytest.mark.parametrize("dtype", ["uint8", "int32"])
def test_integers_as_inputs_have_gradients_past_the_rounding(dtype: str) -> None:
    model = net(L.Rescaling(1 / 255), L.Dense(4), dtype=dtype)
    classifier = as_classifier(model)
    np.testing.assert_allclose(classifier.run(X), model(np.round(X * 255).astype(dtype)), rtol=1e-5, atol=1e-6)
    assert has_gradient(classifier)
    functional = keras.Model(seen := keras.Input(SHAPE, dtype=dtype), model(seen))
    np.testing.assert_allclose(as_classifier(functional).run(X), classifier.run(X), rtol=1e-5, atol=1e-6)
    model.layers[-1].kernel.assign(KERNEL)  # The very layers.
    np.testing.assert_allclose(classifier.run(X), model(np.round(X * 255).astype(dtype)), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("activation", ["sigmoid", None])
def test_one_output_stands_for_two_classes(activation: str | None) -> None:
    model = net(L.Dense(1, activation=activation))
    logit = (X.reshape(12, -1) @ model.layers[-1].kernel.numpy() + model.layers[-1].bias.numpy())[:, 0]
    classifier = as_classifier(model)
    assert classifier.classes == 2 and classifier.warnings == []
    np.testing.assert_allclose(classifier.run(X), np.stack([0 * logit, logit], axis=1), rtol=1e-4, atol=1e-5)


class Opaque(keras.Model):
    """A model in whose code nobody sees the sigmoid."""

    def __init__(self, inner: keras.Model) -> None:
        super().__init__()
        self.inner = inner

    def call(self, x: tf.Tensor) -> tf.Tensor:
        return tf.sigmoid(self.inner(x))


def opaque(inner: keras.Model) -> keras.Model:
    model = Opaque(inner)
    model(X)
    return model


def exported(model: keras.Model, folder: Path) -> Any:
    model.export(folder / "m", verbose=False)
    return load_model(folder / "m")


FORMS: dict[str, Callable[[keras.Model, Path], Any]] = {
    "function": lambda inner, folder: lambda x: tf.sigmoid(inner(x)),
    "graph": lambda inner, folder: tf.function(lambda x: 1 / (1 + tf.exp(-inner(x)))),
    "subclass": lambda inner, folder: opaque(inner),
    "SavedModel": lambda inner, folder: exported(keras.Sequential([inner, L.Activation("sigmoid")]), folder),
    "SavedModel of a subclass": lambda inner, folder: exported(opaque(inner), folder),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("units", [1, 4])
def test_sigmoids_are_found_by_probing_whatever_the_model_is(units: int, form: str, tmp_path: Path) -> None:
    inner = net(L.Dense(units))
    model = FORMS[form](inner, tmp_path)
    classifier = as_classifier(model, image_shape=SHAPE, input_range=(0, 1), colors="rgb")
    assert [code for code, _ in classifier.warnings] == ["sigmoid-output"]
    expected = inner(X).numpy()
    expected = np.concatenate([0 * expected, expected], axis=1) if units == 1 else expected
    np.testing.assert_allclose(classifier.run(X), expected, rtol=1e-3, atol=1e-4)


def test_a_vector_of_probabilities_is_one_output() -> None:
    model = net(L.Dense(1, activation="sigmoid"))
    classifier = as_classifier(lambda x: model(x)[:, 0], image_shape=SHAPE)
    assert classifier.classes == 2
    assert ((classifier.run(X)[:, 1] > 0) == (model(X).numpy()[:, 0] > 0.5)).all()


def test_logits_between_0_and_1_are_logits() -> None:
    model = net(L.Dense(2))
    model.layers[-1].set_weights([np.full((192, 2), 1e-3, np.float32), np.float32([0.1, 0.3])])
    classifier = as_classifier(lambda x: model(x), image_shape=SHAPE)
    np.testing.assert_allclose(classifier.run(X), model(X), rtol=1e-6)


def test_probabilities_that_are_said_to_be_so() -> None:
    assert logits_from(tf.constant([[0.25, 0.75]]), "softmax").numpy() == pytest.approx(np.log([[0.25, 0.75]]))
    assert logits_from(tf.constant([[0.2]]), "sigmoid").numpy() == pytest.approx(
        np.array([[0, np.log(0.25)]]), rel=1e-5
    )
    # The ends are far away, but no infinities.
    ends = logits_from(tf.constant([[0.0], [1.0]]), "sigmoid").numpy()[:, 1]
    assert np.isfinite(ends).all() and ends[0] < -60 and ends[1] > 16


def with_a_fixed_batch(size: int) -> keras.Model:
    """Takes that many images, and no others."""
    seen = keras.Input(batch_shape=(size, *SHAPE))
    return keras.Model(seen, L.Dense(4)(keras.ops.reshape(seen, (size, 192))))


@pytest.mark.parametrize("size", [1, 5])
def test_a_fixed_batch_gets_its_pieces(size: int) -> None:
    model = with_a_fixed_batch(size)
    kernel, bias = model.get_weights()
    classifier = as_classifier(model)
    np.testing.assert_allclose(classifier.run(X), X.reshape(12, -1) @ kernel + bias, rtol=1e-4, atol=1e-5)
    x = tf.constant(X)
    with tf.GradientTape() as tape:
        tape.watch(x)
        lead = tf.reduce_sum(classifier(x)[:, 0])
    np.testing.assert_allclose(
        tape.gradient(lead, x).numpy().reshape(12, -1), np.tile(kernel[:, 0], (12, 1)), rtol=1e-4
    )


@pytest.mark.parametrize("order", ["C", "F"])
def test_a_fixed_batch_is_filled_with_the_same_examples(order: Any) -> None:
    """Two of four are left, the first and the last, so that 0, 3, 0, 3 is what a batch of four gets."""
    model = with_a_fixed_batch(4)
    free = keras.Sequential([keras.Input(SHAPE), L.Flatten(), L.Dense(4)])
    free.set_weights(model.get_weights())
    x = np.asarray(X[:4], order=order)
    y = free.predict(x, verbose=0).argmax(axis=1)
    y[1:3] = (y[1:3] + 1) % 4
    one, other = (DeepFool()(network, x, y, batch_size=4) for network in (model, free))
    np.testing.assert_allclose(one.distance, other.distance, rtol=1e-4)
    assert one.success.all() and 0 < one.distance[3] < 1


def test_a_batch_in_the_name_only_is_no_fixed_batch() -> None:
    model = keras.Sequential([L.Flatten(), L.Dense(4)])
    model(X)
    assert as_classifier(model).adapter.batch is None


def with_two_outputs(named: bool) -> keras.Model:
    seen = keras.Input(SHAPE)
    flat = L.Flatten()(seen)
    outputs = {"label": L.Dense(4, name="a")(flat), "box": L.Dense(6, name="b")(flat)}
    return keras.Model(seen, outputs if named else list(outputs.values()))


@pytest.mark.parametrize(("named", "output"), [(True, "label"), (False, "a")])
def test_one_of_several_outputs(named: bool, output: str) -> None:
    model = with_two_outputs(named)
    with pytest.raises(InputError, match=f"{output}.*--output NAME"):
        as_classifier(model)
    expected = model(X)["label"] if named else model(X)[0]
    np.testing.assert_allclose(as_classifier(model, output=output).run(X), expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("takes", "given"), [(3, X[..., :1]), (1, X), (3, np.concatenate([X, X[..., :1]], axis=3))], ids=["1", "3", "4"]
)
def test_grey_and_coloured_images(takes: int, given: np.ndarray) -> None:
    model = net(L.Dense(4), shape=(8, 8, takes))
    if takes == 1:
        expected = tf.image.rgb_to_grayscale(given)
    else:
        expected = given[..., :3] if given.shape[-1] == 4 else tf.image.grayscale_to_rgb(tf.constant(given))
    result = PGD(epsilon=0.02, steps=2)(model, given, np.zeros(12, np.int64))
    assert result.x_adv.shape == given.shape
    np.testing.assert_allclose(
        as_classifier(model, image_shape=given.shape[1:]).run(given), model(expected), rtol=1e-4, atol=1e-5
    )


def test_grey_images_in_three_channels_are_attacked_in_the_one_that_a_model_takes() -> None:
    """In an L2 ball of three channels the model would see a part of what was added only."""
    model, grey = net(L.Dense(4), shape=(8, 8, 1)), X[..., :1]
    y = model.predict(grey, verbose=0).argmax(axis=1)
    three, one = (PGD(norm="l2", epsilon=0.2, steps=3)(model, x, y, seed=1) for x in (grey.repeat(3, axis=3), grey))
    np.testing.assert_array_equal(three.x_adv, one.x_adv)
    coloured = PGD(norm="l2", epsilon=0.2, steps=3)(model, X, y)
    assert coloured.x_adv.shape == X.shape


def test_another_size_is_resized_where_it_is_asked_for() -> None:
    model = net(L.Dense(4))
    larger = images(4, seed=9).repeat(2, axis=1).repeat(2, axis=2)
    with pytest.raises(InputError, match="--resize"):
        as_classifier(model, image_shape=larger.shape[1:])
    classifier = as_classifier(model, image_shape=larger.shape[1:], resize=True)
    np.testing.assert_allclose(
        classifier.run(larger), model(tf.image.resize(larger, (8, 8), antialias=True)), rtol=1e-5
    )
    result = PGD(epsilon=0.02, steps=2)(classifier, larger, np.zeros(4, np.int64))
    assert result.x_adv.shape == larger.shape


KERNELS = [tf.constant(KERNEL), tf.constant(-KERNEL)]


class Either(keras.Model):
    """An ensemble as people write it: a network of several, drawn anew in each call."""

    def __init__(self) -> None:
        super().__init__()
        self.draw = np.random.default_rng(0)

    def call(self, x: tf.Tensor) -> tf.Tensor:
        return tf.reshape(x, (-1, 192)) @ KERNELS[self.draw.integers(2)]


def either(kind: str) -> Callable[[tf.Tensor], tf.Tensor]:
    if kind == "a subclass":
        model = Either()
        model(X)
        return model
    draw, python = np.random.default_rng(0), random.Random(0)
    choose = {"NumPy": lambda: draw.integers(2), "Python": lambda: python.choice([0, 1])}
    if kind == "a sign of NumPy":
        return lambda x: tf.reshape(x, (-1, 192)) @ KERNEL * draw.choice([-1.0, 1.0])
    return lambda x: tf.reshape(x, (-1, 192)) @ KERNELS[choose[kind]()]


@pytest.mark.parametrize("kind", ["NumPy", "Python", "a sign of NumPy", "a subclass"])
def test_randomness_of_python_is_not_frozen(kind: str) -> None:
    classifier = as_classifier(either(kind), image_shape=SHAPE)
    assert classifier.randomized and {"untraced", "unseeded-noise"} <= {code for code, _ in classifier.warnings}
    graph = classifier.graph()
    flat = tf.constant(X)
    seen = [graph(flat).numpy() for _ in range(20)]
    first = X.reshape(12, -1) @ KERNEL
    assert {bool(apart(logits, first) < 1e-4) for logits in seen} == {True, False}
    y = first.argmax(axis=1)
    found = evaluate(classifier, X, y, attacks=PGD(epsilon=0.0, steps=1), passes=30, audit=False)
    assert 0.2 < found.clean_accuracy < 0.8, "all are right by one of the two, and none by the other"


def if_brighter(x: tf.Tensor) -> tf.Tensor:
    return x / 255 if tf.reduce_max(x) > 1.5 else x


def by_number(x: tf.Tensor) -> tf.Tensor:
    return x * float(np.ceil(tf.reduce_max(x).numpy()))


def one_by_one(x: tf.Tensor) -> tf.Tensor:
    return tf.stack([image * 1.0 for image in x])


@pytest.mark.parametrize(("first", "why"), [(if_brighter, "bool"), (by_number, "numpy"), (one_by_one, "Iterating")])
def test_code_that_cannot_be_traced_keeps_its_gradients(first: Callable[[tf.Tensor], tf.Tensor], why: str) -> None:
    def eager(x: tf.Tensor) -> tf.Tensor:
        return tf.reshape(first(x), (-1, 192)) @ KERNEL

    classifier = as_classifier(eager, image_shape=SHAPE)
    assert not classifier.arrays and why in dict(classifier.warnings)["untraced"]
    y = (X.reshape(12, -1) @ KERNEL).argmax(axis=1)
    mine = evaluate(classifier, X, y, attacks="pgd", epsilon=0.02, audit=False)
    traced = evaluate(lambda x: tf.reshape(x, (-1, 192)) @ KERNEL, X, y, attacks="pgd", epsilon=0.02, audit=False)
    assert [report.attack.name for report in mine.attacks] == ["pgd"]
    np.testing.assert_array_equal(mine.worst.x_adv, traced.worst.x_adv)
    # Several gradients of one pass, as DeepFool takes them.
    fool = evaluate(classifier, X, y, attacks="deepfool", epsilon=0.5, norm="l2", audit=False)
    assert fool.attacks[0].result.success.any()


def test_functions_of_arrays_get_the_dtype_that_they_want() -> None:
    def forest(x: np.ndarray) -> np.ndarray:
        assert x.dtype == np.uint8 and x.max() > 50
        return x.reshape(len(x), -1).astype(float) @ KERNEL

    classifier = as_classifier(forest, image_shape=SHAPE, input_range=(0, 255), dtype="uint8")
    assert classifier.arrays
    np.testing.assert_allclose(classifier.run(X), np.round(X * 255).reshape(12, -1) @ KERNEL, rtol=1e-4)


ADAPTED = {
    "range": (lambda: net(L.Dense(4)), {"input_range": "0,255"}),
    "caffe": (lambda: net(L.Dense(4)), {"input_range": "caffe"}),
    "channels first": (channels_first, {}),
    "no channels": (lambda: net(L.Dense(4), shape=(8, 8)), {}),
    "size": (lambda: net(L.Dense(4), shape=(4, 4, 3)), {"resize": True}),
}


@pytest.mark.parametrize("name", ADAPTED)
def test_a_model_to_train_on_takes_images_as_attacks_see_them(name: str, tmp_path: Path) -> None:
    make, said = ADAPTED[name]
    model = make()
    classifier = as_classifier(model, image_shape=None if name == "no channels" else SHAPE, **said)
    given = X[..., :1] if name == "no channels" else X
    whole = adapted(model, classifier.adapter, given.shape[1:])
    np.testing.assert_allclose(whole(given), classifier.run(given), rtol=1e-4, atol=1e-4)
    whole.save(tmp_path / "whole.keras")
    np.testing.assert_allclose(keras.models.load_model(tmp_path / "whole.keras")(given), whole(given), rtol=1e-5)
    plain = net(L.Dense(4))
    assert adapted(plain, as_classifier(plain).adapter, SHAPE) is plain


@pytest.mark.parametrize("outputs", ["sigmoid", "softmax"])
@pytest.mark.parametrize("form", ["model", "function"])
def test_what_was_said_of_outputs_holds_or_is_refused(outputs: Any, form: str) -> None:
    """A last layer without an activation gives what it was trained for: shares, or numbers that are none."""
    keras.utils.set_random_seed(0)
    linear = keras.Sequential([keras.Input((8, 8, 3)), L.Flatten(), L.Dense(2, use_bias=False)])
    far = linear if form == "model" else lambda x: linear(x)
    with pytest.raises(InputError, match=rf"outputs in \[0, 1\], as {outputs} says") as caught:
        as_classifier(far, image_shape=(8, 8, 3), outputs=outputs)
    assert "\n" not in str(caught.value)
    linear.layers[-1].set_weights([np.tile(np.float32([[1 / 384, 3 / 384]]), (192, 1))])  # A quarter and the rest.
    x = np.full((2, 8, 8, 3), 0.5, np.float32)
    right = [np.log([0.25, 0.75])] * 2 if outputs == "softmax" else [np.log([1 / 3, 3])] * 2
    np.testing.assert_allclose(as_classifier(far, image_shape=(8, 8, 3), outputs=outputs).run(x), right, rtol=1e-4)
