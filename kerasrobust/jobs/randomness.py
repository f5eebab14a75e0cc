"""The command `randomness`: what a randomized network's noise is worth."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from kerasrobust.config import RandomnessConfig, to_dict
from kerasrobust.errors import InputError
from kerasrobust.evaluation.randomness import probe_randomness
from kerasrobust.events import Log
from kerasrobust.jobs.attack import describe, load_subject
from kerasrobust.jobs.context import Context
from kerasrobust.show.figures import summary


def prepare(context: Context, config: RandomnessConfig) -> Callable[[], dict[str, Any]]:
    """Loads the model and the data and checks that they fit; returns the work."""
    classifier, data = load_subject(context, config)
    if not classifier.randomized:
        raise InputError(
            f"Expected a randomized network. Received: {config.model}, which gives the same answer each time. "
            "Use the command attack for it."
        )
    epsilon = float(config.epsilon)

    def work() -> dict[str, Any]:
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
                emit=context.emit,
                should_stop=context.should_stop,
            )
        result = {
            "schema": 1,
            "kind": config.kind,
            "model": config.model,
            **describe(context, config, data),
            "precision": "float32",
            "randomized": True,
            "clean_accuracy": found.clean_accuracy,
            "clean_interval": list(found.clean_interval),
            "attacks": [
                trial.entry(config.norm, epsilon)
                | {"eot": trial.eot, "steps": trial.steps, "own_accuracy": trial.own_accuracy}
                for trial in found.trials
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

    return work
