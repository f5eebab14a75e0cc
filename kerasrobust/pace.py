"""How far some work is, told a few times a second with the time that is left. No TensorFlow here."""

from __future__ import annotations

import math
import time

from kerasrobust.events import Emit, Progress

PERIOD = 0.2
"""Seconds between two events of progress."""


class Pace:
    """Counts what is done, and tells of it, at first at once, by the pace of what this process did.

    Args:
        emit: takes the events; None for nobody.
        unit: what is counted, such as "image".
        total: how many there are.

    Example:
        >>> pace = Pace(print, "image", 10_000)
        >>> for part in parts:
        ...     pace.add(len(part))
    """

    def __init__(self, emit: Emit | None, unit: str, total: int) -> None:
        self._emit, self._unit, self._total = emit, unit, total
        self._done = self._here = 0
        self._began, self._said = time.monotonic(), -math.inf

    def skip(self, count: int) -> None:
        """Counts what an earlier process has done."""
        self._done += count

    def add(self, count: int) -> None:
        """Counts what was done now."""
        self._done += count
        self._here += count
        now = time.monotonic()
        if self._emit is None or now - self._said < PERIOD:
            return
        self._said = now
        rate = self._here / max(now - self._began, 1e-9)
        left = (self._total - self._done) / rate
        self._emit(Progress(unit=self._unit, done=self._done, total=self._total, rate=rate, seconds_left=left))
