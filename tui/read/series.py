"""A curve whose length is bounded, however long a run is. No Textual here."""

from __future__ import annotations

from dataclasses import dataclass, field

POINTS = 1000
"""Of a curve, at most."""


@dataclass
class Series:
    """A curve of bounded length: neighbouring points are averaged once there are too many.

    Every point stands for `stride` measured ones; the last may stand for fewer, as it is still being filled.
    """

    xs: list[float] = field(default_factory=list)
    ys: list[float] = field(default_factory=list)
    stride: int = 1
    filled: int = 0

    def add(self, x: float, y: float) -> None:
        """Appends a measured point; earlier ones at or after `x` are void, as a training was resumed before them."""
        x, y = float(x), float(y)  # JSON integers have no bounds.
        while self.xs and self.xs[-1] >= x:
            self.xs.pop()
            self.ys.pop()
            self.filled = self.stride
        if self.xs and self.filled < self.stride:
            self.filled += 1
            self.xs[-1] += (x - self.xs[-1]) / self.filled
            self.ys[-1] += (y - self.ys[-1]) / self.filled
            return
        self.xs.append(x)
        self.ys.append(y)
        self.filled = 1
        if len(self.xs) > POINTS:
            # One stays over, and is the first half of the pair to come.
            half = len(self.xs) // 2
            self.xs = [(self.xs[2 * i] + self.xs[2 * i + 1]) / 2 for i in range(half)] + self.xs[2 * half :]
            self.ys = [(self.ys[2 * i] + self.ys[2 * i + 1]) / 2 for i in range(half)] + self.ys[2 * half :]
            self.stride *= 2

    def copy(self) -> Series:
        return Series(self.xs.copy(), self.ys.copy(), self.stride, self.filled)
