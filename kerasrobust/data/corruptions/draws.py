"""Random numbers of images: each has a generator of its own, so that its corruption doesn't depend on its batch."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Draws:
    """The generators of a batch, one an image.

    Attributes:
        generators: N of them; each draw takes the next numbers of each.

    Example:
        >>> draws = Draws.of("fog", seed=0, first=7, count=2)
        >>> draws.normal(4, 4).shape
        (2, 4, 4)
    """

    generators: tuple[np.random.Generator, ...]

    @classmethod
    def of(cls, kind: str, seed: int, first: int, count: int) -> Draws:
        """Returns the generators of images `first` ... `first + count - 1` for one kind of corruption.

        The severity has no part in it: an image's noise grows from severity to severity, and isn't another one.
        """
        name = zlib.crc32(kind.encode())
        return cls(tuple(np.random.default_rng([seed, name, index]) for index in range(first, first + count)))

    def __len__(self) -> int:
        return len(self.generators)

    def __iter__(self) -> Iterator[np.random.Generator]:
        return iter(self.generators)

    def normal(self, *shape: int) -> np.ndarray:
        """Returns standard normal numbers, float64 (N, *shape)."""
        return np.stack([generator.standard_normal(shape) for generator in self.generators])

    def uniform(self, low: float, high: float, *shape: int) -> np.ndarray:
        """Returns uniform numbers in [low, high), float64 (N, *shape)."""
        return np.stack([generator.uniform(low, high, shape) for generator in self.generators])

    def integers(self, low: int, high: int, *shape: int) -> np.ndarray:
        """Returns whole numbers from low to high - 1, int64 (N, *shape)."""
        return np.stack([generator.integers(low, high, shape) for generator in self.generators])
