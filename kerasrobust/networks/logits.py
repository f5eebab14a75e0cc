"""The logits of a Keras model: which part of it is attacked, and which models can't be."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from kerasrobust.networks.architectures import graph_of, is_graph, predicting
from kerasrobust.networks.cloning import quantization
from kerasrobust.ops.intake import straight_through


def logits_of(model: keras.Model, noise: str = "off") -> Callable[[tf.Tensor], tf.Tensor]:
    """Returns a function from images to a model's outputs, before a last softmax or sigmoid if Keras shows one.

    Each call follows the model as it is then: its weights, the settings of its layers, and which layer is the last.

    Args:
        model: a Keras model.
        noise: "off" for the model as `predict` calls it; "on" for the model as it is when it is called, with the noise
            of layers that were called with `training=True`.
    """
    mode = {} if noise == "on" else predicting(model)
    if not is_graph(model):
        return lambda x: model(x, **mode)
    parts: dict[int, keras.Model] = {}
    return lambda x: _logits(model, x, parts, mode)


def through_integers(model: keras.Model, network: keras.Model, noise: str = "off") -> Callable[[tf.Tensor], Any]:
    """Returns a function from whole numbers, in float32, to a model's outputs, with the gradients of another.

    Args:
        model: takes integers.
        network: of the same layers, for floating numbers.
        noise: as for `logits_of`.
    """
    exact, smooth, dtype = logits_of(model, noise), logits_of(network, noise), model.inputs[0].dtype

    def run(x: tf.Tensor) -> Any:
        values, others = exact(tf.cast(x, dtype)), smooth(x)
        return tf.nest.map_structure(lambda a, b: straight_through(tf.cast(a, b.dtype), b), values, others)

    return run


def noise_left_out(model: Any) -> list[str]:
    """Returns the layers of a graph, at any depth, that were called with `training=True`.

    Keras 3.15 has them at work in `model(x)`, but neither in `predict` nor in `model(x, training=False)`. It calls
    layers that prepare or augment images so unless told otherwise.

    Example:
        >>> noise_left_out(keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Dropout(0.5)]))
        []
    """
    graphs = map(graph_of, model._flatten_layers())
    parts = [part for inner in graphs for part in getattr(inner, "operations", [])]
    called = [part for part in parts for node in part._inbound_nodes if node.arguments.kwargs.get("training") is True]
    return list(dict.fromkeys(part.name for part in called))


def ending(model: Any) -> str | None:
    """Returns what a model ends in, as far as Keras shows it: "softmax", "sigmoid", "linear", or None.

    Example:
        >>> ending(build_model("convnet"))
        'linear'
    """
    if not is_graph(model) or not model.built or len(model.outputs) != 1:
        return None
    last = model.outputs[0]._keras_history.operation
    if is_graph(last):
        return ending(last)
    linear = type(last) is keras.layers.Dense and last.activation is keras.activations.linear
    return "linear" if linear else _activation(last)


def shows_logits(model: Any) -> bool:
    """Returns whether Keras shows that what `logits_of` gives are logits: a model's last layer is linear, or was."""
    end = ending(model)
    # What a quantized layer computes before its activation can't be taken out.
    return end == "linear" or (end is not None and quantization(_last(model)) is None)


def _last(model: Any) -> Any:
    last = model.outputs[0]._keras_history.operation
    return _last(last) if is_graph(last) else last


def _logits(model: keras.Model, x: tf.Tensor, parts: dict[int, keras.Model], mode: dict[str, bool]) -> tf.Tensor:
    """Returns the logits of a graph of layers; `parts` keeps the models of its inner tensors from call to call."""
    output = model.outputs[0]
    last, node_index, _ = output._keras_history
    activation = _activation(last)

    def up_to(tensor: keras.KerasTensor) -> tf.Tensor:
        if tensor is model.inputs[0]:
            return x
        # A part holds its tensor, so no other tensor gets that id. Its input is one tensor, whatever dict or list the
        # model wraps it in.
        if id(tensor) not in parts:
            parts[id(tensor)] = keras.Model(model.inputs[0], tensor)
        return parts[id(tensor)](x, **mode)

    nested = is_graph(last) and len(last.outputs) == 1 and len(last.inputs) == 1
    if not nested and (activation is None or quantization(last) is not None):
        return up_to(output)
    hidden = up_to(last._inbound_nodes[node_index].input_tensors[0])
    if nested:
        return _logits(last, hidden, parts, mode)
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
