"""Whatever a candidate twin raises rules it out; the model is attacked and trained as it is, and a line says why."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import FASTEST, SHAPE, images
from keras import layers as L

from kerasrobust.attacks import FGSM
from kerasrobust.errors import InputError
from kerasrobust.evaluation.evaluate import evaluate
from kerasrobust.events import Event, Log
from kerasrobust.networks.making import as_classifier
from kerasrobust.training import FGSM as Objective
from kerasrobust.training import AdversarialModel
from kerasrobust.training.adversarial import training_precision
from kerasrobust.twins import precision
from kerasrobust.twins.margins import margin_gaps

X = images(12)


@pytest.fixture(autouse=True)
def measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """No network is too cheap for a twin, and bfloat16 is tried."""
    monkeypatch.setattr(precision, "_fastest", FASTEST)
    monkeypatch.setattr(precision, "CHEAP_SECONDS", 0.0)
    monkeypatch.setattr(precision, "has_bfloat16", lambda: True)


class Excited(L.Layer):
    """Squeeze and excitation whose dense layers, made without its dtype, compute in float32."""

    def build(self, shape: Any) -> None:
        self.dense = L.Dense(shape[-1], activation="sigmoid", dtype="float32")
        self.dense.build((None, shape[-1]))

    def call(self, x: tf.Tensor) -> tf.Tensor:
        return tf.multiply(x, self.dense(keras.ops.mean(x, (1, 2)))[:, None, None, :])


class Particular(L.Layer):
    """Raises what no list of errors would have."""

    def call(self, x: tf.Tensor) -> tf.Tensor:
        if x.dtype != tf.float32:
            raise RuntimeError(f"Not made\nfor {x.dtype.name}.")
        return x


class Gradientless(L.Layer):
    """Can compute in bfloat16, but not the gradient."""

    def call(self, x: tf.Tensor) -> tf.Tensor:
        @tf.custom_gradient
        def same(x: tf.Tensor) -> Any:
            def slope(above: tf.Tensor) -> tf.Tensor:
                return above * tf.ones((), tf.float32)

            return x, slope

        return same(x)


OWN: dict[str, Callable[[], L.Layer]] = {"excited": Excited, "particular": Particular, "gradientless": Gradientless}


def network(*own: L.Layer) -> keras.Model:
    keras.utils.set_random_seed(0)
    return keras.Sequential([keras.Input(SHAPE), L.Conv2D(4, 3), *own, L.Flatten(), L.Dense(4)])


def labels(model: keras.Model) -> np.ndarray:
    return model.predict(X, verbose=0).argmax(axis=1)


@pytest.mark.parametrize("kind", OWN)
def test_a_layer_that_cannot_compute_in_bfloat16_rules_it_out(kind: str) -> None:
    model = network(OWN[kind]())
    classifier = as_classifier(model)
    told: list[Event] = []
    for _ in range(2):  # The second time it is remembered.
        told.clear()
        assert precision.chosen_precision(classifier, "auto", X, told.append) in ("float32", "folded")
        (line,) = (event.message for event in told if isinstance(event, Log))
        assert line.startswith("The twin of 'sequential") and "in bfloat16 fails (" in line and "\n" not in line
    with pytest.raises(InputError, match=r"twin.*Received: 'sequential.*\(.*\)\. Use float32\.$") as caught:
        FGSM(epsilon=0.02)(model, X, labels(model), precision="bfloat16")
    assert "\n" not in str(caught.value) and "\x1b" not in str(caught.value)
    exact, folded = (FGSM(epsilon=0.02)(model, X, labels(model), precision=word) for word in ("float32", "folded"))
    np.testing.assert_array_equal(exact.success, folded.success)


def test_an_evaluation_says_so_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kerasrobust.attacks.task.WORTH", 0)
    model = network(Particular())
    told: list[Event] = []
    evaluate(model, X, labels(model), attacks=FGSM(epsilon=0.02), audit=False, emit=told.append)
    lines = [event.message for event in told if isinstance(event, Log)]
    assert len([line for line in lines if "bfloat16 fails (RuntimeError: " in line]) == 1


@pytest.mark.parametrize("kind", OWN)
def test_training_goes_on_without_it(kind: str) -> None:
    told: list[Event] = []
    model = network(OWN[kind]())
    assert training_precision(model, "auto", None, told.append) in ("float32", "folded")
    assert len(told) == 1
    wrapped = AdversarialModel(model, Objective(epsilon=0.02))
    wrapped.compile("sgd")
    assert np.isfinite(wrapped.train_on_batch(X, labels(model))).all()
    strict = AdversarialModel(model, Objective(epsilon=0.02), precision="bfloat16")
    strict.compile("sgd")
    with pytest.raises(InputError, match=r"Use float32\.$"):
        strict.train_on_batch(X, labels(model))


class InTraining(L.Layer):
    """Can't be trained but in the network itself."""

    def call(self, x: tf.Tensor, training: bool = False) -> tf.Tensor:
        if training and x.dtype != tf.float32:
            raise RuntimeError("Not in training.")
        return x


def test_a_twin_that_cannot_be_trained_is_none_for_training(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "_fastest", lambda *_: "bfloat16")
    model = network(InTraining())
    assert precision.chosen_precision(as_classifier(model), "auto", X) == "bfloat16"
    assert training_precision(model, "auto") == "float32"


class ByPython(L.Layer):
    """Has no gradient, in any arithmetic."""

    def call(self, x: tf.Tensor) -> tf.Tensor:
        outputs = tf.py_function(lambda v: tf.constant(np.round(v.numpy() * 7) / 7), [x], x.dtype)
        outputs.set_shape(x.shape)
        return outputs


class ByNumPy(L.Layer):
    def call(self, x: tf.Tensor) -> tf.Tensor:
        return tf.ensure_shape(tf.numpy_function(lambda v: np.round(v * 7) / v.dtype.type(7), [x], x.dtype), x.shape)


BLIND: dict[str, Callable[[], list[L.Layer]]] = {
    "py_function": lambda: [ByPython()],
    "numpy_function": lambda: [ByNumPy()],
    "area": lambda: [L.Resizing(4, 4, interpolation="area")],
    "levels": lambda: [L.Discretization([0.4, 0.5, 0.6]), L.Rescaling(0.25), L.Conv2D(2, 3)],
    "one-hot levels": lambda: [L.Discretization([0.4, 0.5], output_mode="one_hot"), L.Reshape((8, 8, 9))],
}


STRAIGHT = ("py_function", "numpy_function", "levels")
"""Kinds whose layer keeps the shape, so that gradients can go straight through it."""


@pytest.mark.parametrize("kind", BLIND)
def test_a_network_without_gradients_is_attacked_around_its_layers_or_by_black_boxes(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kerasrobust.attacks.task.WORTH", 0)
    model = keras.Sequential([keras.Input(SHAPE), *BLIND[kind](), L.Flatten(), L.Dense(4)])
    asked: dict[str, Any] = {"attacks": FGSM(epsilon=0.02), "audit": False}
    found = evaluate(model, X[:4], labels(model)[:4], **asked)
    straight = kind in STRAIGHT
    assert [part.attack.name for part in found.attacks] == (["fgsm"] if straight else ["square", "hopskipjump"])
    assert ("straight-through" if straight else "black-box-only") in {finding.code for finding in found.findings}
    assert found.precision == "float32"


class Masked(L.Layer):
    """Rules out some classes by a constant, as one does for those that a task doesn't have."""

    def __init__(self, value: float, **settings: Any) -> None:
        super().__init__(**settings)
        self.value = value

    def call(self, x: tf.Tensor) -> tf.Tensor:
        return tf.where(tf.range(4) < 3, x, tf.cast(self.value, x.dtype))

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"value": self.value}


@pytest.mark.parametrize("value", [-1e9, -np.inf, -3.3333e30])
def test_a_masked_class_makes_no_margin_uncertain(value: float) -> None:
    """In bfloat16 -1e9 is off by two millions, and the difference of two infinities is no number."""
    model = keras.Sequential([network(), Masked(value)])
    model.build((None, *SHAPE))
    plain = precision.of(as_classifier(network()), "bfloat16", X).slack
    masked = precision.of(as_classifier(model), "bfloat16", X).slack
    assert 0 < masked <= 2 * plain < 0.1
    two = as_classifier(keras.Sequential([network(), Masked(value)]))
    assert precision._margin_error(two, precision._twin(two, "bfloat16"), X) <= precision.APART


def test_a_class_that_only_the_twin_masks_is_another_network() -> None:
    own = np.array([[1.0, 2.0, 0.0]], np.float32)
    gaps, median = margin_gaps(own, np.array([[1.0, -np.inf, 0.0]], np.float32))
    assert np.isinf(gaps).any() and median == 1.0


class Complaining(L.Layer):
    """Warns whenever it is made or called, as Keras does of layers without `build`."""

    def call(self, x: tf.Tensor) -> tf.Tensor:
        warnings.warn("What is known already.", stacklevel=1)
        return x


def test_what_keras_says_of_layers_is_not_said_again_of_their_copies() -> None:
    model = network(Complaining())
    classifier = as_classifier(model)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        precision.chosen_precision(classifier, "auto", X)
        precision.chosen_precision(classifier, "folded", X)
    assert not caught
