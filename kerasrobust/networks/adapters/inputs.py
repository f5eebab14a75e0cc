"""What a model takes: where its structure shows it, and where not, by what is said of it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kerasrobust.errors import InputError
from kerasrobust.networks.adapters.adapter import LUMA, Adapter, Conventions
from kerasrobust.networks.architectures import is_graph, predicting
from kerasrobust.networks.probe import Shape, not_callable

FAILURES = (TypeError, ValueError, LookupError, AttributeError, NotImplementedError, tf.errors.OpError)
"""What a model's own code and TensorFlow raise for inputs that it doesn't take."""

_CHANNELS = (1, 3, 4)


def network_of(model: keras.Model, said: Conventions, stated: Sequence[int | None] | None) -> keras.Model:
    """Returns the model of one input and one output that is attacked: `model` itself, or one of the same layers.

    The output that is meant is taken out where there are several.

    Args:
        model: a Keras model.
        said: what is said of it.
        stated: the shape of the images to come, if the caller knows it.

    Raises:
        InputError: for a model that can't be built, or that doesn't map one batch of images to one output.
    """
    if not model.built:
        _build(model, stated)
    if not is_graph(model):
        return model
    if len(model.inputs) != 1:
        raise InputError(
            f"Expected a classifier with one input. Received: {model.name!r} with {len(model.inputs)} inputs. "
            f"{_one_input(model)}"
        )
    if said.output is not None or len(model.outputs) != 1:
        model = keras.Model(model.inputs, output_of(model, said.output), name=model.name)
    return model


def _one_input(model: keras.Model) -> str:
    """Returns how a model of several inputs becomes one of images: the others get values that stay."""
    shapes = [tuple(item.shape[1:]) for item in model.inputs]
    images = max(range(len(shapes)), key=lambda place: (len(shapes[place]), -place))
    given = [
        "x" if place == images else f"tf.zeros(({', '.join(['tf.shape(x)[0]', *map(str, shape)])}))"
        for place, shape in enumerate(shapes)
    ]
    return (
        f"Give lambda x: model([{', '.join(given)}], training=False), with the values that you mean in place of zeros."
    )


def of_floats(model: keras.Model) -> keras.Model:
    """Returns a model of the same layers for floating numbers where it takes integers, which no gradient passes."""
    if is_graph(model) and not keras.backend.is_float_dtype(model.inputs[0].dtype):
        images = keras.Input(batch_shape=model.inputs[0].shape, dtype="float32")
        sequential = isinstance(model, keras.Sequential)
        given = [images] if sequential else keras.tree.map_structure(lambda _: images, model.input)
        # The very layers, which keep following the model's weights.
        return keras.models.clone_model(model, input_tensors=given, clone_function=lambda layer: layer)
    return model


def _build(model: keras.Model, stated: Sequence[int | None] | None) -> None:
    if stated is None or None in stated:
        raise InputError(
            f"Expected a built model. Received: {model.name!r} without weights. Call it on a batch of images first."
        )
    try:
        if isinstance(model, keras.Sequential):
            model.build((None, *stated))
        else:
            model(tf.zeros((1, *stated)), **predicting(model))
    except FAILURES as error:
        raise not_callable(model.name, tuple(stated), error) from error


def output_of(model: keras.Model, name: str | None) -> Any:
    """Returns the output that is meant, by its name: the key of a dict, or the layer that it comes from."""
    named = dict(zip(model.output_names, model.outputs, strict=True))
    if isinstance(model._outputs_struct, dict):
        named |= model._outputs_struct
    if name in named:
        return named[name]
    raise InputError(
        f"Expected the name of one output of {model.name!r}: {', '.join(named)}. "
        f"Received: {'none' if name is None else repr(name)}. Give it by --output NAME, or output= in Python."
    )


def intake_of(model: keras.Model, network: keras.Model, said: Conventions, stated: Any) -> tuple[Shape, Adapter]:
    """Returns height, width and channels that a Keras model takes, None for any, and how images come to it."""
    if is_graph(network):
        whole = tuple(model.inputs[0].shape)
        first = said.channels == "first" or (said.channels == "auto" and _convolves_first(network))
        shape, adapter = layout_of(whole[1:], network.name, said, stated, first)
        dtype = model.inputs[0].dtype
        integers = None if keras.backend.is_float_dtype(dtype) else dtype
        fixed = None if _takes_more(network, whole) else whole[0]
        return shape, dataclasses.replace(adapter, dtype=integers, batch=fixed)
    built = (network.get_build_config() or {}).get("input_shape")
    if isinstance(built, (tuple, list)) and built and not isinstance(built[0], (tuple, list)):
        return layout_of(tuple(built[1:]), network.name, said, stated, said.channels == "first")
    return (None, None, None), Adapter(first=said.channels == "first")


def _takes_more(network: keras.Model, shape: Sequence[int | None]) -> bool:
    """Returns whether a model takes batches of another size than that of its input, as most do."""
    if shape[0] is None or None in shape:
        return True
    images = tf.zeros((shape[0] + 1, *shape[1:]))
    try:
        return len(tf.nest.flatten(network(images, **predicting(network)))[0]) == len(images)
    except FAILURES:
        return False


def _convolves_first(network: keras.Model) -> bool:
    """Returns whether the first layer that has a data format, at any depth, has the channels first."""
    formats = [getattr(layer, "data_format", None) for layer in network._flatten_layers()]
    return next((found for found in formats if found is not None), None) == "channels_first"


def layout_of(
    shape: tuple[int | None, ...], name: str, said: Conventions, stated: Any, first: bool = False
) -> tuple[Shape, Adapter]:
    """Returns height, width and channels for what a model takes, and how images come to that.

    Args:
        shape: of one input of the model, without the batch.
        name: what error messages call the model.
        said: what is said of the model.
        stated: the shape of the images to come, if the caller knows it.
        first: whether the channels come first, where the shape leaves it open.

    Raises:
        InputError: for a shape that images can't be brought to.

    Example:
        >>> layout_of((28, 28), "mnist", Conventions(), None)[0]
        (28, 28, 1)
    """
    if len(shape) == 3:
        only_first = shape[0] in _CHANNELS and shape[2] is not None and shape[2] not in _CHANNELS
        first = first or (said.channels == "auto" and only_first)
        shape = (*shape[1:], shape[0]) if first else shape
        return shape, Adapter(first=first, channels=shape[2], side=_side(shape, said))
    if len(shape) == 2:
        return (*shape, 1), Adapter(shape=shape, channels=1, side=_side(shape, said))
    if len(shape) == 1 and shape[0] is not None:
        whole = _unflattened(shape[0], stated)
        if whole is not None:
            return whole, Adapter(shape=shape, first=first, channels=whole[2], side=_side(whole, said))
    raise InputError(
        f"Expected a model of images (N, height, width, channels). Received: {name!r} with inputs of shape "
        f"{(None, *shape)}. Attacks here are for images; put a Reshape from their shape in front of it."
    )


def _side(shape: Sequence[int | None], said: Conventions) -> tuple[int, int] | None:
    height, width = shape[:2]
    return (height, width) if said.resize and height and width else None


def _unflattened(count: int, stated: Any) -> tuple[int, int, int] | None:
    """Returns the shape of the images that a model takes as rows of numbers: the stated one, or a square."""
    if stated is not None and None not in stated and math.prod(stated) == count:
        return tuple(stated)
    squares = ((math.isqrt(count // channels), channels) for channels in (1, 3))
    return next(((side, side, channels) for side, channels in squares if side * side * channels == count), None)


def adapted(model: keras.Model, adapter: Adapter, shape: tuple[int, ...]) -> keras.Model:
    """Returns a model of images in [0, 1], channels last, around one of other conventions, to be trained and saved.

    Args:
        model: a Keras model.
        adapter: takes images to what it takes.
        shape: height, width and channels of the images.

    Returns:
        The model itself where nothing stands between.

    Raises:
        InputError: for integers as inputs, and batches of one size.

    Example:
        >>> adapted(model, Adapter(scale=(255.0,)), (32, 32, 3))
    """
    side = adapter.side if adapter.side != shape[:2] else None
    turned = adapter.first or adapter.bgr or adapter.channels not in (None, shape[2]) or side is not None
    scaled = (adapter.scale, adapter.offset) != ((1.0,), (0.0,))
    if len(adapter.shape or shape) == 3 and not (turned or scaled or adapter.whole):
        return model
    if adapter.whole or adapter.batch is not None:
        raise InputError(
            f"Expected a model of floating images, in batches of any size, to train on. Received: {model.name!r}. "
            "Rebuild it with keras.Input(shape)."
        )
    hidden = seen = keras.Input(shape)
    if (adapter.channels, shape[2]) == (3, 1):
        hidden = keras.layers.Concatenate()([hidden] * 3)
    elif (adapter.channels, shape[2]) == (3, 4):
        hidden = hidden[..., :3]
    elif (adapter.channels, shape[2]) == (1, 3):
        hidden = keras.layers.Conv2D(1, 1, use_bias=False, trainable=False, name="grey")(hidden)
    if side is not None:
        hidden = keras.layers.Resizing(*side, antialias=True)(hidden)
    hidden = hidden[..., ::-1] if adapter.bgr else hidden
    if scaled:
        hidden = keras.layers.Rescaling(list(adapter.scale), list(adapter.offset))(hidden)
    hidden = keras.layers.Permute((3, 1, 2))(hidden) if adapter.first else hidden
    if adapter.shape is not None and len(adapter.shape) != 3:
        hidden = keras.layers.Reshape(adapter.shape)(hidden)
    whole = keras.Model(seen, model(hidden), name=model.name)
    if (adapter.channels, shape[2]) == (1, 3):
        whole.get_layer("grey").set_weights([np.reshape(LUMA, (1, 1, 3, 1))])
    return whole
