"""A check of the labels: whether they are those that the model means."""

from __future__ import annotations

import numpy as np

from kerasrobust.attacks.task import Task
from kerasrobust.attacks.verdict import Verdict, predict
from kerasrobust.evaluation.case import finding, percent
from kerasrobust.events import Finding
from kerasrobust.networks.classifier import Classifier
from kerasrobust.stats import wilson

LEAST = 20
"""Images below which guessing can't be told from knowing."""
FEW = 5
"""Images of other classes that have to be there before it means something that a model always says the same."""


def at_chance(task: Task, clean: Verdict) -> list[Finding]:
    """Whether a model is right no more often than by guessing, and what would fit better.

    Args:
        task: what will be attacked.
        clean: the verdict on its images.
    """
    y, classes = task.y, task.classifier.classes
    said = clean.prediction
    right = float(clean.correct_rate.sum())
    if len(y) < LEAST:
        return []
    share, what = right / len(y), "patterns of labels" if _of_patterns(task.classifier) else "classes"
    # Of classes that aren't equally frequent, whoever always says the same one is right more often than by guessing.
    if len(np.unique(said)) == 1 and (y != said[0]).sum() >= FEW and share > 1 / classes:
        return finding(
            "at-chance",
            f"The model is right on {percent(share)} of {len(y)} unchanged images, as often as who always says the "
            f"same: a robust accuracy says nothing then. {_better(task, said)}",
            "error",
            accuracy=share,
            chance=share,
        )
    if wilson(right, len(y))[0] > 1 / classes:
        return []
    guessed = percent(1 / classes)
    if share > 1 / classes and len(np.unique(said)) > 1:
        message = (
            f"{len(y)} unchanged images don't show that the model is right more often ({percent(share)}) than by "
            f"guessing among {classes:,} {what} ({guessed}). Take more images."
        )
        return finding("at-chance", message, accuracy=share, chance=1 / classes)
    return finding(
        "at-chance",
        f"The model is right on {percent(share)} of {len(y)} unchanged images, no more than by guessing among "
        f"{classes:,} {what} ({guessed}): a robust accuracy says nothing then. {_better(task, said)}",
        "error",
        accuracy=share,
        chance=1 / classes,
    )


def _of_patterns(classifier: Classifier) -> bool:
    labels = classifier.labels
    return labels is not None and labels.chosen is None


def _words(classifier: Classifier, number: int) -> str:
    """Returns a class as a sentence has it; that of a label alone is no or yes, that of several those which are 1."""
    labels = classifier.labels
    if labels is None:
        return f"class {number}"
    if labels.chosen is not None:
        return "yes" if number else "no"
    ones = [str(j) for j in range(labels.count) if number >> j & 1]
    return f"label {' and '.join(ones)}" if ones else "no label"


def _better(task: Task, said: np.ndarray) -> str:
    """Returns what explains it, as far as the predictions show."""
    y, classes = task.y, task.classifier.classes
    logits = predict(task.classifier, task.x[:LEAST], batch_size=min(task.batch_size, LEAST))
    # Class numbers are rows of a single 1.
    if (abs(np.linalg.norm(logits, axis=1) - 1) < 1e-3).all() and abs(logits).max() < 0.999:
        return "Its outputs are vectors of length 1: an embedding, no classes. Put a classifier on top."
    if len(np.unique(said)) == 1:
        constant = _words(task.classifier, said[0])
        return (
            f"It says {constant} of every image: it was trained on images in another range or layout, or not at all. "
            "Say what it takes by --input-range and --channels (input_range=, channels= of as_classifier)."
        )
    if (labels := task.classifier.labels) is not None:
        if labels.chosen is not None:
            return "Compare the order of the labels with that of the model's outputs."
        rights = [float(((said ^ y) >> j & 1 == 0).mean()) for j in range(labels.count)]
        return (
            f"Label by label it is right on {', '.join(map(percent, rights))}: compare their order with that of its "
            "outputs."
        )
    # Who knows no more than which class is the commonest is right so often; what explains it shows far more.
    usual = max(1 / classes, float(np.unique(y, return_counts=True)[1].max() / len(y)))
    enough = min(2 * usual, (1 + usual) / 2)
    for shift in (-1, 1):
        share = float((said == y + shift).mean())
        if wilson(share * len(y), len(y))[0] > enough:
            change = "1 taken from" if shift < 0 else "1 added to"
            return f"With {change} each label it is right on {percent(share)}: count from the same number on."
    half = len(y) // 2
    # Which label each answer stands for, from one half of the images, and how often that is right on the other.
    table = np.zeros((classes, classes), np.int64)
    np.add.at(table, (said[:half], y[:half]), 1)
    share = float((table.argmax(axis=1)[said[half:]] == y[half:]).mean())
    if wilson(share * (len(y) - half), len(y) - half)[0] > enough:
        return f"With its classes in another order it is right on {percent(share)}: compare the names of the classes."
    if classes > (there := len(np.unique(y))):
        return f"The data have {there} of its {classes} classes: compare their names with the model's."
    return "Give the data that it was trained for, or train it."
