"""Adversarial training takes the labels, images and outputs that plain Keras takes, and reports figures of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import PIXELS, SHAPE, images
from keras import layers as L

from kerasrobust.errors import InputError
from kerasrobust.ops import losses
from kerasrobust.training import FGSM, PGD, AdversarialModel, Objective, Standard
from kerasrobust.training.step import Aim

EPSILON = 0.02
X = images(32, seed=3)
KERNEL = np.random.default_rng(1).normal(size=(PIXELS, 3)) / 4
FLAT = X.reshape(len(X), -1)
Y = (FLAT @ KERNEL - (FLAT @ KERNEL).mean(axis=0)).argmax(axis=1)
BIAS = -(FLAT @ KERNEL).mean(axis=0)


def linear(
    columns: int = 3, activation: str | None = None, kernel: np.ndarray = KERNEL, bias: np.ndarray = BIAS
) -> keras.Model:
    head = L.Dense(columns, activation=activation)
    network = keras.Sequential([keras.Input(SHAPE), L.Flatten(), head])
    head.set_weights([kernel[:, :columns], bias[:columns]])
    return network


def around(network: keras.Model, loss: Any = None, objective: Objective | None = None, **compiled: Any) -> Any:
    model = AdversarialModel(network, objective or FGSM(epsilon=EPSILON), precision="float32")
    model.compile(keras.optimizers.SGD(0.1), loss, **compiled)
    return model


def softmax(logits: np.ndarray) -> np.ndarray:
    grown = np.exp(logits - logits.max(axis=1, keepdims=True))
    return grown / grown.sum(axis=1, keepdims=True)


LABELS: dict[str, np.ndarray] = {
    "uint8 (N, 1), as keras.datasets.cifar10": Y.astype(np.uint8)[:, None],
    "uint8, as mnist": Y.astype(np.uint8),
    "int16": Y.astype(np.int16),
    "float32": Y.astype(np.float32),
    "one-hot": np.eye(3, dtype=np.float32)[Y],
    "one-hot int64": np.eye(3, dtype=np.int64)[Y],
}


@pytest.fixture(scope="module")
def plain_labels() -> list[float]:
    model = around(linear())
    return [*model.train_on_batch(X, Y), *model.test_on_batch(X, Y)]


@pytest.mark.parametrize("kind", LABELS)
def test_labels_of_any_dtype_and_form_mean_the_same(kind: str, plain_labels: list[float]) -> None:
    model = around(linear())
    found = [*model.train_on_batch(X, LABELS[kind]), *model.test_on_batch(X, LABELS[kind])]
    assert found == pytest.approx(plain_labels, abs=0.01)  # The attack of the validation starts elsewhere.
    assert found[:3] == pytest.approx(plain_labels[:3], abs=1e-5)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_label_smoothing_is_in_the_loss_and_not_in_the_accuracy(smoothing: float) -> None:
    hot = np.eye(3, dtype=np.float32)[Y]
    loss = keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=smoothing)
    found = around(linear(), loss).test_on_batch(X, hot, return_dict=True)
    wanted = (1 - smoothing) * hot + smoothing / 3
    p = softmax(FLAT @ KERNEL + BIAS)
    assert found["loss"] == pytest.approx(-(wanted * np.log(p)).sum(axis=1).mean(), rel=1e-4)
    assert found["accuracy"] == pytest.approx((p.argmax(axis=1) == Y).mean(), abs=1e-6)


@pytest.mark.parametrize(
    ("activation", "loss", "form"),
    [
        ("sigmoid", "binary_crossentropy", (-1,)),
        ("sigmoid", keras.losses.BinaryCrossentropy(), (-1, 1)),
        (None, keras.losses.BinaryCrossentropy(from_logits=True), (-1, 1)),
        (None, None, (-1,)),
        ("sigmoid", None, (-1, 1)),
    ],
    ids=["name", "object", "logit", "logit by default", "sigmoid by default"],
)
def test_one_output_is_two_classes(activation: str | None, loss: Any, form: tuple[int, ...]) -> None:
    """A linear network moves by epsilon times the sum of its absolute weights, and no further."""
    z = FLAT @ KERNEL[:, 0] + BIAS[0]
    y = (z + np.random.default_rng(4).normal(0, 0.4, len(z)) > 0).astype(np.int64)
    labels = y.reshape(form)
    model = around(linear(1, activation), loss, PGD(epsilon=0.01, steps=2))
    found = model.test_on_batch(X, labels, return_dict=True)
    p = 1 / (1 + np.exp(-z))
    assert found["accuracy"] == pytest.approx(((z > 0) == y).mean(), abs=1e-6)
    assert found["loss"] == pytest.approx(-np.log(np.where(y == 1, p, 1 - p)).mean(), rel=1e-3)
    left = ((2 * y - 1) * z > 0.01 * np.abs(KERNEL[:, 0]).sum()).mean()
    assert 0.05 < left < found["accuracy"] - 0.05, "the test says something"
    assert found["robust_accuracy"] == pytest.approx(left, abs=1e-6)
    before = np.array(model.network.layers[-1].kernel)
    logs = model.train_on_batch(X, labels, return_dict=True)
    assert logs["robust_accuracy"] <= found["accuracy"]
    assert not np.array_equal(before, model.network.layers[-1].kernel)


@pytest.mark.parametrize("activation", ["sigmoid", None])
def test_several_labels_count_each_by_itself(activation: str | None) -> None:
    """Each label looks at pixels of its own, so the worst that an attack can do to each is known."""
    kernel = KERNEL * (np.arange(PIXELS)[:, None] % 3 == np.arange(3))
    bias = -(FLAT @ kernel).mean(axis=0)
    z = FLAT @ kernel + bias
    y = (z + np.random.default_rng(4).normal(0, 0.3, z.shape) > 0).astype(np.float32)
    loss = keras.losses.BinaryCrossentropy(from_logits=activation is None)
    model = around(linear(3, activation, kernel, bias), loss, PGD(epsilon=EPSILON, steps=2))
    found = model.test_on_batch(X, y, return_dict=True)
    assert found["accuracy"] == pytest.approx(((z > 0) == y).mean(), abs=1e-6)
    left = ((2 * y - 1) * z > EPSILON * np.abs(kernel).sum(axis=0)).mean()
    assert 0.05 < left < found["accuracy"] - 0.05
    assert found["robust_accuracy"] == pytest.approx(left, abs=0.021)  # The best iterate is that of the worst label.
    assert np.isfinite(model.train_on_batch(X, y)).all()


def test_one_sigmoid_for_each_class_takes_class_indices() -> None:
    """As a model of Keras' binary cross-entropy on one-hot labels has them: the largest one is the answer."""
    network = linear(3, "sigmoid", KERNEL, BIAS)
    y = np.asarray(network(X)).argmax(axis=1)
    y[:5] = (y[:5] + 1) % 3
    model = AdversarialModel(network, objective=PGD(epsilon=0.0, steps=1), precision="float32")
    model.compile("sgd")
    found = model.evaluate(X, y, verbose=0, return_dict=True)
    assert found["accuracy"] == pytest.approx(1 - 5 / len(X)) == found["robust_accuracy"]
    logits = FLAT @ KERNEL + BIAS
    expected = (np.logaddexp(0, logits) - logits * np.eye(3)[y]).mean()
    assert found["loss"] == pytest.approx(expected, rel=1e-4)
    assert np.isfinite(model.train_on_batch(X, y)).all()


@pytest.mark.parametrize("kind", ["layer", "activation", "operation"])
def test_a_sure_softmax_is_attacked_through_its_logits(kind: str) -> None:
    """Its probabilities round to 1, and their gradients to 0."""
    sure = 60 * KERNEL, 60 * BIAS
    tail = {"layer": L.Softmax(), "activation": L.Activation("softmax"), "operation": L.Lambda(tf.nn.softmax)}[kind]
    inner = linear(3, None, *sure)
    network = keras.Sequential([keras.Input(SHAPE), inner, tail])
    model = around(network, keras.losses.SparseCategoricalCrossentropy(), PGD(epsilon=0.1, steps=2))
    logits = around(inner, None, PGD(epsilon=0.1, steps=2))
    found, wanted = (one.test_on_batch(X, Y, return_dict=True)["robust_accuracy"] for one in (model, logits))
    assert wanted < 0.1
    assert found == (wanted if kind != "operation" else pytest.approx(wanted, abs=0.25))


EIGHT = np.round(X * 255).astype(np.uint8)
ON_IMAGES: dict[str, Callable[[Any, np.ndarray], Any]] = {
    "train_on_batch": lambda model, x: model.train_on_batch(x, Y),
    "fit": lambda model, x: list(model.fit(x, Y, batch_size=8, shuffle=False, verbose=0).history.values()),
    "fit on a dataset": lambda model, x: list(model.fit(dataset(x), verbose=0).history.values()),
    "evaluate": lambda model, x: model.evaluate(x, Y, verbose=0),
    "evaluate on a dataset": lambda model, x: model.evaluate(dataset(x), verbose=0),
    "predict": lambda model, x: model.predict(x, verbose=0),
    "predict on a dataset": lambda model, x: model.predict(dataset(x), verbose=0),
}


@pytest.mark.parametrize("kind", ON_IMAGES)
def test_8_bit_images_are_divided_by_255(kind: str) -> None:
    found = [ON_IMAGES[kind](around(linear()), x) for x in (EIGHT, EIGHT / np.float32(255))]
    np.testing.assert_allclose(*found, rtol=1e-5, atol=1e-5)


def dataset(x: np.ndarray) -> tf.data.Dataset:
    return tf.data.Dataset.from_tensor_slices((x, Y[: len(x)])).batch(8)


def with_nan() -> np.ndarray:
    return np.where(np.arange(len(X))[:, None, None, None] == 0, np.nan, X).astype(np.float32)


WRONG: dict[str, Callable[[Any], Any]] = {
    "fit": lambda model: model.fit(255 * X, Y, verbose=0),
    "fit on a dataset": lambda model: model.fit(dataset(255 * X), verbose=0),
    "fit, validated on": lambda model: model.fit(X, Y, validation_data=(2 * X - 1, Y), verbose=0),
    "fit, validated on a dataset": lambda model: model.fit(X, Y, validation_data=dataset(2 * X - 1), verbose=0),
    "evaluate": lambda model: model.evaluate(255 * X, Y, verbose=0),
    "evaluate on a dataset": lambda model: model.evaluate(dataset(255 * X), verbose=0),
    "predict": lambda model: model.predict(255 * X, verbose=0),
    "predict on a dataset": lambda model: model.predict(dataset(255 * X), verbose=0),
    "train_on_batch": lambda model: model.train_on_batch(255 * X, Y),
    "test_on_batch": lambda model: model.test_on_batch(2 * X - 1, Y),
    "NaN": lambda model: model.fit(dataset(with_nan()), verbose=0),
}


@pytest.fixture(scope="module")
def refusing() -> Any:
    return around(linear(), objective=FGSM(epsilon=EPSILON, validation_steps=1))


@pytest.mark.parametrize("kind", WRONG)
def test_images_outside_0_1_are_refused_in_one_line(kind: str, refusing: Any) -> None:
    with pytest.raises(InputError, match=r"Expected images in \[0, 1\] without NaN. Received: values from") as caught:
        WRONG[kind](refusing)
    assert "\n" not in str(caught.value)
    if "255" in kind:
        assert "to 1" in str(caught.value)


def test_other_integers_are_refused_and_rounding_is_not(refusing: Any) -> None:
    with pytest.raises(InputError, match=r"uint8 ones\. Received: int32"):
        refusing.fit((X * 255).astype(np.int32), Y, verbose=0)
    assert np.isfinite(refusing.train_on_batch(np.where(X > 0.5, np.float32(1.0000002), X), Y)).all()


MADE: dict[str, Callable[[str, Path], keras.callbacks.Callback]] = {
    "EarlyStopping": lambda monitor, folder: keras.callbacks.EarlyStopping(monitor=monitor),
    "ReduceLROnPlateau": lambda monitor, folder: keras.callbacks.ReduceLROnPlateau(monitor=monitor),
    "ModelCheckpoint": lambda monitor, folder: keras.callbacks.ModelCheckpoint(
        folder / "best.keras", monitor=monitor, save_best_only=True
    ),
}


def test_callbacks_know_that_higher_is_better(tmp_path: Path) -> None:
    model = around(linear(), objective=FGSM(epsilon=EPSILON, validation_steps=1))
    names = ("val_accuracy", "val_robust_accuracy", "robust_accuracy")
    callbacks = [make(name, tmp_path) for make in MADE.values() for name in names]
    history = model.fit(X, Y, validation_data=(X, Y), epochs=2, callbacks=callbacks, verbose=0).history
    assert set(history) >= {"loss", "accuracy", "robust_accuracy", "val_accuracy", "val_robust_accuracy"}
    for callback in callbacks:
        assert callback.monitor_op(1, 0) and not callback.monitor_op(0, 1)
    assert (tmp_path / "best.keras").exists()


@pytest.mark.parametrize("accumulated", [None, 2, 4])
def test_keys_and_warm_up_count_training_steps(accumulated: int | None) -> None:
    model = AdversarialModel(linear(), FGSM(epsilon=EPSILON, warmup_steps=8), precision="float32")
    model.compile(keras.optimizers.SGD(0.1, gradient_accumulation_steps=accumulated), run_eagerly=True)
    seen: list[tuple[list[int], float]] = []
    craft = model._craft

    def watched(forward: Any, attack: Any, x: Any, aim: Any, key: Any, share: Any, steps: Any) -> Any:
        seen.append((key.numpy().tolist(), float(share)))
        return craft(forward, attack, x, aim, key, share, steps)

    model._craft = watched
    model.fit(X, Y, batch_size=4, verbose=0)
    assert seen == [([0, step], pytest.approx((step + 1) / 8)) for step in range(8)]
    assert int(model.steps_done) == 8


def test_a_dict_of_one_output_is_taken_and_two_are_refused() -> None:
    network = linear()
    named = keras.Model(network.inputs, {"scores": network.outputs[0]})
    loss = {"scores": keras.losses.SparseCategoricalCrossentropy(from_logits=True)}
    found = around(named, loss).test_on_batch(X, Y)
    assert found == pytest.approx(around(linear()).test_on_batch(X, Y), rel=1e-5)
    two = around(keras.Model(network.inputs, [network.outputs[0], network.outputs[0]]))
    with pytest.raises(InputError, match=r"one output.*2 outputs") as caught:
        two.fit(X, Y, verbose=0)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("shape", [(8, 8), (64,)])
def test_images_without_channels_or_in_a_row(norm: Any, shape: tuple[int, ...]) -> None:
    """The same pixels, the same weights, in four axes or fewer: the same figures, and a perturbation of the norm."""
    grey = X[..., :1]
    found = []
    for form in ((8, 8, 1), shape):
        network = keras.Sequential([keras.Input(form), L.Flatten(), L.Dense(3)])
        network.layers[-1].set_weights([KERNEL[:64], np.zeros(3)])
        model = around(network, None, PGD(epsilon=0.2, norm=norm, steps=2))
        x = tf.reshape(grey, [-1, *form])
        found.append(model.train_on_batch(x, Y))
        aim = Aim(tf.constant(Y), losses.cross_entropy, losses.margin)
        x_adv = model._craft(model._attacked, model.objective.attack(), x, aim, tf.constant([0, 1]))
        assert x_adv.shape == x.shape
        far = (x_adv - x).numpy().reshape(len(X), -1)
        size = np.abs(far).max(axis=1) if norm == "linf" else np.linalg.norm(far, axis=1)
        assert 0.15 < size.max() <= 0.2 + 1e-5
    assert found[0] == pytest.approx(found[1], rel=1e-4)


def test_clean_training_takes_them_too() -> None:
    model = around(linear(), objective=Standard(validation_steps=1))
    logs = model.train_on_batch(np.round(X * 255).astype(np.uint8), np.eye(3)[Y], return_dict=True)
    assert set(logs) == {"loss", "accuracy"}


@pytest.mark.parametrize("wrong", [Y + 1, (Y - 1).astype(np.int8), (Y + 5).astype(np.uint8)[:, None]])
def test_classes_without_an_output_are_refused_in_one_line(wrong: np.ndarray) -> None:
    with pytest.raises(InputError, match="Expected classes from 0 to 2") as caught:
        around(linear()).fit(X, wrong, verbose=0)
    assert "\n" not in str(caught.value)
