"""SavedModels as people have them: fixed batches, numbers beside images, integers, several outputs, no signature."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from cli import call

from kerasrobust.errors import InputError
from kerasrobust.networks.classifier import has_gradient
from kerasrobust.networks.making import as_classifier
from kerasrobust.networks.saving import SavedModelNetwork, load_model

SHAPE = (8, 8, 3)
X = np.random.default_rng(8).random((7, *SHAPE), np.float32)
KERNEL = np.random.default_rng(9).normal(size=(192, 4)).astype(np.float32)


def logits(x: np.ndarray) -> np.ndarray:
    return np.tanh(x.reshape(len(x), -1) @ KERNEL)


def slope(x: np.ndarray, factor: float = 1.0) -> np.ndarray:
    """The gradient of the sum of all logits, by hand."""
    inner = factor * x.reshape(len(x), -1) @ KERNEL
    return (factor * (1 - np.tanh(inner) ** 2) @ KERNEL.T).reshape(x.shape)


class Module(tf.Module):
    def __init__(self) -> None:
        super().__init__()
        self.kernel = tf.Variable(KERNEL)

    def logits(self, x: tf.Tensor) -> tf.Tensor:
        return tf.tanh(tf.reshape(x, (-1, 192)) @ self.kernel)

    @tf.function(input_signature=[tf.TensorSpec((1, *SHAPE))])
    def one(self, x: tf.Tensor) -> tf.Tensor:
        return self.logits(x)

    @tf.function(input_signature=[tf.TensorSpec((3, *SHAPE))])
    def three(self, x: tf.Tensor) -> tf.Tensor:
        return self.logits(x)

    @tf.function(input_signature=[tf.TensorSpec((None, *SHAPE)), tf.TensorSpec((), name="keep_prob")])
    def keep(self, x: tf.Tensor, keep_prob: tf.Tensor) -> tf.Tensor:
        return self.logits(x) * keep_prob

    @tf.function(input_signature=[tf.TensorSpec((None, *SHAPE)), tf.TensorSpec((), name="dropout_keep_rate")])
    def kept(self, x: tf.Tensor, dropout_keep_rate: tf.Tensor) -> tf.Tensor:
        return self.logits(x) * dropout_keep_rate

    @tf.function(input_signature=[tf.TensorSpec((None, *SHAPE)), tf.TensorSpec((), tf.bool, name="inference")])
    def infer(self, x: tf.Tensor, inference: tf.Tensor) -> tf.Tensor:
        return self.logits(x) * tf.where(inference, 1.0, 0.0)

    @tf.function(input_signature=[tf.TensorSpec((None, *SHAPE)), tf.TensorSpec((), name="dropout_rate")])
    def rate(self, x: tf.Tensor, dropout_rate: tf.Tensor) -> tf.Tensor:
        return self.logits(x) * (1 - dropout_rate)

    @tf.function(input_signature=[tf.TensorSpec((2, *SHAPE)), tf.TensorSpec((), tf.bool, name="is_training")])
    def mode(self, x: tf.Tensor, is_training: tf.Tensor) -> tf.Tensor:
        return self.logits(x) * tf.where(is_training, 0.0, 1.0)

    @tf.function(input_signature=[tf.TensorSpec((None, *SHAPE)), tf.TensorSpec((None, 2), name="boxes")])
    def boxes(self, x: tf.Tensor, boxes: tf.Tensor) -> tf.Tensor:
        return self.logits(x) + boxes[:, :1]

    @tf.function(input_signature=[tf.TensorSpec((None, *SHAPE), tf.uint8)])
    def bytes(self, x: tf.Tensor) -> tf.Tensor:
        return self.logits(tf.cast(x, tf.float32) / 255)

    @tf.function(input_signature=[tf.TensorSpec((3, *SHAPE), tf.int32)])
    def integers(self, x: tf.Tensor) -> tf.Tensor:
        return self.logits(tf.image.convert_image_dtype(tf.cast(x, tf.uint8), tf.float32))

    @tf.function(input_signature=[tf.TensorSpec((None, *SHAPE), tf.uint8)])
    def table(self, x: tf.Tensor) -> tf.Tensor:
        return self.logits(tf.gather(tf.range(256.0) / 255, tf.cast(x, tf.int32)))

    @tf.function(input_signature=[tf.TensorSpec((None, *SHAPE))])
    def several(self, x: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"a": -self.logits(x), "z": self.logits(x), "embedding": tf.reshape(x, (-1, 192)), "m": self.logits(x)}


def save(folder: Path, name: str) -> Path:
    module = Module()
    tf.saved_model.save(module, str(folder / name), signatures=getattr(module, name))
    return folder / name


def gradient(network: Callable[[tf.Tensor], tf.Tensor], traced: bool) -> np.ndarray:
    def of(x: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            tape.watch(x)
            loss = tf.reduce_sum(network(x))
        return tape.gradient(loss, x)

    if not traced:
        return of(tf.constant(X)).numpy()
    return tf.function(of, input_signature=[tf.TensorSpec((None, *SHAPE))], autograph=False)(tf.constant(X)).numpy()


@pytest.mark.parametrize("name", ["one", "three"])
def test_a_fixed_batch_takes_any_number_of_images(name: str, tmp_path: Path) -> None:
    network = load_model(save(tmp_path, name))
    for count in (1, 3, 7):
        np.testing.assert_allclose(network(X[:count]), logits(X[:count]), atol=1e-5)
    for traced in (False, True):
        np.testing.assert_allclose(gradient(network, traced), slope(X), atol=1e-4)
    assert network.image_shape == SHAPE
    assert as_classifier(network).warnings == []


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("keep", "'keep_prob'"),
        ("kept", "'dropout_keep_rate'"),
        ("rate", "'dropout_rate'"),
        ("mode", "'is_training'"),
        ("infer", "'inference'"),
    ],
)
def test_a_number_beside_the_images_is_that_of_prediction(name: str, value: str, tmp_path: Path) -> None:
    network = load_model(save(tmp_path, name))
    np.testing.assert_allclose(network(X), logits(X), atol=1e-5)
    ((code, message),) = as_classifier(network).warnings
    assert code == "given-input" and value in message
    assert message.endswith({"rate": "0.0.", "mode": "False.", "infer": "True."}.get(name, "1.0."))


@pytest.mark.parametrize("name", ["bytes", "integers"])
def test_integers_are_rounded_levels_with_a_gradient(name: str, tmp_path: Path) -> None:
    network = load_model(save(tmp_path, name))
    rounded = np.round(255 * X) / 255
    np.testing.assert_allclose(network(X), logits(rounded), atol=1e-5)
    np.testing.assert_allclose(network(X), network(X + 0.4 / 255 * np.sign(rounded - X)), atol=1e-5)
    ((code, message),) = as_classifier(network).warnings
    assert code == "integer-input"
    assert "as if it weren't there" in message
    for traced in (False, True):
        np.testing.assert_allclose(gradient(network, traced), slope(rounded), atol=1e-4)


def test_integers_without_a_gradient_are_said_to_have_none(tmp_path: Path) -> None:
    network = load_model(save(tmp_path, "table"))
    np.testing.assert_allclose(network(X), logits(np.round(255 * X) / 255), atol=1e-5)
    classifier = as_classifier(network)
    assert "no gradients" in classifier.warnings[0][1] and not has_gradient(classifier)


def test_an_output_is_chosen_by_its_name(tmp_path: Path) -> None:
    path = save(tmp_path, "several")
    for name, sign in (("z", 1), ("a", -1), ("m", 1)):
        np.testing.assert_allclose(load_model(path, output=name)(X), sign * logits(X), atol=1e-5)
    for output, part in ((None, "--output NAME"), ("b", "an output 'b'")):
        with pytest.raises(InputError, match=part) as caught:
            load_model(path, output=output)
        assert "embedding: float32 (None, 192)" in str(caught.value)


def test_an_imported_model_keeps_its_output(tmp_path: Path) -> None:
    path = save(tmp_path, "several")
    places = ("--runs-dir", tmp_path / "runs", "--models-dir", tmp_path / "models")
    assert "--output NAME" in call("import", "--model", path, *places).message
    outcome = call("import", "--model", path, "--name", "mine", "--output", "a", *places)
    assert (outcome.status, outcome.err) == (0, "")
    np.testing.assert_allclose(load_model(tmp_path / "models" / "mine")(X), -logits(X), atol=1e-5)
    np.testing.assert_allclose(load_model(tmp_path / "models" / "mine", output="z")(X), logits(X), atol=1e-5)


def test_an_output_of_a_keras_model_is_chosen_too(tmp_path: Path) -> None:
    images = keras.Input(SHAPE)
    flat = keras.layers.Flatten()(images)
    heads = [keras.layers.Dense(4, name="first")(flat), keras.layers.Dense(3, name="second")(flat)]
    model = keras.Model(images, heads)
    model.save(tmp_path / "m.keras")
    np.testing.assert_allclose(load_model(tmp_path / "m.keras", output="second")(X), model(X)[1], atol=1e-6)
    with pytest.raises(InputError, match="first, second"):
        load_model(tmp_path / "m.keras", output="third")


def test_another_array_beside_the_images_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="boxes"):
        load_model(save(tmp_path, "boxes"))


class Hub(Module):
    @tf.function
    def __call__(self, x: tf.Tensor, training: bool = False) -> Any:
        return {"logits": self.logits(x) * (0.0 if training else 1.0), "pooled": x[:, 0]}


class Plain(Module):
    @tf.function
    def __call__(self, x: tf.Tensor) -> tf.Tensor:
        return self.logits(x)


class Listing(Module):
    @tf.function
    def __call__(self, x: tf.Tensor) -> list[tf.Tensor]:
        return [self.logits(x)]


@pytest.mark.parametrize("kind", [Hub, Plain, Listing])
def test_a_module_without_signatures_is_called(kind: type[Module], tmp_path: Path) -> None:
    module: Any = kind()
    for more in [(True,), (False,)] if kind is Hub else [()]:
        module.__call__.get_concrete_function(tf.TensorSpec((None, *SHAPE)), *more)
    tf.saved_model.save(module, str(tmp_path / "hub"))
    network = SavedModelNetwork(tmp_path / "hub")
    np.testing.assert_allclose(network(X), logits(X), atol=1e-5)
    np.testing.assert_allclose(gradient(network, traced=True), slope(X), atol=1e-4)
    assert [variable.shape for variable in network.variables] == [(192, 4)]


def test_a_graph_of_tensorflow_1_with_keep_prob(tmp_path: Path) -> None:
    v1 = tf.compat.v1
    with tf.Graph().as_default(), v1.Session() as session:
        images = v1.placeholder(tf.float32, (None, *SHAPE), name="images")
        keep = v1.placeholder_with_default(0.5, (), name="keep_prob")
        kernel = v1.get_variable("kernel", initializer=KERNEL, use_resource=True)
        scores = tf.tanh(tf.reshape(images, (-1, 192)) @ kernel) * keep
        session.run(v1.global_variables_initializer())
        inputs = {"images": images, "keep_prob": keep}
        v1.saved_model.simple_save(session, str(tmp_path / "old"), inputs, {"scores": scores})
    network = load_model(tmp_path / "old")
    np.testing.assert_allclose(network(X), logits(X), atol=1e-5)
    assert "'keep_prob'" in network.notes[0][1]
