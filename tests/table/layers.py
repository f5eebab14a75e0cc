"""Models by what they are made of, and by what they take and give."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import layers as L

from table.common import convnet, digits, keras_subject, photo_net, photos, trained
from table.measure import Subject, form

CODE = """
import keras


class Block(keras.layers.Layer):
    def __init__(self, filters, **named):
        super().__init__(**named)
        self.filters = filters
        self.conv = keras.layers.Conv2D(filters, 3, strides=2, padding="same")
        self.norm = keras.layers.BatchNormalization(momentum=0.8)

    def call(self, x, training=False):
        return keras.ops.relu(self.norm(self.conv(x), training=training))

    def get_config(self):
        return {**super().get_config(), "filters": self.filters}


class Theirs(keras.Model):
    def __init__(self, classes, **named):
        super().__init__(**named)
        self.classes = classes
        self.first, self.second = Block(16), Block(32)
        self.head = keras.layers.Dense(classes)

    def call(self, x, training=False):
        x = self.second(self.first(x, training=training), training=training)
        return self.head(keras.ops.mean(x, axis=(1, 2)))

    def get_config(self):
        return {**super().get_config(), "classes": self.classes}


def brighter(x):
    return 2.0 * x - 1.0
"""


def _code(folder: Path) -> tuple[Path, dict[str, Any]]:
    """Writes somebody's own code; returns its file, and what it defines."""
    path = folder / "their_code.py"
    path.write_text(CODE)
    return path, runpy.run_path(str(path))


@form("subclassed, .keras with --code", process=True)
def subclassed(folder: Path) -> Subject:
    x, y, images, labels = photos()
    code, names = _code(folder)
    model = trained(names["Theirs"](4), x / 255.0, y)
    model.save(folder / "own.keras")
    return keras_subject(
        folder, model, images, labels, path=folder / "own.keras",
        said="--code FILE.py", then=["--code", code], then_settings={"code": code},
    )  # fmt: skip


@form("subclassed, exported as SavedModel")
def subclassed_exported(folder: Path) -> Subject:
    x, y, images, labels = photos()
    model = trained(_code(folder)[1]["Theirs"](4), x / 255.0, y)
    model.export(folder / "exported", verbose=False)
    return keras_subject(folder, model, images, labels, path=folder / "exported")


@form("Lambda layer, .keras", process=True)
def lambda_layer(folder: Path) -> Subject:
    x, y, images, labels = photos()
    code, names = _code(folder)
    inner = convnet()
    seen = keras.Input((32, 32, 3))
    hidden = L.Lambda(names["brighter"])(seen)
    model = trained(keras.Model(seen, inner(L.Lambda(lambda x: x / 2)(hidden))), x / 255.0, y)
    model.save(folder / "own.keras")
    return keras_subject(
        folder, model, images, labels, path=folder / "own.keras",
        said="--code FILE.py", then=["--code", code], then_settings={"code": code},
    )  # fmt: skip


@form("multi-label sigmoids")
def multi_label(folder: Path) -> Subject:
    """Three labels an image: a machine, a car, a horse."""
    x, y, images, labels = photos()

    def marks(y: np.ndarray) -> np.ndarray:
        return np.stack([y < 2, y == 1, y == 3], axis=1).astype(np.float32)

    model = trained(convnet(3, "sigmoid"), x / 255.0, marks(y), loss="binary_crossentropy")
    return keras_subject(
        folder, model, images, marks(labels),
        y=np.ones(len(labels), int), indices=False,
        decide=lambda outputs: ((outputs > 0.5) == marks(labels)).all(axis=1).astype(int),
        loss=lambda now, _: tf.reduce_sum(keras.ops.binary_crossentropy(marks(labels), model(now)), -1),
    )  # fmt: skip


@form("channels first")
def channels_first(folder: Path) -> Subject:
    x, y, images, labels = photos()
    model = keras.Sequential(
        [
            keras.Input((3, 32, 32)),
            L.Conv2D(16, 3, strides=2, activation="relu", data_format="channels_first"),
            L.Conv2D(32, 3, strides=2, activation="relu", data_format="channels_first"),
            L.GlobalAveragePooling2D(data_format="channels_first"),
            L.Dense(4),
        ]
    )
    trained(model, x.transpose(0, 3, 1, 2) / 255.0, y, epochs=10)
    return keras_subject(folder, model, images, labels, lambda now: tf.transpose(now, (0, 3, 1, 2)))


def _policy(folder: Path, policy: str) -> Subject:
    x, y, images, labels = photos()
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        model = keras.Sequential([convnet(), L.Activation("softmax", dtype="float32")])
    finally:
        keras.config.set_dtype_policy(before)
    trained(model, x / 255.0, y, loss=keras.losses.SparseCategoricalCrossentropy())
    return keras_subject(folder, model, images, labels, logits=False, slack=3)


@form("mixed_float16")
def mixed_float16(folder: Path) -> Subject:
    return _policy(folder, "mixed_float16")


@form("mixed_bfloat16")
def mixed_bfloat16(folder: Path) -> Subject:
    return _policy(folder, "mixed_bfloat16")


def _quantized(folder: Path, mode: str) -> Subject:
    x, y, images, labels = digits()
    model = keras.Sequential(
        [
            keras.Input((28, 28)),
            L.Flatten(),
            L.Dense(128, activation="relu"),
            L.Dense(64, activation="relu"),
            L.Dense(10),
        ]
    )
    trained(model, x / 255.0, y, epochs=15, rate=1e-3)
    before = keras.models.clone_model(model)
    before.set_weights(model.get_weights())
    model.quantize(mode)
    if mode == "float8":  # It learns its scales.
        trained(model, x / 255.0, y, epochs=1, rate=1e-5)
        before.set_weights([v.numpy() for v in model.variables if v.path.endswith(("kernel", "bias"))])
    return keras_subject(
        folder, model, images, labels, lambda now: now[..., 0],
        # The derivatives of the network before it was quantized, which has any.
        loss=lambda now, y: keras.losses.sparse_categorical_crossentropy(y, before(now[..., 0]), from_logits=True),
        slack=2,
    )  # fmt: skip


@form("quantized int8")
def int8(folder: Path) -> Subject:
    return _quantized(folder, "int8")


@form("quantized int4")
def int4(folder: Path) -> Subject:
    return _quantized(folder, "int4")


@form("quantized float8")
def float8(folder: Path) -> Subject:
    return _quantized(folder, "float8")


@form("several outputs")
def several_outputs(folder: Path) -> Subject:
    x, y, images, labels = photos()
    net = convnet()
    features = net.layers[-2].output
    model = keras.Model(
        net.inputs, {"kind": L.Dense(4, name="kind")(features), "box": L.Dense(4, name="box")(features)}
    )
    trained(keras.Model(model.inputs, model.output["kind"]), x / 255.0, y)
    return keras_subject(
        folder, model, images, labels,
        predict=lambda now: model.predict(now, verbose=0)["kind"],
        loss=lambda now, y: keras.losses.sparse_categorical_crossentropy(y, model(now)["kind"], from_logits=True),
        said="--output NAME", then=["--output", "kind"], then_settings={"output": "kind"},
    )  # fmt: skip


def _dropout(folder: Path, noise: str, **changes: Any) -> Subject:
    images, labels = photos()[2:]
    net = photo_net()
    model = keras.Model(net.inputs, net.layers[-1](L.Dropout(0.2)(net.layers[-2].output, training=True)))
    more, settings = (["--noise", noise], {"noise": noise}) if noise == "on" else ([], None)
    return keras_subject(folder, model, images, labels, more=more, settings=settings, **changes)


@form("Dropout(training=True), as predict")
def dropout_off(folder: Path) -> Subject:
    return _dropout(folder, "off")


@form("Dropout(training=True), --noise on")
def dropout_on(folder: Path) -> Subject:
    subject = _dropout(folder, "on", slack=4, passes=20)
    loaded = keras.saving.load_model(folder / "theirs.keras", compile=False)
    subject.predict = lambda now: loaded(now).numpy()
    return subject


@form("BGR, as OpenCV reads it")
def bgr(folder: Path) -> Subject:
    x, y, images, labels = photos()
    model = trained(convnet(), x[..., ::-1] / 255.0, y)
    return keras_subject(
        folder, model, images, labels, lambda now: now[..., ::-1], more=["--colors", "bgr"], settings={"colors": "bgr"}
    )


@form("BGR, found out")
def bgr_auto(folder: Path) -> Subject:
    x, y, images, labels = photos()
    model = trained(convnet(), x[..., ::-1] / 255.0, y)
    return keras_subject(folder, model, images, labels, lambda now: now[..., ::-1])


@form("mean and deviation outside, as in PyTorch")
def standardised(folder: Path) -> Subject:
    x, y, images, labels = photos()
    mean, deviation = np.float32([0.4914, 0.4822, 0.4465]), np.float32([0.247, 0.2435, 0.2616])
    model = trained(convnet(), (x / 255.0 - mean) / deviation, y)
    words = "0.4914,0.4822,0.4465/0.247,0.2435,0.2616"
    return keras_subject(
        folder, model, images, labels, lambda now: (now - mean) / deviation,
        more=["--input-range", words], settings={"input_range": words},
    )  # fmt: skip
