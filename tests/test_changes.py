"""Verdicts follow the model as it is now; attacks follow it once `as_classifier` has been called anew."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import PIXELS, SHAPE, linear_model
from keras import layers as L

from kerasrobust.attacks import FGSM
from kerasrobust.attacks.verdict import judge, predict
from kerasrobust.errors import InputError
from kerasrobust.evaluation.evaluate import evaluate
from kerasrobust.networks.classifier import MANY
from kerasrobust.networks.making import as_classifier, classifier_of
from kerasrobust.networks.noise import RandomDropout
from kerasrobust.networks.probe import DRAWS
from kerasrobust.networks.saving import load_model

KERNEL = np.random.default_rng(1).normal(size=(PIXELS, 4)).astype(np.float32)
BIAS = np.array([0.5, -0.5, 0.25, 0], np.float32)
X = np.random.default_rng(2).random((2 * MANY + 2, *SHAPE), np.float32)
Y = (X.reshape(len(X), -1) @ KERNEL + BIAS).argmax(axis=1)


def linear(*after: L.Layer) -> keras.Model:
    return keras.Sequential([keras.Input(SHAPE), linear_model(KERNEL, BIAS), *after])


class Helper:
    """What Python code reads besides a model's weights."""

    def __init__(self) -> None:
        self.times = 1.0


class Times(L.Layer):
    def __init__(self, helper: Helper) -> None:
        super().__init__()
        self.helper = helper

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        return inputs * self.helper.times


class InGraphs(Times):
    """Code that works in graphs alone."""

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        assert not tf.executing_eagerly()
        return tf.gradients(tf.reduce_sum(inputs**2), inputs)[0] * self.helper.times


class Training(keras.Model):
    """Normalises in training mode until its layers are frozen."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.inner, self.other = L.BatchNormalization(momentum=1.0), linear(), linear_model(-KERNEL, -BIAS)

    def call(self, inputs: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        return self.inner(self.norm(inputs, training=True))


def by_weights() -> tuple[keras.Model, Callable[[], Any]]:
    model = linear()
    return model, lambda: model.set_weights([-part for part in model.get_weights()])


def by_freezing() -> tuple[keras.Model, Callable[[], Any]]:
    model = Training()
    model(X)
    model.norm.set_weights(list(np.array([[9.0, 1, 1], [0.0, 2, 0], [0.0] * 3, [1.0] * 3], np.float32)))
    return model, lambda: setattr(model, "trainable", False)


def by_another_layer() -> tuple[keras.Model, Callable[[], Any]]:
    model = linear(L.Softmax())

    def swap() -> None:
        model.pop()
        model.add(L.Rescaling(-1.0))

    return model, swap


def by_another_layer_of_a_subclass() -> tuple[keras.Model, Callable[[], Any]]:
    model = Training()
    model(X)
    return model, lambda: setattr(model, "inner", model.other)


def by_another_nested_layer() -> tuple[keras.Model, Callable[[], Any]]:
    inner = linear_model(KERNEL, BIAS)
    inner.add(L.Rescaling(1.0))
    images = keras.Input(SHAPE)
    model = keras.Model(images, inner(images))

    def swap() -> None:
        inner.pop()
        inner.add(L.Rescaling(-1.0))

    return model, swap


def by_a_setting() -> tuple[keras.Model, Callable[[], Any]]:
    model = linear(L.Activation("softmax"))
    return model, lambda: setattr(model.layers[-1], "activation", lambda x: -x)


def by_adapting() -> tuple[keras.Model, Callable[[], Any]]:
    norm = L.Normalization()
    norm.adapt(X)
    model = keras.Sequential([keras.Input(SHAPE), norm, linear()])
    return model, lambda: norm.adapt(X + np.array([0.4, 0, -0.4]))


def by_what_a_layer_reads(kind: type[Times] = Times) -> tuple[keras.Model, Callable[[], Any]]:
    helper = Helper()
    return linear(kind(helper)), lambda: setattr(helper, "times", -1.0)


def by_what_a_lambda_reads() -> tuple[keras.Model, Callable[[], Any]]:
    helper = Helper()
    return linear(L.Lambda(lambda x: x * helper.times)), lambda: setattr(helper, "times", -1.0)


CHANGES = {
    "weights": by_weights,
    "frozen": by_freezing,
    "another layer": by_another_layer,
    "another layer of a subclass": by_another_layer_of_a_subclass,
    "another nested layer": by_another_nested_layer,
    "setting": by_a_setting,
    "adapted": by_adapting,
    "captured": by_what_a_layer_reads,
    "captured by a lambda": by_what_a_lambda_reads,
    "captured in graphs": lambda: by_what_a_layer_reads(InGraphs),
}


@pytest.mark.parametrize("name", CHANGES)
def test_verdicts_are_those_of_the_model_as_it_is(name: str) -> None:
    """Without a word to `as_classifier`, in few batches and in many; attacks hit the new network once it is said."""
    model, change = CHANGES[name]()
    classifier = as_classifier(model, image_shape=SHAPE, input_range=(0, 1), colors="rgb")
    attack = FGSM(epsilon=0.5)
    before = judge(classifier, X, Y)
    judge(classifier, X, Y, batch_size=2)  # So many batches go through a graph, which is kept.
    attack(model, X, Y)
    change()
    predict = tf.function(lambda x: model(x, training=False), autograph=False)
    wanted = np.asarray(predict(X)).argmax(axis=1)
    assert (wanted != before.prediction).mean() > 0.5
    np.testing.assert_array_equal(judge(classifier, X, Y).prediction, wanted)
    if not isinstance(model, Training):  # It sees a batch's other images.
        np.testing.assert_array_equal(judge(classifier, X, Y, batch_size=2).prediction, wanted)
    stale = attack(model, X, wanted)
    assert classifier_of(model) is classifier
    np.testing.assert_array_equal(stale.prediction_adv, np.asarray(predict(stale.x_adv)).argmax(axis=1))
    anew = as_classifier(model, image_shape=SHAPE, input_range=(0, 1), colors="rgb")
    result = attack(model, X, wanted)
    assert classifier_of(model) is anew
    np.testing.assert_array_equal(result.prediction_adv, np.asarray(predict(result.x_adv)).argmax(axis=1))
    assert result.success.mean() > 0.9 or isinstance(model, Training)


def test_an_evaluation_follows_the_model_too() -> None:
    model, change = by_another_layer()
    for _ in range(2):
        found = evaluate(model, X, np.asarray(model(X)).argmax(axis=1), attacks=[FGSM(epsilon=0.0)], audit=False)
        assert found.clean_accuracy == found.robust_accuracy == 1
        change()


@pytest.mark.parametrize("masked", [-1e9, -np.inf])
def test_a_masked_class_hides_no_change(masked: float) -> None:
    """Differences are measured by the scale of the other classes, and infinity equals nothing but itself."""
    images = keras.Input(SHAPE)
    head = L.Dense(4)
    outputs = L.Lambda(lambda x: x + tf.constant([0.0, 0.0, 0.0, masked]))(head(L.Flatten()(images)))
    model = keras.Model(images, outputs)
    classifier = classifier_of(model)
    for _ in range(MANY + 1):
        predict(classifier, X)  # By a graph at last, which is kept.
    head.activation = keras.activations.tanh
    np.testing.assert_allclose(predict(classifier, X), model(X, training=False), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("masked", [-1e9, -np.inf])
def test_a_masked_class_hides_no_noise(masked: float) -> None:
    noisy = keras.Sequential([keras.Input(SHAPE), L.Flatten(), RandomDropout(0.5), L.Dense(3)])
    foreign = tf.function(lambda x: tf.pad(noisy(x), [[0, 0], [0, 1]], constant_values=masked))
    assert classifier_of(foreign, image_shape=SHAPE).randomized


def test_another_number_of_classes_is_refused_in_one_line() -> None:
    model = linear()
    attack = FGSM(epsilon=0.05)
    attack(model, X, Y)
    model.add(L.Dense(6))
    with pytest.raises(InputError, match=r"logits of 4 classes.*\(18, 6\)\. Call kerasrobust\.as_classifier") as caught:
        attack(model, X, Y)
    assert "\n" not in str(caught.value)
    assert as_classifier(model).classes == 6
    attack(model, X, Y)


def test_logits_where_there_were_probabilities_are_refused() -> None:
    class Switching(keras.Model):
        logits = False

        def call(self, inputs: tf.Tensor, training: bool | None = None) -> tf.Tensor:
            outputs = tf.reduce_mean(inputs, (1, 2)) - 0.5
            return outputs if self.logits else tf.nn.softmax(outputs)

    model = Switching()
    classifier = as_classifier(model, image_shape=SHAPE)
    model.logits = True
    with pytest.raises(InputError, match="as_classifier"):
        judge(classifier, X, Y)


def test_noise_with_another_rate_is_drawn_at_that_rate() -> None:
    dropout = RandomDropout(0.1)
    model = keras.Sequential([keras.Input(SHAPE), L.Flatten(), dropout])
    classifier = as_classifier(model)
    for rate in (0.1, 0.9):
        dropout.rate = rate
        assert np.mean(classifier.run(X) == 0) == pytest.approx(rate, abs=0.05)


def test_callables_are_probed_in_each_call() -> None:
    calls = []

    def function(x: tf.Tensor) -> tf.Tensor:
        calls.append(1)
        return tf.reshape(x, (-1, PIXELS)) @ KERNEL

    assert classifier_of(function, image_shape=SHAPE) is not classifier_of(function, image_shape=SHAPE)
    assert len(calls) == 2 * (1 + DRAWS)  # Traced once, and looked at operation by operation for noise of NumPy.


def test_a_graph_is_kept(tmp_path: Any) -> None:
    """What TensorFlow has traced already has read what it reads."""
    network = linear()
    network.export(tmp_path / "exported", verbose=False)
    function = tf.function(lambda x: network(x))
    models = [function, function.get_concrete_function(tf.TensorSpec((None, *SHAPE)))]
    models += [L.TFSMLayer(tmp_path / "exported", call_endpoint="serve"), load_model(tmp_path / "exported")]
    for model in models:
        classifier = classifier_of(model, image_shape=SHAPE)
        assert classifier_of(model, image_shape=SHAPE) is classifier
        np.testing.assert_array_equal(judge(classifier, X, Y).prediction, Y)


def test_a_dropped_model_takes_its_graphs_and_twins_along() -> None:
    model = linear()
    FGSM(epsilon=0.05)(model, X, Y, precision="folded")
    dropped = [weakref.ref(model), weakref.ref(classifier_of(model))]
    del model
    gc.collect()
    assert [ref() for ref in dropped] == [None, None]
