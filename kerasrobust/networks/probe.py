"""Passes over random images that show what a model's configuration doesn't: its classes, its noise, its outputs."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from kerasrobust.errors import InputError, reason_of
from kerasrobust.networks.adapters.adapter import Adapter
from kerasrobust.networks.adapters.labels import Labels
from kerasrobust.networks.adapters.predictions import Prediction
from kerasrobust.networks.architectures import is_graph
from kerasrobust.networks.files.foreign import ForeignNetwork
from kerasrobust.networks.files.savedmodel import SavedModelNetwork
from kerasrobust.networks.noise import is_noisy, keyed_noise
from kerasrobust.ops.tracing import has_onednn

Shape = tuple[int | None, ...]
"""Height, width and channels; None stands for any."""

Forward = Callable[[tf.Tensor], Any]
"""Images, float32 (N, H, W, C) in [0, 1] -> what the model returns for them."""

PROBES = 8
"""Random images of a probe."""

DRAWS = 10
"""Passes in which code of one's own has to agree with itself: one of two networks, drawn anew, does by 1 in 1,000."""

TRACED = 1e-4
"""How far logits of a graph may be from those of the same code, run operation by operation (`apart`)."""

# Sides and channels to try if neither the model nor the caller states them: CIFAR's, then ImageNet's.
_GUESSES: list[tuple[int, ...]] = [(side, side, channels) for side in (32, 96, 224) for channels in (3, 1)]


@dataclass(frozen=True, kw_only=True)
class Probed:
    """What passes over random images show of a model.

    Attributes:
        shape: height, width and channels of the images that it was probed with.
        randomized: whether two passes over the same images differ.
        seedable: whether that noise follows a key (`noise.keyed_noise`), so that a run can be repeated.
        outputs: what they are: "logits"; "softmax" or "sigmoid", where they can't be traced back to logits; or
            "regression".
        width: how many outputs it has for an image; one stands for two classes.
        labels: how outputs are read of which each is a label by itself; None where an image has one class.
        arrays: whether it takes NumPy arrays, as it isn't TensorFlow code.
        untraced: why its code has to run operation by operation, also inside graphs; empty where it can be traced.
        warnings: (code, message) pairs that belong into every result about the model.
    """

    shape: tuple[int, ...]
    classes: int
    randomized: bool = False
    seedable: bool = False
    outputs: str = "logits"
    width: int = 0
    labels: Labels | None = None
    arrays: bool = False
    untraced: str = ""
    warnings: tuple[tuple[str, str], ...] = ()

    def as_predicted(self, forward: Forward) -> Forward:
        """Returns a pass of the model as its `predict` runs it: in a graph, unless its code can't be traced.

        Keras 3.15 may give other dtypes outside of graphs: it resizes uint8 to uint8 there, and to float32 inside.
        """
        return forward if self.untraced else tf.function(forward, autograph=False)


DISTANCES = (1000, 30, 3)
"""How many times as far from 0 as pixels the values lie that tell a sigmoid; nearer ones where outputs are not finite,
as in half precision and in whole numbers that overflow, or where a model refuses such values."""

SHARE = 1e-3
"""How far outside [0, 1] a probability may be."""


def probe(
    model: Any, inner: Forward, shape: Shape, name: str, adapter: Adapter | None = None, outputs: str = "auto"
) -> Probed:
    """Runs a model on random images.

    Args:
        model: a Keras model, or a callable of any kind.
        inner: the pass that is attacked: `model` itself, or a part of it.
        shape: height, width and channels; where an entry is None, the usual sizes are tried.
        name: what error messages call the model.
        adapter: takes images to what the model takes; nothing without it.
        outputs: what they are, where that is known: "logits", "softmax", "sigmoid" or "regression".

    Raises:
        InputError: for a model that fails on all of them, or whose outputs can't be those of a classifier.

    Example:
        >>> probe(model, model, (32, 32, 3), "mine").classes
        10
    """
    adapter = adapter or Adapter()
    shapes = list(dict.fromkeys(tuple(k or g for k, g in zip(shape, guess, strict=True)) for guess in _GUESSES))
    for index, tried in enumerate(shapes):
        try:
            seen = _first_pass(model, inner, adapter, tried, name)
            break
        except InputError as error:
            # A failure may be due to the guessed shape; the outputs of a pass that worked are final.
            if error.__cause__ is None or index == len(shapes) - 1:
                raise
    warnings = list(model.notes) if isinstance(model, ForeignNetwork) else []
    noisy = isinstance(model, keras.Model) and is_noisy(model)
    first, run, arrays, untraced = seen.outputs, seen.run, seen.arrays, seen.untraced
    randomized = noisy or seen.randomized
    seedable = False
    if randomized:
        # After the passes without a key: a function that the model compiled by itself would keep the key for good.
        key = () if arrays or untraced else (tf.constant([0, 1]),)
        tries = _tries(model)
        seedable = bool(key) and not _differs(trial(run, tried, name, *key), run, tried, name, tries, *key)
        if not seedable:
            message = f"The noise inside {name!r} can't be seeded: figures differ from run to run."
            warnings.append(("unseeded-noise", message))
    if untraced:
        message = (
            f"{name!r} runs operation by operation, which takes longer, as TensorFlow can't trace it: {untraced}. "
            "Its gradients are exact."
        )
        warnings.append(("untraced", message))
    _check_said(first, outputs, name)
    kind = _kind_of(first, run, tried) if outputs == "auto" else outputs
    if kind in ("softmax", "sigmoid") and not arrays:  # NumPy code has no gradients to lose.
        by = "their logarithm, whose" if kind == "softmax" else "their log-odds, whose"
        message = (
            f"{name!r} gives probabilities: it is attacked through {by} gradients vanish where a "
            "probability rounds to 0 or 1. Give a model that returns logits."
        )
        warnings.append((f"{kind}-output", message))
    return Probed(
        shape=tried,
        classes=max(2, first.shape[1]),
        width=first.shape[1],
        randomized=randomized,
        seedable=seedable,
        outputs=kind,
        arrays=arrays,
        untraced=untraced,
        warnings=tuple(warnings),
    )


def _check_said(first: np.ndarray, outputs: str, name: str) -> None:
    """Raises InputError where outputs (N, K) can't be of the kind that was said."""
    if outputs in ("sigmoid", "softmax") and not (first.min() >= -SHARE and first.max() <= 1 + SHARE):
        raise InputError(
            f"Expected outputs in [0, 1], as {outputs} says. Received: {name!r} with values from {first.min():.3g} to "
            f"{first.max():.3g}. Leave --outputs (outputs=) out, or put what makes them probabilities into the model."
        )
    if outputs == "regression" and first.shape[1] != 1:
        raise InputError(
            f"Expected one output, as regression to 0 and 1 has. Received: {name!r} with {first.shape[1]}, of which "
            "the largest is the class. Leave --outputs (outputs=) out."
        )


def _kind_of(outputs: np.ndarray, run: Callable[..., np.ndarray], shape: tuple[int, ...]) -> str:
    """Returns what outputs (N, K) are. Those of a sigmoid lie in [0, 1] whatever the pixels are; logits don't."""
    if outputs.min() < 0 or outputs.max() > 1:
        return "logits"
    if outputs.shape[1] > 1 and (abs(outputs.sum(axis=1) - 1) < max(1e-3, 5e-4 * outputs.shape[1])).all():
        return "softmax"
    for distance in DISTANCES:
        far = np.concatenate([_far(run, sign * distance * probe_images(shape)) for sign in (1, -1)])
        if (((far < 0) | (far > 1)) & np.isfinite(far)).any():
            return "logits"
        if np.isfinite(far).all():
            break
    return "sigmoid"


def _far(run: Callable[..., np.ndarray], images: np.ndarray) -> np.ndarray:
    """Returns a model's outputs for what is no image any more, (N * K,); NaN where it has none."""
    try:
        return run(images).ravel()
    except Exception:  # A model may refuse such values in any way.
        return np.full(1, np.nan)


def probe_images(shape: tuple[int, ...]) -> np.ndarray:
    """Returns `PROBES` random images (height, width, channels), float32 in [0, 1]; the same each time."""
    return np.random.default_rng(0).random((PROBES, *shape), np.float32)


def trial(run: Callable[..., np.ndarray], shape: tuple[int, ...], name: str, *key: tf.Tensor) -> np.ndarray:
    """Returns the logits of random images of one shape, and raises InputError for what can't be logits."""
    try:
        outputs = run(probe_images(shape), *key)
    except InputError:
        raise
    except Exception as error:  # Somebody's own code may raise anything: report it.
        raise not_callable(name, shape, error) from error
    if outputs.shape == (PROBES,) and not (outputs == np.round(outputs)).all():
        outputs = outputs[:, None]
    if outputs.ndim != 2 or len(outputs) != PROBES or outputs.shape[1] < 1:
        advice = (
            "What gives class numbers is attacked by as_classifier(predict=function, classes=K, image_shape=...)."
            if outputs.ndim == 1
            else "A model that answers for each pixel or box isn't one: attacks here are for one answer an image."
        )
        raise InputError(
            f"Expected the outputs of a classifier, (N, classes) or (N, 1). Received: {name!r} gives "
            f"{outputs.shape} for {PROBES} images. {advice}"
        )
    if np.isnan(outputs).any():
        raise InputError(
            f"Expected finite logits. Received: {name!r} gives NaN for random images in [0, 1]. "
            "Train it again, or check the file."
        )
    return outputs


def one_output(outputs: Any, name: str) -> tf.Tensor:
    """Returns a model's one output in float32, whatever dict or list it comes in."""
    flat = tf.nest.flatten(outputs)
    if len(flat) != 1:
        raise InputError(
            f"Expected a classifier with one output. Received: {name!r} with {len(flat)} outputs. "
            "Wrap it in a function that returns the logits alone."
        )
    found = tf.cast(flat[0], tf.float32)
    # As fully convolutional networks and poolings that keep the sides give it.
    return tf.squeeze(found, (1, 2)) if found.shape.rank == 4 and tuple(found.shape[1:3]) == (1, 1) else found


def is_compiled(model: Any) -> bool:
    """Returns whether a callable is a TensorFlow graph already: a `tf.function`, or loaded from a SavedModel."""
    return isinstance(model, (tf.types.experimental.Callable, keras.layers.TFSMLayer, SavedModelNetwork))


def on_arrays(function: Callable[[np.ndarray], Any], adapter: Adapter) -> Callable[[np.ndarray], np.ndarray]:
    """Returns a NumPy function of images (N, H, W, C) in [0, 1] that gives float32 (N, K) or (N,).

    The function within gets arrays of its own, as some scale their argument in place.
    """

    def run(images: np.ndarray) -> np.ndarray:
        given = adapter(tf.constant(images)).numpy().astype(adapter.dtype or np.float32)
        return np.asarray(function(given), np.float32)

    return run


def not_callable(name: str, shape: Shape, error: Exception) -> InputError:
    """Returns the error for a model that fails on a batch of images of a shape."""
    channels_first = isinstance(error, tf.errors.UnimplementedError) and "NHWC" in str(error)
    advice = (
        "On a processor TensorFlow runs such convolutions by oneDNN only: set TF_ENABLE_ONEDNN_OPTS=1, or import "
        "kerasrobust before TensorFlow."
        if channels_first and not has_onednn()
        else "State the right image_shape, or what it takes: dtype=, input_range= and channels= of as_classifier."
    )
    return InputError(
        "Expected a model that maps float32 images to logits, by TensorFlow operations or from a NumPy array to one. "
        f"Received: {name!r}, which fails on a batch of {shape} images ({reason_of(error, 200)}). {advice}"
    )


def _pass_of(model: Any, forward: Forward, name: str) -> Callable[..., np.ndarray]:
    """Returns the pass of TensorFlow code over images, with a noise key or without."""

    def logits(x: tf.Tensor, *key: tf.Tensor) -> tf.Tensor:
        with keyed_noise(*key) if key else contextlib.nullcontext():
            return one_output(forward(x), name)

    # Traced if in doubt, as NumPy code may accept TensorFlow's tensors outside of graphs.
    run = logits if is_traceable(model) else tf.function(logits, autograph=False)
    return lambda images, *key: run(tf.constant(images), *key).numpy()


class _Seen(NamedTuple):
    """What a first pass over random images shows: its outputs, and what `Probed` says; `run` is the pass itself."""

    outputs: np.ndarray
    run: Callable[..., np.ndarray]
    randomized: bool
    arrays: bool = False
    untraced: str = ""


def _first_pass(model: Any, inner: Forward, adapter: Adapter, shape: tuple[int, ...], name: str) -> _Seen:
    """Runs a model for the first time, and again as often as its noise may hide.

    It gets arrays if it isn't TensorFlow code: it may be anything, another library's model, a remote service.
    """

    def seen(run: Callable[..., np.ndarray], **said: Any) -> _Seen:
        outputs = trial(run, shape, name)
        return _Seen(outputs, run, _differs(outputs, run, shape, name, _tries(model)), **said)

    if isinstance(model, Prediction):
        return seen(on_arrays(inner, adapter), arrays=True)
    forward = adapter.around(inner)
    plain = _untraced_pass(forward, name)
    try:
        traced = seen(_pass_of(model, forward, name))
    except InputError as error:
        # What failed inside one of TensorFlow's own operations is TensorFlow code.
        known = error.__cause__ is None or isinstance(error.__cause__, tf.errors.OpError)
        if known or is_traceable(model):
            raise
        if isinstance(model, (keras.Model, tf.Module)) or _has_eager_gradient(forward, shape, name):
            return seen(plain, untraced=reason_of(error.__cause__ or error, 120))
        return seen(on_arrays(inner, adapter), arrays=True)
    if is_traceable(model) or traced.randomized:
        return traced
    # What isn't TensorFlow's, such as NumPy's random numbers, is frozen by tracing.
    try:
        outputs = [trial(plain, shape, name) for _ in range(DRAWS)]
    except InputError:  # Code that works in graphs alone.
        return traced
    if any(apart(traced.outputs, other) > TRACED for other in outputs):
        untraced = "its answers change with what TensorFlow doesn't see, such as NumPy's random"
        return _Seen(outputs[0], plain, not all(same(outputs[0], other) for other in outputs[1:]), untraced=untraced)
    return traced


def _tries(model: Any) -> int:
    """Returns in how many more passes a model has to agree with itself to be called deterministic.

    Code of one's own may draw among a few networks, and so agree with itself by chance, and so may a graph of it. Of
    Keras' layers one that flips images does by 1 in 256.
    """
    return DRAWS if is_compiled(model) or not is_traceable(model) else 2


def _differs(
    first: np.ndarray, run: Callable[..., np.ndarray], shape: tuple[int, ...], name: str, tries: int, *key: tf.Tensor
) -> bool:
    return any(not same(first, trial(run, shape, name, *key)) for _ in range(tries))


def _untraced_pass(forward: Forward, name: str) -> Callable[..., np.ndarray]:
    """Returns the pass over images, operation by operation."""
    return lambda images, *key: one_output(forward(tf.constant(images)), name).numpy()


def _has_eager_gradient(forward: Forward, shape: tuple[int, ...], name: str) -> bool:
    """Returns whether code that can't be traced is TensorFlow's all the same: operation by operation it has gradients.

    NumPy code takes TensorFlow's tensors as well, and loses the gradients.
    """
    images = tf.constant(probe_images(shape))
    try:
        with tf.GradientTape() as tape:
            tape.watch(images)
            total = tf.reduce_sum(one_output(forward(images), name))
        return tape.gradient(total, images) is not None
    except Exception:  # Somebody's own code may raise anything: as arrays it gets another chance.
        return False


def is_traceable(model: Any) -> bool:
    """Returns whether a model can surely be traced: a graph already, or made of layers of Keras and kerasrobust."""
    if not is_graph(model):
        return is_compiled(model)
    parts = [part for inner in model._flatten_layers() for part in [inner, *getattr(inner, "operations", [])]]
    own = [part for part in parts if type(part).__module__.partition(".")[0] not in ("keras", "kerasrobust")]
    return not own and not any(isinstance(part, keras.layers.Lambda) for part in parts)


def apart(a: np.ndarray, b: np.ndarray) -> float:
    """Returns the largest difference between logits (N, K), as a share of their scale; infinite if only one is finite.

    The scale is the largest logit, at least 1. A class that is masked, by -1e9 or -inf, hides no difference of another.
    NaN in the same place of both is none.
    """
    if a.shape != b.shape:
        return np.inf
    gaps = abs(np.subtract(a, b, out=np.zeros_like(a), where=(a != b) & ~(np.isnan(a) & np.isnan(b))))
    largest = abs(a).max(axis=0, initial=1.0, where=np.isfinite(a))
    usual = largest[largest <= 1e4 * np.sort(largest)[(len(largest) - 1) // 2]].max()
    return float(np.nan_to_num(gaps / np.maximum(largest, usual), nan=np.inf, posinf=np.inf).max())


def same(a: np.ndarray, b: np.ndarray) -> bool:
    """Returns whether logits (N, K) are the same, but for the order in which devices sum; noise moves far more."""
    return apart(a, b) <= 1e-6
