"""One output, and what images with labels show of its kind.

One that was trained towards the numbers 0 and 1, as by the mean squared error, has its threshold at 0.5.
"""

from __future__ import annotations

import dataclasses
import weakref

import numpy as np

from kerasrobust.errors import InputError
from kerasrobust.networks.adapters.trials import (
    FOUND_OUT,
    as_taken,
    calibrated_loss,
    clearly_lower,
    clearly_more,
    conversions_left,
    guessing,
    is_stale,
    logits_by,
    mark_of,
    marked,
    mixed,
)
from kerasrobust.networks.classifier import Classifier
from kerasrobust.networks.logits import ending
from kerasrobust.networks.making import classifier_with

SEEN = 300
"""Images with labels that are looked at."""

FEWEST = 5
"""Images of either class that have to be among them."""

_LOGITS: weakref.WeakKeyDictionary[Classifier, int] = weakref.WeakKeyDictionary()
"""The marks of those whose output was found to be a logit, so that it isn't asked again of the same weights."""


def as_regression(classifier: Classifier, x: np.ndarray, y: np.ndarray) -> Classifier:
    """Returns the classifier with its one output read as a number near 0 or 1, where images with labels show that.

    They do if, in one of the ranges of pixels that it may take, the output itself is clearly nearer to the labels than
    their mean is, and no fewer of them are right at 0.5 than at 0. A logit in any range must not explain them clearly
    better.

    Args:
        classifier: the model. Nothing changes if it has several outputs, or its kind of output was said.
        x: float32 (N, H, W, C) in [0, 1].
        y: int64 (N,), their classes.

    Raises:
        InputError: where all images are of class 1, and the output may be a logit as well as a probability.

    Example:
        >>> as_regression(as_classifier(model), x, y).conventions.outputs
        'regression'
    """
    _check_probability(classifier, x, y)
    asked = classifier.asked
    if asked is not None and asked.conventions.outputs != classifier.conventions.outputs and is_stale(classifier):
        return _asked_again(classifier, asked, x, y)
    said, probed = classifier.conventions, classifier.probed
    if (probed.width, probed.outputs, said.outputs) != (1, "logits", "auto") or classifier.labels is not None:
        return classifier
    if not classifier.repeats or (classifier in _LOGITS and _LOGITS[classifier] == mark_of(classifier)):
        return classifier
    x, y = mixed(x, y, SEEN)
    if np.bincount(y, minlength=2).min() < FEWEST:
        return classifier
    shape, x = x.shape[1:], as_taken(classifier, x)
    # Integers have one range. What isn't said of others may be any.
    own = {(said.input_range, said.colors): classifier.adapter}
    found = logits_by(classifier, own if classifier.adapter.whole else conversions_left(said, x.shape[-1]), x)
    guesses = (y - y.mean()) ** 2
    fitting = {
        key: logits
        for key, logits in found.items()
        # A logit can't be: one that is this near to the labels would not be about 0 where both classes are as likely.
        if clearly_lower((logits[:, 1] - y) ** 2, guesses)
        and ((logits[:, 1] > 0.5) == y).sum() >= ((logits[:, 1] > 0) == y).sum()
    }
    if fitting:
        losses = {key: calibrated_loss(logits - [0, 0.5], y)[0] for key, logits in fitting.items()}
        best = min(losses, key=lambda key: losses[key].mean())
        numbers = losses[best]
        if not any(clearly_lower(calibrated_loss(logits, y)[0], numbers) for logits in found.values()):
            now = dataclasses.replace(said, outputs="regression")
            read = classifier_with(classifier.model, now, image_shape=shape)
            better, before = (f"{100 * np.mean((fitting[best][:, 1] > limit) == y):.1f} %" for limit in (0.5, 0))
            read.notes.append(f"{FOUND_OUT} {len(x)} images: {better} are right so, and {before} as a logit.")
            return marked(read, classifier)
    # An untrained network may become either.
    if len(x) == SEEN and any(clearly_lower(calibrated_loss(logits, y)[0], guessing(y)) for logits in found.values()):
        _LOGITS[classifier] = mark_of(classifier)
    return classifier


def _asked_again(classifier: Classifier, asked: Classifier, x: np.ndarray, y: np.ndarray) -> Classifier:
    """Returns what images show of other weights than those that the classifier was found with."""
    if np.bincount(y, minlength=2).min() < FEWEST:
        return classifier
    again = as_regression(asked, x, y)
    return again if again is not asked else classifier_with(asked.model, asked.conventions, image_shape=x.shape[1:])


def _check_probability(classifier: Classifier, x: np.ndarray, y: np.ndarray) -> None:
    """Raises InputError where all images are of class 1, and clearly more of them are right if the output is a logit.

    Logits from 0 to 1, as all outputs are that were taken for probabilities, say class 1 of every image.
    """
    said, probed = classifier.conventions, classifier.probed
    guessed = (probed.width, probed.outputs, said.outputs) == (1, "sigmoid", "auto") and classifier.labels is None
    if not guessed or ending(classifier.network) == "sigmoid" or len(y) < FEWEST or not (y == 1).all():
        return
    x, y = mixed(as_taken(classifier, x), y, SEEN)
    for logits in logits_by(classifier, {(said.input_range, said.colors): classifier.adapter}, x).values():
        right = logits.argmax(axis=1) == y
        if clearly_more(np.ones(len(y), bool), right):
            raise InputError(
                f"Expected images of several classes, to find out what the one output of {classifier.name!r} is. "
                f"Received: images of class 1, of which {100 * right.mean():.1f} % are right if it is a probability, "
                "and all if it is a logit. Give more, or say --outputs sigmoid or --outputs logits (outputs= of "
                "as_classifier)."
            )
