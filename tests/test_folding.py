"""Twins give what the network gives: folded ones in inference, fused ones in training, also in their gradients."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import get_args

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import SHAPE, images
from keras import layers as L
from twin_networks import assorted, branched, convnet, crossed, deep, leaving, resnet, shaken, stemmed

from kerasrobust import names
from kerasrobust.networks.architectures import build_model
from kerasrobust.networks.noise import RandomDropout, keyed_noise
from kerasrobust.twins import folding, layouts
from kerasrobust.twins.folding import make_twin

X = tf.constant(images(12))


@pytest.fixture(autouse=True)
def beside(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether images lie beside each other in the twins: they do, but for the tests of both layouts."""
    layout = getattr(request, "param", True)
    monkeypatch.setattr(folding, "beside_pays", lambda model: layout)
    return layout


both_layouts = pytest.mark.parametrize("beside", [True, False], ids=["beside", "usual"], indirect=True)


def float32(layer: object) -> str:
    return "float32"


def kinds(layers: list[keras.layers.Layer]) -> list[str]:
    return [type(getattr(layer, "inner", layer)).__name__ for layer in layers]


def slopes(network: keras.Model) -> tuple[tf.Tensor, tf.Tensor]:
    with tf.GradientTape() as tape:
        tape.watch(X)
        outputs = network(X, training=False)
        loss = tf.reduce_sum(outputs * tf.range(1.0, 5.0))
    return outputs, tape.gradient(loss, X)


@both_layouts
@pytest.mark.parametrize(
    ("make", "left"),
    [
        *((convnet, 0), (resnet, 4), (assorted, 3), (branched, 1), (crossed, 0), (leaving, 0)),
        *((partial(deep, activation), 0) for activation in get_args(names.Activation)),
        (stemmed, 7),
    ],
)
def test_twin_is_the_same_function(make: Callable[[], keras.Model], left: int) -> None:
    keras.utils.set_random_seed(2)
    model = shaken(make())
    twin = make_twin(model, float32)
    for way in (slopes, tf.function(slopes, autograph=False)):
        for one, other in zip(way(model), way(twin.model), strict=True):
            np.testing.assert_allclose(one, other, rtol=2e-4, atol=2e-4 * np.abs(one).max())
    norms = [layer for layer in twin.model._flatten_layers() if isinstance(layer, L.BatchNormalization)]
    assert len(norms) == left


def test_a_twin_is_the_same_however_its_network_was_put_together() -> None:
    """Each `add` calls all layers again, and so does each other model that they are part of."""
    layers = [
        L.Conv2D(4, 3, padding="same"),
        L.BatchNormalization(),
        L.ReLU(),
        L.MaxPooling2D(),
        L.Flatten(),
        L.Dense(4),
    ]
    at_once = shaken(keras.Sequential([keras.Input(SHAPE), *layers]))
    wanted = kinds(make_twin(at_once, float32).model.layers)
    assert "BatchNormalization" not in wanted
    grown = keras.Sequential([keras.Input(SHAPE)])
    for layer in layers:
        grown.add(layer)
    x = keras.Input(SHAPE)
    y = x
    for layer in layers:
        y = layer(y)
    for model in (grown, keras.Model(x, y)):
        twin = make_twin(model, float32).model
        assert [kind for kind in kinds(twin.layers) if kind != "InputLayer"] == wanted
        np.testing.assert_allclose(twin(X), at_once(X), rtol=1e-4, atol=1e-4)


def in_two_graphs_of(layer: L.Layer, inside: list[L.Layer], outside: list[L.Layer]) -> keras.Model:
    """Returns a model with a layer inside a nested one, followed by some, and outside, between others."""
    nested = keras.Sequential([keras.Input((8, 8, 3)), layer, *inside])
    x = keras.Input(SHAPE)
    y = nested(x)
    for part in outside:
        y = part(y)
    return keras.Model(x, L.Dense(4)(L.Flatten()(y)))


def shares() -> list[keras.Model]:
    conv, drop, norm, scale, relu = L.Conv2D(3, 3, padding="same"), RandomDropout(0.3), *(
        L.BatchNormalization(), L.Rescaling(0.3, 0.1), L.ReLU(),
    )  # fmt: skip
    return [
        in_two_graphs_of(conv, [L.ReLU()], [conv, L.BatchNormalization()]),
        in_two_graphs_of(drop, [], [L.Conv2D(4, 3), L.ReLU(), drop]),
        in_two_graphs_of(norm, [], [L.Conv2D(3, 3), norm]),
        in_two_graphs_of(scale, [L.ReLU()], [scale, L.Conv2D(4, 3)]),
        in_two_graphs_of(relu, [L.Conv2D(3, 3)], [relu, L.MaxPooling2D()]),
    ]


@both_layouts
@pytest.mark.parametrize("training", [False, True])
def test_layers_of_several_graphs_stay_as_they_are(training: bool) -> None:
    for model in shares():
        twin = make_twin(shaken(model), float32, training).model
        with keyed_noise(tf.constant([1, 2])):
            wanted = model(X)
        with keyed_noise(tf.constant([1, 2])):
            np.testing.assert_allclose(twin(X), wanted, rtol=1e-4, atol=1e-4)


def test_what_is_normalised_is_seen_in_the_models_own_graph() -> None:
    """The first call of this layer was elsewhere, on something of rank 2, where axis 1 is that of the channels."""
    dense = L.Dense(8)
    dense(keras.Input((3,)))
    model = keras.Sequential([keras.Input(SHAPE), dense, L.BatchNormalization(axis=1), L.Flatten(), L.Dense(4)])
    np.testing.assert_allclose(make_twin(shaken(model), float32).model(X), model(X), rtol=1e-4, atol=1e-4)


@both_layouts
def test_images_are_turned_twice_and_no_more(beside: bool) -> None:
    """From the first convolution to the last pooling, also past branches."""
    for make in (convnet, lambda: build_model("resnet", image_shape=(16, 16, 3), depth=1, width=4)):
        twin = make_twin(make(), float32).model
        turns = [layer for layer in twin._flatten_layers() if type(layer).__name__ == "Turned"]
        entering = [layer for layer in twin._flatten_layers() if getattr(layer, "beside", False)]
        assert [len(turns), len(entering)] == ([1, 1] if beside else [0, 0])


@both_layouts
@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
def test_normalisation_that_cannot_be_folded(policy: str, beside: bool) -> None:
    """With and without scale and offset, its values and gradients are those of Keras' layer in float32."""
    x = keras.Input(SHAPE)
    y = L.BatchNormalization(scale=False)(L.AveragePooling2D(2)(L.Conv2D(4, 3, padding="same")(x)))
    y = L.BatchNormalization(center=False, epsilon=0.1)(L.Conv2D(4, 3, activation="silu")(y))
    model = shaken(keras.Model(x, L.Dense(4)(L.GlobalAveragePooling2D()(y))))
    twin = make_twin(model, lambda layer: "float32" if isinstance(layer, L.Dense) else policy).model
    assert [type(layer) for layer in twin._flatten_layers()].count(layouts.FixedNorm) == 2
    for one, other in zip(slopes(model), slopes(twin), strict=True):
        rounding = 2e-4 if policy == "float32" else 0.05
        np.testing.assert_allclose(other, one, rtol=rounding, atol=rounding * np.abs(one).max())


def test_a_kernel_larger_than_the_image_gets_its_gradient() -> None:
    """In bfloat16 and beside each other, oneDNN gives it values that were never computed."""
    x = keras.Input((4, 4, 32))
    y = L.Conv2D(32, 3, strides=2, padding="same")(x)
    y = L.Conv2D(64, 3, padding="same")(y)
    keras.utils.set_random_seed(2)
    model = keras.Model(x, L.Flatten()(L.Conv2D(64, 5, padding="same")(y)))
    twin = make_twin(model, lambda layer: "mixed_bfloat16", training=True)
    images = tf.random.uniform((32, 4, 4, 32), seed=1)
    weights = tf.random.normal((32, 256), seed=2)

    def slopes(network: keras.Model, variables: list[tf.Variable]) -> list[tf.Tensor]:
        with tf.GradientTape() as tape:
            total = tf.reduce_sum(tf.cast(network(images, training=True), tf.float32) * weights)
        return tape.gradient(total, variables)

    exact = slopes(model, model.trainable_variables)
    fast = slopes(twin.model, twin.of(model.trainable_variables))
    for one, other in zip(exact, fast, strict=True):
        np.testing.assert_allclose(other, one, atol=0.1 * np.abs(one).max())


@both_layouts
def test_noise_is_that_of_the_network(beside: bool) -> None:
    x = keras.Input(SHAPE)
    y = RandomDropout(0.3)(L.MaxPooling2D()(L.ReLU()(L.Conv2D(4, 3)(x))))
    model = keras.Model(x, L.Dense(4)(L.Flatten()(RandomDropout(0.2)(L.Conv2D(3, 2)(y)))))
    twin = make_twin(model, float32).model
    assert kinds(twin.layers).count("BesideDropout") == 2 * beside
    for shared in (False, True):
        found = []
        for network in (model, twin, model):
            with keyed_noise(tf.constant([1, 2]), shared=shared):
                found.append(network(X).numpy())
        np.testing.assert_array_equal(found[0], found[2])
        np.testing.assert_allclose(found[0], found[1], rtol=1e-4, atol=1e-5)


def test_twin_follows_weights_that_change() -> None:
    model = shaken(convnet())
    twin = make_twin(model, float32)
    before = twin.model(X).numpy()
    for variable in model.weights:
        variable.assign(1.1 * variable)
    twin.refresh()
    assert not np.allclose(before, twin.model(X), rtol=0.01)
    np.testing.assert_allclose(twin.model(X), model(X), rtol=1e-4, atol=1e-4)


FLAT = tf.constant(np.repeat([1.0, 0.0, -1.0], 16).reshape(3, 4, 4, 1), tf.float32)


def in_one_graph(network: keras.Model) -> tf.Tensor:
    with tf.GradientTape() as tape:
        tape.watch(FLAT)
        total = tf.reduce_sum(network(FLAT))
    return tape.gradient(total, FLAT)


def in_two_graphs(network: keras.Model) -> tf.Tensor:
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(FLAT)
        total = tf.reduce_sum(network(FLAT))
    return tf.map_fn(lambda weight: tape.gradient(total, FLAT, weight), tf.ones([2]))[0]


@both_layouts
@pytest.mark.parametrize("slope", [in_one_graph, tf.function(in_one_graph), tf.function(in_two_graphs)])
@pytest.mark.parametrize(
    ("activation", "training", "kind"),
    [
        ("relu", False, "ReLUPooling"),
        ("relu", True, "PooledActivation"),
        ("elu", False, "PooledActivation"),
        ("linear", False, "Pooling"),
    ],
)
def test_one_of_the_entries_that_tie_gets_the_slope(
    activation: str, training: bool, kind: str, slope: Callable[[keras.Model], tf.Tensor], beside: bool
) -> None:
    """In flat regions all entries of a window are equal, and pooling may stand before ReLU or behind it."""
    x = keras.Input((4, 4, 1))
    same = {"kernel_size": 1, "kernel_initializer": "ones"}
    y = L.MaxPooling2D()(L.Activation(activation)(L.Conv2D(1, **same)(x)))
    model = keras.Model(x, L.Flatten()(L.Conv2D(1, **same)(y)))
    twin = make_twin(model, float32, training).model
    assert (kind in kinds(twin.layers)) == (beside or kind != "Pooling")
    found = np.asarray(slope(twin))
    np.testing.assert_allclose(found, in_one_graph(model), rtol=1e-6)
    assert found[0].sum() == 4


@both_layouts
@pytest.mark.parametrize("size", [1, (3, 5), 7])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_gradients_of_images_of_a_few_channels(channels: int, size: int | tuple[int, int]) -> None:
    """Their convolution's gradient is computed four pixels at once; TensorFlow's own is what it must be."""
    layer = L.Conv2D(6, size, padding="same", bias_initializer="normal")
    x = tf.constant(np.random.default_rng(1).random((3, 6, 8, channels), np.float32))
    model = keras.Sequential([keras.Input(x.shape[1:]), layer])
    twin = make_twin(model, float32).model
    assert kinds(twin.layers) == ["ThinConvolution"]
    weights = tf.random.normal(model(x).shape, seed=2)
    found = []
    for network in (model, twin):
        with tf.GradientTape() as tape:
            tape.watch(x)
            total = tf.reduce_sum(network(x) * weights)
        found.append(tape.gradient(total, x))
    np.testing.assert_allclose(*found, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "layer", [L.Conv2D(4, 2, padding="same"), L.Conv2D(4, 3), L.Conv2D(4, 3, strides=2, padding="same")]
)
def test_other_convolutions_stay(layer: keras.layers.Layer) -> None:
    model = keras.Sequential([keras.Input((8, 8, 3)), layer, L.Conv2D(2, 3, padding="same")])
    narrow = keras.Sequential([keras.Input((8, 7, 3)), L.Conv2D(4, 3, padding="same")])
    for network in (model, narrow, keras.Sequential([keras.Input((8, 8, 5)), L.Conv2D(4, 3, padding="same")])):
        twin = make_twin(network, float32).model
        # Behind the first layer there are 4 channels, too.
        assert kinds(twin.layers)[0] in ("Conv2D", "Convolution")


@pytest.mark.parametrize(
    "layer", [L.ReLU(max_value=6.0), L.ReLU(negative_slope=0.1), L.Activation("tanh"), L.ReLU(threshold=0.5)]
)
def test_other_activations_stay_before_pooling(layer: keras.layers.Layer) -> None:
    x = keras.Input((4, 4, 1))
    twin = make_twin(keras.Model(x, L.MaxPooling2D()(layer(x))), float32).model
    assert kinds(twin.layers) == ["InputLayer", type(layer).__name__, "MaxPooling2D"]


@both_layouts
def test_training_twin_learns_the_same() -> None:
    """Fused normalisation beside Keras': outputs, gradients by all weights, and moving statistics."""
    model = shaken(convnet())
    kept = model.get_weights()
    twin = make_twin(model, float32, training=True)
    assert "FusedNorm" in kinds(twin.model.layers)
    found = []
    for network, variables in ((model, model.trainable_variables), (twin.model, twin.of(model.trainable_variables))):
        with tf.GradientTape() as tape:
            outputs = network(X, training=True)
            loss = tf.reduce_sum(outputs * tf.range(1.0, 5.0))
        found.append([outputs.numpy(), *(part.numpy() for part in tape.gradient(loss, variables))])
    for one, other in zip(*found, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-4 * np.abs(one).max())
    moved = model.get_weights()
    model.set_weights(kept)
    twin.give_back()
    for one, other, old in zip(moved, model.get_weights(), kept, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)
        assert one.shape == old.shape
    assert not np.allclose(moved[3], kept[3])


def test_batch_renormalisation_is_trained_as_it_is() -> None:
    norm = L.BatchNormalization(renorm=True)
    model = keras.Sequential([keras.Input(SHAPE), L.Conv2D(4, 3), norm, L.ReLU(), L.Flatten(), L.Dense(4)])
    twin = make_twin(shaken(model), float32, training=True)
    before = model.get_weights()
    for _ in range(2):
        np.testing.assert_allclose(twin.model(X, training=True), model(X, training=True), rtol=1e-3, atol=1e-4)
    moved = model.get_weights()
    model.set_weights(before)
    twin.give_back()
    for one, other in zip(moved, model.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)
    assert not np.allclose(before[6], moved[6])


def test_frozen_layers_stay_frozen_in_a_training_twin() -> None:
    model = shaken(convnet())
    frozen = next(layer for layer in model.layers if isinstance(layer, L.BatchNormalization))
    frozen.trainable = False
    twin = make_twin(model, float32, training=True)
    assert len(twin.of(model.trainable_variables)) == len(twin.model.trainable_variables)
    before = [part.numpy() for part in frozen.weights]
    np.testing.assert_allclose(twin.model(X, training=True), model(X, training=True), rtol=1e-3, atol=1e-4)
    twin.give_back()
    for old, new in zip(before, frozen.weights, strict=True):
        np.testing.assert_array_equal(old, new)


def test_adapted_normalisation_is_copied() -> None:
    """Keras keeps the adapted mean and variance beside the weights that they come from."""
    scale = L.Normalization()
    scale.adapt(np.asarray(X) * 3 + 1)
    model = keras.Sequential([keras.Input(SHAPE), scale, L.Flatten(), L.Dense(4)])
    np.testing.assert_allclose(make_twin(model, float32).model(X), model(X), rtol=1e-4, atol=1e-4)
