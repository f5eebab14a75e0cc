"""The commands `attack` and `audit`: a saved model, data, attacks, and what they found in `result.json`."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kerasrobust.attacks import ATTACKS, PGD, Attack, AttackResult, make_attack
from kerasrobust.attacks.surrogate import check_transfers, surrogate_of
from kerasrobust.config import AttackConfig
from kerasrobust.data.dataset import Dataset
from kerasrobust.errors import InputError, unknown_name
from kerasrobust.evaluation.autoattack import AutoAttack
from kerasrobust.evaluation.by_class import by_class
from kerasrobust.evaluation.evaluate import Evaluation, evaluate
from kerasrobust.evaluation.outcome import AttackReport
from kerasrobust.events import Audited, Event, ExamplesSaved, Finding, Log
from kerasrobust.jobs.context import Context
from kerasrobust.jobs.job import Job
from kerasrobust.jobs.subject import describe_data, load_other, load_subject, settings_of
from kerasrobust.names import TARGETS
from kerasrobust.networks.classifier import Classifier
from kerasrobust.records import Result
from kerasrobust.show.audited import audit_of
from kerasrobust.show.examples import read_index, read_pair, write_examples
from kerasrobust.show.figures import made_on
from kerasrobust.show.report import ExampleStrip
from kerasrobust.show.summaries import summary

STRIPS = 8
"""Images in a report, per attack; about a third of them survivors, where there are any."""

_LEARNED = {"patch": "universal-patch", "perturbation": "universal"}
"""What is learned of all images together, as files and options are called, and the attack that does it."""


class AttackJob(Job[Any]):
    """Attacks a saved model, and writes the examples, `result.json` and the report."""

    def check(self) -> None:
        self.attack = self.make_attack()
        self.classifier, self.data = load_subject(self.context, self.config)
        self.target = self.find_target()
        self.surrogate = self.find_surrogate()

    def make_attack(self) -> Attack[Any] | AutoAttack:
        return _attack(self.config)

    def find_target(self) -> str | int | None:
        """Returns what images are driven to: a word, or the number of a class that was named."""
        target, names = self.config.target, list(self.data.class_names)
        if target is None or target in TARGETS:
            return target
        if target in names:
            return names.index(target)
        if target.isdecimal():
            return int(target)
        raise unknown_name("target", target, [*TARGETS, *names], ", or the number of a class")

    def find_surrogate(self) -> Classifier | None:
        """Returns the classifier whose gradients are taken instead of the model's, if one was named, under its name."""
        config, attack = self.config, self.attack
        if config.surrogate is None:
            return None
        check_transfers(attack.parts(self.classifier) if isinstance(attack, AutoAttack) else [attack])
        surrogate = load_other(config, config.surrogate, self.context.emit)
        found = surrogate_of(self.classifier, surrogate, self.data.images.shape[1:])
        found.name = Path(config.surrogate).name
        return found

    def looks(self) -> dict[str, Any]:
        """Returns what the audit may do beyond what is usual."""
        return {}

    def titles(self) -> tuple[str, str, str]:
        model, names = self.config.model, self.config.attack.replace(",", ", ")
        under = made_on(names, None if self.surrogate is None else self.surrogate.name)
        return f"Attacking {model} with {under}", f"{Path(model).name} under {under}", self.config.attack

    def run(self) -> dict[str, Any]:
        doing, title, name = self.titles()
        with self.context.stage(self.config.kind, doing):
            evaluation = evaluate_with_events(
                self.context,
                self.classifier,
                self.data,
                [self.attack],
                epsilon=self.config.ball[1],
                target=self.target,
                surrogate=self.surrogate,
                passes=self.config.passes,
                resume_dir=self.context.unfinished,
                **self.looks(),
            )
        return self._conclude(evaluation, title, name)

    def _conclude(self, evaluation: Evaluation, title: str, name: str) -> dict[str, Any]:
        """Writes the examples, `result.json` and the report; returns the result."""
        context, config = self.context, self.config
        shown = self.data.of_patterns() if evaluation.labels else self.data
        path = save_worst(context, "examples.h5", Path(config.model).name, shown, evaluation, name)
        _save_learned(context, evaluation)
        result = {
            **context.header(),
            "model": config.model,
            "attack": name,
            **self._version(),
            **({} if self.target is None else {"target": self.config.target}),
            **({} if self.surrogate is None else {"surrogate": self.config.surrogate}),
            "data": describe_data(self.data),
            **evaluation.entry(),
            **by_class(evaluation, self.data.y, self.data.class_names, self.classifier.classes),
            "randomized": self.classifier.randomized,
            "warnings": context.findings,
        }
        context.publish(result, examples=strips(path), title=title, settings=settings_of(config, self.data))
        context.emit(Log(level="info", message=summary(result)))
        return result

    def _version(self) -> dict[str, str]:
        """Returns the version of AutoAttack that ran, where that was asked for by its name."""
        if not isinstance(self.attack, AutoAttack) or self.attack.attacks:
            return {}
        confirmed = " confirmed" if self.attack.confirm else ""
        return {"version": f"{self.attack.chosen(self.classifier)}{confirmed}"}


class AuditJob(AttackJob):
    """Looks for reasons to doubt a model's robust accuracy."""

    def looks(self) -> dict[str, Any]:
        return {"thorough": True, "test_attack": self.config.thorough}

    def find_target(self) -> None:
        return None

    def find_surrogate(self) -> Classifier | None:
        return None

    def make_attack(self) -> Attack[Any]:
        config = self.config
        norm, epsilon = config.ball
        return PGD(norm=norm, epsilon=epsilon, steps=config.steps, eot=config.eot)

    def run(self) -> dict[str, Any]:
        result = super().run()
        self.context.emit(Audited(**vars(audit_of(Result.parse(result)))))
        return result

    def titles(self) -> tuple[str, str, str]:
        model = self.config.model
        return f"Looking for reasons to doubt {model}", f"Is {Path(model).name} as robust as it seems?", PGD.name


def _attack(config: AttackConfig) -> Attack[Any] | AutoAttack:
    """Returns what a config asks for: an attack, AutoAttack, or several attacks as a custom AutoAttack."""
    norm, radius = config.ball
    asked = {"epsilon": config.epsilon, "epsilons": config.epsilons, "norm": config.norm.replace("auto", "")}
    for option, given in asked.items():
        if given not in (None, (), "") and not config.in_ball:
            raise InputError(
                f"Expected no --{option} with {config.attack}, as what it may do is no ball. "
                f"Received: {' '.join(map(str, given)) if isinstance(given, tuple) else given}. Leave it out."
            )
    if config.attack == AutoAttack.name:
        for name in ("steps", "step_size", "queries", "variants"):
            if getattr(config, name) is not None:
                raise InputError(
                    f"Expected AutoAttack without --{name.replace('_', '-')}: it has nothing to tune. Received: "
                    f"{getattr(config, name)}. Leave it out, or name its parts: --attack apgd-ce,apgd-t,fab-t,square."
                )
        if config.restarts != 1:
            raise InputError(
                f"Expected AutoAttack without --restarts: its versions have their own. Received: {config.restarts}. "
                "Leave it out, or take --version plus."
            )
        return AutoAttack(
            norm=norm, epsilon=radius, version=config.version, confirm=config.confirm, eot=config.eot,
            epsilons=config.epsilons,
        )  # fmt: skip
    settings = _settings(config)
    names = [name.strip() for name in config.attack.split(",")]
    known = {name: {item.name for item in dataclasses.fields(ATTACKS[name])} for name in names}
    for setting, value in settings.items():
        if value is not None and not any(setting in own for own in known.values()):
            option = {"pixels": "patch", "size": "patch-size"}.get(setting, setting.replace("_", "-"))
            raise InputError(f"Expected settings that {config.attack!r} has. Received: --{option}. Leave it out.")
    attacks = [
        make_attack(
            name,
            norm=norm,
            epsilon=radius,
            eot=config.eot or 1,
            targeted=config.target is not None,
            # In a list each takes what it has.
            **{setting: value for setting, value in settings.items() if setting in known[name]},
        )
        for name in names
    ]
    if len(attacks) == 1 and not config.epsilons:
        return attacks[0]
    return AutoAttack(norm=norm, epsilon=radius, attacks=attacks, epsilons=config.epsilons)


def _settings(config: AttackConfig) -> dict[str, Any]:
    """Returns the settings of attacks by their names there; None where an attack's own is left."""
    pixels = None if config.patch is None else _load(config.patch, "patch", "size, size, channels")
    known = None if config.perturbation is None else _load(config.perturbation, "perturbation", "H, W, channels")
    return {
        "steps": config.steps,
        "step_size": None if config.step_size is None else float(config.step_size),
        "queries": config.queries,
        "variants": config.variants,
        "restarts": None if config.restarts == 1 else config.restarts,
        "size": config.patch_size if config.patch_size or pixels is None else len(pixels),
        "pixels": pixels,
        "perturbation": known,
        "budget": config.budget,
    }


def _load(path: str, what: str, shape: str) -> np.ndarray:
    """Returns the array that a run has saved as its patch or its perturbation."""
    try:
        found = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise InputError(
            f"Expected a {what} in a file that holds one NumPy array. Received: {path} ({error}). Give the {what}.npy "
            f"of a run of {_LEARNED[what]}."
        ) from error
    if not isinstance(found, np.ndarray) or found.ndim != 3:
        raise InputError(
            f"Expected a {what} of shape ({shape}). Received: another array in {path}. Give the {what}.npy of a run of "
            f"{_LEARNED[what]}."
        )
    return found


def evaluate_with_events(
    context: Context,
    model: Any,
    data: Dataset,
    attacks: Sequence[Attack[Any] | AutoAttack],
    *,
    named: str = "",
    **settings: Any,
) -> Evaluation:
    """Evaluates a model on a data set, by the run's settings but for those given; the run gets the events.

    Findings begin with what the model is `named`, where a run has several.
    """

    def emit(event: Event) -> None:
        if named and isinstance(event, Finding):
            event = dataclasses.replace(event, message=f"{named}: {event.message}")
        context.emit(event)

    known = {name: getattr(context.config, name) for name in ("seed", "batch_size", "precision")}
    return evaluate(model, data, attacks=attacks, emit=emit, should_stop=context.should_stop, **(known | settings))


def _save_learned(context: Context, evaluation: Evaluation) -> None:
    """Writes what was trained on all images together: a patch, or a perturbation."""
    for report in evaluation.attacks:
        if report.result.learned is not None:
            what = next(what for what, name in _LEARNED.items() if name == report.attack.name)
            path = context.run.path / f"{what}.npy"
            np.save(path, report.result.learned)
            context.emit(Log(level="info", message=f"The {what} is in {path}; --{what} takes it for other images."))


def save_examples(
    context: Context, path: str, model: str, data: Dataset, reports: Sequence[AttackReport], count: int | None = None
) -> Path:
    """Writes what each attack did to the first `count` images, or to all, into the run's folder; emits events."""
    parts = [
        _part(data, report.result, report.attack.name, report.attack.radius(), report.attack.eot, count)
        for report in reports
    ]
    return _write(context, path, model, data, reports, parts, [item.attack.name for item in reports])


def save_worst(context: Context, path: str, model: str, data: Dataset, evaluation: Evaluation, name: str) -> Path:
    """Writes one example per image, of the attack that did worst, into the run's folder; emits events."""
    reports = evaluation.attacks
    if len(reports) == 1:
        return save_examples(context, path, model, data, reports)
    eot = {report.attack.name: report.attack.eot for report in reports}
    passes = np.array([eot[attack] for attack in evaluation.by_attack])
    # What lies within a smaller radius lies within the last one, the largest.
    part = _part(data, evaluation.worst, evaluation.by_attack, reports[-1].epsilon, passes)
    return _write(context, path, model, data, reports, [part], [name])


def _part(
    data: Dataset, result: AttackResult, attack: Any, epsilon: float | None, eot: Any, count: int | None = None
) -> dict[str, Any]:
    """Returns what a file of examples keeps of one attack; names and passes may differ from example to example."""
    found = {name: values[:count] for name, values in vars(result).items() if isinstance(values, np.ndarray)}
    part = data[:count]
    # There it means wrong under attack, whatever the attack was after.
    found["success"] = found["correct_rate"] <= 0.5
    return {"x": part.x, "y": part.y, **found, "attack": attack, "epsilon": epsilon, "eot": eot}


def _write(
    context: Context,
    path: str,
    model: str,
    data: Dataset,
    reports: Sequence[AttackReport],
    parts: list[dict[str, Any]],
    names: list[str],
) -> Path:
    target = context.run.path / path
    norm = " or ".join(dict.fromkeys(report.attack.threat() for report in reports))
    write_examples(target, parts, model=model, norm=norm, class_names=data.class_names)
    for name, part in zip(names, parts, strict=True):
        context.emit(ExamplesSaved(path=path, count=len(part["y"]), attack=name))
    return target


def strips(path: Path, count: int = STRIPS) -> list[ExampleStrip]:
    """Returns images for the report, per attack in a file, of those classified correctly: where the attack succeeded,
    and then some that it has left.
    """
    index = read_index(path)
    if index.image_shape[-1] not in (1, 3, 4):  # Nothing that a picture could show.
        return []
    shown = []
    for block in index.blocks():
        right = [place for place in block.examples if index.correct[place]]
        fallen = [place for place in right if index.success[place]]
        left = [place for place in right if not index.success[place]]
        kept = left[: max(count // 3, count - len(fallen))]
        for place in [*fallen[: count - len(kept)], *kept]:
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
                    eot=block.eot,
                )
            )
    return shown
