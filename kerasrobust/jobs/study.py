"""The commands `study` and `demo`: five networks trained, attacked and compared, in one table and one report."""

from __future__ import annotations

from typing import Any

import keras

from kerasrobust import presets
from kerasrobust.attacks import FGSM, PGD, Attack, DeepFool
from kerasrobust.config import StudyConfig, TrainConfig
from kerasrobust.evaluation.evaluate import Evaluation
from kerasrobust.evaluation.outcome import surviving
from kerasrobust.events import Log, ModelSaved, Row, as_dict
from kerasrobust.jobs import train
from kerasrobust.jobs.attack import evaluate_with_events, save_examples, strips
from kerasrobust.jobs.job import Job
from kerasrobust.jobs.subject import describe_data
from kerasrobust.networks import saving
from kerasrobust.runs import read_card, write_json
from kerasrobust.settings import to_dict
from kerasrobust.show.report import ExampleStrip
from kerasrobust.stats import accuracy_interval

REFERENCE = 8 / 255
"""The radius that the study of 2023 is about."""

PUBLISHED = {
    ("lenet", "standard", False, None): 0.40,
    ("convnet", "standard", False, None): 0.69,
    ("convnet", "standard", True, "pgd"): 0.1157,
    ("convnet", "pgd", True, "pgd"): 0.2507,
}
"""The figures of the original study on CIFAR-10; its attacks on the randomized networks used no EOT."""

EXAMPLES = 64
"""Images per network and attack in its file of examples: enough to look through, and a study stays a few MB."""

STRIPS = 3
"""Images in the report, per network and attack."""


class StudyJob(Job[StudyConfig]):
    """Trains and attacks the five networks, one after another."""

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
        for name, recipe in self.recipes.items():
            context.check()
            found, images, precisions[name] = self._attacked(name, recipe, self._trained(name, recipe))
            rows += found
            shown += images
        result = {
            **context.header(),
            "data": describe_data(test),
            "precision": config.precision,
            "precisions": precisions,
            "rows": rows,
            "warnings": context.findings,
        }
        recipes = {name: train.recipe_of(recipe) for name, recipe in self.recipes.items()}
        context.publish(
            result,
            examples=shown,
            title=f"Robustness of five networks on {test.name}",
            settings=to_dict(config) | {"recipes": recipes},
        )
        context.emit(Log(level="info", message=f"The report is {context.run.path / 'report.html'}."))
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
        if saved is not None and saved.get("training") == train.recipe_of(recipe) and not self.config.retrain:
            network = saving.load_model(path)
            context.skip(stage, f"{title}: taken from {path}, trained with the same settings")
            context.keep(stage, {"path": str(path.resolve())})
            return network
        with context.stage(stage, title):
            network = train.make_network(recipe, self.data.train)
            train.fit(context, recipe, self.data, network, context.run.path / "training" / name)
            # The accuracies come into the card after the attacks; saved now, the training is safe.
            card = {"name": name, "command": context.command, "seed": recipe.seed, "training": train.recipe_of(recipe)}
            saving.save_model(network, target, card, overwrite=True)
            context.keep(stage, {"path": str(target)})
        return saving.load_model(target)

    def _attacked(
        self, name: str, recipe: TrainConfig, network: keras.Model
    ) -> tuple[list[dict[str, Any]], list[ExampleStrip], str | None]:
        """Returns one network's rows, images and precision, from this run's earlier start or measured now."""
        context, test = self.context, self.data.test
        stage, title = f"attack-{name}", f"Attacking {name} on {len(test):,} test images"
        images = f"examples/{name}.h5"
        path = context.run.path / images
        if (done := context.finished(stage)) is not None and path.exists():
            context.skip(stage, title)
            for row in done["rows"]:
                context.emit(Row(**row))
            return done["rows"], strips(path, STRIPS), done.get("precision")
        with context.stage(stage, title):
            evaluation = evaluate_with_events(context, network, test, self._attacks(recipe))
            rows = self._rows(recipe, evaluation)
            for found in rows:
                context.emit(found)
            shown = [item for item in evaluation.attacks if item.attack.minimum_norm or item.epsilon == self.reference]
            save_examples(context, images, name, test, shown, EXAMPLES)
            self._complete_card(name, evaluation)
            plain = [_plain(found) for found in rows]
            context.keep(stage, {"rows": plain, "precision": evaluation.precision})
        return plain, strips(path, STRIPS), evaluation.precision

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

    def _rows(self, recipe: TrainConfig, evaluation: Evaluation) -> list[Row]:
        """Returns one network's rows: clean accuracy, then the attacks, minimum-norm ones once per radius."""
        randomized = recipe.randomize is not None
        network = (recipe.model, recipe.training, randomized)
        common: dict[str, Any] = {"model": recipe.model, "training": recipe.training, "randomized": randomized}
        published, interval = PUBLISHED.get((*network, None)), list(evaluation.clean_interval)
        rows = [Row(**common, accuracy=evaluation.clean_accuracy, interval=interval, published=published)]
        for report in evaluation.attacks:
            attack = report.attack
            eot = attack.eot if randomized else None
            for radius in self.radii if attack.minimum_norm else [report.epsilon]:
                rates = surviving(attack, report.result, radius)
                is_published = radius == REFERENCE and eot == 1
                rows.append(
                    Row(
                        **common,
                        attack=attack.name,
                        norm=attack.norm,
                        epsilon=radius,
                        steps=attack.step_count(),
                        eot=eot,
                        accuracy=float(rates.mean()),
                        interval=list(accuracy_interval(rates, randomized, report.result.shared)),
                        # Inside a ball the distance is just the ball's radius.
                        median_distance=report.entry()["median_distance"] if attack.minimum_norm else None,
                        published=PUBLISHED.get((*network, attack.name)) if is_published else None,
                    )
                )
        return rows

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
            "attacks": [report.entry() | {"settings": report.attack.settings()} for report in evaluation.attacks],
            "robust_accuracy": worst.robust_accuracy,
            "robust_interval": list(worst.interval),
            "warnings": self.context.findings,
        }
        write_json(folder / "card.json", card)
        self.context.emit(ModelSaved(name=name, path=str(folder), card=card))


def _plain(row: Row) -> dict[str, Any]:
    """Returns a row as `result.json` has it."""
    return {key: value for key, value in as_dict(row).items() if key not in ("schema", "type", "time", "stage")}
