"""What peers and plain versions of our attacks need of a Keras model."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np


def weights_of(model: keras.Model) -> dict[str, Any]:
    """Returns a ConvNet's weights by kind of layer, position and number."""
    weights: dict[str, Any] = {}
    for layer in model.layers:
        kind = type(layer).__name__.lower()
        position = sum(key.startswith(f"{kind}.") and key.endswith(".0") for key in weights)
        for number, weight in enumerate(layer.get_weights()):
            weights[f"{kind}.{position}.{number}"] = weight
        if isinstance(layer, keras.layers.BatchNormalization):
            weights[f"epsilon.{position}"] = np.float64(layer.epsilon)
    return weights
