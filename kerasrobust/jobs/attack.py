"""The command `attack`: a saved model, data, one attack, and what it found in `result.json` and `examples.h5`."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kerasrobust import saving
from kerasrobust.attacks import Attack, Step
from kerasrobust.callbacks import PROGRESS_SECONDS
from kerasrobust.classifier import as_classifier, check_images
from kerasrobust.config import AttackConfig, to_dict
from kerasrobust.data import Dataset, load_dataset
from kerasrobust.evaluation import AttackReport, Evaluation, evaluate, make_attack
from kerasrobust.events import AttackFinished, AttackProgress, AttackStarted, ExamplesSaved, Finding
from kerasrobust.examples import read_index, read_pair, write_examples
from kerasrobust.jobs.context import Context
from kerasrobust.report import ExampleStrip

STRIPS = 8
"""Images in a report, per attack."""


def prepare(context: Context, config: AttackConfig) -> Callable[[], dict[str, Any]]:
    """Loads the model and the data and checks that they fit; returns the work."""
    attack = make_attack(
        config.attack,
        norm=config.norm,
        epsilon=float(config.epsilon),
        eot=config.eot,
        steps=config.steps,
        step_size=None if config.step_size is None else float(config.step_size),
        restarts=None if config.restarts == 1 else config.restarts,
    )
    model = saving.load_model(config.model, models_dir=config.models_dir)
    data = load_dataset(config.data, config.split, data_dir=config.data_dir, emit=context.emit)
    classifier = as_classifier(model, image_shape=data.images.shape[1:])
    check_images(classifier, data.x, data.y)

    def work() -> dict[str, Any]:
        with context.stage("attack", f"Attacking {config.model} with {attack.name}"):
            evaluation = evaluate_with_events(
                context,
                classifier,
                data,
                [attack],
                seed=config.seed,
                batch_size=config.batch_size,
                epsilon=float(config.epsilon),
                precision=config.precision,
                passes=config.passes,
            )
        name = Path(config.model).name
        path = save_examples(context, "examples.h5", name, data, evaluation.attacks)
        result = {
            "schema": 1,
            "kind": config.kind,
            "model": config.model,
            "data": {
                "name": data.name, "split": data.split, "examples": len(data), "synthetic": data.synthetic
            },
            "seed": config.seed,
            "precision": "float32" if config.precision == "auto" else config.precision,
            "versions": context.versions,
            "randomized": classifier.randomized,
            "clean_accuracy": evaluation.clean_accuracy,
            "clean_interval": list(evaluation.clean_interval),
            "attacks": [item.entry() for item in evaluation.attacks],
            "robust_accuracy": evaluation.robust_accuracy,
            "interval": list(evaluation.interval),
            "warnings": context.findings,
        }  # fmt: skip
        return context.publish(
            result,
            examples=strips(path),
            title=f"{name} under {attack.name}",
            settings=to_dict(config),
        )

    return work


def evaluate_with_events(
    context: Context, model: Any, data: Dataset, attacks: Sequence[Attack], **settings: Any
) -> Evaluation:
    """Calls `evaluate` and tells its course as events."""

    def started(attack: Attack) -> None:
        context.emit(
            AttackStarted(
                attack=attack.name,
                norm=attack.norm,
                epsilon=attack.radius(),
                examples=len(data),
                settings=attack.settings(),
            )
        )

    told = 0.0

    def progress(attack: Attack, step: Step) -> None:
        nonlocal told
        if time.monotonic() - told < PROGRESS_SECONDS and step.done < step.total:
            return
        told = time.monotonic()
        context.emit(AttackProgress(attack=attack.name, **vars(step)))

    def finished(report: AttackReport) -> None:
        context.emit(AttackFinished(attack=report.attack.name, **report.entry()))

    evaluation = evaluate(
        model,
        data.x,
        data.y,
        attacks=attacks,
        started=started,
        progress=progress,
        finished=finished,
        should_stop=context.should_stop,
        **settings,
    )
    for code, message in evaluation.warnings:
        context.emit(Finding(code=code, message=message, severity="warning"))
    return evaluation


def save_examples(
    context: Context, path: str, model: str, data: Dataset, reports: Sequence[AttackReport], count: int | None = None
) -> Path:
    """Writes what the attacks did to the first `count` images, or to all, into the run's folder; tells it as events."""
    target = context.run.path / path
    x = data.x[:count]
    parts = []
    for report in reports:
        found = {name: values[:count] for name, values in vars(report.result).items() if isinstance(values, np.ndarray)}
        attack = {"attack": report.attack.name, "epsilon": report.attack.radius(), "eot": report.attack.eot}
        parts.append({"x": x, "y": data.y[:count], **found, **attack})
    norm = reports[0].attack.norm
    write_examples(target, parts, model=model, norm=norm, class_names=data.class_names)
    for report in reports:
        context.emit(ExamplesSaved(path=path, count=len(x), attack=report.attack.name))
    return target


def strips(path: Path, count: int = STRIPS) -> list[ExampleStrip]:
    """Returns images for the report, per attack of a file: what the model had right, what the attack changed first."""
    index = read_index(path)
    if index.image_shape[-1] not in (1, 3, 4):  # Nothing that a picture could show.
        return []
    shown = []
    for block in index.blocks():
        right = [place for place in block.examples if index.correct[place]]
        for place in sorted(right, key=lambda place: not index.success[place])[:count]:
            x, x_adv = read_pair(path, place)
            shown.append(
                ExampleStrip(
                    model=index.model,
                    attack=block.attack,
                    epsilon=block.epsilon,
                    norm=index.norm,
                    x=x,
                    x_adv=x_adv,
                    label=index.class_name(index.y[place]),
                    prediction=index.class_name(index.prediction[place]),
                    prediction_adv=index.class_name(index.prediction_adv[place]),
                    confidence=float(index.confidence[place]),
                    confidence_adv=float(index.confidence_adv[place]),
                    distance=float(index.distance[place]),
                )
            )
    return shown
