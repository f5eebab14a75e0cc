"""Transfer: examples are made by the gradients of one model, the surrogate, and judged by another."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from kerasrobust.attacks.algorithm import Algorithm
from kerasrobust.errors import InputError
from kerasrobust.networks.classifier import Classifier
from kerasrobust.networks.making import classifier_of


def surrogate_of(classifier: Classifier, surrogate: Any, shape: tuple[int, ...]) -> Classifier:
    """Returns the classifier of a surrogate.

    Args:
        classifier: the attacked model.
        surrogate: Keras model, SavedModel network, TensorFlow callable giving logits, or a `Classifier`.
        shape: height, width and channels of the images, as the attacked model takes them.

    Raises:
        InputError: for one of other images or classes, one without gradients, and where images have several labels.

    Example:
        >>> surrogate_of(as_classifier(model), other, x.shape[1:]).name
        'convnet'
    """
    try:
        found = classifier_of(surrogate, image_shape=shape)
    except InputError as error:
        raise InputError(of_surrogate(str(error))) from error
    if classifier.labels is not None or found.labels is not None:
        raise InputError(
            "Expected one label an image for a surrogate. Received: several, each by itself. Leave the surrogate out."
        )
    if found.classes != classifier.classes:
        raise InputError(
            f"Expected a surrogate of {classifier.classes} classes, as {classifier.name!r} has. Received: "
            f"{found.name!r} with {found.classes}. Choose one that was trained on the same data."
        )
    if found.arrays:
        raise without_slope(found)
    return found


def of_surrogate(text: str) -> str:
    """Returns what is said of a surrogate, with what to do where that names an option of the command line.

    There, options say what the attacked model takes; what the surrogate takes is said by its card.

    Example:
        >>> of_surrogate("Expected an image. Received: none. Give one.")
        'Expected an image. Received: none. Give one. It was given as the surrogate.'
    """
    if " --" not in text:
        return f"{text} It was given as the surrogate."
    return (
        f"{text} It was given as the surrogate, and options of an attack are about the attacked model: import the "
        "surrogate with this option first (kerasrobust import --model FILE --name NAME), then give --surrogate NAME."
    )


def without_slope(surrogate: Classifier) -> InputError:
    """Returns the error that says that a surrogate has no gradients."""
    return InputError(
        f"Expected a surrogate whose gradients reach the images. Received: {surrogate.name!r}, where none does. "
        "Choose another model."
    )


def check_transfers(attacks: Iterable[Algorithm[Any]]) -> None:
    """Raises InputError for attacks that ask the attacked model itself, so that a surrogate is nothing to them."""
    blind = [attack.name for attack in attacks if attack.gradient_free]
    if blind:
        raise InputError(
            f"Expected attacks on gradients for a surrogate. Received: {', '.join(blind)}, which asks the attacked "
            "model itself. Leave it out; of autoattack name the other parts: apgd-ce,apgd-t,fab-t."
        )
