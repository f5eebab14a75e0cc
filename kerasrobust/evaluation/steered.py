"""The deterministic networks that a randomized one is with its noise off, or frozen to one draw."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Literal

import keras
import tensorflow as tf

from kerasrobust.networks.classifier import Classifier
from kerasrobust.networks.making import as_classifier
from kerasrobust.networks.noise import is_noisy, keyed_noise, noise_off


def can_be_steered(classifier: Classifier) -> bool:
    """Returns whether a network's noise can be switched off and frozen: that of `RandomDropout` layers can."""
    model = classifier.model
    return classifier.seedable and isinstance(model, keras.Model) and is_noisy(model)


def steered(
    classifier: Classifier, noise: Literal["off", "frozen"], image_shape: tuple[int, ...], seed: int = 0
) -> Classifier:
    """Returns the deterministic network that a randomized one is while its noise is steered, on the same weights.

    Args:
        classifier: a network that `can_be_steered`.
        noise: "off", or "frozen" to one draw, the same for all images.
        image_shape: height, width and channels of the images that it will see.
        seed: of that draw.

    Example:
        >>> evaluate(steered(as_classifier(model), "frozen", (32, 32, 3)), x, y, attacks="pgd").robust_accuracy
    """
    key = tf.constant([seed % 2**31, 11])
    steering: dict[str, Callable[[], contextlib.AbstractContextManager[None]]] = {
        "off": noise_off,
        "frozen": lambda: keyed_noise(key, shared=True),
    }

    def forward(images: tf.Tensor) -> tf.Tensor:
        with steering[noise]():
            return classifier(images)

    # The network around it has settled how it takes images.
    return as_classifier(forward, image_shape=image_shape, input_range="0,1", colors="rgb", outputs="logits")
