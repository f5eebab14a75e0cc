"""The commands `study` and `demo`: networks trained, attacked and compared, in one table and one report."""

from __future__ import annotations

from typing import Any, Literal

import keras

from kerasrobust import presets
from kerasrobust.attacks import FGSM, PGD, Attack, DeepFool
from kerasrobust.config import StudyConfig, TrainConfig
from kerasrobust.evaluation.evaluate import Evaluation
from kerasrobust.evaluation.matched import Measured, does_randomness_help
from kerasrobust.evaluation.steered import steered
from kerasrobust.events import Log, ModelSaved, Row, as_dict
from kerasrobust.jobs import train
from kerasrobust.jobs.attack import evaluate_with_events, save_examples, strips
from kerasrobust.jobs.job import Job
from kerasrobust.jobs.recipes import is_trained_as, recipe_of
from kerasrobust.jobs.rows import REFERENCE, study_rows
from kerasrobust.jobs.subject import describe_data
from kerasrobust.networks import saving
from kerasrobust.networks.making import classifier_of
from kerasrobust.runs import read_card, write_json
from kerasrobust.settings import to_dict
from kerasrobust.show.report import ExampleStrip

EXAMPLES = 64
"""Images per network and attack in its file of examples: enough to look through, and a study stays a few MB."""

STRIPS = 3
"""Images in the report, per network and attack."""


class StudyJob(Job[StudyConfig]):
    """Trains and attacks the networks, one after another."""

    def check(self) -> None:
        self.recipes = presets.study_recipes(self.config)
        self.data = train.load_train_data(next(iter(self.recipes.values())), self.context)
        for recipe in self.recipes.values():
            train.make_network(recipe, self.data.train)

    def run(self) -> dict[str, Any]:
        context, config, test = self.context, self.config, self.data.test
        rows: list[dict[str, Any]] = []
        shown: list[ExampleStrip] = []
        precisions: dict[str, str | None] = {}
        measured: dict[str, Measured] = {}
        for name, recipe in self.recipes.items():
            context.check()
            network = self._trained(name, recipe)
            kept, images = self._attacked(name, recipe, network)
            rows += kept["rows"]
            shown += images
            precisions[name] = kept.get("precision")
            if name in self._compared:
                measured[name] = Measured.parse(kept["measured"])
            if recipe.randomize is not None:
                for noise in ("off", "frozen"):
                    rows += self._steered(name, recipe, network, noise)
        answer = does_randomness_help(*(measured[name] for name in self._compared)) if self._compared else ""
        result = {
            **context.header(),
            "data": describe_data(test),
            "precision": config.precision,
            "precisions": precisions,
            "rows": rows,
            **({"verdict": answer} if answer else {}),
            "warnings": context.findings,
        }
        recipes = {name: recipe_of(recipe) for name, recipe in self.recipes.items()}
        context.publish(
            result,
            examples=shown,
            title=f"Robustness of {len(recipes)} networks on {test.name}",
            settings=to_dict(config) | {"recipes": recipes},
        )
        if answer:
            context.emit(Log(level="info", message=f"Does randomness help? {answer}"))
        return result

    def _trained(self, name: str, recipe: TrainConfig) -> keras.Model:
        """Returns a trained network: from this run's earlier start, from --models-dir, or trained now."""
        context = self.context
        stage, title = f"train-{name}", f"Training {name}"
        target = context.run.path / "models" / name
        if (done := context.finished(stage)) is not None:
            context.skip(stage, title)
            # Its own first: the folder of runs may have been moved since.
            return saving.load_model(target if target.exists() else done["path"])
        path = self.config.models_dir / name
        saved = read_card(path)
        if saved is not None and is_trained_as(saved, recipe) and not self.config.retrain:
            network = saving.load_model(path)
            context.skip(stage, f"{title}: taken from {path}, trained with the same settings")
            context.keep(stage, {"path": str(path.resolve())})
            return network
        with context.stage(stage, title):
            network = train.make_network(recipe, self.data.train)
            train.fit(context, recipe, self.data, network, context.run.path / "training" / name)
            # The accuracies come into the card after the attacks; saved now, the training is safe.
            card = {"name": name, "command": context.command, "seed": recipe.seed, "training": recipe_of(recipe)}
            saving.save_model(network, target, card, overwrite=True)
            context.keep(stage, {"path": str(target)})
        return saving.load_model(target)

    def _attacked(
        self, name: str, recipe: TrainConfig, network: keras.Model
    ) -> tuple[dict[str, Any], list[ExampleStrip]]:
        """Returns what is kept of one network's attacks, and images, from this run's earlier start or measured now."""
        context, test = self.context, self.data.test
        stage, title = f"attack-{name}", f"Attacking {name} on {len(test):,} test images"
        images = f"examples/{name}.h5"
        path = context.run.path / images
        done = context.finished(stage)
        # Earlier versions kept no verdict on each image.
        if done is not None and path.exists() and (name not in self._compared or "measured" in done):
            context.skip(stage, title)
            done["rows"] = [self._again(row, name) for row in done["rows"]]
            return done, strips(path, STRIPS)
        with context.stage(stage, title):
            evaluation = evaluate_with_events(context, network, test, self._attacks(recipe), named=name)
            rows = [self._told(found) for found in study_rows(name, recipe, evaluation, self.radii)]
            shown = [item for item in evaluation.attacks if item.attack.minimum_norm or item.epsilon == self.reference]
            save_examples(context, images, name, test, shown, EXAMPLES)
            self._complete_card(name, evaluation)
            kept: dict[str, Any] = {"rows": rows, "precision": evaluation.precision}
            if name in self._compared:
                kept["measured"] = Measured.of(evaluation, self.reference).as_json()
            context.keep(stage, kept)
        return kept, strips(path, STRIPS)

    def _steered(
        self, name: str, recipe: TrainConfig, network: keras.Model, noise: Literal["off", "frozen"]
    ) -> list[dict[str, Any]]:
        """Returns the rows of a randomized network with its noise off or frozen: clean, and PGD where all compare."""
        context, test, config = self.context, self.data.test, self.config
        how = "off" if noise == "off" else "frozen to one draw"
        stage, title = f"attack-{name}-{noise}", f"Attacking {name} with its noise {how}"
        if (done := context.finished(stage)) is not None:
            context.skip(stage, title)
            return [self._again(row, name) for row in done["rows"]]
        with context.stage(stage, title):
            silent = steered(classifier_of(network), noise, test.x.shape[1:], config.seed)
            # The reasons for doubt are those of the network with its noise.
            attacks = [PGD(epsilon=self.reference, steps=config.steps)]
            evaluation = evaluate_with_events(context, silent, test, attacks, audit=False)
            rows = [self._told(found) for found in study_rows(name, recipe, evaluation, self.radii, noise)]
            context.keep(stage, {"rows": rows})
        return rows

    def _told(self, row: Row) -> dict[str, Any]:
        """Emits a row, and returns it as `result.json` has it."""
        self.context.emit(row)
        return {key: value for key, value in as_dict(row).items() if key not in ("schema", "type", "time", "stage")}

    def _again(self, row: dict[str, Any], name: str) -> dict[str, Any]:
        """Says a row of an earlier start; one of an earlier version lacks the network's name."""
        return self._told(Row(**{"name": name} | row))

    @property
    def _compared(self) -> tuple[str, ...]:
        """The randomized network and the matched one, if both are trained."""
        pair = presets.RANDOMIZED, presets.MATCHED
        return pair if all(name in self.recipes for name in pair) else ()

    @property
    def radii(self) -> list[float]:
        return [float(epsilon) for epsilon in self.config.epsilons]

    @property
    def reference(self) -> float:
        """The radius at which the networks are compared: 8/255 if it is among them, else the largest."""
        return REFERENCE if REFERENCE in self.radii else max(self.radii)

    def _attacks(self, recipe: TrainConfig) -> list[Attack]:
        """Returns the attacks on one network. EOT, which is expensive, is for the reference radius only."""
        steps = self.config.steps
        chosen: list[Attack] = [FGSM(epsilon=radius) for radius in self.radii]
        chosen += [PGD(epsilon=radius, steps=steps) for radius in self.radii]
        if recipe.randomize is None:
            return [*chosen, DeepFool(norm="linf")]
        return [*chosen, PGD(epsilon=self.reference, steps=steps, eot=self.config.eot)]

    def _complete_card(self, name: str, evaluation: Evaluation) -> None:
        """Writes the accuracies into the card of a network that this run has trained."""
        folder = self.context.run.path / "models" / name
        card = read_card(folder)
        if card is None:  # Taken from --models-dir, where the card has its own figures.
            return
        test = self.data.test
        # At the reference radius; the evaluation's own figure is over all radii.
        inside = [report for report in evaluation.attacks if report.epsilon == self.reference]
        worst = min(inside, key=lambda report: report.robust_accuracy)
        card |= {
            "data": {"name": test.name, "test_split": test.split, "examples": len(test), "synthetic": test.synthetic},
            "clean_accuracy": evaluation.clean_accuracy,
            "clean_interval": list(evaluation.clean_interval),
            "attacks": [report.entry() for report in evaluation.attacks],
            "robust_accuracy": worst.robust_accuracy,
            "robust_interval": list(worst.interval),
            "warnings": self.context.findings,
        }
        write_json(folder / "card.json", card)
        self.context.emit(ModelSaved(name=name, path=str(folder), card=card))
