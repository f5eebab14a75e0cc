"""Noise: Gaussian, shot, impulse and speckle noise, with the strengths of CIFAR-10-C."""

from __future__ import annotations

import numpy as np

from kerasrobust.data.corruptions.draws import Draws


def gaussian_noise(images: np.ndarray, severity: int, draws: Draws) -> np.ndarray:
    """Adds normal noise to each value, as in low light."""
    deviation = (0.04, 0.06, 0.08, 0.09, 0.10)[severity - 1]
    return images + deviation * draws.normal(*images.shape[1:])


def shot_noise(images: np.ndarray, severity: int, draws: Draws) -> np.ndarray:
    """Counts photons: each value is a Poisson number of them, of so many at white."""
    photons = (500, 250, 100, 75, 50)[severity - 1]
    counts = [generator.poisson(image * photons) for generator, image in zip(draws, images, strict=True)]
    return np.stack(counts) / photons


def impulse_noise(images: np.ndarray, severity: int, draws: Draws) -> np.ndarray:
    """Makes a share of the values 0 or 1, one half each: salt and pepper."""
    share = (0.01, 0.02, 0.03, 0.05, 0.07)[severity - 1]
    lot = draws.uniform(0, 1, *images.shape[1:])
    # From both ends, so that what is hit at one severity is hit at the next one, too.
    return np.where(lot < share / 2, 0.0, np.where(lot >= 1 - share / 2, 1.0, images))


def speckle_noise(images: np.ndarray, severity: int, draws: Draws) -> np.ndarray:
    """Adds normal noise in proportion to each value."""
    deviation = (0.06, 0.10, 0.12, 0.16, 0.20)[severity - 1]
    return images + deviation * images * draws.normal(*images.shape[1:])
