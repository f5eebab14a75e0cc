"""Models that differ in what they take and give: one logit, sigmoids, rows, integers, noise."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import layers as L

from table.common import convnet, digits, keras_subject, photo_net, photos, trained
from table.measure import Subject, form


@form("one sigmoid, npz")
def one_sigmoid(folder: Path) -> Subject:
    x, y, images, labels = photos(2)
    model = trained(convnet(1, "sigmoid"), x / 255.0, y, loss="binary_crossentropy")
    return keras_subject(
        folder, model, images, labels,
        loss=lambda now, truth: tf.keras.losses.binary_crossentropy(truth[:, None], model(now, training=False)),
        decide=lambda outputs: (outputs[:, 0] > 0.5).astype(int),
    )  # fmt: skip


@form("one logit, SavedModel")
def one_logit(folder: Path) -> Subject:
    x, y, images, labels = photos(2)
    model = trained(convnet(1), x / 255.0, y, loss=keras.losses.BinaryCrossentropy(from_logits=True))
    model.export(folder / "theirs", verbose=False)
    return keras_subject(
        folder, model, images, labels, path=folder / "theirs",
        loss=lambda now, truth: tf.keras.losses.binary_crossentropy(truth[:, None], model(now), from_logits=True),
        decide=lambda outputs: (outputs[:, 0] > 0).astype(int),
    )  # fmt: skip


@form("a sigmoid for each class, SavedModel")
def sigmoids(folder: Path) -> Subject:
    x, y, images, labels = photos()
    model = trained(convnet(4, "sigmoid"), x / 255.0, np.eye(4)[y], loss="binary_crossentropy", epochs=10)
    model.export(folder / "theirs", verbose=False)

    def loss(now: tf.Tensor, truth: tf.Tensor) -> tf.Tensor:
        odds = tf.math.log(model(now, training=False))
        return tf.nn.sparse_softmax_cross_entropy_with_logits(truth, odds)

    return keras_subject(folder, model, images, labels, path=folder / "theirs", loss=loss)


@form("flat rows of pixels")
def rows(folder: Path) -> Subject:
    x, y, images, labels = digits()
    model = keras.Sequential([keras.Input((784,)), L.Dense(128, activation="relu"), L.Dense(10, activation="softmax")])
    trained(model, x.reshape(-1, 784) / 255.0, y, epochs=15, rate=1e-3)
    return keras_subject(
        folder, model, images, labels, lambda now: tf.reshape(now, (-1, 784)), logits=False
    )  # fmt: skip


@form("uint8 input, .keras")
def integers(folder: Path) -> Subject:
    _, _, images, labels = photos()
    net = photo_net()
    seen = keras.Input((32, 32, 3), dtype="uint8")
    model = keras.Model(seen, net(L.Rescaling(1 / 255)(seen)))
    return keras_subject(
        folder, model, images, labels, slack=3,
        predict=lambda now: model.predict(np.rint(now * 255).astype(np.uint8), verbose=0),
        loss=lambda now, y: keras.losses.sparse_categorical_crossentropy(y, net(now), from_logits=True),
    )  # fmt: skip


@form("mixed_float16, SavedModel")
def half_exported(folder: Path) -> Subject:
    x, y, images, labels = photos()
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = keras.Sequential([convnet(), L.Activation("softmax", dtype="float32")])
    finally:
        keras.config.set_dtype_policy(before)
    trained(model, x / 255.0, y, loss=keras.losses.SparseCategoricalCrossentropy())
    model.export(folder / "theirs", verbose=False)
    return keras_subject(folder, model, images, labels, logits=False, slack=3, path=folder / "theirs")


@form("augmentation inside, by model.export")
def augmented(folder: Path) -> Subject:
    """Which leaves it switched on: another network than `predict` is, and a random one."""
    _, _, images, labels = photos()
    model = keras.Sequential([keras.Input((32, 32, 3)), L.RandomTranslation(0.1, 0.1), photo_net()])
    model.export(folder / "theirs", verbose=False)
    loaded = tf.saved_model.load(str(folder / "theirs"))
    return keras_subject(
        folder, model, images, labels, path=folder / "theirs", slack=6, passes=20,
        predict=lambda now: loaded.serve(now.astype(np.float32)).numpy(),
        loss=lambda now, y: keras.losses.sparse_categorical_crossentropy(y, loaded.serve(now), from_logits=True),
    )  # fmt: skip


@form("a function with dropout on, in Python")
def monte_carlo(folder: Path) -> Subject:
    """Dropout as people leave it on by hand."""
    import kerasrobust as kr

    _, _, images, labels = photos()
    net = photo_net()
    features = keras.Model(net.inputs, net.layers[-2].output)

    def noisy(x: Any) -> tf.Tensor:
        return net.layers[-1](tf.nn.dropout(features(x, training=False), 0.2))

    subject = keras_subject(
        folder, net, images, labels, slack=6, passes=20, predict=lambda now: noisy(now).numpy(),
        loss=lambda now, y: keras.losses.sparse_categorical_crossentropy(y, noisy(now), from_logits=True),
    )  # fmt: skip
    model = kr.as_classifier(noisy, image_shape=(32, 32, 3))
    subject.words = None
    subject.evaluate = lambda **attack: kr.evaluate(model, images, labels, **attack)
    return subject
