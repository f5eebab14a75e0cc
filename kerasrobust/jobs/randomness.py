"""The command `randomness`: what a randomized network's noise is worth."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from kerasrobust.config import RandomnessConfig
from kerasrobust.errors import InputError
from kerasrobust.evaluation.randomness import probe_randomness
from kerasrobust.events import Log
from kerasrobust.jobs.job import Job
from kerasrobust.jobs.subject import check_one_label, describe_data, load_subject, settings_of
from kerasrobust.show.summaries import summary


class RandomnessJob(Job[RandomnessConfig]):
    """Probes a randomized network."""

    def check(self) -> None:
        self.classifier, self.data = load_subject(self.context, self.config)
        check_one_label(self.classifier)
        if not self.classifier.randomized:
            raise InputError(
                f"Expected a randomized network. Received: {self.config.model}, which gives the same answer each time. "
                "Use the command attack for it."
            )

    def run(self) -> dict[str, Any]:
        context, config, data = self.context, self.config, self.data
        norm, epsilon = config.ball
        with context.stage("randomness", f"Is the randomness of {config.model} real?"):
            found = probe_randomness(
                self.classifier,
                data.x,
                data.y,
                norm=norm,
                epsilon=epsilon,
                gradients=config.gradients,
                passes=config.passes,
                seed=config.seed,
                batch_size=config.batch_size,
                emit=context.emit,
                should_stop=context.should_stop,
            )
        entries = [
            trial.entry(norm, epsilon) | {"eot": trial.eot, "steps": trial.steps, "own_accuracy": trial.own_accuracy}
            for trial in found.trials
        ]
        result = {
            **context.header(),
            "model": config.model,
            "data": describe_data(data),
            "precision": "float32",
            "randomized": True,
            "clean_accuracy": found.clean_accuracy,
            "clean_interval": list(found.clean_interval),
            "attacks": entries,
            "robust_accuracy": found.strongest.accuracy,
            "interval": list(found.strongest.interval),
            "verdict": found.verdict,
            "warnings": context.findings,
        }
        title = f"Is the randomness of {Path(config.model).name} real?"
        context.publish(result, examples=[], title=title, settings=settings_of(config, data))
        context.emit(Log(level="info", message=summary(result)))
        return result
