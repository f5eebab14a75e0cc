"""What an attack sees: the logits of any image classifier."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kerasrobust.errors import InputError
from kerasrobust.networks.adapters.adapter import Adapter, Conventions, applied, logits_from, notes_of, range_text
from kerasrobust.networks.adapters.inputs import intake_of, layout_of, network_of
from kerasrobust.networks.architectures import is_graph
from kerasrobust.networks.logits import logits_of, noise_left_out, shows_logits
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
from kerasrobust.networks.untraced import Untraced
from kerasrobust.ops.tracing import Traced

_ATTRIBUTE = "_kerasrobust_classifier"

MANY = 8
"""Batches above which a graph, traced for them, takes less time than calling the model operation by operation.
Measured on a CPU: a graph costs 0.15 s for a ConvNet and 0.6 s for a ResNet, and saves 0.02 to 0.1 s per 256 images."""

CONVERTED = ((3, 1), (1, 3), (3, 4))
"""Channels of a model, and of images that are converted to them."""

COMPARED = 8
"""Images on which a kept graph is compared with the model before it predicts."""

ROUNDING = 1e-4
"""How far their logits may be apart (`probe.apart`): ten times what float32 rounds."""


class Classifier:
    """An image classifier as attacks see it: float32 images in [0, 1] to float32 logits, in inference mode.

    `as_classifier` makes one of a model.

    Attributes:
        model: what it was made of.
        network: the Keras model of one input and one output whose layers are attacked; `model` itself for others.
        adapter: takes images to what the network takes.
        conventions: what was said or found out of the model.
        notes: sentences about what was understood of the model.
        name: what reports call the model.
        image_shape: height, width and channels; an entry is None if the model takes any.
        any_batch: whether one graph of it serves batches of any size.
        probed: what passes over random images showed, of which it has `classes`, `randomized`, `seedable`, `arrays`
            (NumPy code, without gradients) and `warnings` itself.
        slack: margin error: how far its margins may be from those of the model that gives the verdict.
        shapes: the image shapes that it is known to take.
    """

    def __init__(
        self,
        model: Any,
        inner: Forward,
        probed: Probed,
        *,
        name: str,
        image_shape: Shape,
        any_batch: bool = False,
        network: Any = None,
        adapter: Adapter | None = None,
        conventions: Conventions | None = None,
    ) -> None:
        self.model = model
        self.network = model if network is None else network
        self.adapter = adapter or Adapter()
        self.conventions = conventions or Conventions()
        self.notes: list[str] = []
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
        if probed.arrays:
            self._forward = _of_arrays(inner, self.adapter, probed.width)
        else:
            self._forward = self.adapter.around(Untraced(inner, name, probed.width) if probed.untraced else inner)

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
            return logits_from(one_output(self._forward(x), self.name), self.probed.outputs)

    def run(self, x: np.ndarray | tf.Tensor, key: tf.Tensor | None = None) -> np.ndarray:
        """Returns the logits as an array, float32 (N, classes), by the model as it is now; arguments as of a call."""
        return self.runner()(x, key)

    def passed(self, x: np.ndarray) -> np.ndarray:
        """Returns the logits of one pass that leaves no graph behind, unless the model's code works in graphs alone."""
        try:
            return self(tf.constant(x, tf.float32)).numpy()
        except InputError:
            raise
        except Exception:  # As in `runner`: other errors come again.
            return self.graph()(tf.constant(x, tf.float32)).numpy()

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
        kind = "probabilities" if self.probed.outputs == "softmax" else "logits"
        # Rounding apart, they sum to 1.
        others = self.probed.outputs == "softmax" and (abs(np.exp(logits).sum(axis=1) - 1) > 0.1).any()
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


def _of_arrays(function: Callable[[np.ndarray], Any], adapter: Adapter, width: int) -> Forward:
    """Returns a NumPy function as one operation on tensors."""
    run = on_arrays(function, adapter)
    return lambda x: tf.ensure_shape(tf.numpy_function(run, [x], tf.float32), (x.shape[0], width))


def as_classifier(
    model: Any,
    *,
    image_shape: Sequence[int | None] | None = None,
    classes: int | None = None,
    input_range: str | Sequence[float] = "auto",
    colors: str = "auto",
    channels: str = "auto",
    outputs: str = "auto",
    output: str | None = None,
    noise: str = "off",
    resize: bool = False,
    dtype: str | None = None,
) -> Classifier:
    """Returns what attacks see of a model, probed anew. A `Classifier` is returned as it is if nothing is said of it.

    Attacks see images in [0, 1], channels last, and logits; whatever the model takes instead, epsilon means those
    images. "auto" is read off the model's structure and its answers to random images; range and order of colours are
    found out when the first images with labels come (`adapters.ranges`), where one of them fits clearly best.

    **When graphs are used again**, as with `compile` of Keras: attacks and `evaluate`, given a Keras model, a
    `tf.function` or what `load_model` returns, keep its classifier and their graphs, as long as the model lives.
    Weights may change at any time. After changing layers, their settings (also by `adapt`) or values that the model's
    Python code reads, call `as_classifier(model)`: the new classifier replaces the kept one. Verdicts never depend on
    it, as the model itself predicts again. Any other callable is probed and traced in each call; hand over its
    `Classifier` to avoid that.

    Args:
        model: a Keras model (functional, Sequential or subclassed; an `AdversarialModel` stands for its network), what
            `load_model` returns, a `Classifier`, or a callable that maps images to outputs (N, K): made of TensorFlow
            operations, or any Python on NumPy arrays, which has no gradients. It is tried on random images, and the
            attacks call it with batches of one size.
        image_shape: height, width and channels of the images to come, for a model that doesn't state them.
        classes: the number of classes, if the caller knows it; checked.
        input_range: the pixels that the model takes: "auto", "0,1", "0,255", "-1,1", "imagenet", "caffe", two numbers
            (LOW, HIGH), or "MEAN/STD" of images in [0, 1].
        colors: "rgb", "bgr" or "auto".
        channels: "last", "first" or "auto".
        outputs: "logits", "softmax", "sigmoid" or "auto". One output stands for two classes, with the logits (0, z).
        output: the name of the output that is meant, for a model with several.
        noise: "on" attacks layers that were called with `training=True` with their noise, as `model(x)` has it; "off"
            without, as `predict` has it.
        resize: whether images of another size are resized to the model's, as a part of the model.
        dtype: that of the pixels that a function takes, as "uint8"; they are rounded then.

    Returns:
        The classifier. A model that ends in softmax or sigmoid is attacked through its logits.

    Raises:
        InputError: for a model that can't be attacked: several inputs, several outputs without `output`, inputs that
            aren't images, NaN, or another shape or number of classes than stated.

    Example:
        >>> as_classifier(build_model("convnet")).classes
        10
        >>> as_classifier(model, input_range=(0, 255), outputs="sigmoid", channels="first")
        >>> as_classifier(lambda x: forest.predict_proba(x.reshape(len(x), -1)), image_shape=(8, 8, 1)).classes
        10
    """
    said = Conventions(
        input_range=range_text(input_range), colors=colors, channels=channels, outputs=outputs, output=output,
        noise=noise, resize=resize, dtype=dtype,
    )  # fmt: skip
    return classifier_with(model, said, image_shape=image_shape, classes=classes)


def classifier_with(
    model: Any,
    said: Conventions,
    *,
    image_shape: Sequence[int | None] | None = None,
    classes: int | None = None,
) -> Classifier:
    """Returns a new classifier of a model of these conventions, and keeps it on the model; see `as_classifier`."""
    _check_stated(image_shape)
    model = _network_of(model)
    if isinstance(model, Classifier):
        if said == Conventions():
            return _fitting(model, image_shape, classes)
        model = model.model
    classifier = _make(model, image_shape, said)
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
        value = gradient() if is_traceable(classifier.network) else tf.function(gradient, autograph=False)()
    except LookupError:  # An operation has no gradient registered.
        return False
    except (tf.errors.InvalidArgumentError, tf.errors.UnknownError, tf.errors.UnimplementedError):
        return False  # The pass itself worked: it is the gradient of Python code inside the graph that doesn't.
    if value is None:
        return False
    found = tf.convert_to_tensor(value).numpy()  # It may be slices.
    # Attacks take non-finite entries as 0.
    return bool((np.isfinite(found) & (found != 0)).any())


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
    same = [None in (w, s) or w == s for w, s in zip(wanted, shape, strict=True)]
    sizes = all(same[:2]) or classifier.adapter.side is not None
    if not sizes or not (same[2] or (wanted[2], shape[2]) in CONVERTED):
        expected = "x".join("any" if side is None else str(side) for side in wanted)
        advice = "Choose another model."
        if not sizes:
            advice = "Give --resize, or resize=True to as_classifier, to have it done inside the model."
        raise InputError(
            f"Expected images of shape {expected} for {classifier.name!r}. "
            f"Received: {'x'.join(map(str, shape))}. {advice}"
        )
    whole = tuple(side for side in shape if side is not None)
    if len(whole) == 3 and whole not in classifier.shapes:
        trial(classifier.run, whole, classifier.name)
        classifier.shapes.add(whole)


def _make(model: Any, image_shape: Sequence[int | None] | None, said: Conventions) -> Classifier:
    if not callable(model):
        raise InputError(
            "Expected a Keras model or a callable that gives logits. "
            f"Received: {type(model).__name__}. {_way_in(model)}"
        )
    inner: Forward = model
    network, outputs = model, said.outputs
    if isinstance(model, keras.Model):
        network = network_of(model, said, image_shape)
        shape, adapter = intake_of(model, network, said, image_shape)
        name, inner = model.name, logits_of(network, said.noise)
        if shows_logits(network):
            outputs = "logits"
    else:
        name = str(getattr(model, "name", None) or getattr(model, "__name__", None) or type(model).__name__)
        own = getattr(model, "image_shape", None) or (None, None, None)
        shape, adapter = layout_of(tuple(own), name, said, image_shape, said.channels == "first")
        if said.dtype is not None:
            adapter = dataclasses.replace(adapter, dtype=said.dtype)
    adapter = applied(adapter, said)
    known = tuple(own or stated for own, stated in zip(shape, image_shape or (None,) * 3, strict=True))
    probed = probe(network, inner, known, name, adapter, outputs)
    any_batch = is_graph(network) and model.inputs[0].shape[0] is None and not probed.untraced
    classifier = Classifier(
        model, inner, probed, name=name, image_shape=shape, any_batch=any_batch, network=network, adapter=adapter,
        conventions=said,
    )  # fmt: skip
    classifier.notes = notes_of(name, adapter, said, probed)
    left_out = noise_left_out(network) if is_graph(network) and said.noise == "off" else []
    if left_out:
        message = (
            f"{', '.join(left_out)} of {name!r} was called with training=True. It is attacked without that, as predict "
            "has it; model(x) has it switched on. Give --noise on, or noise='on' to as_classifier, to attack that."
        )
        classifier.warnings.append(("training-noise", message))
    return classifier


def _way_in(model: Any) -> str:
    """Returns how an object that isn't callable can be attacked."""
    if hasattr(model, "predict_proba"):
        return "Give lambda x: model.predict_proba(x.reshape(len(x), -1)), a function of NumPy images in [0, 1]."
    return "Load a file with kerasrobust.load_model first."
