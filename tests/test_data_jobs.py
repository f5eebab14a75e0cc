"""What commands do with people's data: fewer classes than the model's, defaults that follow model, data and attack."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from cli import call

import kerasrobust as kr
from kerasrobust import attacks
from kerasrobust.arguments import parse
from kerasrobust.config import AttackConfig, AuditConfig, RandomnessConfig, TrainConfig
from kerasrobust.data.dataset import Dataset
from kerasrobust.errors import InputError
from kerasrobust.events import Event, Log
from kerasrobust.jobs.train import make_network
from kerasrobust.names import ATTACKS
from kerasrobust.runs import data_of
from kerasrobust.show.narrate import is_synthetic

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


# Defaults that follow the model, the data and the attack


@pytest.mark.parametrize(
    ("words", "ball"),
    [
        ("", ("linf", 8 / 255)),
        ("--attack cw", ("l2", 0.5)),
        ("--attack fab,cw", ("l2", 0.5)),
        ("--norm l2", ("l2", 0.5)),
        ("--norm l1 --attack apgd-ce", ("l1", 12.0)),
        ("--norm l0 --attack fmn", ("l0", 24.0)),
        ("--attack cw --epsilon 2", ("l2", 2.0)),
        ("--epsilon 4/255", ("linf", 4 / 255)),
        ("--norm linf --attack deepfool", ("linf", 8 / 255)),
    ],
)
def test_norm_and_radius_follow_the_attack(words: str, ball: tuple[str, float]) -> None:
    config = parse(["attack", "--model", "m", *words.split()])
    assert isinstance(config, AttackConfig) and config.ball == ball


def test_every_attack_has_its_usual_norm() -> None:
    for name, known in ATTACKS.items():
        assert known.norm == attacks.ATTACKS[name].norms[0] if name != "autoattack" else known.norm == "linf"


def test_audit_and_randomness_have_the_radius_of_their_norm() -> None:
    assert AuditConfig(model="m", norm="l2").ball == ("l2", 0.5)
    assert RandomnessConfig(model="m").ball == ("linf", 8 / 255)


def test_in_python_too(four: Path) -> None:
    model = kr.load_model(four / "four.keras")
    for given, norm, radius in (({"norm": "l2"}, "l2", 0.5), ({"attacks": "cw"}, "l2", 0.5), ({}, "linf", 8 / 255)):
        found = kr.evaluate(model, PIXELS[:4], LABELS[:4], audit=False, **given)
        assert [(report.attack.norm, report.epsilon) for report in found.attacks] == [(norm, radius)]


def _attacked(four: Path, tmp_path: Path, *words: str | Path) -> dict[str, Any]:
    places = ["--runs-dir", tmp_path / "runs", "--models-dir", four]
    done = call("attack", "--name", "a", "--attack", "fgsm", *places, *words)
    assert done.status == 0, done.err
    found: dict[str, Any] = json.loads((tmp_path / "runs/a/result.json").read_text())
    return found


@pytest.mark.parametrize(("count", "split"), [(60, "all"), (1100, "all[:1000]")])
def test_without_a_split_an_own_file_is_attacked_whole(four: Path, tmp_path: Path, count: int, split: str) -> None:
    np.savez(tmp_path / "own.npz", x=np.resize(PIXELS, (count, 8, 8, 3)), y=np.resize(LABELS, count))
    result = _attacked(four, tmp_path, "--model", four / "four.keras", "--data", tmp_path / "own.npz")
    assert (result["data"]["split"], result["data"]["examples"]) == (split, min(count, 1000))
    assert (result["attacks"][0]["norm"], result["attacks"][0]["epsilon"]) == ("linf", 8 / 255)


@pytest.mark.parametrize("path", [True, False])
def test_without_data_those_of_the_card_are_taken(four: Path, tmp_path: Path, path: bool) -> None:
    model = keras.models.load_model(four / "four.keras")
    kr.save_model(model, tmp_path / "models/mine", {"data": {"name": str(four / "4.npz")}})
    subject = tmp_path / "models/mine" if path else "mine"
    events = _attacked(four, tmp_path, "--model", subject, "--models-dir", tmp_path / "models", "--json")
    assert events["data"] == {"name": str(four / "4.npz"), "split": "all", "examples": 60, "synthetic": False}
    assert "as none were named" in (tmp_path / "runs/a/events.jsonl").read_text()


def test_without_data_and_card_it_is_the_embedded_set(tmp_path: Path) -> None:
    settings = {"kind": "attack", "model": str(tmp_path / "m.keras"), "models_dir": str(tmp_path), "data": None}
    assert data_of(settings) == "shapes" and is_synthetic(settings)
    (tmp_path / "card.json").write_text('{"data": "mnist"}')
    assert data_of(settings) == "mnist" and not is_synthetic(settings)
    assert data_of(settings | {"kind": "import"}) == ""
    assert data_of(settings | {"data": "cifar10"}) == "cifar10"


def test_arrays_of_other_names_on_the_command_line(four: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "own.npz", pixels=PIXELS, digits=LABELS)
    words = ["--model", four / "four.keras", "--data", tmp_path / "own.npz"]
    assert _attacked(four, tmp_path, *words, "--keys", "pixels,digits")["data"]["examples"] == 60


def test_classes_are_numbered_by_their_names_as_on_the_card(four: Path, tmp_path: Path) -> None:
    """A file of words counts them in alphabetical order; the model's own order may be another, and have more."""
    model = keras.models.load_model(four / "four.keras")
    names = ["dog", "ant", "cat", "bee"]
    kr.save_model(model, tmp_path / "models/mine", {"data": {"name": "pets", "classes": names}})
    known = model.predict(PIXELS / np.float32(255), verbose=0).argmax(axis=1)
    for kept in (known >= 0, known != known[0]):  # With all classes, and without one.
        np.savez(tmp_path / "own.npz", x=PIXELS[kept], y=np.array(names)[known[kept]])
        words = ["--data", tmp_path / "own.npz", "--overwrite", "--models-dir", tmp_path / "models"]
        assert _attacked(four, tmp_path, "--model", "mine", *words)["clean_accuracy"] == 1
    np.savez(tmp_path / "own.npz", x=PIXELS, y=np.array([*names[:3], "eel"])[known])  # One that it doesn't know.
    words = ["--data", tmp_path / "own.npz", "--overwrite", "--models-dir", tmp_path / "models"]
    assert _attacked(four, tmp_path, "--model", "mine", *words)["clean_accuracy"] < 1
