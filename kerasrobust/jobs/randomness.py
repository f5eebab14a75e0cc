"""The command `randomness`: what a randomized network's noise is worth."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from kerasrobust.attacks import PGD
from kerasrobust.config import RandomnessConfig, to_dict
from kerasrobust.data.dataset import Dataset
from kerasrobust.errors import InputError
from kerasrobust.evaluation.randomness import Line, probe_randomness
from kerasrobust.events import AttackFinished, AttackStarted, Log
from kerasrobust.jobs.attack import describe_data, load_subject, progress_teller
from kerasrobust.jobs.context import Context
from kerasrobust.jobs.job import Job
from kerasrobust.networks.classifier import Classifier
from kerasrobust.show.figures import summary


class RandomnessJob(Job[RandomnessConfig]):
    """Probes a randomized network."""

    def check(self) -> None:
        """Loads the model and the data and checks that they fit."""
        self.classifier, self.data = load_subject(self.context, self.config)
        if not self.classifier.randomized:
            raise InputError(
                f"Expected a randomized network. Received: {self.config.model}, which gives the same answer each time. "
                "Use the command attack for it."
            )

    def run(self) -> dict[str, Any]:
        return _probe(self.context, self.config, self.classifier, self.data)


def _probe(context: Context, config: RandomnessConfig, classifier: Classifier, data: Dataset) -> dict[str, Any]:
    """Runs the probe and writes `result.json` and the report."""
    epsilon = float(config.epsilon)

    def started(name: str, attack: PGD) -> None:
        settings = attack.settings()
        context.emit(
            AttackStarted(attack=name, norm=config.norm, epsilon=epsilon, examples=len(data), settings=settings)
        )

    def finished(line: Line) -> None:
        context.emit(AttackFinished(attack=line.name, **line.entry(config.norm, epsilon)))

    with context.stage("randomness", f"Is the randomness of {config.model} real?"):
        found = probe_randomness(
            classifier,
            data.x,
            data.y,
            norm=config.norm,
            epsilon=epsilon,
            gradients=config.gradients,
            passes=config.passes,
            seed=config.seed,
            batch_size=config.batch_size,
            started=started,
            progress=progress_teller(context),
            finished=finished,
            should_stop=context.should_stop,
        )
    for finding in found.findings:
        context.emit(finding)
    result = {
        **context.header(),
        "model": config.model,
        "data": describe_data(data),
        "precision": "float32",
        "randomized": True,
        "clean_accuracy": found.clean_accuracy,
        "clean_interval": list(found.clean_interval),
        "attacks": [
            line.entry(config.norm, epsilon) | {"eot": line.eot, "steps": line.steps, "own_accuracy": line.own_accuracy}
            for line in found.lines
        ],
        "robust_accuracy": found.strongest.accuracy,
        "interval": list(found.strongest.interval),
        "verdict": found.verdict,
        "warnings": context.findings,
    }
    title = f"Is the randomness of {Path(config.model).name} real?"
    context.publish(result, examples=[], title=title, settings=to_dict(config))
    context.emit(Log(level="info", message=summary(result)))
    return result
