"""The architectures that can be trained by name. All give logits and take images in [0, 1]."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, get_args

import keras
from keras import layers
from keras.src.models.functional import Functional  # Keras 3 has no public name for it.

from kerasrobust.errors import InputError, unknown_name
from kerasrobust.names import Activation, Pooling


def build_model(
    architecture: str = "convnet",
    *,
    image_shape: tuple[int, int, int] = (32, 32, 3),
    classes: int = 10,
    widths: Sequence[int] = (32, 64, 128),
    depth: int = 2,
    width: int = 16,
    convolutions: int = 1,
    pooling: Pooling = "flatten",
    activation: Activation = "relu",
    stem: int = 1,
    dtype: str = "float32",
) -> keras.Model:
    """Builds a functional Keras model with random weights.

    The images are normalised inside the model, so an attack's epsilon always means a share of the range [0, 1].

    Args:
        architecture: `lenet` (Model A: LeNet-5, LeCun et al. 1998, 62,006 parameters on CIFAR-10), `convnet` (Model B:
            blocks of convolutions, each with batch normalisation and activation, and max pooling; then two dense
            layers) or `resnet` (a small pre-activation ResNet, He et al. 2016b).
        image_shape: height, width, channels.
        classes: the number of classes, at least 2.
        widths: filters of each block of `convnet`.
        depth: residual blocks in each of the three stages of `resnet`.
        width: filters in the first stage of `resnet`; doubled in each further one.
        convolutions: convolutions in each block of `convnet`.
        pooling: what follows the last block of `convnet`: `flatten` and a dense layer of as many units as that block
            has filters, or `average`, global average pooling without that layer (Lin et al. 2014).
        activation: of `convnet` and `resnet`: "relu", or "elu", "silu", "gelu" or "softplus", whose slope has no jump,
            so that attacks in training follow better gradients (Xie et al. 2020). On a processor `elu` costs least.
        stem: strides of the first convolution of `convnet` and `resnet`; 2 halves the sides of the image first, which
            spends a quarter of the multiplications.
        dtype: dtype policy; `mixed_bfloat16` computes in bfloat16 with float32 weights and float32 logits.

    Returns:
        A Keras model, float32 (N, H, W, C) in [0, 1] -> float32 logits (N, classes).

    Raises:
        InputError: for an unknown architecture, pooling or activation, a number below 1, fewer than 2 classes, or
            images too small for it.

    Example:
        >>> build_model("lenet").count_params()
        62006
        >>> build_model("convnet", convolutions=2, pooling="average", activation="silu").count_params()
        289642
    """
    if architecture not in ARCHITECTURES:
        raise unknown_name("architecture", architecture, ARCHITECTURES)
    for what, word, known in (("pooling", pooling, Pooling), ("activation", activation, Activation)):
        if word not in get_args(known):
            raise unknown_name(what, str(word), get_args(known))
    sizes = {"widths": min(widths, default=0), "depth": depth, "width": width}
    for what, number in (sizes | {"convolutions": convolutions, "stem": stem}).items():
        if number < 1:
            raise InputError(f"Expected {what} of at least 1. Received: {number}. Give a larger number.")
    if classes < 2:
        raise InputError(f"Expected at least 2 classes. Received: {classes}. Check the labels of the data.")
    smallest = {"lenet": 16, "convnet": 2 ** len(widths) * stem, "resnet": 8 * stem}[architecture]
    if min(image_shape[:2]) < smallest:
        raise InputError(
            f"Expected images of at least {smallest}x{smallest} pixels for {architecture!r}. "
            f"Received: {image_shape[0]}x{image_shape[1]}. Choose another architecture or larger images."
        )
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy(dtype)
    try:
        images = keras.Input(image_shape, dtype="float32", name="images")
        # (x - 0.5) / 0.25: about zero mean and unit spread on natural images, and the same for every data set.
        hidden = layers.Rescaling(4.0, offset=-2.0, name="normalise")(images)
        if architecture == "lenet":
            hidden = _lenet(hidden)
        elif architecture == "convnet":
            hidden = _convnet(hidden, widths, convolutions, pooling, activation, stem)
        else:
            hidden = _resnet(hidden, depth, width, activation, stem)
        # The last layer stays in float32: logits rounded to bfloat16 tie and hide small margins.
        logits = layers.Dense(classes, dtype="float32", name="logits")(hidden)
    finally:
        keras.config.set_dtype_policy(policy)
    return keras.Model(images, logits, name=architecture)


ARCHITECTURES = ("lenet", "convnet", "resnet")


def _lenet(hidden: keras.KerasTensor) -> keras.KerasTensor:
    for filters in (6, 16):
        hidden = layers.Conv2D(filters, 5, activation="relu")(hidden)
        hidden = layers.MaxPooling2D()(hidden)
    hidden = layers.Flatten()(hidden)
    for units in (120, 84):
        hidden = layers.Dense(units, activation="relu")(hidden)
    return hidden


def _activated(hidden: keras.KerasTensor, activation: str) -> keras.KerasTensor:
    """Returns the activation of normalised features."""
    # 0.9 instead of Keras' 0.99: attacks in the training step use the moving statistics, which must not lag.
    hidden = layers.BatchNormalization(momentum=0.9)(hidden)
    return (layers.ReLU() if activation == "relu" else layers.Activation(activation))(hidden)


def _convolution(hidden: keras.KerasTensor, filters: int, strides: int) -> keras.KerasTensor:
    # With longer strides than its kernel it would leave pixels out.
    return layers.Conv2D(filters, max(3, strides), strides, padding="same", use_bias=False)(hidden)


def _convnet(
    hidden: keras.KerasTensor, widths: Sequence[int], convolutions: int, pooling: str, activation: str, stem: int
) -> keras.KerasTensor:
    strides = stem
    for filters in widths:
        for _ in range(convolutions):
            hidden = _convolution(hidden, filters, strides)
            strides = 1
            hidden = _activated(hidden, activation)
        hidden = layers.MaxPooling2D()(hidden)
    if pooling == "average":
        return layers.GlobalAveragePooling2D()(hidden)
    hidden = layers.Flatten()(hidden)
    return layers.Dense(widths[-1], activation=activation)(hidden)


def _resnet(hidden: keras.KerasTensor, depth: int, width: int, activation: str, stem: int) -> keras.KerasTensor:
    hidden = _convolution(hidden, width, stem)
    for stage in range(3):
        filters = width * 2**stage
        for block in range(depth):
            strides = 2 if stage and not block else 1
            activated = _activated(hidden, activation)
            branch = layers.Conv2D(filters, 3, strides, padding="same", use_bias=False)(activated)
            branch = _activated(branch, activation)
            branch = layers.Conv2D(filters, 3, padding="same", use_bias=False)(branch)
            if strides > 1 or hidden.shape[-1] != filters:
                hidden = layers.Conv2D(filters, 1, strides, use_bias=False)(activated)
            hidden = layers.Add()([hidden, branch])
    hidden = _activated(hidden, activation)
    return layers.GlobalAveragePooling2D()(hidden)


GRAPHS = (Functional, keras.Sequential)
"""Models of layers in a graph, unless a subclass has a `call` of its own."""


def predicting(model: keras.Model) -> dict[str, bool]:
    """Returns how `predict` calls a model: with `training=False`, or with nothing if its `call` takes no `training`.

    In the second case Keras 3.15 leaves layers that augment images switched on.

    Example:
        >>> predicting(build_model("convnet"))
        {'training': False}
    """
    return {"training": False} if model._call_has_training_arg else {}


def graph_of(model: Any) -> Any:
    """Returns the functional model that holds the operations of a model: a built Sequential keeps one of its own.

    Example:
        >>> [part.name for part in graph_of(build_model("lenet")).operations][:2]
        ['images', 'normalise']
    """
    return getattr(model, "_functional", None) or model


def is_graph(model: Any) -> bool:
    """Returns whether a model is nothing but its graph of layers: a subclass may have a `call` of its own."""
    return isinstance(model, GRAPHS) and type(model).call in (Functional.call, keras.Sequential.call)
