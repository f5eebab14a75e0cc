"""What commands do with people's data: fewer classes than the model's, defaults that follow model, data and attack."""

from __future__ import annotations

import json
from pathlib import Path

import keras
import numpy as np
import pytest
from cli import call

from kerasrobust.config import TrainConfig
from kerasrobust.data.dataset import Dataset
from kerasrobust.errors import InputError
from kerasrobust.events import Event, Log
from kerasrobust.jobs.train import make_network

pytest_plugins = ["cli_fixtures"]

COUNT = 60
PIXELS = np.random.default_rng(0).integers(0, 256, (COUNT, 8, 8, 3), dtype=np.uint8)
LABELS = np.arange(COUNT) % 4


@pytest.fixture(scope="module")
def four(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of a small model of four classes, and beside it data of four, three and five."""
    folder = tmp_path_factory.mktemp("four")
    keras.utils.set_random_seed(0)
    layers = [keras.Input((8, 8, 3)), keras.layers.Flatten(), keras.layers.Dense(4)]
    keras.Sequential(layers, name="four").save(folder / "four.keras")
    np.savez(folder / "4.npz", x=PIXELS, y=LABELS)
    np.savez(folder / "3.npz", x=PIXELS, y=LABELS % 3)
    np.savez(folder / "5.npz", x=PIXELS, y=np.arange(COUNT) % 5)
    return folder


def _data(classes: int) -> Dataset:
    names = tuple(map(str, range(classes)))
    return Dataset(name="own", split="all", images=PIXELS, labels=np.arange(COUNT) % classes, class_names=names)


@pytest.mark.parametrize("classes", [1, 3, 4])
def test_a_training_goes_on_from_a_model_of_as_many_classes_or_more(four: Path, classes: int) -> None:
    events: list[Event] = []
    network = make_network(TrainConfig(model=str(four / "four.keras")), _data(classes), events.append)
    assert network.output_shape == (None, 4)
    said = [event.message for event in events if isinstance(event, Log)]
    assert said == ([] if classes == 4 else [f"The data have {classes} of the model's 4 classes."])


@pytest.mark.parametrize("classes", [5, 9])
def test_not_from_one_of_fewer(four: Path, classes: int) -> None:
    with pytest.raises(InputError, match=rf"at least {classes} classes, as many as 'own' has.*four\.keras with 4"):
        make_network(TrainConfig(model=str(four / "four.keras")), _data(classes))


def test_such_a_training_ends_with_a_model(four: Path, tmp_path: Path) -> None:
    places = ["--runs-dir", tmp_path / "runs", "--models-dir", tmp_path / "models"]
    words = ["train", "--model", four / "four.keras", "--data", four / "3.npz", "--split", "train[:40]"]
    done = call(
        *words, "--test-split", "test[40:]", "--epochs", "1", "--validation-share", "0.2", "--name", "t", *places
    )
    assert done.status == 0, done.err
    card = json.loads((tmp_path / "models/t/card.json").read_text())
    assert len(card["data"]["classes"]) == 3
    assert keras.models.load_model(tmp_path / "models/t/model.keras").output_shape == (None, 4)
