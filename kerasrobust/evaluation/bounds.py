"""Bounds on a small network's logits in an Linf ball, by interval bound propagation: what no attack can get past."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kerasrobust.attacks.task import Task
from kerasrobust.attacks.verdict import check_sizes, predict
from kerasrobust.errors import Cancelled, InputError
from kerasrobust.evaluation.intervals import Interval, affine, check_plain, gamma, linear, refused, through
from kerasrobust.events import Emit
from kerasrobust.networks.adapters.adapter import LUMA, Adapter
from kerasrobust.networks.architectures import is_graph
from kerasrobust.networks.classifier import Classifier
from kerasrobust.networks.images import channels_of, read_images
from kerasrobust.networks.making import classifier_of
from kerasrobust.pace import Pace
from kerasrobust.settings import check_epsilon, radius
from kerasrobust.show.figures import format_accuracy, format_epsilon, format_interval
from kerasrobust.stats import wilson

INPUT_ROUNDING = 2.0**-23
"""By how much the ball is larger than said, so that an image that was rounded to float32 lies in it."""

ENDINGS = (keras.activations.softmax, keras.activations.sigmoid)
"""What models end in, and attacks see the logits before."""


@dataclass(frozen=True, kw_only=True)
class Bounded:
    """What interval bounds prove of a network on N images, in an Linf ball.

    Attributes:
        epsilon: the ball's radius, in units of an image in [0, 1].
        margin: float64 (N,), how far the true class's logit stays above every other one at least; where it is above 0,
            no image in the ball is given another class.
        lower: float64 (N, K), lower bounds of the logits in the ball.
        upper: float64 (N, K), their upper bounds.
    """

    epsilon: float
    margin: np.ndarray
    lower: np.ndarray
    upper: np.ndarray

    @property
    def certified(self) -> np.ndarray:
        """Bool (N,): the network is right on all of the ball."""
        return self.margin > 0

    @property
    def accuracy(self) -> float:
        """The share of images that are certified: a lower bound of robust accuracy on them, whatever the attack."""
        return float(self.certified.mean())

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval of that share, by which images were drawn."""
        return wilson(float(self.certified.sum()), len(self.margin))

    def beside(self, robust_accuracy: float) -> str:
        """Returns the gap to what an attack leaves of the same images, in one line.

        Example:
            >>> certified_by_bounds(model, x, y, "1/255").beside(evaluation.robust_accuracy)
            'Within 1/255: 61.0 % certified at least, 73.0 % under attack at most; 12.0 % of the images are open.'
        """
        return (
            f"Within {format_epsilon(self.epsilon)}: {format_accuracy(self.accuracy)} certified at least, "
            f"{format_accuracy(robust_accuracy)} under attack at most; "
            f"{format_accuracy(robust_accuracy - self.accuracy)} of the images are open."
        )

    def __repr__(self) -> str:
        """Returns the figures; the arrays would fill screens."""
        return (
            f"Bounded(epsilon {format_epsilon(self.epsilon)}; certified {format_accuracy(self.accuracy)} "
            f"({format_interval(self.interval)} %); examples {len(self.margin)})"
        )


def interval_bounds(
    model: Any,
    x: Any,
    epsilon: float | str,
    *,
    batch_size: int = 64,
    emit: Emit | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Returns bounds on the logits of all images in Linf balls, by interval bound propagation.

    They hold for images that are cut off at 0 and 1, and for the logits that the network computes in float32: they are
    widened by what that rounds at most (`evaluation.intervals`). They are wide for networks that weren't trained for
    them, and the wider the deeper a network is.

    Args:
        model: a functional or Sequential Keras model of the layers in `intervals.RULES`, or the `Classifier` of one.
        x: float32 (N, H, W, C) in [0, 1], as of `evaluate`. The range of pixels that the model takes isn't found out on
            images without labels: say another one by `as_classifier`.
        epsilon: the radius, in units of an image in [0, 1], a number or a text such as "8/255".
        batch_size: images at once.
        emit: takes progress.
        should_stop: asked before each batch.

    Returns:
        Lower and upper bounds, float64 (N, K) each.

    Raises:
        InputError: for a layer that bounds can't be propagated through, which it names; a network that is random, or
            whose images are resized; images that don't fit.
        Cancelled: when `should_stop` says so.

    Example:
        >>> lower, upper = interval_bounds(model, x, "1/255")
        >>> bool((lower <= upper).all())
        True

    Reference: Gowal et al. 2018, section 3.
    """
    images, nobody = read_images(x, np.zeros(len(x), np.int64))
    classifier = classifier_of(model, image_shape=images.shape[1:])
    images = channels_of(classifier, images)
    classifier.check_shape(images.shape[1:])
    found = _bounded(classifier, images, nobody, epsilon, batch_size, emit, should_stop)
    return found.lower, found.upper


def certified_by_bounds(
    model: Any,
    x: Any,
    y: Any,
    epsilon: float | str,
    *,
    batch_size: int = 64,
    emit: Emit | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> Bounded:
    """Returns what interval bounds prove: the images on which no change within an Linf ball brings another class.

    The margins are bounded as the last dense layer computes them from what is before it, which is tighter than by the
    logits' own bounds. Arguments and errors are those of `interval_bounds`, and `y` that of `evaluate`.

    Example:
        >>> bounded = certified_by_bounds(model, x, y, "1/255")
        >>> bounded.accuracy, bounded.beside(evaluate(model, x, y, epsilon="1/255").robust_accuracy)
    """
    task = Task.checked(model, x, y, precision="float32", batch_size=batch_size)
    return _bounded(task.classifier, task.x, task.y, epsilon, batch_size, emit, should_stop)


def _bounded(
    classifier: Classifier,
    x: np.ndarray,
    y: np.ndarray,
    epsilon: float | str,
    batch_size: int,
    emit: Emit | None,
    should_stop: Callable[[], bool] | None,
) -> Bounded:
    """Returns the bounds for images and labels that were checked."""
    size = radius(epsilon, "linf")
    check_epsilon(size, "linf")
    check_sizes(batch_size, 1)
    _check(classifier)
    pace, parts = Pace(emit, "example", len(x)), []
    for first in range(0, len(x), batch_size):
        if should_stop is not None and should_stop():
            raise Cancelled
        rows = slice(first, first + batch_size)
        parts.append(_bounds(classifier, x[rows], y[rows], size))
        pace.add(len(x[rows]))
    lower, upper, margin = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    _check_inside(classifier, x, lower, upper)
    return Bounded(epsilon=size, margin=margin, lower=lower, upper=upper)


def _check(classifier: Classifier) -> None:
    """Raises InputError for what isn't a deterministic graph of Keras layers with logits, on images as they are."""
    network, adapter, name = classifier.network, classifier.adapter, classifier.name
    why = None
    if not isinstance(network, keras.Model) or not is_graph(network):
        why = "one whose layers aren't known"
    elif classifier.randomized:
        why = "a random one"
    elif classifier.labels is not None or classifier.probed.outputs != "logits":
        why = f"one that gives {'several labels' if classifier.labels else classifier.probed.outputs}"
    elif adapter.whole or adapter.side is not None:
        why = "one that takes whole numbers, or resized images"
    if why is not None:
        raise InputError(
            f"Expected a functional or Sequential Keras model that gives logits of images as they are. Received: "
            f"{name!r}, {why}. Use attacks, or smoothing (certify)."
        )


def _check_inside(classifier: Classifier, x: np.ndarray, lower: np.ndarray, upper: np.ndarray) -> None:
    """Raises InputError where the model's own logits aren't in the bounds: it isn't what its layers say."""
    logits = predict(classifier, x)
    if not ((lower <= logits) & (logits <= upper)).all():
        raise InputError(
            f"Expected a model that computes what its layers do. Received: {classifier.name!r}, whose logits lie "
            "outside the bounds of its layers. Look for NaN, or code of its own between them."
        )


def _bounds(
    classifier: Classifier, x: np.ndarray, y: np.ndarray, epsilon: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns bounds on logits, (N, K) each, and on the margins of classes, (N,)."""
    images = tf.constant(x, tf.float64)
    reach = epsilon + INPUT_ROUNDING
    ball = Interval(tf.maximum(images - reach, 0.0), tf.minimum(images + reach, 1.0))
    hidden, kernel, bias = _head(classifier.network, [_taken(classifier.adapter, ball, classifier.name)])
    if kernel.shape[1] == 1:  # One output stands for two classes, with the logits 0 and z.
        kernel, bias = (tf.concat([tf.zeros_like(part), part], axis=-1) for part in (kernel, bias))
    terms = kernel.shape[0]
    logits = linear(hidden, kernel, bias, terms, tf.linalg.matmul)
    margins = np.full(len(y), np.inf)
    for label in np.unique(y):
        rows = np.flatnonzero(y == label)
        some = Interval(tf.gather(hidden.low, rows), tf.gather(hidden.high, rows))
        lead = linear(some, kernel[:, label, None] - kernel, bias[label] - bias, terms, tf.linalg.matmul)
        # Both logits are rounded, each by itself, and not their difference.
        size, offset = tf.abs(kernel), tf.abs(bias)
        rounding = gamma(terms + 1) * (some.size @ (size + size[:, label, None]) + offset + offset[label])
        least = (lead.low - rounding).numpy()
        margins[rows] = np.delete(least, label, axis=1).min(axis=1)
    return logits.low.numpy(), logits.high.numpy(), margins


def _taken(adapter: Adapter, x: Interval, name: str) -> Interval:
    """Returns bounds on what a network takes for images within bounds."""
    given = x.low.shape[-1]
    if (adapter.channels, given) == (3, 1):
        x = x.mapped(lambda value: tf.tile(value, (1, 1, 1, 3)))
    elif (adapter.channels, given) == (3, 4):
        x = x.mapped(lambda value: value[..., :3])
    elif (adapter.channels, given) == (1, 3):
        x = linear(x, tf.constant(LUMA, tf.float64)[:, None], tf.zeros(1, tf.float64), 4, tf.linalg.matmul)
    elif adapter.channels not in (None, given):
        raise InputError(
            f"Expected images of {adapter.channels} channels for {name!r}. Received: {given}. Convert them."
        )
    x = x.mapped(lambda value: value[..., ::-1]) if adapter.bgr else x
    if (adapter.scale, adapter.offset) != ((1.0,), (0.0,)):
        x = affine(x, adapter.scale, adapter.offset, np.abs(adapter.offset))
    x = x.mapped(lambda value: tf.transpose(value, (0, 3, 1, 2))) if adapter.first else x
    if adapter.shape is not None and len(adapter.shape) != 3:
        shape = [size or own for size, own in zip(adapter.shape, x.low.shape[1:], strict=False)]
        x = x.mapped(lambda value: tf.reshape(value, (value.shape[0], *shape)))
    return x


def _head(model: Any, given: list[Interval]) -> tuple[Interval, tf.Tensor, tf.Tensor]:
    """Returns bounds on what is before a model's last dense layer, and that layer's kernel (I, K) and bias (K,).

    Where the last layer is none the kernel is the identity. A softmax or sigmoid at the very end is left out.
    """
    if len(model.outputs) != 1 or len(model.inputs) != len(given):
        raise refused(model, "a model inside of several outputs")
    return _before_last(model.outputs[0], _Known(model, given))


def _before_last(tensor: Any, known: _Known) -> tuple[Interval, tf.Tensor, tf.Tensor]:
    layer, place, _ = tensor._keras_history
    before = [] if known.is_given(tensor) else layer._inbound_nodes[place].input_tensors
    if len(before) == 1:
        if is_graph(layer):
            return _head(layer, [known.of(before[0])])
        activation = getattr(layer, "activation", None)
        ends = activation in ENDINGS or type(layer) is keras.layers.Softmax
        if ends and type(layer) in (keras.layers.Activation, keras.layers.Softmax):
            return _before_last(before[0], known)
        if type(layer) is keras.layers.Dense and (ends or activation is keras.activations.linear):
            check_plain(layer)
            kernel = tf.cast(tf.convert_to_tensor(layer.kernel), tf.float64)
            bias = tf.cast(tf.convert_to_tensor(layer.bias), tf.float64) if layer.use_bias else 0 * kernel[0]
            return known.of(before[0]), kernel, bias
    found = known.of(tensor)
    if found.low.shape.rank != 2:
        raise refused(layer, "whose outputs aren't one row an image")
    count = found.low.shape[1]
    return found, tf.eye(count, dtype=tf.float64), tf.zeros(count, tf.float64)


class _Known:
    """Bounds on the tensors of a model's graph, each computed when it is first asked for.

    Args:
        model: a graph of layers.
        given: bounds on its inputs.
    """

    def __init__(self, model: Any, given: list[Interval]) -> None:
        for tensor in model.inputs:  # Keras casts what it is given to that, and no layer shows it.
            if tensor.dtype not in ("float32", "float64"):
                raise refused(model, f"whose input is {tensor.dtype}")
        self._found = {id(tensor): interval for tensor, interval in zip(model.inputs, given, strict=True)}
        self._inputs = set(self._found)

    def is_given(self, tensor: Any) -> bool:
        return id(tensor) in self._inputs

    def of(self, tensor: Any) -> Interval:
        if id(tensor) not in self._found:
            layer, place, _ = tensor._keras_history
            before = [self.of(one) for one in layer._inbound_nodes[place].input_tensors]
            self._found[id(tensor)] = _inside(layer, before) if is_graph(layer) else through(layer, *before)
        return self._found[id(tensor)]


def _inside(model: Any, given: list[Interval]) -> Interval:
    """Returns bounds on what a model inside another one gives."""
    if len(model.outputs) != 1:
        raise refused(model, "a model inside of several outputs")
    return _Known(model, given).of(model.outputs[0])
