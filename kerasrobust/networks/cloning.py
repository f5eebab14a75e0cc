"""Copies of Keras models, layer by layer, with their weights and under another dtype policy; each compared."""

from __future__ import annotations

import contextlib
import types
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
from keras.src.saving.serialization_lib import SafeModeScope  # Keras 3 has no public name for it.

from kerasrobust.errors import InputError, reason_of
from kerasrobust.networks.architectures import GRAPHS, is_graph, predicting
from kerasrobust.networks.noise import noise_off
from kerasrobust.networks.probe import apart

ROUNDING = 1e-4
"""How far the outputs of a copy may be apart (`probe.apart`)."""

COARSE = 0.02
"""The same for layers in half precision, which may round to another value in another order of sums."""

PASSES = 12
"""Passes that are compared of a network with noise of its own, which can't be switched off."""


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
    named = {id(layer): "float32" if id(layer) in kept else policy for layer in _inner(model)}
    if all(not _has_precision(layer) or layer.dtype_policy.name == named[id(layer)] for layer in _inner(model)):
        return model
    return clone(model, lambda layer: "float32" if id(layer) in kept else policy)


def clone(model: keras.Model, policy: Callable[[keras.Layer], str]) -> keras.Model:
    """Returns an uncompiled copy of a functional or Sequential model, each layer under the policy given for it.

    Layers that Keras has quantized keep their own policy, as their weights are integers.

    Raises:
        InputError: if the copy would be another network, as a layer's configuration leaves something out.
    """
    check_graph(model)
    changed = any(_has_precision(part) and part.dtype_policy.name != policy(part) for part in _inner(model))
    if changed:
        # Rounding would hide what a configuration leaves out.
        finished(model, _rebuilt(model, copied))
    return finished(model, _rebuilt(model, lambda layer: copied(layer, policy(layer))), exact=not changed)


def _rebuilt(model: keras.Model, copy: Callable[[Any], Any]) -> keras.Model:
    result = keras.models.clone_model(model, clone_function=copy, recursive=True)
    if not result.built:
        result.build(model.input_shape)
    return result


def rebuilt(model: keras.Model, copy: Callable[[Any], Any]) -> keras.Model:
    """Returns an uncompiled copy of a functional or Sequential model, of what `copy` makes of each layer and operation.

    Raises:
        InputError: if it would be another network.
    """
    check_graph(model)
    return finished(model, _rebuilt(model, copy))


def rebuilt_from_config(model: keras.Model, shape: tuple[int, ...]) -> keras.Model:
    """Returns an uncompiled copy of a subclassed model, made by its own `get_config` and `from_config`.

    Args:
        model: a built subclassed Keras model.
        shape: height, width and channels of images that it takes.

    Raises:
        InputError: if that isn't possible, or gives another network.
    """
    with_precision(model, "float32")  # One under another policy is refused here.
    try:
        with own_objects(model):
            copy = type(model).from_config(model.get_config())
        copy.build_from_config(model.get_build_config() or {"input_shape": (None, *shape)})
        # Before it is called: a Normalization that was built in a graph holds tensors of that graph.
        finalize_normalization(copy)
        copy(keras.ops.zeros((1, *shape)), **predicting(copy))
    except Exception as error:  # Somebody's own model may raise anything.
        raise InputError(
            f"Expected a model that can be rebuilt from get_config(). Received: {type(model).__name__} "
            f"({reason_of(error)}). Give it get_config, build a functional model, or take it as it is by "
            'model.export("folder").'
        ) from error
    return finished(model, copy, shape=shape)


def copied(layer: Any, policy: str | None = None) -> Any:
    """Returns a copy of a layer or operation in memory, without weights; its own functions and classes are kept.

    Nothing in memory is untrusted, so Lambda layers and unregistered functions are copied too.

    Args:
        layer: a layer, or an operation of `keras.ops` in a graph, which has no dtype policy.
        policy: the copy's dtype policy; the layer's own without it, and where Keras has quantized the layer.

    Raises:
        InputError: for a layer that its configuration doesn't describe.
    """
    try:
        config = layer.get_config()
        if policy is not None and _has_precision(layer) and "dtype" in config:
            config["dtype"] = policy
        if not isinstance(layer, keras.layers.Lambda):  # Which Keras writes down; elsewhere it can't.
            lambdas = {name: value for name, value in vars(layer).items() if _is_own(value) and name in config}
            config |= {name: value for name, value in lambdas.items() if value.__name__ == "<lambda>"}
        with own_objects(layer):
            copy = type(layer).from_config(config)
    except Exception as error:  # Somebody's own layer may raise anything.
        raise InputError(
            f"Expected layers that can be rebuilt from get_config(). Received: {layer.name!r}, a "
            f"{type(layer).__name__} ({reason_of(error)}). Give it a whole get_config, or take the model as it is by "
            'model.export("folder").'
        ) from error
    if isinstance(layer, keras.Layer):
        _keep_functions(layer, copy)
    return copy


@contextlib.contextmanager
def own_objects(part: Any) -> Iterator[None]:
    """Has Keras find by name the classes and functions that a layer or model in memory uses, registered or not."""
    found: dict[str, Any] = {}
    _collect(part, found, set())
    with keras.saving.custom_object_scope(found), SafeModeScope(False):
        yield


def _collect(part: Any, found: dict[str, Any], seen: set[int]) -> None:
    if id(part) in seen:
        return
    seen.add(id(part))
    if isinstance(part, dict):
        inner = list(part.values())
    elif isinstance(part, (list, tuple)):
        inner = list(part)
    elif isinstance(part, types.FunctionType) or hasattr(part, "get_config"):
        own = part if isinstance(part, types.FunctionType) else type(part)
        if not _of_keras(own):
            found |= dict.fromkeys((own.__name__, keras.saving.get_registered_name(own)), own)
        inner = list(getattr(part, "__dict__", {}).values()) if own is not part else []
    else:
        return
    for item in inner:
        _collect(item, found, seen)


def _of_keras(thing: Any) -> bool:
    return str(thing.__module__).partition(".")[0] == "keras"


def is_custom(layer: Any) -> bool:
    """Returns whether a layer isn't one of Keras, or holds a function that isn't, such as an activation."""
    return not _of_keras(type(layer)) or any(map(_is_own, vars(layer).values()))


def _is_own(value: Any) -> bool:
    """Returns whether something is a function that isn't one of Keras."""
    return isinstance(value, types.FunctionType) and not _of_keras(value)


def _keep_functions(layer: keras.Layer, copy: keras.Layer) -> None:
    """Gives a copy the functions themselves: what Keras makes of a lambda has lost the names around it."""
    for old, new in zip(layer._flatten_layers(), copy._flatten_layers(), strict=False):
        for name, value in vars(old).items():
            if _is_own(value) and name in vars(new):
                setattr(new, name, value)


def finished(model: keras.Model, copy: keras.Model, *, exact: bool = True, shape: tuple[int, ...] = ()) -> keras.Model:
    """Gives a rebuilt model the weights of the one it was made from, and returns it if it is the same network.

    Args:
        model: the original.
        copy: a built copy, perhaps with noise that can be switched off.
        exact: whether both compute in the same precision.
        shape: height, width and channels of images, for a subclassed model, which doesn't state them.

    Raises:
        InputError: if the weights don't fit, or the outputs differ on random images, without noise.
    """
    try:
        _give_weights(model, copy)
    except ValueError as error:
        raise _another(model, f"whose copy has other weights ({reason_of(error)})") from error
    finalize_normalization(copy)
    half = any(_is_half(layer) for part in (model, copy) for layer in _inner(part))
    allowed = COARSE if half and exact else 5 * COARSE if half else ROUNDING
    for inputs in _random_inputs(model, shape):
        own = _outputs(model, inputs)
        try:
            made = _outputs(copy, inputs)
        except Exception as error:  # Somebody's own layer may raise anything.
            raise _another(model, f"whose copy can't be called ({reason_of(error)})") from error
        gap = apart(own, made)
        if gap > allowed and not _alike_in_noise(model, copy, inputs):
            raise _another(model, f"whose copy gives outputs that differ by {gap:.2g} of their scale")
    return copy


def _give_weights(model: keras.Model, copy: keras.Model) -> None:
    if not any(map(quantization, _inner(model))):
        copy.set_weights(model.get_weights())
        return
    # Keras orders a quantized layer's weights otherwise when it is built so than when it is quantized later.
    olds, news = (
        [layer for layer in part._flatten_layers() if layer._trainable_variables + layer._non_trainable_variables]
        for part in (model, copy)
    )
    for old, new in zip(olds, news, strict=True):
        store: dict[str, Any] = {}
        old.save_own_variables(store)
        new.load_own_variables(store)


def _is_half(layer: keras.Layer) -> bool:
    return layer.compute_dtype in ("float16", "bfloat16")


def _another(model: keras.Model, what: str) -> InputError:
    return InputError(
        f"Expected a model that can be rebuilt from get_config(). Received: {model.name!r}, {what}. Something that "
        "get_config of its own layers leaves out is lost: add it there, or take the model as it is by "
        'model.export("folder").'
    )


def _random_inputs(model: keras.Model, shape: tuple[int, ...]) -> list[Any]:
    """Returns random inputs that a model takes: values in [0, 1] and, where it takes those too, in [0, 255]."""
    tensors = model.inputs if is_graph(model) else [keras.KerasTensor((None, *shape))]
    struct = getattr(model, "_inputs_struct", None)
    found, failure = [], None
    for scale in (1, 255):
        for side in (32, 96, 224):
            arrays = [_random(tensor, side, scale) for tensor in tensors]
            inputs = keras.tree.pack_sequence_as(struct, arrays) if keras.tree.is_nested(struct) else arrays[0]
            try:
                _outputs(model, inputs)
            except Exception as error:  # The guessed size may be too small; somebody's own layer may raise anything.
                failure = error
                continue
            found.append(inputs)
            break
    if not found:
        raise InputError(
            f"Expected a model that can be called. Received: {model.name!r}, which fails on random inputs "
            f"({reason_of(failure or ValueError())}). Mend it before it is copied."
        ) from failure
    return found


def _random(tensor: keras.KerasTensor, side: int, scale: int) -> Any:
    """Returns random values for an input of a model; sides that it leaves open are guessed."""
    guesses = (4, side, side, 3, *tensor.shape[4:])
    values = scale * np.random.default_rng(0).random([k or g for k, g in zip(tensor.shape, guesses, strict=False)])
    floating = keras.backend.is_float_dtype(tensor.dtype)
    return keras.ops.convert_to_tensor(values if floating else values.round(), tensor.dtype)


def _outputs(model: keras.Model, inputs: Any) -> np.ndarray:
    """Returns a model's outputs without noise, side by side, (N, K)."""
    with noise_off():
        outputs = keras.tree.flatten(model(inputs, **predicting(model)))
    arrays = [keras.ops.convert_to_numpy(keras.ops.cast(output, "float64")) for output in outputs]
    # What is no number on both sides is the same on both sides.
    return np.nan_to_num(np.concatenate([array.reshape(len(array), -1) for array in arrays], axis=1))


def _alike_in_noise(model: keras.Model, copy: keras.Model, inputs: Any) -> bool:
    """Returns whether two models have noise of their own, and their mean outputs are as near as that explains."""
    own, made = (np.stack([_outputs(part, inputs) for _ in range(PASSES)]) for part in (model, copy))
    spread = np.sqrt((own.var(axis=0) + made.var(axis=0)) / PASSES)
    return bool(
        spread.any() and (abs(own.mean(axis=0) - made.mean(axis=0)) <= 8 * spread + 1e-4 * abs(own).max()).all()
    )


def _has_precision(layer: Any) -> bool:
    """Returns whether a layer can compute in another precision: not if it gives integers or Keras has quantized it."""
    typed = isinstance(layer, keras.Layer) and not isinstance(layer, keras.layers.InputLayer)
    return typed and quantization(layer) is None and keras.backend.is_float_dtype(layer.compute_dtype)


def quantization(layer: Any) -> str | None:
    """Returns how Keras has quantized a layer, as "int8", or None."""
    return getattr(layer, "quantization_mode", None)


def trainable(model: keras.Model) -> keras.Model:
    """Returns a model in float32, to be trained on; raises InputError for one that Keras has quantized."""
    kinds = sorted({str(kind) for layer in _inner(model) if (kind := quantization(layer))})
    if kinds:
        raise InputError(
            f"Expected a model with floating weights to train on. Received: {model.name!r}, whose layers Keras has "
            f"quantized to {', '.join(kinds)}. Train the model that it was made from, and quantize that again."
        )
    return with_precision(model, "float32")


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
