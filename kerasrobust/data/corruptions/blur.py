"""Blur: defocus, glass, motion, zoom and Gaussian blur, with the lengths of CIFAR-10-C, in pixels."""

from __future__ import annotations

import numpy as np

from kerasrobust.data.corruptions import filters
from kerasrobust.data.corruptions.draws import Draws


def gaussian_blur(images: np.ndarray, severity: int, draws: Draws) -> np.ndarray:
    """Mixes each pixel with its neighbours by a Gaussian."""
    return filters.gaussian(images, (0.4, 0.6, 0.7, 0.8, 1.0)[severity - 1]) + filters.ABOVE


def defocus_blur(images: np.ndarray, severity: int, draws: Draws) -> np.ndarray:
    """Spreads each pixel over a disk, whose edge is smoothed: a lens out of focus."""
    radius, edge = ((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1.0, 0.2), (1.5, 0.1))[severity - 1]
    # Room for the disk and for one pixel of its edge.
    places = np.arange(-3, 4)
    disk = (places[:, None] ** 2 + places**2 <= radius**2).astype(float)
    blurred = filters.gaussian((disk / disk.sum())[None, :, :, None], edge, deviations=1 / edge)[0, :, :, 0]
    return filters.correlated(images, blurred) + filters.ABOVE


def glass_blur(images: np.ndarray, severity: int, draws: Draws) -> np.ndarray:
    """Blurs, takes each pixel from one of its neighbours above and to the left, and blurs again: frosted glass.

    The published program means to exchange neighbours, and copies the one over the other: a swap of two views of an
    array of colours leaves the same colour in both. As it goes from the last pixel to the first, every copy is of a
    pixel that is still unchanged, so that all are made at once here.
    """
    sigma, rounds = ((0.05, 1), (0.25, 1), (0.4, 1), (0.25, 2), (0.4, 2))[severity - 1]
    pixels = np.floor((filters.gaussian(images, sigma) + filters.ABOVE) * 255)
    height, width = images.shape[1:3]
    rows, columns = np.arange(height)[:, None], np.arange(width)
    kept = (rows < 2) | (columns < 2)  # It leaves out the first two of each side.
    number = np.arange(len(images))[:, None, None]
    for _ in range(rounds):
        down, right = np.moveaxis(np.where(kept, 0, draws.integers(-1, 1, 2, height, width)), 1, 0)
        pixels = pixels[number, rows + down, columns + right]
    return filters.gaussian(pixels / 255, sigma) + filters.ABOVE


def motion_blur(images: np.ndarray, severity: int, draws: Draws) -> np.ndarray:
    """Smears each image in a direction of its own, at most 45 degrees from the horizontal."""
    radius, sigma = ((6, 1.0), (6, 1.5), (6, 2.0), (8, 2.0), (9, 2.5))[severity - 1]
    blurred = filters.smeared(images * 255, radius, sigma, draws.uniform(-45, 45))
    return np.rint(np.clip(blurred, 0, 255)).astype(np.uint8)  # As ImageMagick rounds.


def zoom_blur(images: np.ndarray, severity: int, draws: Draws) -> np.ndarray:
    """Takes the mean of the image and of enlargements of its middle in steps of 1 %."""
    # As published: rounding decides whether the end is among them, and 1.25 of 26 pixels is a little more than 32.5.
    factors = np.arange(1, (1.06, 1.11, 1.16, 1.21, 1.26)[severity - 1], 0.01)
    height, width = images.shape[1:3]
    total = images.copy()
    for factor in factors:
        total += filters.along(filters.zoomed(height, factor), filters.zoomed(width, factor), images)
    return total / (len(factors) + 1) + filters.ABOVE
