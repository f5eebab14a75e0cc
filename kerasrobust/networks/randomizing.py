"""Randomized networks made of ordinary ones: noise that stays on, put in beside the layers that are there."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import keras

from kerasrobust.errors import InputError
from kerasrobust.networks.architectures import is_graph
from kerasrobust.networks.cloning import copied, finished, quantization
from kerasrobust.networks.noise import RandomDropout

_POOLING = tuple(
    getattr(keras.layers, f"{scope}{kind}Pooling{rank}D")
    for scope in ("", "Global")
    for kind in ("Average", "Max")
    for rank in (1, 2, 3)
)
_DROPOUT = (keras.layers.Dropout, keras.layers.SpatialDropout1D, keras.layers.SpatialDropout2D, RandomDropout)


def _unnested(model: keras.Model) -> Iterator[keras.layers.Layer]:
    """Yields a model's layers, and instead of models in it their layers."""
    for layer in model.layers:
        yield from _unnested(layer) if is_graph(layer) else [layer]


def randomize(model: keras.Model, rate: float = 0.15, seed: int | None = None) -> keras.Model:
    """Returns the randomized version of a model: always-on dropout in it, its weights kept, the model untouched.

    Dropout layers are replaced where they stand. A model that has none gets the noise after every pooling layer and
    between dense layers.

    Args:
        model: a built functional or Sequential Keras model.
        rate: float in (0, 1), the probability with which an entry is dropped.
        seed: integer for noise that repeats in every process, None for fresh noise.

    Returns:
        A new Keras model of the same inputs, outputs and weights.

    Raises:
        InputError: for a subclassed or unbuilt model, a rate outside (0, 1), a model with no place for the noise, or
            one that would become another network, as a layer's configuration leaves something out.

    Example:
        >>> randomized = randomize(build_model("convnet"), rate=0.15)
    """
    if not 0 < rate < 1:
        raise InputError(f"Expected a dropout rate between 0 and 1. Received: rate={rate}. Try 0.15.")
    if not is_graph(model):
        raise InputError(
            f"Expected a functional or Sequential Keras model. Received: {type(model).__name__}. "
            "Put RandomDropout layers into a subclassed model by hand."
        )
    if not model.built:
        raise InputError("Expected a built model. Received: one without weights. Call it on a batch of images first.")
    noise = _Noise(rate, seed, replace=any(isinstance(layer, _DROPOUT) for layer in _unnested(model)))
    result = noise.into(model)
    if not noise.placed:
        raise InputError(
            f"Expected a model with dropout, pooling or several dense layers. Received: {model.name!r}, which has no "
            "place for the noise. Put RandomDropout layers into it by hand."
        )
    return finished(model, result)


class _Noise:
    """Rebuilds models with noise layers in them; each adds its number to the seed.

    With `replace` they replace dropout layers, instead of following pooling and preceding dense layers.
    """

    def __init__(self, rate: float, seed: int | None, replace: bool) -> None:
        self.rate, self.seed, self.replace = rate, seed, replace
        self.placed = 0
        self._dense_seen = False

    def into(self, model: keras.Model) -> keras.Model:
        """Returns a model rebuilt with noise in it, nested models too."""
        if not isinstance(model, keras.Sequential):
            return keras.models.clone_model(model, clone_function=self._copy, call_function=self._call)
        layers: list[keras.layers.Layer] = [keras.Input(model.input_shape[1:], dtype=model.inputs[0].dtype)]
        for layer in model.layers:
            layers += [self._layer(layer)] if self._is_before(layer) else []
            layers += [self._copy(layer)]
            layers += [self._layer(layer)] if self._is_after(layer) else []
        return keras.Sequential(layers, name=model.name)

    def _copy(self, layer: keras.layers.Layer) -> keras.layers.Layer:
        if self.replace and isinstance(layer, _DROPOUT):
            return self._layer(layer)
        return self.into(layer) if is_graph(layer) else copied(layer)

    def _call(self, layer: keras.layers.Layer, *args: Any, **kwargs: Any) -> Any:
        if self._is_before(layer):
            args = (self._layer(layer)(args[0]), *args[1:])
        outputs = layer(*args, **kwargs)
        return self._layer(layer)(outputs) if self._is_after(layer) else outputs

    def _layer(self, beside: keras.layers.Layer) -> RandomDropout:
        self.placed += 1
        seed = None if self.seed is None else self.seed + self.placed
        # A quantized layer's policy, as "int8_from_mixed_bfloat16", is for layers with weights.
        policy = beside.dtype_policy.name.partition("_from_")[2] if quantization(beside) else beside.dtype_policy
        return RandomDropout(self.rate, seed=seed, dtype=policy)

    def _is_before(self, layer: keras.layers.Layer) -> bool:
        """Returns whether noise belongs in front of a layer: it is dense, and not the first such."""
        dense = isinstance(layer, keras.layers.Dense)
        before, self._dense_seen = dense and self._dense_seen and not self.replace, self._dense_seen or dense
        return before

    def _is_after(self, layer: keras.layers.Layer) -> bool:
        return not self.replace and isinstance(layer, _POOLING)
