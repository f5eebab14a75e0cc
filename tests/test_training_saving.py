"""An `AdversarialModel` is saved as its network, or as a whole: with it a training goes on as if it had never ended."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from conftest import SHAPE, images
from keras import layers as L

from kerasrobust.networks.architectures import build_model
from kerasrobust.training import FGSM, OBJECTIVES, PGD, AdversarialModel, Objective
from kerasrobust.training.labels import CrossEntropy

X = images(48, seed=7)
Y = (X.mean(axis=(1, 2, 3)) > np.median(X.mean(axis=(1, 2, 3)))).astype(np.int64)
EPOCHS = 4


def fresh(precision: str = "float32", objective: Objective | None = None, **compiled: Any) -> AdversarialModel:
    keras.utils.set_random_seed(2)
    network = build_model("convnet", image_shape=SHAPE, classes=2, widths=(4,))
    model = AdversarialModel(network, objective or FGSM(epsilon=0.05, warmup_steps=9), seed=3, precision=precision)
    model.compile(keras.optimizers.SGD(0.05, momentum=0.9), **compiled)
    return model


def fit(model: AdversarialModel, epochs: int = EPOCHS, first: int = 0, *callbacks: keras.callbacks.Callback) -> Any:
    settings: dict[str, Any] = {"batch_size": 16, "shuffle": False, "verbose": 0, "initial_epoch": first}
    return model.fit(X, Y, epochs=epochs, callbacks=list(callbacks), **settings).history


def same(one: AdversarialModel, other: AdversarialModel) -> None:
    for mine, theirs in zip(one.network.get_weights(), other.network.get_weights(), strict=True):
        np.testing.assert_array_equal(mine, theirs)
    assert int(one.steps_done) == int(other.steps_done)


@pytest.fixture(scope="module")
def whole() -> AdversarialModel:
    """Trained for four epochs at a stretch."""
    model = fresh()
    fit(model)
    return model


class Killed(Exception):
    """What ends a training in a test."""


class Killer(keras.callbacks.Callback):
    """Ends the training in the middle of an epoch."""

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if int(self.model.steps_done) == 8:
            raise Killed


def test_a_training_that_was_killed_goes_on_from_its_backup(tmp_path: Path, whole: AdversarialModel) -> None:
    with pytest.raises(Killed):
        fit(fresh(), EPOCHS, 0, keras.callbacks.BackupAndRestore(tmp_path), Killer())
    again = fresh()
    history = fit(again, EPOCHS, 0, keras.callbacks.BackupAndRestore(tmp_path))
    assert len(history["loss"]) == 2
    same(again, whole)


def continued(save: Callable[[AdversarialModel], None], load: Callable[[], AdversarialModel]) -> AdversarialModel:
    """Returns a model that was trained for two epochs, saved, loaded, and trained for two more."""
    before = fresh()
    fit(before, 2)
    save(before)
    after = load()
    assert int(after.steps_done) == 6
    fit(after, EPOCHS, 2)
    return after


def test_a_file_of_the_whole_goes_on_training(tmp_path: Path, whole: AdversarialModel) -> None:
    path = tmp_path / "whole.keras"
    after = continued(lambda model: keras.saving.save_model(model, path), lambda: keras.saving.load_model(path))
    same(after, whole)
    assert type(after) is AdversarialModel
    assert (after.objective, after.seed, after.precision) == (whole.objective, 3, "float32")


def test_weights_of_the_whole_go_on_training(tmp_path: Path, whole: AdversarialModel) -> None:
    """As `ModelCheckpoint(save_weights_only=True)` keeps them."""
    path = tmp_path / "last.weights.h5"

    def load() -> AdversarialModel:
        model = fresh()
        model.optimizer.build(model.trainable_variables)
        model.load_weights(path)
        return model

    same(continued(lambda model: model.save_weights(path), load), whole)


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_save_keeps_its_promise(suffix: str, tmp_path: Path, whole: AdversarialModel) -> None:
    """The inner network, by `save` and so by ModelCheckpoint."""
    whole.save(tmp_path / f"inner{suffix}")
    loaded = keras.saving.load_model(tmp_path / f"inner{suffix}", compile=False)
    assert not isinstance(loaded, AdversarialModel)
    for mine, theirs in zip(loaded.get_weights(), whole.network.get_weights(), strict=True):
        np.testing.assert_array_equal(mine, theirs)


CONFIGS: dict[str, Objective] = {
    "standard": OBJECTIVES["standard"](epsilon=0.1),
    "fgsm": FGSM(epsilon=0.5, norm="l2", clean_share=0.25),
    "pgd": PGD(epsilon=0.05, steps=3, step_size=0.02, warmup_steps=7, validation_steps=2),
}


@pytest.mark.parametrize("kind", CONFIGS)
def test_configs_are_made_of_and_into_models(kind: str) -> None:
    model = fresh("auto", CONFIGS[kind], loss=CrossEntropy(binary=False, name="mine"))
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(model))
    assert (again.objective, again.seed, again.precision, again.name) == (CONFIGS[kind], 3, "auto", model.name)
    assert again.network.get_config() == model.network.get_config()
    assert again.optimizer.get_config() == model.optimizer.get_config()
    copy = AdversarialModel.from_config(model.get_config())
    assert copy.objective == CONFIGS[kind]


@keras.saving.register_keras_serializable("mine")
class Doubled(L.Layer):
    """A layer of one's own inside."""

    def call(self, x: Any) -> Any:
        return 2 * x


def test_own_layers_inside_are_kept() -> None:
    network = keras.Sequential([keras.Input(SHAPE), Doubled(), L.Flatten(), L.Dense(1, activation="sigmoid")])
    model = AdversarialModel(network)
    model.compile("adam")
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(model))
    again.network.set_weights(network.get_weights())
    np.testing.assert_array_equal(again.predict(X[:4], verbose=0), model.predict(X[:4], verbose=0))
    assert again.evaluate(X[:16], Y[:16], verbose=0) == pytest.approx(model.evaluate(X[:16], Y[:16], verbose=0))


def test_another_process_loads_the_whole(tmp_path: Path, whole: AdversarialModel) -> None:
    path = tmp_path / "whole.keras"
    keras.saving.save_model(whole, path)
    load = f"print(keras.saving.load_model({str(path)!r}).objective)"
    code = f"import keras; from kerasrobust import AdversarialModel; {load}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert repr(whole.objective) in done.stdout, done.stderr[-500:]
