"""The range of pixels that a Keras model's first layers show, before any image was looked at."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from keras import layers

from kerasrobust.networks.architectures import graph_of, is_graph

KEEPING = (
    layers.InputLayer,
    layers.Resizing.__base__,  # Of all that augment images, resize or crop them: Keras has no public name for it.
    layers.ZeroPadding2D,
    layers.Cropping2D,
    layers.UpSampling2D,
    layers.MaxPooling2D,
    layers.AveragePooling2D,
    layers.Permute,
    layers.Reshape,
    layers.Concatenate,
    layers.Identity,
    layers.Dropout,
    layers.GaussianNoise,
    layers.GaussianDropout,
)
"""Layers that leave the range of pixels as it is at inference."""

OPERATIONS = ("Cast", "Concatenate", "Flip", "GetItem", "Pad", "Repeat", "Resize", "Reshape", "Tile", "Transpose")
"""Names of those of `keras.ops` that do, as reversing the order of colours does."""

LEVELS = 15
"""The least number of levels of grey that a first layer shows, as images of 4 bits have them."""


def range_shown(network: Any) -> str:
    """Returns the range that a Keras model's first layers show, as "0,255" or "0,16"; "" where they show none.

    A Rescaling shows the range that it takes to [0, 1], [-1, 1] or the like, as in the applications of Keras that hold
    their preprocessing; a `Normalization` that was adapted to 8-bit pixels tells them by its mean. Behind anything that
    changes pixels they show none.

    Example:
        >>> range_shown(keras.applications.EfficientNetB0(weights=None))
        '0,255'
    """
    for part in _parts(network):
        if isinstance(part, layers.Rescaling):
            return _rescaled(np.ravel(part.scale).astype(float), np.ravel(part.offset).astype(float))
        if isinstance(part, layers.Normalization):
            mean = part.input_mean if part.mean is None else part.mean  # The latter comes when it is built.
            return "0,255" if mean is not None and float(np.max(mean)) > 2 else ""
        if not isinstance(part, KEEPING) and type(part).__name__ not in OPERATIONS:
            return ""
    return ""


def _parts(network: Any) -> Iterator[Any]:
    """Yields the layers and operations of a graph in their order, those of graphs within it among them."""
    if not is_graph(network):
        yield network
        return
    # A Sequential that wasn't built has layers, but no operations.
    for part in getattr(graph_of(network), "operations", network.layers):
        yield from _parts(part)


def _rescaled(scale: np.ndarray, offset: np.ndarray) -> str:
    """Returns the range that is taken to [0, 1] or [0, 255], or to one around 0; "" where none is."""
    if (scale <= 0).any():
        return ""
    if (offset < 0).all():
        highest = float(np.mean(-2 * offset / scale))
        return next((f"0,{usual}" for usual in (1, 255) if abs(highest / usual - 1) < 0.3), "")
    if len(scale) > 1 or len(offset) > 1:
        return ""
    low, high = -offset[0] / scale[0], (1 - offset[0]) / scale[0]
    if offset[0] > 0:  # From [-1, 1], to [0, 1] or to [0, 255].
        highs = high, (255 - offset[0]) / scale[0]
        return "-1,1" if abs(low + 1) < 0.05 and min(abs(value - 1) for value in highs) < 0.05 else ""
    if scale[0] == 255:
        return "0,1"
    # Small factors are weights of a network more often than counts of levels; 1 changes nothing.
    return f"0,{high:.6g}" if high >= LEVELS else ""
