"""What an attack learns from all images together, before it runs on each of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from kerasrobust.attacks.batch import Tally
from kerasrobust.errors import Cancelled
from kerasrobust.networks.classifier import Classifier


@dataclass(frozen=True)
class Lesson:
    """What an attack learns from before it runs: all images that it is about to attack.

    Attributes:
        classifier: whose gradients are taken.
        x: float32 (N, H, W, C).
        goal: int64 (N,), the classes that the loss is about.
        seed: of everything random.
        tally: where costs are counted.
        should_stop: asked between steps.
    """

    classifier: Classifier
    x: np.ndarray
    goal: np.ndarray
    seed: int
    tally: Tally
    should_stop: Callable[[], bool]

    def spend(self, gradients: int, forwards: int) -> None:
        """Counts gradient evaluations and forward passes."""
        self.tally.spend(gradients, forwards)

    def went_on(self, step: int, steps: int) -> None:
        """Emits how far the lesson is.

        Raises:
            Cancelled: when `should_stop` says so.
        """
        self.tally.progress(step, steps)
        if self.should_stop():
            raise Cancelled
