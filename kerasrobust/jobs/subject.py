"""What a command examines: the model and the data that its config names."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from kerasrobust.assessing import JudgingConfig
from kerasrobust.config import AttackConfig, BallConfig
from kerasrobust.data.dataset import Dataset
from kerasrobust.data.load import load_dataset
from kerasrobust.entries import Data
from kerasrobust.errors import InputError
from kerasrobust.events import Emit, Log
from kerasrobust.jobs.context import Context
from kerasrobust.networks import saving
from kerasrobust.networks.adapters.adapter import conventions_of
from kerasrobust.networks.classifier import Classifier
from kerasrobust.networks.images import channels_of, check_fits
from kerasrobust.networks.making import classifier_of, of_labels
from kerasrobust.runs import card_of, data_of
from kerasrobust.settings import ModelConfig, to_dict

Examining = AttackConfig | BallConfig | JudgingConfig
"""What the commands take that look at one model on some data."""


def load_model(config: ModelConfig, emit: Emit | None, path: Path | None = None) -> Any:
    """Returns the model that a config names, or that of a path, with what the config says of it."""
    return saving.load_model(
        path or config.model,
        models_dir=config.models_dir,
        code=config.code,
        said=conventions_of(vars(config)),
        emit=emit,
    )


def load_other(config: ModelConfig, name: str, emit: Emit | None) -> Any:
    """Returns another model that a config names, as a surrogate; what the config says of its own isn't of it."""
    return saving.load_model(name, models_dir=config.models_dir, code=config.code, emit=emit)


def load_subject(context: Context, config: Examining) -> tuple[Classifier, Dataset]:
    """Returns the model that a config names, and the data, which fit each other."""
    model = load_model(config, context.emit)
    name = data_of(to_dict(config))
    if config.data is None:
        context.emit(Log(level="info", message=f"Data: {name}, as none were named."))
    data = load_dataset(
        name,
        config.split,
        data_dir=config.data_dir,
        keys=config.keys,
        size=config.size,
        most=config.most,
        emit=context.emit,
    )
    data = by_name(context, config, config.model, data)
    classifier = classifier_of(model, image_shape=data.images.shape[1:])
    images = channels_of(classifier, data.images)
    if images.shape != data.images.shape:
        context.emit(Log(level="info", message="All images are grey: one channel is taken, as the model does."))
    return fitting(classifier, dataclasses.replace(data, images=images))


def fitting(classifier: Classifier, data: Dataset) -> tuple[Classifier, Dataset]:
    """Returns a model and data that fit each other, with a column for each label where the labels are by themselves.

    Raises:
        InputError: for what doesn't.
    """
    if classifier.labels is not None and data.labels.ndim == 1:  # Each image has one of them.
        data = dataclasses.replace(data, labels=np.eye(data.classes, dtype=np.int64)[data.labels])
    if data.labels.ndim == 2:
        classifier = of_labels(classifier, data.classes)
    check_fits(classifier, data.images.shape[1:], data.y)
    return classifier, data


def check_one_label(classifier: Classifier) -> None:
    """Raises InputError for a model of several labels an image, which only the command `attack` takes."""
    if classifier.labels is not None:
        raise InputError(
            f"Expected one label an image for this command. Received: {classifier.labels.count}. "
            "Use the command attack, which takes several."
        )


def by_name(context: Context, config: Examining, model: str, data: Dataset) -> Dataset:
    """Returns the data with the classes numbered as on a model's card, where that names all of them otherwise.

    Columns of labels without names are those of the model's outputs, and get the names of its classes.
    """
    classes = Data.parse(card_of(model, config.models_dir)).classes
    if data.labels.ndim == 2 and data.class_names == tuple(map(str, range(len(classes)))):
        return dataclasses.replace(data, class_names=classes)
    if data.class_names == classes[: data.classes] or not set(data.class_names) <= set(classes):
        return data
    message = f"The classes of {data.name} are numbered by their names, as on the card of {Path(model).name}."
    context.emit(Log(level="info", message=message))
    numbers = np.array([classes.index(name) for name in data.class_names], dtype=np.int64)
    if data.labels.ndim == 2:
        labels = np.zeros((len(data), len(classes)), np.int64)
        labels[:, numbers] = data.labels
    else:
        labels = numbers[data.labels]
    return dataclasses.replace(data, labels=labels, class_names=classes)


def settings_of(config: Examining, data: Dataset) -> dict[str, Any]:
    """Returns a config as JSON has it, with the data, norm and radius that were taken where it left them open.

    Norm and radius are None for attacks that have none.
    """
    known = to_dict(config) | {"data": data.name, "split": data.split}
    if isinstance(config, JudgingConfig):  # It has several, or none.
        return known
    in_ball = config.in_ball if isinstance(config, AttackConfig) else True
    norm, epsilon = config.ball if in_ball else (None, None)
    return known | {"norm": norm, "epsilon": epsilon}


def describe_data(data: Dataset) -> dict[str, Any]:
    """Returns what `result.json` holds about the data."""
    return {"name": data.name, "split": data.split, "examples": len(data), "synthetic": data.synthetic}
