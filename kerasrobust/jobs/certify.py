"""The command `certify`: what randomized smoothing proves of a saved model, and with which confidence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from kerasrobust.assessing import CertifyConfig
from kerasrobust.config import TrainConfig
from kerasrobust.evaluation.smoothing import Certificate, certify, check_network, check_settings
from kerasrobust.events import Certified, Finding, Log
from kerasrobust.jobs.context import Context
from kerasrobust.jobs.job import Job
from kerasrobust.jobs.subject import describe_data, load_subject, settings_of
from kerasrobust.records import Card
from kerasrobust.runs import card_of
from kerasrobust.show.summaries import summary
from kerasrobust.training.objectives.gaussian import Gaussian


class CertifyJob(Job[CertifyConfig]):
    """Certifies a saved model; writes `result.json`, the report, and each image's certificate in `certificate.npz`."""

    def check(self) -> None:
        config = self.config
        check_settings(
            config.smoothing_noise,
            config.sigma,
            config.samples,
            config.selection,
            config.alpha,
            float(config.least_radius),
        )
        self.classifier, self.data = load_subject(self.context, config)
        check_network(self.classifier)

    def run(self) -> dict[str, Any]:
        context, config = self.context, self.config
        name = Path(config.model).name
        with context.stage(
            "certify", f"Certifying {config.model} under {config.smoothing_noise} noise, sigma {config.sigma:g}"
        ):
            found = certify(
                self.classifier,
                self.data.x,
                self.data.y,
                sigma=config.sigma,
                noise=config.smoothing_noise,
                samples=config.samples,
                selection=config.selection,
                alpha=config.alpha,
                least_radius=float(config.least_radius),
                seed=config.seed,
                batch_size=config.batch_size,
                resume_dir=context.unfinished,
                emit=context.emit,
                should_stop=context.should_stop,
            )
            finding = untrained(config.model, config.models_dir, config.sigma, config.smoothing_noise)
            if finding is not None:
                context.emit(finding)
        self._save(context, found)
        entry = found.entry(list(map(float, config.radii)))
        accuracy, interval = found.clean.accuracy, list(found.clean.interval)
        context.emit(Certified(clean_accuracy=accuracy, clean_interval=interval, certificate=entry))
        result = {
            **context.header(),
            "model": config.model,
            "data": describe_data(self.data),
            "precision": "float32",
            "randomized": self.classifier.randomized,
            "clean_accuracy": accuracy,
            "clean_interval": interval,
            "conventions": found.conventions,
            "certificate": entry,
            "warnings": context.findings,
        }
        settings = settings_of(config, self.data)
        context.publish(result, examples=[], title=f"What is certified of {name}", settings=settings)
        context.emit(Log(level="info", message=summary(result)))
        return result

    def _save(self, context: Context, found: Certificate) -> None:
        """Writes what was found of each image, in the order of the data."""
        names = ("y", "prediction", "radius", "right", "counted")
        np.savez(context.run.path / "certificate.npz", **{name: getattr(found, name) for name in names})


def trained_sigma(name: str, models_dir: str | Path) -> float | None:
    """Returns the deviation of the gaussian noise that a model was trained under, by its card; None without."""
    training = Card.parse(card_of(name, models_dir)).training
    # Cards leave out what has its default (`jobs.recipes`).
    return float(training.get("sigma", TrainConfig.sigma)) if training.get("training") == Gaussian.name else None


def untrained(name: str, models_dir: str | Path, sigma: float, noise: str = "gaussian") -> Finding | None:
    """Returns a finding unless the model's card shows that it was trained under the noise that it is certified with."""
    objective = Card.parse(card_of(name, models_dir)).training.get("training")
    trained = trained_sigma(name, models_dir)
    if noise == "gaussian" and sigma == trained:
        return None
    if objective is None:
        known = "Its card, if it has one, doesn't say how it was trained"
    elif trained is not None:
        known = f"Its card says that it was trained under gaussian noise of sigma {trained:g}"
    else:
        known = f"Its card says that it was trained by {objective}"
    advice = (
        f"kerasrobust train --training gaussian --sigma {sigma:g} trains one"
        if noise == "gaussian"
        else "train it on images with such noise"
    )
    return Finding(
        code="noise-not-trained",
        message=(
            f"{known}, and it is certified under {noise} noise of sigma {sigma:g}. The "
            "certificate holds all the same, but it is one of this network under such noise, which it may hardly "
            f"recognise images in: {advice}."
        ),
        severity="warning",
        evidence={"sigma": sigma} | ({} if trained is None else {"trained": trained}),
    )
