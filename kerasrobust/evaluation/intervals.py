"""Interval bound propagation through single layers: from bounds on what goes in to bounds on what comes out.

Bounds are computed in float64 and widened by what float32 may round, so that they hold for the network as it runs. A
sum of n products that is rounded to float32 in any order is off by at most gamma(n) times the sum of their sizes, where
gamma(n) = n u / (1 - n u) and u = 2^-24 (Higham 2002, section 3.1). What float64 rounds here is a billionth of that,
and is covered by counting one more term. That holds for sums of products as the layers define them: not for Winograd's
convolutions, which some GPUs choose, nor for TF32 or bfloat16.

Reference: Gowal et al. 2018, "On the Effectiveness of Interval Bound Propagation for Training Verifiably Robust
Models".
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import tensorflow as tf
from keras import layers as klayers

from kerasrobust.errors import InputError

UNIT = 2.0**-24
"""Half of the distance from 1 to the next float32."""

TINY = 1e-30
"""Far above what is lost where float32 underflows."""

FEW = 16
"""More than the operations by which any layer here scales, shifts or normalises a number."""

RELATIVE, ABSOLUTE = 2.0**-18, 2.0**-22
"""How far off the values of activations that aren't piecewise linear are taken to be: 64 units in the last place."""

MONOTONE = {
    keras.activations.linear, keras.activations.relu, keras.activations.relu6, keras.activations.leaky_relu,
    keras.activations.elu, keras.activations.selu, keras.activations.celu, keras.activations.softplus,
    keras.activations.softsign, keras.activations.sigmoid, keras.activations.hard_sigmoid, keras.activations.tanh,
    keras.activations.hard_tanh, keras.activations.log_sigmoid, keras.activations.exponential,
}  # fmt: skip
"""Activations that never fall: the bounds of what comes out are the values at the bounds of what goes in."""


@dataclass(frozen=True)
class Interval:
    """Bounds on a tensor, entry by entry.

    Attributes:
        low: float64 (N, ...), the lower bounds.
        high: float64 (N, ...), the upper bounds.
    """

    low: tf.Tensor
    high: tf.Tensor

    @property
    def size(self) -> tf.Tensor:
        """The largest absolute value inside."""
        return tf.maximum(tf.abs(self.low), tf.abs(self.high))

    def widened(self, by: tf.Tensor) -> Interval:
        """Returns bounds that are further out."""
        return Interval(self.low - by - TINY, self.high + by + TINY)

    def mapped(self, function: Callable[[tf.Tensor], tf.Tensor]) -> Interval:
        """Returns the bounds of a function that never falls, entry by entry, and rounds nothing."""
        return Interval(function(self.low), function(self.high))


def gamma(count: int) -> float:
    """Returns how far off a sum of so many products may be in float32, as a share of the sum of their sizes."""
    share = (count + 1) * UNIT
    if share >= 0.5:
        raise InputError(
            f"Expected layers of fewer than 8 million terms. Received: {count:,}. Bound a smaller network."
        )
    return share / (1 - share)


def linear(
    x: Interval, kernel: tf.Tensor, bias: tf.Tensor, terms: int, apply: Callable[[tf.Tensor, tf.Tensor], tf.Tensor]
) -> Interval:
    """Returns bounds on `apply(x, kernel) + bias`, which is linear in either.

    Args:
        x: bounds on the input.
        kernel: float64, the weights.
        bias: float64, for each output.
        terms: products that an output sums at most.
        apply: the layer's operation without its bias.
    """
    middle, radius = (x.low + x.high) / 2, (x.high - x.low) / 2
    size = tf.abs(kernel)
    centre, reach = apply(middle, kernel) + bias, apply(radius, size)
    rounding = gamma(terms + 1) * (apply(x.size, size) + tf.abs(bias))
    return Interval(centre - reach, centre + reach).widened(rounding)


def affine(x: Interval, scale: Any, shift: Any, parts: Any) -> Interval:
    """Returns bounds on `x * scale + shift`, where float32 computes the shift from parts of this size."""
    scale, shift, parts = (tf.convert_to_tensor(value, tf.float64) for value in (scale, shift, parts))
    ends = x.low * scale + shift, x.high * scale + shift
    return Interval(tf.minimum(*ends), tf.maximum(*ends)).widened(gamma(FEW) * (x.size * tf.abs(scale) + parts))


def activated(x: Interval, layer: Any, activation: Any) -> Interval:
    """Returns bounds on the values of an activation that never falls.

    Raises:
        InputError: for another one.
    """
    if activation is keras.activations.linear:
        return x
    if activation not in MONOTONE:
        name = getattr(activation, "__name__", type(activation).__name__)
        raise refused(layer, f"the activation {name}, which may fall")
    return _rising(x, activation)


def _rising(x: Interval, function: Callable[[tf.Tensor], tf.Tensor]) -> Interval:
    found = x.mapped(function)
    return found.widened(found.size * RELATIVE + ABSOLUTE) if function is not keras.activations.relu else found


def refused(layer: Any, what: str) -> InputError:
    """Returns the error for a layer of which nothing is known."""
    return InputError(
        "Expected layers that bounds can be propagated through (dense, convolutions, pooling, normalisation, "
        f"activations that never fall). Received: {layer.name!r}, {what}. Use attacks, or smoothing (certify)."
    )


def _dense(layer: Any, x: Interval) -> Interval:
    kernel = _double(layer.kernel)
    found = linear(x, kernel, _bias(layer), kernel.shape[0], lambda value, weights: tf.linalg.matmul(value, weights))
    return activated(found, layer, layer.activation)


def _convolution(layer: Any, x: Interval) -> Interval:
    deep = type(layer) is klayers.DepthwiseConv2D
    if layer.data_format != "channels_last" or getattr(layer, "groups", 1) != 1:
        raise refused(layer, "a convolution with the channels first or in groups")
    operation = keras.ops.depthwise_conv if deep else keras.ops.conv
    kernel = _double(layer.kernel)
    terms = math.prod(kernel.shape[:2] if deep else kernel.shape[:3])

    def apply(value: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
        return operation(value, weights, layer.strides, layer.padding, layer.data_format, layer.dilation_rate)

    return activated(linear(x, kernel, _bias(layer), terms, apply), layer, layer.activation)


def _normalization(layer: Any, x: Interval) -> Interval:
    """Batch normalisation as it is in inference: with its moving statistics."""
    if getattr(layer, "renorm", False):
        raise refused(layer, "batch renormalisation")
    scale = tf.math.rsqrt(_double(layer.moving_variance) + layer.epsilon)
    scale = scale * _double(layer.gamma) if layer.scale else scale
    moved = _double(layer.moving_mean) * scale
    beta = _double(layer.beta) if layer.center else tf.zeros_like(moved)
    shape = [1] * x.low.shape.rank
    shape[layer.axis] = -1
    scale, shift, parts = (tf.reshape(part, shape) for part in (scale, beta - moved, tf.abs(beta) + tf.abs(moved)))
    return affine(x, scale, shift, parts)


def _rescaling(layer: Any, x: Interval) -> Interval:
    return affine(x, layer.scale, layer.offset, tf.abs(tf.convert_to_tensor(layer.offset, tf.float64)))


def _standardization(layer: Any, x: Interval) -> Interval:
    """Keras' `Normalization`, by a mean and a variance of its own."""
    if layer.invert:
        raise refused(layer, "the inverse of a normalisation")
    scale = 1 / tf.maximum(tf.sqrt(_double(layer.variance)), keras.backend.epsilon())
    moved = _double(layer.mean) * scale
    return affine(x, scale, -moved, tf.abs(moved))


def _pooling(layer: Any, x: Interval) -> Interval:
    if layer.data_format != "channels_last":
        raise refused(layer, "pooling with the channels first")
    mean = type(layer) is klayers.AveragePooling2D
    operation = keras.ops.average_pool if mean else keras.ops.max_pool

    def apply(value: tf.Tensor) -> tf.Tensor:
        return operation(value, layer.pool_size, layer.strides, layer.padding, layer.data_format)

    found = x.mapped(apply)
    return found.widened(gamma(math.prod(layer.pool_size) + 1) * apply(x.size)) if mean else found


def _global_pooling(layer: Any, x: Interval) -> Interval:
    if layer.data_format != "channels_last":
        raise refused(layer, "pooling with the channels first")
    if type(layer) is klayers.GlobalMaxPooling2D:
        return x.mapped(lambda value: tf.reduce_max(value, axis=(1, 2), keepdims=layer.keepdims))
    terms = math.prod(x.low.shape[1:3])
    size = tf.reduce_mean(x.size, axis=(1, 2), keepdims=layer.keepdims)
    found = x.mapped(lambda value: tf.reduce_mean(value, axis=(1, 2), keepdims=layer.keepdims))
    return found.widened(gamma(terms + 1) * size)


def _flat(layer: Any, x: Interval) -> Interval:
    if type(layer) is klayers.Flatten and layer.data_format != "channels_last" and x.low.shape.rank > 2:
        raise refused(layer, "which has the channels first")
    shape = (-1,) if type(layer) is klayers.Flatten else layer.target_shape
    return x.mapped(lambda value: tf.reshape(value, (value.shape[0], *shape)))


def _rectified(layer: Any, x: Interval) -> Interval:
    slope = layer.negative_slope
    if slope < 0 or getattr(layer, "threshold", 0):
        raise refused(layer, "ReLU with a threshold or a negative slope below 0")
    top = getattr(layer, "max_value", None)
    if not slope and top is None:
        return _rising(x, keras.activations.relu)
    return _rising(x, lambda value: keras.activations.relu(value, negative_slope=slope, max_value=top))


def _exponential(layer: Any, x: Interval) -> Interval:
    if layer.alpha < 0:
        raise refused(layer, "ELU with an alpha below 0")
    return _rising(x, lambda value: keras.activations.elu(value, alpha=layer.alpha))


def _sum(layer: Any, *given: Interval) -> Interval:
    # Smaller ones are repeated, as the layer does, and get the axes that they lack behind the first, the batch's.
    rank = max(x.low.shape.rank for x in given)

    def whole(value: tf.Tensor) -> tf.Tensor:
        return tf.reshape(value, (value.shape[0], *[1] * (rank - value.shape.rank), *value.shape[1:]))

    low, high, size = (
        functools.reduce(tf.add, [whole(getattr(x, part)) for x in given]) for part in ("low", "high", "size")
    )
    return Interval(low, high).widened(gamma(len(given)) * size)


def _joined(layer: Any, *given: Interval) -> Interval:
    return Interval(*(tf.concat(parts, layer.axis) for parts in ([x.low for x in given], [x.high for x in given])))


def _padded(layer: Any, x: Interval) -> Interval:
    if layer.data_format != "channels_last":
        raise refused(layer, "padding with the channels first")
    return x.mapped(lambda value: tf.pad(value, ((0, 0), *layer.padding, (0, 0))))


def _same(layer: Any, x: Interval) -> Interval:
    """What does nothing in inference."""
    return x


RULES: dict[type, Callable[..., Interval]] = {
    klayers.Dense: _dense,
    **dict.fromkeys((klayers.Conv2D, klayers.DepthwiseConv2D), _convolution),
    klayers.BatchNormalization: _normalization,
    klayers.Rescaling: _rescaling,
    klayers.Normalization: _standardization,
    **dict.fromkeys((klayers.MaxPooling2D, klayers.AveragePooling2D), _pooling),
    **dict.fromkeys((klayers.GlobalMaxPooling2D, klayers.GlobalAveragePooling2D), _global_pooling),
    **dict.fromkeys((klayers.Flatten, klayers.Reshape), _flat),
    klayers.Activation: lambda layer, x: activated(x, layer, layer.activation),
    **dict.fromkeys((klayers.ReLU, klayers.LeakyReLU), _rectified),
    klayers.ELU: _exponential,
    klayers.Add: _sum,
    klayers.Concatenate: _joined,
    klayers.ZeroPadding2D: _padded,
    **dict.fromkeys(
        (klayers.Dropout, klayers.SpatialDropout2D, klayers.GaussianNoise, klayers.GaussianDropout, klayers.Identity),
        _same,
    ),
}
"""What each kind of layer does to intervals. A subclass may compute something else, so a rule isn't for it."""


def through(layer: Any, *given: Interval) -> Interval:
    """Returns bounds on what a layer gives for anything within bounds.

    Raises:
        InputError: for a layer of which nothing is known, or that computes in another arithmetic than float32.
    """
    check_plain(layer)
    return RULES[type(layer)](layer, *given)


def check_plain(layer: Any) -> None:
    """Raises InputError for a layer that isn't one of `RULES` in float32, with its weights as they are."""
    if type(layer) not in RULES:
        raise refused(layer, f"a {type(layer).__name__}")
    if layer.compute_dtype not in ("float32", "float64"):
        raise refused(layer, f"which computes in {layer.compute_dtype}")
    if getattr(layer, "quantization_mode", None) is not None or getattr(layer, "lora_enabled", False):
        raise refused(layer, "whose kernel is quantized or has adapters")


def _bias(layer: Any) -> tf.Tensor:
    return _double(layer.bias) if layer.use_bias else tf.zeros((), tf.float64)


def _double(value: Any) -> tf.Tensor:
    return tf.cast(tf.convert_to_tensor(value), tf.float64)
