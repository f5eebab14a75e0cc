"""Weather: snow, frost, fog and brightness, with the strengths of CIFAR-10-C."""

from __future__ import annotations

import numpy as np

from kerasrobust.data.corruptions import filters
from kerasrobust.data.corruptions.colours import brightened, grey, in_colour
from kerasrobust.data.corruptions.draws import Draws


@in_colour
def snow(images: np.ndarray, severity: int, draws: Draws) -> np.ndarray:
    """Whitens the scene, and lets flakes fall: bright specks of noise, enlarged and smeared."""
    mean, deviation, size, least, radius, sigma, kept = (
        (0.1, 0.2, 1.0, 0.6, 8, 3.0, 0.95),
        (0.1, 0.2, 1.0, 0.5, 10, 4.0, 0.9),
        (0.15, 0.3, 1.75, 0.55, 10, 4.0, 0.9),
        (0.25, 0.3, 2.25, 0.6, 12, 6.0, 0.85),
        (0.3, 0.3, 1.25, 0.65, 14, 12.0, 0.8),
    )[severity - 1]
    height, width = images.shape[1:3]
    specks = mean + deviation * draws.normal(height, width, 1)
    specks = filters.along(filters.zoomed(height, size), filters.zoomed(width, size), specks)
    specks = np.floor(np.where(specks < least, 0, np.clip(specks, 0, 1)) * 255)
    flakes = np.rint(filters.smeared(specks, radius, sigma, draws.uniform(-135, -45))) / 255
    white = kept * images + (1 - kept) * np.maximum(images, grey(images) * 1.5 + 0.5)
    return white + flakes + flakes[:, ::-1, ::-1]


@in_colour
def frost(images: np.ndarray, severity: int, draws: Draws) -> np.ndarray:
    """Lays a bluish white layer of ice over each image: procedural frost, in place of the published photographs.

    The published program cuts its frost out of five photographs. This layer is drawn: crystals are the ridges of a
    fractal in two directions, over a ground of a brightness of its own. Mean, spread and grain are about those of the
    photographs where CIFAR-10-C cuts them out.
    """
    kept, added = ((1.0, 0.2), (1.0, 0.3), (0.9, 0.4), (0.85, 0.4), (0.75, 0.45))[severity - 1]
    return kept * images + added * ice(images.shape[1:3], draws)


# Mean red, green and blue of the darkest and of the brightest of the five photographs, and the spread of the crystals.
_DARK, _BRIGHT = np.array([0.31, 0.51, 0.57]), np.array([0.78, 0.79, 0.83])
_CRYSTALS = 0.11


def ice(shape: tuple[int, ...], draws: Draws) -> np.ndarray:
    """Returns a layer of procedural frost for each image, float64 (N, *shape, 3) in [0, 1]."""
    ridges = 1 - np.abs(2 * plasma(shape, 1.6, draws) - 1)
    needles = ridges**3 + 0.35 * np.abs(draws.normal(*shape))
    needles -= needles.mean(axis=(1, 2), keepdims=True)
    needles /= np.maximum(needles.std(axis=(1, 2), keepdims=True), 1e-9)
    ground = _DARK + (_BRIGHT - _DARK) * draws.uniform(0, 1, 1, 1, 1)
    return np.clip(ground + _CRYSTALS * needles[..., None], 0, 1)


def fog(images: np.ndarray, severity: int, draws: Draws) -> np.ndarray:
    """Adds a fractal haze, and scales the image so that its brightest value stays what it was."""
    strength, decay = ((0.2, 3.0), (0.5, 3.0), (0.75, 2.5), (1.0, 2.0), (1.5, 1.75))[severity - 1]
    brightest = images.max(axis=(1, 2, 3), keepdims=True)
    hazy = images + strength * plasma(images.shape[1:3], decay, draws)[..., None]
    return hazy * brightest / (brightest + strength)


@in_colour
def brightness(images: np.ndarray, severity: int, draws: Draws) -> np.ndarray:
    """Increases the value of each pixel (V of HSV)."""
    return brightened(images, (0.05, 0.1, 0.15, 0.2, 0.3)[severity - 1])


def plasma(shape: tuple[int, ...], decay: float, draws: Draws) -> np.ndarray:
    """Returns fractal heights for each image, float64 (N, *shape), from 0 to 1 over the square that they are cut from.

    By the diamond-square algorithm on a torus whose side is a power of two: each new point is the mean of four around
    it and noise, whose deviation falls from round to round by `decay` squared.

    Reference: Fournier et al. 1982.
    """
    side = 2 ** max(int(np.ceil(np.log2(max(shape)))), 1)
    heights = np.zeros((len(draws), side, side))
    step, noise = side, 100.0**2
    while step >= 2:
        half = step // 2
        points = side // step
        jitter = noise * draws.uniform(-1, 1, 3, points, points)
        corners = heights[:, ::step, ::step]
        right = np.roll(corners, -1, axis=2)
        around = corners + right + np.roll(corners, -1, axis=1) + np.roll(right, -1, axis=1)
        heights[:, half::step, half::step] = middles = around / 4 + jitter[:, 0]
        # The points between two corners, with the middles on their two sides.
        heights[:, ::step, half::step] = (corners + right + middles + np.roll(middles, 1, axis=1)) / 4 + jitter[:, 1]
        beside = corners + np.roll(corners, -1, axis=1)
        heights[:, half::step, ::step] = (beside + middles + np.roll(middles, 1, axis=2)) / 4 + jitter[:, 2]
        step, noise = half, noise / decay**2
    heights -= heights.min(axis=(1, 2), keepdims=True)
    return (heights / heights.max(axis=(1, 2), keepdims=True))[:, : shape[0], : shape[1]]
