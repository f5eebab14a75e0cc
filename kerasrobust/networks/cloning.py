"""Copies of Keras models, layer by layer, with their weights and under another dtype policy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras

from kerasrobust.errors import InputError
from kerasrobust.networks.architectures import GRAPHS, is_graph


def check_graph(model: keras.Model) -> None:
    """Raises InputError for a model that can't be rebuilt layer by layer, nor can a model inside it."""
    inner = [part for part in model._flatten_layers(include_self=False) if isinstance(part, GRAPHS)]
    if not is_graph(model) or not model.built or not all(map(is_graph, inner)):
        wrong = next((part for part in inner if not is_graph(part)), model) if is_graph(model) else model
        inside = "" if wrong is model else f" inside {model.name!r}"
        raise InputError(
            "Expected a built functional or Sequential Keras model. "
            f"Received: {type(wrong).__name__} {wrong.name!r}{inside}. "
            "Rebuild it from such layers, or under the wanted policy."
        )


def with_precision(model: keras.Model, policy: str) -> keras.Model:
    """Returns a copy of a model under another dtype policy, with a copy of its weights.

    Under a mixed policy the output layers stay in float32, and so do layers that a mixed model keeps in float32.

    Args:
        model: a built functional or Sequential Keras model.
        policy: a Keras dtype policy, as "float32" or "mixed_bfloat16".

    Returns:
        The model itself if nothing changes, otherwise a new one.

    Raises:
        InputError: for a subclassed model, whose layers are unknown from outside.

    Example:
        >>> fast = with_precision(model, "mixed_bfloat16")
    """
    kept = kept_in_float32(model, policy)
    if all(layer.dtype_policy.name == ("float32" if id(layer) in kept else policy) for layer in _inner(model)):
        return model
    return clone(model, lambda layer: "float32" if id(layer) in kept else policy)


def clone(model: keras.Model, policy: Callable[[keras.Layer], str]) -> keras.Model:
    """Returns an uncompiled copy of a functional or Sequential model, each layer under the policy given for it."""
    check_graph(model)

    def copy(layer: Any) -> Any:
        config = layer.get_config()
        # Operations of keras.ops in the graph are cloned too, and have no dtype policy.
        if isinstance(layer, keras.Layer) and not isinstance(layer, keras.layers.InputLayer):
            config["dtype"] = policy(layer)
        return type(layer).from_config(config)

    result = keras.models.clone_model(model, clone_function=copy, recursive=True)
    if not result.built:
        result.build(model.input_shape)
    result.set_weights(model.get_weights())
    finalize_normalization(result)
    return result


def _inner(model: keras.Model) -> list[Any]:
    """Returns the layers at all depths, without models and inputs."""
    return [part for part in model._flatten_layers() if not isinstance(part, (keras.Model, keras.layers.InputLayer))]


def kept_in_float32(model: keras.Model, policy: str) -> set[int]:
    """Returns the ids of the layers that stay in float32 under a policy."""
    if policy == "float32":
        return set()
    inner = _inner(model)
    was_mixed = any(layer.compute_dtype != "float32" for layer in inner)
    kept = {id(layer) for layer in inner if was_mixed and layer.compute_dtype == "float32"}
    return kept | ({id(layer) for layer in _output_layers(model)} if is_graph(model) else set())


def _output_layers(model: keras.Model) -> list[Any]:
    """Returns the layers behind a model's outputs, back to the last ones with weights, inside nested models too."""
    found: list[Any] = []
    for output in model.outputs:
        while True:
            last, node_index, _ = output._keras_history
            found += _output_layers(last) if is_graph(last) else [last]
            tensors = last._inbound_nodes[node_index].input_tensors
            if getattr(last, "weights", []) or len(tensors) != 1:
                break
            output = tensors[0]
    return found


def finalize_normalization(copy: keras.Model) -> None:
    """Makes `Normalization` layers of a copied model use the weights just given to them."""
    for layer in copy._flatten_layers():
        if isinstance(layer, keras.layers.Normalization):
            layer.finalize_state()
