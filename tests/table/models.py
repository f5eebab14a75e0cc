"""Whole models as tutorials and libraries give them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf
from keras import layers as L
from keras.src.applications import convnext, densenet, efficientnet, resnet

from table.common import digits, keras_subject, photos, trained
from table.measure import EPSILON, Subject, form

MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

BY_HAND: dict[str, Callable[[Any], Any]] = {
    "none": lambda now: now * 255.0,
    "tf": lambda now: now * 2.0 - 1.0,
    "torch": lambda now: (now - tf.constant(MEAN)) / tf.constant(DEVIATION),
    "caffe": lambda now: now[..., ::-1] * 255.0 - tf.constant([103.939, 116.779, 123.68]),
}
"""The modes of `keras.applications`, as their documentation has them."""

SMALL: dict[str, Any] = {"weights": None, "include_top": False, "input_shape": (32, 32, 3), "pooling": "avg"}


def _tutorial(folder: Path, scale: float, rate: float) -> Subject:
    x, y, images, labels = digits()
    model = keras.Sequential(
        [keras.Input((28, 28)), L.Flatten(), L.Dense(128, activation="relu"), L.Dropout(0.2), L.Dense(10)]
    )
    trained(model, x * (scale / 255), y, epochs=20, rate=rate)
    said = f"0,{scale:g}"
    return keras_subject(
        folder, model, images, labels, lambda now: now[..., 0] * scale,
        said="isn't clear", then=["--input-range", said], then_settings={"input_range": said},
    )  # fmt: skip


@form("MNIST tutorial, (28, 28), 0..1", process=True)
def mnist(folder: Path) -> Subject:
    return _tutorial(folder, 1.0, 1e-3)


@form("MNIST tutorial, (28, 28), 0..255")
def mnist_255(folder: Path) -> Subject:
    return _tutorial(folder, 255.0, 1e-4)


def _family(
    folder: Path, module: Any, mode: str, backbone: keras.Model, epsilon: float = EPSILON, **how: Any
) -> Subject:
    """A family of `keras.applications` with its own preprocessing, trained on photos in 0..255."""
    x, y, images, labels = photos()
    prepared = module.preprocess_input(x.astype("float32"))
    model = keras.Sequential([keras.Input(x.shape[1:]), backbone, L.Dense(4, activation="softmax")])
    trained(model, prepared, y, **how)
    said = {"none": "0,255", "tf": "-1,1", "torch": "imagenet", "caffe": "caffe"}[mode]
    return keras_subject(
        folder, model, images, labels, BY_HAND[mode], logits=False, epsilon=epsilon,
        said="fit equally well", then=["--input-range", said], then_settings={"input_range": said},
    )  # fmt: skip


@form("ResNet, preprocess_input (caffe)")
def resnet_caffe(folder: Path) -> Subject:
    def stack(x: Any) -> Any:
        x = resnet.stack_residual_blocks_v1(x, 8, 1, stride1=1, name="a")
        return resnet.stack_residual_blocks_v1(x, 16, 1, name="b")

    return _family(folder, keras.applications.resnet, "caffe", resnet.ResNet(stack, False, True, **SMALL))


@form("ResNetV2, preprocess_input (-1..1)")
def resnet_v2(folder: Path) -> Subject:
    def stack(x: Any) -> Any:
        x = resnet.stack_residual_blocks_v2(x, 8, 2, stride1=1, name="a")
        return resnet.stack_residual_blocks_v2(x, 16, 2, stride1=1, name="b")

    return _family(folder, keras.applications.resnet_v2, "tf", resnet.ResNet(stack, True, True, **SMALL))


@form("MobileNet, preprocess_input (-1..1)")
def mobilenet(folder: Path) -> Subject:
    family = keras.applications.mobilenet
    return _family(folder, family, "tf", family.MobileNet(alpha=0.25, **SMALL), epsilon=0.5 / 255, epochs=10)


@form("DenseNet, preprocess_input (torch)")
def dense_net(folder: Path) -> Subject:
    return _family(folder, keras.applications.densenet, "torch", densenet.DenseNet((1, 1, 1, 1), **SMALL))


@form("EfficientNet, preprocessing inside (0..255)")
def efficient_net(folder: Path) -> Subject:
    backbone = efficientnet.EfficientNet(0.25, 0.2, 32, weights_name="", **SMALL)
    return _family(folder, keras.applications.efficientnet, "none", backbone, epsilon=0.5 / 255, epochs=10)


@form("ConvNeXt, preprocessing inside (0..255)")
def conv_next(folder: Path) -> Subject:
    backbone = convnext.ConvNeXt((1, 1, 1, 1), (16, 16, 32, 32), layer_scale_init_value=0.1, **SMALL)
    return _family(folder, keras.applications.convnext, "none", backbone, epochs=10)


@form("VGG, preprocess_input (caffe)")
def vgg(folder: Path) -> Subject:
    whole = keras.applications.VGG16(**SMALL)
    config = whole.get_config()
    for layer in config["layers"]:  # An eighth as wide.
        layer.pop("build_config", None)
        if layer["class_name"] == "Conv2D":
            layer["config"]["filters"] //= 8
    narrow = keras.Model.from_config(config)
    backbone = keras.Model(narrow.input, L.GlobalAveragePooling2D()(narrow.get_layer("block3_pool").output))
    return _family(folder, keras.applications.vgg16, "caffe", backbone, rate=1e-3)


@form("transfer learning, augmentation inside (0..255)", process=True)
def transfer(folder: Path) -> Subject:
    """As TensorFlow's tutorial has it; the backbone is trained first, as no pretrained weights are at hand."""
    x, y, images, labels = photos()
    backbone = keras.applications.MobileNetV2(alpha=0.35, **SMALL)
    first = keras.Sequential([keras.Input(x.shape[1:]), backbone, L.Dense(4, activation="softmax")])
    trained(first, x / 127.5 - 1, y, epochs=6)
    backbone.trainable = False
    seen = keras.Input((32, 32, 3))
    hidden = keras.Sequential([L.RandomFlip("horizontal"), L.RandomRotation(0.1)])(seen)
    hidden = backbone(L.Rescaling(1 / 127.5, offset=-1)(hidden), training=False)
    model = keras.Model(seen, L.Dense(4)(L.Dropout(0.2)(hidden)))
    trained(model, x.astype("float32"), y, epochs=4, rate=1e-2)
    return keras_subject(folder, model, images, labels, BY_HAND["none"])


@form("vision transformer")
def transformer(folder: Path) -> Subject:
    x, y, images, labels = photos()
    seen = keras.Input((32, 32, 3))
    hidden = L.Reshape((64, 32))(L.Conv2D(32, 4, strides=4)(L.Rescaling(2.0, -1.0)(seen)))
    hidden = L.Add()([hidden, L.Embedding(64, 32)(keras.ops.arange(64))[None]])
    for _ in range(2):
        rows = L.LayerNormalization()(hidden)
        hidden = L.Add()([hidden, L.MultiHeadAttention(2, 16)(rows, rows)])
        hidden = L.Add()([hidden, L.Dense(32, activation="gelu")(L.LayerNormalization()(hidden))])
    model = keras.Model(seen, L.Dense(4)(L.GlobalAveragePooling1D()(L.LayerNormalization()(hidden))))
    trained(model, x / 255.0, y, epochs=8)
    return keras_subject(folder, model, images, labels)


def _blocks(folder: Path, block: Callable[[Any], Any], **how: Any) -> Subject:
    x, y, images, labels = photos()
    seen = keras.Input((32, 32, 3))
    hidden = L.BatchNormalization()(L.Conv2D(16, 3, strides=2, activation="relu")(seen))
    for _ in range(2):
        hidden = block(hidden)
    model = keras.Model(seen, L.Dense(4)(L.GlobalAveragePooling2D()(hidden)))
    trained(model, x / 255.0, y, **how)
    return keras_subject(folder, model, images, labels)


@form("squeeze-and-excitation blocks")
def squeeze(folder: Path) -> Subject:
    def block(x: Any) -> Any:
        x = L.BatchNormalization()(L.Conv2D(16, 3, padding="same", activation="relu")(x))
        weights = L.Dense(4, activation="relu")(L.GlobalAveragePooling2D()(x))
        return L.Multiply()([x, L.Reshape((1, 1, 16))(L.Dense(16, activation="sigmoid")(weights))])

    return _blocks(folder, block)


@form("depthwise separable blocks")
def depthwise(folder: Path) -> Subject:
    def block(x: Any) -> Any:
        x = L.ReLU(6.0)(L.BatchNormalization()(L.DepthwiseConv2D(3, strides=2, padding="same", use_bias=False)(x)))
        return L.ReLU(6.0)(L.BatchNormalization()(L.Conv2D(32, 1, use_bias=False)(x)))

    return _blocks(folder, block)
