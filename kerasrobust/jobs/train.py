"""The command `train`: data, network, training, the card's accuracies, a saved model."""

from __future__ import annotations

import dataclasses
import math
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kerasrobust.attacks import PGD
from kerasrobust.config import TrainConfig
from kerasrobust.data.dataset import Dataset
from kerasrobust.data.load import load_dataset
from kerasrobust.data.pipeline import train_pipeline, unwatched
from kerasrobust.errors import InputError, unknown_name
from kerasrobust.evaluation.evaluate import Evaluation
from kerasrobust.events import Emit, Finding, Log, ModelSaved
from kerasrobust.jobs.attack import evaluate_with_events, save_examples
from kerasrobust.jobs.context import Context
from kerasrobust.jobs.job import Job
from kerasrobust.jobs.recipes import recipe_of
from kerasrobust.jobs.subject import load_model
from kerasrobust.names import ARCHITECTURES
from kerasrobust.networks import saving
from kerasrobust.networks.adapters.choosing import COUNTS
from kerasrobust.networks.adapters.inputs import adapted
from kerasrobust.networks.adapters.ranges import understood
from kerasrobust.networks.architectures import build_model
from kerasrobust.networks.classifier import Classifier
from kerasrobust.networks.cloning import trainable
from kerasrobust.networks.images import check_fits
from kerasrobust.networks.logits import ending
from kerasrobust.networks.making import classifier_of
from kerasrobust.networks.randomizing import randomize
from kerasrobust.networks.remarks import by_severity
from kerasrobust.runs import read_json, write_json
from kerasrobust.show.figures import format_accuracy
from kerasrobust.training import OBJECTIVES, AdversarialModel, Objective
from kerasrobust.training.adversarial import training_precision
from kerasrobust.training.alarms import Alarms
from kerasrobust.training.callbacks import BestEpoch, DataOrder, EventCallback
from kerasrobust.training.labels import CrossEntropy, check_range, range_taken
from kerasrobust.training.optimizers import learning_rate, optimizer_for
from kerasrobust.training.schedules import StepsSchedule
from kerasrobust.twins import MEANING

CARD_STEPS, CARD_RESTARTS, CARD_EOT = 20, 5, 20
"""The card's attack: PGD-20 at the training's epsilon, 5 restarts; for a randomized network EOT over 20 passes."""

ADR_AVERAGE = 0.995
"""As its authors have it at batches of 128."""

EXAMPLES = 500
"""The first test images, in `examples.h5`: enough to look at and to compare trainings by, at 12 MB for CIFAR-10."""


@dataclass(frozen=True)
class TrainData:
    """The data of a training: to learn from, to choose the best epoch by, and to measure the card on."""

    train: Dataset
    validation: Dataset
    test: Dataset


class TrainJob(Job[TrainConfig]):
    """Trains a network and saves it."""

    def check(self) -> None:
        self.name = self.config.name or self.context.run.name
        self.target = self.config.models_dir / self.name
        check_free(self.target, self.config.overwrite)
        make_objective(self.config, 1)  # Refuses what doesn't fit before anything is loaded.
        steps_schedule(self.config)
        self.data = load_train_data(self.config, self.context)
        self.network = make_network(self.config, self.data.train, self.context.emit)

    def run(self) -> dict[str, Any]:
        context, config, data, network, name = self.context, self.config, self.data, self.network, self.name
        with context.stage("train", f"Training {name}"):
            arithmetic = fit(context, config, data, network, context.run.path / "training")
        context.check()
        with context.stage("evaluate", f"Measuring {name} on {len(data.test):,} test images"):
            evaluation = measure(context, config, data, network)
        context.check()
        card = make_card(context, config, data, evaluation, name) | {"training_precision": arithmetic}
        with context.stage("save", f"Saving {name}"):
            # Before the model, which a second start of this run would refuse to replace.
            save_examples(context, "examples.h5", name, data.test, evaluation.attacks, EXAMPLES)
            saving.save_model(network, self.target, card, overwrite=config.overwrite)
        context.emit(ModelSaved(name=name, path=str(self.target), card=card))
        return context.publish(context.header() | card)


def check_free(target: Path, overwrite: bool) -> None:
    """Raises InputError if there is a model of this name already."""
    if target.exists() and not overwrite:
        raise InputError(
            f"Expected a name that no saved model has. Received: {target.name!r}, which is in {target.parent}. "
            "Choose another --name, or replace it with --overwrite."
        )


def load_train_data(config: TrainConfig, context: Context) -> TrainData:
    """Loads the data and keeps a share of the training images aside, the same ones for every seed and recipe."""
    loaded, test = (
        load_dataset(
            config.data, split, data_dir=config.data_dir, keys=config.keys, size=config.size, emit=context.emit
        )
        for split in (config.split, config.test_split)
    )
    if loaded.labels.ndim == 2:
        raise InputError(
            f"Expected one class an image to train on. Received: several labels an image in {config.data!r}. "
            "Train in Python: AdversarialModel takes them, with a loss such as BinaryCrossentropy."
        )
    aside = round(config.validation_share * len(loaded))
    if not 1 <= aside < len(loaded):
        raise InputError(
            f"Expected enough images to keep some aside for validation. Received: {len(loaded)}, of which "
            f"{config.validation_share:g} is {aside}. Take more images or another --validation-share."
        )
    order = np.random.default_rng(0).permutation(len(loaded))
    train, validation = (
        dataclasses.replace(loaded, images=loaded.images[part], labels=loaded.labels[part])
        for part in (np.sort(order[aside:]), np.sort(order[:aside]))
    )
    shared = _shared(test.images, loaded.images)
    if shared > 0.01:  # A few duplicates are normal; overlapping splits have hundreds.
        context.emit(
            Finding(
                code="test-in-training",
                severity="warning",
                message=(
                    f"{format_accuracy(shared)} of the test images are among the training images, so the accuracies "
                    "say nothing about new images. Give --split and --test-split that don't overlap, such as "
                    "'train[:80%]' and 'test[80%:]'."
                ),
                evidence={"share": shared},
            )
        )
    return TrainData(train, validation, test)


def _shared(images: np.ndarray, others: np.ndarray) -> float:
    """Returns the share of images that are also among the others, pixel by pixel."""
    known = {zlib.crc32(image.tobytes()) for image in others}
    return float(np.mean([zlib.crc32(image.tobytes()) in known for image in images]))


def make_network(config: TrainConfig, data: Dataset, emit: Emit | None = None) -> keras.Model:
    """Builds the architecture, or loads the saved model to start from, and randomizes it if asked to."""
    keras.utils.set_random_seed(config.seed)
    if config.model in ARCHITECTURES:
        network = build_model(
            config.model,
            image_shape=data.images.shape[1:],
            classes=data.classes,
            widths=config.widths,
            depth=config.depth,
            width=config.width,
            convolutions=config.convolutions,
            pooling=config.pooling,
            activation=config.activation,
            stem=config.stem,
        )
    elif Path(config.model).exists() or (config.models_dir / config.model).exists():
        loaded = load_model(config, emit)
        if not isinstance(loaded, keras.Model):
            raise InputError(
                f"Expected a Keras model to train on from. Received: {config.model}, whose graph is fixed. "
                "Give the .keras file it was made from, with --code FILE.py if that needs code."
            )
        classifier = classifier_of(loaded, image_shape=data.images.shape[1:])
        known = classifier.classes
        if classifier.labels is not None:
            raise InputError(
                f"Expected a model of classes to train on from. Received: {config.model} with labels by themselves "
                "(multi-label). Train it in Python: AdversarialModel takes it, with a loss such as BinaryCrossentropy."
            )
        if data.classes > known:
            raise InputError(
                f"Expected a model of at least {data.classes} classes, as many as {data.name!r} has. "
                f"Received: {config.model} with {known}. Choose the data that the model was trained on."
            )
        check_fits(classifier, data.images.shape[1:], data.y)
        some = data[: COUNTS[-1]]
        classifier = understood(classifier, some.x, some.y)
        if classifier.probed.outputs == "regression":
            raise InputError(
                f"Expected a model of logits, softmax or sigmoid to train on from. Received: {config.model}, which "
                "gives a number near 0 or 1. Put keras.layers.Rescaling(4, offset=-2) behind it, which makes a logit."
            )
        for severity, notes in by_severity(classifier.notes).items():
            if emit is not None:
                emit(Log(level=severity, message=notes))
        network = in_unit_range(classifier, data.images.shape[1:])
        if emit is not None and data.classes < known:
            emit(Log(level="info", message=f"The data have {data.classes} of the model's {known} classes."))
    else:
        raise unknown_name("architecture or saved model", config.model, ARCHITECTURES)
    return network if config.randomize is None else randomize(network, config.randomize)


def in_unit_range(classifier: Classifier, shape: tuple[int, ...]) -> keras.Model:
    """Returns the network of images in [0, 1] that a model becomes, to be trained or to teach.

    Raises:
        InputError: where another range shows that nobody has said, and noise kept images from telling.
    """
    network = adapted(trainable(classifier.model), classifier.adapter, shape)
    known = classifier.repeats or classifier.conventions.input_range != "auto"
    if known and range_taken(network) != "0,1":
        # Its first layer looks like another range, but it is [0, 1]. Rescaling(1.0) keeps it from showing.
        layers = [keras.Input(shape), keras.layers.Rescaling(1.0), network]
        network = keras.Sequential(layers, name=network.name)
    check_range(network)
    return network


def make_objective(config: TrainConfig, steps_per_epoch: int) -> Objective:
    """Returns the training objective that a config describes."""
    kind = OBJECTIVES[config.training]
    settings: dict[str, Any] = {
        "epsilon": float(config.epsilon),
        "norm": config.norm,
        "clean_share": config.clean_share,
        "warmup_steps": round(config.warmup_epochs * steps_per_epoch),
        "awp": config.awp,
        "steps": config.steps,
        "replays": config.steps,
        "step_size": None if config.step_size is None else float(config.step_size),
        "attack_loss": config.attack_loss,
        "sigma": config.sigma,
    }
    if config.beta is not None:
        settings["beta"] = config.beta
    taken = {field.name for field in dataclasses.fields(kind)}
    if config.training == "standard":  # Its epsilon is for validation only, and there is no attack to be kept from.
        taken -= {"clean_share", "warmup_steps"}
    return kind(**{name: value for name, value in settings.items() if name in taken})


def fit(context: Context, config: TrainConfig, data: TrainData, network: keras.Model, folder: Path) -> str:
    """Trains a network in place and leaves it at its best epoch; returns the precision of the attack inside.

    Resumes after the last whole epoch that `folder` holds, and trains nothing if that was the last one.
    """
    folder.mkdir(parents=True, exist_ok=True)
    precision = _fixed_precision(context, config, data, network, folder)
    done = folder / "done.json"
    if (before := read_json(done)) is not None:
        network.load_weights(folder / "best.weights.h5")
        context.emit(Log(level="info", message=f"Trained before: {before['summary']}"))
        return precision
    batch_size = min(config.batch_size, len(data.train))
    steps_per_epoch = len(data.train) // batch_size
    objective = make_objective(config, steps_per_epoch)
    model = AdversarialModel(
        network,
        objective,
        seed=config.seed,
        precision=precision,
        average=average_of(config),
        teacher=None if config.teacher is None else load_teacher(config.teacher, context, config, data.train),
    )
    rate = learning_rate(config.schedule, config.learning_rate, steps_per_epoch * config.epochs * objective.replays)
    model.compile(
        optimizer_for(network, config.optimizer, rate, config.weight_decay),
        CrossEntropy(ending(network) == "sigmoid", config.label_smoothing),
    )
    model.build(data.train.images.shape)
    # In clean training robust accuracy is near 0 from the first epoch to the last: nothing to choose by.
    monitor = "val_accuracy" if config.training == "standard" else "val_robust_accuracy"
    best = BestEpoch(monitor, folder)
    epoch = tf.Variable(0, dtype=tf.int64, trainable=False)
    every, schedule = validation_period(objective, config), steps_schedule(config)
    model.fit(
        train_pipeline(
            data.train,
            batch_size,
            seed=config.seed,
            augment=config.augment,
            corruptions=config.corruptions,
            epoch=epoch,
        ),
        epochs=config.epochs,
        validation_freq=[number for number in range(1, config.epochs + 1) if (config.epochs - number) % every == 0],
        validation_data=unwatched(
            tf.data.Dataset.from_tensor_slices((data.validation.x, data.validation.y)).batch(batch_size)
        ),
        callbacks=[
            DataOrder(epoch),
            *([] if schedule is None else [schedule]),
            EventCallback(context.emit, context.should_stop, steps_per_epoch),
            best,
            Alarms(context.emit, folder / "alarms.json", len(data.validation)),
            # Two, as a process may die while it writes one.
            keras.callbacks.BackupAndRestore(folder / "backup", double_checkpoint=True),
        ],
        verbose=0,
    )
    summary = f"Kept epoch {best.epoch} of {config.epochs}: {monitor} {format_accuracy(best.best)}."
    write_json(done, {"summary": summary})
    context.emit(Log(level="info", message=summary))
    return precision


def average_of(config: TrainConfig) -> float:
    """Returns how much of the moving average is kept: what was said, or what the objective needs."""
    if config.average is not None:
        return config.average
    return ADR_AVERAGE if OBJECTIVES[config.training].wants_average else 0.0


def validation_period(objective: Objective, config: TrainConfig) -> int:
    """Returns after how many epochs each validation comes, so that it costs about a tenth of a long training."""
    if config.epochs < 10:
        return 1
    validated = (objective.validation_steps + 1) * config.validation_share
    return math.ceil(10 * validated / ((1 - config.validation_share) * objective.passes()))


def steps_schedule(config: TrainConfig) -> StepsSchedule | None:
    """Returns the schedule of the attack's steps, None where nothing is said.

    Raises:
        InputError: unless they are given as EPOCH:STEPS, from epoch 0 on.
    """
    try:
        steps = {int(epoch): int(count) for epoch, count in (part.split(":") for part in config.steps_by_epoch)}
    except ValueError:
        raise InputError(
            f"Expected EPOCH:STEPS for --steps-by-epoch. Received: {' '.join(config.steps_by_epoch)}. Try 0:1 5:2."
        ) from None
    return StepsSchedule(steps) if steps else None


def load_teacher(name: str, context: Context, config: TrainConfig, data: Dataset) -> keras.Model:
    """Returns the network that a training learns from."""
    loaded = saving.load_model(name, models_dir=config.models_dir, code=config.code, emit=context.emit)
    if not isinstance(loaded, keras.Model):
        raise InputError(
            f"Expected a Keras model as the teacher. Received: {name}. Give the .keras file it was made from."
        )
    classifier = classifier_of(loaded, image_shape=data.images.shape[1:])
    if classifier.classes != data.classes:
        raise InputError(
            f"Expected a teacher of {data.classes} classes. Received: {name} with {classifier.classes}. "
            "Choose one that was trained on the same data."
        )
    some = data[: COUNTS[-1]]
    return in_unit_range(understood(classifier, some.x, some.y), data.images.shape[1:])


def _fixed_precision(context: Context, config: TrainConfig, data: TrainData, network: keras.Model, folder: Path) -> str:
    """Returns the precision of the training: when it is resumed, that of its first start."""
    path = folder / "precision.json"
    if (before := read_json(path)) is not None:
        return str(before["precision"])
    chosen = training_precision(network, config.precision, data.train[:128].x, context.emit)
    write_json(path, {"precision": chosen})
    message = f"The attack's gradients are computed {MEANING[chosen]}; weights are float32."
    context.emit(Log(level="info", message=message))
    return chosen


def measure(context: Context, config: TrainConfig, data: TrainData, network: keras.Model) -> Evaluation:
    """Attacks a trained network on the test images with the card's attack."""
    randomized = classifier_of(network).randomized
    attack = PGD(
        epsilon=float(config.epsilon),
        norm=config.norm,
        steps=CARD_STEPS,
        restarts=1 if randomized else CARD_RESTARTS,
        eot=CARD_EOT if randomized else 1,
    )
    # Gradients by the dozen per image need larger batches than training does.
    return evaluate_with_events(context, network, data.test, [attack], batch_size=256)


def make_card(
    context: Context, config: TrainConfig, data: TrainData, evaluation: Evaluation, name: str
) -> dict[str, Any]:
    """Returns a trained network's card."""
    return {
        "name": name,
        "data": {"name": data.train.name, "split": config.split, "test_split": config.test_split,
                 "examples": len(data.test), "synthetic": data.test.synthetic, "classes": list(data.test.class_names)},
        "training": recipe_of(config),
        "passes": passes_of(config, len(data.train)),
        "precision": evaluation.precision,
        "randomized": evaluation.randomized,
        "command": context.command,
        "clean_accuracy": evaluation.clean_accuracy,
        "clean_interval": list(evaluation.clean_interval),
        "attacks": [item.entry() for item in evaluation.attacks],
        "robust_accuracy": evaluation.robust_accuracy,
        "robust_interval": list(evaluation.interval),
        "warnings": context.findings,
    }  # fmt: skip


def passes_of(config: TrainConfig, images: int) -> int:
    """Returns the passes of single images through the network that a training of all its epochs takes."""
    objective, schedule = make_objective(config, 1), steps_schedule(config)
    batch_size = min(config.batch_size, images)
    passes = [objective.passes(None if schedule is None else schedule.at(epoch)) for epoch in range(config.epochs)]
    return round(sum(passes) * (images // batch_size) * batch_size)
