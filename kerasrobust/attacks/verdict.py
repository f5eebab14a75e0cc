"""Whether a model is right on given images: one pass where it is deterministic, many fresh ones where it is random."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import tensorflow as tf

from kerasrobust.errors import Cancelled, InputError
from kerasrobust.networks.classifier import Classifier
from kerasrobust.ops.tracing import full_float32
from kerasrobust.stats import shared_error

NO_CLASS = -1
"""The prediction of logits that hold NaN: no class, and so never right."""


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Predictions for N images in fresh passes.

    Attributes:
        passes: int64 (m, N), the class of each image in each of the m passes; `NO_CLASS` where the logits hold NaN.
        prediction: int64 (N,), the most frequent class (of equals, the lowest).
        correct_rate: float64 (N,), the share of passes that are right.
        confidence: float32 (N,), the mean softmax probability of `prediction`.
        shared: the standard error of the accuracy by noise that the images share (`stats.shared_error`).
    """

    passes: np.ndarray
    prediction: np.ndarray
    correct_rate: np.ndarray
    confidence: np.ndarray
    shared: float = 0.0

    @property
    def wrong(self) -> np.ndarray:
        """Bool (N,): the majority of passes is wrong; a tie counts as wrong."""
        return self.correct_rate <= 0.5

    @property
    def accuracy(self) -> float:
        """The mean over images and passes: for a randomized network the expected accuracy, never one lucky pass."""
        return float(self.correct_rate.mean())


def check_sizes(batch_size: int, passes: int) -> None:
    """Raises InputError for a batch or a number of fresh passes below 1."""
    if batch_size < 1 or passes < 1:
        raise InputError(
            "Expected a batch size and a number of fresh passes of at least 1. "
            f"Received: {batch_size} and {passes}. Try 256 and 20."
        )


def judge_again(
    classifier: Classifier, before: Verdict, asked: np.ndarray, x: np.ndarray, y: np.ndarray, **options: Any
) -> Verdict:
    """Judges some of the images anew; the others keep their verdict.

    Args:
        classifier: what is judged.
        before: an earlier verdict on all of them.
        asked: bool (N,), which of them to judge.
        x: float32 (N, H, W, C) in [0, 1].
        y: integers (N,), the true classes.
        options: as `judge` takes them.

    Raises:
        Cancelled: as `judge` does.

    Example:
        >>> after = judge_again(classifier, before, (x_adv != x).any(axis=(1, 2, 3)), x_adv, y)
    """
    if asked.all():
        return judge(classifier, x, y, **options)
    arrays = {name: value.copy() for name, value in vars(before).items() if name != "shared"}
    if asked.any():
        after = vars(judge(classifier, x[asked], y[asked], **options))
        for name in arrays:
            arrays[name][..., asked] = after[name]
    return Verdict(**arrays, shared=shared_error(arrays["passes"] == np.asarray(y)))


def judge(
    classifier: Classifier,
    x: np.ndarray,
    y: np.ndarray,
    *,
    passes: int = 1,
    seed: Sequence[int] = (0,),
    batch_size: int = 256,
    should_stop: Callable[[], bool] = lambda: False,
) -> Verdict:
    """Predicts images `passes` times with fresh noise, by the model as it is now, whatever graphs attacks have kept.

    Args:
        classifier: what is judged.
        x: float32 (N, H, W, C) in [0, 1].
        y: integers (N,), the true classes.
        passes: how often; 1 is enough for a deterministic network.
        seed: of the noise in layers of kerasrobust.
        batch_size: images at once.
        should_stop: called before each batch; `Cancelled` is raised once it returns True.

    Raises:
        Cancelled: once `should_stop` returns True.
        InputError: if the model gives another number of logits than when it was probed.

    Example:
        >>> judge(as_classifier(model), x, y, passes=20).accuracy
    """
    found = np.zeros((passes, len(x)), np.int64)
    probabilities = np.zeros((len(x), classifier.classes), np.float32)
    size = min(batch_size, len(x))
    # The last part takes the rest, so that its batches are of the same size.
    edges = [*range(0, len(x) - size + 1, size), len(x)]
    run = classifier.runner(passes * -(-len(x) // size))
    for number in range(passes):
        parts = []
        for first, last in pairwise(edges):
            if should_stop():
                raise Cancelled
            entropy = [*(part % 2**32 for part in seed), number, first]
            key = np.random.SeedSequence(entropy).generate_state(2, np.uint32)
            noise = tf.constant((key >> 1).astype(np.int32)) if classifier.randomized and classifier.seedable else None
            parts.append(_logits(run, x[first:last], size, noise, pad=not classifier.any_batch))
        logits = np.concatenate(parts)
        bad = np.isnan(logits).any(axis=1)
        found[number] = np.where(bad, NO_CLASS, logits.argmax(axis=1))
        logits = np.where(bad[:, None], np.float32(0), logits)
        exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
        probabilities += exponentials / exponentials.sum(axis=1, keepdims=True)
    votes = np.stack([(found == label).sum(axis=0) for label in range(classifier.classes)], axis=1)
    prediction = votes.argmax(axis=1)
    right = found == np.asarray(y)[None]
    return Verdict(
        passes=found,
        prediction=prediction,
        correct_rate=right.mean(axis=0),
        confidence=probabilities[np.arange(len(x)), prediction] / passes,
        shared=shared_error(right),
    )


def predict(classifier: Classifier, x: np.ndarray, batch_size: int = 256, key: Any = None) -> np.ndarray:
    """Returns the logits of many images, by the model as it is now.

    Args:
        classifier: the model.
        x: float32 (N, H, W, C) in [0, 1].
        batch_size: images per pass; fewer if there are fewer.
        key: int32 (2,), a stateless seed that each batch's noise is derived from; None for fresh noise.

    Returns:
        float32 (N, classes).

    Example:
        >>> accuracy = (predict(classifier, x).argmax(-1) == y).mean()
    """
    if len(x) == 0:
        return np.zeros((0, classifier.classes), np.float32)
    size = min(batch_size, len(x))
    return _logits(classifier.runner(-(-len(x) // size)), x, size, key, pad=not classifier.any_batch)


def _logits(run: Callable[..., np.ndarray], x: np.ndarray, size: int, key: Any, pad: bool) -> np.ndarray:
    """Returns the logits of images in batches; the last one is padded if all must have one size."""
    parts = []
    for index, start in enumerate(range(0, len(x), size)):
        batch = x[start : start + size]
        # Repeats of a real image: zeros could give NaN in a model that standardises each image.
        padded = np.concatenate([batch, np.repeat(batch[-1:], size - len(batch), axis=0)]) if pad else batch
        fold = None if key is None else tf.random.experimental.stateless_fold_in(tf.cast(key, tf.int32), index)
        with full_float32():
            parts.append(run(padded, fold)[: len(batch)])
    return np.concatenate(parts)
