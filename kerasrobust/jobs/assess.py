"""The command `assess`: one table of what a model is worth under several threats."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

import numpy as np

from kerasrobust.assessing import AssessConfig
from kerasrobust.entries import text
from kerasrobust.evaluation.assess import Assessment, assess
from kerasrobust.evaluation.outcome import CurvePoint, Share
from kerasrobust.events import Log, Row, as_dict
from kerasrobust.jobs.certify import trained_sigma, untrained
from kerasrobust.jobs.job import Job
from kerasrobust.jobs.subject import check_one_label, describe_data, load_subject, settings_of
from kerasrobust.runs import card_of
from kerasrobust.show.pairs import RATES
from kerasrobust.show.summaries import summary


class AssessJob(Job[AssessConfig]):
    """Measures a saved model under several threats, within a budget of time."""

    def check(self) -> None:
        self.classifier, self.data = load_subject(self.context, self.config)
        check_one_label(self.classifier)

    def run(self) -> dict[str, Any]:
        context, config, data = self.context, self.config, self.data
        sigma = config.sigma if config.sigma is not None else trained_sigma(config.model, config.models_dir)
        found = assess(
            self.classifier,
            data,
            minutes=config.minutes,
            version=config.version,
            sigma=sigma,
            seed=config.seed,
            precision=config.precision,
            batch_size=config.batch_size,
            passes=config.passes,
            resume_dir=context.unfinished,
            emit=context.emit,
            should_stop=context.should_stop,
        )
        if found.certificate is not None:
            finding = untrained(config.model, config.models_dir, found.certificate.sigma)
            if finding is not None:
                context.emit(finding)
        self._save(found)
        rows = self._rows(found)
        for row in rows:
            context.emit(row)
        result = {
            **context.header(),
            "model": config.model,
            "data": describe_data(data),
            "precision": config.precision,
            "randomized": found.randomized,
            "minutes": config.minutes,
            "rows": [
                {name: value for name, value in as_dict(row).items() if name not in ("type", "time")} for row in rows
            ],
            "clean_accuracy": found.unattacked.clean.accuracy,
            "clean_interval": list(found.unattacked.clean.interval),
            "calibration_error": found.unattacked.calibration.accuracy,
            "calibration_interval": list(found.unattacked.calibration.interval),
            "by_class": [
                {"name": name, "images": int(count), **({} if share is None else _share(share))}
                for name, count, share in zip(
                    data.class_names, found.unattacked.confusion.sum(axis=1), found.unattacked.per_class, strict=False
                )
            ],
            "confusion": found.unattacked.confusion.tolist(),
            "curves": [_curve(norm, points) for norm, points in found.curves.items()],
            **({} if found.corruptions is None else {"corruptions": found.corruptions.entry()}),
            **({} if found.certificate is None else {"certificate": found.certificate.entry()}),
            "left_out": found.left_out,
            "warnings": context.findings,
        }
        title = f"How fragile is {Path(config.model).name}?"
        context.publish(result, examples=[], title=title, settings=settings_of(config, data))
        context.emit(Log(level="info", message=summary(result)))
        for reason in found.left_out:
            context.emit(Log(level="info", message=f"Not looked at: {reason}"))
        return result

    def _save(self, found: Assessment) -> None:
        """Writes which images were measured and what came of each, by threat; `compare` reads it."""
        images, order = self.data.x, found.order
        known = {
            "order": order,
            "y": self.data.y[order],
            "checksum": np.array([zlib.crc32(images[number].tobytes()) for number in order], np.uint32),
        }
        np.savez(self.context.run.path / RATES, allow_pickle=False, **known, **found.rates)

    def _rows(self, found: Assessment) -> list[Row]:
        """Returns the rows of the table: clean, then each threat."""
        config = self.config
        card = card_of(config.model, config.models_dir)
        training = card.get("training")
        known: dict[str, Any] = {
            "name": Path(config.model).name,
            "model": Path(config.model).name,
            "training": text(training.get("training")) if isinstance(training, dict) else "",
            "randomized": found.randomized,
        }
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


def _curve(norm: str, points: list[CurvePoint]) -> dict[str, Any]:
    """Returns the entry of the attack that a curve over the radius is of."""
    return {"name": "fmn", "norm": norm, "curve": [list(point) for point in points]}


def _share(share: Share) -> dict[str, Any]:
    return {"accuracy": share.accuracy, "interval": list(share.interval)}
