"""The logits of a Keras model: which part of it is attacked, and which models can't be."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf

from kerasrobust.errors import InputError
from kerasrobust.networks.architectures import is_graph
from kerasrobust.networks.probe import Shape, not_callable

# What a model's own code and TensorFlow raise for inputs that it doesn't take.
_FAILURES = (TypeError, ValueError, LookupError, AttributeError, NotImplementedError, tf.errors.OpError)


def logits_of(model: keras.Model) -> Callable[[tf.Tensor], tf.Tensor]:
    """Returns a function from images to a model's outputs in inference mode, before a last softmax if Keras shows one.

    Each call follows the model as it is then: its weights, the settings of its layers, and which layer is the last.
    """
    if not is_graph(model):
        return lambda x: model(x, training=False)
    parts: dict[int, keras.Model] = {}
    return lambda x: _logits(model, x, parts)


def image_shape_of(model: keras.Model, stated: Sequence[int | None] | None) -> Shape:
    """Returns the height, width and channels that a model takes, None for any; builds a model that isn't built yet.

    Args:
        model: a Keras model.
        stated: the shape of the images to come, if the caller knows it.

    Raises:
        InputError: for a model that can't be built, or that doesn't map one batch of float images to one output.
    """
    if not model.built:
        if stated is None or None in stated:
            raise InputError(
                f"Expected a built model. Received: {model.name!r} without weights. Call it on a batch of images first."
            )
        try:
            model(tf.zeros((1, *stated)), training=False)
        except _FAILURES as error:
            raise not_callable(model.name, tuple(stated), error) from error
    if not is_graph(model):
        shape = (model.get_build_config() or {}).get("input_shape")
        if isinstance(shape, (tuple, list)) and len(shape) == 4 and not isinstance(shape[0], (tuple, list)):
            return tuple(shape[1:])
        return (None, None, None)
    for what, tensors in (("input", model.inputs), ("output", model.outputs)):
        if len(tensors) != 1:
            raise InputError(
                f"Expected a classifier with one {what}. Received: {model.name!r} with {len(tensors)} {what}s. "
                "Make a keras.Model of the images and the logits alone."
            )
    images = model.inputs[0]
    if len(images.shape) != 4:
        raise InputError(
            f"Expected a model of images (N, height, width, channels). Received: {model.name!r} with inputs of shape "
            f"{images.shape}. Attacks here are for images."
        )
    if not keras.backend.is_float_dtype(images.dtype):
        raise InputError(
            f"Expected a model of floating images. Received: {model.name!r} with {images.dtype} inputs, which have "
            "no gradient. Rebuild it on float32 images in [0, 1]."
        )
    return tuple(images.shape[1:])


def _logits(model: keras.Model, x: tf.Tensor, parts: dict[int, keras.Model]) -> tf.Tensor:
    """Returns the logits of a graph of layers; `parts` keeps the models of its inner tensors from call to call."""
    output = model.outputs[0]
    last, node_index, _ = output._keras_history
    activation = _activation(last)
    if activation == "sigmoid":
        raise InputError(
            f"Expected a classifier with logits or softmax outputs. Received: {model.name!r}, which ends in sigmoid. "
            "Attacks here are for one class per image."
        )

    def up_to(tensor: keras.KerasTensor) -> tf.Tensor:
        if tensor is model.inputs[0]:
            return x
        # A part holds its tensor, so no other tensor gets that id. Its input is one tensor, whatever dict or list the
        # model wraps it in.
        if id(tensor) not in parts:
            parts[id(tensor)] = keras.Model(model.inputs[0], tensor)
        return parts[id(tensor)](x, training=False)

    nested = is_graph(last) and len(last.outputs) == 1 and len(last.inputs) == 1
    quantized = getattr(last, "quantization_mode", None) is not None
    if not nested and (activation != "softmax" or quantized):
        return up_to(output)
    hidden = up_to(last._inbound_nodes[node_index].input_tensors[0])
    if nested:
        return _logits(last, hidden, parts)
    if type(last) is not keras.layers.Dense:
        return hidden
    dtype = last.compute_dtype
    outputs = tf.matmul(tf.cast(hidden, dtype), tf.cast(last.kernel, dtype))
    return outputs if last.bias is None else outputs + tf.cast(last.bias, dtype)


def _activation(last: Any) -> str | None:
    """Returns "softmax" or "sigmoid" for an operation that ends in one."""
    if type(last) in (keras.layers.Dense, keras.layers.Activation):  # A subclass may compute something else.
        return {keras.activations.softmax: "softmax", keras.activations.sigmoid: "sigmoid"}.get(last.activation)
    # The layer, or the operation that keras.ops.softmax leaves in a functional model.
    kind = type(last).__name__.lower()
    return kind if kind in ("softmax", "sigmoid") else None
