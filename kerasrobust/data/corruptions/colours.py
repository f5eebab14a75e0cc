"""Colours of images: grey ones as three equal channels, and brightness and saturation."""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np

from kerasrobust.data.corruptions.draws import Draws

LUMA = np.array([0.299, 0.587, 0.114])
"""Shares of red, green and blue in grey (ITU-R BT.601)."""

Corruption = Callable[[np.ndarray, int, Draws], np.ndarray]
"""Takes images, float64 (N, H, W, C) with values n/255, the severity and the images' random numbers; returns images of
the same shape in [0, 1], which may go beyond and are then clipped, or uint8 where it rounds by itself."""


def grey(images: np.ndarray) -> np.ndarray:
    """Returns the grey, (N, H, W, 1), of images with three channels."""
    return (images @ LUMA)[..., None]


def in_colour(corruption: Corruption) -> Corruption:
    """Returns a corruption that takes grey images as three equal channels, and gives back the grey of its own."""

    @functools.wraps(corruption)
    def corrupted(images: np.ndarray, severity: int, draws: Draws) -> np.ndarray:
        if images.shape[3] == 3:
            return corruption(images, severity, draws)
        return grey(np.clip(corruption(np.repeat(images, 3, axis=3), severity, draws), 0, 1))

    return corrupted


def brightened(images: np.ndarray, by: float) -> np.ndarray:
    """Returns images with their value (the largest channel, V of HSV) increased, up to 1; hue and saturation stay."""
    value = images.max(axis=3, keepdims=True)
    # Black has no hue, and becomes grey.
    shares = np.divide(images, value, out=np.ones_like(images), where=value > 0)
    return np.clip(value + by, 0, 1) * shares


def saturated(images: np.ndarray, factor: float, by: float) -> np.ndarray:
    """Returns images with their saturation (S of HSV) times a factor and increased, between 0 and 1.

    Grey has no hue, and where its saturation is increased it turns red, whose hue is 0.
    """
    value = images.max(axis=3, keepdims=True)
    spread = value - images.min(axis=3, keepdims=True)
    red = np.broadcast_to(np.array([0.0, 1.0, 1.0]), images.shape)
    below = np.divide(value - images, spread, out=red.copy(), where=spread > 0)
    saturation = np.divide(spread, value, out=np.zeros_like(value), where=value > 0)
    return value * (1 - np.clip(saturation * factor + by, 0, 1) * below)
