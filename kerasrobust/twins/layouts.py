"""The layers of a network's twins that aren't copies of the network's own.

Most of them are for images that lie beside each other: tensors of shape (1, H, W, N, C) instead of (N, H, W, C). A
convolution on a processor multiplies one row of pixels at a time. Rows of feature maps are short, 8 or 16 pixels, and
much of the time is lost between rows. With the same pixel of all images in a row, rows are as long as the batch, and
pooling doesn't shorten them. Measured on two cores (Zen 5, oneDNN 3.7) with the ConvNet in bfloat16, gradients took
0.87 of their time in batches of 256 and 0.93 in batches of 64; below 32 images they took longer.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from kerasrobust.networks.noise import RandomDropout

THIN = 4
"""Pixels of a row whose gradients a convolution of a few channels gives at once."""


def turned(x: tf.Tensor) -> tf.Tensor:
    """Returns (N, H, W, C) as (1, H, W, N, C): images beside each other."""
    return tf.expand_dims(tf.transpose(x, (1, 2, 0, 3)), 0)


def turned_back(x: tf.Tensor) -> tf.Tensor:
    """Returns (1, H, W, N, C) as (N, H, W, C)."""
    return tf.transpose(tf.squeeze(x, 0), (2, 0, 1, 3))


def _flattened(x: tf.Tensor) -> tf.Tensor:
    """Returns images in either shape as (N, H, W, C): those beside each other as one image of many channels."""
    return x if x.shape.rank == 4 else tf.reshape(x, tf.concat([tf.shape(x)[:3], [-1]], axis=0))


def _convolved(x: tf.Tensor, kernel: tf.Tensor, strides: tuple[int, int], padding: str) -> tf.Tensor:
    """Returns the convolution of images in either shape; `kernel` is that of a `Conv2D`."""
    if x.shape.rank == 4:
        return tf.nn.conv2d(x, kernel, strides, padding)
    return tf.nn.conv3d(x, tf.expand_dims(kernel, 2), [1, *strides, 1, 1], padding)


class Turned(keras.layers.Layer):
    """A layer for images beside each other, between changes of layout. Images have no masks."""

    def __init__(self, inner: Any, enter: bool, leave: bool) -> None:
        super().__init__(name=inner.name, dtype=inner.dtype_policy)
        self.inner, self.enter, self.leave = inner, enter, leave

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        if self.enter:
            inputs = keras.tree.map_structure(turned, inputs)
        options = {"training": training} if self.inner._call_has_training_arg else {}
        outputs = self.inner(inputs, **options)
        return turned_back(outputs) if self.leave else outputs


class Folded(keras.layers.Layer):
    """Stands in place of a layer that was folded into another; takes the arguments that one takes."""

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        return inputs


class Offset(keras.layers.Layer):
    """Adds a number: what is left of a `Rescaling` whose factor is in the kernel of the next layer."""

    def __init__(self, by: float, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.by = by

    def call(self, inputs: Any) -> Any:
        return inputs + self.by if self.by else inputs


class Convolution(keras.layers.Layer):
    """Stands for the `Conv2D` that it is given, on images in either shape, under another dtype policy."""

    def __init__(self, layer: keras.layers.Conv2D, bias: bool, policy: str) -> None:
        super().__init__(name=layer.name, dtype=policy, trainable=layer.trainable)
        self.strides, self.padding, self.activation = layer.strides, layer.padding.upper(), layer.activation
        self.kernel = self.add_weight(shape=layer.kernel.shape, name="kernel")
        self.bias = self.add_weight(shape=layer.kernel.shape[-1:], name="bias") if bias else None
        self.built = True

    def call(self, inputs: Any) -> Any:
        outputs = self.convolved(inputs)
        if self.bias is not None:
            outputs = tf.nn.bias_add(outputs, self.bias)
        return self.activation(outputs)

    def convolved(self, x: tf.Tensor) -> tf.Tensor:
        return _convolved(x, tf.convert_to_tensor(self.kernel), self.strides, self.padding)


class ThinConvolution(Convolution):
    """Stands for the `Conv2D` of images of a few channels; takes them in the usual shape.

    In the backward pass, from 32 filters to 3 channels, a convolution uses 3 of a processor's 16 lanes. This one gives
    4 pixels of a row at once, by a kernel that holds the transposed one 4 times, each shifted to its pixel. Its kernel
    gets no gradient. With `beside` it lays the images beside each other.
    """

    def __init__(self, layer: keras.layers.Conv2D, bias: bool, policy: str, beside: bool) -> None:
        super().__init__(layer, bias, policy)
        self.beside = beside

    def convolved(self, x: tf.Tensor) -> tf.Tensor:
        kernel = tf.convert_to_tensor(self.kernel)

        @tf.custom_gradient
        def convolved(x: tf.Tensor) -> tuple[tf.Tensor, Callable[[tf.Tensor], tf.Tensor]]:
            def gradient(slope: tf.Tensor) -> tf.Tensor:
                back = tf.transpose(kernel[::-1, ::-1], (0, 1, 3, 2))
                shifts = [[[0, 0], [pixel, THIN - 1 - pixel], [0, 0], [0, 0]] for pixel in range(THIN)]
                wide = tf.concat([tf.pad(back, shift) for shift in shifts], axis=3)
                pixels = _convolved(slope, wide, (1, THIN), "SAME")
                return tf.reshape(turned_back(pixels) if self.beside else pixels, tf.shape(x))

            return _convolved(turned(x) if self.beside else x, kernel, (1, 1), "SAME"), gradient

        return convolved(x)


class Pooling(keras.layers.Layer):
    """Stands for the `MaxPooling2D` or `AveragePooling2D` that it is given, on images in either shape."""

    def __init__(self, layer: Any, policy: str) -> None:
        super().__init__(name=layer.name, dtype=policy)
        self.greatest = type(layer) is keras.layers.MaxPooling2D
        self.window, self.strides, self.padding = layer.pool_size, layer.strides, layer.padding.upper()

    def call(self, inputs: Any) -> Any:
        if not self.greatest or inputs.shape.rank == 4:
            return self.pooled(inputs)

        @tf.custom_gradient
        def pooled(values: tf.Tensor) -> tuple[tf.Tensor, Callable[[tf.Tensor], tf.Tensor]]:
            outputs = self.pooled(values)
            return outputs, lambda slope: self.gradient(values, outputs, slope)

        return pooled(inputs)

    def pooled(self, x: tf.Tensor) -> tf.Tensor:
        more = (1,) * (x.shape.rank - 4)
        if self.greatest:
            pool = tf.nn.max_pool3d if more else tf.nn.max_pool2d
        else:
            pool = tf.nn.avg_pool3d if more else tf.nn.avg_pool2d
        return pool(x, (*self.window, *more), (*self.strides, *more), self.padding)

    def gradient(self, x: tf.Tensor, outputs: tf.Tensor, slope: tf.Tensor) -> tf.Tensor:
        """Returns the gradient by the inputs of max pooling; of entries that tie, one gets all of it."""
        # With forward and backward pass in one graph oneDNN computes both, in half of the time; TensorFlow's own kernel
        # would give each entry that ties a gradient.
        onednn = not tf.executing_eagerly() and tf.compat.v1.get_default_graph() is outputs.graph
        more = (1,) * (x.shape.rank - 4) if onednn else ()
        back = tf.raw_ops.MaxPool3DGrad if more else tf.raw_ops.MaxPoolGrad
        parts = (x, outputs, slope) if more else (_flattened(part) for part in (x, outputs, slope))
        window, strides = [1, *self.window, *more, 1], [1, *self.strides, *more, 1]
        names = ("orig_input", "orig_output", "grad")
        found = back(**dict(zip(names, parts, strict=True)), ksize=window, strides=strides, padding=self.padding)
        return tf.reshape(found, tf.shape(x))


class PooledActivation(Pooling):
    """Max pooling, then an activation that never falls, on a quarter of the entries and without ties by rounding."""

    def __init__(self, layer: Any, policy: str, activation: Callable[[Any], Any]) -> None:
        super().__init__(layer, policy)
        self.activation = activation

    def call(self, inputs: Any) -> Any:
        return self.activation(super().call(inputs))


class ReLUPooling(Pooling):
    """ReLU, which TensorFlow fuses with a convolution before it, then max pooling; in the backward pass, swapped."""

    def call(self, inputs: Any) -> Any:
        @tf.custom_gradient
        def pooled(values: tf.Tensor) -> tuple[tf.Tensor, Callable[[tf.Tensor], tf.Tensor]]:
            positive = tf.nn.relu(values)
            outputs = self.pooled(positive)

            def gradient(slope: tf.Tensor) -> tf.Tensor:
                # If the largest entry of a window isn't above 0, none is.
                slope = tf.raw_ops.ReluGrad(gradients=slope, features=outputs)
                return self.gradient(positive, outputs, slope)

            return outputs, gradient

        return pooled(inputs)


class FusedNorm(keras.layers.BatchNormalization):
    """Batch normalisation whose training mode is one operation in either direction, on images in either shape."""

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        if not training or mask is not None or not self.trainable:
            return super().call(inputs, training=training, mask=mask)
        flat = tf.squeeze(inputs, 0) if inputs.shape.rank == 5 else inputs
        ones = tf.ones(inputs.shape[-1:])
        outputs, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
            x=flat,
            scale=tf.cast(self.gamma, tf.float32) if self.scale else ones,
            offset=tf.cast(self.beta, tf.float32) if self.center else 0.0 * ones,
            mean=tf.zeros([0]),
            variance=tf.zeros([0]),
            epsilon=self.epsilon,
            is_training=True,
        )
        # The operation gives the unbiased variance, Keras keeps the biased one.
        count = tf.cast(tf.size(inputs) // inputs.shape[-1], tf.float32)
        for kept, fresh in ((self.moving_mean, mean), (self.moving_variance, variance * (count - 1) / count)):
            kept.assign(kept * self.momentum + fresh * (1 - self.momentum))
        return tf.expand_dims(outputs, 0) if inputs.shape.rank == 5 else outputs


class FixedNorm(keras.layers.BatchNormalization):
    """Batch normalisation in inference mode as one operation, which TensorFlow fuses with ReLU; its backward pass too.

    Its weights get no gradient.
    """

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        mean, variance = map(tf.convert_to_tensor, (self.moving_mean, self.moving_variance))
        scale = tf.convert_to_tensor(self.gamma) if self.scale else tf.ones_like(mean)
        offset = tf.convert_to_tensor(self.beta) if self.center else tf.zeros_like(mean)

        @tf.custom_gradient
        def normalised(x: tf.Tensor) -> tuple[tf.Tensor, Callable[[tf.Tensor], tf.Tensor]]:
            parts = {"scale": scale, "offset": offset, "mean": mean, "variance": variance}
            fixed = {"epsilon": self.epsilon, "is_training": False}
            outputs = tf.raw_ops.FusedBatchNormV3(x=x, **parts, **fixed).y
            factor = scale * tf.math.rsqrt(variance + self.epsilon)
            return outputs, lambda slope: slope * tf.cast(factor, slope.dtype)

        outputs = normalised(tf.squeeze(inputs, 0) if inputs.shape.rank == 5 else inputs)
        return tf.expand_dims(outputs, 0) if inputs.shape.rank == 5 else outputs


class BesideDropout(RandomDropout):
    """Draws for images beside each other the noise that its layer draws for them in the usual shape."""

    def mask(self, inputs: tf.Tensor) -> tf.Tensor:
        return tf.expand_dims(self.drawn(self.one_for_all(tf.shape(inputs)[1:], 2), inputs.dtype), 0)
