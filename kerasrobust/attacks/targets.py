"""Which class each image is driven to by targeted attacks."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import tensorflow as tf

from kerasrobust.attacks.task import Task
from kerasrobust.attacks.verdict import predict
from kerasrobust.errors import InputError, unknown_name
from kerasrobust.names import TARGETS

NOWHERE = -1
"""The target of images that aren't attacked, as they are of the class that all are driven to."""


def aimed(task: Task, target: Any) -> Task:
    """Returns the task with the classes that its images are driven to, if there is a target; see `targets_of`."""
    return task if target is None else replace(task, target=targets_of(task, target))


def targets_of(task: Task, target: Any) -> np.ndarray:
    """Returns the class that each image is driven to, int64 (N,); `NOWHERE` for those that already are of it.

    Args:
        task: the images and the model.
        target: "next" for the class after the image's own, "random" for any other one, "least-likely" for the one with
            the lowest logit; a class for all, as a number; or integers (N,).

    Raises:
        InputError: for another word, a class that the model hasn't got, and a model of several labels an image.

    Example:
        >>> targets_of(task, "next")[:3], task.y[:3]
        (array([4, 9, 9]), array([3, 8, 8]))
    """
    classifier, y = task.classifier, task.y
    classes = classifier.classes
    if classifier.labels is not None:
        raise InputError(
            f"Expected one label an image for targets. Received: {classifier.labels.count}. Leave the target out."
        )
    if isinstance(target, str):
        if target == "next":
            return (y + 1) % classes
        if target == "random":
            return (y + np.random.default_rng(task.seed).integers(1, classes, len(y))) % classes
        if target == "least-likely":
            key = tf.constant([task.seed, 7]) if classifier.seedable else None
            logits = predict(classifier, task.x, batch_size=task.batch_size, key=key)
            # One masked by NaN is as unlikely as can be.
            logits = np.where(np.isnan(logits), -np.inf, logits)
            logits[np.arange(len(y)), y] = np.inf
            return logits.argmin(axis=1)
        raise unknown_name("target", target, TARGETS, ", or the number of a class")
    chosen = np.asarray(target)
    if chosen.dtype.kind not in "iu" or chosen.shape not in ((), y.shape):
        raise InputError(
            f"Expected a target: {', '.join(TARGETS)}, the number of a class, or one for each of {len(y)} images. "
            f"Received: {chosen.dtype} of shape {chosen.shape}. Check the targets."
        )
    if chosen.size and not ((chosen >= 0) & (chosen < classes)).all():
        received = " to ".join(map(str, dict.fromkeys((chosen.min(), chosen.max()))))
        raise InputError(
            f"Expected targets in 0..{classes - 1}, the classes of {classifier.name!r}. Received: {received}. "
            "Check the targets."
        )
    return np.where(chosen == y, NOWHERE, chosen).astype(np.int64)
