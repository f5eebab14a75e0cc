"""Edges of grey images and distances from them, as OpenCV has them, for a whole batch at once."""

from __future__ import annotations

import numpy as np

FAR = 1e6
"""A distance where there is nothing to be near to."""

_SLOPE, _ONE = 13573, 2**15
"""The tangent of 22.5 degrees, above which a gradient counts as oblique, in 1/32768: whole numbers decide ties."""


def edges(images: np.ndarray, low: float, high: float) -> np.ndarray:
    """Returns where the edges of images are, bool (N, H, W).

    Pixels whose gradient is the largest across the edge, and above `high`, or above `low` and connected to such a one.

    Args:
        images: (N, H, W), levels from 0 to 255.
        low: for the sum of the absolute values of Sobel's two derivatives.
        high: the same.

    Reference: Canny 1986.
    """
    size = images.shape[1:]
    x, y = _sobel(images), _sobel(images.transpose(0, 2, 1)).transpose(0, 2, 1)
    strength = np.pad(np.abs(x) + np.abs(y), ((0, 0), (1, 1), (1, 1)))

    def beside(down: int, right: int) -> np.ndarray:
        return strength[:, 1 + down : 1 + down + size[0], 1 + right : 1 + right + size[1]]

    own = beside(0, 0)
    flat, steep = _ONE * np.abs(y) < _SLOPE * np.abs(x), _ONE * np.abs(y) > (_SLOPE + 2 * _ONE) * np.abs(x)
    across = (own > beside(0, -1)) & (own >= beside(0, 1))
    along = (own > beside(-1, 0)) & (own >= beside(1, 0))
    falling = (own > beside(-1, -1)) & (own > beside(1, 1))
    rising = (own > beside(-1, 1)) & (own > beside(1, -1))
    oblique = np.where(x * y < 0, rising, falling)
    largest = np.where(flat, across, np.where(steep, along, oblique)) & (own > low)
    return _connected(largest & (own > high), largest)


def _sobel(images: np.ndarray) -> np.ndarray:
    """Returns Sobel's derivative along the last axis."""
    padded = np.pad(images, ((0, 0), (1, 1), (1, 1)), mode="edge")
    smooth = padded[:, :-2] + 2 * padded[:, 1:-1] + padded[:, 2:]
    return smooth[:, :, 2:] - smooth[:, :, :-2]


def _connected(seeds: np.ndarray, allowed: np.ndarray) -> np.ndarray:
    """Returns what is connected to a seed by allowed pixels, their corners included."""
    while True:
        grown = np.pad(seeds, ((0, 0), (1, 1), (1, 1)))
        grown = grown[:, :-2] | grown[:, 1:-1] | grown[:, 2:]
        grown = (grown[:, :, :-2] | grown[:, :, 1:-1] | grown[:, :, 2:]) & allowed
        if (grown == seeds).all():
            return seeds
        seeds = grown


_STEPS = ((0, 1, 1.0), (1, 0, 1.0), (1, 1, 1.4), (1, -1, 1.4), (1, 2, 2.1969), (1, -2, 2.1969), (2, 1, 2.1969),
          (2, -1, 2.1969))  # fmt: skip


def distances(there: np.ndarray) -> np.ndarray:
    """Returns how far each pixel is from the nearest that is `there`, bool (N, H, W), in pixels; `FAR` if none is.

    By steps to the side, across a corner and of a knight, which are 1, 1.4 and 2.1969 pixels long.

    Reference: Borgefors 1986, the 5 x 5 chamfer distance.
    """
    found = np.where(there, 0.0, FAR)
    # Down and then up; a row takes from those before it, and then from its own pixels on both sides.
    for _ in range(2):
        for row in range(found.shape[1]):
            best = found[:, row]
            for down, right, length in _STEPS:
                if down and row >= down:
                    best = np.minimum(best, _moved(found[:, row - down], right) + length)
            found[:, row] = _sideways(best)
        found = found[:, ::-1]
    return np.minimum(found, FAR)


def _moved(rows: np.ndarray, right: int) -> np.ndarray:
    """Returns rows (N, W) moved to the right, or to the left if below 0."""
    if right > 0:
        return np.pad(rows[:, :-right], ((0, 0), (right, 0)), constant_values=FAR)
    return np.pad(rows[:, -right:], ((0, 0), (0, -right)), constant_values=FAR)


def _sideways(rows: np.ndarray) -> np.ndarray:
    """Returns distances in rows (N, W) where steps to either side are 1."""
    place = np.arange(rows.shape[1])
    left = np.minimum.accumulate(rows - place, axis=1) + place
    right = (np.minimum.accumulate((rows + place)[:, ::-1], axis=1))[:, ::-1] - place
    return np.minimum(left, right)


def equalized(images: np.ndarray) -> np.ndarray:
    """Returns images (N, H, W) of whole levels, 0 to 255, with levels that are about equally frequent.

    Reference: Gonzalez and Woods 2018, section 3.3.
    """
    count = images[0].size
    number = np.arange(len(images))
    levels = images.astype(int).reshape(len(images), count)
    frequent = np.bincount((number[:, None] * 256 + levels).ravel(), minlength=256 * len(images)).reshape(-1, 256)
    fewest = frequent[number, levels.min(axis=1)]
    # The darkest becomes 0; an image of one level stays as it is. In float32, as rounding decides between two levels.
    scale = np.float32(255) / np.maximum(count - fewest, 1).astype(np.float32)
    table = np.rint((frequent.cumsum(axis=1) - fewest[:, None]).astype(np.float32) * scale[:, None])
    table = np.where((fewest == count)[:, None], np.arange(256), np.clip(table, 0, 255))
    return np.take_along_axis(table, levels, axis=1).reshape(images.shape)
