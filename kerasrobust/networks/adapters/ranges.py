"""Which range of pixels and order of colours a model was trained on, found out on images with labels.

Each conversion is tried on a few hundred of them, and `choosing` has the rule that chooses between them.
"""

from __future__ import annotations

import dataclasses
import math
import weakref

import numpy as np

from kerasrobust.errors import InputError
from kerasrobust.networks.adapters.adapter import Adapter, Conventions, applied, converted, range_words
from kerasrobust.networks.adapters.choosing import COUNTS, FEWEST, GAIN, PLAIN, Choice, choice_of
from kerasrobust.networks.adapters.first_layers import range_shown
from kerasrobust.networks.adapters.regression import as_regression
from kerasrobust.networks.adapters.trials import (
    FOUND_OUT,
    as_taken,
    calibrated_loss,
    clearly_lower,
    conversions_left,
    is_stale,
    logits_by,
    logits_for,
    mark_of,
    marked,
    mixed,
)
from kerasrobust.networks.classifier import Classifier
from kerasrobust.networks.making import classifier_with, of_labels
from kerasrobust.networks.remarks import Doubt

LEAST = 10
"""The fewest images that are looked at, where there are as many classes."""

SOUND = 0.65
"""The share of what a conversion is right above guessing from which [0, 1] may be the range all the same, of images
that were changed: fog is undone by subtracting a mean."""

_SETTLED: weakref.WeakKeyDictionary[Classifier, tuple[int, float]] = weakref.WeakKeyDictionary()
"""Those that were found to take [0, 1], so that it isn't asked again: the marks of their weights, and what share of the
images was right."""

_UNDOUBTED: weakref.WeakKeyDictionary[Classifier, list[str]] = weakref.WeakKeyDictionary()
"""What there is to say of those whose range isn't clear, but for that."""

_EACH = ("each", "rgb")


def understood(classifier: Classifier, x: np.ndarray, y: np.ndarray) -> Classifier:
    """Returns the classifier with the range and the order of colours that images with labels show.

    Nothing changes where they were said, or where [0, 1] and RGB fit as well as any. What the model's first layers show
    takes the place of [0, 1] there. Once its weights have changed they are asked again; of fewer than 100 images, what
    was found before takes that place.

    Args:
        classifier: the model.
        x: float32 (N, H, W, C) in [0, 1].
        y: int64 (N,), their classes.

    Raises:
        InputError: where [0, 1] is clearly wrong, and several others fit equally well.

    Example:
        >>> understood(as_classifier(model), x, y).conventions.input_range
        '-1,1'
    """
    before, asked = _before(classifier)
    classifier = as_regression(asked, x, y)
    before = before if classifier is asked else None
    said = classifier.conventions
    if not _is_open(classifier) or (before is None and _is_settled(classifier, x, y)):
        return classifier
    classifier.notes = _UNDOUBTED.pop(classifier, classifier.notes)  # What more images show counts.
    plain = _plain(said)
    shown = range_shown(classifier.network) if said.input_range == "auto" else ""
    if shown == PLAIN[0] and said.colors == "auto":  # As our own networks show it, which then cost nothing.
        return classifier
    x, y = mixed(x, y, COUNTS[-1])
    shape, x = x.shape[1:], as_taken(classifier, x)
    default = shown or plain[0], plain[1]
    if before is not None and len(x) < COUNTS[0]:
        default = _conversion(before)
    choice, seen = _looked(classifier, x, y, default, plain)
    if before is not None and choice.best == _conversion(before) and plain not in choice.rivals:
        note = _found_out(classifier, choice, seen, plain)
        return before if seen < COUNTS[0] else _confirmed(before, classifier, note)
    if before is not None and (choice.best == plain or plain in choice.rivals):
        classifier = _read_with(classifier, said, shape)
    if choice.best not in (default, plain):
        _check_several(classifier.name, choice, plain, y[:seen])
    # Of images of one class nothing is found out.
    doubted = choice.best == plain and choice.other is not None and seen >= FEWEST and not _of_one_class(y[:seen])
    if plain in choice.rivals or doubted:
        _UNDOUBTED[classifier] = classifier.notes
        classifier.notes = [*classifier.notes, _unclear(classifier.name, choice, seen)]
    if seen >= FEWEST and said.input_range == "auto" and plain not in choice.rivals:
        fit = [choice.best, *choice.rivals, *([choice.other] if choice.other else [])]
        _check_own(classifier, x[: COUNTS[1]], y[: COUNTS[1]], fit)
    if choice.best == plain or plain in choice.rivals:
        if choice.clear and seen >= COUNTS[0]:  # More images, or more training, may tell what these don't.
            _SETTLED[classifier] = mark_of(classifier), choice.accuracy[1]
        return classifier
    _check_one(classifier.name, choice, seen)
    now = dataclasses.replace(said, input_range=choice.best[0], colors=choice.best[1])
    found = _read_with(classifier, now, shape)
    found.notes.append(_found_out(classifier, choice, seen, plain))
    return marked(found, classifier)


def _is_open(classifier: Classifier) -> bool:
    """Returns whether images could tell more of a model than was said."""
    # Noise that can't be switched off is drowned by large pixels, so that any range may look better.
    return not (classifier.conventions.fixed or classifier.adapter.whole) and classifier.repeats


def _is_settled(classifier: Classifier, x: np.ndarray, y: np.ndarray) -> bool:
    """Returns whether it was found to take [0, 1], with these weights, or is right so as often as with those then.

    That spares those in training most of the trials.
    """
    if classifier not in _SETTLED:
        return False
    (mark, share), now = _SETTLED[classifier], mark_of(classifier)
    if mark == now:
        return True
    x, y = mixed(x, y, COUNTS[0])
    logits = logits_by(classifier, {PLAIN: classifier.adapter}, as_taken(classifier, x))
    right = float(np.mean([found.argmax(axis=1) == y for found in logits.values()])) if logits else 0.0
    if right < share - 2 * math.sqrt(share * (1 - share) / len(y)):
        return False
    _SETTLED[classifier] = now, share
    return True


def _plain(said: Conventions) -> tuple[str, str]:
    """Returns what counts where images tell nothing."""
    return (
        PLAIN[0] if said.input_range == "auto" else said.input_range,
        PLAIN[1] if said.colors == "auto" else said.colors,
    )


def _before(classifier: Classifier) -> tuple[Classifier | None, Classifier]:
    """Returns a classifier whose range or colours were found out for other weights, and what it was before that.

    None, and the classifier itself, where they weren't.
    """
    asked = classifier.asked
    if asked is None or _conversion(asked) == _conversion(classifier) or not is_stale(classifier):
        return None, classifier
    return classifier, asked


def _confirmed(before: Classifier, asked: Classifier, note: str) -> Classifier:
    """Returns a classifier of which images have told again what they told before, of the weights as they are now."""
    before.notes = [*(other for other in before.notes if not other.startswith(FOUND_OUT)), note]
    return marked(before, asked)


def _conversion(classifier: Classifier) -> tuple[str, str]:
    return classifier.conventions.input_range, classifier.conventions.colors


def _read_with(classifier: Classifier, said: Conventions, shape: tuple[int, ...]) -> Classifier:
    """Returns a new classifier of the same model with other conventions, which from now on is the model's."""
    found = classifier_with(classifier.model, said, image_shape=shape)
    return found if classifier.labels is None else of_labels(found, classifier.labels.count)


def _found_out(classifier: Classifier, choice: Choice, seen: int, plain: tuple[str, str]) -> str:
    """Returns what there is to say of a conversion that was found out."""
    if not any(choice.accuracy):
        return "Its first layer shows it."
    better, before = (f"{100 * share:.1f} %" for share in choice.accuracy)
    than = f"{range_words(plain[0])} and {plain[1].upper()}"
    note = f"{FOUND_OUT} {seen} images: {better} are right so, and {before} in {than}."
    share, other = (accuracy - 1 / classifier.classes for accuracy in choice.accuracy)
    if classifier.conventions.input_range == "auto" and choice.best[0] != plain[0] and other > SOUND * share:
        note += " If these images were changed, as by fog or low contrast, say the range that it takes."
    return note


def _looked(
    classifier: Classifier, x: np.ndarray, y: np.ndarray, default: tuple[str, str], plain: tuple[str, str]
) -> tuple[Choice, int]:
    """Returns what the images show, and how many of them were looked at: more, the longer it stays open."""
    choice, seen = Choice(default), 0
    if len(x) >= min(classifier.classes, LEAST):
        said = classifier.conventions
        tried = conversions_left(said, x.shape[-1])
        if default not in tried:
            tried |= conversions_left(dataclasses.replace(said, input_range=default[0]), x.shape[-1])
        for seen in dict.fromkeys(min(count, len(x)) for count in COUNTS):
            choice = choice_of(logits_by(classifier, tried, x[:seen]), y[:seen], default, plain)
            if choice.clear:
                break
    return choice, seen


def _check_one(name: str, choice: Choice, seen: int) -> None:
    """Raises InputError where several conversions fit equally well."""
    if choice.rivals:
        fitting = " and ".join(sorted({name[0] for name in (choice.best, *choice.rivals)}))
        raise InputError(
            f"Expected the range of pixels that {name!r} takes. Received: none, and it isn't [0, 1], where "
            f"{100 * choice.accuracy[1]:.1f} % of {seen} images are right: {fitting} fit equally well. Say which by "
            "--input-range, or input_range= of as_classifier."
        )


def _check_several(name: str, choice: Choice, plain: tuple[str, str], y: np.ndarray) -> None:
    """Raises InputError where a conversion is best as all images are of the one class that it makes of any.

    Large pixels drive most models to one class, and of small ones some make one too.
    """
    better, before = choice.accuracy
    if better == 1 and _of_one_class(y):
        raise InputError(
            f"Expected images of several classes, to find out the range of pixels that {name!r} takes. Received: one "
            f"class, of which {100 * before:.1f} % of {len(y)} images are right in {range_words(plain[0])}, and all in "
            f"{range_words(choice.best[0])}. Give more, or say the range by --input-range, or input_range= of "
            "as_classifier."
        )


def _of_one_class(y: np.ndarray) -> bool:
    return bool((y == y[0]).all())


def _check_own(classifier: Classifier, x: np.ndarray, y: np.ndarray, fitting: list[tuple[str, str]]) -> None:
    """Raises InputError where a model fits images better that were changed by their own mean, or deviation too.

    Better than by the best of `fitting`, that is. Those of its training images aren't known, and so can only be asked
    for.
    """
    said, dims = classifier.conventions, (0, 1, 2)
    mean, deviation, ones = x.mean(axis=dims), x.std(axis=dims), np.ones(x.shape[-1])
    if not deviation.all():
        return
    pairs = ((mean, ones), (mean, ones / 255), (mean, deviation), (x.mean() * ones, x.std() * ones))
    ranges = ["/".join(",".join(f"{v:.3g}" for v in part) for part in pair) for pair in pairs]
    words = {(name, "rgb"): name for name in ranges} | {key: key[0] for key in fitting}
    pixels = {
        key: converted(applied(Adapter(), dataclasses.replace(said, input_range=name, colors=key[1])), x)
        for key, name in words.items()
    } | {_EACH: _standardized(x)}
    found = logits_for(classifier, pixels)
    losses = {key: calibrated_loss(logits, y)[0] for key, logits in found.items()}
    best = min((key for key in fitting if key in found), key=lambda key: losses[key].mean(), default=None)
    if best is None:
        return
    own = min(losses, key=lambda key: losses[key].mean())
    rights = {key: float((found[key].argmax(axis=1) == y).mean()) for key in (own, best)}
    if clearly_lower(losses[own], losses[best], GAIN) and rights[own] > rights[best]:
        better, before = (f"{100 * rights[key]:.1f} %" for key in (own, best))
        how = "standardised one by one" if own == _EACH else "less their mean"
        changed = "by --input-range, or input_range= of as_classifier, the range that it takes"
        advice = (
            "Put tf.image.per_image_standardization, or what was done to its training images, into the model; or say "
            f"{changed}, if it is these images that were changed, as by fog or low contrast."
            if own == _EACH
            else f"Say {changed}, if it is these images that were changed, as by fog or low contrast; otherwise the "
            f"MEAN/STD of its training images; these have {own[0]}."
        )
        raise InputError(
            f"Expected the range of pixels that {classifier.name!r} takes. Received: none, and of {len(x)} images "
            f"{better} are right {how}, and {before} with {range_words(best[0])}. {advice}"
        )


def _standardized(x: np.ndarray) -> np.ndarray:
    """Returns images as `tf.image.per_image_standardization` gives them."""
    axes = (1, 2, 3)
    least = 1 / np.sqrt(x[0].size)
    return (x - x.mean(axis=axes, keepdims=True)) / np.maximum(x.std(axis=axes, keepdims=True), least)


def _unclear(name: str, choice: Choice, seen: int) -> Doubt:
    better, plain = (f"{100 * share:.1f} %" for share in choice.accuracy)
    return Doubt(
        f"Whether {name!r} takes pixels in [0, 1] isn't clear: {plain} of {seen} images are right so, and {better} "
        f"in {range_words((choice.other or choice.best)[0])}. It was taken to; say so by --input-range, or try more "
        "images."
    )
