"""A network that computes in float16 is attacked as well as its weights in float32 are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import PIXELS, SHAPE, images
from keras import layers as L

from kerasrobust.attacks import PGD, DeepFool
from kerasrobust.evaluation.evaluate import evaluate
from kerasrobust.events import Event, Log
from kerasrobust.networks.files.formats import SavedModelNetwork
from kerasrobust.networks.making import as_classifier
from kerasrobust.ops import half, losses
from kerasrobust.training import PGD as Objective
from kerasrobust.training import AdversarialModel
from kerasrobust.twins import meaning_of

X = images(40)
DRAW = np.random.default_rng(0)
KERNELS = DRAW.normal(size=(PIXELS, 16)) / 8, DRAW.normal(size=(16, 4)) * 40


def network(policy: str, balance: float = 1.0, softmax: bool = False) -> keras.Model:
    """Returns a network whose first logit leads by dozens, so that the gradient of its loss is 0 in float16.

    `balance` moves a factor from the first layer to the second: another arithmetic, the same function.
    """
    inner = [L.Flatten(dtype=policy), L.Dense(16, activation="relu", dtype=policy), L.Dense(4, dtype=policy)]
    model = keras.Sequential([keras.Input(SHAPE), *inner, *([L.Softmax(dtype="float32")] if softmax else [])])
    inner[1].set_weights([KERNELS[0] / balance, -0.5 * KERNELS[0].sum(axis=0) / balance])
    inner[2].set_weights([balance * KERNELS[1], np.zeros(4)])
    return model


@pytest.fixture(scope="module")
def y() -> np.ndarray:
    return network("float32").predict(X, verbose=0).argmax(axis=1)


def gradient(model: keras.Model, y: np.ndarray) -> np.ndarray:
    """Returns the gradients of the cross-entropy by `half.slope`, inside a graph."""
    labels = tf.constant(y)

    @tf.function(autograph=False)
    def run(x: tf.Tensor) -> tf.Tensor:
        logits_of = lambda images: tf.cast(model(images), tf.float32)  # noqa: E731
        return half.slope(logits_of, lambda logits: losses.cross_entropy(logits, labels), x)[0]

    return run(tf.constant(X)).numpy().astype(np.float64).reshape(len(X), -1)


@pytest.mark.parametrize("balance", [1.0, 100.0, 0.01])
def test_gradients_are_those_of_float32(balance: float, y: np.ndarray) -> None:
    """At 100 a scale of 256 overflows between the layers, and a smaller one is taken."""
    exact, mine = (gradient(network(policy, balance), y) for policy in ("float32", "mixed_float16"))
    size = np.linalg.norm(exact, axis=1)
    # Where the lead is so large that rounding the logits changes the loss several times over, the direction counts.
    cosine = (exact * mine).sum(axis=1) / np.maximum(size * np.linalg.norm(mine, axis=1), 1e-300)
    assert size.min() > 0
    assert np.median(cosine) > 0.99 and np.quantile(cosine, 0.1) > 0.9


def test_float16_alone_loses_them(y: np.ndarray) -> None:
    model = network("mixed_float16")
    with tf.GradientTape() as tape:
        x = tf.constant(X)
        tape.watch(x)
        loss = tf.reduce_sum(losses.cross_entropy(tf.cast(model(x), tf.float32), y))
    assert (tape.gradient(loss, x).numpy() == 0).all(axis=(1, 2, 3)).mean() > 0.2


def test_float32_costs_nothing(y: np.ndarray) -> None:
    """No loop, no condition, no second pass."""
    model = network("float32")
    passes = []

    def forward(images: tf.Tensor) -> tf.Tensor:
        passes.append(1)
        return model(images)

    @tf.function(autograph=False)
    def run(x: tf.Tensor) -> tf.Tensor:
        return half.slope(forward, lambda logits: losses.cross_entropy(logits, tf.constant(y)), x)[0]

    graph = run.get_concrete_function(tf.TensorSpec(X.shape)).graph
    assert len(passes) == 1
    assert not {"While", "StatelessWhile", "If"} & {operation.type for operation in graph.get_operations()}


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tmp_path_factory.mktemp("half") / "exported"
    network("mixed_float16").export(folder, verbose=False)
    return folder


@pytest.mark.parametrize("kind", ["logits", "softmax", "SavedModel"])
def test_figures_are_those_of_the_float32_weights(kind: str, y: np.ndarray, exported: Path) -> None:
    model: Any = SavedModelNetwork(exported)
    model = model if kind == "SavedModel" else network("mixed_float16", 1.0, kind == "softmax")
    found = []
    told: list[Event] = []
    for attacked in (network("float32"), model):
        told.clear()
        attack = PGD(epsilon=0.03, steps=5)
        settings: dict[str, Any] = {"precision": "float32", "audit": False, "emit": told.append}
        found.append(evaluate(attacked, X, y, attacks=attack, **settings).robust_accuracy)
    assert found[0] < 0.8
    assert found[1] == pytest.approx(found[0], abs=1.01 / len(X))
    lines = [event.message for event in told if isinstance(event, Log)]
    assert lines == ["The attacks' gradients were computed in float16 with scaled losses, by the network as it is."]


def test_what_is_computed_is_called_by_its_name() -> None:
    known = {
        "float32": "in float32, by",
        "mixed_bfloat16": "in bfloat16, by",
        "mixed_float16": "in float16 with scaled",
    }
    for policy, words in known.items():
        classifier = as_classifier(network(policy))
        assert meaning_of("float32", classifier).startswith(words)
        assert meaning_of("folded", classifier) == "in float32, by a faster twin of the network"


def test_nearest_examples_are_as_near_as_those_of_float32(y: np.ndarray) -> None:
    near = [
        DeepFool(norm="l2")(network(policy), X, y, precision="float32").distance
        for policy in ("float32", "mixed_float16")
    ]
    assert np.median(near[1]) == pytest.approx(np.median(near[0]), rel=0.05)


def test_training_inside_is_not_blind(y: np.ndarray) -> None:
    robust = []
    for policy in ("float32", "mixed_float16"):
        model = AdversarialModel(network(policy), Objective(epsilon=0.03, validation_steps=5), precision="float32")
        model.compile("sgd")
        robust.append(model.test_on_batch(X, y, return_dict=True)["robust_accuracy"])
    assert robust[0] < 0.8
    assert robust[1] == pytest.approx(robust[0], abs=0.06)


@pytest.mark.parametrize("given", ["sgd", keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD())])
def test_the_weights_are_trained_with_loss_scaling_as_keras_does(given: Any, y: np.ndarray) -> None:
    """Also where the policy was the network's alone."""
    with_policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_float16")
    inner = keras.Sequential([keras.Input(SHAPE), L.Flatten(), L.Dense(4)])
    keras.config.set_dtype_policy(with_policy)
    model = AdversarialModel(inner, Objective(epsilon=0.03, steps=1), precision="float32")
    model.compile(given)
    assert isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer)
    assert not isinstance(model.optimizer.inner_optimizer, keras.optimizers.LossScaleOptimizer)
    before = inner.get_weights()[0]
    model.train_on_batch(X, y)
    assert int(model.steps_done) == 1
    assert not np.array_equal(before, inner.get_weights()[0])
