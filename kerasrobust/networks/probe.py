"""Passes over random images that tell what kind of classifier a model is: its classes, its noise, its outputs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import keras
import numpy as np
import tensorflow as tf

from kerasrobust.errors import InputError
from kerasrobust.networks.noise import is_noisy

if TYPE_CHECKING:
    from kerasrobust.networks.classifier import Classifier

PROBES = 8
"""Random images of a probe."""

# What sides and channels a model is probed with where neither it nor the caller says: CIFAR, then ImageNet sizes.
_GUESSES: list[tuple[int, ...]] = [(side, side, channels) for side in (32, 96, 224) for channels in (3, 1)]


def not_callable(name: str, shape: tuple[int | None, ...], error: Exception) -> InputError:
    """Returns what to raise of a model that fails on a batch of images of a shape."""
    reason = " ".join(str(error).split())[:200]
    return InputError(
        "Expected a model that maps float32 images to logits, by TensorFlow operations or from a NumPy array to one. "
        f"Received: {name!r}, which fails on a batch of {shape} images ({type(error).__name__}: {reason}). "
        "State the right image_shape."
    )


def probe_images(shape: tuple[int, ...]) -> np.ndarray:
    """Returns `PROBES` random images (height, width, channels), float32 in [0, 1]; the same each time."""
    return np.random.default_rng(0).random((PROBES, *shape), np.float32)


def _pass(classifier: Classifier, shape: tuple[int, ...], key: tf.Tensor | None = None) -> np.ndarray:
    """Runs the classifier on random images of one shape, in a graph as attacks do."""
    try:
        outputs = classifier.run(probe_images(shape), key)
    except InputError:
        raise
    except Exception as error:  # A person's own code may raise anything; it is said.
        raise not_callable(classifier.name, shape, error) from error
    return _checked(classifier, shape, outputs)


def _checked(classifier: Classifier, shape: tuple[int, ...], outputs: np.ndarray) -> np.ndarray:
    """Returns what came out of a probe, and raises where that can't be logits."""
    if outputs.ndim != 2 or len(outputs) != PROBES or outputs.shape[1] < 2:
        raise InputError(
            f"Expected logits of shape (N, classes), at least two of them. Received: {classifier.name!r} gives "
            f"{outputs.shape} for {PROBES} images. Choose that output; give a binary classifier the logits [0, z], "
            "and one that only tells labels rows that are 1 at the label."
        )
    if np.isnan(outputs).any():
        raise InputError(
            f"Expected finite logits. Received: {classifier.name!r} gives NaN for random images in [0, 1]. "
            "Train it again, or check the file."
        )
    classifier.probed.add(tuple(shape))
    return outputs


def _first_pass(classifier: Classifier, shape: tuple[int, ...]) -> np.ndarray:
    """Runs a model for the first time; with NumPy arrays where TensorFlow can't trace it.

    That may be anything: another library's model, a remote service.
    """
    try:
        return _pass(classifier, shape)
    except InputError as error:
        # What failed inside one of TensorFlow's own operations is TensorFlow code.
        known = error.__cause__ is None or isinstance(error.__cause__, tf.errors.OpError)
        if known or isinstance(classifier.model, (keras.Model, tf.Module)):
            raise
    function = classifier.model

    def ask(images: np.ndarray) -> np.ndarray:
        # A copy, as some functions scale their argument in place.
        return np.asarray(function(images.copy()), np.float32)

    try:
        outputs = ask(probe_images(shape))
    except Exception as error:
        raise not_callable(classifier.name, shape, error) from error
    classes = _checked(classifier, shape, outputs).shape[1]
    classifier._forward = lambda x: tf.ensure_shape(tf.numpy_function(ask, [x], tf.float32), (x.shape[0], classes))
    classifier._passes.clear()
    classifier.arrays = True
    return outputs


def probe(classifier: Classifier, image_shape: Sequence[int | None] | None) -> None:
    """Fills in what one can only learn by passes over random images."""
    known = [mine or theirs for mine, theirs in zip(classifier.image_shape, image_shape or (None,) * 3, strict=True)]
    # One shape where everything is known.
    shapes = list(dict.fromkeys(tuple(k or g for k, g in zip(known, guess, strict=True)) for guess in _GUESSES))
    for index, shape in enumerate(shapes):
        try:
            first = _first_pass(classifier, shape)
            break
        except InputError as error:
            # A failure may be due to the guessed shape; what came out of a pass that worked is final.
            if error.__cause__ is None or index == len(shapes) - 1:
                raise
    classifier.classes = first.shape[1]
    noisy = isinstance(classifier.model, keras.Model) and is_noisy(classifier.model)
    classifier.randomized = noisy or not _same(first, _pass(classifier, shape))
    if classifier.randomized:
        # After the passes without a key: a function that the model compiled by itself would keep the key for good.
        key = tf.constant([0, 1])
        classifier.seedable = _same(_pass(classifier, shape, key), _pass(classifier, shape, key))
        if not classifier.seedable:
            message = f"The noise inside {classifier.name!r} can't be seeded: figures differ from run to run."
            classifier.warnings.append(("unseeded-noise", message))
    if (first >= 0).all() and (abs(first.sum(axis=1) - 1) < 1e-3).all():
        classifier._probabilities = True
        classifier._passes.clear()  # The passes so far were traced without the logarithm.
        if classifier.arrays:  # There are no gradients to lose.
            return
        message = (
            f"{classifier.name!r} gives probabilities: it is attacked through their logarithm, whose gradients vanish "
            "where a probability rounds to 0 or 1. Give a model that returns logits."
        )
        classifier.warnings.append(("softmax-output", message))


def _same(a: np.ndarray, b: np.ndarray) -> bool:
    # Relative to the largest logit: devices may sum in another order from call to call, noise moves far more.
    return bool(_apart(a, b).max() <= 1e-6 * abs(a).max(initial=1.0, where=np.isfinite(a)))


def _apart(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    # A class may be masked by -inf.
    return abs(np.subtract(a, b, out=np.zeros_like(a), where=a != b))


def gap(classifier: Classifier) -> float | None:
    """Returns how far the model's logits are from those of its graph, relative to a class's largest.

    A graph keeps what Python code of the model has read besides its weights: a dict, a helper object, a global name.

    Returns:
        The largest difference, or None where the two can't be compared: passes that vary by themselves, or that fail.
    """
    if not classifier.repeats:
        return None
    images = probe_images(next(iter(classifier.probed)))
    key = tf.constant([0, 1]) if classifier.randomized else None
    try:
        graph = classifier.run(images, key)
        passed = classifier(tf.constant(images), key).numpy()
    except Exception:  # Code that works in graphs alone says so in any way; what else is wrong, a new probe tells.
        return None
    # By class, as one may be masked by -1e9.
    scale = abs(graph).max(axis=0, initial=1.0, where=np.isfinite(graph))
    return float((_apart(graph, passed) / scale).max())


def check_shape(classifier: Classifier, shape: tuple[int | None, ...]) -> None:
    """Raises where the model doesn't take images of this shape; tries it once where its structure doesn't tell."""
    wanted = classifier.image_shape
    if any(None not in (w, s) and w != s for w, s in zip(wanted, shape, strict=True)):
        expected = "x".join("any" if side is None else str(side) for side in wanted)
        raise InputError(
            f"Expected images of shape {expected} for {classifier.name!r}. "
            f"Received: {'x'.join(map(str, shape))}. Resize them, or choose another model."
        )
    if None not in shape and shape not in classifier.probed:
        _pass(classifier, shape)  # type: ignore[arg-type]
