"""Adversarial training in plain Keras: a model with its own `train_step`, and the objectives that it can pursue."""

from __future__ import annotations

from kerasrobust.training.adversarial import AdversarialModel
from kerasrobust.training.objectives import FGSM, OBJECTIVES, PGD, Objective, Standard

__all__ = ["FGSM", "OBJECTIVES", "PGD", "AdversarialModel", "Objective", "Standard"]
