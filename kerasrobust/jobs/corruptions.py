"""The command `corruptions`: a saved model under common corruptions, by kind and severity."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from kerasrobust.assessing import CorruptionsConfig
from kerasrobust.data.tfds import is_local
from kerasrobust.evaluation.corruptions import SOURCE, measure_corruptions
from kerasrobust.events import Log
from kerasrobust.jobs.job import Job
from kerasrobust.jobs.subject import describe_data, load_other, load_subject, settings_of
from kerasrobust.names import uncorrupted
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
        context.publish(result, examples=[], title=title, settings=settings_of(config, self.data))
        context.emit(Log(level="info", message=summary(result)))
        return result
