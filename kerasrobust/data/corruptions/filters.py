"""Linear filters along the sides of images, as matrices, and images read at other places."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np

Border = Literal["edge", "reflect", "symmetric"]
"""What lies outside an image: its last pixel again, or its mirror image, without that pixel or with it (`np.pad`)."""


ABOVE = 1e-9
"""Added to mixtures that are cut to whole levels. Those of equal pixels may end just below their level; whether they do
depends on the processor."""


def inside(places: np.ndarray, size: int, border: Border) -> np.ndarray:
    """Returns places along a side, which may lie outside, as the places of the pixels that stand there.

    Example:
        >>> inside(np.array([-2, -1, 0, 3, 4]), 4, "reflect")
        array([2, 1, 0, 3, 2])
    """
    if border == "edge":
        return np.clip(places, 0, size - 1)
    if border == "symmetric":
        folded = places % (2 * size)
        return np.minimum(folded, 2 * size - 1 - folded)
    around = max(2 * size - 2, 1)
    folded = places % around
    return np.minimum(folded, around - folded)


def along(rows: np.ndarray, columns: np.ndarray, images: np.ndarray) -> np.ndarray:
    """Returns images filtered along both sides.

    Args:
        rows: (H', H), each new row as a mixture of the old ones.
        columns: (W', W).
        images: (N, H, W, C).

    Returns:
        (N, H', W', C).
    """
    count, height, width, channels = images.shape
    mixed = (rows @ images.reshape(count, height, width * channels)).reshape(count, len(rows), width, channels)
    return columns @ mixed


def matrix(size: int, weights: np.ndarray, border: Border) -> np.ndarray:
    """Returns the matrix (size, size) of a filter of an odd number of weights, which are centred on each pixel."""
    made = np.zeros((size, size))
    radius = len(weights) // 2
    places = np.arange(size)
    for offset, weight in zip(range(-radius, radius + 1), weights, strict=True):
        np.add.at(made, (places, inside(places + offset, size, border)), weight)
    return made


def bell(sigma: float, radius: int) -> np.ndarray:
    """Returns the weights of a Gaussian filter, (2 radius + 1,), which sum to 1."""
    weights = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    return weights / weights.sum()


def gaussian(images: np.ndarray, sigma: float, *, border: Border = "edge", deviations: float = 4.0) -> np.ndarray:
    """Returns images (N, H, W, C) blurred by a Gaussian of `sigma` pixels, cut off after so many deviations."""
    if sigma == 0:
        return images
    weights = bell(sigma, int(deviations * sigma + 0.5))
    height, width = images.shape[1:3]
    return along(matrix(height, weights, border), matrix(width, weights, border), images)


def correlated(images: np.ndarray, kernel: np.ndarray, border: Border = "reflect") -> np.ndarray:
    """Returns images (N, H, W, C) correlated with a kernel (K, L) of odd sides that is centred on each pixel."""
    height, width = images.shape[1:3]
    out = np.zeros_like(images)
    for row, column in zip(*np.nonzero(kernel), strict=True):
        rows = inside(np.arange(height) + row - len(kernel) // 2, height, border)
        columns = inside(np.arange(width) + column - kernel.shape[1] // 2, width, border)
        out += kernel[row, column] * images[:, rows[:, None], columns]
    return out


def zoomed(size: int, factor: float) -> np.ndarray:
    """Returns the matrix (size, size) that enlarges the middle of a side by a factor of at least 1, linearly.

    The middle is a whole number of pixels, and so is what it is enlarged to: its first and last pixel stay the first
    and last, as `scipy.ndimage.zoom` has it, and what is more than `size` is cut off on both sides.
    """
    middle = math.ceil(size / factor)
    wide = round(middle * factor)
    step = (middle - 1) / (wide - 1) if wide > 1 else 0.0
    places = (np.arange(size) + (wide - size) // 2) * step
    lower = np.minimum(np.floor(places).astype(int), max(middle - 2, 0))
    share = places - lower
    made = np.zeros((size, size))
    top = (size - middle) // 2
    made[np.arange(size), top + lower] = 1 - share
    made[np.arange(size), np.minimum(top + lower + 1, size - 1)] += share
    return made


def boxed(size: int, to: int) -> np.ndarray:
    """Returns the matrix (to, size) of a box filter: the mean of the pixels whose centres lie in each new pixel."""
    scale = size / to
    support = max(scale, 1.0) / 2
    centres = (np.arange(to) + 0.5) * scale
    distance = np.arange(size) + 0.5 - centres[:, None]
    taken = (distance > -support) & (distance <= support)
    return taken / taken.sum(axis=1, keepdims=True)


def read_at(images: np.ndarray, rows: np.ndarray, columns: np.ndarray, border: Border) -> np.ndarray:
    """Returns images (N, H, W, C) read between their pixels, bilinearly.

    `rows` and `columns`, float64 (N, H', W'), are where each new pixel is read; that may lie outside.
    """
    height, width = images.shape[1:3]
    top, left = np.floor(rows), np.floor(columns)
    down, right = (rows - top)[..., None], (columns - left)[..., None]
    first, second = (inside(top.astype(int) + step, height, border) for step in (0, 1))
    third, fourth = (inside(left.astype(int) + step, width, border) for step in (0, 1))
    number = np.arange(len(images))[:, None, None]
    upper = images[number, first, third] * (1 - right) + images[number, first, fourth] * right
    lower = images[number, second, third] * (1 - right) + images[number, second, fourth] * right
    return upper * (1 - down) + lower * down


def smeared(images: np.ndarray, radius: int, sigma: float, degrees: np.ndarray) -> np.ndarray:
    """Returns images blurred by motion, each in a direction of its own: half a bell, as ImageMagick has it.

    Args:
        images: (N, H, W, C).
        radius: 2 radius + 1 pixels are mixed.
        sigma: the bell's deviation, in pixels.
        degrees: float64 (N,), the direction.
    """
    count, height, width = images.shape[:3]
    steps = np.arange(2 * radius + 1)
    weights = np.exp(-0.5 * (steps / sigma) ** 2)
    weights /= weights.sum()
    number = np.arange(count)[:, None, None]
    out = np.zeros(images.shape)
    for step, weight in zip(steps[weights > 1e-6], weights[weights > 1e-6], strict=True):
        down, right = (np.ceil(step * turn(np.deg2rad(degrees)) - 0.5).astype(int) for turn in (np.sin, np.cos))
        rows = inside(np.arange(height) + down[:, None], height, "edge")
        columns = inside(np.arange(width) + right[:, None], width, "edge")
        out += weight * images[number, rows[:, :, None], columns[:, None, :]]
    return out
