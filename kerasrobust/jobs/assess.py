"""The command `assess`: one table of what models are worth under several threats."""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kerasrobust.assessing import AssessConfig
from kerasrobust.data.dataset import Dataset
from kerasrobust.entries import text
from kerasrobust.errors import InputError
from kerasrobust.evaluation.assess import Assessment, assess
from kerasrobust.evaluation.outcome import CurvePoint, Share
from kerasrobust.events import Emit, Event, Finding, Log, Row, StageStarted, as_dict
from kerasrobust.jobs.certify import trained_sigma, untrained
from kerasrobust.jobs.job import Job
from kerasrobust.jobs.subject import (
    by_name,
    check_one_label,
    describe_data,
    fitting,
    load_other,
    load_subject,
    settings_of,
)
from kerasrobust.networks.making import classifier_of
from kerasrobust.networks.saving import find_model
from kerasrobust.runs import card_of
from kerasrobust.show.pairs import RATES, by_threat, sentence
from kerasrobust.show.summaries import summary


class AssessJob(Job[AssessConfig]):
    """Measures saved models under several threats on the same images, within a budget of time.

    The first is the config's model. Of those beside it the result has the same, under `beside`.
    """

    def check(self) -> None:
        config, emit = self.config, self.context.emit
        classifier, self.data = load_subject(self.context, config)
        self.subjects = {config.model: (classifier, self.data)}
        for name in config.others:
            other = classifier_of(load_other(config, name, emit), image_shape=self.data.x.shape[1:])
            try:
                self.subjects[name] = fitting(other, by_name(self.context, config, name, self.data))
            except InputError as error:
                raise InputError(f"--beside {name}: {error}") from error
        for classifier, _ in self.subjects.values():
            check_one_label(classifier)
        self.names = called(list(self.subjects))
        paths = [find_model(name, config.models_dir).resolve() for name in self.subjects]
        if len(set(paths)) < len(paths):
            raise config.named_twice()

    def run(self) -> dict[str, Any]:
        context, config, data = self.context, self.config, self.data
        found = [self._assessed(number, name) for number, name in enumerate(self.subjects)]
        names = list(self.names.values())
        rows = [row for name, one in zip(self.subjects, found, strict=True) for row in self._rows(name, one)]
        arrays = [self._saved(number, one) for number, one in enumerate(found)]
        compared = [
            (names[0], name, pair)
            for name, other in zip(names[1:], arrays[1:], strict=True)
            for pair in by_threat(arrays[0], other)
        ]
        left_out = [
            f"{name}: {reason}" if len(names) > 1 else reason
            for name, one in zip(names, found, strict=True)
            for reason in one.reasons(len(names))
        ]
        sentences = [sentence(*pair) for pair in compared]
        others = list(self.subjects.items())[1:]
        beside = [
            {"model": name, **details(one, own, len(names))}
            for (name, (_, own)), one in zip(others, found[1:], strict=True)
        ]
        result = {
            **context.header(),
            "model": config.model,
            "data": describe_data(data),
            "precision": config.precision,
            "randomized": found[0].randomized,
            "minutes": config.minutes,
            "rows": [
                {name: value for name, value in as_dict(row).items() if name not in ("type", "time")} for row in rows
            ],
            **details(found[0], data, len(names)),
            "left_out": left_out,
            **({"beside": beside} if beside else {}),
            **({"compared": sentences, "pairs": [pair.entry(*both) for *both, pair in compared]} if compared else {}),
            "warnings": context.findings,
        }
        title = f"How fragile is {names[0]}?" if len(names) == 1 else f"How fragile are {', '.join(names)}?"
        context.publish(result, examples=[], title=title, settings=settings_of(config, data))
        context.emit(Log(level="info", message=summary(result)))
        for reason in left_out:
            context.emit(Log(level="info", message=f"Not looked at: {reason}"))
        for words in sentences:
            context.emit(Log(level="info", message=words))
        return result

    def _assessed(self, number: int, name: str) -> Assessment:
        """Returns what comes of one model, in its part of the minutes."""
        context, config = self.context, self.config
        emit = _of_model(context.emit, self._known(name), several=len(self.subjects) > 1)
        folder = context.unfinished
        found = assess(
            *self.subjects[name],
            minutes=config.minutes / len(self.subjects),
            version=config.version,
            sigma=config.sigma if config.sigma is not None else trained_sigma(name, config.models_dir),
            seed=config.seed,
            precision=config.precision,
            batch_size=config.batch_size,
            passes=config.passes,
            resume_dir=folder if number == 0 else folder / f"beside-{number}",
            emit=emit,
            should_stop=context.should_stop,
        )
        if found.certificate is not None:
            finding = untrained(name, config.models_dir, found.certificate.sigma)
            if finding is not None:
                emit(finding)
        return found

    def _saved(self, number: int, found: Assessment) -> Mapping[str, np.ndarray]:
        """Writes which images were measured and what came of each, by threat, and returns it; `compare` reads it."""
        images, order = self.data.x, found.order
        arrays = {
            "order": order,
            "y": self.data.y[order],
            "checksum": np.array([zlib.crc32(images[place].tobytes()) for place in order], np.uint32),
            **found.rates,
        }
        path = self.context.run.path / RATES
        np.savez(path if number == 0 else path.with_stem(f"{path.stem}-{number}"), allow_pickle=False, **arrays)
        return arrays

    def _known(self, name: str) -> dict[str, Any]:
        """Returns what each of a model's rows has."""
        training = card_of(name, self.config.models_dir).get("training")
        words = text(training.get("training")) if isinstance(training, dict) else ""
        return {"name": self.names[name], "model": self.names[name], "training": words}

    def _rows(self, name: str, found: Assessment) -> list[Row]:
        """Returns a model's rows of the table: clean, then each threat."""
        known = self._known(name) | {"randomized": found.randomized}
        clean = found.unattacked.clean
        rows = [Row(**known, accuracy=clean.accuracy, interval=list(clean.interval), examples=len(found.order))]
        return rows + [
            Row(
                **known,
                attack=figure.name,
                norm=figure.threat,
                epsilon=figure.epsilon,
                accuracy=figure.accuracy,
                interval=list(figure.interval),
                examples=figure.images,
            )
            for figure in found.figures
        ]


def called(models: Sequence[str]) -> dict[str, str]:
    """Returns what to call each of some models: by the end of its path, or by the whole where others end so, too.

    Example:
        >>> called(["saved_models/net", "a/model.keras", "b/model.keras"])
        {'saved_models/net': 'net', 'a/model.keras': 'a/model.keras', 'b/model.keras': 'b/model.keras'}
    """
    ends = [Path(model).name for model in models]
    return {model: end if ends.count(end) == 1 else model for model, end in zip(models, ends, strict=True)}


def details(found: Assessment, data: Dataset, models: int) -> dict[str, Any]:
    """Returns what `result.json` has of one model beside the table; `models` share the minutes."""
    seen, y = found.unattacked, data.y[found.order]
    return {
        "conventions": found.conventions,
        "clean_accuracy": seen.clean.accuracy,
        "clean_interval": list(seen.clean.interval),
        "calibration_error": seen.calibration.accuracy,
        "calibration_interval": list(seen.calibration.interval),
        "by_class": [
            {"name": name, "images": int(count), **({} if share is None else _share(share))}
            for name, count, share in zip(
                data.class_names, np.bincount(y, minlength=len(seen.per_class)), seen.per_class, strict=False
            )
        ],
        "confusion": seen.confusion.tolist(),
        "curves": [_curve(norm, points, found.curve_images) for norm, points in found.curves.items()],
        **({} if found.corruptions is None else {"corruptions": found.corruptions.entry()}),
        **({} if found.certificate is None else {"certificate": found.certificate.entry()}),
        "left_out": found.reasons(models),
    }


def _of_model(emit: Emit, known: dict[str, Any], several: bool) -> Emit:
    """Returns where to emit a model's events: rows get its name, and of several models stages and findings, too."""
    name = known["name"]

    def named(event: Event) -> None:
        if isinstance(event, Row):
            event = dataclasses.replace(event, **known)
        if several and event.stage is not None:
            event = dataclasses.replace(event, stage=f"{name} {event.stage}")
        if several and isinstance(event, StageStarted):
            event = dataclasses.replace(event, title=f"{name}: {event.title}")
        elif several and isinstance(event, Finding):
            event = dataclasses.replace(event, message=f"{name}: {event.message}")
        emit(event)

    return named


def _curve(norm: str, points: list[CurvePoint], images: int) -> dict[str, Any]:
    """Returns the entry of the attack that a curve over the radius is of."""
    return {"name": "fmn", "norm": norm, "examples": images, "curve": [list(point) for point in points]}


def _share(share: Share) -> dict[str, Any]:
    return {"accuracy": share.accuracy, "interval": list(share.interval)}
