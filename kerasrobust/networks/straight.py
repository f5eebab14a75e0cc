"""Copies of networks whose gradients go straight through the layers that have none, as rounding and JPEG (BPDA)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kerasrobust.errors import InputError, reason_of
from kerasrobust.networks.adapters.adapter import logits_from
from kerasrobust.networks.architectures import graph_of, is_graph
from kerasrobust.networks.classifier import Classifier, has_gradient
from kerasrobust.networks.cloning import copied, is_custom, rebuilt
from kerasrobust.networks.logits import logits_of
from kerasrobust.networks.making import as_classifier, classifier_of
from kerasrobust.networks.probe import one_output
from kerasrobust.ops.intake import straight_through

IMAGES = 8
"""Images on which it is tried which layers have gradients."""

BLOCKING = (keras.layers.Discretization, keras.layers.Lambda)
"""Layers of Keras that may let no gradient pass."""


def straightened(model: Any, x: np.ndarray, custom: bool = False) -> Classifier | None:
    """Returns a network of the same outputs whose gradients go straight through the layers that let none pass.

    Args:
        model: a functional or Sequential Keras model, or a `Classifier` of one.
        x: float32 (N, H, W, C) in [0, 1], of which a few are used.
        custom: whether they go straight through all custom layers, if gradients pass every layer: such gradients may
            mislead, as those of a median or of the k largest values.

    Returns:
        None where no such layer keeps the shape, and for other models, which can't be taken apart.

    Raises:
        InputError: for layers that can't be called one by one, or rebuilt.

    Example:
        >>> straight = straightened(model, x)
        >>> kr.evaluate(model, x, y, attacks="pgd", surrogate=straight).robust_accuracy

    Reference: Athalye et al. 2018, section 4.1 (BPDA), with the identity in the backward pass.
    """
    classifier = classifier_of(model, image_shape=x.shape[1:])
    network = classifier.network
    if classifier.arrays or not is_graph(network):
        return None
    images = classifier.adapter(tf.constant(x[:IMAGES]))
    try:
        parts = masked_layers(network, images) or (custom_layers(network, images) if custom else [])
        return _through(classifier, parts, x) if parts else None
    except InputError:
        raise
    except Exception as error:  # Somebody's own layers may raise anything, as outside of graphs.
        raise InputError(
            f"Expected layers that can be called one by one. Received: {classifier.name!r} ({reason_of(error, 120)}). "
            "Attack the model without straightening it."
        ) from error


def _through(classifier: Classifier, parts: Sequence[Any], x: np.ndarray) -> Classifier | None:
    copy = made_straight(classifier.network, parts)
    inner = classifier.adapter.around(logits_of(copy, classifier.conventions.noise))

    def forward(images: tf.Tensor) -> tf.Tensor:
        return logits_from(one_output(inner(images), classifier.name), classifier.probed.outputs, classifier.labels)

    forward.__name__ = f"{classifier.name} with gradients straight through {', '.join(map(repr, named(parts)))}"
    # The network inside has settled how it takes images.
    straight = as_classifier(forward, image_shape=x.shape[1:], input_range="0,1", colors="rgb", outputs="logits")
    return straight if has_gradient(straight, x) else None


def named(parts: Sequence[Any]) -> list[str]:
    """Returns the names of layers and operations."""
    return [part.name for part in parts]


def made_straight(model: keras.Model, parts: Sequence[Any]) -> keras.Model:
    """Returns a copy of a model in which gradients pass some of its layers or operations as if they weren't there.

    Raises:
        InputError: for a model that can't be rebuilt.
    """
    wanted = {id(part) for part in parts}

    def copy(part: Any) -> Any:
        made = copied(part)
        if id(part) in wanted:
            made.call = _straight(made.call)
        return made

    return rebuilt(model, copy)


def _straight(call: Callable[..., tf.Tensor]) -> Callable[..., tf.Tensor]:
    def through(*arguments: Any, **settings: Any) -> tf.Tensor:
        inputs = next(value for value in tf.nest.flatten((arguments, settings)) if tf.is_tensor(value))
        return straight_through(tf.cast(call(*arguments, **settings), inputs.dtype), inputs)

    return through


def masked_layers(model: keras.Model, values: tf.Tensor) -> list[Any]:
    """Returns the layers and operations of a model, at any depth, that keep the shape and let no gradient pass.

    Only those are tried that may do so: custom layers, Lambda layers, activations that aren't Keras', and operations of
    `keras.ops`.

    Args:
        model: a functional or Sequential Keras model.
        values: (N, ...), what it takes.

    Example:
        >>> rounding = keras.layers.Lambda(tf.round, name="rounding")
        >>> named(masked_layers(keras.Sequential([keras.Input((8, 8, 3)), rounding]), tf.ones((1, 8, 8, 3))))
        ['rounding']
    """
    return [node.operation for node, inputs in _calls(model, values) if _slope_is(node, inputs, there=False)]


def custom_layers(model: keras.Model, values: tf.Tensor) -> list[Any]:
    """Returns the custom layers of a model, at any depth, that keep the shape and let gradients pass.

    Arguments as of `masked_layers`.
    """
    return [
        node.operation
        for node, inputs in _calls(model, values)
        if isinstance(node.operation, keras.Layer) and _slope_is(node, inputs, there=True)
    ]


def _calls(model: keras.Model, values: tf.Tensor) -> Iterator[tuple[Any, tf.Tensor]]:
    """Yields the calls of parts that may block gradients, at any depth, each with what it takes."""
    graph = graph_of(model)
    nodes = list(_nodes(graph)) if len(graph.inputs) == 1 else []
    if not nodes:
        return
    given = keras.Function(graph.inputs[0], [node.input_tensors[0] for node in nodes])(values)
    for node, inputs in zip(nodes, given, strict=True):
        if is_graph(node.operation):
            yield from _calls(node.operation, inputs)
        else:
            yield node, inputs


def _nodes(graph: Any) -> Iterator[Any]:
    """Yields the first call of each part of a graph that takes one tensor and may block gradients, or holds such."""
    seen = set()
    for nodes in graph._nodes_by_depth.values():
        for node in nodes:
            part = node.operation
            if not node.is_input and len(node.input_tensors) == 1 and id(part) not in seen and _may_block(part):
                seen.add(id(part))
                yield node


def _may_block(part: Any) -> bool:
    if is_graph(part):
        return any(map(_may_block, graph_of(part).operations))
    if type(part).__module__.partition(".")[0] == "kerasrobust":  # Noise, whose gradients are right.
        return False
    return not isinstance(part, keras.Layer) or isinstance(part, BLOCKING) or is_custom(part)


def _slope_is(node: Any, inputs: tf.Tensor, there: bool) -> bool:
    """Returns whether a call keeps the shape and lets gradients pass (`there`), or none of them."""
    arguments, settings = node.arguments.fill_in({id(node.input_tensors[0]): inputs})

    def slope() -> tuple[bool, Any]:
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            outputs = node.operation(*arguments, **settings)
            if not tf.is_tensor(outputs) or outputs.shape != inputs.shape:
                return False, None
            # Unequal weights, as sums over what a layer gives may be constant.
            loss = tf.reduce_sum(tf.cast(outputs, tf.float32) * tf.random.stateless_normal(outputs.shape, [0, 1]))
        return True, tape.gradient(loss, inputs)

    if not inputs.dtype.is_floating:
        return False
    try:
        keeps, found = slope()
    except (LookupError, TypeError, tf.errors.OpError):  # None is registered, or it is Python code.
        return not there
    return keeps and there == (found is not None and bool(np.any(tf.convert_to_tensor(found))))
