"""Images and labels as people have them, checked against a model."""

from __future__ import annotations

from typing import Any

import numpy as np

from kerasrobust.errors import InputError
from kerasrobust.networks.classifier import Classifier


def check_images(classifier: Classifier, x: Any, y: Any) -> tuple[np.ndarray, np.ndarray]:
    """Returns images and labels as float32 and int64 arrays, checked against the model.

    Args:
        classifier: the model that they are for.
        x: floating (N, H, W, C) in [0, 1].
        y: integer (N,), from 0 to classes - 1.

    Returns:
        float32 (N, H, W, C) and int64 (N,).

    Raises:
        InputError: for another rank, dtype, length or shape, values outside [0, 1], NaN, wrong labels or no images.
    """
    x, y = np.asarray(x), np.asarray(y)
    if x.ndim != 4 or len(x) == 0:
        raise InputError(
            f"Expected images of shape (N, height, width, channels), at least one. Received: shape {x.shape}. "
            "Add a missing axis as in x[None]; ask for a larger split where there are none."
        )
    if not np.issubdtype(x.dtype, np.floating):
        raise InputError(
            f"Expected floating images in [0, 1]. Received: dtype {x.dtype}. Divide 8-bit images by 255 as float32."
        )
    x = x.astype(np.float32, copy=False)
    low, high = float(x.min()), float(x.max())
    if not (low >= 0 and high <= 1):  # Written this way so that NaN fails as well.
        raise InputError(
            f"Expected images in [0, 1] without NaN. Received: values from {low:.4g} to {high:.4g}. "
            "Scale them, and put the model's own normalisation into the model."
        )
    if y.shape != (len(x),) or not np.issubdtype(y.dtype, np.integer):
        raise InputError(
            f"Expected {len(x)} integer labels of shape ({len(x)},). Received: {y.dtype} of shape {y.shape}. "
            "Give one class index per image (argmax of one-hot labels)."
        )
    if y.min() < 0 or y.max() >= classifier.classes:
        raise InputError(
            f"Expected labels from 0 to {classifier.classes - 1}. Received: {y.min()} to {y.max()}. "
            "Choose the data that the model was trained on."
        )
    classifier.check_shape(x.shape[1:])
    return x, y.astype(np.int64, copy=False)
