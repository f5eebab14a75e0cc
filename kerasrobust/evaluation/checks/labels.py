"""A check of the labels: whether they are those that the model means."""

from __future__ import annotations

import numpy as np

from kerasrobust.attacks.task import Task
from kerasrobust.attacks.verdict import Verdict, predict
from kerasrobust.evaluation.case import finding, percent
from kerasrobust.events import Finding
from kerasrobust.networks.classifier import Classifier
from kerasrobust.stats import mcnemar, wilson

LEAST = 20
"""Images below which guessing can't be told from knowing."""
SURE = 1e-3
"""How likely it may be by chance that another order of the classes is right more often."""
GAIN = 0.08
"""By what share of the images another order has to be right more often: weak networks gain a little by chance."""
SHOWN = 3
"""Exchanged classes that are named."""
FEW = 5
"""Images of other classes that have to be there before it means something that a model always says the same."""

UNEXPLAINED = "Give the data that it was trained for, or train it."
TELLING = 0.2
"""A model may be right on more than that share of what guessing misses: too few images to say that it isn't."""

EMBEDDING = "Its outputs are vectors of length 1: an embedding, no classes. Put a classifier on top."


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
    if exchanged := _exchanged(task, said):
        return exchanged
    guess = _guess(said, y, classes)
    if wilson(right, len(y))[0] > guess:
        return []
    guessing = f"by guessing among {classes:,} {what}" if guess == 1 / classes else "with its answers in random order"
    better = _better(task, said)
    # Few images of a model that is right far more often may hold hardly any of those that it is right on.
    few = better == UNEXPLAINED and wilson(right, len(y))[1] > guess + TELLING * (1 - guess)
    if (share > guess or few) and len(np.unique(said)) > 1 and better != EMBEDDING:
        message = (
            f"{len(y)} unchanged images don't show that the model is right more often ({percent(share)}) than "
            f"{guessing} ({percent(guess)}). Take more images."
        )
        return finding("at-chance", message, accuracy=share, chance=guess)
    return finding(
        "at-chance",
        f"The model is right on {percent(share)} of {len(y)} unchanged images, no more than {guessing} "
        f"({percent(guess)}): a robust accuracy says nothing then. {better}",
        "error",
        accuracy=share,
        chance=guess,
    )


def _guess(said: np.ndarray, y: np.ndarray, classes: int) -> float:
    """Returns how often a model is right that knows nothing of an image: by guessing, or with its answers in random
    order, where that is more often.

    Who gives a few of many classes as answers, which are the labels' classes by chance, is right more often than by
    guessing among all.
    """
    known, counts = np.unique(y, return_counts=True)
    # Of images of one class any order of the answers is as good.
    if len(y) - counts.max() < FEW or len(np.unique(said)) == 1:
        return 1 / classes
    frequency = np.array([(said == number).mean() for number in known])
    return max(1 / classes, float(frequency @ counts) / len(y))


def classes_missing(task: Task) -> list[Finding]:
    """Whether the images are of one class, or of a quarter of the classes at most, as random ones would hardly be.

    Files may be sorted by class. More may be there, and others missing for a reason: outputs that stand for nothing.
    """
    y, classes = task.y, task.classifier.classes
    there = len(np.unique(y))
    by_chance = _expected_missing(len(y), classes) > SURE
    if task.classifier.labels is not None or by_chance or there > max(1, classes // 4):
        return []
    return finding(
        "classes-missing",
        f"The {len(y)} images are of {there} of the model's {classes:,} classes: the figures say nothing of the "
        "others. If the data are sorted by class, take images from all over them.",
        classes=there,
    )


def _exchanged(task: Task, said: np.ndarray) -> list[Finding]:
    """Whether a model is right on some, and clearly more often with some of its classes exchanged for others."""
    y, classes = task.y, task.classifier.classes
    plain = said == y
    # Where it is right no more than by guessing, or always says the same, there is more to say (`_better`).
    guessing = wilson(float(plain.sum()), len(y))[0] <= _guess(said, y, classes) or len(np.unique(said)) == 1
    if guessing or task.classifier.labels is not None:
        return []
    hits = _otherwise(said, y, classes)
    if hits.sum() < plain.sum() + GAIN * len(y):
        return []
    order = _order(said, y, classes)
    moved = [place for place in np.unique(said) if order[place] != place]
    pairs = ", ".join(f"{place} for {order[place]}" for place in moved[:SHOWN]) + (", ..." if moved[SHOWN:] else "")
    return finding(
        "class-order",
        f"The model is right on {percent(plain.mean())} of {len(y)} unchanged images, and on {percent(hits.mean())} "
        f"with some of its classes exchanged: it says {pairs}. Compare the names of the classes with the model's.",
        "error",
        accuracy=float(plain.mean()),
        accuracy_otherwise=float(hits.mean()),
    )


def _otherwise(said: np.ndarray, y: np.ndarray, classes: int) -> np.ndarray:
    """Returns which images are right with the classes in another order, bool (N,); none if it isn't clearly better."""
    # Each half is judged by the order that the other one shows.
    halves, plain, hits = np.arange(len(y)) % 2 == 0, said == y, np.zeros(len(y), bool)
    for half in (halves, ~halves):
        hits[half] = _order(said[~half], y[~half], classes)[said[half]] == y[half]
    better = hits.sum() > plain.sum()
    sure = mcnemar(int((hits & ~plain).sum()), int((plain & ~hits).sum())) <= SURE
    return hits if better and sure else np.zeros(len(y), bool)


def _order(said: np.ndarray, y: np.ndarray, classes: int) -> np.ndarray:
    """Returns which label each answer stands for, int (classes,), no two for the same: the most frequent pairs first.

    Answers that weren't given stand for themselves, where that label is left.
    """
    answers, labels, counts = _pairs(said, y, classes)
    order, taken = np.full(classes, -1), np.zeros(classes, bool)
    # Between equals, an answer stands for itself.
    for place in np.argsort(-2 * counts - (answers == labels), kind="stable"):
        answer, label = answers[place], labels[place]
        if order[answer] < 0 and not taken[label]:
            order[answer], taken[label] = label, True
    itself = np.flatnonzero((order < 0) & ~taken)
    order[itself], taken[itself] = itself, True
    order[order < 0] = np.flatnonzero(~taken)
    return order


def _pairs(said: np.ndarray, y: np.ndarray, classes: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns the pairs of an answer and a label that occur, in their order, and how often each does.

    A table of all pairs would take gigabytes for tens of thousands of classes.
    """
    pairs, counts = np.unique(said.astype(np.int64) * classes + y, return_counts=True)
    return pairs // classes, pairs % classes, counts


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
        return EMBEDDING
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
    answers, meanings, counts = _pairs(said[:half], y[:half], classes)
    commonest = np.lexsort((meanings, -counts, answers))
    given, first = np.unique(answers[commonest], return_index=True)
    meant = np.zeros(classes, np.int64)
    meant[given] = meanings[commonest][first]
    share = float((meant[said[half:]] == y[half:]).mean())
    known = wilson(share * (len(y) - half), len(y) - half)[0] > enough
    if not known and (hits := _otherwise(said, y, classes)).any():
        known, share = True, float(hits.mean())
    if known:
        return f"With its classes in another order it is right on {percent(share)}: compare the names of the classes."
    there, missing = len(np.unique(y)), _expected_missing(len(y), classes)
    # Three standard deviations more than random images would be without.
    if classes - there > missing + 3 * missing**0.5:
        return f"The data have {there} of its {classes} classes: compare their names with the model's."
    return UNEXPLAINED


def _expected_missing(count: int, classes: int) -> float:
    """Returns of how many classes, equally frequent, there is none among so many random images, in the mean."""
    return classes * (1 - 1 / classes) ** count
