"""Training on twins: the attack's gradients and the weights' from copies learn what the network itself would."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import SHAPE, images
from keras import layers as L

from kerasrobust.errors import InputError
from kerasrobust.networks.architectures import build_model
from kerasrobust.training import PGD, AdversarialModel
from kerasrobust.training.adversarial import training_precision

X = images(64)
Y = (X.mean(axis=(1, 2, 3)) > np.median(X.mean(axis=(1, 2, 3)))).astype(np.int64)


@pytest.mark.parametrize(("precision", "jit_compile"), [("folded", False), ("bfloat16", False), ("bfloat16", True)])
def test_training_on_twins_learns_what_the_network_learns(precision: str, jit_compile: bool) -> None:
    """The same steps on the same batches, with the regularizer that only the network's own weights have."""
    moved = []
    for kind in ("float32", precision):
        keras.utils.set_random_seed(0)
        # XLA compiles one block in half the time.
        network = build_model("convnet", image_shape=SHAPE, classes=2, widths=(8,) if jit_compile else (4, 8))
        network.layers[-1].kernel_regularizer = keras.regularizers.L2(0.1)
        before = network.get_weights()
        model = AdversarialModel(network, PGD(epsilon=0.02, steps=3), precision=kind)
        model.compile(keras.optimizers.SGD(0.05), jit_compile=jit_compile)
        for batch in (slice(0, 32), slice(32, 64)):
            model.train_on_batch(X[batch], Y[batch])
        assert model.evaluate(X[:32], Y[:32], verbose=0, return_dict=True)["accuracy"] >= 0
        moved.append([new - old for new, old in zip(network.get_weights(), before, strict=True)])
    exact, fast = (np.concatenate([part.ravel() for part in parts]) for parts in moved)
    cosine = exact @ fast / np.linalg.norm(exact) / np.linalg.norm(fast)
    assert cosine > (0.999 if precision == "folded" else 0.98)
    assert np.linalg.norm(fast) == pytest.approx(np.linalg.norm(exact), rel=0.05)


@pytest.mark.parametrize(
    ("precision", "settings"),
    [
        ("folded", {"convolutions": 2, "pooling": "average", "activation": "silu"}),
        ("bfloat16", {"architecture": "resnet", "depth": 1, "width": 8, "activation": "silu"}),
    ],
)
def test_a_training_step_on_twins_of_smooth_networks(precision: str, settings: dict[str, Any]) -> None:
    """The update of all weights, moving statistics among them, is that of the network itself."""
    moved = []
    for kind in ("float32", precision):
        keras.utils.set_random_seed(0)
        network = build_model(image_shape=SHAPE, classes=2, **({"widths": (4, 8)} | settings))
        before = network.get_weights()
        model = AdversarialModel(network, PGD(epsilon=0.02, steps=2), precision=kind)
        model.compile(keras.optimizers.SGD(0.05))
        model.train_on_batch(X[:32], Y[:32])
        moved.append([new - old for new, old in zip(network.get_weights(), before, strict=True)])
    for exact, fast in zip(*moved, strict=True):
        cosine = np.vdot(exact, fast) / np.linalg.norm(exact) / np.linalg.norm(fast)
        assert cosine > (0.9999 if precision == "folded" else 0.98)
    one, other = (np.linalg.norm(np.concatenate([part.ravel() for part in parts])) for parts in moved)
    assert other == pytest.approx(one, rel=0.05)


def test_layers_may_be_frozen_between_two_trainings() -> None:
    network = build_model("convnet", image_shape=SHAPE, classes=2, widths=(4, 8))
    model = AdversarialModel(network, PGD(epsilon=0.02, steps=1), precision="folded")
    for frozen in (False, True):
        network.layers[2].trainable = not frozen
        model.compile(keras.optimizers.SGD(0.05))
        before = network.layers[2].get_weights()[0]
        model.train_on_batch(X[:32], Y[:32])
        assert np.array_equal(before, network.layers[2].get_weights()[0]) == frozen


class Sparse(L.Layer):
    """Adds what it sees to the loss."""

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        self.add_loss(tf.reduce_mean(tf.abs(inputs)))
        return inputs


@pytest.mark.parametrize("precision", ["float32", "folded"])
def test_losses_that_layers_add_are_trained_on(precision: str) -> None:
    keras.utils.set_random_seed(0)
    inner = [L.Conv2D(4, 3), L.BatchNormalization(), Sparse(), L.Flatten(), L.Dense(2)]
    network = keras.Sequential([keras.Input(SHAPE), *inner])
    model = AdversarialModel(network, PGD(epsilon=0.0, steps=1), precision=precision)
    model.compile(keras.optimizers.SGD(0.0))
    plain = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    with_loss = model.train_on_batch(X[:16], Y[:16], return_dict=True)["loss"]
    assert with_loss > float(plain(Y[:16], network(X[:16], training=True))) + 0.1
    looked_at = model.evaluate(X[:16], Y[:16], verbose=0, return_dict=True)["loss"]
    assert looked_at > float(plain(Y[:16], network(X[:16], training=False))) + 0.1


@pytest.mark.parametrize("precision", ["float32", "folded"])
def test_what_a_layer_assigns_to_its_own_weights_stays(precision: str) -> None:
    """Spectral normalisation divides its kernel by the largest singular value in each step."""
    keras.utils.set_random_seed(0)
    dense = L.Dense(2)
    inner = [L.Conv2D(4, 3), L.BatchNormalization(), L.Flatten(), L.SpectralNormalization(dense, power_iterations=20)]
    model = AdversarialModel(keras.Sequential([keras.Input(SHAPE), *inner]), PGD(steps=1), precision=precision)
    dense.kernel.assign(5.0 * dense.kernel)
    model.compile(keras.optimizers.SGD(1e-6))
    model.train_on_batch(X[:16], Y[:16])
    assert np.linalg.norm(dense.kernel.numpy(), 2) == pytest.approx(1, abs=0.01)


def test_a_network_that_attacks_refuse_is_trained_as_it_is() -> None:
    network = keras.Sequential([keras.Input(SHAPE), L.Flatten(), L.Dense(2, activation="sigmoid")])
    model = AdversarialModel(network, PGD(steps=1))
    model.compile(keras.optimizers.SGD(0.1), loss=keras.losses.SparseCategoricalCrossentropy())
    assert np.isfinite(model.train_on_batch(X[:16], Y[:16], return_dict=True)["loss"])


class Unknown(L.Layer):
    """Can't be rebuilt, as its configuration lacks the factor."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        return self.factor * inputs

    def get_config(self) -> dict[str, object]:
        return {"name": self.name}


def of_any_size() -> keras.Model:
    x = keras.Input((None, None, 3))
    return keras.Model(x, L.Dense(2)(L.GlobalAveragePooling2D()(L.BatchNormalization()(L.Conv2D(4, 3)(x)))))


@pytest.mark.parametrize(
    ("make", "part"),
    [
        (of_any_size, "one size"),
        (lambda: keras.Sequential([keras.Input(SHAPE), Unknown(2.0), L.Flatten(), L.Dense(2)]), "rebuilt"),
    ],
    ids=["any-size", "unknown-layer"],
)
def test_a_network_without_a_twin_trains_in_float32_alone(make: Callable[[], keras.Model], part: str) -> None:
    network = make()
    assert training_precision(network, "auto") == "float32"
    for precision in ("folded", "bfloat16"):
        model = AdversarialModel(network, PGD(steps=1), precision=precision)
        model.compile(keras.optimizers.SGD(0.1))
        with pytest.raises(InputError, match=rf"Expected .*{part}.* Use float32\.$"):
            model.fit(X[:16], Y[:16], verbose=0)
    model = AdversarialModel(network, PGD(steps=1))
    model.compile(keras.optimizers.SGD(0.1))
    assert np.isfinite(model.train_on_batch(X[:16], Y[:16], return_dict=True)["loss"])
