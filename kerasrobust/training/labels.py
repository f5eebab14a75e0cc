"""Which images, labels and outputs training takes, as plain Keras does, and what an attack makes of them."""

from __future__ import annotations

import contextlib
import re
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kerasrobust.errors import InputError
from kerasrobust.fields import scaling
from kerasrobust.networks.adapters.adapter import range_words
from kerasrobust.networks.adapters.first_layers import range_shown
from kerasrobust.networks.architectures import is_graph
from kerasrobust.networks.making import conventions_kept
from kerasrobust.ops import losses

ROUNDING = 1e-3
"""How far from [0, 1] a pixel may be: what resizing and brightening round."""

FIRST = 256
"""Images of an array that are looked at before anything is traced."""

_EXPECTED = "Expected images in [0, 1] without NaN"


@keras.saving.register_keras_serializable("kerasrobust")
class CrossEntropy(keras.losses.Loss):
    """The cross-entropy that fits labels and outputs, so that none has to be named.

    It is binary, for each label by itself, where there is one output or `binary` says so; categorical for labels with
    an entry for each class; sparse for class indices. Outputs are logits, unless they come from an activation of Keras.

    Args:
        binary: whether each output is a label by itself.
        label_smoothing: share of each label that is spread over all classes (or between 0 and 1), in [0, 1).

    Example:
        >>> float(CrossEntropy()(tf.constant([1]), tf.constant([[0.0, 0.0]])))
        0.6931472
    """

    def __init__(
        self, binary: bool = False, label_smoothing: float = 0.0, name: str = "cross_entropy", **kwargs: Any
    ) -> None:
        super().__init__(name=name, **kwargs)
        if not 0 <= label_smoothing < 1:
            raise InputError(f"Expected label smoothing in [0, 1). Received: {label_smoothing}. Try 0.1.")
        self.binary = binary
        self.label_smoothing = label_smoothing

    def call(self, y_true: tf.Tensor, y_pred: tf.Tensor) -> tf.Tensor:
        logits = not hasattr(y_pred, "_keras_logits")
        if self.binary or y_pred.shape[-1] == 1:
            if y_pred.shape[-1] > 1 and not is_one_hot(y_true):  # Class indices, one sigmoid for each class.
                y_true = tf.one_hot(tf.cast(tf.reshape(y_true, [-1]), tf.int32), y_pred.shape[-1])
            y_true = tf.reshape(y_true, tf.shape(y_pred))
            smoothing = self.label_smoothing
            return keras.losses.binary_crossentropy(y_true, y_pred, from_logits=logits, label_smoothing=smoothing)
        if self.label_smoothing and not is_one_hot(y_true):
            y_true = tf.one_hot(classes_of(y_true), y_pred.shape[-1])
        if is_one_hot(y_true):
            return keras.losses.categorical_crossentropy(
                y_true, y_pred, from_logits=logits, label_smoothing=self.label_smoothing
            )
        return keras.losses.sparse_categorical_crossentropy(y_true, y_pred, from_logits=logits)

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"binary": self.binary, "label_smoothing": self.label_smoothing}


@dataclass(frozen=True)
class Reading:
    """How outputs and labels are read, given the loss that a network is trained with.

    Attributes:
        binary: whether each output is a label by itself; so it is where there is only one.
        probabilities: whether the outputs are, and not logits.
    """

    binary: bool = False
    probabilities: bool = False

    def logits(self, outputs: tf.Tensor) -> tf.Tensor:
        """Returns logits, float32 (N, K), also of outputs that are probabilities."""
        if hasattr(outputs, "_keras_logits"):  # As Keras' own losses do, to lose nothing that rounds to 0 or 1.
            return tf.cast(outputs._keras_logits, tf.float32)
        if not self.probabilities:
            return outputs
        return losses.from_probabilities(outputs, sigmoid=self.binary or outputs.shape[-1] == 1)

    def loss(self, logits: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
        """Returns the cross-entropy of each example, float32 (N,): with labels of their own, the sum over them."""
        if self._is_binary(logits, y):
            own = tf.nn.sigmoid_cross_entropy_with_logits(labels=_as(logits, y), logits=logits)
            return tf.reduce_sum(own, axis=1)
        return losses.cross_entropy(logits, classes_of(y))

    def margin(self, logits: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
        """Returns the margin of each example, float32 (N,): below 0 where a class, or any label, is wrong."""
        if self._is_binary(logits, y):
            return tf.reduce_min((2.0 * _as(logits, y) - 1.0) * logits, axis=1)
        return losses.margin(logits, classes_of(y))

    def right(self, logits: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
        """Returns 1.0 where the largest logit is the label's, else 0.0: (N,), or of each label (N, L)."""
        if self._is_binary(logits, y):
            return tf.cast(tf.equal(logits > 0, _as(logits, y) > 0.5), tf.float32)
        # Not `==`: its result has no known rank where the two lengths aren't known to be equal.
        return tf.cast(tf.equal(tf.argmax(logits, axis=1), classes_of(y)), tf.float32)

    def _is_binary(self, outputs: tf.Tensor, y: tf.Tensor) -> bool:
        return outputs.shape[-1] == 1 or (self.binary and is_one_hot(y))


def reading_of(loss: Any) -> Reading:
    """Returns how outputs and labels are read with a loss of Keras: its name, its function or an object."""
    name = name_of(loss)
    known = isinstance(loss, str) or getattr(loss, "__module__", "").startswith("keras.")
    return Reading(
        binary=getattr(loss, "binary", "binary" in name.lower()),
        probabilities=known and "crossentropy" in name.lower().replace("_", "") and not _from_logits(loss),
    )


def name_of(loss: Any) -> str:
    """Returns the name of a loss of Keras: of its function, or of its class."""
    return loss if isinstance(loss, str) else getattr(loss, "__name__", type(loss).__name__)


def _from_logits(loss: Any) -> bool:
    return bool(getattr(loss, "from_logits", False))


def is_one_hot(y: tf.Tensor) -> bool:
    """Returns whether labels have an entry for each class."""
    return y.shape.rank == 2 and y.shape[-1] != 1


def classes_of(y: tf.Tensor) -> tf.Tensor:
    """Returns class indices, int64 (N,), of labels of any dtype: (N,), (N, 1), or one-hot (N, K)."""
    return tf.argmax(y, axis=1) if is_one_hot(y) else tf.cast(tf.reshape(y, [-1]), tf.int64)


def _as(logits: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
    return tf.reshape(tf.cast(y, tf.float32), tf.shape(logits))


def unpacked(data: Any) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor | None]:
    """Returns a batch's images in [0, 1], labels, (N,) where they came as (N, 1), and sample weights."""
    x, y, weights = keras.utils.unpack_x_y_sample_weight(data)
    labels = tf.nest.flatten(y)
    if len(labels) != 1:
        raise InputError(
            f"Expected one label per image. Received: labels for {len(labels)} outputs. "
            "Train a model of the images and the logits alone."
        )
    y = tf.convert_to_tensor(labels[0])  # Arrays, where steps run eagerly.
    return checked(tf.convert_to_tensor(x)), y if is_one_hot(y) else tf.reshape(y, [-1]), weights


def scaled(x: Any) -> Any:
    """Returns images in [0, 1]: 8-bit ones divided by 255, floating ones as they are."""
    x = x if hasattr(x, "dtype") else tf.convert_to_tensor(x)
    dtype = keras.backend.standardize_dtype(x.dtype)
    if dtype == "uint8":
        return keras.ops.cast(x, "float32") / 255
    if not keras.backend.is_float_dtype(dtype):
        raise InputError(
            f"Expected floating images in [0, 1], or uint8 ones. Received: {dtype}. Divide them by their largest value."
        )
    return x


def checked(x: tf.Tensor) -> tf.Tensor:
    """Returns float32 images in [0, 1]; a step on others fails, which `in_one_line` tells."""
    images = tf.cast(scaled(x), tf.float32)
    if x.dtype == tf.uint8:
        return images
    low, high = tf.reduce_min(images), tf.reduce_max(images)
    # Written this way so that NaN fails as well.
    tf.debugging.Assert((low >= -ROUNDING) & (high <= 1 + ROUNDING), [_EXPECTED, low, high])
    return images


def check_array(x: Any) -> None:
    """Raises InputError for an array of floating images whose first ones aren't in [0, 1]; others are left alone."""
    if not isinstance(x, np.ndarray) or not np.issubdtype(x.dtype, np.floating) or len(x) == 0:
        return
    low, high = float(x[:FIRST].min()), float(x[:FIRST].max())
    if not (low >= -ROUNDING and high <= 1 + ROUNDING):
        raise _outside(low, high)


def range_taken(network: keras.Model) -> str:
    """Returns the range of pixels that a network takes, as far as it was said or its first layers show it.

    Example:
        >>> range_taken(keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Rescaling(1 / 255)]))
        '0,255'
    """
    said = conventions_kept(network).input_range
    return (range_shown(network) or "0,1") if said == "auto" else said


_TRUSTED: weakref.WeakSet[keras.Model] = weakref.WeakSet()
"""Networks that take [0, 1], whatever their first layers show."""


def trust_range(network: keras.Model) -> None:
    """Has a network taken as one of images in [0, 1], as it was when it was saved within an `AdversarialModel`."""
    _TRUSTED.add(network)


def check_range(network: keras.Model) -> None:
    """Raises InputError for a network of another range than [0, 1] or of BGR, in which all of training is done."""
    taken, colors = range_taken(network), conventions_kept(network).colors
    scale, offset = scaling(taken) or ((1.0,), (0.0,))
    bgr = colors == "bgr" or (colors == "auto" and taken == "caffe")
    if network in _TRUSTED or ((scale, offset) == ((1.0,), (0.0,)) and not bgr):
        return
    numbers = [values[0] if len(values) == 1 else list(values) for values in (scale, offset)]
    front = f"Rescaling({numbers[0]}, offset={numbers[1]})" if any(offset) else f"Rescaling({numbers[0]})"
    shape = network.input_shape if is_graph(network) and network.built else None
    image = f"keras.Input({shape[1:] if isinstance(shape, tuple) else 'shape'})"
    wrapped = f"keras.Sequential([{image}, keras.layers.{front}, network])"
    pixels, own = range_words(taken), "input_range=(0, 1)"
    if bgr:
        wrapped = f"keras.Model(x, network(keras.layers.{front}(x[..., ::-1]))) with x = {image}"
        pixels, own = f"{pixels} and BGR", f"{own}, colors='rgb'"
    raise InputError(
        f"Expected a network that takes images in [0, 1]{' and RGB' if bgr else ''}. Received: {network.name!r}, which "
        f"takes pixels in {pixels}. Train {wrapped}, or take its own scaling out. If it takes [0, 1] all the same, say "
        f"so: as_classifier(network, {own})."
    )


def check_classes(y: Any, network: keras.Model) -> None:
    """Raises InputError for an array of class indices that a network has no output for; others are left alone."""
    if not (isinstance(y, np.ndarray) and np.issubdtype(y.dtype, np.integer) and y.size and network.built):
        return
    shape = network.output_shape if is_graph(network) else None
    if y.ndim > 2 or (y.ndim == 2 and y.shape[1] != 1) or not isinstance(shape, tuple) or shape[-1] in (None, 1):
        return
    low, high = int(y.min()), int(y.max())
    if low < 0 or high >= shape[-1]:
        raise InputError(
            f"Expected classes from 0 to {shape[-1] - 1}, as many as {network.name!r} has outputs. "
            f"Received: labels from {low} to {high}. Give the model an output for each class, and count from 0."
        )


@contextlib.contextmanager
def in_one_line() -> Iterator[None]:
    """Raises InputError where `checked` has met images outside [0, 1] inside a graph."""
    try:
        yield
    except tf.errors.InvalidArgumentError as error:
        found = re.search(re.escape(_EXPECTED) + r"\]? \[?([^\s\]]+)\]? \[?([^\s\]]+)", str(error))
        if found is None:
            raise
        raise _outside(*map(float, found.groups())) from None


def _outside(low: float, high: float) -> InputError:
    return InputError(
        f"{_EXPECTED}. Received: values from {low:.4g} to {high:.4g}. "
        "Scale them, and put the model's own normalisation into the model."
    )
