"""The command `corruptions`: a saved model under common corruptions, by kind and severity."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from kerasrobust.assessing import CorruptionsConfig
from kerasrobust.data.corruptions.corrupting import corrupt
from kerasrobust.data.tfds import is_local
from kerasrobust.evaluation.corruptions import SOURCE, Corrupted, measure_corruptions
from kerasrobust.events import Log
from kerasrobust.jobs.job import Job
from kerasrobust.jobs.subject import describe_data, load_other, load_subject, settings_of
from kerasrobust.names import uncorrupted
from kerasrobust.networks.images import visible
from kerasrobust.show.corrupted import Picture, pictured
from kerasrobust.show.summaries import summary


class CorruptionsJob(Job[CorruptionsConfig]):
    """Measures a saved model under common corruptions, and a reference network beside it."""

    def check(self) -> None:
        self.classifier, self.data = load_subject(self.context, self.config)
        name = self.config.reference
        self.reference = None if name is None else load_other(self.config, name, self.context.emit)

    def run(self) -> dict[str, Any]:
        context, config = self.context, self.config
        kinds, severities = config.corruptions, config.severities
        published = f"{uncorrupted(self.data.name).split('/')[0].split(':')[0]}_corrupted"
        if is_local(published, config.data_dir):
            context.emit(Log(level="info", message=f"{published} of TFDS is there, but wasn't used. {SOURCE}"))
        under = f"{len(kinds)} corruptions" if len(kinds) > 1 else kinds[0]
        with context.stage("corruptions", f"{config.model} under {under}"):
            found = measure_corruptions(
                self.classifier,
                self.data.x,
                self.data.y,
                kinds=kinds,
                severities=severities,
                reference=self.reference,
                seed=config.seed,
                batch_size=config.batch_size,
                passes=config.passes,
                resume_dir=context.unfinished,
                emit=context.emit,
                should_stop=context.should_stop,
            )
        result = {
            **context.header(),
            "model": config.model,
            "data": describe_data(self.data),
            "precision": "float32",
            "randomized": self.classifier.randomized,
            "conventions": found.conventions,
            "clean_accuracy": found.clean.accuracy,
            "clean_interval": list(found.clean.interval),
            "corruptions": found.entry(None if config.reference is None else Path(config.reference).name),
            "warnings": context.findings,
        }
        title = f"{Path(config.model).name} under common corruptions"
        pictures = list(self._pictures(found))
        context.publish(result, examples=[], pictures=pictures, title=title, settings=settings_of(config, self.data))
        context.emit(Log(level="info", message=summary(result)))
        return result

    def _pictures(self, found: Corrupted) -> Iterator[Picture]:
        """Yields one image as it is and under each corruption, just as it was measured."""
        data, place = self.data, found.shown
        # Several labels have no single name.
        names = data.class_names if self.classifier.labels is None else ()

        def picture(image: np.ndarray, kind: str, severity: int, said: int | None) -> Picture:
            known = {"label": names[data.y[place]] if names else "", "answer": ""}
            if said is not None and 0 <= said < len(names):
                known["answer"] = names[said]
            return Picture(kind=kind, severity=severity, image=image, **known)

        image = visible(self.classifier, data.x[place])
        yield picture(image, "", 0, found.said)
        severities = pictured(self.config.severities)
        for cell in found.cells:
            if cell.severity in severities:
                made = corrupt(image[None], cell.kind, cell.severity, seed=self.config.seed, first=place)[0]
                yield picture(made, cell.kind, cell.severity, cell.said)
