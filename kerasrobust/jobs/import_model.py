"""The command `import`: someone's model, with a card of its own, among the saved models."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

from kerasrobust.config import ImportConfig
from kerasrobust.errors import InputError
from kerasrobust.events import Finding, ModelSaved
from kerasrobust.jobs.context import Context
from kerasrobust.networks import saving
from kerasrobust.networks.classifier import classifier_of
from kerasrobust.runs import read_card


def prepare(context: Context, config: ImportConfig) -> Callable[[], dict[str, Any]]:
    """Loads the model and checks that it can be attacked, and its name; returns the work."""
    source = Path(config.model)
    if not config.model or not source.exists():
        raise InputError(
            f"Expected the path of a model. Received: {config.model!r}, where there is nothing. "
            "Give a .keras or .h5 file, or a SavedModel folder."
        )
    source = source.resolve()
    name = config.name or (source.name if source.is_dir() else source.stem)
    dataclasses.replace(config, name=name)  # Refuses a file's name that isn't one for a model.
    target = config.models_dir / name
    there = target.resolve()
    if there.is_relative_to(source) or source.is_relative_to(there):
        raise InputError(
            f"Expected a model from elsewhere. Received: {config.model}, which is where {name!r} would be written. "
            "Choose another --name, or copy the model to another folder first."
        )
    saving.refuse_existing(target, config.overwrite)
    # By its whole path, as a name alone is looked up among the saved models first.
    model = saving.load_model(source)
    classifier = classifier_of(model)
    for code, message in classifier.warnings:
        context.emit(Finding(code=code, message=message, severity="warning"))

    def work() -> dict[str, Any]:
        card = {
            "name": name,
            "source": str(source),
            "command": context.command,
            "randomized": classifier.randomized,
            "attacks": [],
            "warnings": context.findings,
        }
        with context.stage("save", f"Saving {name}"):
            save = saving.copy_saved_model if isinstance(model, saving.SavedModelNetwork) else saving.save_model
            save(model, target, card, overwrite=config.overwrite)
        card = read_card(target) or card  # With the layers.
        context.emit(ModelSaved(name=name, path=str(target), card=card))
        common = {"schema": 1, "kind": config.kind, "seed": config.seed, "versions": context.versions}
        return context.publish(common | card)

    return work
