"""Training on clean images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from kerasrobust.training.objectives.objective import Objective


@dataclass(frozen=True, kw_only=True)
class Standard(Objective):
    """Training on clean images.

    Robust accuracy is measured in validation only, with a short attack. 1 pass an image.
    """

    name: ClassVar[str] = "standard"

    validation_steps: int = 3
