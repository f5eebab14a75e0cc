"""The command `import`: someone's model, with a card of its own, among the saved models."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import keras
import numpy as np

from kerasrobust.config import ImportConfig
from kerasrobust.data.load import load_dataset
from kerasrobust.errors import InputError
from kerasrobust.events import Finding, Log, ModelSaved
from kerasrobust.jobs.job import Job
from kerasrobust.jobs.subject import fitting, load_model
from kerasrobust.networks import saving
from kerasrobust.networks.adapters.choosing import COUNTS
from kerasrobust.networks.adapters.ranges import understood
from kerasrobust.networks.classifier import Classifier
from kerasrobust.networks.making import classifier_of, classifier_with
from kerasrobust.networks.remarks import by_severity
from kerasrobust.ops.stored import patterns
from kerasrobust.runs import read_card


class ImportJob(Job[ImportConfig]):
    """Copies a model into the folder of saved models."""

    def check(self) -> None:
        config = self.config
        source = Path(config.model)
        if not config.model or not source.exists():
            raise InputError(
                f"Expected the path of a model. Received: {config.model!r}, where there is nothing. "
                "Give a .keras or .h5 file, or a SavedModel folder."
            )
        self.source = source.resolve()
        self.name = config.name or (self.source.name if self.source.is_dir() else self.source.stem)
        dataclasses.replace(config, name=self.name)  # Refuses a file's name that isn't one for a model.
        self.target = config.models_dir / self.name
        there = self.target.resolve()
        if there.is_relative_to(self.source) or self.source.is_relative_to(there):
            raise InputError(
                f"Expected a model from elsewhere. Received: {config.model}, which is where {self.name!r} would be "
                "written. Choose another --name, or copy the model to another folder first."
            )
        saving.refuse_existing(self.target, config.overwrite)
        # By its whole path, as a name alone is looked up among the saved models first.
        self.model = load_model(config, self.context.emit, self.source)
        if not isinstance(self.model, (saving.SavedModelNetwork, keras.Model)):
            raise InputError(
                f"Expected a Keras model or a SavedModel to import. Received: {config.model}, a black box. Attack it "
                "by its path, as in kerasrobust attack --model PATH."
            )
        self.classifier = self._understood(classifier_of(self.model))
        for code, message in self.classifier.warnings:
            self.context.emit(Finding(code=code, message=message, severity="warning"))
        for severity, notes in by_severity(self.classifier.notes).items():
            self.context.emit(Log(level=severity, message=notes))

    def _understood(self, classifier: Classifier) -> Classifier:
        """Returns the classifier with what images with labels, or else its first layers, show of it."""
        config = self.config
        if config.data is None:
            shape = tuple(side or 32 for side in classifier.image_shape)
            return understood(classifier, np.zeros((0, *shape), np.float32), np.zeros(0, np.int64))
        data = load_dataset(
            config.data,
            config.split,
            data_dir=config.data_dir,
            keys=config.keys,
            size=config.size,
            emit=self.context.emit,
        )[: COUNTS[-1]]
        shape = data.images.shape[1:]
        classifier = classifier_of(self.model, image_shape=shape)
        classifier, data = fitting(classifier, data)
        if classifier.labels is None:
            return understood(classifier, data.x, data.y)
        # The one that is kept with the model, so that the card says it.
        said = dataclasses.replace(classifier.conventions, outputs="multi-label")
        return understood(classifier_with(self.model, said, image_shape=shape), data.x, patterns(data.y))

    def run(self) -> dict[str, Any]:
        card = {
            "name": self.name,
            "source": str(self.source),
            "command": self.context.command,
            "randomized": self.classifier.randomized,
            "attacks": [],
            "warnings": self.context.findings,
            # A SavedModel is copied as it is, with all of its outputs.
            **({"output": self.config.output} if isinstance(self.model, saving.SavedModelNetwork) else {}),
        }
        with self.context.stage("save", f"Saving {self.name}"):
            save = saving.copy_saved_model if isinstance(self.model, saving.SavedModelNetwork) else saving.save_model
            save(self.model, self.target, card, overwrite=self.config.overwrite)
        card = read_card(self.target) or card  # With the layers.
        self.context.emit(ModelSaved(name=self.name, path=str(self.target), card=card))
        return self.context.publish(self.context.header() | card)
