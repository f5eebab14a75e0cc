"""Adversarial training in plain Keras: a model with its own `train_step`, and the objectives that it can pursue."""

from __future__ import annotations

from kerasrobust.training.adversarial import AdversarialModel
from kerasrobust.training.objectives import (
    ADR,
    ALP,
    FGSM,
    MART,
    NFGSM,
    OBJECTIVES,
    PGD,
    TRADES,
    Free,
    Gaussian,
    Objective,
    Standard,
)
from kerasrobust.training.optimizers import OneCycle
from kerasrobust.training.schedules import EpsilonSchedule, StepsSchedule

__all__ = [
    "ADR",
    "ALP",
    "FGSM",
    "MART",
    "NFGSM",
    "OBJECTIVES",
    "PGD",
    "TRADES",
    "AdversarialModel",
    "EpsilonSchedule",
    "Free",
    "Gaussian",
    "Objective",
    "OneCycle",
    "Standard",
    "StepsSchedule",
]
