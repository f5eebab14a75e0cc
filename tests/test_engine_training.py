"""Trainings from one end to the other, in seconds: what they leave behind, and that they repeat."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import h5py
import numpy as np
import pytest
import tensorflow as tf
from schemas import faults, faults_of_run
from whole_runs import ENTRY, nothing_half_written, share, stages_of, unheard

from kerasrobust import presets
from kerasrobust.config import TrainConfig
from kerasrobust.data.load import load_dataset
from kerasrobust.errors import Cancelled, InputError
from kerasrobust.events import (
    Event,
    ExamplesSaved,
    Metrics,
    ModelSaved,
)
from kerasrobust.jobs import engine, recipes, train
from kerasrobust.networks.architectures import build_model
from kerasrobust.networks.saving import load_model
from kerasrobust.settings import to_dict
from kerasrobust.show.examples import read_index

pytest_plugins = ["cli_fixtures"]


def train_config(folder: Path, **settings: Any) -> TrainConfig:
    defaults: dict[str, Any] = {
        "name": "net", "widths": (4, 8), "epochs": 2, "batch_size": 32, "split": "train[:200]",
        "test_split": "test[:30]", "validation_share": 0.2, "learning_rate": 0.01,
        "runs_dir": folder / "runs", "models_dir": folder / "models",
    }  # fmt: skip
    return TrainConfig(**(defaults | settings))


def noisy_config(folder: Path, **settings: Any) -> TrainConfig:
    noisy: dict[str, Any] = {"training": "fgsm", "randomize": 0.15, "clean_share": 0.25, "seed": 3}
    return train_config(folder, precision="folded", **noisy, **settings)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Event], dict[str, Any]]:
    """A folder of runs and models with one training, its events and its result."""
    folder = tmp_path_factory.mktemp("trained")
    seen: list[Event] = []
    result = engine.run(noisy_config(folder), seen.append)
    return folder, seen, result


def test_a_card_says_how_a_network_is_built_where_it_is_not_the_usual_one(tmp_path: Path) -> None:
    """Cards from before those settings are still those of today's recipes, so the study takes their networks."""
    settings = {"convolutions": 2, "pooling": "average", "activation": "silu"}
    config = train_config(tmp_path, **settings)
    later = {*settings, "stem"}
    assert {key: value for key, value in recipes.recipe_of(config).items() if key in later} == settings
    assert not later & recipes.recipe_of(train_config(tmp_path)).keys()
    data = load_dataset("shapes", "test[:1]")
    built = build_model("convnet", classes=data.classes, widths=(4, 8), **settings)
    made = train.make_network(config, data)
    assert [type(layer) for layer in made.layers] == [type(layer) for layer in built.layers]
    assert made.count_params() == built.count_params()
    assert train.make_network(train_config(tmp_path, model="resnet", stem=2), data).layers[2].output.shape[1] == 16


@pytest.mark.parametrize("name", ["lenet", "convnet-random"])
def test_cards_of_any_version_are_of_their_recipes(name: str) -> None:
    config = presets.get(name)
    training = {key: value for key, value in json.loads(json.dumps(to_dict(config))).items() if key in recipes.RECIPE}
    # Before the later settings, after some of them, and when an empty list of steps was written.
    for later in ({}, {"steps_by_epoch": []}, {"steps_by_epoch": [], "average": None, "stem": 1}):
        assert recipes.is_trained_as({"training": training | later}, config)
    for other in ({"average": 0.99}, {"seed": 1}, {"unknown": 3}):
        assert not recipes.is_trained_as({"training": training | other}, config)
    assert not recipes.is_trained_as({}, config) and not recipes.is_trained_as({"training": "pgd"}, config)
    assert recipes.recipe_of(config) == training


def test_no_image_is_both_trained_and_validated_on(tmp_path: Path) -> None:
    context: Any = SimpleNamespace(emit=lambda event: None)
    config = train_config(tmp_path)
    data = train.load_train_data(config, context)
    trained, validated = ({image.tobytes() for image in part.images} for part in (data.train, data.validation))
    assert (len(data.train), len(data.validation)) == (160, 40)
    assert not trained & validated
    assert trained | validated == {image.tobytes() for image in load_dataset("shapes", "train[:200]").images}


def test_training_leaves_a_model_with_its_card(trained: tuple[Path, list[Event], dict[str, Any]]) -> None:
    top, seen, result = trained
    folder = top / "models" / "net"
    assert {"saved_model.pb", "variables", "model.keras", "card.json"} <= {path.name for path in folder.iterdir()}
    assert callable(tf.saved_model.load(str(folder)).signatures["serving_default"])
    card = json.loads((folder / "card.json").read_text())
    assert faults("card", card) == faults_of_run(top / "runs" / "net") == []
    assert card["schema"] == 1 and card["name"] == "net" and card["randomized"] is True
    assert {"name": "shapes", "split": "train[:200]", "test_split": "test[:30]", "examples": 30}.items() <= card[
        "data"
    ].items()
    assert card["data"]["synthetic"] is True
    trained = {"model": "convnet", "training": "fgsm", "randomize": 0.15, "epochs": 2, "seed": 3, "widths": [4, 8]}
    assert trained.items() <= card["training"].items()
    assert card["precision"] == card["training_precision"] == "folded"
    assert card["command"].startswith("python -m kerasrobust.run train --name net --seed 3")
    assert card["versions"].keys() >= {"python", "tensorflow", "keras", "numpy"}
    assert share(card["clean_interval"][0], card["clean_accuracy"], card["clean_interval"][1])
    assert share(card["robust_interval"][0], card["robust_accuracy"], card["robust_interval"][1])
    (attack,) = card["attacks"]
    assert attack.keys() >= ENTRY and attack["settings"]["eot"] > 1  # The network is a randomized one.
    assert {layer["type"] for layer in card["layers"]} >= {"Conv2D", "RandomDropout", "Dense"}
    assert card["parameters"] == load_model(folder).count_params()
    assert {"schema": 1, "kind": "train", "seed": 3}.items() <= result.items()
    assert result["clean_accuracy"] == card["clean_accuracy"]

    index = read_index(top / "runs" / "net" / "examples.h5")
    assert len(index) == 30 and index.model == "net" and set(index.attack) == {"pgd"} and set(index.eot) == {20}
    assert index.correct_rate.mean() == pytest.approx(card["robust_accuracy"])
    examples = [event for event in seen if isinstance(event, ExamplesSaved)]
    assert [(event.path, event.count) for event in examples] == [("examples.h5", 30)]

    saved = [event for event in seen if isinstance(event, ModelSaved)]
    assert [(event.name, Path(event.path)) for event in saved] == [("net", folder)]
    metrics = [event for event in seen if isinstance(event, Metrics)]
    names = {"loss", "accuracy", "robust_accuracy"}
    for split in ("train", "validation"):
        ends = [event for event in metrics if event.split == split and names <= event.values.keys()]
        assert {event.epoch for event in ends} == {1, 2}
        assert all(math.isfinite(value) for event in ends for value in event.values.values())
    assert any("learning_rate" in event.values for event in metrics)
    assert nothing_half_written(top)
    assert [path.name for path in folder.parent.iterdir()] == ["net"]


def test_a_model_is_replaced_only_when_asked_and_before_anything_is_trained(
    trained: tuple[Path, list[Event], dict[str, Any]], tmp_path: Path
) -> None:
    shutil.copytree(trained[0], tmp_path, dirs_exist_ok=True)
    card = tmp_path / "models" / "net" / "card.json"
    before = card.read_bytes()
    runs_before = sorted(path.name for path in (tmp_path / "runs").iterdir())
    seen: list[Event] = []
    with pytest.raises(InputError, match=r"Received: 'net', a finished run"):
        engine.run(noisy_config(tmp_path), seen.append)
    with pytest.raises(InputError, match=r"a name that no saved model has. Received: 'net'"):
        engine.run(noisy_config(tmp_path, runs_dir=tmp_path / "others"), seen.append)
    assert not any(isinstance(event, Metrics) for event in seen)
    assert list((tmp_path / "others").iterdir()) == []
    assert card.read_bytes() == before and sorted(path.name for path in (tmp_path / "runs").iterdir()) == runs_before
    # Trained on from itself, into its own place.
    again = train_config(tmp_path, overwrite=True, model="net", epochs=1, seed=5)
    engine.run(again, unheard)
    assert json.loads(card.read_text())["training"]["model"] == "net"
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == runs_before
    assert [path.name for path in (tmp_path / "models").iterdir()] == ["net"]


@pytest.mark.parametrize("randomize", [None, 0.2])
def test_equal_seeds_train_equal_networks(randomize: float | None, tmp_path: Path) -> None:
    weights = []
    training = "pgd" if randomize is None else "standard"
    for name in ("a", "b"):
        config = train_config(
            tmp_path,
            name=name,
            training=training,
            widths=(4,),
            steps=2,
            epochs=1,
            seed=9,
            randomize=randomize,
            test_split="test[:8]",
        )
        seen: list[Event] = []
        with pytest.raises(Cancelled):  # The training is what matters here.
            engine.run(config, seen.append, lambda seen=seen: "train" in stages_of(seen))  # type: ignore[misc]
        with h5py.File(tmp_path / "runs" / name / "training" / "best.weights.h5") as file:
            found: dict[str, Any] = {}
            file.visititems(lambda key, item, to=found: to.update({key: item[()]} if hasattr(item, "dtype") else {}))
        weights.append(found)
    one, two = weights
    assert one.keys() == two.keys() and len(one) > 8
    for key, values in one.items():
        np.testing.assert_allclose(values, two[key], rtol=1e-5, atol=1e-6, err_msg=key)


@pytest.mark.parametrize(
    ("settings", "part"),
    [
        ({"training": "trades", "clean_share": 0.5}, "clean share for 'trades'"),
        ({"training": "nfgsm", "norm": "l2"}, "norm 'linf' for 'nfgsm'"),
        ({"training": "pgd", "steps_by_epoch": ("1:2",)}, "from 0"),
        ({"training": "pgd", "steps_by_epoch": ("0:1", "5")}, "EPOCH:STEPS"),
    ],
)
def test_a_recipe_that_does_not_fit_is_refused_before_data_are_read(
    settings: dict[str, Any], part: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=part) as caught:
        engine.run(train_config(tmp_path, data="nowhere", **settings), lambda event: None)
    assert "\n" not in str(caught.value)
