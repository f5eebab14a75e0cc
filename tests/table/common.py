"""Images, networks and trainings that the forms share: small, and trained for seconds."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import layers as L

import kerasrobust as kr
from table.measure import Subject, cross_entropy

KINDS = (0, 1, 6, 7)
"""Of CIFAR-10: aeroplanes, cars, frogs and horses."""

COUNT = 150
"""Images that are attacked."""


@functools.cache
def photos(classes: int = 4) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Returns images of CIFAR-10, uint8 (N, 32, 32, 3), with labels: those to train on, and those to attack."""
    found: list[np.ndarray] = []
    for split, most in (("train[:20%]", 2000), ("test[:20%]", COUNT)):
        x, y = kr.load_data("cifar10", split=split)
        kinds = KINDS[:classes] if classes > 2 else (0, 6)
        few = np.flatnonzero(np.isin(y, kinds))[:most]
        found += [np.rint(x[few] * 255).astype(np.uint8), np.searchsorted(kinds, y[few])]
    return found[0], found[1], found[2], found[3]


@functools.cache
def digits() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Returns pictures of ten shapes as MNIST has them, uint8 (N, 28, 28), with labels: to train on, and to attack."""
    from kerasrobust.data import shapes

    found: list[np.ndarray] = []
    for count, seed in ((2000, 1), (COUNT, 2)):
        x, y = shapes.generate(count, seed)
        grey = x[:, 2:30, 2:30].mean(axis=-1)
        # On black, as MNIST's digits are.
        strokes = abs(grey - np.median(grey, axis=(1, 2), keepdims=True))
        found += [np.rint(np.clip(2 * strokes, 0, 255)).astype(np.uint8), y.astype(np.uint8)]
    return found[0], found[1], found[2], found[3]


def convnet(classes: int = 4, activation: str | None = None, shape: tuple[int, ...] = (32, 32, 3)) -> keras.Model:
    """Returns a small network with batch normalisation."""
    return keras.Sequential(
        [
            keras.Input(shape),
            L.Conv2D(16, 3, strides=2, padding="same", activation="relu"),
            L.BatchNormalization(),
            L.Conv2D(32, 3, strides=2, padding="same", activation="relu"),
            L.BatchNormalization(),
            L.GlobalAveragePooling2D(),
            L.Dense(classes, activation=activation),
        ],
        name="net",
    )


def trained(
    model: keras.Model, x: np.ndarray, y: np.ndarray, epochs: int = 6, rate: float = 5e-3, loss: Any = None
) -> Any:
    """Trains a model on images as it takes them; returns it."""
    for layer in model._flatten_layers():
        if isinstance(layer, L.BatchNormalization):  # Whose usual 0.99 takes more steps than there are.
            layer.momentum = 0.8
    logits = not model.layers or getattr(model.layers[-1], "activation", None) is not keras.activations.softmax
    falling = keras.optimizers.schedules.CosineDecay(rate, epochs * -(-len(x) // 50))
    model.compile(
        keras.optimizers.Adam(falling), loss or keras.losses.SparseCategoricalCrossentropy(from_logits=logits)
    )
    model.fit(x, y, epochs=epochs, batch_size=50, verbose=0)
    return model


@functools.cache
def _weights() -> list[np.ndarray]:
    x, y, _, _ = photos()
    return trained(convnet(), x / np.float32(255), y, epochs=10).get_weights()


def photo_net(activation: str | None = None) -> keras.Model:
    """Returns a network for photos in [0, 1]; the same each time, as it is trained once."""
    model = convnet(activation=activation)
    model.set_weights(_weights())
    return model


def saved_arrays(folder: Path, x: Any, y: Any, **named: Any) -> Path:
    """Writes an .npz file; returns its path."""
    path = folder / "data.npz"
    np.savez(path, **(named or {"x": x, "y": y}))
    return path


def file_subject(
    folder: Path,
    path: Path,
    images: np.ndarray,
    labels: np.ndarray,
    forward: Callable[[tf.Tensor], tf.Tensor] | None,
    *,
    logits: bool = True,
    data: Path | None = None,
    more: Sequence[str | Path] = (),
    settings: dict[str, Any] | None = None,
    then: Sequence[str | Path] = (),
    then_settings: dict[str, Any] | None = None,
    instead: Path | None = None,
    **changes: Any,
) -> Subject:
    """Returns the subject of a model in a file, and of uint8 images.

    Args:
        forward: images in [0, 1] to outputs, differentiable, by hand; None for a black box.
        logits: whether these are logits, not probabilities.
        data: what is given as --data; a file of the images and labels without it.
        more: options of the command line; `settings` are the same as arguments of `kr.as_classifier`, and
            of `kr.load_model`.
        then: the options that a line of refusal leads to; `then_settings` the same; `instead` another model.
        changes: attributes of the subject that differ; `predict` has to be there.
    """
    data = data or saved_arrays(folder, images, labels)
    x = images.astype(np.float32) / 255

    def call(path: Path, how: dict[str, Any] | None) -> Any:
        how = dict(how or {})
        loading = {name: how.pop(name) for name in ("code", "output") if name in how}

        def evaluate(**attack: Any) -> Any:
            subject = kr.load_model(path, **loading)
            return kr.evaluate(kr.as_classifier(subject, **how) if how else subject, images, labels, **attack)

        return evaluate

    second: tuple[Any, Any] = (None, None)
    if then or instead:
        words = ["--model", instead or path, "--data", data, *more, *then]
        second = words, call(instead or path, then_settings or settings)
    base: dict[str, Any] = {
        "x": x[..., None] if x.ndim == 3 else x,
        "y": np.asarray(labels).astype(int),
        "loss": forward and cross_entropy(forward, logits),
        "words": ["--model", path, "--data", data, *more],
        "evaluate": call(path, settings),
        "then": second,
    }
    return Subject(**(base | changes))


def keras_subject(
    folder: Path,
    model: Any,
    images: np.ndarray,
    labels: np.ndarray,
    convert: Callable[[Any], Any] = lambda x: x,
    *,
    path: Path | None = None,
    **changes: Any,
) -> Subject:
    """Returns the subject of a Keras model: all else as of `file_subject`.

    Args:
        convert: images in [0, 1], NumPy or TensorFlow, to what the model takes; by hand.
        path: another form of the model, which is what is attacked; without it a `.keras` file.
    """
    if path is None:
        model.save(folder / "theirs.keras")
    changes.setdefault("predict", lambda now: model.predict(np.asarray(convert(now)), verbose=0, batch_size=256))
    return file_subject(
        folder,
        path or folder / "theirs.keras",
        images,
        labels,
        lambda now: model(convert(now), training=False),
        **changes,
    )
