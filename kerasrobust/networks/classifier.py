"""What an attack sees: the logits of any image classifier."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from kerasrobust.errors import InputError
from kerasrobust.networks.adapters.adapter import Adapter, Conventions, logits_from
from kerasrobust.networks.noise import keyed_noise
from kerasrobust.networks.probe import (
    PROBES,
    Forward,
    Probed,
    Shape,
    apart,
    is_traceable,
    on_arrays,
    one_output,
    probe_images,
    trial,
)
from kerasrobust.networks.untraced import Untraced
from kerasrobust.ops.stored import TRANSPOSE
from kerasrobust.ops.tracing import Traced

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
        probed: what passes over random images showed, of which it has `classes`, `labels`, `randomized`, `seedable`,
            `arrays` (NumPy code, without gradients) and `warnings` itself.
        inner: the pass that is attacked, in the network's own conventions.
        of_labels: the same with each output a label by itself, once images with several were seen (`making`).
        asked: what it was before images with labels told more of it, or None; `mark` is that of its weights then.
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
        self.inner = inner
        self.of_labels: Classifier | None = None
        self.asked: Classifier | None = None
        self.mark = 0
        self.classes = probed.classes
        self.labels = probed.labels
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
            return logits_from(one_output(self._forward(x), self.name), self.probed.outputs, self.labels)

    def run(self, x: np.ndarray | tf.Tensor, key: tf.Tensor | None = None) -> np.ndarray:
        """Returns the logits as an array, float32 (N, classes), by the model as it is now; arguments as of a call."""
        return self.runner()(x, key)

    def check_shape(self, shape: Shape) -> None:
        """Raises InputError if the model takes no images of this shape; tried once if its structure doesn't show it."""
        wanted = self.image_shape
        same = [None in (w, s) or w == s for w, s in zip(wanted, shape, strict=True)]
        sizes = all(same[:2]) or self.adapter.side is not None
        if not sizes or not (same[2] or (wanted[2], shape[2]) in CONVERTED):
            expected = "x".join("any" if side is None else str(side) for side in wanted)
            advice = "Choose another model."
            if all(own in (None, side) for own, side in zip(wanted, (*shape[1:], shape[0]), strict=True)):
                advice = TRANSPOSE
            elif not sizes:
                advice = "Give --resize, or resize=True to as_classifier, to have it done inside the model."
            raise InputError(
                f"Expected images of shape {expected} for {self.name!r}. "
                f"Received: {'x'.join(map(str, shape))}. {advice}"
            )
        whole = tuple(side for side in shape if side is not None)
        if len(whole) == 3 and whole not in self.shapes:
            trial(self.run, whole, self.name)
            self.shapes.add(whole)

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

    def rows(images: np.ndarray) -> np.ndarray:
        outputs = run(images)
        return outputs[:, None] if outputs.ndim == 1 else outputs

    return lambda x: tf.ensure_shape(tf.numpy_function(rows, [x], tf.float32), (x.shape[0], width))


def _quickly(gradient: Callable[[], Any]) -> Any:
    """Calls a gradient of Keras' own layers without a graph; some, as those in float8, have it in graphs alone."""
    try:
        return gradient()
    except ValueError:
        return tf.function(gradient, autograph=False)()


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
    return reaches(slope_of(classifier, images))


def reaches(slope: np.ndarray | None) -> bool:
    """Returns whether a gradient is there, and finite and not zero somewhere; attacks take other entries as 0."""
    return slope is not None and bool((np.isfinite(slope) & (slope != 0)).any())


def slope_of(classifier: Classifier, images: np.ndarray | None = None) -> np.ndarray | None:
    """Returns a gradient of the logits by some images, zeros where none reaches them; None if there is none to ask for.

    Example:
        >>> slope_of(as_classifier(lambda x: tf.image.resize(x, (1, 3), "area")[:, 0, :, 0], image_shape=(8, 8, 3)))
    """
    if classifier.arrays:
        return None
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
        value = _quickly(gradient) if is_traceable(classifier.network) else tf.function(gradient, autograph=False)()
    except (LookupError, TypeError):  # An operation has no gradient, or none in the model's arithmetic.
        return None
    except (tf.errors.InvalidArgumentError, tf.errors.UnknownError, tf.errors.UnimplementedError):
        return None  # The pass itself worked: it is the gradient of Python code inside the graph that doesn't.
    found = np.zeros_like(some) if value is None else tf.convert_to_tensor(value).numpy()  # It may be slices.
    # That of Python code without a gradient is one number.
    return found if found.shape == some.shape else None
