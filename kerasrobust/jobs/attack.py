"""The command `attack`: a saved model, data, one attack, and what it found in `result.json` and `examples.h5`."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from kerasrobust import saving
from kerasrobust.attacks import Attack, Step
from kerasrobust.callbacks import PROGRESS_SECONDS
from kerasrobust.classifier import as_classifier, check_images
from kerasrobust.config import AttackConfig, to_dict
from kerasrobust.data import Dataset, load_dataset
from kerasrobust.evaluation import AttackReport, Evaluation, evaluate, make_attack
from kerasrobust.events import AttackFinished, AttackProgress, AttackStarted, ExamplesSaved, Finding
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
        write_examples(context, data, evaluation.attacks[0])
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
            examples=strips(Path(config.model).name, data, evaluation.attacks[0]),
            title=f"{Path(config.model).name} under {attack.name}",
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


def write_examples(context: Context, data: Dataset, report: AttackReport) -> Path:
    """Writes `examples.h5`, whole or not at all: one entry per example, in the order of the data."""
    result = report.result
    target = context.run.path / "examples.h5"
    temporary = target.with_suffix(".part")
    try:
        with h5py.File(temporary, "w") as file:
            file["x"], file["y"] = data.x, data.y
            for name in ("x_adv", "prediction", "prediction_adv", "success", "correct_rate", "distance"):
                file[name] = getattr(result, name)
            file["attack"] = np.array([report.attack.name] * len(data), dtype=h5py.string_dtype())
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)
    context.emit(ExamplesSaved(path=target.name, count=len(data), attack=report.attack.name))
    return target


def strips(model: str, data: Dataset, report: AttackReport, count: int = STRIPS) -> list[ExampleStrip]:
    """Returns images for the report: what the model had right, those that the attack changed first."""
    result = report.result
    order = (
        np.flatnonzero(result.correct & result.success).tolist()
        + np.flatnonzero(result.correct & ~result.success).tolist()
    )
    names, x = dict(enumerate(data.class_names)), data.x
    if x.shape[-1] not in (1, 3, 4):  # Nothing that a picture could show.
        return []
    return [
        ExampleStrip(
            model=model,
            attack=report.attack.name,
            epsilon=report.attack.radius(),
            norm=report.attack.norm,
            x=x[index],
            x_adv=result.x_adv[index],
            label=names[int(data.y[index])],
            # A model may know more classes than the data have.
            prediction=names.get(int(result.prediction[index]), f"class {result.prediction[index]}"),
            prediction_adv=names.get(int(result.prediction_adv[index]), f"class {result.prediction_adv[index]}"),
            confidence=float(result.confidence[index]),
            confidence_adv=float(result.confidence_adv[index]),
            distance=float(result.distance[index]),
        )
        for index in order[:count]
    ]
