"""The commands `study` and `demo`: five networks trained, attacked and compared, in one table and one report."""

from __future__ import annotations

import json
from typing import Any

import keras

from kerasrobust import presets
from kerasrobust.attacks import FGSM, PGD, Attack, DeepFool
from kerasrobust.config import StudyConfig, TrainConfig, to_dict
from kerasrobust.data.dataset import Dataset
from kerasrobust.evaluation.evaluate import Evaluation
from kerasrobust.evaluation.outcome import AttackReport, surviving
from kerasrobust.events import Log, ModelSaved, Row, as_dict
from kerasrobust.jobs import train
from kerasrobust.jobs.attack import describe_data, evaluate_with_events, save_examples, strips
from kerasrobust.jobs.context import Context
from kerasrobust.jobs.job import Job
from kerasrobust.networks import saving
from kerasrobust.runs import read_card, write_json
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
        """Loads the data and checks that each network can be built for it."""
        self.recipes = presets.study_recipes(self.config)
        self.data = train.load_train_data(next(iter(self.recipes.values())), self.context)
        for recipe in self.recipes.values():
            train.make_network(recipe, self.data.train)

    def run(self) -> dict[str, Any]:
        context, config, data, test = self.context, self.config, self.data, self.data.test
        rows: list[dict[str, Any]] = []
        shown: list[ExampleStrip] = []
        precisions: dict[str, str | None] = {}
        for name, recipe in self.recipes.items():
            context.check()
            network = _trained(context, config, name, recipe, data)
            found, images, precisions[name] = _attacked(context, config, name, recipe, test, network)
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
        context.publish(
            result,
            examples=shown,
            title=f"Robustness of five networks on {test.name}",
            settings=to_dict(config) | {"recipes": {name: _recipe(recipe) for name, recipe in self.recipes.items()}},
        )
        context.emit(Log(level="info", message=f"The report is {context.run.path / 'report.html'}."))
        return result


def _recipe(recipe: TrainConfig) -> dict[str, Any]:
    """Returns the settings of a training that decide which network comes out of it."""
    return {key: value for key, value in json.loads(json.dumps(to_dict(recipe))).items() if key in train.RECIPE}


def _trained(
    context: Context, config: StudyConfig, name: str, recipe: TrainConfig, data: train.TrainData
) -> keras.Model:
    """Returns a trained network: from this run's earlier start, from --models-dir, or trained now."""
    stage, title = f"train-{name}", f"Training {name}"
    target = context.run.path / "models" / name
    if (done := context.finished(stage)) is not None:
        context.skip(stage, title)
        # Its own first: the folder of runs may have been moved since.
        return saving.load_model(target if target.exists() else done["path"])
    saved = read_card(config.models_dir / name)
    if saved is not None and saved.get("training") == _recipe(recipe) and not config.retrain:
        path = config.models_dir / name
        network = saving.load_model(path)
        context.skip(stage, f"{title}: taken from {path}, trained with the same settings")
        context.keep(stage, {"path": str(path.resolve())})
        return network
    with context.stage(stage, title):
        network = train.make_network(recipe, data.train)
        train.fit(context, recipe, data, network, context.run.path / "training" / name)
        # The accuracies come into the card after the attacks; saved now, the training is safe.
        card = {"name": name, "command": context.command, "seed": recipe.seed, "training": _recipe(recipe)}
        saving.save_model(network, target, card, overwrite=True)
        context.keep(stage, {"path": str(target)})
    return saving.load_model(target)


def _attacks(config: StudyConfig, recipe: TrainConfig) -> list[Attack]:
    """Returns the attacks on one network. EOT, which is expensive, is for the reference radius only."""
    radii = [float(epsilon) for epsilon in config.epsilons]
    chosen: list[Attack] = [FGSM(epsilon=radius) for radius in radii]
    chosen += [PGD(epsilon=radius, steps=config.steps) for radius in radii]
    if recipe.randomize is None:
        return [*chosen, DeepFool(norm="linf")]
    return [*chosen, PGD(epsilon=reference(config), steps=config.steps, eot=config.eot)]


def reference(config: StudyConfig) -> float:
    """Returns the radius at which the networks are compared: 8/255 if it is among them, else the largest."""
    radii = [float(epsilon) for epsilon in config.epsilons]
    return REFERENCE if REFERENCE in radii else max(radii)


def _attacked(
    context: Context, config: StudyConfig, name: str, recipe: TrainConfig, test: Dataset, network: keras.Model
) -> tuple[list[dict[str, Any]], list[ExampleStrip], str | None]:
    """Returns one network's rows, images and precision, from this run's earlier start or measured now."""
    stage, title = f"attack-{name}", f"Attacking {name} on {len(test):,} test images"
    images = f"examples/{name}.h5"
    if (done := context.finished(stage)) is not None and (context.run.path / images).exists():
        context.skip(stage, title)
        rows = [Row(**row) for row in done["rows"]]
        for row in rows:
            context.emit(row)
        return done["rows"], strips(context.run.path / images, STRIPS), done.get("precision")
    with context.stage(stage, title):
        evaluation = evaluate_with_events(
            context,
            network,
            test,
            _attacks(config, recipe),
            seed=config.seed,
            batch_size=config.batch_size,
            precision=config.precision,
        )
        rows = _rows(config, recipe, evaluation)
        for row in rows:
            context.emit(row)
        shown = [
            report for report in evaluation.attacks if report.attack.minimum_norm or report.epsilon == reference(config)
        ]
        path = save_examples(context, images, name, test, shown, EXAMPLES)
        _complete_card(context, config, name, evaluation, test)
        plain = [_plain(row) for row in rows]
        context.keep(stage, {"rows": plain, "precision": evaluation.precision})
    return plain, strips(path, STRIPS), evaluation.precision


def _plain(row: Row) -> dict[str, Any]:
    """Returns a row as `result.json` has it."""
    return {key: value for key, value in as_dict(row).items() if key not in ("schema", "type", "time", "stage")}


def _rows(config: StudyConfig, recipe: TrainConfig, evaluation: Evaluation) -> list[Row]:
    """Returns one network's rows: clean accuracy, then each attack; a minimum-norm attack has one for each radius."""
    randomized = recipe.randomize is not None

    def published(attack: str | None, epsilon: float | None, eot: int | None) -> float | None:
        if attack is not None and (epsilon != REFERENCE or eot != 1):
            return None
        return PUBLISHED.get((recipe.model, recipe.training, randomized, attack))

    common: dict[str, Any] = {"model": recipe.model, "training": recipe.training, "randomized": randomized}
    rows = [
        Row(
            **common,
            accuracy=evaluation.clean_accuracy,
            interval=list(evaluation.clean_interval),
            published=published(None, None, None),
        )
    ]
    for report in evaluation.attacks:
        attack = report.attack
        eot = attack.eot if randomized else None
        radii = [float(epsilon) for epsilon in config.epsilons] if attack.minimum_norm else [report.epsilon]
        for radius in radii:
            rates = surviving(attack, report.result, radius)
            rows.append(
                Row(
                    **common,
                    attack=attack.name,
                    norm=attack.norm,
                    epsilon=radius,
                    steps=attack.step_count(),
                    eot=eot,
                    accuracy=float(rates.mean()),
                    interval=list(accuracy_interval(rates, randomized)),
                    median_distance=_median(report),
                    published=published(attack.name, radius, eot),
                )
            )
    return rows


def _median(report: AttackReport) -> float | None:
    """Returns the median distance of a minimum-norm attack; inside a ball the distance is the ball's radius."""
    return report.entry()["median_distance"] if report.attack.minimum_norm else None


def _complete_card(context: Context, config: StudyConfig, name: str, evaluation: Evaluation, test: Dataset) -> None:
    """Writes the accuracies into the card of a network that this run has trained."""
    folder = context.run.path / "models" / name
    card = read_card(folder)
    if card is None:  # Taken from --models-dir, where the card has its own figures.
        return
    # At the radius that networks are compared at; the evaluation's own figure is over all radii.
    inside = [report for report in evaluation.attacks if report.epsilon == reference(config)]
    worst = min(inside, key=lambda report: report.robust_accuracy)
    card |= {
        "data": {"name": test.name, "test_split": test.split, "examples": len(test), "synthetic": test.synthetic},
        "clean_accuracy": evaluation.clean_accuracy,
        "clean_interval": list(evaluation.clean_interval),
        "attacks": [report.entry() | {"settings": report.attack.settings()} for report in evaluation.attacks],
        "robust_accuracy": worst.robust_accuracy,
        "robust_interval": list(worst.interval),
        "warnings": context.findings,
    }
    write_json(folder / "card.json", card)
    context.emit(ModelSaved(name=name, path=str(folder), card=card))
