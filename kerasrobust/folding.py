"""A network's twins: the same function with fewer operations, so that its gradients take less time.

In inference mode batch normalisation is a fixed scale and offset per channel. Where it follows a convolution or a dense
layer, both go into that layer's weights, and the normalisation is gone from every pass. ReLU and max pooling give the
same in either order, also their gradients: on the way forth ReLU becomes part of the convolution before it, on the way
back it has a quarter of the work on what is left after pooling. In training mode, where nothing can be folded, one
operation does what Keras' batch normalisation does in a dozen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import keras
import tensorflow as tf

from kerasrobust.models import is_graph

_LINEAR = (keras.layers.Conv2D, keras.layers.DepthwiseConv2D, keras.layers.Dense)

_BLOCK = 2
"""Side of the block of pixels whose gradients a thin convolution gives at once."""


@dataclass(frozen=True)
class Twin:
    """A copy of a network that follows its weights.

    Attributes:
        model: the copy, for inference only or for training.
        copies: (layer, its copy, the normalisation folded into the copy or None).
    """

    model: keras.Model
    copies: list[tuple[Any, Any, Any]]

    def refresh(self) -> None:
        """Gives the copy the weights that the network has now, at once or as part of a graph that is being traced."""
        for layer, copy, norm in self.copies:
            if norm is None:
                for old, new in zip(layer.weights, copy.weights, strict=True):
                    new.assign(old)
                continue
            scale = 1.0 / keras.ops.sqrt(norm.moving_variance + norm.epsilon)
            scale = scale * norm.gamma if norm.scale else scale
            offset = (layer.bias if layer.use_bias else 0.0) - norm.moving_mean
            copy.bias.assign(offset * scale + norm.beta if norm.center else offset * scale)
            deep = isinstance(layer, keras.layers.DepthwiseConv2D)
            copy.kernel.assign(layer.kernel * (keras.ops.reshape(scale, layer.kernel.shape[2:]) if deep else scale))

    def give_back(self) -> None:
        """Gives the network what the copy's layers have assigned to themselves in training, as moving statistics."""
        for layer, copy, _ in self.copies:
            # Not the statistics alone: spectral normalisation assigns its kernel.
            for old, new in zip(layer.weights, copy.weights, strict=True):
                old.assign(new)

    def of(self, variables: list[Any]) -> list[Any]:
        """Returns the copies of some of the network's variables."""
        pairs = [pair for layer, copy, _ in self.copies for pair in zip(layer.weights, copy.weights, strict=True)]
        copies = {id(old): new for old, new in pairs}
        return [copies[id(variable)] for variable in variables]


class _Folded(keras.layers.Layer):
    """Stands where a layer was; takes the arguments that one takes."""

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        return inputs


class _PooledReLU(keras.layers.MaxPooling2D):
    """Max pooling, then ReLU: what training differentiates, behind a normalisation that takes no ReLU in."""

    def call(self, inputs: Any) -> Any:
        return keras.ops.relu(super().call(inputs))


class _ReLUPooling(keras.layers.MaxPooling2D):
    """ReLU, then max pooling: TensorFlow makes the ReLU part of a convolution before it. Back they are turned round."""

    def call(self, inputs: Any) -> Any:
        window, strides = [1, *self.pool_size, 1], [1, *self.strides, 1]
        padding = self.padding.upper()

        @tf.custom_gradient
        def pooled(values: tf.Tensor) -> tuple[tf.Tensor, Callable[[tf.Tensor], tf.Tensor]]:
            positive = tf.nn.relu(values)
            outputs = tf.nn.max_pool2d(positive, window, strides, padding)

            def gradient(slope: tf.Tensor) -> tf.Tensor:
                # Where the greatest entry of a window isn't above 0, none is.
                slope = tf.raw_ops.ReluGrad(gradients=slope, features=outputs)
                return tf.raw_ops.MaxPoolGrad(
                    orig_input=positive, orig_output=outputs, grad=slope, ksize=window, strides=strides, padding=padding
                )

            return outputs, gradient

        return pooled(inputs)


class _ThinConv2D(keras.layers.Conv2D):
    """A convolution of images of a few channels whose gradient fills the processor's lanes.

    Back from 32 filters to 3 channels, a convolution uses 3 of 16 lanes. Here it gives a block of 2 x 2 pixels at once,
    from a kernel that holds the turned one 4 times, each shifted to its pixel. Its kernel gets no gradient.
    """

    def convolution_op(self, inputs: Any, kernel: Any) -> Any:
        kernel = tf.convert_to_tensor(kernel)
        places = range(_BLOCK)

        @tf.custom_gradient
        def convolved(values: tf.Tensor) -> tuple[tf.Tensor, Callable[[tf.Tensor], tf.Tensor]]:
            def gradient(slope: tf.Tensor) -> tf.Tensor:
                turned = tf.transpose(kernel[::-1, ::-1], (0, 1, 3, 2))
                shifts = [
                    [[row, _BLOCK - 1 - row], [column, _BLOCK - 1 - column]] for row in places for column in places
                ]
                wide = tf.concat([tf.pad(turned, [*shift, [0, 0], [0, 0]]) for shift in shifts], axis=3)
                blocks = tf.nn.conv2d(slope, wide, _BLOCK, "SAME")
                _, height, width, channels = values.shape
                shape = [-1, height // _BLOCK, width // _BLOCK, _BLOCK, _BLOCK * channels]
                rows = tf.transpose(tf.reshape(blocks, shape), (0, 1, 3, 2, 4))
                return tf.reshape(rows, tf.shape(values))

            return tf.nn.conv2d(values, kernel, 1, "SAME"), gradient

        return convolved(inputs)


class _FusedNorm(keras.layers.BatchNormalization):
    """Batch normalisation whose training mode is one operation forth and one back."""

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        if not training or mask is not None or not self.trainable:
            return super().call(inputs, training=training, mask=mask)
        ones = tf.ones(inputs.shape[-1:])
        outputs, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
            x=inputs,
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
        return outputs


def make_twin(model: keras.Model, policy: Callable[[Any], str], training: bool = False) -> Twin:
    """Returns the twin of a functional or Sequential model, each layer under the dtype policy given for it.

    Folded is a `BatchNormalization` over the channels that alone follows a `Conv2D`, `DepthwiseConv2D` or `Dense`
    layer without activation; others stay. ReLU moves into or behind a `MaxPooling2D` that alone follows it. The twin's
    values and gradients differ from the model's by float32 rounding.

    Args:
        model: a built Keras model whose weights are float32; it is left as it is.
        policy: the name of the dtype policy of a layer's copy.
        training: whether it is to be trained on, so that nothing is folded.

    Example:
        >>> twin = make_twin(model, lambda layer: "float32")
        >>> float(tf.reduce_max(abs(twin.model(x) - model(x))))
        4.7e-06
    """
    norms: dict[int, Any] = {}
    gone: set[int] = set()
    pools: set[int] = set()
    fused: set[int] = set()
    for before, layer in _neighbours(model):
        if type(layer) is keras.layers.BatchNormalization and training:
            fused |= {id(layer)} if len(layer.input.shape) == 4 and layer.axis in (-1, 3) else set()
        elif type(layer) is keras.layers.BatchNormalization and type(before) in _LINEAR and _foldable(before, layer):
            norms[id(before)] = layer
            gone.add(id(layer))
        elif type(layer) is keras.layers.MaxPooling2D and _is_relu(before):
            gone.add(id(before))
            pools.add(id(layer))
    copies: list[tuple[Any, Any, Any]] = []

    def copy(layer: Any) -> Any:
        if not isinstance(layer, keras.Layer) or isinstance(layer, keras.layers.InputLayer):
            return type(layer).from_config(layer.get_config())
        if id(layer) in gone:
            return _Folded(name=layer.name, dtype=policy(layer))
        norm = norms.get(id(layer))
        config = layer.get_config() | {"dtype": policy(layer)}
        if id(layer) in pools:
            return (_PooledReLU if training else _ReLUPooling).from_config(config)
        kind = _FusedNorm if id(layer) in fused else _ThinConv2D if not training and _is_thin(layer) else type(layer)
        made = kind.from_config(config if norm is None else config | {"use_bias": True})
        copies.append((layer, made, norm))
        return made

    result = keras.models.clone_model(model, clone_function=copy, recursive=True)
    if not result.built:
        result.build(model.input_shape)
    twin = Twin(result, copies)
    twin.refresh()
    settle(result)
    return twin


def settle(copy: keras.Model) -> None:
    """Makes layers of a copied model follow the weights just given to them: `Normalization` does so when told."""
    for layer in copy._flatten_layers():
        if isinstance(layer, keras.layers.Normalization):
            layer.finalize_state()


def _neighbours(model: keras.Model) -> Iterator[tuple[Any, Any]]:
    """Yields pairs of layers of which the second is called once, and alone sees what the first one gives."""
    outputs = {id(tensor) for tensor in model.outputs}
    for layer in model.layers:
        if is_graph(layer):
            yield from _neighbours(layer)
        node = layer._inbound_nodes[0]
        if len(layer._inbound_nodes) != 1 or len(node.input_tensors) != 1 or id(node.input_tensors[0]) in outputs:
            continue
        before, _, _ = node.input_tensors[0]._keras_history
        # Arguments such as training=True change what a layer does.
        plain = all(value is None for value in node.arguments.kwargs.values())
        if plain and len(before._inbound_nodes) == 1 and len(before._outbound_nodes) == 1:
            yield before, layer


def _foldable(linear: Any, norm: Any) -> bool:
    """Tells whether a normalisation can go into the weights of the layer before it."""
    return (
        norm.axis in (-1, len(linear.output.shape) - 1)
        and linear.activation is keras.activations.linear
        and getattr(linear, "data_format", "channels_last") == "channels_last"
        and getattr(linear, "quantization_mode", None) is None
        and not getattr(linear, "lora_enabled", False)
    )


def _is_thin(layer: Any) -> bool:
    """Tells whether `_ThinConv2D` can stand for a layer, and has lanes to fill."""
    return (
        type(layer) is keras.layers.Conv2D
        and not tf.config.list_physical_devices("GPU")
        and len(layer._inbound_nodes) == 1
        and layer.kernel.shape[2] * _BLOCK**2 <= 16
        and all(size % 2 for size in layer.kernel_size)
        and all(side is not None and side % _BLOCK == 0 for side in layer.input.shape[1:3])
        and (layer.strides, layer.dilation_rate, layer.groups) == ((1, 1), (1, 1), 1)
        and (layer.padding, layer.data_format) == ("same", "channels_last")
    )


def _is_relu(layer: Any) -> bool:
    if type(layer) is keras.layers.ReLU:
        return layer.max_value is None and not layer.negative_slope and not layer.threshold
    return type(layer) is keras.layers.Activation and layer.activation is keras.activations.relu
