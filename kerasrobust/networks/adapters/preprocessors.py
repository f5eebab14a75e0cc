"""Models that preprocess images in `predict` alone, as KerasHub's tasks do: the preprocessor is put in front.

They hold it beside their layers (`model.preprocessor`), so that `model(x)` takes what it gives. People hand images to
`predict`, `fit` and `evaluate`, and it is those images that are attacked.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kerasrobust.errors import InputError, reason_of
from kerasrobust.networks.adapters.inputs import FAILURES
from kerasrobust.networks.architectures import is_graph, predicting

_WHOLE, _FRONT = "_kerasrobust_whole", "_kerasrobust_front"

_SIDES = (24, 32)
"""Height and width of the images that a preprocessor is tried on, where the model doesn't tell them."""


def with_preprocessor(model: Any) -> Any:
    """Returns a model of the same weights that calls the preprocessor first, or `model` itself where it has none.

    Kept on the model, as long as that has the same preprocessor.

    Args:
        model: of any kind. It has a preprocessor if it is a Keras model with a `predict` of its own and an attribute
            `preprocessor`, whose `image_converter` is a Keras layer from images (N, H, W, C) to what the model takes,
            or None for nothing.

    Raises:
        InputError: for an unbuilt model, and for a preprocessor that does more than its converter or has no gradients.

    Example:
        >>> whole = with_preprocessor(task)
        >>> bool(np.allclose(whole.predict(x), task.predict(x)))
        True
    """
    preprocessor = getattr(model, "preprocessor", None)
    # Where predict is that of Keras, `call` does all that there is.
    if preprocessor is None or not isinstance(model, keras.Model) or type(model).predict is keras.Model.predict:
        return model
    front = getattr(preprocessor, "image_converter", None)
    kept = getattr(model, _WHOLE, None)
    if kept is not None and front_of(kept) is front:
        return kept
    if not hasattr(preprocessor, "image_converter") or not isinstance(front, (keras.Layer, type(None))):
        raise _not_in_front(model, "without an image_converter that is a layer")
    if not model.built:
        raise InputError(
            f"Expected a built model. Received: {model.name!r} without weights. Call its predict on images first."
        )
    shape = _shape_of(model, front)
    _check(model, preprocessor, front, shape)
    if front is None:
        return model
    images = keras.Input(shape)
    try:
        whole = keras.Model(images, model(front(images), **predicting(model)), name=model.name)
    except FAILURES as error:
        raise _not_in_front(model, f"whose images the model doesn't take ({reason_of(error)})") from error
    # Past Keras' __setattr__, which would track them.
    object.__setattr__(whole, _FRONT, front)
    object.__setattr__(model, _WHOLE, whole)
    return whole


def front_of(model: Any) -> Any:
    """Returns the converter that `with_preprocessor` has put in front of a model, or None."""
    return getattr(model, _FRONT, None)


def range_of(whole: keras.Model) -> str:
    """Returns the range of pixels that the converter in front of a model is made for, "0,255" or "0,1"; or "auto".

    It is measured: what brings pixels to a few units around zero has a slope of about 1/255 or 1. One that leaves the
    pixels as they are shows nothing, unless it takes a mean of 8-bit pixels from them.
    """
    shape = _tried(whole.inputs[0].shape[1:])
    low, high = (np.asarray(front_of(whole)(tf.fill((1, *shape), value)), np.float64) for value in (0.0, 1.0))
    slope, mean = float(abs(high - low).max()), float(abs(low).max())
    if slope <= 1 / 16 or (slope < 1.5 and mean > 16):
        return "0,255"
    return "0,1" if slope >= 1.5 else "auto"


def front_words(front: keras.Layer) -> str:
    """Returns what the note of a model says of its converter."""
    size = getattr(front, "image_size", None)
    resized = "" if size is None else f", which resizes to {size[0]}x{size[1]}"
    return f"takes them through its preprocessor ({front.name}{resized}), as in predict"


def _shape_of(model: keras.Model, front: Any) -> tuple[int | None, ...]:
    """Returns the shape of the images that a converter takes, without the batch: any size where it resizes."""
    whole = model.inputs[0].shape if is_graph(model) else (model.get_build_config() or {}).get("input_shape")
    whole = tuple(whole or (None,) * 4)
    first = getattr(front, "data_format", None) == "channels_first"
    channels = (whole[1] if first else whole[-1]) or 3
    sides = whole[2:] if first else whole[1:3]
    sides = sides if getattr(front, "image_size", None) is None else (None, None)
    return (channels, *sides) if first else (*sides, channels)


def _check(model: keras.Model, preprocessor: Any, front: Any, shape: tuple[int | None, ...]) -> None:
    """Raises InputError unless a preprocessor is nothing but its converter, and that has gradients."""
    x = tf.constant(np.random.default_rng(0).uniform(0, 255, (2, *_tried(shape))), tf.float32)
    try:
        with tf.GradientTape() as tape:
            tape.watch(x)
            converted = x if front is None else front(x)
        found = keras.tree.flatten(preprocessor(x))
    except FAILURES as error:
        raise _not_in_front(model, f"which fails on images {tuple(x.shape)} ({reason_of(error)})") from error
    if len(found) != 1 or found[0].shape != converted.shape or not np.allclose(found[0], converted, atol=1e-4):
        raise _not_in_front(model, "which does more than its image_converter")
    if tape.gradient(converted, x) is None:
        raise _not_in_front(model, "whose image_converter has no gradients")


def _tried(shape: tuple[int | None, ...]) -> tuple[int, ...]:
    sides = iter(_SIDES)
    return tuple(side or next(sides) for side in shape)


def _not_in_front(model: keras.Model, what: str) -> InputError:
    return InputError(
        f"Expected a preprocessor that is an image_converter of TensorFlow operations. Received: that of {model.name!r}"
        f", {what}. Set model.preprocessor = None to attack the model on images that were preprocessed, or give "
        "as_classifier(predict=model.predict), attacked without gradients."
    )
