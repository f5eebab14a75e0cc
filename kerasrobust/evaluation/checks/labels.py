"""A check of the labels: whether they are those that the model means."""

from __future__ import annotations

import numpy as np

from kerasrobust.attacks.verdict import predict
from kerasrobust.evaluation.case import Case, finding, percent
from kerasrobust.events import Finding
from kerasrobust.stats import wilson

LEAST = 20
"""Images below which guessing can't be told from knowing."""


def at_chance(case: Case) -> list[Finding]:
    """Whether the model is right no more often than by guessing, and what would fit better."""
    y, classes = case.y, case.classifier.classes
    said = case.found.clean.prediction
    right = float(case.found.clean.correct_rate.sum())
    if len(y) < LEAST or wilson(right, len(y))[0] > 1 / classes:
        return []
    share, guessed = right / len(y), percent(1 / classes)
    if share > 1 / classes and len(np.unique(said)) > 1:
        message = (
            f"{len(y)} unchanged images don't show that the model is right more often ({percent(share)}) than by "
            f"guessing among {classes} classes ({guessed}). Take more images."
        )
        return finding("at-chance", message, accuracy=share, chance=1 / classes)
    return finding(
        "at-chance",
        f"The model is right on {percent(share)} of {len(y)} unchanged images, no more than by guessing among "
        f"{classes} classes ({guessed}): a robust accuracy says nothing then. {_better(case, said)}",
        "error",
        accuracy=share,
        chance=1 / classes,
    )


def _better(case: Case, said: np.ndarray) -> str:
    """Returns what explains it, as far as the predictions show."""
    y, classes = case.y, case.classifier.classes
    if len(np.unique(said)) == 1:
        return f"It says class {said[0]} of every image: it was trained on images in another range or layout, or not."
    for shift in (-1, 1):
        share = float((said == y + shift).mean())
        if wilson(share * len(y), len(y))[0] > 2 / classes:
            change = "1 taken from" if shift < 0 else "1 added to"
            return f"With {change} each label it is right on {percent(share)}: count from the same number on."
    half = len(y) // 2
    # Which label each answer stands for, from one half of the images, and how often that is right on the other.
    table = np.zeros((classes, classes), np.int64)
    np.add.at(table, (said[:half], y[:half]), 1)
    share = float((table.argmax(axis=1)[said[half:]] == y[half:]).mean())
    if wilson(share * (len(y) - half), len(y) - half)[0] > 2 / classes:
        return f"With its classes in another order it is right on {percent(share)}: compare the names of the classes."
    logits = predict(case.classifier, case.x[:LEAST], batch_size=min(case.task.batch_size, LEAST))
    if (abs(np.linalg.norm(logits, axis=1) - 1) < 1e-3).all():
        return "Its outputs are vectors of length 1: an embedding, no classes. Put a classifier on top."
    if classes > (there := len(np.unique(y))):
        return f"The data have {there} of its {classes} classes: compare their names with the model's."
    return "Give the data that it was trained for, or train it."
