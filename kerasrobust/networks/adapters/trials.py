"""What a model says of images with labels under each conversion, and how far two readings of it are apart."""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Hashable, Mapping
from typing import TypeVar

import keras
import numpy as np
import tensorflow as tf

from kerasrobust.errors import InputError
from kerasrobust.networks.adapters.adapter import LUMA, Adapter, Conventions, applied, candidates, converted, undone
from kerasrobust.networks.classifier import Classifier
from kerasrobust.networks.noise import noise_off
from kerasrobust.stats import mcnemar

Key = TypeVar("Key", bound=Hashable)

BATCH = 100

FOUND_OUT = "Found out on"
"""How the note begins that says what images with labels told of a model."""

CLEAR = 3.0
"""Standard errors by which a mean loss has to be lower."""

LOST = 0.5
"""The share of images with NaN or inf above which a conversion isn't one that a model was trained on."""


def mixed(x: np.ndarray, y: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns so many images and labels from all over a set, the same each time: files may be sorted by class."""
    some = np.random.default_rng(0).permutation(len(x))[:count]
    return x[some], y[some]


def mark_of(classifier: Classifier) -> int:
    """Returns a checksum of a model's weights; 0 for one that is neither of Keras nor a `tf.Module`.

    What images with labels told of a model is told of its weights, which may change.
    """
    network, mark = classifier.network, 0
    weights = network.weights if isinstance(network, keras.Model) else getattr(network, "variables", ())
    for weight in weights if isinstance(network, keras.Model | tf.Module) else ():
        mark = zlib.crc32(np.asarray(weight.numpy()).tobytes(), mark)
    return mark


def marked(found: Classifier, asked: Classifier) -> Classifier:
    """Returns a classifier that labelled images showed more of, with the one before it and the mark of its weights."""
    found.asked, found.mark = asked, mark_of(asked)
    return found


def is_stale(classifier: Classifier) -> bool:
    """Returns whether what images with labels told of a model was told of other weights."""
    return classifier.asked is not None and classifier.mark != mark_of(classifier)


def as_taken(classifier: Classifier, x: np.ndarray) -> np.ndarray:
    """Returns images in [0, 1] in the channels that a model takes, of which conversions are tried."""
    given, taken = x.shape[-1], classifier.adapter.channels
    if taken == 3:
        return np.repeat(x, 3, axis=-1) if given == 1 else x[..., :3]
    return x @ np.array(LUMA, np.float32)[:, None] if (given, taken) == (3, 1) else x


def conversions_left(said: Conventions, channels: int) -> dict[tuple[str, str], Adapter]:
    """Returns the conversions that what is said of a model leaves open."""
    if said.input_range != "auto":
        orders = ("rgb", "bgr") if channels == 3 else ("rgb",)
        return {
            (said.input_range, order): applied(Adapter(), dataclasses.replace(said, colors=order)) for order in orders
        }
    return {name: found for name, found in candidates(channels).items() if said.colors in ("auto", name[1])}


def logits_by(
    classifier: Classifier, tried: dict[tuple[str, str], Adapter], x: np.ndarray
) -> dict[tuple[str, str], np.ndarray]:
    """Returns the logits of each conversion that a model takes; see `numbers_of`."""
    return logits_for(classifier, {name: converted(adapter, x) for name, adapter in tried.items()})


def logits_for(classifier: Classifier, pixels: dict[Key, np.ndarray]) -> dict[Key, np.ndarray]:
    """Returns the logits of pixels as the model itself takes them; see `numbers_of`."""
    return numbers_of({key: _passed(classifier, values) for key, values in pixels.items()})


def _passed(classifier: Classifier, pixels: np.ndarray) -> np.ndarray | None:
    # What the classifier's own adapter makes them of.
    changed = undone(classifier.adapter, pixels)
    try:
        # Without its noise, which large pixels would drown. Not by a graph, which would keep that.
        with noise_off():
            parts = [classifier.passed(changed[at : at + BATCH]) for at in range(0, len(changed), BATCH)]
    except (tf.errors.OpError, InputError):  # A model may refuse such values, and then it wasn't trained on them.
        return None
    return np.concatenate(parts)


def numbers_of(outputs: Mapping[Key, np.ndarray | None]) -> dict[Key, np.ndarray]:
    """Returns the logits (N, K) of several readings of the same images, with a number for what is none.

    Readings with NaN or inf for most images are left out, as are those that are None. An image without numbers in one
    of the others tells nothing: its logits are 0 in all. A class that is masked by -inf stays as far below the lowest
    one as that is below the highest.

    Example:
        >>> numbers_of({"a": np.array([[1.0, -np.inf, 0.0]]), "b": None})
        {'a': array([[ 1., -1.,  0.]])}
    """
    lost = {key: _lost(logits) for key, logits in outputs.items() if logits is not None}
    kept = {key: np.asarray(outputs[key]) for key, images in lost.items() if images.mean() <= LOST}
    silent = np.any([lost[key] for key in kept], axis=0)
    return {key: _unmasked(np.where(silent[:, None], 0, logits)) for key, logits in kept.items()}


def _lost(logits: np.ndarray) -> np.ndarray:
    """Returns which images have no numbers, bool (N,)."""
    masked = np.isneginf(logits)
    return ~(np.isfinite(logits) | masked).all(axis=1) | masked.all(axis=1)


def _unmasked(logits: np.ndarray) -> np.ndarray:
    masked = np.isneginf(logits)
    highest = logits.max(axis=1, keepdims=True)
    lowest = np.where(masked, highest, logits).min(axis=1, keepdims=True)
    return np.where(masked, lowest - np.maximum(highest - lowest, 1), logits)


def calibrated_loss(logits: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, float]:
    """Returns the cross-entropies (N,) at the best scale of the logits, and that scale.

    The best one is so for these images and for one more that is taken for the class next to its own. Of images that are
    all right it would have no upper bound otherwise.
    """
    values = logits.astype(np.float64)
    values -= values.max(axis=1, keepdims=True)
    own, next_ones = values[np.arange(len(y)), y], np.sort(values, axis=1)[:, -2:][:, 0]
    scales = np.geomspace(1e-4, 1e4, 33)
    for _ in range(4):  # Each time between the neighbours of the best one.
        sums = [np.log(np.exp(values * scale).sum(axis=1)) for scale in scales]
        losses = [total - scale * own for total, scale in zip(sums, scales, strict=True)]
        errors = [(total - scale * next_ones).mean() for total, scale in zip(sums, scales, strict=True)]
        place = int(np.argmin([loss.sum() + error for loss, error in zip(losses, errors, strict=True)]))
        found, scale = losses[place], float(scales[place])
        scales = np.geomspace(scales[max(place - 1, 0)], scales[min(place + 1, len(scales) - 1)], 9)
    return found, scale


def guessing(y: np.ndarray) -> np.ndarray:
    """Returns the cross-entropies (N,) of labels for who knows but how frequent the classes are."""
    return -np.log((np.bincount(y) / len(y))[y])


def clearly_lower(a: np.ndarray, b: np.ndarray, least: float = 0.0) -> bool:
    """Returns whether losses are clearly lower than others of the same images, by so much at least."""
    gaps = b - a
    return bool(gaps.mean() > max(least, CLEAR * gaps.std() / np.sqrt(len(gaps)) + 1e-9))


def clearly_more(a: np.ndarray, b: np.ndarray) -> bool:
    """Returns whether clearly more images are right, of bool (N,) and (N,)."""
    return a.sum() > b.sum() and mcnemar(int((a & ~b).sum()), int((b & ~a).sum())) < 0.01
