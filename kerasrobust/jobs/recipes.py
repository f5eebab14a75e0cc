"""The settings of a training that decide which network comes out of it: as cards have them, and how they compare."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

from kerasrobust.config import TrainConfig
from kerasrobust.settings import to_dict

RECIPE = (
    "model", "data", "split", "training", "randomize", "epochs", "epsilon", "norm", "steps", "step_size", "clean_share",
    "warmup_epochs", "learning_rate", "weight_decay", "augment", "validation_share", "widths", "depth", "width",
    "batch_size", "seed", "precision",
)  # fmt: skip
"""The settings that decide which network comes out of a training."""

LATER = (
    "keys", "size", "convolutions", "pooling", "activation", "stem", "steps_by_epoch", "attack_loss", "beta", "awp",
    "sigma", "average", "teacher", "label_smoothing", "optimizer", "schedule",
    "corruptions",
)  # fmt: skip
"""More of them, left out where they have their default, as cards of earlier trainings don't have them."""


def recipe_of(config: TrainConfig) -> dict[str, Any]:
    """Returns the settings of a training that decide which network comes out of it, as JSON has them."""
    settings = _as_json(to_dict(config))
    return _without_defaults({key: settings[key] for key in (*RECIPE, *LATER)})


def is_trained_as(card: dict[str, Any], config: TrainConfig) -> bool:
    """Returns whether a card is of a network that a training of these settings would give."""
    training = card.get("training")
    return isinstance(training, dict) and _without_defaults(training) == recipe_of(config)


def _without_defaults(settings: dict[str, Any]) -> dict[str, Any]:
    """Returns the settings of a recipe without the later ones that have their default."""
    usual = {item.name: item.default for item in dataclasses.fields(TrainConfig)}
    # As JSON has them: an empty tuple is an empty list there.
    return {key: value for key, value in settings.items() if key not in LATER or value != _as_json(usual[key])}


def _as_json(value: Any) -> Any:
    return json.loads(json.dumps(value))
