"""What an attack sees: the logits of any image classifier."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kerasrobust.errors import InputError
from kerasrobust.networks.architectures import is_graph
from kerasrobust.networks.logits import image_shape_of, logits_of
from kerasrobust.networks.noise import keyed_noise
from kerasrobust.networks.probe import (
    PROBES,
    Forward,
    Probed,
    Shape,
    apart,
    is_compiled,
    is_traceable,
    on_arrays,
    one_output,
    probe,
    probe_images,
    trial,
)
from kerasrobust.ops.tracing import Traced

_ATTRIBUTE = "_kerasrobust_classifier"
# log(1e-30) is -69: below every logit difference that float32 softmax resolves, and far from float32's underflow.
_SMALLEST_PROBABILITY = 1e-30

MANY = 8
"""Batches above which a graph, traced for them, takes less time than calling the model operation by operation.
Measured on a CPU: a graph costs 0.15 s for a ConvNet and 0.6 s for a ResNet, and saves 0.02 to 0.1 s per 256 images."""

COMPARED = 8
"""Images on which a kept graph is compared with the model before it predicts."""

ROUNDING = 1e-4
"""How far their logits may be apart (`probe.apart`): ten times what float32 rounds."""


class Classifier:
    """An image classifier as attacks see it: float32 images in [0, 1] to float32 logits, in inference mode.

    `as_classifier` makes one of a model.

    Attributes:
        model: what it was made of.
        name: what reports call the model.
        image_shape: height, width and channels; an entry is None if the model takes any.
        any_batch: whether one graph of it serves batches of any size.
        probed: what passes over random images showed, of which it has `classes`, `randomized`, `seedable`, `arrays`
            (NumPy code, without gradients) and `warnings` itself.
        slack: margin error: how far its margins may be from those of the model that gives the verdict.
        shapes: the image shapes that it is known to take.
    """

    def __init__(
        self, model: Any, forward: Forward, probed: Probed, *, name: str, image_shape: Shape, any_batch: bool = False
    ) -> None:
        self.model = model
        self.name = name
        self.image_shape = image_shape
        self.any_batch = any_batch
        self.probed = probed
        self.classes = probed.classes
        self.randomized = probed.randomized
        self.seedable = probed.seedable
        self.arrays = probed.arrays
        self.warnings = list(probed.warnings)
        self.slack = 0.0
        self.shapes = {probed.shape}
        self._batches = 0
        self._in_graphs_alone = False
        self._graphs: dict[Any, Traced] = {}
        self._compared: set[Any] | None = None
        self._forward = _of_arrays(model, probed.classes) if probed.arrays else forward

    @property
    def repeats(self) -> bool:
        """Whether its passes can be repeated: it has no noise, or noise that follows a key, entry by entry."""
        return self.seedable or not self.randomized

    @tf.autograph.experimental.do_not_convert
    def __call__(self, x: tf.Tensor, key: tf.Tensor | None = None) -> tf.Tensor:
        """Returns the logits, inside or outside a `tf.function` and under a gradient tape.

        Args:
            x: float32 (N, H, W, C) in [0, 1].
            key: int32 (2,), a stateless seed that the model's noise follows; None for fresh noise.

        Returns:
            float32 (N, classes).

        Example:
            >>> logits = as_classifier(model)(x, key=tf.constant([0, 1]))
        """
        with contextlib.nullcontext() if key is None else keyed_noise(key):
            outputs = one_output(self._forward(x), self.name)
        if self.probed.probabilities:
            outputs = tf.math.log(tf.maximum(outputs, _SMALLEST_PROBABILITY))
        return outputs

    def run(self, x: np.ndarray | tf.Tensor, key: tf.Tensor | None = None) -> np.ndarray:
        """Returns the logits as an array, float32 (N, classes), by the model as it is now; arguments as of a call."""
        return self.runner()(x, key)

    def runner(self, batches: int = 1) -> Callable[..., np.ndarray]:
        """Returns `run` for a number of batches of one shape, to be used at once and then dropped.

        It calls the model itself, or a graph once many batches were asked for or if the model's code works in graphs
        alone. No answer comes from a graph of an earlier model: one that was kept is first compared with the model on a
        few of the images, and traced anew if they differ.
        """
        self._batches += batches
        # What can't be kept has to pay within these batches.
        traced = (self._batches if self._can_be_kept else batches) > MANY and not self.arrays
        graph: Traced | None = None

        def run(x: np.ndarray | tf.Tensor, key: tf.Tensor | None = None) -> np.ndarray:
            nonlocal traced, graph
            arguments = [tf.convert_to_tensor(x, tf.float32), *([] if key is None else [tf.cast(key, tf.int32)])]
            if not traced:
                try:
                    return self._checked(self(*arguments).numpy())
                except InputError:
                    raise
                except Exception:  # Code that works in graphs alone says so in any way; other errors come again.
                    if self.arrays:
                        raise
                    traced = self._in_graphs_alone = True
            if graph is None:
                graph = self._current(arguments)
            return self._checked(graph(*arguments).numpy())

        return run

    @contextlib.contextmanager
    def unchanged(self) -> Iterator[None]:
        """Has kept graphs compared with the model once instead of before each judgement, while one call attacks it."""
        before = self._compared
        self._compared = set() if before is None else before
        try:
            yield
        finally:
            self._compared = before

    def _current(self, arguments: list[tf.Tensor]) -> Traced:
        """Returns the graph that was kept for images of this shape if the model still says the same, or a new one."""
        signature = tuple(arguments[0].shape[1:]), len(arguments)
        kept = self._graphs.get(signature)
        if self._compared is not None:
            if kept is not None and signature in self._compared:
                return kept
            self._compared.add(signature)
        if kept is not None:
            few = [arguments[0][:COMPARED], *arguments[1:]]
            if apart(self(*few).numpy(), kept(*few).numpy()) <= ROUNDING:
                return kept
        graph = self.graph()
        if self._can_be_kept:
            self._graphs[signature] = graph
        return graph

    @property
    def _can_be_kept(self) -> bool:
        """Whether a graph can be compared: passes repeat, a few images are taken, and the code works without graphs."""
        return self.repeats and self.any_batch and not self._in_graphs_alone

    def graph(self) -> Traced:
        """Returns a graph of its logits, for images of one shape, in batches of one size or, if it can be, of any."""
        return Traced(self, _of_any_size if self.any_batch else None)

    def _checked(self, logits: np.ndarray) -> np.ndarray:
        """Returns logits; raises InputError if they aren't of the kind that the probe found."""
        kind = "probabilities" if self.probed.probabilities else "logits"
        # Rounding apart, they sum to 1.
        others = self.probed.probabilities and (abs(np.exp(logits).sum(axis=1) - 1) > 0.1).any()
        if others or logits.shape[1] != self.classes:
            raise InputError(
                f"Expected {kind} of {self.classes} classes, as {self.name!r} gave before. "
                f"Received: {'other numbers' if others else logits.shape}. "
                "Call kerasrobust.as_classifier(model) after changing it."
            )
        return logits


def _of_any_size(arguments: tuple[tf.Tensor, ...]) -> tuple[Any, ...]:
    images, *key = arguments
    return tf.TensorSpec((None, *images.shape[1:]), images.dtype), *key


def _of_arrays(function: Callable[[np.ndarray], Any], classes: int) -> Forward:
    """Returns a NumPy function as one operation on tensors."""
    run = on_arrays(function)
    return lambda x: tf.ensure_shape(tf.numpy_function(run, [x], tf.float32), (x.shape[0], classes))


def as_classifier(
    model: Any, *, image_shape: Sequence[int | None] | None = None, classes: int | None = None
) -> Classifier:
    """Returns what attacks see of a model, probed anew. A `Classifier` is returned as it is.

    **When graphs are used again**, as with `compile` of Keras: attacks and `evaluate`, given a Keras model, a
    `tf.function` or what `load_model` returns, keep its classifier and their graphs, as long as the model lives.
    Weights may change at any time. After changing layers, their settings (also by `adapt`) or values that the model's
    Python code reads, call `as_classifier(model)`: the new classifier replaces the kept one. Verdicts never depend on
    it, as the model itself predicts again. Any other callable is probed and traced in each call; hand over its
    `Classifier` to avoid that.

    Args:
        model: a Keras model (functional, Sequential or subclassed; an `AdversarialModel` stands for its network), what
            `load_model` returns, a `Classifier`, or a callable that maps float32 (N, H, W, C) in [0, 1] to logits
            (N, K): made of TensorFlow operations, or any Python on NumPy arrays, which has no gradients. It is tried on
            random images, and the attacks call it with batches of one size.
        image_shape: height, width and channels of the images to come, for a model that doesn't state them.
        classes: the number of classes, if the caller knows it; checked.

    Returns:
        The classifier. A model that ends in softmax is attacked through its logits.

    Raises:
        InputError: for a model that can't be attacked: several inputs or outputs, inputs that aren't images or are
            integers, sigmoid or single outputs, NaN, or another shape or number of classes than stated.

    Example:
        >>> as_classifier(build_model("convnet")).classes
        10
        >>> as_classifier(lambda x: forest.predict_proba(x.reshape(len(x), -1)), image_shape=(8, 8, 1)).classes
        10
    """
    _check_stated(image_shape)
    model = _network_of(model)
    if isinstance(model, Classifier):
        return _fitting(model, image_shape, classes)
    classifier = _make(model, image_shape)
    if isinstance(model, keras.Model) or is_compiled(model):
        # A bound method or an object with slots has nowhere to keep it, so it is made anew each time.
        with contextlib.suppress(AttributeError, TypeError):
            # On the model, so that both are freed together; past Keras' __setattr__, which would track it.
            object.__setattr__(model, _ATTRIBUTE, classifier)
    return _fitting(classifier, image_shape, classes)


def classifier_of(
    model: Any, *, image_shape: Sequence[int | None] | None = None, classes: int | None = None
) -> Classifier:
    """Returns the classifier that is kept for a model, or makes one; see `as_classifier`.

    Example:
        >>> classifier_of(model) is classifier_of(model)
        True
    """
    _check_stated(image_shape)
    model = _network_of(model)
    kept = getattr(model, _ATTRIBUTE, None)
    # Of another model if functools.wraps has copied it.
    if kept is None or kept.model is not model:
        return as_classifier(model, image_shape=image_shape, classes=classes)
    return _fitting(kept, image_shape, classes)


def has_gradient(classifier: Classifier, images: np.ndarray | None = None) -> bool:
    """Returns whether gradients reach the images: False if they are missing, NaN or zero everywhere.

    Args:
        classifier: the model.
        images: float32 (N, H, W, C), of which a few are used; noise by default, on which a model that was trained on
            photographs may be flat.

    Example:
        >>> has_gradient(as_classifier(lambda x: tf.round(x)[:, 0, :, 0], image_shape=(8, 8, 3)))
        False
    """
    if classifier.arrays:
        return False
    if images is None:
        images = probe_images(classifier.probed.shape)
    some = tf.constant(np.resize(images, (PROBES, *images.shape[1:])))
    # The answer for a nearly dead network can depend on the noise: let it at least be the same each time.
    key = tf.constant([0, 1]) if classifier.seedable else None

    def gradient() -> tf.Tensor | None:
        with tf.GradientTape() as tape:
            tape.watch(some)
            # Unequal weights, as the sum over softmax-like outputs is constant.
            loss = tf.reduce_sum(classifier(some, key) * tf.range(1.0, classifier.classes + 1.0))
        return tape.gradient(loss, some)

    try:
        value = gradient() if is_traceable(classifier.model) else tf.function(gradient, autograph=False)()
    except LookupError:  # An operation has no gradient registered.
        return False
    except (tf.errors.InvalidArgumentError, tf.errors.UnknownError, tf.errors.UnimplementedError):
        return False  # The pass itself worked: it is the gradient of Python code inside the graph that doesn't.
    # Attacks take non-finite entries as 0.
    return value is not None and bool((np.isfinite(value) & (value.numpy() != 0)).any())


def check_images(classifier: Classifier, x: Any, y: Any) -> tuple[np.ndarray, np.ndarray]:
    """Returns images and labels as float32 and int64 arrays, checked against the model.

    Args:
        classifier: the model that they are for.
        x: floating (N, H, W, C) in [0, 1].
        y: integer (N,), from 0 to classes - 1.

    Returns:
        float32 (N, H, W, C) and int64 (N,).

    Raises:
        InputError: for another rank, dtype, length or shape, values outside [0, 1], NaN, wrong labels or no images.
    """
    x, y = np.asarray(x), np.asarray(y)
    if x.ndim != 4 or len(x) == 0:
        raise InputError(
            f"Expected images of shape (N, height, width, channels), at least one. Received: shape {x.shape}. "
            "Add a missing axis as in x[None]; ask for a larger split where there are none."
        )
    if not np.issubdtype(x.dtype, np.floating):
        raise InputError(
            f"Expected floating images in [0, 1]. Received: dtype {x.dtype}. Divide 8-bit images by 255 as float32."
        )
    x = x.astype(np.float32, copy=False)
    low, high = float(x.min()), float(x.max())
    if not (low >= 0 and high <= 1):  # Written this way so that NaN fails as well.
        raise InputError(
            f"Expected images in [0, 1] without NaN. Received: values from {low:.4g} to {high:.4g}. "
            "Scale them, and put the model's own normalisation into the model."
        )
    if y.shape != (len(x),) or not np.issubdtype(y.dtype, np.integer):
        raise InputError(
            f"Expected {len(x)} integer labels of shape ({len(x)},). Received: {y.dtype} of shape {y.shape}. "
            "Give one class index per image (argmax of one-hot labels)."
        )
    if y.min() < 0 or y.max() >= classifier.classes:
        raise InputError(
            f"Expected labels from 0 to {classifier.classes - 1}. Received: {y.min()} to {y.max()}. "
            "Choose the data that the model was trained on."
        )
    _check_shape(classifier, x.shape[1:])
    return x, y.astype(np.int64, copy=False)


def _network_of(model: Any) -> Any:
    # By module: another person's model may hold a `network` that is only a part of it.
    while hasattr(model, "network") and any(
        t.__module__ == "kerasrobust.training.adversarial" for t in type(model).__mro__
    ):
        model = model.network
    return model


def _check_stated(image_shape: Sequence[int | None] | None) -> None:
    if image_shape is not None and len(image_shape) != 3:
        raise InputError(f"Expected an image shape (height, width, channels). Received: {tuple(image_shape)}.")


def _fitting(classifier: Classifier, image_shape: Sequence[int | None] | None, classes: int | None) -> Classifier:
    """Returns a classifier that fits what its caller knows of the images; raises InputError for another one."""
    if image_shape is not None:
        _check_shape(classifier, tuple(image_shape))
    if classes is not None and classes != classifier.classes:
        raise InputError(
            f"Expected a model of {classes} classes. Received: {classifier.name!r} with {classifier.classes}. "
            "Choose the data that the model was trained on."
        )
    return classifier


def _check_shape(classifier: Classifier, shape: Shape) -> None:
    """Raises InputError if the model doesn't take images of this shape; tries it once if its structure doesn't show."""
    wanted = classifier.image_shape
    if any(None not in (w, s) and w != s for w, s in zip(wanted, shape, strict=True)):
        expected = "x".join("any" if side is None else str(side) for side in wanted)
        raise InputError(
            f"Expected images of shape {expected} for {classifier.name!r}. "
            f"Received: {'x'.join(map(str, shape))}. Resize them, or choose another model."
        )
    whole = tuple(side for side in shape if side is not None)
    if len(whole) == 3 and whole not in classifier.shapes:
        trial(classifier.run, whole, classifier.name)
        classifier.shapes.add(whole)


def _make(model: Any, image_shape: Sequence[int | None] | None) -> Classifier:
    if not callable(model):
        raise InputError(
            f"Expected a Keras model or a callable that gives logits. Received: {type(model).__name__}. "
            "Load a file with kerasrobust.load_model first."
        )
    forward: Forward
    if isinstance(model, keras.Model):
        shape = image_shape_of(model, image_shape)
        name, forward = model.name, logits_of(model)
    else:
        name = str(getattr(model, "name", None) or getattr(model, "__name__", None) or type(model).__name__)
        shape, forward = getattr(model, "image_shape", None) or (None, None, None), model
    known = tuple(own or stated for own, stated in zip(shape, image_shape or (None,) * 3, strict=True))
    any_batch = is_graph(model) and model.inputs[0].shape[0] is None
    return Classifier(
        model, forward, probe(model, forward, known, name), name=name, image_shape=shape, any_batch=any_batch
    )
