"""Spatter: drops of water, or of mud, on the lens."""

from __future__ import annotations

import numpy as np

from kerasrobust.data.corruptions import filters
from kerasrobust.data.corruptions.colours import in_colour
from kerasrobust.data.corruptions.draws import Draws
from kerasrobust.data.corruptions.edges import distances, edges, equalized

WATER, MUD = np.array([175, 238, 238]) / 255, np.array([63, 42, 20]) / 255

_RELIEF = np.array([[-2.0, -1.0, 0.0], [-1.0, 1.0, 1.0], [0.0, 1.0, 2.0]])
_SUM = np.ones((3, 3))
_DEEPEST = 20.0
"""Pixels from a drop's edge on which it is no deeper."""


@in_colour
def spatter(images: np.ndarray, severity: int, draws: Draws) -> np.ndarray:
    """Lets drops fall on the image: of water up to severity 3, of mud above."""
    mean, deviation, sigma, least, strength = (
        (0.62, 0.1, 0.7, 0.7, 0.5),
        (0.65, 0.1, 0.8, 0.7, 0.5),
        (0.65, 0.3, 1.0, 0.69, 0.5),
        (0.65, 0.1, 0.7, 0.69, 0.6),
        (0.65, 0.1, 0.5, 0.68, 0.6),
    )[severity - 1]
    liquid = filters.gaussian(mean + deviation * draws.normal(*images.shape[1:3], 1), sigma)[..., 0]
    liquid = np.where(liquid < least, 0, liquid)
    if severity > 3:
        mud = filters.gaussian((liquid > least)[..., None].astype(float), strength)
        mud = np.where(mud < 0.8, 0, mud)
        return images * (1 - mud) + MUD * mud
    return images + strength * _water(liquid)[..., None] * WATER


def _water(liquid: np.ndarray) -> np.ndarray:
    """Returns how bright drops are, (N, H, W), from 0 to 1 in each image: lit from the lower right, by their relief."""
    drops = np.floor(liquid * 255) % 256  # Values above 1 begin anew at 0, as 8 bits do in the published program.
    depth = np.minimum(distances(edges(drops, 50, 150)), _DEEPEST)
    depth = equalized(np.floor(_filtered(depth, _SUM) / 9))
    lit = np.clip(_filtered(depth, _RELIEF), 0, 255)
    bright = liquid * np.rint(_filtered(lit, _SUM) / 9)
    most = bright.max(axis=(1, 2), keepdims=True)
    return np.divide(bright, most, out=np.zeros_like(bright), where=most > 0)


def _filtered(layers: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    return filters.correlated(layers[..., None], kernel)[..., 0]
