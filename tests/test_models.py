"""The architectures by name: sizes from the literature, logits, and images normalised inside the model."""

from __future__ import annotations

import math
from typing import Any, get_args

import keras
import numpy as np
import pytest
import tensorflow as tf
from cli import ROOT
from keras import layers as L

from kerasrobust import names
from kerasrobust.errors import InputError
from kerasrobust.networks.architectures import ARCHITECTURES, build_model, is_graph

X = np.random.default_rng(0).random((5, 32, 32, 3), np.float32)


def test_lenet_has_the_parameters_of_lenet_5() -> None:
    """6 and 16 filters of 5x5, then 120, 84 and 10 units: (75+1)6 + (150+1)16 + 401*120... = 62,006."""
    by_hand = (5 * 5 * 3 + 1) * 6 + (5 * 5 * 6 + 1) * 16 + (400 + 1) * 120 + (120 + 1) * 84 + (84 + 1) * 10
    assert build_model("lenet").count_params() == by_hand == 62_006


def test_convnet_has_its_widths() -> None:
    model = build_model("convnet", widths=(8, 16))
    found = [layer.filters for layer in model.layers if isinstance(layer, L.Conv2D)]
    assert found == [8, 16]
    assert [type(layer) for layer in model.layers].count(L.BatchNormalization) == 2
    assert [layer.units for layer in model.layers if isinstance(layer, L.Dense)] == [16, 10]
    assert len([layer for layer in build_model("convnet").layers if isinstance(layer, L.MaxPooling2D)]) == 3


def test_resnet_has_its_depth_and_widths() -> None:
    model = build_model("resnet", depth=3, width=4)
    adds = [layer for layer in model.layers if isinstance(layer, L.Add)]
    assert [layer.output.shape[1:] for layer in adds] == [(32, 32, 4)] * 3 + [(16, 16, 8)] * 3 + [(8, 8, 16)] * 3


def test_blocks_of_several_convolutions_with_global_pooling() -> None:
    model = build_model("convnet", widths=(4, 8), convolutions=2, pooling="average", activation="silu")
    kinds = [type(layer).__name__ for layer in model.layers[2:]]
    first = ["Conv2D", "BatchNormalization", "Activation"]
    assert kinds == (2 * first + ["MaxPooling2D"]) * 2 + ["GlobalAveragePooling2D", "Dense"]
    assert [layer.filters for layer in model.layers if isinstance(layer, L.Conv2D)] == [4, 4, 8, 8]
    assert model.layers[-1].input.shape == (None, 8)


@pytest.mark.parametrize("activation", get_args(names.Activation))
@pytest.mark.parametrize("architecture", ["convnet", "resnet"])
def test_activations(architecture: str, activation: str) -> None:
    """Each convolution's normalised features, and the dense layer's units, go through the function itself."""
    model = build_model(architecture, image_shape=(8, 8, 3), widths=(4,), depth=1, width=4, activation=activation)
    wanted = {
        "relu": lambda x: np.maximum(x, 0),
        "elu": lambda x: np.where(x > 0, x, np.expm1(x)),
        "silu": lambda x: x / (1 + np.exp(-x)),
        "gelu": lambda x: x * (1 + np.vectorize(math.erf)(x / math.sqrt(2))) / 2,
        "softplus": lambda x: np.log1p(np.exp(x)),
    }[activation]
    active = [layer for layer in model.layers if isinstance(layer, (L.ReLU, L.Activation))]
    assert len(active) == (1 if architecture == "convnet" else 7)
    x = np.linspace(-3, 3, 13, dtype=np.float32)
    for layer in active:
        np.testing.assert_allclose(layer(x), wanted(x), atol=1e-5)
    dense = [layer.activation for layer in model.layers if isinstance(layer, L.Dense)][:-1]
    for function in dense:
        np.testing.assert_allclose(function(x), wanted(x), atol=1e-5)


@pytest.mark.parametrize("architecture", ["convnet", "resnet"])
@pytest.mark.parametrize(("stem", "side"), [(2, 16), (4, 8)])
def test_a_stem_makes_the_image_smaller_and_sees_every_pixel(architecture: str, stem: int, side: int) -> None:
    model = build_model(architecture, depth=1, width=4, widths=(4, 8), stem=stem)
    first = next(layer for layer in model.layers if isinstance(layer, L.Conv2D))
    assert first.output.shape == (None, side, side, 4)
    x = tf.constant(X)
    with tf.GradientTape() as tape:
        tape.watch(x)
        loss = tf.reduce_sum(keras.Model(model.inputs, first.output)(x))
    assert tf.reduce_all(tape.gradient(loss, x) != 0)


@pytest.mark.parametrize(("name", "architecture"), [("convnet-pgd", "convnet"), ("lenet", "lenet")])
def test_without_settings_the_networks_of_before_come(name: str, architecture: str) -> None:
    """What was saved earlier has the layers and, with its weights, the logits of what is built today."""
    saved = keras.saving.load_model(ROOT / "saved_models" / name / "model.keras", compile=False)
    built = build_model(architecture)
    assert [type(layer) for layer in built.layers] == [type(layer) for layer in saved.layers]
    built.set_weights(saved.get_weights())
    np.testing.assert_array_equal(built(X), saved(X))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_logits_of_any_shape_and_number_of_classes(architecture: str) -> None:
    model = build_model(architecture, image_shape=(28, 24, 1), classes=7)
    logits = model(np.random.default_rng(0).random((3, 28, 24, 1), np.float32))
    assert logits.shape == (3, 7)
    assert logits.dtype == tf.float32
    assert model.layers[-1].activation is keras.activations.linear
    assert is_graph(model)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_images_are_normalised_inside(architecture: str) -> None:
    model = build_model(architecture)
    inner = keras.Model(model.inputs[0], model.get_layer("normalise").output)
    # 0, 0.5 and 1 become -2, 0 and 2.
    np.testing.assert_allclose(inner(X), (X - 0.5) / 0.25, atol=1e-5)


def test_inference_does_not_depend_on_the_batch() -> None:
    model = build_model("convnet", widths=(4, 8))
    np.testing.assert_allclose(model(X, training=False)[:1], model(X[:1], training=False), atol=1e-5)


def test_mixed_precision_gives_float32_logits_and_leaves_the_global_policy() -> None:
    model = build_model("convnet", widths=(4, 8), dtype="mixed_bfloat16")
    assert model(X).dtype == tf.float32
    assert {layer.compute_dtype for layer in model.layers if isinstance(layer, L.Conv2D)} == {"bfloat16"}
    assert {variable.dtype for variable in model.variables} == {"float32"}
    assert keras.config.dtype_policy().name == "float32"


@pytest.mark.parametrize(
    ("settings", "part"),
    [
        ({"architecture": "conv-net"}, "'convnet'"),
        ({"classes": 1}, "2 classes"),
        ({"architecture": "lenet", "image_shape": (12, 32, 3)}, "16x16"),
        ({"widths": (4, 4, 4, 4), "image_shape": (8, 8, 3)}, "16x16"),
        ({"architecture": "resnet", "image_shape": (4, 4, 3)}, "8x8"),
        ({"architecture": "resnet", "image_shape": (8, 8, 3), "stem": 2}, "16x16"),
        ({"widths": (4, 4), "image_shape": (4, 8, 3), "stem": 2}, "8x8"),
        ({"pooling": "avg"}, "pooling that exists"),
        ({"activation": "swish"}, "activation that exists"),
        ({"convolutions": 0}, "convolutions of at least 1. Received: 0"),
        ({"widths": ()}, "widths of at least 1. Received: 0"),
        ({"architecture": "resnet", "depth": 0}, "depth of at least 1"),
        ({"architecture": "resnet", "stem": 0}, "stem of at least 1"),
    ],
)
def test_what_cannot_be_built_is_refused_in_one_line(settings: dict[str, Any], part: str) -> None:
    with pytest.raises(InputError, match=part) as caught:
        build_model(**settings)
    assert "\n" not in str(caught.value)


def test_smallest_images_work() -> None:
    for architecture, side in (("lenet", 16), ("convnet", 8), ("resnet", 8)):
        assert build_model(architecture, image_shape=(side, side, 3)).output_shape == (None, 10)


def test_config_knows_the_same_names() -> None:
    assert names.ARCHITECTURES == ARCHITECTURES
