"""Adversarial training in plain Keras: a model with its own `train_step`, and the objectives that it can pursue."""

from __future__ import annotations

from kerasrobust.training import objectives
from kerasrobust.training.adversarial import AdversarialModel
from kerasrobust.training.objectives import *  # noqa: F403  One list of their names is enough.
from kerasrobust.training.optimizers import OneCycle
from kerasrobust.training.schedules import EpsilonSchedule, StepsSchedule

__all__ = ["AdversarialModel", "EpsilonSchedule", "OneCycle", "StepsSchedule"]
__all__ += objectives.__all__
