"""In which arithmetic a model computes while it is attacked."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras

from kerasrobust.classifier import Classifier, as_classifier
from kerasrobust.errors import InputError
from kerasrobust.models import is_graph


def chosen_precision(classifier: Classifier, precision: str) -> str:
    """Returns "float32" or "bfloat16": what `precision` means for a model.

    "auto" is float32 as long as nothing has measured that bfloat16 finds the same examples in less time.

    Raises:
        InputError: for another word.

    Example:
        >>> chosen_precision(as_classifier(model), "auto")
        'float32'
    """
    if precision not in ("auto", "float32", "bfloat16"):
        raise InputError(f"Expected a precision out of auto, float32, bfloat16. Received: {precision!r}. Choose one.")
    return "float32" if precision == "auto" else precision


def at_precision(classifier: Classifier, precision: str) -> Classifier:
    """Returns the classifier whose gradients an attack takes; verdicts stay with the one that was given.

    Args:
        classifier: the model as it was given, in float32.
        precision: "float32", "bfloat16", or "auto" (see `chosen_precision`).

    Raises:
        InputError: for another precision, or bfloat16 for a model that can't be rebuilt in it.

    Example:
        >>> crafting = at_precision(as_classifier(model), "bfloat16")
    """
    if chosen_precision(classifier, precision) == "float32":
        return classifier
    if not isinstance(classifier.model, keras.Model):
        raise InputError(
            f"Expected a Keras model for bfloat16. Received: {classifier.name!r}, whose graph is fixed. Use float32."
        )
    twin = classifier.compiled.get("bfloat16")
    if twin is None:
        twin = as_classifier(with_precision(classifier.model, "mixed_bfloat16"))
        classifier.compiled["bfloat16"] = twin
    twin.model.set_weights(classifier.model.get_weights())  # It may have been trained since.
    return twin


def with_precision(model: keras.Model, policy: str) -> keras.Model:
    """Returns a model's twin that computes under another dtype policy, with a copy of its weights.

    Under a mixed policy the output layers stay in float32, and so do layers that a mixed model keeps in float32.

    Args:
        model: a built functional or Sequential Keras model.
        policy: a Keras dtype policy, as "float32" or "mixed_bfloat16".

    Returns:
        The model itself where nothing changes, otherwise a new one.

    Raises:
        InputError: for a subclassed model, whose layers can't be told apart from outside.

    Example:
        >>> fast = with_precision(model, "mixed_bfloat16")
    """
    inner = [part for part in model._flatten_layers() if not isinstance(part, (keras.Model, keras.layers.InputLayer))]
    was_mixed = any(layer.compute_dtype != "float32" for layer in inner)
    kept = set()
    if policy != "float32":
        kept = {id(layer) for layer in inner if was_mixed and layer.compute_dtype == "float32"}
        if is_graph(model):
            kept |= {id(layer) for layer in _output_layers(model)}
    if all(layer.dtype_policy.name == ("float32" if id(layer) in kept else policy) for layer in inner):
        return model
    return clone(model, lambda layer: "float32" if id(layer) in kept else policy)


def clone(model: keras.Model, policy: Callable[[keras.Layer], str]) -> keras.Model:
    """Returns an uncompiled copy of a functional or Sequential model, each layer under the policy given for it."""
    if not is_graph(model) or not model.built:
        raise InputError(
            f"Expected a built functional or Sequential Keras model. Received: {type(model).__name__} {model.name!r}. "
            "Rebuild it from such layers, or under the wanted policy."
        )

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
    return result


def _output_layers(model: keras.Model) -> list[Any]:
    """Returns what a model's outputs come from, back to the last layers with weights, inside nested models too."""
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
