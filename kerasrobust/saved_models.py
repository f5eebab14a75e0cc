"""Saved models get another name or go, and who names them is found. No TensorFlow here."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from kerasrobust.entries import as_object
from kerasrobust.errors import InputError
from kerasrobust.names import ARCHITECTURES
from kerasrobust.runs import is_locked, list_models, list_runs, read_card, read_json, remove_folder, write_json
from kerasrobust.settings import check_name

_NAMING = ("model", "teacher", "surrogate", "reference", "beside")
"""Settings that name saved models, with commas between several."""


def rename_model(folder: Path, name: str) -> Path:
    """Gives a saved model another name, in its card too; returns its new folder. Whoever names it isn't changed.

    Raises:
        InputError: where there is no model, the name can't be one, or something of that name exists.

    Example:
        >>> rename_model(Path("saved_models/net"), "net-pgd")  # doctest: +SKIP
    """
    _check_model(folder)
    check_name(name)
    target = folder.with_name(name)
    if os.path.lexists(target):
        raise InputError(f"Expected a name that is free. Received: {name!r}, as {target} exists. Choose another name.")
    try:
        folder.rename(target)
        card = read_card(target)
        if card is not None and card.get("name") == folder.name:
            write_json(target / "card.json", card | {"name": name})
    except OSError as error:
        raise InputError(
            f"Expected a folder that can be renamed. Received: {folder} ({error.strerror}). See who owns it."
        ) from error
    return target


def delete_model(folder: Path) -> None:
    """Removes a saved model's folder, with everything in it. Whoever names it isn't changed.

    Raises:
        InputError: if it isn't a saved model's folder, or can't be removed.
    """
    _check_model(folder)
    remove_folder(folder)


def mentions(folder: Path, models_dir: Path, runs_dir: Path) -> list[str]:
    """Returns who names a saved model: other models' cards, and runs by their settings, the newest first.

    Raises:
        OSError: where the folders can't be read.

    Example:
        >>> mentions(Path("saved_models/net"), Path("saved_models"), Path("runs"))
        ['the card of net-adv', 'run attack-7, under way']
    """
    known = {folder.name, str(folder), str(folder.resolve())}
    found = []
    for path in list_models(models_dir):
        training = as_object((read_card(path) or {}).get("training"))
        if path != folder and not known.isdisjoint(_named(training | {"kind": "train"})):
            found.append(f"the card of {path.name}")
    for run in list_runs(runs_dir):
        if not known.isdisjoint(_named(read_json(run / "config.json") or {})):
            found.append(f"run {run.name}{', under way' if is_locked(run) else ''}")
    return found


def _named(settings: Mapping[str, Any]) -> Iterator[str]:
    """Yields the models that settings name; an architecture's name is none in a training."""
    for setting in _NAMING:
        for name in map(str.strip, str(settings.get(setting) or "").split(",")):
            if name and not (settings.get("kind") == "train" and setting == "model" and name in ARCHITECTURES):
                yield name


def _check_model(folder: Path) -> None:
    if not (folder / "card.json").is_file():
        raise InputError(f"Expected a saved model's folder. Received: {folder}, which is not one. Choose a model.")
