"""Small networks of all the shapes that twins fold, fuse and lay out."""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf
from conftest import SHAPE
from keras import layers as L

from kerasrobust.networks.architectures import build_model


def shaken(model: keras.Model) -> keras.Model:
    """Returns a model whose normalisations and biases do something: random statistics, scales and offsets."""
    draw = np.random.default_rng(5)
    for layer in model._flatten_layers():
        if getattr(layer, "bias", None) is not None:
            layer.bias.assign(draw.uniform(-0.5, 0.5, layer.bias.shape))
        if isinstance(layer, L.BatchNormalization):
            for variable in layer.weights:
                variable.assign(draw.uniform(0.3, 2, variable.shape))
    return model


@keras.saving.register_keras_serializable("tests")
def middle(x: tf.Tensor) -> tf.Tensor:
    return x - tf.reduce_mean(x, axis=3, keepdims=True)


def convnet() -> keras.Model:
    return build_model("convnet", image_shape=SHAPE, classes=4, widths=(4, 8))


def resnet() -> keras.Model:
    return build_model("resnet", image_shape=SHAPE, classes=4, depth=1, width=4)


def deep(activation: str) -> keras.Model:
    """Several convolutions a block, each folded, and global pooling."""
    settings = {"convolutions": 2, "pooling": "average", "activation": activation}
    return build_model("convnet", image_shape=SHAPE, classes=4, widths=(4, 8), **settings)


def stemmed() -> keras.Model:
    shape = (2 * SHAPE[0], 2 * SHAPE[1], 3)
    model = build_model("resnet", image_shape=shape, classes=4, depth=2, width=4, activation="silu", stem=2)
    x = keras.Input(SHAPE)
    return keras.Model(x, model(L.UpSampling2D()(x)))


def assorted() -> keras.Model:
    """Depthwise and dense layers, no scale or offset, another axis, a nested model, a normalisation of two uses."""
    inner = keras.Sequential([keras.Input((8, 8, 6)), L.Conv2D(5, 3), L.BatchNormalization(scale=False)])
    x = keras.Input(SHAPE)
    y = L.BatchNormalization()(L.DepthwiseConv2D(3, depth_multiplier=2, padding="same")(x))
    y = L.MaxPooling2D()(L.Activation("relu")(inner(y)))
    twice = L.Conv2D(5, 1)
    y = L.BatchNormalization()(twice(y)) + twice(y)
    y = L.BatchNormalization(axis=1)(L.Conv2D(3, 1, use_bias=False)(y))
    y = L.BatchNormalization(center=False)(L.Dense(7, use_bias=False)(L.Flatten()(y)))
    y = L.BatchNormalization()(L.Dense(6, activation="elu")(y))
    return keras.Model(x, L.Dense(4)(y))


def branched() -> keras.Model:
    """What images beside each other must get through: branches, merges, averages, convolutions of all sorts."""
    x = keras.Input(SHAPE)
    y = L.Conv2D(4, 3, strides=2, padding="valid", activation="relu")(x)
    side = L.Conv2D(3, (1, 3), dilation_rate=2, padding="same")(y)  # Stays in the usual shape.
    both = L.Concatenate(axis=3)([L.Conv2D(2, 3, padding="same", groups=2)(y), L.Conv2D(4, (3, 2), padding="same")(y)])
    y = L.AveragePooling2D(2, strides=1, padding="same")(L.LeakyReLU()(L.BatchNormalization(axis=3)(both)))
    y = L.Add()([L.Conv2D(6, 1)(y), y])
    y = L.MaxPooling2D((1, 2), padding="same")(y)
    y = L.Concatenate()([L.GlobalAveragePooling2D()(y), L.Flatten()(L.Conv2D(2, 1)(y)), L.GlobalMaxPooling2D()(side)])
    return keras.Model(x, L.Dense(4)(y))


def crossed() -> keras.Model:
    """A layer that the usual shape is wanted of beside a merge with one of which it isn't; nested ones; own code."""
    x = keras.Input(SHAPE)
    one = L.Conv2D(4, 3, padding="same", activation="relu")(x)
    other = L.Conv2D(4, 3, padding="same")(x)
    both = L.Dropout(0.5)(L.Conv2D(4, 3, padding="same")(L.ReLU()(L.Add()([one, other]))))
    inner = keras.Sequential([keras.Input((8, 8, 4)), L.Conv2D(3, 3, activation="softmax"), L.MaxPooling2D()])
    mean = L.Activation(middle)(L.Conv2D(2, 3, activation=middle)(both))
    parts = [L.Flatten()(inner(both)), L.GlobalAveragePooling2D()(one), L.Flatten()(mean), L.Flatten()(both * 2.0)]
    return keras.Model(x, L.Dense(4)(L.Concatenate()(parts)))


def leaving() -> keras.Model:
    """Normalisations and poolings before what needs the usual shape; layers as activations; strides past windows."""
    x = keras.Input(SHAPE)
    y = L.PReLU()(L.BatchNormalization()(L.Conv2D(4, 3, padding="same")(x)))
    y = L.BatchNormalization()(L.Conv2D(4, 3)(y)) + 1.0
    y = L.Conv2D(4, 3, padding="same", activation=L.Softmax(axis=3))(y)
    y = L.Conv2D(4, 1, activation=L.PReLU(alpha_initializer="ones"))(L.Activation(L.Softmax(axis=2))(y))
    y = L.AveragePooling2D(1, strides=2)(L.MaxPooling2D(1, strides=2)(L.ReLU()(L.Conv2D(4, 1)(y))))
    return keras.Model(x, L.Dense(4)(L.GlobalAveragePooling2D()(L.BatchNormalization()(L.Conv2D(3, 1)(y)))))
