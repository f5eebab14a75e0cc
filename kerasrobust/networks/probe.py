"""Passes over random images that show what a model's configuration doesn't: its classes, its noise, its outputs."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kerasrobust.errors import InputError, reason_of
from kerasrobust.networks.architectures import is_graph
from kerasrobust.networks.foreign import ForeignNetwork
from kerasrobust.networks.noise import is_noisy, keyed_noise
from kerasrobust.networks.savedmodel import SavedModelNetwork

Shape = tuple[int | None, ...]
"""Height, width and channels; None stands for any."""

Forward = Callable[[tf.Tensor], Any]
"""Images, float32 (N, H, W, C) in [0, 1] -> what the model returns for them."""

PROBES = 8
"""Random images of a probe."""

# Sides and channels to try if neither the model nor the caller states them: CIFAR's, then ImageNet's.
_GUESSES: list[tuple[int, ...]] = [(side, side, channels) for side in (32, 96, 224) for channels in (3, 1)]


@dataclass(frozen=True, kw_only=True)
class Probed:
    """What passes over random images show of a model.

    Attributes:
        shape: height, width and channels of the images that it was probed with.
        randomized: whether two passes over the same images differ.
        seedable: whether that noise follows a key (`noise.keyed_noise`), so that a run can be repeated.
        probabilities: whether its outputs are probabilities that can't be traced back to logits.
        arrays: whether it takes NumPy arrays, as it isn't TensorFlow code.
        warnings: (code, message) pairs that belong into every result about the model.
    """

    shape: tuple[int, ...]
    classes: int
    randomized: bool = False
    seedable: bool = False
    probabilities: bool = False
    arrays: bool = False
    warnings: tuple[tuple[str, str], ...] = ()


def probe(model: Any, forward: Forward, shape: Shape, name: str) -> Probed:
    """Runs a model on random images.

    Args:
        model: a Keras model, or a callable of any kind.
        forward: the pass that is attacked: `model` itself, or a part of it.
        shape: height, width and channels; where an entry is None, the usual sizes are tried.
        name: what error messages call the model.

    Raises:
        InputError: for a model that fails on all of them, or whose outputs can't be logits.

    Example:
        >>> probe(model, model, (32, 32, 3), "mine").classes
        10
    """
    shapes = list(dict.fromkeys(tuple(k or g for k, g in zip(shape, guess, strict=True)) for guess in _GUESSES))
    for index, tried in enumerate(shapes):
        try:
            first, run, arrays = _first_pass(model, forward, tried, name)
            break
        except InputError as error:
            # A failure may be due to the guessed shape; the outputs of a pass that worked are final.
            if error.__cause__ is None or index == len(shapes) - 1:
                raise
    warnings = list(model.notes) if isinstance(model, ForeignNetwork) else []
    noisy = isinstance(model, keras.Model) and is_noisy(model)
    randomized = noisy or not same(first, trial(run, tried, name))
    seedable = False
    if randomized:
        # After the passes without a key: a function that the model compiled by itself would keep the key for good.
        key = () if arrays else (tf.constant([0, 1]),)
        seedable = same(*(trial(run, tried, name, *key) for _ in range(2)))
        if not seedable:
            message = f"The noise inside {name!r} can't be seeded: figures differ from run to run."
            warnings.append(("unseeded-noise", message))
    probabilities = bool((first >= 0).all() and (abs(first.sum(axis=1) - 1) < 1e-3).all())
    if probabilities and not arrays:  # NumPy code has no gradients to lose.
        message = (
            f"{name!r} gives probabilities: it is attacked through their logarithm, whose gradients vanish where a "
            "probability rounds to 0 or 1. Give a model that returns logits."
        )
        warnings.append(("softmax-output", message))
    return Probed(
        shape=tried,
        classes=first.shape[1],
        randomized=randomized,
        seedable=seedable,
        probabilities=probabilities,
        arrays=arrays,
        warnings=tuple(warnings),
    )


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
    if outputs.ndim != 2 or len(outputs) != PROBES or outputs.shape[1] < 2:
        raise InputError(
            f"Expected logits of shape (N, classes), at least two of them. Received: {name!r} gives "
            f"{outputs.shape} for {PROBES} images. Choose that output; give a binary classifier the logits [0, z], "
            "and one that only returns labels rows that are 1 at the label."
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
    return tf.cast(flat[0], tf.float32)


def is_compiled(model: Any) -> bool:
    """Returns whether a callable is a TensorFlow graph already: a `tf.function`, or loaded from a SavedModel."""
    return isinstance(model, (tf.types.experimental.Callable, keras.layers.TFSMLayer, SavedModelNetwork))


def on_arrays(function: Callable[[np.ndarray], Any]) -> Callable[[np.ndarray], np.ndarray]:
    """Returns a NumPy function that gets a copy of the images, as some scale their argument in place."""
    return lambda images: np.asarray(function(images.copy()), np.float32)


def not_callable(name: str, shape: Shape, error: Exception) -> InputError:
    """Returns the error for a model that fails on a batch of images of a shape."""
    return InputError(
        "Expected a model that maps float32 images to logits, by TensorFlow operations or from a NumPy array to one. "
        f"Received: {name!r}, which fails on a batch of {shape} images ({reason_of(error, 200)}). "
        "State the right image_shape."
    )


def _pass_of(model: Any, forward: Forward, name: str) -> Callable[..., np.ndarray]:
    """Returns the pass of TensorFlow code over images, with a noise key or without."""

    def logits(x: tf.Tensor, *key: tf.Tensor) -> tf.Tensor:
        with keyed_noise(*key) if key else contextlib.nullcontext():
            return one_output(forward(x), name)

    # Traced if in doubt, as NumPy code may accept TensorFlow's tensors outside of graphs.
    run = logits if is_traceable(model) else tf.function(logits, autograph=False)
    return lambda images, *key: run(tf.constant(images), *key).numpy()


def _first_pass(
    model: Any, forward: Forward, shape: tuple[int, ...], name: str
) -> tuple[np.ndarray, Callable[..., np.ndarray], bool]:
    """Runs a model for the first time; returns the outputs, the pass that gave them, and whether it takes arrays.

    It gets arrays if TensorFlow can't trace it: it may be anything, another library's model, a remote service.
    """
    run = _pass_of(model, forward, name)
    try:
        return trial(run, shape, name), run, False
    except InputError as error:
        # What failed inside one of TensorFlow's own operations is TensorFlow code.
        known = error.__cause__ is None or isinstance(error.__cause__, tf.errors.OpError)
        if known or isinstance(model, (keras.Model, tf.Module)):
            raise
    run = on_arrays(model)
    return trial(run, shape, name), run, True


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
    """
    if a.shape != b.shape:
        return np.inf
    gaps = abs(np.subtract(a, b, out=np.zeros_like(a), where=a != b))
    largest = abs(a).max(axis=0, initial=1.0, where=np.isfinite(a))
    usual = largest[largest <= 1e4 * np.sort(largest)[(len(largest) - 1) // 2]].max()
    return float(np.nan_to_num(gaps / np.maximum(largest, usual), nan=np.inf, posinf=np.inf).max())


def same(a: np.ndarray, b: np.ndarray) -> bool:
    """Returns whether logits (N, K) are the same, but for the order in which devices sum; noise moves far more."""
    return apart(a, b) <= 1e-6
