"""A network's twins: the same function with fewer operations, so that its gradients take less time.

In inference mode batch normalisation is a fixed scale and offset per channel. After a convolution or a dense layer,
both go into that layer's weights, and no pass normalises any more. ReLU and max pooling commute, and so do their
gradients: in the forward pass ReLU becomes part of the convolution before it, in the backward pass it works on the
quarter of the entries that pooling leaves. Other activations that never fall move behind the pooling. Normalisation
that can't be folded is one operation instead of the dozen of Keras' own; in training mode all of it is. Between its
first convolution and its last pooling a twin works on images that lie beside each other (`layouts`), if that pays.
"""

from __future__ import annotations

import inspect
import platform
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
from keras import layers as klayers

from kerasrobust.networks.architectures import is_graph
from kerasrobust.networks.cloning import finalize_normalization
from kerasrobust.networks.noise import RandomDropout
from kerasrobust.ops.tracing import has_onednn, on_gpu
from kerasrobust.twins import layouts
from kerasrobust.twins.wiring import calls_of, input_shapes, neighbours, shared_layers

_LINEAR = (klayers.Conv2D, klayers.DepthwiseConv2D, klayers.Dense)

_POOLING = (klayers.MaxPooling2D, klayers.AveragePooling2D)

_ENTRYWISE = (
    *(klayers.ReLU, klayers.LeakyReLU, klayers.ELU, RandomDropout),
    *(klayers.Add, klayers.Subtract, klayers.Multiply, klayers.Average, klayers.Maximum, klayers.Minimum),
)
"""Layers that treat all entries alike, so that the layout doesn't matter."""

WIDEST = 64
"""Pixels in a row of an image; wider images need no side-by-side layout, as their rows are long enough."""


@dataclass(frozen=True)
class _Copy:
    """The network's `layer`, and the twin's layer `made` of it, which may have weights.

    Attributes:
        norm: the normalisation after it whose scale and offset are in its weights, or None.
        factor: the factor of the scaling before it, which is in its kernel.
    """

    layer: Any
    made: Any
    norm: Any = None
    factor: float = 1.0

    def refresh(self) -> None:
        if self.norm is None and self.factor == 1:
            for old, new in zip(self.layer.weights, self.made.weights, strict=True):
                new.assign(old)
            return
        layer, norm = self.layer, self.norm
        bias, scale = (layer.bias if layer.use_bias else 0.0), self.factor
        if norm is not None:
            own = 1.0 / keras.ops.sqrt(norm.moving_variance + norm.epsilon)
            own = own * norm.gamma if norm.scale else own
            bias = (bias - norm.moving_mean) * own + (norm.beta if norm.center else 0.0)
            deep = isinstance(layer, klayers.DepthwiseConv2D)
            scale = scale * (keras.ops.reshape(own, layer.kernel.shape[2:]) if deep else own)
        if self.made.bias is not None:
            self.made.bias.assign(bias)
        self.made.kernel.assign(layer.kernel * scale)


@dataclass(frozen=True)
class Twin:
    """A copy of a network that follows its weights.

    Attributes:
        model: the copy, for inference only or for training.
        copies: its layers with weights.
    """

    model: keras.Model
    copies: list[_Copy]

    def refresh(self) -> None:
        """Copies the network's weights, eagerly or as part of a graph that is being traced."""
        for copy in self.copies:
            copy.refresh()

    def give_back(self) -> None:
        """Copies back what the layers have assigned to themselves in training, such as moving statistics."""
        for copy in self.copies:
            # Not the statistics alone: spectral normalisation assigns its kernel.
            for old, new in zip(copy.layer.weights, copy.made.weights, strict=True):
                old.assign(new)

    def of(self, variables: list[Any]) -> list[Any]:
        """Returns the copies of some of the network's variables."""
        pairs = [pair for copy in self.copies for pair in zip(copy.layer.weights, copy.made.weights, strict=True)]
        copies = {id(old): new for old, new in pairs}
        return [copies[id(variable)] for variable in variables]


def make_twin(model: keras.Model, policy: Callable[[Any], str], training: bool = False) -> Twin:
    """Returns the twin of a functional or Sequential model, each layer under the dtype policy given for it.

    A `Conv2D`, `DepthwiseConv2D` or `Dense` layer without activation takes in a `BatchNormalization` over the channels,
    if only that follows; any of them takes in the factor of a `Rescaling` before it. ReLU, ELU and softplus move into
    or behind a `MaxPooling2D`, if only that follows. Everything else is copied. Values and gradients differ from the
    model's by float32 rounding.

    Args:
        model: a built Keras model whose weights are float32; it is left as it is.
        policy: gives the name of the dtype policy of a layer's copy.
        training: whether the twin itself is to be trained, so that nothing is folded.

    Example:
        >>> twin = make_twin(model, lambda layer: "float32")
        >>> float(tf.reduce_max(abs(twin.model(x) - model(x))))
        4.7e-06
    """
    plan = _plan(model, training)
    copies: list[_Copy] = []

    def copy(layer: Any) -> Any:
        if not isinstance(layer, keras.Layer) or isinstance(layer, klayers.InputLayer):
            return type(layer).from_config(layer.get_config())
        place = plan.places.get(id(layer))
        made: Any
        if id(layer) in plan.gone:
            made = layouts.Folded(name=layer.name, dtype=policy(layer))
        elif id(layer) in plan.pools:
            activation = plan.pools[id(layer)]
            if activation is keras.activations.relu and not training:
                made = layouts.ReLUPooling(layer, policy(layer))
            else:
                made = layouts.PooledActivation(layer, policy(layer), activation)
        elif type(layer) is klayers.Rescaling and id(layer) in plan.factors:
            made = layouts.Offset(layer.offset / layer.scale, name=layer.name, dtype=policy(layer))
        else:
            norm = plan.norms.get(id(layer))
            made = _copy(layer, plan.shapes.get(id(layer)), policy(layer), place, norm is not None, training)
            copies.append(_Copy(layer, made, norm, plan.factors.get(id(layer), 1.0)))
        if place is None:
            return made
        enter = place.enter and not isinstance(made, layouts.ThinConvolution)
        return layouts.Turned(made, enter, place.leave) if enter or place.leave else made

    result = keras.models.clone_model(model, clone_function=copy, recursive=True)
    if not result.built:
        result.build(model.input_shape)
    twin = Twin(result, copies)
    twin.refresh()
    finalize_normalization(result)
    return twin


@dataclass(frozen=True)
class _Plan:
    """What becomes of a network's layers in its twin, by their ids.

    Attributes:
        norms: the normalisation that goes into a layer's weights.
        factors: of a scaling, and of the layer whose kernel it goes into.
        gone: layers of which nothing is left.
        pools: the activation that a pooling takes in.
        places: those for images beside each other.
        shapes: of the inputs of layers that are called once, on one tensor.
    """

    norms: dict[int, Any]
    factors: dict[int, float]
    gone: set[int]
    pools: dict[int, Callable[[Any], Any]]
    places: dict[int, _Place]
    shapes: dict[int, tuple[int | None, ...]]


def _plan(model: keras.Model, training: bool) -> _Plan:
    shared = shared_layers(model)
    places = _places(model, shared) if beside_pays(model) else {}
    plan = _Plan({}, {}, set(), {}, places, dict(input_shapes(model, shared)))
    for before, layer in neighbours(model, shared):
        if type(layer) is klayers.BatchNormalization:
            if not training and type(before) in _LINEAR and _foldable(before, layer, plan.shapes[id(layer)]):
                plan.norms[id(before)] = layer
                plan.gone.add(id(layer))
        elif not training and _is_scaling(before) and type(layer) in _LINEAR and _is_plain(layer):
            plan.factors[id(before)] = plan.factors[id(layer)] = before.scale
        elif type(layer) is klayers.MaxPooling2D and layer.data_format == "channels_last" and _is_rising(before):
            plan.gone.add(id(before))
            plan.pools[id(layer)] = getattr(before, "activation", keras.activations.relu)
    return plan


def _copy(
    layer: Any, shape: tuple[int | None, ...] | None, policy: str, place: _Place | None, biased: bool, training: bool
) -> Any:
    """Returns the copy of a layer that is neither folded nor fused with its neighbour.

    Args:
        layer: the one to copy.
        shape: that of its input; None if it has several, or is called more than once.
        policy: the copy's dtype policy.
        place: given if the copy is for images beside each other.
        biased: whether it gets a bias in any case.
        training: whether the copy is to be trained.
    """
    config = layer.get_config() | {"dtype": policy}
    config |= {"use_bias": True} if biased else {}
    if place is not None and "axis" in config:
        config["axis"] = -1
    if not training and (place is None or place.enter) and shape is not None and _is_thin(layer, shape):
        return layouts.ThinConvolution(layer, config["use_bias"], policy, beside=place is not None)
    if place is not None and type(layer) is klayers.Conv2D:
        return layouts.Convolution(layer, config["use_bias"], policy)
    if place is not None and type(layer) in _POOLING:
        return layouts.Pooling(layer, policy)
    kind = type(layer)
    if kind is klayers.BatchNormalization and shape is not None and _is_fusable(layer, shape):
        kind = layouts.FusedNorm if training else layouts.FixedNorm
    elif place is not None and kind is RandomDropout:
        kind = layouts.BesideDropout
    return kind.from_config(config)


@dataclass
class _Place:
    """The layouts around the copy of a layer that works on images beside each other.

    Attributes:
        enter: whether its inputs are in the usual shape.
        leave: whether its outputs are needed in the usual shape.
    """

    enter: bool
    leave: bool = False


def beside_pays(model: keras.Model) -> bool:
    """Returns whether images beside each other save time, as measured for such images on such machines."""
    row = model.input_shape[2] if len(model.input_shape) == 4 else None
    known = platform.machine() in ("x86_64", "AMD64") and has_onednn() and not on_gpu()
    return known and row is not None and row <= WIDEST


def _places(model: keras.Model, shared: set[int]) -> dict[int, _Place]:
    """Returns which layers' copies work on images beside each other, by their ids."""
    found: dict[int, _Place] = {}
    calls, uses = calls_of(model)
    for layer in model.layers:
        if is_graph(layer):
            found |= _places(layer, shared)
        elif len(calls[id(layer)]) == 1 and id(layer) not in shared:
            tensors = calls[id(layer)][0].input_tensors
            inside = all(id(tensor._keras_history.operation) in found for tensor in tensors)
            if _is_convolution(layer, tensors) or (inside and _takes_any_shape(layer)):
                found[id(layer)] = _Place(enter=not inside)
    outputs = {id(tensor._keras_history.operation) for tensor in model.outputs}
    inner = {id(layer): {id(node.operation) for node in uses[id(layer)]} for layer in model.layers}
    settled = False
    while not settled:  # A layer that leaves makes its followers enter, and then all that they follow must leave.
        settled = True
        for key in inner.keys() & found.keys():
            followers = [found[follower] for follower in inner[key] & found.keys()]
            outside = key in outputs or len(followers) < len(inner[key])
            if not found[key].leave and (outside or any(follower.enter for follower in followers)):
                found[key].leave, settled = True, False
                for follower in followers:
                    follower.enter = True
    # One layer alone isn't worth two changes of layout.
    return {key: place for key, place in found.items() if not (place.enter and place.leave)}


def _is_convolution(layer: Any, tensors: list[Any]) -> bool:
    """Returns whether `Convolution` can stand for a layer that is called on some tensors."""
    return (
        type(layer) is klayers.Conv2D
        # Where the kernel is larger than the image, oneDNN 3.7 gives gradients of bfloat16 kernels that hold whatever
        # was in memory.
        and all(
            side is not None and side >= size
            for side, size in zip(tensors[0].shape[1:3], layer.kernel_size, strict=True)
        )
        and layer.data_format == "channels_last"
        and (layer.groups, layer.dilation_rate) == (1, (1, 1))
        and _is_known(layer.activation)
        and _is_plain(layer)
    )


def _takes_any_shape(layer: Any) -> bool:
    """Returns whether the copy of a layer can work on images beside each other."""
    if type(layer) in (klayers.BatchNormalization, klayers.Concatenate):
        return layer.axis in (-1, 3)
    if type(layer) is klayers.Activation:
        return _is_known(layer.activation)
    if type(layer) is klayers.Dropout:
        return layer.noise_shape is None
    return type(layer) in _ENTRYWISE or (type(layer) in _POOLING and layer.data_format == "channels_last")


def _is_known(activation: Any) -> bool:
    """Returns whether an activation is a function of Keras: those work entry by entry, or along the channels."""
    return inspect.isfunction(activation) and activation.__module__.startswith("keras.")


def _is_scaling(layer: Any) -> bool:
    """Returns whether a layer multiplies all by one number, and adds one."""
    numbers = (layer.scale, layer.offset) if type(layer) is klayers.Rescaling else ()
    return len(numbers) == 2 and all(isinstance(number, (int, float)) for number in numbers) and numbers[0] != 0


def _is_plain(linear: Any) -> bool:
    """Returns whether a layer multiplies by its kernel as it is."""
    return getattr(linear, "quantization_mode", None) is None and not getattr(linear, "lora_enabled", False)


def _foldable(linear: Any, norm: Any, shape: tuple[int | None, ...]) -> bool:
    """Returns whether a normalisation of inputs of a shape can go into the weights of the layer before it."""
    return (
        norm.axis in (-1, len(shape) - 1)
        and linear.activation is keras.activations.linear
        and getattr(linear, "data_format", "channels_last") == "channels_last"
        and _is_plain(linear)
    )


def _is_fusable(norm: Any, shape: tuple[int | None, ...]) -> bool:
    """Returns whether `FusedNorm` can stand for a normalisation."""
    # Batch renormalisation came with Keras 3.15.
    return norm.axis in (-1, 3) and len(shape) == 4 and not getattr(norm, "renorm", False)


def _is_thin(layer: Any, shape: tuple[int | None, ...]) -> bool:
    """Returns whether `ThinConvolution` can stand for a layer whose channels leave lanes unused."""
    return (
        type(layer) is klayers.Conv2D
        and not on_gpu()
        and not isinstance(layer.activation, keras.Layer)
        and layer.kernel.shape[2] * layouts.THIN <= 16
        and all(size % 2 for size in layer.kernel_size)
        and shape[2] is not None
        and shape[2] % layouts.THIN == 0
        and (layer.strides, layer.dilation_rate, layer.groups) == ((1, 1), (1, 1), 1)
        and (layer.padding, layer.data_format) == ("same", "channels_last")
        and _is_plain(layer)
    )


def _is_rising(layer: Any) -> bool:
    """Returns whether a layer is ReLU or another activation that never falls: of the largest entry it is largest."""
    if type(layer) is klayers.ReLU:
        return layer.max_value is None and not layer.negative_slope and not layer.threshold
    rising = (keras.activations.relu, keras.activations.elu, keras.activations.softplus)
    return type(layer) is klayers.Activation and layer.activation in rising
