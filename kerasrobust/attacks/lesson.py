"""What an attack learns from all images together, before it runs on each of them."""

from __future__ import annotations

import functools
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from kerasrobust.attacks.batch import Tally
from kerasrobust.attacks.checkpoint import Checkpoints
from kerasrobust.errors import Cancelled
from kerasrobust.networks.classifier import Classifier

_NAME = "lesson"
"""Of the checkpoint."""


@dataclass
class Lesson:
    """What an attack learns from before it runs: all images that it is about to attack.

    Attributes:
        classifier: whose gradients are taken.
        x: float32 (N, H, W, C).
        goal: int64 (N,), the classes that the loss is about.
        seed: of everything random.
        tally: where costs are counted.
        should_stop: asked between steps.
        checkpoints: where what has been learned so far is saved and found again.
        cost: gradient evaluations and forward passes that the lesson has taken.
    """

    classifier: Classifier
    x: np.ndarray
    goal: np.ndarray
    seed: int
    tally: Tally
    should_stop: Callable[[], bool]
    checkpoints: Checkpoints = field(default_factory=Checkpoints)
    cost: list[int] = field(default_factory=lambda: [0, 0])

    def spend(self, gradients: int, forwards: int) -> None:
        """Counts gradient evaluations and forward passes."""
        self.tally.spend(gradients, forwards)
        self.cost = [self.cost[0] + gradients, self.cost[1] + forwards]

    def went_on(self, step: int, steps: int) -> None:
        """Emits how far the lesson is.

        Raises:
            Cancelled: when `should_stop` says so.
        """
        self.tally.progress(step, steps)
        if self.should_stop():
            raise Cancelled

    def found(self) -> tuple[int, np.ndarray] | None:
        """Returns after how many steps an earlier process was stopped and what it had learned, or None without one.

        What it has cost is counted. A lesson on other images isn't taken up: noise that can't be seeded may have left
        others.
        """
        saved = self.checkpoints.get(_NAME)
        if saved is None or int(saved["mark"]) != self._mark:
            return None
        self.spend(*map(int, saved["cost"]))
        return int(saved["steps"]), saved["learned"]

    def save(self, steps: int, learned: np.ndarray) -> None:
        """Saves what has been learned after some steps."""
        now = {"steps": steps, "mark": self._mark, "cost": self.cost}
        self.checkpoints.put(_NAME, {name: np.array(value) for name, value in now.items()} | {"learned": learned})

    @functools.cached_property
    def _mark(self) -> int:
        return zlib.crc32(self.goal.tobytes(), zlib.crc32(self.x.tobytes()))
