"""The SavedModel and the `model.keras` of a folder are one network, whichever layer of Keras is in it.

All layers stand side by side in one network, two columns of its outputs for each, so that one folder serves all tests.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers as L

from kerasrobust.networks.noise import RandomDropout
from kerasrobust.networks.saving import load_model, save_model

SHAPE = (8, 8, 3)
X = np.random.default_rng(5).random((6, *SHAPE), np.float32)


def rows(x: Any) -> Any:
    return L.Reshape((8, 24))(x)


def volume(x: Any) -> Any:
    return L.Reshape((8, 6, 4, 1))(x)


def whole(x: Any) -> Any:
    return keras.ops.cast(5 * x, "int64")


def two(layer: L.Layer) -> Callable[[Any], Any]:
    return lambda x: layer([x, keras.ops.flip(x, axis=1)])


def adapted() -> L.Layer:
    layer = L.Normalization()
    layer.adapt(5 * X - 1)
    return layer


def attention(layer: L.Layer) -> Callable[[Any], Any]:
    return lambda x: layer(rows(x), rows(x))


def pooling(rank: int, *arguments: Any) -> dict[str, Callable[[Any], Any]]:
    shape = {1: rows, 2: lambda x: x, 3: volume}[rank]
    size: Any = (2, 2, 2)[:rank]
    make = {
        f"AdaptiveAveragePooling{rank}D": lambda: layer(f"AdaptiveAveragePooling{rank}D", size),
        f"AdaptiveMaxPooling{rank}D": lambda: layer(f"AdaptiveMaxPooling{rank}D", size),
        f"AveragePooling{rank}D": lambda: layer(f"AveragePooling{rank}D", size),
        f"MaxPooling{rank}D": lambda: layer(f"MaxPooling{rank}D", size),
        f"GlobalAveragePooling{rank}D": lambda: layer(f"GlobalAveragePooling{rank}D"),
        f"GlobalMaxPooling{rank}D": lambda: layer(f"GlobalMaxPooling{rank}D"),
        f"Conv{rank}D": lambda: layer(f"Conv{rank}D", 2, 2),
        f"Conv{rank}DTranspose": lambda: layer(f"Conv{rank}DTranspose", 2, 2),
        f"Cropping{rank}D": lambda: layer(f"Cropping{rank}D", 1),
        f"SpatialDropout{rank}D": lambda: layer(f"SpatialDropout{rank}D", 0.5),
        f"UpSampling{rank}D": lambda: layer(f"UpSampling{rank}D", 2),
        f"ZeroPadding{rank}D": lambda: layer(f"ZeroPadding{rank}D", 1),
    }
    if rank < 3:
        make[f"SeparableConv{rank}D"] = lambda: layer(f"SeparableConv{rank}D", 2, 2)
        make[f"DepthwiseConv{rank}D"] = lambda: layer(f"DepthwiseConv{rank}D", 2)
    return {name: lambda x, made=made: made()(shape(x)) for name, made in make.items()}


def layer(name: str, *arguments: Any) -> L.Layer:
    return getattr(L, name)(*arguments)


TAKING_IMAGES: dict[str, Callable[[Any], Any]] = {
    **{name: lambda x, name=name: layer(name)(x) for name in (
        "AutoContrast", "BatchNormalization", "ELU", "Equalization", "Flatten", "Identity", "LayerNormalization",
        "LeakyReLU", "Masking", "PReLU", "RMSNormalization", "ReLU", "Softmax", "UnitNormalization", "AugMix", "CutMix",
        "MixUp", "RandAugment", "RandomElasticTransform", "RandomErasing", "RandomFlip", "RandomGaussianBlur",
        "RandomPerspective",
    )},
    **{name: lambda x, name=name: layer(name, 0.5)(x) for name in (
        "AlphaDropout", "Dropout", "GaussianDropout", "GaussianNoise", "RandomBrightness", "RandomColorDegeneration",
        "RandomContrast", "RandomGrayscale", "RandomHue", "RandomInvert", "RandomRotation",
        "RandomSaturation", "RandomSharpness", "RandomZoom",
    )},
    **{name: lambda x, name=name: two(layer(name))(x) for name in (
        "Add", "Average", "Concatenate", "Maximum", "Minimum", "Multiply", "Subtract",
    )},
    **pooling(1), **pooling(2), **pooling(3),
    "Activation": L.Activation("tanh"),
    "ActivityRegularization": L.ActivityRegularization(0.1),
    "AdditiveAttention": lambda x: L.AdditiveAttention()([rows(x), rows(x)]),
    "Attention": lambda x: L.Attention()([rows(x), rows(x)]),
    "Bidirectional": lambda x: L.Bidirectional(L.GRU(2))(rows(x)),
    "CategoryEncoding": lambda x: L.CategoryEncoding(6, "count")(L.Flatten()(whole(x))),
    "CenterCrop": L.CenterCrop(4, 4),
    "ContrastLimitedAdaptiveHistogramEqualization": L.ContrastLimitedAdaptiveHistogramEqualization((0, 1)),
    "ConvLSTM1D": L.ConvLSTM1D(2, 2),
    "ConvLSTM2D": lambda x: L.ConvLSTM2D(2, 2)(L.Reshape((2, 4, 8, 3))(x)),
    "ConvLSTM3D": lambda x: L.ConvLSTM3D(2, 2)(L.Reshape((2, 4, 4, 2, 3))(x)),
    "Dense": L.Dense(3),
    "Discretization": L.Discretization([0.2, 0.5, 0.7]),
    "Dot": lambda x: L.Dot(axes=2)([rows(x), rows(x)]),
    "EinsumDense": L.EinsumDense("nhwc,cd->nhwd", (8, 8, 2)),
    "Embedding": lambda x: L.Embedding(6, 2)(whole(x)),
    "GRU": lambda x: L.GRU(2)(rows(x)),
    "GRUCell": lambda x: L.RNN(L.GRUCell(2))(rows(x)),
    "GroupNormalization": L.GroupNormalization(3),
    "GroupedQueryAttention": attention(L.GroupQueryAttention(4, 2, 1)),
    "HashedCrossing": lambda x: two(L.HashedCrossing(5))(L.Flatten()(whole(x))[:, :1]),
    "Hashing": lambda x: L.Hashing(4)(whole(x)),
    "IntegerLookup": lambda x: L.IntegerLookup(vocabulary=[1, 3])(whole(x)),
    "LSTM": lambda x: L.LSTM(2)(rows(x)),
    "LSTMCell": lambda x: L.RNN(L.LSTMCell(2))(rows(x)),
    "MelSpectrogram": lambda x: L.MelSpectrogram(32, 16, num_mel_bins=4)(L.Flatten()(x)),
    "MultiHeadAttention": attention(L.MultiHeadAttention(2, 3, dropout=0.5)),
    "Normalization": adapted(),
    "Permute": L.Permute((3, 1, 2)),
    "Pipeline": L.Pipeline([L.RandomFlip(), L.Rescaling(3.0)]),
    "RNN": lambda x: L.RNN(L.SimpleRNNCell(2))(rows(x)),
    "RandomColorJitter": L.RandomColorJitter((0, 1), 0.5, 0.5, 0.5, 0.5),
    "RandomCrop": L.RandomCrop(8, 8),
    "RandomPosterization": L.RandomPosterization(4),
    # A single number x becomes (-x, x) in its configuration, which Keras itself refuses to read.
    "RandomShear": L.RandomShear((0.1, 0.5), (0.1, 0.5)),
    "RandomTranslation": L.RandomTranslation(0.3, 0.3),
    "RepeatVector": lambda x: L.RepeatVector(3)(L.Flatten()(x)),
    "Rescaling": L.Rescaling(2.0, -1.0),
    "Reshape": L.Reshape((4, -1)),
    "Resizing": L.Resizing(5, 6),
    "ReversibleEmbedding": lambda x: L.ReversibleEmbedding(6, 2)(whole(x)),
    "SimpleRNN": lambda x: L.SimpleRNN(2, dropout=0.5)(rows(x)),
    "SimpleRNNCell": lambda x: L.RNN(L.SimpleRNNCell(3))(rows(x)),
    "Solarization": L.Solarization(value_range=(0, 1)),
    "SpectralNormalization": L.SpectralNormalization(L.Conv2D(2, 2)),
    "StackedRNNCells": lambda x: L.RNN(L.StackedRNNCells([L.GRUCell(2), L.LSTMCell(2)]))(rows(x)),
    "TimeDistributed": L.TimeDistributed(L.Dense(2)),
}  # fmt: skip

NOT_TAKING_IMAGES = {
    "FlaxLayer": "needs Flax",
    "InputLayer": "stands in front of every model",
    "JaxLayer": "needs JAX",
    "Lambda": "is in test_rebuilding.py, as its file needs consent",
    "Layer": "computes nothing itself",
    "MaxNumBoundingBoxes": "takes boxes",
    "STFTSpectrogram": "takes sound, and needs SciPy",
    "StringLookup": "takes text",
    "TFSMLayer": "is a SavedModel, of which model.keras only has the path",
    "TextVectorization": "takes text",
    "TorchModuleWrapper": "needs PyTorch",
    "Wrapper": "computes nothing itself",
}


def test_no_layer_is_left_out() -> None:
    classes = {thing.__name__ for thing in vars(L).values() if inspect.isclass(thing) and issubclass(thing, L.Layer)}
    assert classes == {*TAKING_IMAGES, *NOT_TAKING_IMAGES}


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, np.ndarray]:
    """The outputs of the network in memory, of its SavedModel (twice) and of its Keras file, for each two columns."""
    keras.utils.set_random_seed(2)
    images = keras.Input(SHAPE)
    heads = [L.Dense(2)(L.Flatten()(keras.ops.cast(make(images), "float32"))) for make in TAKING_IMAGES.values()]
    model = keras.Model(images, L.Concatenate()(heads))
    folder = tmp_path_factory.mktemp("layers") / "m"
    save_model(model, folder, {})
    saved = tf.saved_model.load(str(folder))
    loaded = keras.models.load_model(folder / "model.keras")
    outputs = [model(X, training=False), loaded(X, training=False), saved.serve(X), saved.serve(X[:3])]
    return dict(zip(("memory", "file", "exported", "again"), map(np.asarray, outputs), strict=True))


@pytest.mark.parametrize("name", TAKING_IMAGES)
def test_both_forms_are_the_same_network(name: str, found: dict[str, np.ndarray]) -> None:
    start = 2 * list(TAKING_IMAGES).index(name)
    memory, file, exported, again = (outputs[:, start : start + 2] for outputs in found.values())
    assert np.ptp(memory, axis=0).any()  # The layer's outputs follow the images, so that a lost one is seen.
    np.testing.assert_allclose(file, memory, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(exported, memory, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(again, memory[:3], rtol=1e-4, atol=1e-5)


def test_dropout_that_stays_on_is_on_in_both(tmp_path: Any) -> None:
    model = keras.Sequential([keras.Input(SHAPE), RandomDropout(0.5), L.Flatten(), L.Dense(2)])
    folder = save_model(model, tmp_path / "m", {})
    saved, loaded = tf.saved_model.load(str(folder)), load_model(folder)
    for network in (saved.serve, loaded):
        assert not np.allclose(network(X), network(X), atol=1e-3)
